"""Texts through the model, batch by batch, into sparse rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
import torch
from sentence_transformers.util import batch_to_device, select_max_active_dims
from tqdm import tqdm

from st_l0.errors import InputError
from st_l0.vectors import as_csr


def encode_texts(
    model: Any,
    texts: Sequence[str],
    *,
    prompt: str | None,
    task: str | None,
    batch_size: int,
    max_active_dims: int | None,
    progress: bool,
) -> sp.csr_matrix:
    """Encode texts with a sparse encoder's model.

    Args:
        model: the encoder.
        texts: what to encode.
        prompt: put before each text.
        task: the route of the model, such as ``"document"``.
        batch_size: texts of a batch.
        max_active_dims: largest weights that a text keeps; ``None`` keeps all.
        progress: whether to show a progress bar.

    Returns:
        ``(texts, vocabulary)``, float32, in the order of ``texts``.

    Raises:
        InputError: a weight is not finite.
    """
    model.eval()
    # Texts of like length share a batch, longest first: little padding, and a lack of memory shows early.
    order = np.argsort([-len(text) for text in texts], kind="stable")
    rows: list[sp.csr_matrix] = []
    for start in tqdm(range(0, len(texts), batch_size), "texts", unit="batch", disable=not progress):
        batch = [texts[i] for i in order[start : start + batch_size]]
        features = batch_to_device(model.preprocess(batch, prompt=prompt, task=task), model.device)
        with torch.inference_mode():
            values = model(features, task=task)["sentence_embedding"]
            if max_active_dims:
                values = select_max_active_dims(values, max_active_dims)
        if not values.isfinite().all():
            bad = order[start + int((~values.isfinite()).any(1).nonzero()[0])]
            raise InputError(f"text {bad} gets weights that are not finite: the model is damaged")
        rows.append(as_csr(values))
    if not rows:
        return sp.csr_matrix((0, cast(int, model.get_embedding_dimension())), dtype=np.float32)
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return cast(sp.csr_matrix, sp.vstack(rows, format="csr"))[back]
