"""What a folder or Hub repository holds, read from its small files before any weights are.

A query comes by here, so that transformers (and torch with it) are imported only where a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from st_l0.encoder.hub_options import HubOptions
from st_l0.errors import InputError

_SETTINGS = "config_sentence_transformers.json"
_NO_LIMIT = 1 << 30
# The RoBERTa family counts positions from behind its padding id.
_OFFSET_POSITIONS = {
    *("camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}

# A letter that no vocabulary is likely to have: what a tokenizer does with the unknown shows at once.
PROBE = "\N{GOTHIC LETTER HWAIR}"


def layout(checkpoint: str, hub_options: HubOptions) -> Literal["sparse-encoder", "mlm-with-idf", "other"]:
    """Kind of a checkpoint.

    ``sparse-encoder``: saved by sentence-transformers. ``mlm-with-idf``: a masked language model with an
    ``idf.json`` beside it, as OpenSearch doc-v1 was published. ``other``: the rest, such as a bare model.

    Raises:
        InputError: There is no model at all, or what says of which kind it is was lost or damaged.
    """
    if hub_options.find(checkpoint, "modules.json") is None:
        for name in ("router_config.json", _SETTINGS):  # of a checkpoint that had one
            if hub_options.find(checkpoint, name) is not None:
                raise InputError(f"{checkpoint}: has {name} but no modules.json: restore the checkpoint")
        if hub_options.find(checkpoint, "config.json") is None:
            raise InputError(f"{checkpoint}: no model there, nor on the Hub as far as it can be reached")
        return "other" if hub_options.find(checkpoint, "idf.json") is None else "mlm-with-idf"
    settings = read_json(hub_options.find(checkpoint, _SETTINGS))
    return "sparse-encoder" if settings.get("model_type") == "SparseEncoder" else "other"


def no_encoder(checkpoint: str, hub_options: HubOptions) -> InputError:
    """The complaint about a checkpoint whose `layout` is ``"other"``: what it is, and what to do with it."""
    problem = f"{checkpoint} is no inference-free checkpoint"
    if is_bare_mlm(checkpoint, hub_options):
        return InputError(
            f"{problem} but a masked language model alone: train an encoder from it (SparseEncoder.from_mlm, "
            "or model.idf in a recipe); st-l0 evaluate and teachers take it as a siamese SPLADE "
            "(inference_free=False)"
        )
    problem += ": no SparseEncoder, no idf.json"
    if hub_options.find(checkpoint, "modules.json") is not None:
        path = hub_options.find(checkpoint, _SETTINGS)
        if path is None:
            return InputError(f"{problem}; {_SETTINGS} is missing: restore the checkpoint")
        if "model_type" not in read_json(path):
            return InputError(f"{problem}; {path} names no model_type: restore the checkpoint")
    return InputError(problem)


def read_settings(checkpoint: str, hub_options: HubOptions) -> dict[str, Any]:
    """Prompts, similarity and the like, as sentence-transformers saves them; empty where it has none.

    Raises:
        InputError: The file is damaged, or a setting is not of its kind.
    """
    path = hub_options.find(checkpoint, _SETTINGS)
    settings: dict[str, Any] = read_json(path)
    prompts, most = settings.get("prompts", {}), settings.get("max_active_dims")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise InputError(f"{path}: prompts must map names to texts: restore the checkpoint")
    if most is not None and (type(most) is not int or most < 1):
        raise InputError(f"{path}: max_active_dims is {most!r:.40}; give a number of at least 1, or null")
    similarity = settings.get("similarity_fn_name")
    if similarity not in (None, "dot", "cosine", "euclidean", "manhattan"):
        raise InputError(f"{path}: similarity_fn_name {similarity!r:.40} is unknown; give 'dot', as usual")
    return settings


def read_json(path: Path | None, kind: type = dict) -> Any:
    """Read a JSON object, or a list where ``kind`` says so; a file that is not there is an empty one.

    Raises:
        InputError: It is damaged.
    """
    if path is None:
        return kind()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from None
    if not isinstance(found, kind):
        raise InputError(
            f"{path}: holds no JSON {'list' if kind is list else 'object'}: restore the checkpoint"
        )
    return found


def required(checkpoint: str, name: str, hub_options: HubOptions) -> Path:
    """Path of a file that a checkpoint must have.

    Raises:
        InputError: It has not.
    """
    path = hub_options.find(checkpoint, name)
    if path is None:
        raise InputError(f"{checkpoint}: no {name}: restore the checkpoint")
    return path


def damaged(path: Path, error: Exception) -> InputError:
    """The complaint about a file that cannot be read."""
    if _is_pointer(path):
        return InputError(f"{path}: only a pointer of git-lfs: fetch the file itself with 'git lfs pull'")
    reason = " ".join(str(error).split())
    return InputError(f"{path}: damaged ({reason:.200}): restore the checkpoint")


@contextmanager
def loading_errors(checkpoint: str, hub_options: HubOptions) -> Iterator[None]:
    """Give whatever keeps a checkpoint from being loaded one line, which names the damaged file if one is.

    What the machine or the Hub did is raised as it is: a lack of memory, a file that may not be read.

    Raises:
        InputError: For any other exception.
    """
    try:
        yield
    except InputError as error:
        if checkpoint in str(error):
            raise
        raise type(error)(f"{checkpoint}: {error}") from error
    except Exception as error:
        from huggingface_hub.errors import HfHubHTTPError

        missing = isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError)
        machine = isinstance(error, OSError) and error.errno is not None and not missing
        if machine or isinstance(error, MemoryError | HfHubHTTPError):
            raise
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            raise
        if _wants_code(error):
            raise ForeignCodeError(checkpoint) from error
        _find_damage(checkpoint, hub_options)
        reason = " ".join(str(error).split())
        if isinstance(error, LookupError | TypeError | AttributeError):  # they mean little without their name
            reason = f"{type(error).__name__}: {reason}"
        raise InputError(f"{checkpoint} cannot be loaded: {reason:.400}: restore the checkpoint") from error


def _find_damage(checkpoint: str, hub_options: HubOptions) -> None:
    """Raise the complaint about the first file of a checkpoint that nobody could read, if there is one."""
    from safetensors import SafetensorError, safe_open
    from tokenizers import Tokenizer

    anchor = hub_options.find(checkpoint, "modules.json") or hub_options.find(checkpoint, "config.json")
    if anchor is None:
        return
    for path in sorted(file for pattern in ("*", "*/*") for file in anchor.parent.glob(pattern)):
        if not path.is_file():
            continue
        if _is_pointer(path):
            raise damaged(path, ValueError())
        if path.name == "tokenizer.json":
            try:
                Tokenizer.from_file(str(path))
            except Exception as error:  # tokenizers has no class of its own for them
                raise damaged(path, error) from None
        elif path.suffix == ".json":
            read_json(path, list if path.name == "modules.json" else dict)
        elif path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="np"):
                    pass
            except SafetensorError as error:
                raise damaged(path, error) from None


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(24) == b"version https://git-lfs."


class ForeignCodeError(InputError):
    """A checkpoint that cannot be loaded without running code that comes with it, which nobody allowed."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__(
            f"{checkpoint} brings code of its own, which is not run: read it, then allow it by "
            "--trust-remote-code, trust_remote_code=True, or trust_remote_code: true in a recipe's section"
        )


