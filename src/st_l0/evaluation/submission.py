"""From results on a shelf to a commit in mteb's results repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from st_l0.errors import InputError, reason
from st_l0.evaluation.benchmarks import parts_of
from st_l0.evaluation.shelf import MTEB, Shelf
from st_l0.utils.files import replace_file

_META, _SETTINGS = "model_meta.json", "run_settings.jsonl"


class Submitted(NamedTuple):
    """A commit of results.

    Attributes:
        results: Number of files of results; 0 if the repository had all of them.
        folder: The clone of the results repository, on the branch of the commit.
        branch: That branch.
    """

    results: int
    folder: str
    branch: str


def relabel(shelf: Shelf, meta: Any, digest: str) -> int:
    """File what was measured before a model was published under the commit that it was published as.

    Results of a folder are filed under a digest of all that its vectors depend on. Where the model of the Hub
    has the same digest, they are results of it. What the commit has already stays.

    Args:
        shelf: Where the results are.
        meta: The model's ``ModelMeta``, whose revision is the commit.
        digest: What `st_l0.evaluation.model_meta.digest_of` gives for the model that was loaded from there.

    Returns:
        Number of results that were moved.
    """
    moved = 0
    for folder_of in (shelf.records_of, shelf.results_of):  # results last: they count as done
        old, new = folder_of(meta, digest), folder_of(meta)
        for path in sorted(old.iterdir()) if old.is_dir() and old != new else ():
            target = new / path.name
            if path.name == _META or not path.is_file():
                continue
            new.mkdir(parents=True, exist_ok=True)
            if path.name == _SETTINGS and target.exists():
                with replace_file(target) as merged:
                    merged.write_bytes(target.read_bytes() + path.read_bytes())
                path.unlink()
            elif not target.exists():
                path.replace(target)
                moved += folder_of == shelf.results_of and path.suffix == ".json"
    if moved:
        write_meta(shelf, meta)
        (shelf.results_of(meta, digest) / _META).unlink(missing_ok=True)
        for folder in (shelf.results_of(meta, digest), shelf.records_of(meta, digest)):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    return moved


def write_meta(shelf: Shelf, meta: Any) -> None:
    """Write the description of a model beside its results, in place of an earlier one."""
    with replace_file(shelf.results_of(meta) / _META) as new:
        new.write_text(json.dumps(meta.to_dict(), default=str, indent=4), encoding="utf-8")


def check_reference(shelf: Shelf, meta: Any, tasks: Sequence[Any]) -> None:
    """Refuse to submit what was not measured by mteb's own loader, which its reviewers ask for.

    Raises:
        InputError: There are such results.
    """
    others = [
        part.metadata.name
        for task in tasks
        for part in parts_of(task)
        if shelf.result(part, meta) is None or shelf.measured_by(part.metadata.name, meta) != MTEB
    ]
    if others:
        raise InputError(
            f"{', '.join(others):.200}: not measured by mteb's own loader, as the results repository wants "
            "it; add --reference, which measures these again"
        )


def submit(shelf: Shelf, meta: Any, tasks: Sequence[Any]) -> Submitted:
    """Commit results to a branch in a clone of mteb's results repository, for a pull request.

    Args:
        shelf: Where the results are; the clone is made in ``remote`` there.
        meta: The model's ``ModelMeta``, complete; its revision is a commit of the Hub.
        tasks: The tasks.

    Raises:
        InputError: git cannot reach the repository, or the clone is not as it should be.
    """
    write_meta(shelf, meta)
    names = {name for task in tasks for one in (task, *parts_of(task)) for name in [one.metadata.name]}
    try:
        with _to_stderr():  # where git and mteb tell what they do
            found = shelf.cache.submit_results(meta, tasks=sorted(names), create_pr=False)
    except (RuntimeError, ValueError, subprocess.CalledProcessError, FileNotFoundError) as error:
        raise InputError(
            f"{shelf.cache.remote_repo_path}: the results repository cannot be used ({reason(error)}); see "
            "what git says above, or remove the folder"
        ) from error
    folder = str(shelf.cache.remote_repo_path)
    branch = subprocess.run(
        ["git", "branch", "--show-current"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
    return Submitted(int(found.get("result_count", 0)), folder, branch)


@contextmanager
def _to_stderr() -> Iterator[None]:
    """Let what programs write to standard output go to standard error: standard output is for results."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
