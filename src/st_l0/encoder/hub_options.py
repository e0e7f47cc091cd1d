"""How to reach a checkpoint, and where its files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from st_l0.errors import InputError


@dataclass(frozen=True)
class HubOptions:
    """How to reach a checkpoint; the arguments mean what they mean in sentence-transformers."""

    token: bool | str | None = None
    cache_folder: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False

    @classmethod
    def among(cls, options: Mapping[str, Any]) -> HubOptions:
        """Those that are among the arguments of sentence-transformers' ``SparseEncoder``."""
        return cls(**{key: options[key] for key in cls.__dataclass_fields__ if key in options})

    def find(self, checkpoint: str, file: str) -> Path | None:
        """Path of one file of the checkpoint, downloaded where needed; ``None`` if it has no such file.

        A folder comes before a Hub id of the same name. What keeps the Hub from answering, such as a missing
        permission, is raised as huggingface_hub raises it.

        Raises:
            InputError: ``file`` leads out of the checkpoint, or is a folder.
        """
        parts = PureWindowsPath(file)  # which knows the separators of both kinds of systems
        if parts.anchor or ".." in parts.parts:
            raise InputError(
                f"{checkpoint}: it names the file {file!r}; give a path inside of the checkpoint"
            )
        local = Path(checkpoint, file)
        if local.is_dir():
            raise InputError(f"{local}: is a folder, where a file should be: restore the checkpoint")
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
