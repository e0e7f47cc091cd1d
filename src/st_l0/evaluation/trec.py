"""Run files, as trec_eval and its kin read them."""

from __future__ import annotations

import gzip
import math
import re
from pathlib import Path

from st_l0.data import read_lines
from st_l0.errors import InputError
from st_l0.evaluation.metrics import Run, rank
from st_l0.utils.files import FileKind, replace_file

_LINE = 10_000  # characters that are looked at of a file that may be anything
_FIELDS = "query Q0 document rank score tag"
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")
_TO_ESCAPE = re.compile(r"\s|\\u[0-9a-f]{4}")


def write_run(run: Run, path: str | Path, tag: str = "st-l0") -> None:
    r"""Write a run as lines ``query Q0 document rank score tag``, replacing ``path`` as a whole.

    It is compressed if the name of ``path`` ends in ``.gz``. Documents stand in the order in which trec_eval
    ranks them, see `st_l0.evaluation.metrics.rank`; ranks count from 1. Scores have all their digits. A query
    for which nothing was found has no line.

    White space would split a line, so it is written as ``\uXXXX``, with Unicode's number in hexadecimal:
    ``a b`` as ``a\u0020b``. In such ids, and in those that hold ``\uXXXX`` themselves, a backslash is
    written as ``\u005c``. All others stand as they are.

    Args:
        run: What was found.
        path: The file.
        tag: What made the run; one word.

    Raises:
        InputError: an id is empty, a score is not finite, the tag is empty or holds white space, or ``path``
            is something else than a run, which would be lost.
    """
    if tag.split() != [tag]:
        raise InputError(f"{path}: tag {tag!r:.40} is not one word; give a name without white space")
    opened = gzip.open if Path(path).suffix == ".gz" else open
    with replace_file(path, RUN) as new, opened(new, "wt", encoding="utf-8", newline="\n") as file:
        for query, scores in run.items():
            name = _escape(query, path)
            for place, document in enumerate(rank(scores), 1):
                score = float(scores[document])
                if not math.isfinite(score):
                    what = f"document {document!r:.40} of query {query!r:.40}"
                    raise InputError(f"{path}: {what} has the score {score}; give finite ones")
                file.write(f"{name} Q0 {_escape(document, path)} {place} {score!r} {tag}\n")


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    r"""Read a run file; compressed if its name ends in ``.gz``.

    Of the six columns the query, the document and the score count, as for trec_eval. ``\uXXXX`` in an id is
    that character, as `write_run` writes white space.

    Returns:
        Query id → document id → score, in the order of the file.

    Raises:
        InputError: the file cannot be read, a line has not six columns, a score is no finite number, or a
            document occurs twice for a query.
    """
    run: dict[str, dict[str, float]] = {}
    for number, line in read_lines(path):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 6:
            raise InputError(f"{path}:{number}: {len(fields)} columns; give {_FIELDS}")
        query, document = _unescape(fields[0]), _unescape(fields[2])
        try:
            score = float(fields[4])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise InputError(f"{path}:{number}: score {fields[4]!r:.40} is no finite number; give one")
        found = run.setdefault(query, {})
        if document in found:
            what = f"document {document!r:.40} of query {query!r:.40}"
            raise InputError(f"{path}:{number}: {what} occurs twice; keep one of them")
        found[document] = score
    return run


def _is_run(path: Path) -> bool:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        fields = file.readline(_LINE).split()
    return len(fields) == 6 and fields[1] == "Q0"


RUN = FileKind("a run", _is_run)


def _escape(identifier: str, path: str | Path) -> str:
    if not identifier:
        raise InputError(f"{path}: an id is empty, which a run file cannot hold; give every text one")
    if not _TO_ESCAPE.search(identifier):
        return identifier
    return re.sub(r"[\s\\]", lambda found: f"\\u{ord(found[0]):04x}", identifier)


def _unescape(field: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), field)
