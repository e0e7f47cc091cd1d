"""What a folder or Hub repository holds, read from its small files before any weights are.

A query comes by here, so that transformers (and torch with it) are imported only where a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from st_l0.errors import InputError

_NO_LIMIT = 1 << 30
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"}


@dataclass(frozen=True)
class HubOptions:
    """How to reach a checkpoint; the arguments mean what they mean in sentence-transformers."""

    token: bool | str | None = None
    cache_folder: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False

    def find(self, checkpoint: str, file: str) -> Path | None:
        """Path of one file of the checkpoint, downloaded where needed; ``None`` if it has no such file.

        A folder comes before a Hub id of the same name. What keeps the Hub from answering, such as a missing
        permission, is raised as huggingface_hub raises it.

        Raises:
            InputError: ``file`` leads out of the checkpoint.
        """
        parts = PureWindowsPath(file)  # which knows the separators of both kinds of systems
        if parts.anchor or ".." in parts.parts:
            raise InputError(
                f"{checkpoint}: it names the file {file!r}; give a path inside of the checkpoint"
            )
        local = Path(checkpoint, file)
        if local.exists():
            return local
        if Path(checkpoint).is_dir():
            return None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

        try:
            found = hf_hub_download(
                checkpoint,
                file,
                revision=self.revision,
                token=self.token,
                cache_dir=self.cache_folder,
                local_files_only=self.local_files_only,
            )
        except (EntryNotFoundError, LocalEntryNotFoundError, HFValidationError):  # the last: no Hub id
            return None
        return Path(found)

    def trusting(self, trust_remote_code: bool) -> HubOptions:
        """The same, and code of the checkpoint may run where ``trust_remote_code`` is set."""
        return replace(self, trust_remote_code=self.trust_remote_code or trust_remote_code)

    def for_transformers(self) -> dict[str, Any]:
        """The same as arguments of transformers' ``from_pretrained``."""
        return {
            "token": self.token,
            "cache_dir": self.cache_folder,
            "revision": self.revision or "main",
            "local_files_only": self.local_files_only,
            "trust_remote_code": self.trust_remote_code,
        }


def layout(checkpoint: str, hub_options: HubOptions) -> Literal["sparse-encoder", "mlm-with-idf", "other"]:
    """Kind of a checkpoint.

    ``sparse-encoder``: saved by sentence-transformers. ``mlm-with-idf``: a masked language model with an
    ``idf.json`` beside it, as OpenSearch doc-v1 was published. ``other``: the rest, such as a bare model.

    Raises:
        InputError: There is no model at all.
    """
    if hub_options.find(checkpoint, "modules.json") is None:
        if hub_options.find(checkpoint, "config.json") is None:
            raise InputError(f"{checkpoint}: no model there, nor on the Hub as far as it can be reached")
        return "other" if hub_options.find(checkpoint, "idf.json") is None else "mlm-with-idf"
    config = hub_options.find(checkpoint, "config_sentence_transformers.json")
    try:
        settings = json.loads(config.read_text(encoding="utf-8")) if config else {}
    except ValueError as error:
        raise InputError(f"{config}: not valid JSON ({error}): restore the checkpoint") from error
    return "sparse-encoder" if settings.get("model_type") == "SparseEncoder" else "other"


class ForeignCodeError(InputError):
    """A checkpoint that cannot be loaded without running code that comes with it, which nobody allowed."""


@contextmanager
def refusing_code(checkpoint: str) -> Iterator[None]:
    """Say what to do where a checkpoint cannot be loaded without running code that comes with it.

    Raises:
        ForeignCodeError: It is so, and nobody allowed it.
    """
    try:
        yield
    except ValueError as error:  # of transformers and sentence-transformers, who advise the same
        if isinstance(error, InputError) or "trust_remote_code" not in str(error):
            raise
        raise ForeignCodeError(
            f"{checkpoint} brings code of its own, which is not run: read it, then allow it by "
            "--trust-remote-code, trust_remote_code=True, or trust_remote_code: true in a recipe's section"
        ) from error


def is_bare_mlm(checkpoint: str, hub_options: HubOptions) -> bool:
    """Whether a checkpoint is a masked language model of transformers and no more.

    So the older siamese SPLADE models were published, and so is every base model.
    """
    path = hub_options.find(checkpoint, "config.json")
    if path is None or hub_options.find(checkpoint, "modules.json") is not None:
        return False
    names = json.loads(path.read_text(encoding="utf-8")).get("architectures") or ()
    return any(str(name).endswith("ForMaskedLM") for name in names)


def no_encoder(checkpoint: str, bare_mlm: bool) -> InputError:
    """The complaint about what is no encoder; it says what to do with a masked language model."""
    if not bare_mlm:
        return InputError(f"{checkpoint} is no inference-free checkpoint: no SparseEncoder, no idf.json")
    return InputError(
        f"{checkpoint} is no inference-free checkpoint but a masked language model alone: train an encoder "
        "from it (SparseEncoder.from_mlm, or model.idf in a recipe); st-l0 evaluate and teachers take it as "
        "a siamese SPLADE (inference_free=False)"
    )


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

    try:
        with refusing_code(base_model):
            return AutoConfig.from_pretrained(base_model, **hub_options.for_transformers())
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{base_model} cannot be loaded as a transformers model: {reason}") from error


def has_mlm_head(base_model: str, hub_options: HubOptions) -> bool:
    """Whether the checkpoint holds weights for its masked-language-model head."""
    from transformers import AutoModelForMaskedLM

    from st_l0.head.mlm_head import read_head

    config = load_config(base_model, hub_options)
    if any(name.endswith("ForMaskedLM") for name in config.architectures or ()):
        return True
    loading: Mapping[str, Any] = hub_options.for_transformers()
    model, info = AutoModelForMaskedLM.from_pretrained(base_model, output_loading_info=True, **loading)
    head = read_head(model)
    if head is None:
        return not info["missing_keys"]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return names.get(id(head.dense.weight)) not in info["missing_keys"]


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


def position_limit(config: Any) -> int:
    """Longest input of a model in tokens, by its transformers configuration."""
    limit = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
    # The RoBERTa family starts counting behind its padding id.
    return int(limit) - 2 if config.model_type in _OFFSET_POSITIONS else int(limit)