@contextmanager
def refusing_code(checkpoint: str) -> Iterator[None]:
    """Say what to do where a checkpoint cannot be loaded without running code that comes with it.

    Raises:
        ForeignCodeError: It is so, and nobody allowed it.
    """
    try:
        yield
    except ValueError as error:
        if not _wants_code(error):
            raise
        raise ForeignCodeError(checkpoint) from error


def _wants_code(error: Exception) -> bool:
    """Whether transformers or sentence-transformers advise to let a checkpoint's code run."""
    told = isinstance(error, ValueError) and not isinstance(error, InputError)
    return told and "trust_remote_code" in str(error)


def is_bare_mlm(checkpoint: str, hub_options: HubOptions) -> bool:
    """Whether a checkpoint is a masked language model of transformers and no more.

    So the older siamese SPLADE models were published, and so is every base model.
    """
    path = hub_options.find(checkpoint, "config.json")
    if path is None or hub_options.find(checkpoint, "modules.json") is not None:
        return False
    names = read_json(path).get("architectures") or ()
    return any(str(name).endswith("ForMaskedLM") for name in names)


def siamese(checkpoint: str) -> InputError:
    """The complaint about an encoder whose queries run a model, where that cannot be."""
    return InputError(
        f"{checkpoint} is no inference-free checkpoint: its queries run a model; st-l0 evaluate and teachers "
        "take it (inference_free=False)"
    )


