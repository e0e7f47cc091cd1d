"""From ``kind:model`` to a teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from st_l0.encoder.pretrained import HubOptions, layout, load_config, refusing_code
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.teachers.bm25_teacher import BM25Teacher
from st_l0.teachers.model_teachers import CrossEncoderTeacher, DenseTeacher, Seq2SeqTeacher, SparseTeacher
from st_l0.teachers.stored_vectors import VectorTeacher
from st_l0.teachers.teacher import Teacher
from st_l0.utils.stock import get_device_name


def split_spec(spec: str) -> tuple[str, str]:
    """Kind and model of ``"kind:model"``.

    Raises:
        InputError: The kind is unknown, or there is no model.
    """
    kind, _, model = spec.partition(":")
    if kind not in _LOADERS or not model:
        raise InputError(f"teacher {spec!r}: give kind:model, where kind is one of {', '.join(_LOADERS)}")
    return kind, model


def load_teacher(
    spec: str,
    *,
    device: str | None = None,
    batch_size: int = 32,
    hub_options: HubOptions | None = None,
    trust_remote_code: bool = False,
) -> Teacher:
    """Load a teacher.

    Args:
        spec: ``"kind:model"``, the model being a folder or Hub id. Kinds: ``dense`` (a SentenceTransformer),
            ``sparse`` (a SparseEncoder, siamese or inference-free), ``cross-encoder`` (a CrossEncoder with
            one label), ``seq2seq`` (monoT5 and its kin); and two without a model, ``bm25`` (a file of
            statistics, see `st_l0.teachers.write_bm25`) and ``vectors`` (a folder of embeddings that were
            made before, see `st_l0.teachers.write_vectors`).
        device: Where to put the model; ``None`` takes the best there is, under torchrun the process's own.
        batch_size: Texts that the model reads at once (pairs, for ``cross-encoder`` and ``seq2seq``).
        hub_options: Token, revision and the like for the Hub.
        trust_remote_code: Whether code that comes with the model may run; read it first.

    Raises:
        InputError: The kind is unknown, there is no such model, or it is not of that kind.

    Example:
        >>> teacher = load_teacher("sparse:models/st-l0-mini", device="cpu")
        >>> scores = teacher.score_pairs(["rain"] * 2, ["Rain falls from clouds.", "An index lists words."])
        >>> bool(scores[0] > scores[1])
        True
    """
    kind, model = split_spec(spec)
    hub_options = (hub_options or HubOptions()).trusting(trust_remote_code)
    try:
        if kind not in ("bm25", "vectors"):
            _check_kind(kind, model, hub_options)
        with refusing_code(model):
            return _LOADERS[kind](spec, model, device or get_device_name(), batch_size, hub_options)
    except InputError as error:
        raise InputError(f"teacher {spec}: {error}") from error
    except Exception as error:  # the loaders of other packages raise what they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"teacher {spec} cannot be loaded: {reason[:300]}") from error


def _check_kind(kind: str, model: str, hub_options: HubOptions) -> None:
    """Refuse what sentence-transformers would load with random weights on top."""
    layout(model, hub_options)  # there is a model at all
    if hub_options.find(model, "modules.json") is not None:
        config = hub_options.find(model, "config_sentence_transformers.json")
        saved: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")) if config else {}
        model_type = saved.get("model_type", "SentenceTransformer")  # as sentence-transformers reads it
        kinds = {"SentenceTransformer": "dense", "SparseEncoder": "sparse", "CrossEncoder": "cross-encoder"}
        if kinds.get(model_type) != kind:
            hint = f"; give {kinds[model_type]}:{model}" if model_type in kinds else ""
            raise InputError(f"the model is a {model_type}{hint}")
        return
    heads = {
        "sparse": ("ForMaskedLM",),
        "cross-encoder": ("ForSequenceClassification", "ForCausalLM"),
        "seq2seq": ("ForConditionalGeneration",),
    }.get(kind, ("",))
    architectures = load_config(model, hub_options).architectures or [""]
    if not any(name.endswith(heads) for name in architectures):
        raise InputError(f"the model is a {' '.join(architectures)}, which is not {' or '.join(heads)}")


def _dense(spec: str, model: str, device: str, batch_size: int, hub_options: HubOptions) -> Teacher:
    return DenseTeacher(spec, SentenceTransformer(model, device=device, **asdict(hub_options)), batch_size)


def _sparse(spec: str, model: str, device: str, batch_size: int, hub_options: HubOptions) -> Teacher:
    loaded = SparseEncoder.from_pretrained(model, device=device, inference_free=False, **asdict(hub_options))
    return SparseTeacher(spec, loaded, batch_size)


def _cross_encoder(spec: str, model: str, device: str, batch_size: int, hub_options: HubOptions) -> Teacher:
    return CrossEncoderTeacher(spec, CrossEncoder(model, device=device, **asdict(hub_options)), batch_size)


def _seq2seq(spec: str, model: str, device: str, batch_size: int, hub_options: HubOptions) -> Teacher:
    loading = hub_options.for_transformers()
    tokenizer = AutoTokenizer.from_pretrained(model, **loading)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(model, **loading).to(device)
    return Seq2SeqTeacher(spec, loaded, tokenizer, batch_size)


def _bm25(spec: str, model: str, device: str, batch_size: int, hub_options: HubOptions) -> Teacher:
    return BM25Teacher(spec, model)


def _vectors(spec: str, model: str, device: str, batch_size: int, hub_options: HubOptions) -> Teacher:
    return VectorTeacher(spec, model)


_LOADERS: dict[str, Callable[[str, str, str, int, HubOptions], Teacher]] = {
    "dense": _dense,
    "sparse": _sparse,
    "cross-encoder": _cross_encoder,
    "seq2seq": _seq2seq,
    "bm25": _bm25,
    "vectors": _vectors,
}
