"""A checkpoint on a benchmark: what its results are filed under, how they are measured and submitted."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError, require
from st_l0.evaluation.benchmarking import System, TaskReport, run_tasks
from st_l0.evaluation.measure import SystemResults
from st_l0.evaluation.model_meta import (
    check_complete,
    check_name,
    check_revision,
    describe,
    digest_of,
    hub_commit,
)
from st_l0.evaluation.mteb import MtebModel
from st_l0.evaluation.shelf import MTEB, Shelf
from st_l0.evaluation.submission import Submitted, check_reference, relabel, submit
from st_l0.index import EmbeddedIndex, Index
from st_l0.utils.paths import local_name

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A checkpoint, and what its results are filed under.

    Attributes:
        encoder: The model.
        checkpoint: Folder or Hub id.
        meta: The ``ModelMeta`` of mteb.
        shelf: Where its results are.
        commit: The commit of the Hub, None for a folder.
        stated: The fields of ``meta`` that a person stated.
    """

    encoder: SparseEncoder
    checkpoint: str
    meta: Any
    shelf: Shelf
    commit: str | None
    stated: Mapping[str, Any]


def enter(
    checkpoint: str | Path,
    *,
    name: str | None = None,
    revision: str | None = None,
    results: str | Path | None = None,
    own_data: bool = False,
    stated: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> Entry:
    """Load a checkpoint to measure it on benchmarks.

    The results of a model of the Hub are filed under its id and commit. Those of a folder are filed under
    ``name`` and a digest of all that its vectors depend on, and move to the commit once the model is on the
    Hub with the same digest. A folder without a name is never filed among mteb's results: what is measured of
    it lies apart, under its digest, so that a run that was stopped goes on. So do results on one's own data.

    Args:
        checkpoint: Folder or Hub id of an inference-free checkpoint.
        name: ``organization/model``; only for a folder.
        revision: Commit of the Hub; by default that of the main branch as it is now.
        results: Folder of results; by default mteb's, ``$MTEB_CACHE`` or ``~/.cache/mteb``.
        own_data: Whether data come from elsewhere than the benchmark's place.
        stated: See `st_l0.evaluation.model_meta.describe`.
        trust_remote_code: Whether code of the checkpoint may run.

    Raises:
        InputError: There is no such checkpoint, it is dense or siamese, or name or revision are unusable.
        MissingExtraError: the extra ``eval`` is not installed.
    """
    checkpoint, stated = local_name(checkpoint), dict(stated or {})
    require("mteb", "eval")
    check_revision(revision)
    folder = Path(checkpoint).is_dir()
    if folder and revision is not None:
        raise InputError(
            f"{checkpoint}: a folder has no revision; leave it out, or give the model's id on the Hub"
        )
    if not folder and name not in (None, checkpoint):
        raise InputError(f"{checkpoint}: a model of the Hub is filed under its id; leave --name out")
    if name is not None:
        check_name(name)
    options = HubOptions(revision=revision, trust_remote_code=trust_remote_code)
    encoder = SparseEncoder.from_pretrained(
        checkpoint, revision=revision, trust_remote_code=trust_remote_code
    )
    commit = hub_commit(checkpoint, options)
    shelf = Shelf(results)
    digest = digest_of(encoder)
    if commit is None and name is None:
        # Two folders of one name differ by their digests.
        filed = f"unnamed/{re.sub(r'[^A-Za-z0-9._-]+', '_', Path(checkpoint).resolve().name) or 'model'}"
    else:
        filed = name or checkpoint
    if own_data or (commit is None and name is None):
        shelf = shelf.apart()
    meta = _registered(filed, commit) or describe(
        encoder,
        filed,
        commit or digest,
        card=options.find(checkpoint, "README.md"),
        stated=({"open_weights": True, "reference": f"https://huggingface.co/{filed}"} if commit else {})
        | stated,
    )
    if trust_remote_code:
        meta = meta.model_copy(update={"loader_kwargs": {**meta.loader_kwargs, "trust_remote_code": True}})
    entry = Entry(encoder, checkpoint, meta, shelf, commit, stated)
    if commit is not None and (moved := relabel(shelf, meta, digest)):
        logger.warning(
            "%s: %d results measured before it was published, with the same digest, are now filed under %s",
            filed, moved, commit,
        )  # fmt: skip
    return entry


def measure(
    entry: Entry,
    tasks: Sequence[Any],
    *,
    reference: bool = False,
    bm25: bool = True,
    data_root: str | Path | None = None,
    batch_size: int = 32,
    make_index: Callable[[], Index] = EmbeddedIndex,
    progress: bool = False,
    results: dict[str, dict[str, SystemResults]] | None = None,
) -> Iterator[TaskReport]:
    """Measure a checkpoint on tasks; see `st_l0.evaluation.benchmarking.run_tasks`.

    Args:
        entry: What `enter` gave.
        tasks: See `st_l0.evaluation.benchmarks.select_tasks`.
        reference: Let mteb's own loader and search measure, as its results repository wants it; what an index
            measured is measured again.
        bm25: Measure BM25 beside it.
        data_root: A folder with a folder for each task, in place of the Hub.
        batch_size: Documents to encode at once.
        make_index: Gives a new, empty index; called once a corpus.
        progress: Show progress bars.
        results: Receives the measures of each query and the runs.

    Raises:
        InputError: The data of a task cannot be reached, or nothing can be measured on them.
    """
    if reference:
        system = System(_mteb_loads(entry), entry.shelf, MTEB)
    else:
        model = MtebModel(entry.encoder, entry.meta.name, make_index=make_index, meta=entry.meta)
        system = System(model, entry.shelf)
    return run_tasks(
        system,
        tasks,
        bm25=bm25,
        data_root=data_root,
        batch_size=batch_size,
        progress=progress,
        results=results,
    )


def check_submittable(entry: Entry, tasks: Sequence[Any], *, reference: bool, own_data: bool) -> None:
    """Refuse, before anything is measured, what mteb's results repository would refuse.

    Raises:
        InputError: The model is not on the Hub or not fully described, the data are not the benchmark's, or
            results were measured by other means than mteb's own loader.
    """
    if own_data:
        raise InputError("results on one's own data are not submitted; leave --data-root or --submit out")
    if entry.commit is None:
        raise InputError(
            f"{entry.checkpoint}: only a model of the Hub is submitted: publish it, then give its id; what "
            "was measured under its name counts where the digest is the same"
        )
    check_complete(entry.meta, entry.stated)
    if not reference:
        check_reference(entry.shelf, entry.meta, tasks)


def submit_results(entry: Entry, tasks: Sequence[Any]) -> Submitted:
    """Commit the results of tasks for mteb's results repository; see `st_l0.evaluation.submission.submit`."""
    check_reference(entry.shelf, entry.meta, tasks)
    return submit(entry.shelf, entry.meta, tasks)


def _registered(name: str, commit: str | None) -> Any:
    """The description that mteb itself has of a model, if it is of this commit."""
    found = require("mteb.models.model_implementations", "eval").MODEL_REGISTRY.get(name)
    return found if found is not None and commit is not None and found.revision == commit else None


def _mteb_loads(entry: Entry) -> Any:
    """The model as mteb loads it."""
    if entry.commit is not None:
        return entry.meta.load_model()
    model = require("mteb.models", "eval").SparseEncoderWrapper(entry.checkpoint, **entry.meta.loader_kwargs)
    model.mteb_model_meta = entry.meta
    return model
