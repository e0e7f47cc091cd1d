"""Training data as the sentence-transformers trainer takes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from st_l0.data.columns import Columns
from st_l0.data.distinct_texts import DistinctTexts, LookUp
from st_l0.data.mixture import Mixture
from st_l0.data.row_forms import RawRow
from st_l0.data.rows import check_lookups, find_rows, read_raw_rows
from st_l0.data.sources import Sources
from st_l0.data.texts import Texts
from st_l0.errors import InputError
from st_l0.utils.batches import batched
from st_l0.utils.progress import track

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH_ROWS = 4096


class TrainingData(NamedTuple):
    """What to train on.

    Attributes:
        dataset: A row for each group of a query and its documents: the text columns in the order of
            ``columns`` and, if ``scored``, ``scores``, a list of float32, one for each document.
        columns: Names of the text columns: ``query``, then ``positive``, ``negative`` or ``negative_1`` to
            ``negative_n``; or ``document_1`` to ``document_n`` where no document is named the positive.
        scored: Whether there are scores.
        mixture: How often the rows of each source are seen, where the sources have weights.
    """

    dataset: Dataset
    columns: tuple[str, ...]
    scored: bool
    mixture: Mixture | None = None

    def queries(self) -> list[str]:
        """The queries, each once."""
        return list(DistinctTexts(self.dataset, self.columns[:1]))

    def documents(self) -> Iterator[str]:
        """The documents, streamed, each once."""
        return iter(DistinctTexts(self.dataset, self.columns[1:]))


def read_training_data(
    paths: Sources,
    *,
    weights: Sequence[float] | None = None,
    corpus: Texts | None = None,
    queries: Texts | None = None,
    columns: Columns | None = None,
    documents_per_query: int | None = None,
    score_scale: float = 1.0,
    limit: int | None = None,
) -> TrainingData:
    """Read rows of training data into a dataset whose rows all have the same number of documents.

    Rows of texts are held in memory, as Arrow. Of rows of ids only row numbers are held, 4 bytes for each
    document; ``dataset[i]`` and ``dataset[:4]`` look the texts up.

    Args:
        paths: Sources of rows, and their forms: see `read_rows`. All rows must name a positive, or none; all
            must have scores, or none.
        weights: A positive number for each of ``paths``: its share of the examples of a training, see
            `Mixture`. ``None``: every row is seen equally often.
        corpus: Documents by id, for rows of ids.
        queries: Queries by id, for rows of ids.
        columns: Names of the keys, where they are others than those of `read_rows`.
        documents_per_query: Documents k of a group. Rows with more are cut into groups. With a positive, a
            group is the positive and the next k - 1 negatives. A list of n documents makes ``n // k`` groups:
            group i takes the documents ``i, i + n // k, i + 2 * (n // k), ...``, which pairs good with bad
            ones where the list is ordered, as the reference implementation does. What is left over is
            dropped. ``None``: a row is a group, and all must have the same number of documents.
        score_scale: The scores are multiplied by it.
        limit: Groups to read at most; ``None`` reads all. Not with ``weights``.

    Raises:
        InputError: see `read_rows`; rows differ where they must not, a row is too short for a group, there is
            no row at all, a source whose weight is too small for a single example, or a setting is out of its
            range.
    """
    from datasets import concatenate_datasets

    check_lookups(corpus, queries)
    _check_settings(documents_per_query, score_scale, limit)
    sources = _one_by_one(paths, weights, limit)
    form = _Form(documents_per_query)
    parts: list[Dataset] = []
    counts = [0] * len(sources)
    names: tuple[str, ...] = ()
    for number, source in enumerate(sources):
        groups = islice(_groups(source, corpus, queries, columns, form), limit)
        for batch in batched(groups, _BATCH_ROWS):  # Arrow holds a text in a fraction of the memory of Python
            names = names or column_names(len(batch[0].documents), batch[0].has_positive)
            parts.append(_to_arrow(names, batch, score_scale))
            counts[number] += len(batch)
        _refuse_nothing(source, counts[number])
    dataset = concatenate_datasets(parts)
    scored = "scores" in dataset.column_names
    if score_scale != 1 and not scored:
        raise InputError(f"score_scale is {score_scale:g}, but the rows hold no scores; leave it out")
    if corpus is not None and queries is not None:
        dataset = dataset.with_transform(LookUp(corpus, queries))
    mixture = None if weights is None else _mixture(sources, counts, weights)
    return TrainingData(dataset, names, scored, mixture)


def count_examples(
    paths: Sequence[str],
    weights: Sequence[float],
    *,
    by_id: bool,
    columns: Columns | None = None,
    documents_per_query: int | None = None,
) -> Mixture:
    """The mixture that `read_training_data` would make, without the texts; arguments as there.

    Args:
        paths: Sources of rows.
        weights: One for each.
        by_id: Whether the rows hold ids or texts.
        columns: Names of the keys.
        documents_per_query: Documents of a group.

    Raises:
        InputError: As of `read_training_data`, but for what only a look into corpus and queries shows.
    """
    sources = _one_by_one(paths, weights, None)
    form = _Form(documents_per_query)
    counts = [0] * len(sources)
    for number, source in enumerate(sources):
        rows = read_raw_rows(source, by_id=by_id, columns=columns)
        for row in track(rows, "counting", unit="rows", delay=2):
            counts[number] += len(form.groups(row))
        _refuse_nothing(source, counts[number])
    return _mixture(sources, counts, weights)


class _Group(NamedTuple):
    """A query and the documents that it is trained with: texts, or rows of the two lookups."""

    has_positive: bool
    query: str | int
    documents: list[str | int]
    scores: list[float] | None


def _check_settings(documents_per_query: int | None, score_scale: float, limit: int | None) -> None:
    if documents_per_query is not None and documents_per_query < 1:
        raise InputError(f"documents_per_query is {documents_per_query}; give 1 or more")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give 1 or more")
    if not 0 < score_scale < float("inf"):
        raise InputError(f"score_scale is {score_scale}; give a finite number above 0")


def _one_by_one(paths: Sources, weights: Sequence[float] | None, limit: int | None) -> list[Sources]:
    """The sources, each to be counted: all as one where they have no weights."""
    if weights is None:
        return [paths]
    if isinstance(paths, (str, Path)) or not isinstance(paths, Sequence) or len(paths) != len(weights):
        raise InputError("weights are for a list of sources: give a weight for each of them")
    if not all(0 < weight < float("inf") for weight in weights):
        raise InputError(f"weights are {', '.join(map(str, weights))}; give finite numbers above 0")
    if limit is not None:
        raise InputError("limit would cut off the last of the sources: leave it or the weights out")
    return [[path] for path in paths]


def _refuse_nothing(source: Sources, count: int) -> None:
    if not count:
        raise InputError(f"{_in_words(source)}: no training data; give at least one row")


def _mixture(sources: Sequence[Sources], counts: Sequence[int], weights: Sequence[float]) -> Mixture:
    mixture = Mixture(tuple(counts), tuple(weights))
    for source, given in zip(sources, mixture.given(), strict=True):
        if not given:
            raise InputError(
                f"{_in_words(source)}: its weight gives it none of the {sum(counts):,} examples of an epoch; "
                "raise it, or leave the source out"
            )
    return mixture


def _in_words(sources: Sources) -> str:
    one = [sources] if isinstance(sources, (str, Path)) else sources
    paths = [str(path) for path in one if isinstance(path, (str, Path))] if isinstance(one, Sequence) else []
    return ", ".join(paths) or ("the data set" if one else "nothing given")


def _groups(
    paths: Sources, corpus: Texts | None, queries: Texts | None, columns: Columns | None, form: _Form
) -> Iterator[_Group]:
    rows = read_raw_rows(paths, by_id=corpus is not None, columns=columns)
    for row in track(rows, "reading", unit="rows", delay=2):
        members = form.groups(row)
        query: str | int = row.query
        documents: Sequence[str | int] = row.documents
        if corpus is not None and queries is not None:
            query = int(find_rows(row.place, queries, [row.query])[0])
            documents = find_rows(row.place, corpus, row.documents).tolist()
        for group in members:
            scores = None if row.scores is None else [row.scores[member] for member in group]
            yield _Group(row.has_positive, query, [documents[member] for member in group], scores)


class _Form:
    """The form that all rows have, that of the first one, and the groups that a row is cut into."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._first: RawRow | None = None

    def groups(self, row: RawRow) -> list[tuple[int, ...]]:
        """Positions of the documents of each group of a row.

        Raises:
            InputError: The row has another form, or too few documents.
        """
        self._first = self._first or row
        _refuse_difference(row, self._first, self._size)
        refuse_too_few(row, self._size)
        return _members(len(row.documents), self._size, row.has_positive)


