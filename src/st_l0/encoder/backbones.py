"""Whether a model gives each text one vector, whatever stands beside it."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.base.modules import Transformer

from st_l0.errors import InputError

TEXT = "How does water rise in trees?"
_NEIGHBOUR = " ".join([TEXT] * 4)


@torch.inference_mode()
def check_alone(transformer: Transformer) -> None:
    """Refuse a model that gives a text another vector where a longer text stands beside it in a batch.

    Some mix positions without regard to the attention mask (convolutions, Fourier transforms, pooled or
    hashed attention), and some need more than the tokens of a text. Two short forward passes tell.

    Raises:
        InputError: It is so.
    """
    model: Any = transformer.model
    training = model.training
    model.eval()
    try:
        alone, beside = (first_output(transformer, texts) for texts in ([TEXT], [TEXT, _NEIGHBOUR]))
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"{type(model).__name__} cannot read a plain text ({reason:.200}): give a model of text alone"
        ) from error
    finally:
        model.train(training)
    # What rounding does to the logits, in float32 and in the shorter types, is far below.
    tolerance = 0.01 if alone.dtype == torch.float32 else 0.2
    difference = (alone - beside).abs().max() / alone.float().std()
    if not difference <= tolerance:  # NaN too
        raise InputError(
            f"{type(model).__name__}: the vector of a text depends on the length of its neighbours in a "
            f"batch (by {difference:.2g} standard deviations of a logit): give a model that heeds the "
            "attention mask"
        )


def first_output(transformer: Transformer, texts: list[str]) -> torch.Tensor:
    """The logits of the first text (hidden states of a model without a head), shape ``(tokens, entries)``."""
    tokenizer: Any = transformer.tokenizer
    features = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    model: Any = transformer.model
    features = {name: values.to(model.device) for name, values in features.items()}
    kept = features["attention_mask"][0].bool()
    output: torch.Tensor = model(**features)[0][0][kept]
    return output
