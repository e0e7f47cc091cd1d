"""From a training to a repository of the Hub: what users need and nothing else, checked before it is sent."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.hub.describing import describe, read_sources, write_card, write_onnx_section
from st_l0.hub.exporting import add_onnx, write_copy
from st_l0.hub.onnx_graph import ONNX_FILE
from st_l0.hub.preflight import check_upload
from st_l0.utils.files import hold_folder, replace_folder
from st_l0.utils.paths import local_path

_KIND = "upload"
_NAMES = (
    r"README\.md|modules\.json|router_config\.json|config\.json|config_sentence_transformers\.json",
    r"sentence_\w+_config\.json|generation_config\.json|idf\.json|training\.json|\.eval_results/[\w.-]+\.yaml",
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json",
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|vocab\.txt|merges\.txt",
    r"\w+(\.bpe)?\.model|bpe\.codes",
)
_ALLOWED = re.compile(rf"(\w+/)?({'|'.join(_NAMES)})|{re.escape(ONNX_FILE)}")
_CODE = re.compile(r"(\w+/)?\w+\.py")  # of models that bring code, where that was allowed
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")
_VOCABULARIES = re.compile(
    r"(.*/)?(tokenizer\.json|vocab\.\w+|merges\.txt|idf\.json|.*\.(safetensors|model|codes|onnx))"
)
# What an earlier upload in another layout may have left: weights are read wherever they lie.
_STALE = ["*_*_*/*", "*.safetensors", "*.safetensors.index.json", "onnx/*"]


class Published(NamedTuple):
    """What `publish` did.

    Attributes:
        repo: The repository.
        commit: Id of the commit; ``None`` in a dry run.
        folder: What was sent, or would be, which a dry run leaves there.
        files: Path to size in bytes.
        difference: Largest difference of two scores between here and plain sentence-transformers, as a part
            of the largest.
    """

    repo: str
    commit: str | None
    folder: Path
    files: dict[str, int]
    difference: float


def publish(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    evaluation: Iterable[str | Path] = (),
    card: str | Path | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> Published:
    """Upload a checkpoint to the Hub, with a card that says what is known of it.

    The upload is put together beside ``run``, in the layout that every tool reads, with the weights as they
    are (`st_l0.hub.export` halves them); plain sentence-transformers loads it in a process of its own, and
    has to find the same scores on real texts. Where ``run`` is an export with an ONNX graph, one is written
    anew, of these very weights. Then it is sent; started again after an interruption, what is
    there already is not sent again. How files travel is the affair of huggingface_hub; its transfer by xet
    is not tested here (``HF_HUB_DISABLE_XET=1`` takes the older one, which is).

    Args:
        run: Output of `st_l0.training.train`, or a folder of a checkpoint.
        repo: ``organisation/name``; made where there is none.
        private: Whether a new repository is private. A public one is refused then.
        dry_run: Send nothing, and leave the upload in its folder.
        evaluation: Measurements for the card, see `st_l0.hub.results.read_results`; if there are none, the
            ``evaluation.json`` in ``run``, if there is one.
        card: Notes for the card (``.yaml``, see `st_l0.hub.notes.read_notes`), or a finished card (``.md``);
            ``None`` takes the ``card.yaml`` in ``run``, if there is one.
        token: Of the Hub; ``None`` takes the stored one.
        trust_remote_code: Whether code that comes with the checkpoint may run, and is published with it.

    Raises:
        InputError: There is no such checkpoint, plain sentence-transformers finds something else in it, a
            text in it names a folder of this machine or a token, ``repo`` is no name, or the Hub refuses.
        OSError: The Hub cannot be reached, or the disk is full.
    """
    run = local_path(run)
    _check_name(repo)
    model = run / "model" if (run / "model" / "modules.json").exists() else run
    if not model.is_dir():
        raise InputError(f"{run}: no such folder; give the output of a training, or a checkpoint")
    if card is None and (run / "card.yaml").exists():
        card = run / "card.yaml"
    measured = list(evaluation) or [one for one in [run / "evaluation.json"] if one.exists()]
    sources = read_sources(measured, card)
    with hold_folder(run.with_name(f"{run.resolve().name}-upload"), _KIND, inputs=[run]) as target:
        encoder = SparseEncoder.from_pretrained(
            str(model), device="cpu", inference_free=False, trust_remote_code=trust_remote_code
        )
        with replace_folder(target, _KIND) as folder:
            data = describe(encoder, str(model), sources)
            data.model_id = repo
            write_copy(encoder, folder, half=_is_half(model), layout="root")
            facts = add_onnx(folder, trust_remote_code) if (model / ONNX_FILE).exists() else None
            write_card(data, folder, sources)
            if sources.finished is None:
                write_onnx_section(data, folder, facts)
            files = _keep_allowed(folder, trust_remote_code)
            _check_texts(folder, files, [run])
        with tempfile.TemporaryDirectory() as work:
            difference = check_upload(encoder, target, Path(work))
        commit = None if dry_run else _send(target, files, repo, private, token)
    return Published(repo, commit, target, files, difference)


def _is_half(model: Path) -> bool:
    """Whether the transformer's weights are stored as float16, which they stay."""
    from safetensors import safe_open

    kinds = set()
    for file in model.rglob("*.safetensors"):
        if not file.parent.name.endswith("SparseStaticEmbedding"):
            with safe_open(file, "np") as weights:
                kinds |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    return "F16" in kinds


