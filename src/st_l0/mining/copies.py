"""Whether two documents are the same text to the encoder, whatever their spelling."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any


def seen_by(model: Any) -> Callable[[str], Hashable]:
    """What the document side of a model sees of a text: its token ids, as they are cut.

    Args:
        model: A `st_l0.SparseEncoder`. Of what has no document side, the text itself.
    """
    from st_l0.encoder.fused_encoder import FusedEncoder
    from st_l0.encoder.modules import encoder_modules, text_tokenizer

    if not isinstance(model, FusedEncoder):
        return lambda text: text
    tokenizer: Any = text_tokenizer(encoder_modules(model).transformer)
    length = model.max_seq_length
    return lambda text: tuple(tokenizer(text, truncation=length is not None, max_length=length)["input_ids"])
