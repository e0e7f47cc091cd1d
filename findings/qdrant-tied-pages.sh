#!/usr/bin/env bash
# qdrant-edge-py 0.9.0 (Qdrant's core): pages of documents with one score repeat some and lose others.
#
# Which of equal scores come first depends on the limit, and a page at an offset is a search for limit + offset
# of which the beginning is cut off. So reading three pages of ten of 30 documents with one sparse weight gives 30
# hits of fewer documents. Sparse scores tie often (short documents, one common word). Whoever needs every
# document asks once for all of them, or scrolls; whoever compares runs orders ties by id.
#
# Seen: 30 hits, 28 different documents of 30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$folder" \
    qdrant-edge-py==0.9.0
PYTHONPATH=$folder "${PYTHON:-python3}" - <<'PYTHON'
import tempfile

import qdrant_edge as qdrant

with tempfile.TemporaryDirectory() as folder:
    config = qdrant.EdgeConfig(vectors={}, sparse_vectors={"s": qdrant.EdgeSparseVectorParams()})
    shard = qdrant.EdgeShard.create(folder, config)
    points = [qdrant.Point(number, {"s": qdrant.SparseVector([1], [1.0])}) for number in range(30)]
    shard.update(qdrant.UpdateOperation.upsert_points(points))
    query = qdrant.Query.Nearest(qdrant.SparseVector([1], [1.0]), using="s")
    pages = [shard.query(qdrant.QueryRequest(limit=10, offset=start, query=query)) for start in (0, 10, 20)]
    ids = [point.id for page in pages for point in page]
    shard.close()
print(len(ids), "hits,", len(set(ids)), "different documents of 30")
assert len(ids) == 30 and len(set(ids)) < 30
PYTHON
