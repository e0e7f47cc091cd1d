"""Rows of training data in every form that is in use, read strictly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from st_l0.data.columns import Columns, is_known, named
from st_l0.data.row_forms import RawRow, parse
from st_l0.data.sources import Sources, records_of
from st_l0.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from st_l0.data.texts import Texts


class Row(NamedTuple):
    """A query and documents for it.

    Attributes:
        query: Text of the query.
        documents: Texts of the documents, at least one. The first is the positive where the source names one.
        scores: A score for each document, higher is better, where the source has them.
        query_id: Id of the query, where the source has it.
        document_ids: Ids of the documents, where the source has them.
    """

    query: str
    documents: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    query_id: str | None = None
    document_ids: tuple[str, ...] | None = None


def read_rows(
    paths: Sources,
    *,
    corpus: Texts | None = None,
    queries: Texts | None = None,
    columns: Columns | None = None,
) -> Iterator[Row]:
    """Stream rows of training data.

    A row has one of these forms, null counts as absent, and names are compared without regard to capitals,
    ``_`` and ``-``:

    ================================  ======================================================================
    a query                           ``query``, ``anchor``, ``question``, ``query_text``
    its positive                      ``positive``, ``pos``, ``positive_passages``; ``answer``, ``passage``,
                                      ``document`` where nothing else is. A list makes a row of each.
    and negatives                     ``negative``, ``negatives``, ``neg``, ``negs``, ``hard_negatives``,
                                      ``negative_passages``, or ``negative_1`` to ``negative_n``
    or documents, the best first      ``documents``, ``docs``, ``passages``, or ``document_1`` to
    unless there are scores           ``document_n``
    scores, higher is better          ``scores``, ``score``, ``label``, ``labels``, ``teacher_scores``; or
                                      ``pos_scores`` and ``neg_scores``. See `st_l0.data.row_scores`.
    ids beside texts                  ``query_id``, ``document_ids`` (``qid``, ``doc_ids`` …)
    with ``corpus`` and ``queries``   ids instead of texts: ``query_id``, and ``positive_id`` with
                                      ``negative_ids``, or ``document_ids``; or ids under the names above
    ================================  ======================================================================

    A document is a text, or an object with ``text``, ``title`` and ``docid``; in the cell of a table, a list
    is written as JSON. Other keys are ignored, but one
    that may hold documents, ids of them or scores, by its name or its value, is refused.

    Args:
        paths: One or several of: a file ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` (without a line of names:
            query, positive and perhaps negative, as MS MARCO's triples), each with ``.gz`` or without,
            ``.parquet`` or ``.arrow``; a folder of files ``part-*.jsonl[.gz]``, read by name; a folder
            written by ``datasets.Dataset.save_to_disk``; the name of a data set on the Hub, ``owner/name``,
            or a folder to which such a one was downloaded, whose split ``train`` is read; a
            ``datasets.Dataset`` or ``IterableDataset``. Or the rows, a list of dictionaries.
        corpus: Documents by id; given, all rows must hold ids.
        queries: Queries by id; goes with ``corpus``.
        columns: Our words (`st_l0.data.columns.WORDS`) to the keys that hold them, for keys of other names;
            under ``ignore`` those that hold nothing of a row.

    Yields:
        Rows, in the order of the source. Texts that were looked up may be empty, others may not.

    Raises:
        InputError: ``corpus`` without ``queries``, or the reverse; a source cannot be read; a row has none of
            the forms or two at once, a text that is missing, empty or not a string, no document, an id that
            is not known, scores that are not as many finite numbers as there are documents, or a key that may
            hold more. The message starts with ``path:line``, or ``row``.

    Example:
        >>> [row] = read_rows([{"anchor": "wet", "positive": "Rain.", "negative_1": "Sun.", "label": [2.5]}])
        >>> row.documents, row.scores
        (('Rain.', 'Sun.'), (0.0, -2.5))
    """
    rows = read_raw_rows(paths, by_id=check_lookups(corpus, queries), columns=columns)
    if corpus is None or queries is None:
        return _text_rows(rows)
    return _looked_up(rows, corpus, queries)


def read_raw_rows(paths: Sources, *, by_id: bool, columns: Columns | None = None) -> Iterator[RawRow]:
    """Stream rows as `read_rows` does, but leave ids as they are.

    Args:
        paths: See `read_rows`.
        by_id: Whether the rows hold ids or texts.
        columns: See `read_rows`.

    Raises:
        InputError: See `read_rows`.
    """
    keys = named(columns)
    return chain.from_iterable(
        parse(place, record, keys, by_id=by_id) for place, record in records_of(paths, is_known(keys))
    )


def find_rows(place: str, texts: Texts, identifiers: Sequence[str]) -> npt.NDArray[np.int32]:
    """`Texts.rows`, whose complaint then begins with ``place``."""
    try:
        return texts.rows(identifiers)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def check_lookups(corpus: Texts | None, queries: Texts | None) -> bool:
    """Whether rows hold ids: both lookups are given; neither: texts.

    Raises:
        InputError: one is given without the other.
    """
    if (corpus is None) != (queries is None):
        given, absent = ("queries", "corpus") if corpus is None else ("corpus", "queries")
        raise InputError(f"{given} is given without {absent}; give both for rows of ids, neither for texts")
    return corpus is not None


def _text_rows(rows: Iterator[RawRow]) -> Iterator[Row]:
    for row in rows:
        yield Row(
            row.query,
            tuple(row.documents),
            None if row.scores is None else tuple(row.scores),
            row.query_id,
            None if row.document_ids is None else tuple(row.document_ids),
        )


def _looked_up(rows: Iterator[RawRow], corpus: Texts, queries: Texts) -> Iterator[Row]:
    for row in rows:
        [query] = queries.read(find_rows(row.place, queries, [row.query]))
        documents = corpus.read(find_rows(row.place, corpus, row.documents))
        scores = None if row.scores is None else tuple(row.scores)
        yield Row(query, tuple(documents), scores, row.query, tuple(row.documents))
