"""Texts through the model, in batches of like length, into sparse rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse as sp
import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor

from st_l0.encoder.unpadded import can_drop_padding, states_without_padding, use_own_attention
from st_l0.errors import InputError
from st_l0.head.mlm_head import MLMHead, bare_model, flat_max_logits, without_padding
from st_l0.utils.progress import show_progress
from st_l0.utils.stock import (
    batch_to_device,
    can_flatten_inputs,
    forward_arguments,
    select_max_active_dims,
)

# Texts tokenized together, in batches: enough for the tokenizer's threads and for close packing.
_BATCHES_TOKENIZED = 8
# Texts of a batch at most, in batch sizes: (texts, vocabulary) weights are held, however short the texts are.
_LARGEST_BATCH = 4
# Share of tokens, the rest being padding, from which a batch goes through the transformer as it is.
_FULL = 0.85


class _Rows(NamedTuple):
    """The active entries of some texts, text after text: which texts, entries of each, columns, weights."""

    texts: np.ndarray
    counts: np.ndarray
    columns: np.ndarray
    weights: np.ndarray


# What a transformers model takes of the features: of padded texts, and of texts one after the other.
_MODEL_INPUTS = (
    *("input_ids", "attention_mask", "token_type_ids", "position_ids", "seq_idx"),
    *("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"),
)


def largest_logits(transformer: Transformer, head: MLMHead, features: dict[str, Any]) -> Tensor:
    """Largest logit of each vocabulary entry over the tokens of a text, floored at zero.

    Args:
        transformer: The masked language model.
        head: Its head.
        features: A batch as the model's tokenizer makes it, padded or one text after the other.

    Returns:
        ``(texts, vocabulary)``; see `st_l0.head.max_logits.flat_max_logits`.
    """
    tokens, offsets = packed_states(transformer, features)
    return cast(Tensor, flat_max_logits(head.transform(tokens), offsets, head.decoder))


def packed_states(transformer: Transformer, features: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Last hidden states of the tokens of a batch, one text after the other; arguments as `largest_logits`.

    Returns:
        ``(tokens, hidden)``, and where each text begins and the last one ends, ``(texts + 1,)``.
    """
    model: Any = bare_model(transformer.model)
    known = forward_arguments(transformer)
    inputs = {key: features[key] for key in _MODEL_INPUTS if key in features and (not known or key in known)}

    def states() -> Tensor:
        hidden: Tensor = model.base_model(**inputs, return_dict=True).last_hidden_state
        return hidden

    if "cu_seq_lens_q" in features:  # flash attention takes texts one after the other, as one
        return states().squeeze(0), features["cu_seq_lens_q"]
    mask = features["attention_mask"]
    # `encode_texts` batches by length: hardly anything is padding.
    if transformer.training and can_drop_padding(model):
        if mask.sum() < _FULL * mask.numel():
            return states_without_padding(model, inputs)
        use_own_attention(model)
    return cast("tuple[Tensor, Tensor]", without_padding(states(), mask))


