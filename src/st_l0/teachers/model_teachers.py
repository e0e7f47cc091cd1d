"""The models behind the kinds of teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import Tensor

from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.teachers.teacher import Side
from st_l0.utils.inputs import as_texts
from st_l0.utils.sparse_rows import SparseRows

_SLICE = 1 << 14  # pairs whose embeddings are compared at once
_MAX_LENGTH = 512  # tokens of a seq2seq prompt


class EmbeddingTeacher:
    """Embeds each distinct text of a call once and compares the embeddings.

    What embeds and compares is in the classes that derive from it.

    Attributes:
        precision: In which `hold` keeps dense embeddings.
    """

    name: str
    vocabulary: dict[str, int] | None = None
    precision: torch.dtype = torch.float32

    def score_pairs(self, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
        """See `Teacher`."""
        queries, documents = _as_pairs(queries, documents)
        if not queries:
            return torch.zeros(0)
        (rows, row_of), (columns, column_of) = _distinct(queries), _distinct(documents)
        with torch.inference_mode():
            left, right = self.embed(rows, "query"), self.embed(columns, "document")
            slices = [slice(start, start + _SLICE) for start in range(0, len(queries), _SLICE)]
            scores = torch.cat([self._pairs(left[row_of[s]], right[column_of[s]]).cpu() for s in slices])
        return scores.clone()  # no inference tensor: a loss may save it for its backward pass

    def score_all(self, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
        """See `Teacher`."""
        queries, documents = as_texts(queries, "query"), as_texts(documents, "document")
        if not queries or not documents:
            return torch.zeros(len(queries), len(documents))
        (rows, row_of), (columns, column_of) = _distinct(queries), _distinct(documents)
        with torch.inference_mode():
            scores = self._all(self.embed(rows, "query"), self.embed(columns, "document")).cpu()
        return scores.clone()[torch.from_numpy(row_of)][:, torch.from_numpy(column_of)]

    def hold(self, parts: Sequence[Any], device: str | torch.device) -> Tensor | SparseRows:
        """Embeddings that `embed` gave, one below the other on a device, for `compare`."""
        return torch.cat([part.to(device, self.precision) for part in parts])

    def compare(self, queries: Any, documents: Any) -> Tensor:
        """Scores of embeddings that are held, ``(queries, documents)``, float32, on their device."""
        return self._all(queries.float(), documents.float())

    def embed(self, texts: list[str], side: Side) -> Any:
        """A row for each text."""
        raise NotImplementedError

    def _pairs(self, queries: Any, documents: Any) -> Tensor:
        raise NotImplementedError

    def _all(self, queries: Any, documents: Any) -> Tensor:
        raise NotImplementedError


class DenseTeacher(EmbeddingTeacher):
    """A SentenceTransformer with its prompts, its routes and its own similarity."""

    def __init__(self, name: str, model: SentenceTransformer, batch_size: int = 32) -> None:
        self.name, self.model, self.batch_size = name, model.eval(), batch_size

    def embed(self, texts: list[str], side: Side) -> Tensor:
        """``(texts, dims)``, float32."""
        encode = self.model.encode_query if side == "query" else self.model.encode_document
        vectors = encode(texts, batch_size=self.batch_size, show_progress_bar=False, convert_to_tensor=True)
        return vectors.float()

    def _pairs(self, queries: Tensor, documents: Tensor) -> Tensor:
        return self.model.similarity_pairwise(queries, documents)

    def _all(self, queries: Tensor, documents: Tensor) -> Tensor:
        return self.model.similarity(queries, documents)


class SparseScores(EmbeddingTeacher):
    """Compares scipy matrices by dot product; documents may have gained columns that queries lack."""

    def hold(self, parts: Sequence[sp.csr_matrix], device: str | torch.device) -> SparseRows:
        """See `EmbeddingTeacher`."""
        return SparseRows.from_scipy(parts, device)

    def compare(self, queries: SparseRows, documents: SparseRows) -> Tensor:
        """See `EmbeddingTeacher`."""
        return queries.times(documents)

    def _pairs(self, queries: sp.csr_matrix, documents: sp.csr_matrix) -> Tensor:
        queries, documents = _same_columns(queries, documents)
        return torch.from_numpy(np.asarray(queries.multiply(documents).sum(axis=1), np.float32).ravel())

    def _all(self, queries: sp.csr_matrix, documents: sp.csr_matrix) -> Tensor:
        queries, documents = _same_columns(queries, documents)
        return torch.from_numpy((queries @ documents.T).toarray().astype(np.float32, copy=False))


class SparseTeacher(SparseScores):
    """A SparseEncoder, compared by dot product or cosine without dense vectors.

    Raises:
        InputError: The model compares in another way.
    """

    def __init__(self, name: str, model: SparseEncoder, batch_size: int = 32) -> None:
        if model.similarity_fn_name not in ("dot", "cosine"):
            raise InputError(f"the model compares by {model.similarity_fn_name}, not by dot or cosine")
        self.name, self.model, self.batch_size = name, model.eval(), batch_size
        # The dims of other sparse encoders (autoencoders on dense vectors) are no tokens.
        if any(isinstance(module, SpladePooling) for module in model.modules()):
            self.vocabulary = model.tokenizer.get_vocab()

    def embed(self, texts: list[str], side: Side) -> sp.csr_matrix:
        """``(texts, vocabulary)``."""
        encode: Callable[..., Any] = (
            self.model.encode_query if side == "query" else self.model.encode_document
        )
        try:
            vectors = encode(
                texts,
                batch_size=self.batch_size,
                show_progress_bar=False,
                save_to_cpu=True,
                convert_to_scipy=True,
            )
        except InputError as error:  # weights that are not finite
            raise InputError(f"{self.name}: {error}") from error
        if self.model.similarity_fn_name == "cosine":
            norms = np.sqrt(np.asarray(vectors.power(2).sum(axis=1)).ravel())
            vectors = sp.diags_array(1 / np.maximum(norms, 1e-12), dtype=np.float32) @ vectors
        return vectors


class _PairTeacher:
    """Reads query and document together; each distinct pair once."""

    vocabulary: dict[str, int] | None = None

    def score_pairs(self, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
        queries, documents = _as_pairs(queries, documents)
        if not queries:
            return torch.zeros(0)
        pairs, pair_of = _distinct(list(zip(queries, documents, strict=True)))
        with torch.inference_mode():
            scores = self._score(pairs).float().cpu()
        return scores.clone()[torch.from_numpy(pair_of)]

    def score_all(self, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
        queries, documents = as_texts(queries, "query"), as_texts(documents, "document")
        rows = [query for query in queries for _ in documents]
        return self.score_pairs(rows, documents * len(queries)).view(len(queries), len(documents))

    def _score(self, pairs: list[tuple[str, str]]) -> Tensor:
        raise NotImplementedError


class CrossEncoderTeacher(_PairTeacher):
    """A CrossEncoder with one label; the score is the logit.

    Raises:
        InputError: The model has several labels.
    """

    def __init__(self, name: str, model: CrossEncoder, batch_size: int = 32) -> None:
        if model.num_labels != 1:
            raise InputError(f"the model has {model.num_labels} labels; a teacher has one, the relevance")
        self.name, self.model, self.batch_size = name, model.eval(), batch_size

    def _score(self, pairs: list[tuple[str, str]]) -> Tensor:
        return self.model.predict(
            pairs,
            batch_size=self.batch_size,
            show_progress_bar=False,
            activation_fn=torch.nn.Identity(),
            convert_to_tensor=True,
        )


class Seq2SeqTeacher(_PairTeacher):
    """A sequence-to-sequence model that says "true" or "false", such as monoT5.

    It reads ``Query: … Document: … Relevant:``; the score is log P(true) among the two as the first token of
    the answer. The prompt has at most 512 tokens: the document is cut, and before it a query of more than
    256, so that there is always something of the document.

    Raises:
        InputError: The tokenizer has no single tokens for the two words, or the first input of the decoder
            is not known.

    Source: Nogueira et al., 2020, https://arxiv.org/abs/2003.06713
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, batch_size: int = 32) -> None:
        vocabulary = tokenizer.get_vocab()
        answers = [vocabulary.get("▁false"), vocabulary.get("▁true")]
        if None in answers:
            raise InputError("its tokenizer has no single tokens for true and false, as that of monoT5 has")
        if model.generation_config.decoder_start_token_id is None:
            raise InputError("its configuration has no decoder_start_token_id; restore the checkpoint")
        self.name, self.model, self.batch_size = name, model.eval(), batch_size
        self._tokenizer, self._answers = tokenizer, answers
        self._start = model.generation_config.decoder_start_token_id
        self._tail = [*self._ids(["Relevant:"], _MAX_LENGTH)[0], tokenizer.eos_token_id]

    def _ids(self, texts: list[str], limit: int) -> list[list[int]]:
        encoded = self._tokenizer(texts, add_special_tokens=False, truncation=True, max_length=limit)
        return list(encoded["input_ids"])

    def _score(self, pairs: list[tuple[str, str]]) -> Tensor:
        (queries, query_of), (documents, document_of) = map(_distinct, zip(*pairs, strict=True))
        # SentencePiece splits at white space, so the parts have the same tokens alone as in the prompt.
        heads = self._ids([f"Query: {query}" for query in queries], _MAX_LENGTH // 2)
        bodies = self._ids([f"Document: {document}" for document in documents], _MAX_LENGTH)
        room = _MAX_LENGTH - len(self._tail)
        head_and_body = [
            (heads[query], bodies[document][: room - len(heads[query])])
            for query, document in zip(query_of, document_of, strict=True)
        ]
        order = np.argsort([-len(head) - len(body) for head, body in head_and_body], kind="stable")
        scores = torch.empty(len(pairs))
        for start in range(0, len(pairs), self.batch_size):
            batch = order[start : start + self.batch_size]
            prompts = [[*head_and_body[i][0], *head_and_body[i][1], *self._tail] for i in batch]
            scores[torch.from_numpy(batch)] = self._log_probabilities(prompts)
        return scores

    def _log_probabilities(self, prompts: list[list[int]]) -> Tensor:
        lengths, longest = [len(prompt) for prompt in prompts], max(map(len, prompts))
        padding = self._tokenizer.pad_token_id
        padded = [[*prompt, *[padding] * (longest - len(prompt))] for prompt in prompts]
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
        output = self.model(
            input_ids=torch.tensor(padded).to(self.model.device),
            attention_mask=mask.long().to(self.model.device),
            decoder_input_ids=torch.full((len(prompts), 1), self._start).to(self.model.device),
        )
        answers: Tensor = output.logits[:, 0, self._answers].float()
        return answers.log_softmax(-1)[:, 1].cpu()


def _same_columns(one: sp.csr_matrix, other: sp.csr_matrix) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    columns = max(one.shape[1], other.shape[1])
    for matrix in (one, other):
        if matrix.shape[1] < columns:
            matrix.resize(matrix.shape[0], columns)
    return one, other


def _distinct(items: Sequence[Any]) -> tuple[list[Any], np.ndarray]:
    """The different items, and the position of each item among them."""
    positions: dict[Any, int] = {}
    position_of = np.array([positions.setdefault(item, len(positions)) for item in items], np.int64)
    return list(positions), position_of


def _as_pairs(queries: Sequence[str], documents: Sequence[str]) -> tuple[list[str], list[str]]:
    left, right = as_texts(queries, "query"), as_texts(documents, "document")
    if len(left) != len(right):
        raise InputError(f"{len(left)} queries and {len(right)} documents are no pairs; give as many of each")
    return left, right