@cache
def _members(documents: int, size: int | None, has_positive: bool) -> list[tuple[int, ...]]:
    """Positions of the documents of each group of a row."""
    if size is None:
        return [tuple(range(documents))]
    if not has_positive:
        step = documents // size
        return [tuple(range(start, step * size, step)) for start in range(step)]
    if size == 1:
        return [(0,)]
    starts = range(1, documents - size + 2, size - 1)
    return [(0, *range(start, start + size - 1)) for start in starts]


def refuse_too_few(row: RawRow, size: int | None) -> None:
    """Refuse a row that has fewer documents than a group of ``size``.

    Raises:
        InputError: It has.
    """
    if size is not None and len(row.documents) < size:
        raise InputError(
            f"{row.place}: {len(row.documents)} documents, but documents_per_query is {size}; "
            "give every row at least as many"
        )


def _refuse_difference(row: RawRow, first: RawRow, size: int | None) -> None:
    if row.has_positive != first.has_positive:
        names, other = ("a", "none") if row.has_positive else ("no", "one")
        raise InputError(
            f"{row.place}: names {names} positive where the first row names {other}; give all rows one form"
        )
    if (row.scores is None) != (first.scores is None):
        has, other = ("no scores", "some") if row.scores is None else ("scores", "none")
        raise InputError(
            f"{row.place}: has {has} where the first row has {other}; give scores to all rows or to none"
        )
    if size is None and len(row.documents) != len(first.documents):
        raise InputError(
            f"{row.place}: {len(row.documents)} documents where the first row has {len(first.documents)}; "
            "give every row the same number, or set documents_per_query"
        )


def column_names(documents: int, has_positive: bool) -> tuple[str, ...]:
    """Names of the text columns, see `TrainingData`."""
    if not has_positive:
        return ("query", *(f"document_{index + 1}" for index in range(documents)))
    negatives = (
        ["negative"] if documents == 2 else [f"negative_{index + 1}" for index in range(documents - 1)]
    )
    return ("query", "positive", *negatives)


def _to_arrow(columns: tuple[str, ...], groups: list[_Group], score_scale: float) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset, Features, List, Value

    rows = [(group.query, *group.documents) for group in groups]
    values: list[Sequence[Any]] = list(zip(*rows, strict=True))
    features = dict.fromkeys(columns, Value("string" if isinstance(groups[0].query, str) else "int32"))
    if groups[0].scores is not None:
        values.append([[score * score_scale for score in group.scores or ()] for group in groups])
        features["scores"] = List(Value("float32"))
    schema = Features(features).arrow_schema
    # Not Dataset.from_dict, which looks at every value in Python.
    return Dataset(
        pa.table([pa.array(column, field.type) for column, field in zip(values, schema, strict=True)], schema)
    )
