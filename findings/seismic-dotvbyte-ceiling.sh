#!/usr/bin/env bash
# pyseismic-lsr 0.5.4: SeismicIndexDotVByte cuts every document weight at 3.984375, without a word.
#
# Its weights are 8-bit fixed point with 6 bits behind the point. log1p activations (SPLADE, and the doc-only
# models of OpenSearch) stay below that; weights of models with a plain relu, or of BM25, do not: documents that
# differ above it become equal. SeismicIndex (float16) keeps them.
#
# Seen: weights 3, 5 and 8 score 3.0, 3.984375 and 3.984375; in SeismicIndex 3, 5 and 8
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$folder" \
    pyseismic-lsr==0.5.4 numpy==2.4.6
PYTHONPATH=$folder "${PYTHON:-python3}" - <<'PYTHON'
import numpy as np
import seismic

text = seismic.get_seismic_string()


def scores(kind):
    data = seismic.SeismicDataset()
    for weight in (3.0, 5.0, 8.0):
        data.add_document(f"{weight:g}", np.array(["word"], text), np.array([weight], np.float32))
    for number in range(20):
        data.add_document(f"other{number}", np.array(["some", "text"], text), np.array([1, 0.5], np.float32))
    index = kind.build_from_dataset(data, num_threads=1)
    query = np.array(["word"], text), np.array([1], np.float32)
    hits = index.search("q", *query, k=3, query_cut=5, heap_factor=0.0)
    return {document: score for _, score, document in hits}


exact, cut = scores(seismic.SeismicIndex), scores(seismic.SeismicIndexDotVByte)
print(exact, cut)
assert exact == {"3": 3.0, "5": 5.0, "8": 8.0}
assert cut == {"3": 3.0, "5": 3.984375, "8": 3.984375}
PYTHON
