"""From what `OpenSearchIndex.add` is given to what is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from st_l0.errors import InputError
from st_l0.index.embedded.arguments import as_ids, as_stored_texts, unique
from st_l0.index.opensearch import documents
from st_l0.index.opensearch.bound import Bound, kind_of_ids
from st_l0.index.opensearch.writing import Action, Item
from st_l0.index.protocol import Ids
from st_l0.utils.inputs import as_texts
from st_l0.utils.sparse import Vectors


def as_items(
    index: Bound,
    ids: Ids,
    vectors: Vectors,
    texts: Sequence[str | None] | None,
    fields: Sequence[Mapping[str, Any]] | None,
    action: Action,
) -> list[Item]:
    """Documents, checked and as the server takes them; may be called by several threads.

    Raises:
        InputError: As `OpenSearchIndex.add`, but for what only the server knows.
    """
    values = unique(as_ids(ids, ordered=True))
    documents.check_ids(values)
    record = index.state.record
    matrix = documents.check_vectors(index.check(vectors), record)
    if len(values) != matrix.shape[0]:
        raise InputError(f"{len(values)} ids were given for {matrix.shape[0]} vectors")
    if texts is not None:
        texts = as_stored_texts(texts)
        if len(texts) != len(values):
            raise InputError(f"{len(values)} ids were given for {len(texts)} texts")
        documents.check_texts(texts)
    if record.words is not None and texts is None:
        raise InputError("the index holds words, so it needs the texts of its documents: give texts")
    rows = None if fields is None else documents.as_fields(fields, len(values))
    if not values:
        return []
    words = None if record.words is None else record.words.split(as_texts(texts))
    index.learn(matrix.shape[1], kind_of_ids(values))
    made = documents.bodies(values, matrix, index.names, texts=texts, words=words, fields=rows)
    return [Item(action, str(id), body) for id, body in zip(values, made, strict=True)]
