"""Hard negatives: what a model ranks high for a query although it is not known to answer it."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import chain, islice
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from st_l0.data import Document, is_own, read_positives, write_records
from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex, open_index
from st_l0.index.calibration import weigh_by_documents
from st_l0.indexing.identity import check_model
from st_l0.indexing.index import index_corpus
from st_l0.mining.copies import seen_by
from st_l0.mining.outputs import RECORD, ROWS, check_outputs, open_own, write_texts
from st_l0.mining.settings import Settings
from st_l0.utils.batches import batched
from st_l0.utils.files import replace_file
from st_l0.utils.inputs import as_texts
from st_l0.utils.paths import local_path
from st_l0.utils.progress import show_progress
from st_l0.utils.resumable import hold_output

if TYPE_CHECKING:
    import scipy.sparse as sp

    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import Hits, Index

__all__ = ["Mined", "MiningReport", "mine", "mine_collection"]

_Positives = dict[str, tuple[float, "str | None"]]  # id → score and text
_GROUP = 64  # queries whose positives are looked up together: the results grow with its square


class Mined(NamedTuple):
    """The ids of a query, of one of its positives and of their hard negatives, best first."""

    query_id: str
    positive_id: str
    negative_ids: tuple[str, ...]


@dataclass(frozen=True)
class MiningReport:
    """What `mine_collection` did, in numbers."""

    queries: int  #: with at least one positive
    pairs: int  #: of a query and a positive
    rows: int  #: pairs that were written
    dropped: int  #: pairs that were not, for too few negatives
    missing: int  #: relevant documents left out before, as the corpus does not have them
    own: int = 0  #: queries that are documents themselves; those are no negatives of theirs


def mine(
    model: SparseEncoder,
    index: Index,
    queries: Mapping[str, str],
    positives: Mapping[str, Sequence[str]],
    *,
    number: int = 8,
    depth: tuple[int, int] = (1, 100),
    margin: float | None = None,
    max_ratio: float | None = None,
    bm25: float | Literal["auto"] = 0.0,
    chunk_size: int = 1024,
    progress: bool = True,
) -> Iterator[Mined]:
    """Find hard negatives of each pair of a query and a positive.

    The negatives are the best documents for the query, without its positives and their copies: documents of
    the same text, as the encoder sees it, where the index stores texts; and without the query itself, where
    it is a document (see `st_l0.data.is_own`). Unlabelled answers are among the very best: they are kept out
    by ``depth``, or by a score too near to the positive's, be it by ``margin`` or by ``max_ratio``, the
    percentage filter of NV-Retriever (0.95 there, for dense models).

    Args:
        model: Encodes the queries; the one that encoded the documents.
        index: The documents, under str ids.
        queries: Query id → text.
        positives: Query id → ids of all documents known to answer it.
        number: Negatives of each pair. A pair for which there are fewer is left out.
        depth: First and last rank to look at. Ranks count from 1, without the positives and the query itself.
        margin: A negative scores at most the positive's score less this.
        max_ratio: A negative scores at most this share of the positive's score, above 0 and up to 1.
        bm25: How much BM25 counts in a score beside the model, in an index with words; "auto": as much as the
            index has stored.
        chunk_size: Queries encoded and searched at once; the result does not depend on it.
        progress: Whether to show progress, see `st_l0.utils.progress`.

    Returns:
        The pairs, in the order of ``positives``, each once, with ``number`` negatives each. The same index
        and the same model give the same ones.

    Raises:
        InputError: A setting is out of its range, a query has no text, or a positive is not in the index;
            raised by the call itself, before the first pair.

    Source: Moreira et al., 2024, https://arxiv.org/abs/2407.15831

    Example:
        >>> from st_l0 import SparseEncoder
        >>> from st_l0.index import EmbeddedIndex
        >>> model = SparseEncoder.from_pretrained("models/st-l0-mini", device="cpu")
        >>> index = EmbeddedIndex()
        >>> index.add(["a", "b"], model.encode_document(["Rain falls from clouds.", "Clouds hide the sun."]))
        >>> found = mine(model, index, {"q": "rain clouds"}, {"q": ["a"]}, number=1, progress=False)
        >>> next(found).negative_ids
        ('b',)
    """
    settings = Settings(number, depth, margin, max_ratio, bm25)
    if chunk_size < 1:
        raise InputError(f"chunk_size is {chunk_size}; give at least 1")
    pairs = {query: documents for query, documents in positives.items() if documents}
    textless = next((query for query in pairs if query not in queries), None)
    if textless is not None:
        raise InputError(f"query {textless!r:.40} has positives but no text; add it or drop its positives")
    absent = set(index.missing(dict.fromkeys(chain(*pairs.values(), pairs))))
    for query, documents in pairs.items():
        if unknown := next((document for document in documents if document in absent), None):
            what = f"document {unknown!r:.40}, a positive of query {query!r:.40}"
            raise InputError(f"{what}, is not in the index; index the corpus that holds it")
    itself = pairs.keys() - absent  # queries that may be documents
    seen = seen_by(model)

    as_texts([queries[query] for query in pairs], "query", pairs)

    def rows() -> Iterator[Mined]:  # apart, so that what is wrong is said by the call itself
        with show_progress("mining", len(pairs), unit="queries", shown=progress) as bar:
            for chunk in batched(pairs.items(), chunk_size):
                texts = [queries[query] for query, _ in chunk]
                vectors = model.encode_query(texts, convert_to_scipy=True)
                wanted = [documents for _, documents in chunk]
                search = partial(_search, index, vectors, texts, bm25)
                depth = settings.depth[1] + max(map(len, wanted)) + bool(itself)
                found = search(range(len(chunk)), depth)
                known = _look_up(search, wanted, found)
                for (query, _), hits, its_positives in zip(chunk, found, known, strict=True):
                    own = queries[query] if query in itself else None
                    yield from _choose(query, own, hits, its_positives, settings, seen)
                bar.update(len(chunk))

    return rows()


def mine_collection(
    model: SparseEncoder | str | Path,
    data: str | Path,
    output: str | Path,
    *,
    split: str = "train",
    index_folder: str | Path | None = None,
    number: int = 8,
    depth: tuple[int, int] = (1, 100),
    margin: float | None = None,
    max_ratio: float | None = None,
    bm25: float | Literal["auto"] = 0.0,
    batch_size: int = 32,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> MiningReport:
    """Turn judgements or pairs into a training file with hard negatives.

    Writes to ``output``:

    - ``train.jsonl``: a line ``{"query_id", "positive_id", "negative_ids"}`` a pair; see `mine`;
    - ``mining.json``: the settings, and the numbers of the report;
    - ``index/``, unless ``index_folder`` is given: the corpus, encoded once for all settings; interrupted and
      called again, the encoding goes on where it stopped;
    - for a file of pairs, ``corpus.jsonl`` and ``queries.jsonl`` in BEIR layout: the distinct positives, as
      ``d0``, ``d1``, ..., and the distinct queries, as ``q0``, ``q1``, ...

    Args:
        model: The model, or its folder or Hub id.
        data: A folder in BEIR layout, of which judgements above 0 make a positive; or a file, ``.jsonl`` or
            ``.jsonl.gz``, of rows ``query`` and ``positive``, other keys being ignored.
        output: A folder.
        split: Which judgements to read; only for a BEIR folder.
        index_folder: An index of these documents, made with ``model``, that `open_index` opens.
        number: Negatives of each pair; see `mine` for this and the next three.
        depth: First and last rank to look at.
        margin: Least distance to the positive's score.
        max_ratio: Largest share of the positive's score.
        bm25: How much BM25 counts; an index of mining's own gets English words then, and "auto" finds its
            weight without labels.
        batch_size: Documents encoded at once.
        columns: Names of the keys of a file of pairs, see `st_l0.data.read_rows`.
        trust_remote_code: Whether code that comes with the model may run; read it first.
        progress: Whether to show progress bars, where there is a terminal.

    Returns:
        How many pairs there were, and what became of them.

    Raises:
        InputError: A setting is out of its range, the data cannot be read, an index or a file in ``output``
            is of another model or other data, or no pair has enough negatives. What was there before stays.
    """
    settings = Settings(number, depth, margin, max_ratio, bm25)
    data, output = local_path(data), local_path(output)
    with hold_output(output, "is mining there"):
        return _mine_collection(
            model, data, output, split, columns, index_folder, settings, batch_size, trust_remote_code,
            progress,
        )  # fmt: skip


def _mine_collection(
    model: SparseEncoder | str | Path,
    data: Path,
    output: Path,
    split: str,
    columns: Mapping[str, str | Sequence[str]] | None,
    index_folder: str | Path | None,
    settings: Settings,
    batch_size: int,
    trust_remote_code: bool,
    progress: bool,
) -> MiningReport:
    from st_l0.encoder.sparse_encoder import SparseEncoder

    rows, record = output / "train.jsonl", output / "mining.json"
    check_outputs(rows, record, data, None if index_folder else output / "index")
    known = read_positives(data, split, columns)
    corpus, queries, positives = known.corpus, known.queries, known.positives
    name = None if isinstance(model, SparseEncoder) else model
    if isinstance(model, SparseEncoder):
        encoder = model
    else:
        encoder = SparseEncoder.from_pretrained(str(model), trust_remote_code=trust_remote_code)

    if not known.judged:
        write_texts(output / "corpus.jsonl", corpus, data)
        write_texts(output / "queries.jsonl", queries, data)
    if index_folder is None:
        words = "english" if settings.bm25 else None
        index = open_own(output / "index", encoder, name, corpus, data, words)
        documents = [Document(id, text, known.titles.get(id, "")) for id, text in corpus.items()]
        index_corpus(encoder, documents, index, batch_size=batch_size, progress=progress)
        if settings.bm25 == "auto":
            index.bm25_weight = weigh_by_documents(index, encoder, documents)
    else:
        index = open_index(index_folder, create=False)
        check_model(encoder, index, str(index_folder))
        if strangers := len(index) - (len(corpus) - len(index.missing(corpus))):
            # Only the embedded engine can say which.
            held = index.ids().tolist() if isinstance(index, EmbeddedIndex) else []
            named = (f"document {id!r:.40}, which is" for id in held if id not in corpus)
            what = next(named, f"{strangers:,} documents that are")
            raise InputError(f"{index_folder}: holds {what} not in {data}")

    mined = mine(encoder, index, queries, positives, **asdict(settings), progress=progress)
    pairs = sum(map(len, positives.values()))
    # Left in reverse order, so that a train.jsonl without a mining.json is never one of ours.
    with replace_file(rows, ROWS) as new_rows, replace_file(record, RECORD) as new_record:
        written = write_records(new_rows, (row._asdict() for row in mined))
        if not written:
            problem = f"{data}: none of {pairs:,} pairs has {settings.number} negatives"
            raise InputError(f"{problem}; ask for fewer, look deeper or loosen margin or max_ratio")
        own = sum(id in corpus and is_own(id, queries[id], corpus[id]) for id in positives)
        report = MiningReport(len(positives), pairs, written, pairs - written, known.missing, own)
        content: dict[str, object] = {"model": name and str(name), "fingerprint": encoder.fingerprint()}
        content |= {"data": str(data), "split": split if known.judged else None}
        content |= {"index": str(index_folder or output / "index"), **asdict(settings), **asdict(report)}
        content["bm25"] = index.bm25_weight if settings.bm25 == "auto" else settings.bm25
        new_record.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _search(
    index: Index,
    vectors: sp.csr_matrix,
    texts: Sequence[str],
    bm25: float | Literal["auto"],
    rows: Sequence[int],
    k: int,
    *,
    ids: Iterable[str] | None = None,
) -> list[Hits]:
    """The hits of some of a chunk's queries."""
    if not bm25:
        return index.search(vectors[rows], k, ids=ids)
    return index.search(vectors[rows], k, ids=ids, texts=[texts[row] for row in rows], bm25=bm25)


