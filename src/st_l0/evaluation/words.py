"""How much words should count, by judgements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_l0.data import Collection, own_documents
from st_l0.errors import InputError
from st_l0.evaluation.measure import Encoder, search_collection
from st_l0.evaluation.metrics import quality
from st_l0.utils.sparse import as_csr

if TYPE_CHECKING:
    from st_l0.index import Index

GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


def choose_weight(index: Index, model: Encoder, collection: Collection) -> tuple[float, dict[float, float]]:
    """The weight of BM25 of the highest nDCG@10 over some judged queries; the smallest of equals.

    What is chosen on a collection says nothing about the quality on that collection: measure it on another.

    Args:
        index: The collection's documents, with words.
        model: Encodes the queries.
        collection: Whose queries and judgements count.

    Returns:
        The weight, and nDCG@10 at each weight of `GRID`.

    Raises:
        InputError: The index holds no words, or documents that are not in the collection.
    """
    if index.bm25 is None:
        raise InputError("the index holds no words: make one with bm25='english', or another language")
    queries = as_csr(model.encode_query(list(collection.queries.values()), convert_to_scipy=True))
    own = own_documents(collection.corpus, collection.queries, collection.qrels)
    curve = {}
    for weight in GRID:
        run, _ = search_collection(index, collection, queries, 10, own, False, weight)
        curve[weight] = quality(collection.qrels, run)["ndcg@10"]
    return max(curve, key=lambda weight: (curve[weight], -weight)), curve