def rows_of(features: dict[str, Any], mask: Tensor, texts: Tensor) -> dict[str, Any]:
    """The features of some texts of a batch, without the padding that none of them needs."""
    used = mask[texts].any(0)  # padding may stand on either side
    return {
        key: value[texts][:, used] if isinstance(value, Tensor) and value.shape == mask.shape else value
        for key, value in features.items()
    }


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
        model: The encoder.
        texts: What to encode.
        prompt: Put before each text.
        task: The route of the model, such as ``"document"``.
        batch_size: Texts of a batch of the longest; shorter ones go in batches of as many tokens, up to four
            times as many texts.
        max_active_dims: Largest weights that a text keeps; ``None`` keeps all.
        progress: Whether to show a progress bar.

    Returns:
        ``(texts, vocabulary)``, float32, in the order of ``texts``. Beside it the memory holds one batch, and
        for a moment the weights a second time.

    Raises:
        InputError: A weight is not finite.
    """
    model.eval()
    size = cast(int, model.get_embedding_dimension())
    rows: list[_Rows] = []
    with show_progress("encoding", len(texts), unit="texts", shown=progress, delay=1) as bar:
        for members, features in document_batches(model, texts, prompt, task, batch_size):
            with torch.inference_mode():
                values = model(batch_to_device(features, model.device), task=task)["sentence_embedding"]
                rows.append(_active_entries(values, members, max_active_dims))
            size = values.shape[1]
            bar.update(len(members))
    return _assemble(rows, len(texts), size)


def pack(lengths: np.ndarray, *, tokens: int, texts: int) -> Iterator[slice]:
    """Cut texts, longest first, into batches with little padding and an equal load.

    A batch that holds a quarter of its tokens also ends where the texts become an eighth shorter than its
    longest.

    Args:
        lengths: Tokens of each text, ``(texts,)``, falling.
        tokens: Tokens of a batch at most, padding included; a longer text makes a batch alone.
        texts: Texts of a batch at most.

    Yields:
        Where each batch begins and ends.
    """
    start = 0
    while start < len(lengths):
        longest = max(1, int(lengths[start]))
        most = start + min(max(1, tokens // longest), texts)
        enough = start + -(-tokens // (4 * longest))
        shorter = int(np.searchsorted(-lengths, longest // 8 - longest, side="right"))
        stop = min(most, max(enough, shorter), len(lengths))
        yield slice(start, stop)
        start = stop


def document_batches(
    model: Any, texts: Sequence[str], prompt: str | None, task: str | None, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Which texts a batch holds, and what the model takes of them.

    The longest text sets the budget: ``batch_size`` times its tokens. Longest first: a lack of memory shows
    early.
    """
    flat = can_flatten_inputs(model)  # no padding, and no way to cut what was tokenized together
    together = batch_size if flat else _BATCHES_TOKENIZED * batch_size
    order = np.argsort([-len(text) for text in texts], kind="stable")
    longest = 1
    for start in range(0, len(texts), together):
        members = order[start : start + together]
        features = model.preprocess([texts[i] for i in members], prompt=prompt, task=task)
        mask = features.get("attention_mask")
        if flat or mask is None:
            yield members, features
            continue
        lengths = mask.sum(1)
        longest_first = lengths.argsort(descending=True, stable=True)
        longest = max(longest, int(lengths.max()))
        for cut in pack(
            lengths[longest_first].numpy(), tokens=batch_size * longest, texts=_LARGEST_BATCH * batch_size
        ):
            chosen = longest_first[cut]
            yield members[chosen.numpy()], rows_of(features, mask, chosen)


def _active_entries(values: Tensor, members: np.ndarray, max_active_dims: int | None) -> _Rows:
    """The entries of ``values`` ``(texts, vocabulary)`` that are not 0."""
    if max_active_dims:
        # Only texts with more have anything to lose.
        full = ((values != 0).sum(1) > max_active_dims).nonzero().squeeze(1)
        if len(full):
            values = values.index_copy(0, full, select_max_active_dims(values[full], max_active_dims))
    places = values.flatten().nonzero().squeeze(1)
    weights = values.flatten()[places].float().cpu().numpy()
    rows, columns = np.divmod(places.cpu().numpy(), values.shape[1])
    if not np.isfinite(weights).all():
        bad = members[rows[np.flatnonzero(~np.isfinite(weights))[0]]]
        raise InputError(f"text {bad} gets weights that are not finite: the model is damaged")
    return _Rows(members, np.bincount(rows, minlength=len(members)), columns.astype(np.int32), weights)


def _assemble(rows: list[_Rows], texts: int, size: int) -> sp.csr_matrix:
    """One matrix ``(texts, size)`` in the order of the texts; ``rows`` is used up."""
    counts = np.zeros(texts, dtype=np.int64)
    for some in rows:
        counts[some.texts] = some.counts
    indptr = np.concatenate([[0], np.cumsum(counts)])
    columns = np.empty(indptr[-1], dtype=np.int32)
    weights = np.empty(indptr[-1], dtype=np.float32)
    while rows:
        some = rows.pop()
        # Entry k of a batch moves by as much as the first entry of its text.
        moves = indptr[some.texts] - (np.cumsum(some.counts) - some.counts)
        places = np.repeat(moves, some.counts) + np.arange(len(some.weights))
        columns[places], weights[places] = some.columns, some.weights
    matrix = sp.csr_matrix((weights, columns, indptr), shape=(texts, size))
    matrix.has_canonical_format = True  # columns rise, and none is there twice
    return matrix