def _look_up(
    search: Callable[..., list[Hits]], wanted: Sequence[Sequence[str]], found: Sequence[Hits]
) -> list[_Positives]:
    """The positives of each query; a second search finds those that the first did not reach."""
    nothing: tuple[float, str | None] = (0.0, None)  # what is never found has no score above zero
    known = [dict.fromkeys(documents, nothing) for documents in wanted]
    for positives, hits in zip(known, found, strict=True):
        _note(positives, hits)
    rows = [row for row, positives in enumerate(known) if nothing in positives.values()]
    for start in range(0, len(rows), _GROUP):
        group = rows[start : start + _GROUP]
        unseen = dict.fromkeys(id for row in group for id, found in known[row].items() if found == nothing)
        for row, hits in zip(group, search(group, len(unseen), ids=unseen), strict=True):
            _note(known[row], hits)
    return known


def _note(positives: _Positives, hits: Hits) -> None:
    for place, document in enumerate(hits.ids.tolist()):
        if document in positives:
            positives[document] = hits[place][1:]


def _choose(
    query: str,
    own: str | None,
    hits: Hits,
    positives: _Positives,
    settings: Settings,
    seen: Callable[[str], Hashable],
) -> Iterator[Mined]:
    """The pairs of one query that have enough negatives; ``own`` is its text, if it may be a document."""
    first, last = settings.depth
    ids, scores = hits.ids.tolist(), hits.scores.tolist()
    known = set(positives)
    if own is not None and query in ids and is_own(query, own, hits[ids.index(query)].text):
        known.add(query)
    places = [place for place, document in enumerate(ids) if document not in known][first - 1 : last]
    texts = {text: score for score, text in positives.values() if text is not None}

    @cache  # a text is read from the disk
    def is_copy(place: int) -> bool:
        text = hits[place].text if texts else None
        if text is None or text in texts:
            return text is not None
        # Equal tokens have equal vectors and, but for rounding, equal scores: few texts are tokenized.
        near = [other for other, score in texts.items() if isclose(score, scores[place], rel_tol=1e-4)]
        return bool(near) and seen(text) in map(seen, near)

    for document, (score, _) in positives.items():
        limit = settings.limit(score)
        fitting = (ids[place] for place in places if scores[place] <= limit and not is_copy(place))
        negatives = tuple(islice(fitting, settings.number))
        if len(negatives) == settings.number:
            yield Mined(query, document, negatives)