def _keep_allowed(folder: Path, code: bool) -> dict[str, int]:
    """Remove all but what users need, so that what is checked is what is sent; path to size of the rest."""
    kept = {}
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = file.relative_to(folder).as_posix()
        if _ALLOWED.fullmatch(name) or (code and _CODE.fullmatch(name)):
            kept[name] = file.stat().st_size
        else:
            file.unlink()
    return kept


def _check_texts(folder: Path, files: Iterable[str], inputs: Iterable[Path]) -> None:
    """Refuse texts that name folders of this machine, or hold a token.

    Raises:
        InputError: There is one.
    """
    places = {str(Path.home()), str(Path.cwd()), *(str(one.resolve().parent) for one in inputs)}
    places.add(tempfile.gettempdir())
    names = "|".join(re.escape(place) for place in sorted(places, key=len, reverse=True) if len(place) > 2)
    local = re.compile(rf"(?<![\w.:/-])({names})[/\\]")  # no part of an address
    for name in files:
        if _VOCABULARIES.fullmatch(name):
            continue
        for number, line in enumerate((folder / name).read_text(encoding="utf-8").splitlines(), 1):
            found = local.search(line)
            if found:
                raise InputError(f"{name}:{number}: names {found[0]}, a folder of this machine: leave it out")
            if _TOKEN.search(line):
                raise InputError(f"{name}:{number}: holds a token of the Hub: leave it out, and revoke it")


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(
            f"{repo!r:.80} is no name of a repository ({error}); give organisation/name"
        ) from None
    if "/" not in repo:
        raise InputError(f"{repo!r:.80} names no owner; give organisation/name")


def _send(folder: Path, files: Iterable[str], repo: str, private: bool, token: str | None) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi(token=token)
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:  # it was there
            raise InputError(f"{repo} is public: make it private in its settings, or leave --private out")
        sent = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[re.sub(r"([\[*?])", r"[\1]", name) for name in files],
            delete_patterns=_STALE,
            commit_message="Model, card and results, by st-l0 publish",
        )
    except OfflineModeIsEnabled:
        raise InputError("HF_HUB_OFFLINE is set: unset it to publish") from None
    except LocalTokenNotFoundError:
        raise InputError("there is no token of the Hub: hf auth login stores one") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403, 404):
            raise InputError(
                f"the Hub does not let you write to {repo} (status {status}): hf auth login, with a token "
                "that may write there"
            ) from error
        raise OSError(f"the Hub failed ({error}); start it again, what is there already stays") from error
    return str(sent.oid)