def load_config(base_model: str, hub_options: HubOptions) -> Any:
    """The transformers configuration of a model.

    Raises:
        InputError: There is no such model, or it cannot be reached.
    """
    from transformers import AutoConfig

    with loading_errors(base_model, hub_options):
        return AutoConfig.from_pretrained(base_model, **hub_options.for_transformers())


def check_architecture(name: str, config: Any) -> None:
    """Refuse a model that transformers has no masked language model for, or one that generates text.

    Args:
        name: What complaints call it.
        config: Its transformers configuration.

    Raises:
        InputError: It is so.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    cure = "give an encoder with a masked-language-model head, such as BERT, DistilBERT, ModernBERT or XLM-R"
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{name}: {config.model_type} is an encoder with a decoder behind it: {cure}")
    own_code = "AutoModelForMaskedLM" in (getattr(config, "auto_map", None) or {})
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING and not own_code:
        raise InputError(f"{name}: {config.model_type} has no masked language model: {cure}")


def has_mlm_head(base_model: str, hub_options: HubOptions) -> bool:
    """Whether a checkpoint holds weights for its masked-language-model head, whatever its configuration says.

    Raises:
        InputError: There is no such model, it can have no such head, or its weights are not whole.
    """
    from transformers import AutoModelForMaskedLM

    from st_l0.encoder.weights import LENIENT, lacks_head

    check_architecture(base_model, load_config(base_model, hub_options))
    with loading_errors(base_model, hub_options):
        model, report = AutoModelForMaskedLM.from_pretrained(
            base_model, device_map="meta", **LENIENT, **hub_options.for_transformers()
        )
        return not lacks_head(model, report, base_model)


def check_warm_start(name: str, *, headless: bool, given: bool) -> None:
    """Refuse a base model without an MLM head and without texts to start one, or with both.

    Args:
        name: The base model.
        headless: Whether it has no MLM head.
        given: Whether there are texts.

    Raises:
        InputError: It is so.
    """
    if headless and not given:
        raise InputError(f"{name} has no MLM head: give texts to start one (model.warm_start)")
    if given and not headless:
        raise InputError(f"{name} has an MLM head of its own: leave warm_start out")


def check_length(length: Any, what: str, least: int = 1) -> None:
    """Refuse a number of tokens that leaves nothing of a text.

    Args:
        length: The number.
        what: What complaints call it.
        least: What it has to be at least.

    Raises:
        InputError: It is smaller, or no number.
    """
    # transformers writes 1e30, a whole number too, where there is no limit.
    number = isinstance(length, int | float) and not isinstance(length, bool)
    if not number or not length >= least or length % 1:
        raise InputError(f"{what} is {length!r:.40}; give a number of tokens, at least {least}")


def position_limit(config: Any) -> int:
    """Longest input of a model in tokens, by its transformers configuration."""
    limit = int(getattr(config, "max_position_embeddings", None) or _NO_LIMIT)
    if config.model_type not in _OFFSET_POSITIONS:
        return limit
    padding = getattr(config, "pad_token_id", None)
    return limit - 1 - max(1, 1 if padding is None else int(padding))  # MPNet's is 1 whatever it states
