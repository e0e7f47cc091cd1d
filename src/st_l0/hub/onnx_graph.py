"""The document encoder as an ONNX graph, proved against torch before anyone gets it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from st_l0.encoder.modules import EncoderModules, encoder_modules, extra_logs
from st_l0.errors import InputError, reason
from st_l0.head.mlm_head import activate
from st_l0.hub.preflight import real_texts
from st_l0.utils.stock import forward_arguments

if TYPE_CHECKING:
    from st_l0.encoder.sparse_encoder import SparseEncoder

ONNX_FILE = "onnx/model.onnx"  # where transformers.js and FastEmbed look for it
OPSET = 20
TOLERANCE = 1e-4
_LARGEST = 2_000_000_000  # bytes that one file of protobuf holds
_BATCH = 8
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class OnnxFacts(NamedTuple):
    """What is known of a graph.

    Attributes:
        opset: Version of the operators.
        difference: Largest difference of a weight to torch over ``texts`` documents of real text; as a part
            of the weight where that is above 1.
        texts: Their number.
        inputs: Names of the inputs, each ``(texts, tokens)``, int64.
    """

    opset: int
    difference: float
    texts: int
    inputs: tuple[str, ...]


class _Documents(nn.Module):
    """Token ids to logits ``(texts, tokens, vocabulary)`` and weights ``(texts, vocabulary)``."""

    def __init__(self, modules: EncoderModules, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model: Any = modules.transformer.model
        self.inputs = inputs
        self.logs = extra_logs(modules.pooling)
        self.largest = modules.pooling.pooling_strategy == "max"

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(self.inputs, features, strict=True))
        logits = self.model(**given).logits
        used = given["attention_mask"].unsqueeze(-1) > 0
        positive = torch.where(used, logits, torch.zeros_like(logits)).relu()
        if self.largest:
            return logits, activate(positive.amax(1), self.logs)
        return logits, activate(positive, self.logs).sum(1)


def write_onnx(encoder: SparseEncoder, file: Path) -> OnnxFacts:
    """Write the document side of an encoder as an ONNX graph.

    It takes ``input_ids``, ``attention_mask`` and, of the models that have them, ``token_type_ids``, of any
    number of texts and tokens. Its first output is ``logits`` ``(texts, tokens, vocabulary)``, which programs
    read that pool by themselves (FastEmbed, transformers.js); the second ``weights`` ``(texts, vocabulary)``,
    the document vectors, before ``max_active_dims`` prunes them. Prompts are not in it.

    Args:
        encoder: On the CPU, in float32.
        file: Where to; its folder is made.

    Returns:
        What the file is, with its difference to torch on real text, in batches and with padding.

    Raises:
        InputError: A package is missing, torch cannot export the model, it does not fit in one file, or the
            graph computes something else than `encode_document`.
    """
    require_onnx()
    modules = encoder_modules(encoder)
    size = sum(one.numel() * one.element_size() for one in encoder.parameters())
    if size > _LARGEST:
        raise InputError(f"the model has {size:,} bytes, an ONNX file holds {_LARGEST:,}: leave onnx out")
    tokenizer: Any = modules.transformer.tokenizer
    sample = tokenizer(["How does water rise?", "Rain."], padding=True, return_tensors="pt")
    known = forward_arguments(modules.transformer)
    inputs = tuple(name for name in _INPUTS if name in sample and (not known or name in known))
    encoder.eval()
    graph = _export(_Documents(modules, inputs).eval(), tuple(sample[name] for name in inputs), inputs)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(graph)
    return OnnxFacts(OPSET, *_prove(encoder, file, inputs), inputs)


def require_onnx() -> None:
    """Refuse to begin without the packages.

    Raises:
        InputError: One is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"ONNX needs {error.name}: pip install 'st-l0[onnx]'") from None


def _export(network: _Documents, sample: tuple[Tensor, ...], inputs: tuple[str, ...]) -> bytes:
    axes = tuple({0: "texts", 1: "tokens"} for _ in inputs)
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                network,
                sample,
                input_names=list(inputs),
                output_names=["logits", "weights"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes={"features": axes},
                verbose=False,
            )
    except Exception as error:  # torch's, of many kinds
        told = error.__cause__ or error
        model = type(network.model).__name__
        raise InputError(
            f"{model}: torch cannot export it ({type(told).__name__}: {reason(told):.200}): leave onnx out"
        ) from error
    graph = program.model_proto
    _leave_out_places(graph)
    return bytes(graph.SerializeToString())


def _leave_out_places(graph: Any) -> None:
    """Leave out where in this machine's files each operator comes from."""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    for function in [graph.graph, *graph.functions]:
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
        for value in [*function.value_info]:
            del value.metadata_props[:]
    for value in [*graph.graph.input, *graph.graph.output, *graph.graph.initializer]:
        del value.metadata_props[:]


def _prove(encoder: SparseEncoder, file: Path, inputs: tuple[str, ...]) -> tuple[float, int]:
    """Largest difference to `encode_document`, and of how many texts."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    prompt = encoder.prompts.get("document") or ""
    documents = real_texts()[1]
    tokenizer: Any = encoder_modules(encoder).transformer.tokenizer
    whole: Any = encoder.encode_document(
        documents, max_active_dims=encoder.get_embedding_dimension(), convert_to_scipy=True
    )
    worst = 0.0
    for start in range(0, len(documents), _BATCH):
        texts = [prompt + text for text in documents[start : start + _BATCH]]
        features = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
        (found,) = session.run(["weights"], {name: features[name].astype(np.int64) for name in inputs})
        expected = whole[start : start + _BATCH].toarray()
        difference = float((np.abs(found - expected) / np.maximum(expected, 1)).max())
        worst = max(worst, difference) if difference == difference else difference
        if not worst <= TOLERANCE:
            raise InputError(
                f"{type(encoder_modules(encoder).transformer.model).__name__}: its ONNX graph gives weights "
                f"that are {worst:.2g} off, more than {TOLERANCE:g}: leave onnx out, and report this"
            )
    return worst, len(documents)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' steps and advice off the terminal; what matters of them is proved."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [one.level for one in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for one in loggers:
                one.setLevel(logging.ERROR)
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)
