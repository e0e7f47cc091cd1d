"""From ``kind:model`` to a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.loading import load_stock
from st_l0.encoder.pretrained import has_mlm_head, layout, load_config, loading_errors, read_json
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.encoder.weights import LENIENT, check_numbers, check_used
from st_l0.errors import InputError
from st_l0.teachers.bm25_teacher import BM25Teacher
from st_l0.teachers.model_teachers import CrossEncoderTeacher, DenseTeacher, Seq2SeqTeacher, SparseTeacher
from st_l0.teachers.stored_vectors import VectorTeacher
from st_l0.teachers.teacher import Teacher
from st_l0.utils.paths import local_name
from st_l0.utils.stock import get_device_name


def split_spec(spec: str) -> tuple[str, str]:
    """Kind and model of ``"kind:model"``.

    Raises:
        InputError: The kind is unknown, or there is no model.
    """
    kind, _, model = spec.partition(":")
    if kind not in _LOADERS or not model:
        raise InputError(f"teacher {spec!r}: give kind:model, where kind is one of {', '.join(_LOADERS)}")
    return kind, local_name(model)


def load_teacher(
    spec: str,
    *,
    device: str | None = None,
    batch_size: int = 32,
    hub_options: HubOptions | None = None,
    trust_remote_code: bool = False,
    prompts: Mapping[str, str] | None = None,
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
        prompts: What a ``dense`` or ``sparse`` model reads before a ``query`` or ``document``, in place of
            its own prompts (those in its ``config_sentence_transformers.json``).

    Raises:
        InputError: The kind is unknown, there is no such model, it is not of that kind, or a kind that takes
            no prompts is given some.

    Example:
        >>> teacher = load_teacher("sparse:models/st-l0-mini", device="cpu")
        >>> scores = teacher.score_pairs(["rain"] * 2, ["Rain falls from clouds.", "An index lists words."])
        >>> bool(scores[0] > scores[1])
        True
    """
    kind, model = split_spec(spec)
    check_prompts(spec, prompts or {})
    hub_options = (hub_options or HubOptions()).trusting(trust_remote_code)
    try:
        with nullcontext() if kind in ("bm25", "vectors") else loading_errors(model, hub_options):
            if kind not in ("bm25", "vectors"):
                _check_kind(kind, model, hub_options)
            teacher = _LOADERS[kind](spec, model, device or get_device_name(), batch_size, hub_options)
        if isinstance(teacher, (DenseTeacher, SparseTeacher)):
            saved: dict[str, Any] = teacher.model.prompts
            saved |= {"document": _document_prompt(saved), **(prompts or {})}
        return teacher
    except InputError as error:
        raise InputError(f"teacher {spec}: {error}") from error


def check_prompts(spec: str, prompts: Mapping[str, str]) -> None:
    """Refuse prompts for a teacher that takes none.

    Raises:
        InputError: It does not.
    """
    kind, _ = split_spec(spec)
    if prompts and kind not in ("dense", "sparse"):
        stored = ": its texts were embedded with prompts, or without" if kind == "vectors" else ""
        raise InputError(f"teacher {spec} takes no prompts{stored}; leave them out")


def _document_prompt(prompts: Mapping[str, Any]) -> str:
    """What a model reads before a document, by any of the names that sentence-transformers looks for.

    It adds an empty ``document`` to what a model has saved, and takes that before a ``passage``.
    """
    found = (prompts.get(name) for name in ("document", "passage", "corpus"))
    return next(filter(None, found), "")


def _check_kind(kind: str, model: str, hub_options: HubOptions) -> None:
    """Refuse what sentence-transformers would load with random weights on top."""
    layout(model, hub_options)  # there is a model at all
    if hub_options.find(model, "modules.json") is not None:
        config = hub_options.find(model, "config_sentence_transformers.json")
        saved = read_json(config)
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
    config = load_config(model, hub_options)
    architectures = config.architectures or [""]
    if not any(name.endswith(heads) for name in architectures):
        raise InputError(f"the model is a {' '.join(architectures)}, which is not {' or '.join(heads)}")
    if kind == "sparse" and not has_mlm_head(model, hub_options):
        raise InputError("the model has no MLM head")
    if kind == "cross-encoder" or (kind == "dense" and not config.is_encoder_decoder):
        _check_bare_weights(kind, model, architectures, hub_options)


def _check_bare_weights(kind: str, model: str, architectures: list[str], hub_options: HubOptions) -> None:
    auto: Any = AutoModel
    if kind == "cross-encoder":
        causal = any(name.endswith("ForCausalLM") for name in architectures)
        auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    loaded, report = auto.from_pretrained(
        model, device_map="meta", **LENIENT, **hub_options.for_transformers()
    )
    poolers = [name for name in report["missing_keys"] if "pooler." in name and kind == "dense"]
    check_used(loaded, report, model, poolers)


def _dense(spec: str, model: str, device: str, batch_size: int, hub_options: HubOptions) -> Teacher:
    return DenseTeacher(spec, load_stock(SentenceTransformer, model, device, hub_options), batch_size)


def _sparse(spec: str, model: str, device: str, batch_size: int, hub_options: HubOptions) -> Teacher:
    loaded = SparseEncoder.from_pretrained(model, device=device, inference_free=False, **asdict(hub_options))
    return SparseTeacher(spec, loaded, batch_size)


def _cross_encoder(spec: str, model: str, device: str, batch_size: int, hub_options: HubOptions) -> Teacher:
    return CrossEncoderTeacher(spec, load_stock(CrossEncoder, model, device, hub_options), batch_size)


def _seq2seq(spec: str, model: str, device: str, batch_size: int, hub_options: HubOptions) -> Teacher:
    loading = hub_options.for_transformers()
    tokenizer = AutoTokenizer.from_pretrained(model, **loading)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(model, **LENIENT, **loading)
    check_used(loaded, report, model)
    check_numbers(loaded, model, hub_options.find(model, "model.safetensors"))
    return Seq2SeqTeacher(spec, loaded.to(device), tokenizer, batch_size)


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
