"""Words that become tokens of an encoder that exists: embeddings, decoder biases and query weights for them.

`resize_token_embeddings` of transformers gives a new token a decoder bias of 0 where those of an encoder lie
far below (st-l0-mini: -9.65 in the mean), so that every document has it; or, in other models, none can ever
get it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from st_l0.encoder.documents import document_batches, packed_states
from st_l0.encoder.idf import document_frequencies
from st_l0.encoder.leading_space import inside_text
from st_l0.encoder.learned_queries import trained_parameter
from st_l0.encoder.modules import (
    EncoderModules,
    check_head,
    resize_vocabulary,
    text_tokenizer,
    vocabulary_size,
)
from st_l0.errors import InputError
from st_l0.head.mlm_head import MLMHead, read_head
from st_l0.utils.inputs import as_list, as_texts
from st_l0.utils.progress import show_progress
from st_l0.utils.stock import batch_to_device, resolve_prompt

_SILENT = -1e4  # as long as nothing better is known
_ALIKE = 0.1  # numbers of texts that differ by a tenth


class NewToken(NamedTuple):
    """What became of a token that was added; shares are of the texts that it was added with.

    Attributes:
        token: As the vocabulary has it, such as in lower case.
        pieces: The tokens that it was made of before.
        texts: Share of the texts that hold it.
        before: Mean over the pieces of the share of texts whose vectors they were active in.
        after: Share of the texts whose vectors it is active in now.
        weight: Its weight in a query.
    """

    token: str
    pieces: tuple[str, ...]
    texts: float
    before: float
    after: float
    weight: float


def add_tokens(
    model: Any, tokens: Iterable[str], texts: Iterable[str], *, batch_size: int, progress: bool
) -> list[NewToken]:
    """See `st_l0.SparseEncoder.add_tokens`; ``model`` is one that is inference-free."""
    modules: EncoderModules = model._inference_free_modules()
    head = _head(modules)
    documents = as_texts(texts)
    names, pieces = _named(as_list(tokens), modules)
    size = vocabulary_size(modules.tokenizer)
    sides: list[Any] = [
        _with_tokens(one, names, size) for one in (text_tokenizer(modules.transformer), modules.tokenizer)
    ]
    counts, total = document_frequencies(documents, sides[0], batch_size=1024, progress=progress)
    held = counts[size:]
    if not held.all():
        missing = names[int(held.argmin())]
        raise InputError(f"token {missing!r} is in none of the texts: give texts that hold it")

    vectors = model.encode_document(
        documents, convert_to_scipy=True, batch_size=batch_size, show_progress_bar=progress
    )
    active = np.bincount(vectors.indices, minlength=size)
    weights = _weights(model.query_weights, counts, size)

    _extend(modules, head, pieces, sides, weights)
    largest = _largest_logits(model, documents, size, batch_size, progress)
    before = np.array([active[list(one)].mean() for one in pieces])
    biases, after = _biases(largest, np.maximum(before, held))
    decoder = modules.transformer.model.get_output_embeddings()
    with torch.no_grad():
        decoder.bias[size:] = torch.from_numpy(biases).to(decoder.bias)
    tokenizer = modules.tokenizer
    return [
        NewToken(
            name,
            tuple(map(str, tokenizer.convert_ids_to_tokens(list(pieces[place])))),
            float(held[place] / total),
            float(before[place] / total),
            float(after[place] / total),
            float(weights[place]),
        )
        for place, name in enumerate(names)
    ]


def _head(modules: EncoderModules) -> MLMHead:
    """The head that is extended.

    Raises:
        InputError: It cannot be: it is of no known kind, has no bias, or query weights are being trained.
    """
    model: Any = modules.transformer.model
    size = check_head(modules.transformer)
    weights, known = cast(SparseStaticEmbedding, modules.query).weight, vocabulary_size(modules.tokenizer)
    if not len(weights) == known == size:
        raise InputError(
            f"the queries' tokenizer knows {known} tokens, of {len(weights)} with a weight and {size} of the "
            "documents': load the model again, and add tokens to it, not to its tokenizer"
        )
    head = read_head(model) if modules.transformer.backend == "torch" else None
    if head is None or head.decoder.bias is None:
        what = "no known kind" if head is None else "a kind without a bias"
        raise InputError(f"{type(model).__name__}: has an MLM head of {what}, to which no token can be added")
    if trained_parameter(modules) is not None:
        raise InputError("the query weights are being trained: add tokens before that")
    return head


def _named(tokens: Sequence[Any], modules: EncoderModules) -> tuple[list[str], list[tuple[int, ...]]]:
    """The names of new tokens as texts have them once they are normalized, and the pieces that they were.

    Raises:
        InputError: One is no word, or is a token already.
    """
    tokenizer: Any = text_tokenizer(modules.transformer)
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain = inside_text(plain)
    known, special = tokenizer.get_vocab(), set(tokenizer.all_special_ids)
    pieces: dict[str, tuple[int, ...]] = {}
    for token in as_texts(tokens, "token"):
        if token.split() != [token]:
            raise InputError(f"token {token!r:.40} is no word: give words without spaces")
        name = token
        if plain.normalizer is not None and _keeps_spaces(plain):
            name = plain.normalizer.normalize_str(token)
        found = plain.encode(token, add_special_tokens=False).ids
        whole = len(found) == 1 and found[0] not in special
        if whole or name in known or token in known or name in pieces:
            raise InputError(f"{token!r:.40} is a token already: leave it out")
        pieces[name] = tuple(one for one in found if one not in special)
        if not pieces[name]:
            raise InputError(
                f"token {token!r:.40} has no piece that the vocabulary knows, to start from: leave it out"
            )
    if not pieces:
        raise InputError("there are no tokens to add; give at least one")
    return list(pieces), list(pieces.values())


def _keeps_spaces(tokenizer: Tokenizer) -> bool:
    """Whether texts are searched for added tokens once they are normalized, which needs their spaces."""
    return tokenizer.normalizer is None or " " in tokenizer.normalizer.normalize_str("a b")


def _with_tokens(tokenizer: Any, names: Sequence[str], size: int) -> Any:
    """A copy of a tokenizer that has them as whole words."""
    copied = copy.deepcopy(tokenizer)
    normalized = _keeps_spaces(copied.backend_tokenizer)
    # Where a space is a token, or a part of one, they take the one before them along.
    with_space, without = (
        copied.backend_tokenizer.encode(text, add_special_tokens=False).ids for text in ("a ", "a")
    )
    takes_space = with_space != without
    copied.add_tokens(
        [AddedToken(name, single_word=True, lstrip=takes_space, normalized=normalized) for name in names]
    )
    if vocabulary_size(copied) != size + len(names):  # the tokenizer has its own idea of where they go
        raise InputError(f"{type(tokenizer).__name__} does not take {len(names)} new tokens")
    return copied


def _weights(table: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    """Query weights ``(tokens,)``: what tokens weigh that occur in about as many of the texts.

    So they are their IDF where the table is that of the texts, and fit it too where it is the IDF of a larger
    corpus, was trained, or is binary.
    """
    words = np.flatnonzero(table > 0)
    if not len(words):
        raise InputError("no token weighs anything in a query: give the model query weights first")
    rarity = np.log(counts + 0.5)
    chosen = []
    for one in rarity[size:]:
        distance = np.abs(rarity[words] - one)
        chosen.append(np.median(table[words[distance <= max(_ALIKE, distance.min())]]))
    return np.array(chosen, np.float32)


@torch.no_grad()
def _extend(
    modules: EncoderModules,
    head: MLMHead,
    pieces: Sequence[tuple[int, ...]],
    sides: Sequence[Any],
    weights: np.ndarray,
) -> None:
    """Give model, tokenizers and table the new rows; no text has them yet."""
    model: Any = modules.transformer.model
    size = len(head.decoder.weight)
    resize_vocabulary(model, size + len(pieces))
    decoder, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    for matrix in {id(one): one for one in (embeddings.weight, decoder.weight)}.values():
        for row, one in enumerate(pieces, start=size):
            matrix[row] = matrix[list(one)].float().mean(0).to(matrix)
    decoder.bias[size:] = _SILENT
    modules.transformer.processor, query = sides[0], cast(SparseStaticEmbedding, modules.query)
    query.tokenizer = sides[1]
    longer = torch.cat([query.weight.data, torch.from_numpy(weights).to(query.weight)])
    query.weight = torch.nn.Parameter(longer, requires_grad=query.weight.requires_grad)
    query.num_dimensions = len(longer)
    modules.pooling.embedding_dimension = len(longer)


@torch.inference_mode()
def _largest_logits(
    model: Any, documents: Sequence[str], size: int, batch_size: int, progress: bool
) -> np.ndarray:
    """Largest logit without bias of each new token over a text, ``(texts, tokens)``."""
    modules: EncoderModules = model._inference_free_modules()
    head = cast(MLMHead, read_head(modules.transformer.model))
    rows = head.decoder.weight[size:].float()
    found = np.empty((len(documents), len(rows)), np.float32)
    model.eval()
    name = next((one for one in ("document", "passage", "corpus") if one in model.prompts), None)
    prompt = resolve_prompt(model, None, name)
    with show_progress("new tokens", len(documents), unit="texts", shown=progress, delay=1) as bar:
        for members, features in document_batches(model, documents, prompt, "document", batch_size):
            states, offsets = packed_states(modules.transformer, batch_to_device(features, model.device))
            logits = head.transform(states).float() @ rows.T
            parts: tuple[Tensor, ...] = logits.split(offsets.diff().tolist())
            found[members] = torch.stack([part.amax(0) for part in parts]).cpu().numpy()
            bar.update(len(members))
    return found


def _biases(largest: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decoder biases ``(tokens,)`` that make each active in as many texts as wanted; and in how many."""
    texts = len(largest)
    ordered = -np.sort(-largest, axis=0)
    number = np.clip(np.rint(wanted).astype(int), 1, texts)
    last = np.take_along_axis(ordered, number[None] - 1, 0)[0]
    # Half way to the next text, if there is one; far enough below the last where it is as good as that.
    following = np.take_along_axis(ordered, np.minimum(number, texts - 1)[None], 0)[0]
    threshold = np.where(number < texts, (last + following) / 2, last - 1)
    return -threshold, (largest > threshold).sum(0)
