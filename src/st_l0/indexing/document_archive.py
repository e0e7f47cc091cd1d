"""The document side of a model for OpenSearch: a traced network and its tokenizer in one zip."""

from __future__ import annotations

import copy
import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from st_l0.encoder.modules import encoder_modules
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.indexing.query_archive import ARCHIVE, as_served, name_by_id, pack
from st_l0.utils.files import replace_file

_EXTRA_LOGS = {"relu": 0, "log1p_relu": 1}
_PROBES = ("a", "Rain falls from clouds, and an index lists words.", "größe 日本 " * 40, "")
_TOLERANCE = 1e-3


class _Documents(nn.Module):
    """From what the server's translator gives to what it takes: weights ``(texts, vocabulary)``."""

    def __init__(self, model: nn.Module, extra_logs: int) -> None:
        super().__init__()
        self.model = model
        self.extra_logs = extra_logs

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = inputs["attention_mask"]
        logits = self.model(input_ids=inputs["input_ids"], attention_mask=mask).logits
        weights = (logits.relu() * mask.unsqueeze(-1)).amax(1)
        for _ in range(1 + self.extra_logs):
            weights = weights.log1p()
        return {"output": weights}


def write_document_archive(model: SparseEncoder, output: str | Path, source: str, *, ids: bool) -> None:
    """Write what OpenSearch's ``SPARSE_ENCODING`` models consist of, and make sure that it computes the same.

    The zip holds the traced network in float32 and ``tokenizer.json``, which cuts where the encoder does. It
    is read again and compared with the encoder, on texts of several lengths.

    Args:
        model: The encoder.
        output: Path of the zip; an earlier one is replaced.
        source: What complaints call the model.
        ids: Whether the index names its features by token ids instead of tokens.

    Raises:
        InputError: The model prunes its documents, has a prompt for them, pools otherwise than by the largest
            logit, or cannot be traced; or ``output`` is something else.
    """
    modules = encoder_modules(model)
    activation = modules.pooling.activation_function
    if modules.pooling.pooling_strategy != "max" or activation not in _EXTRA_LOGS:
        raise InputError(f"{source}: the server's documents are pooled by max, with one log or two")
    if model.max_active_dims is not None or model.prompts.get("document"):
        raise InputError(
            f"{source}: prunes its documents or has a prompt for them, which the server does not"
        )
    given: Any = modules.transformer.tokenizer
    length = int(model.max_seq_length or 512)
    tokenizer = as_served(given.backend_tokenizer, length, given.truncation_side)
    if ids:
        name_by_id(tokenizer, source)
    transformer = copy.deepcopy(modules.transformer.model)  # the encoder stays as and where it is
    network = _Documents(transformer, _EXTRA_LOGS[activation]).eval().float().cpu()
    with replace_file(output, ARCHIVE) as new:
        traced = io.BytesIO()
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what tracing may get wrong is proved below
                example = _features(Tokenizer.from_str(json.dumps(tokenizer)), _PROBES[1])
                torch.jit.save(torch.jit.trace(network, (example,), strict=False), traced)
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{source}: cannot be traced ({error!s:.200})") from None
        new.write_bytes(
            pack({"model.pt": traced.getvalue(), "tokenizer.json": json.dumps(tokenizer).encode()})
        )
        new.chmod(0o644)
        _prove(model, new, source)


def _prove(model: SparseEncoder, archive: Path, source: str) -> None:
    found = read_document_archive(archive, _PROBES)
    expected = model.encode_document(list(_PROBES), convert_to_scipy=True).toarray()
    difference = float(np.abs(found - expected).max())
    if not difference <= _TOLERANCE:
        raise InputError(f"{source}: the traced network is {difference:.2g} off, so it is of no use")


def read_document_archive(archive: str | Path, texts: tuple[str, ...]) -> np.ndarray[Any, Any]:
    """What the server would compute of texts, one at a time: ``(texts, vocabulary)``, float32."""
    with zipfile.ZipFile(archive) as zipped:
        network = torch.jit.load(io.BytesIO(zipped.read("model.pt")))
        tokenizer = Tokenizer.from_str(zipped.read("tokenizer.json").decode())
    with torch.inference_mode():
        return np.stack([network(_features(tokenizer, text))["output"][0].numpy() for text in texts])


def _features(tokenizer: Tokenizer, text: str) -> dict[str, Tensor]:
    encoded = tokenizer.encode(text)
    return {
        "input_ids": torch.tensor([encoded.ids]),
        "attention_mask": torch.tensor([encoded.attention_mask]),
    }
