"""The queries that a teacher finds nearest to each document, found once."""

from __future__ import annotations

import torch
from torch import Tensor

from st_l0.teachers.model_teachers import EmbeddingTeacher
from st_l0.utils.distributed import all_gather, rank, world_size
from st_l0.utils.progress import track
from st_l0.utils.sparse_rows import SparseRows

NEAREST = 32
# Scores that are looked at together, of 4 bytes each. With more, BM25 takes twice as long on a CPU: its
# table of words and documents leaves the caches.
_SCORES, _SCORES_ON_CPU = 1 << 26, 1 << 22


def nearest_queries(
    teacher: EmbeddingTeacher, queries: Tensor | SparseRows, documents: Tensor | SparseRows
) -> Tensor:
    """The queries with the largest scores for each document, by a score that can be compared between queries.

    It is the teacher's, divided by the length of the query's vector: a sum over words, such as BM25, grows
    with their number. Several processes share the documents, and each gets all that was found.

    Args:
        teacher: Who compares.
        queries: Embeddings that the teacher holds.
        documents: The same of documents.

    Returns:
        Rows of ``queries``, int32 ``(documents, 32)``, or as many as there are; the nearest come first.
    """
    number = min(NEAREST, len(queries))
    if isinstance(queries, SparseRows):
        lengths = queries.lengths()
    else:
        lengths = torch.linalg.vector_norm(queries, dim=1, dtype=torch.float32)
    lengths = lengths.clamp(min=1e-12)
    device = lengths.device
    size = max(1, (_SCORES_ON_CPU if device.type == "cpu" else _SCORES) // len(queries))
    # Whole chunks, so that a chunk has the same shape, and rounds alike, for any number of processes.
    starts = range(0, len(documents), size)
    mine = starts[len(starts) * rank() // world_size() : len(starts) * (rank() + 1) // world_size()]
    found = [torch.empty(0, number, dtype=torch.int32, device=device)]
    for start in track(mine, "finding extra queries", total=len(mine), unit="parts", delay=2):
        rows = torch.arange(start, min(start + size, len(documents)), device=device)
        scores = teacher.compare(queries, documents[rows]) / lengths[:, None]
        # Along rows that lie one after the other: three times as fast on a CPU.
        found.append(scores.T.contiguous().topk(number, dim=1).indices.int())
    return all_gather(torch.cat(found))
