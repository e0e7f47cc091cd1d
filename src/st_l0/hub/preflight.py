"""Whether others get from a folder what was meant: plain sentence-transformers, in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError

_TOLERANCE = 1e-4  # of the largest score: sums in another order
_TEXTS = 12

# Runs without anything of ours, and without the Hub.
_STOCK = """
import json, sys
folder, trust, texts, output = sys.argv[1], sys.argv[2] == "True", sys.argv[3], sys.argv[4]
from sentence_transformers import SparseEncoder
model = SparseEncoder(folder, device="cpu", trust_remote_code=trust)
queries, documents = json.load(open(texts, encoding="utf-8"))
scores = model.similarity(model.encode_query(queries), model.encode_document(documents, batch_size=4))
assert not any(name.split(".")[0] == "st_l0" for name in sys.modules), "st_l0 was imported"
json.dump(scores.tolist(), open(output, "w", encoding="utf-8"))
"""


def real_texts() -> tuple[list[str], list[str]]:
    """Queries and documents: articles of Python's own manual, most longer than models read, and odd ones."""
    from pydoc_data.topics import topics

    names = sorted(topics)[:: max(1, len(topics) // _TEXTS)][:_TEXTS]
    articles = [topics[name] for name in names]
    firsts = [" ".join(one.split()[:12]) for one in articles]
    return [*names, *firsts, "größe 日本語 \U0001f600"], [*articles, *firsts, "größe 日本語 \U0001f600", "a"]


def check_upload(encoder: SparseEncoder, folder: Path, work: Path) -> float:
    """Compare the scores of an encoder with those that plain sentence-transformers computes from a folder.

    Args:
        encoder: What was meant.
        folder: What will be uploaded.
        work: Folder for files of the comparison.

    Returns:
        Largest difference of two scores, as a part of the largest score.

    Raises:
        InputError: Plain sentence-transformers cannot load the folder, or finds other scores.
    """
    queries, documents = real_texts()
    texts, output = work / "texts.json", work / "scores.json"
    texts.write_text(json.dumps([queries, documents]), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command: list[Any] = [sys.executable, "-I", "-c", _STOCK]
    command += [folder, str(encoder.trust_remote_code), texts, output]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, cwd=work, check=False
    )
    if done.returncode:
        why = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
        raise InputError(
            f"{folder}: plain sentence-transformers cannot load it, nothing was sent: {why:.300}"
        )
    found = np.asarray(json.loads(output.read_text(encoding="utf-8")))
    here = encoder.similarity(encoder.encode_query(queries), encoder.encode_document(documents, batch_size=4))
    expected = here.float().cpu().numpy()
    largest = float(np.abs(expected).max())
    if not largest > 0:
        raise InputError(
            f"{folder}: no query finds any of {len(documents)} texts, nothing was sent: train it"
        )
    difference = float(np.abs(found - expected).max()) / largest
    if not difference <= _TOLERANCE:
        raise InputError(
            f"{folder}: plain sentence-transformers finds other scores, by {difference:.2g} of the largest; "
            "nothing was sent: report this"
        )
    return difference
