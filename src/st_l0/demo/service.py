"""What the demo answers: plain functions from what is asked to what is sent as JSON. No web in here."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import scipy.sparse as sp
from tokenizers import Tokenizer

from st_l0.errors import InputError
from st_l0.index.opensearch.queries import prune
from st_l0.index.protocol import CountedTokens, Hit, Id, Index, StoredVectors
from st_l0.utils.inputs import as_texts

if TYPE_CHECKING:
    from st_l0.encoder.queries import QueryEncoder
    from st_l0.encoder.sparse_encoder import SparseEncoder

LONGEST_QUERY = 2_000  # characters
LONGEST_DOCUMENT = 20_000  # characters, of those that are pasted or explained
LONGEST_SNIPPET = 600  # characters of a hit's text
MOST_HITS = 100
MOST_IDS = 1_000

_NUMBER = re.compile(r"-?[0-9]{1,18}")  # of 64 bits

Answer = dict[str, Any]


class Question(NamedTuple):
    """A query and how it is asked.

    Attributes:
        text: The query.
        prune: Its weights below this share of the heaviest are left out, 0 to 1.
        bm25: How much BM25 counts; "auto" is what the index has stored.
        model: Whether the model counts; if not, words alone.
    """

    text: str
    prune: float = 0.0
    bm25: float | Literal["auto"] = 0.0
    model: bool = True


class Demo:
    """A model, and an index of its documents if there is one. Threads may share it.

    Args:
        encoder: Encodes queries.
        model: Where the model is, for documents that are pasted; its whole is loaded with the first of them.
        index: What is searched; None to look at queries and pasted documents alone.
        name: What the page calls it.
        trust_remote_code: Whether code that comes with the model may run.
    """

    def __init__(
        self,
        encoder: QueryEncoder | SparseEncoder,
        model: str,
        index: Index | None = None,
        *,
        name: str,
        trust_remote_code: bool = False,
    ) -> None:
        self._encoder, self._model, self._index, self._name = encoder, model, index, name
        self._trust_remote_code = trust_remote_code
        tokenizer = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._loading = threading.Lock()

    def about(self) -> Answer:
        """What there is: names, number of documents (null without an index), words, filters."""
        index = self._index
        words = None if index is None else index.bm25
        return {
            "name": self._name,
            # Of a folder its name: where it lies is nobody's business who looks at the page.
            "model": Path(self._model).name if Path(self._model).exists() else self._model,
            "index": index is not None,
            "documents": None if index is None else len(index),
            "bm25": None if words is None else words.language,
            "bm25_weight": None if index is None else index.bm25_weight,
            "fields": index is not None and not isinstance(index, CountedTokens),
        }

    def encode_query(self, asked: Question) -> Answer:
        """The tokens of a query, heaviest first, those that pruning leaves out among them.

        ``flops`` is the number of tokens that the query shares with a document, on average over the index;
        null where that is not known.
        """
        _, answer = self._encode(asked)
        return answer

    def search(
        self,
        asked: Question,
        k: int = 10,
        *,
        ids: Sequence[Id] = (),
        filter: Mapping[str, Sequence[str]] | None = None,
        explain: bool = True,
    ) -> Answer:
        """The best documents, and what each token and word adds to their scores.

        Args:
            asked: The query.
            k: Documents to find.
            ids: Only these may be found; none given, all may.
            filter: Field → values of which a document has to have one; of an index on a server.
            explain: Whether each hit says what its score is made of.

        Raises:
            InputError: There is no index, ``k`` or a text is out of bounds, or the index refuses.
        """
        start = time.perf_counter()
        index = self._searched()
        if not 1 <= k <= MOST_HITS:
            raise InputError(f"k must be from 1 to {MOST_HITS}, not {k}")
        if len(ids) > MOST_IDS:
            raise InputError(f"{len(ids)} ids were given; at most {MOST_IDS:,} are taken")
        vector, answer = self._encode(asked)
        options: dict[str, Any] = {"ids": self._as_kept(ids)} if ids else {}
        if filter:
            if isinstance(index, CountedTokens):
                raise InputError("this index has no fields to filter by: give ids")
            options["filter"] = filter
        hits: Sequence[Hit] = ()
        if asked.text.strip():
            queries = vector if asked.model else None
            hits = index.search(queries, k, **self._words(asked), **options)[0]
        answer["hits"] = [
            {
                "rank": rank,
                "id": hit.id,
                "score": hit.score,
                "text": None if hit.text is None else hit.text[:LONGEST_SNIPPET],
                "cut": len(hit.text or "") > LONGEST_SNIPPET,
                "parts": self._parts(asked, vector, hit.id) if explain else None,
            }
            for rank, hit in enumerate(hits, start=1)
        ]
        answer["milliseconds"] = round((time.perf_counter() - start) * 1000, 3)
        return answer

    def explain(self, asked: Question, id: Id) -> Answer:
        """A document: its score and the parts of it, its weights, and its text in pieces.

        The pieces are the text, cut where its tokens begin and end; ``weight`` is 0 for what the document
        does not weigh. Tokens that are not ``in_text`` are its expansions.

        Raises:
            InputError: No such document, or the index does not give vectors back.
        """
        index = self._searched()
        (id,) = self._as_kept([id])
        if not isinstance(index, StoredVectors):
            raise InputError("this index does not give its vectors back")
        document = index.vector(id)
        vector, _ = self._encode(asked)
        found = index.search(document, 1, ids=_one(id))[0] if document.nnz else ()
        parts = self._parts(asked, vector, id) if asked.text.strip() else []
        score = sum(part["score"] for part in parts)
        return {"id": id, "score": score, "parts": parts} | self._shown(
            found[0].text if found else None, document
        )

    def encode_document(self, text: str, asked: Question) -> Answer:
        """What a text becomes as a document, and its score for a query; loads the model the first time.

        Raises:
            InputError: The text is empty or too long, or the model cannot be loaded.
        """
        _check_text(text, "the document", LONGEST_DOCUMENT)
        if not text.strip():
            raise InputError("the document is empty: give a text")
        query, _ = self._encode(asked)
        with self._loading:  # one at a time: a model takes all cores anyway
            document = self._documents.encode_document([text], convert_to_scipy=True)
        weights = _weights(document)
        parts = [
            self._part(token, weight, weights[token])
            for token, weight in _weights(query).items()
            if token in weights
        ]
        parts.sort(key=lambda part: -part["score"])
        score = sum(part["score"] for part in parts)
        return {"score": score, "parts": parts} | self._shown(text, document)

    @cached_property
    def _documents(self) -> SparseEncoder:
        from st_l0.encoder.sparse_encoder import SparseEncoder

        if isinstance(self._encoder, SparseEncoder):
            return self._encoder
        return SparseEncoder.from_pretrained(self._model, trust_remote_code=self._trust_remote_code)

    def _searched(self) -> Index:
        if self._index is None:
            raise InputError("there is no index here, only a model: start the demo with an index")
        return self._index

    def _encode(self, asked: Question) -> tuple[sp.csr_matrix, Answer]:
        """The pruned vector of a query, and what is said of it."""
        _check_text(asked.text, "the query", LONGEST_QUERY)
        whole = self._encoder.encode_query([asked.text], convert_to_scipy=True)
        vector = prune(whole, asked.prune)
        kept = set(vector.indices.tolist())
        counts: dict[int, int] = {}
        if isinstance(self._index, CountedTokens):
            found = self._index.document_frequencies(whole.indices)
            counts = dict(zip(whole.indices.tolist(), found.tolist(), strict=True))
        tokens = [
            {
                "token": self._name_of(token),
                "id": token,
                "weight": weight,
                "kept": token in kept,
                "documents": counts.get(token),
            }
            for token, weight in sorted(_weights(whole).items(), key=lambda item: -item[1])
        ]
        flops = None
        if isinstance(self._index, CountedTokens):
            flops = sum(counts[token] for token in kept) / max(len(self._index), 1)
        answer = {"query": asked.text, "active_dims": vector.nnz, "flops": flops, "tokens": tokens}
        return vector, answer

    def _words(self, asked: Question) -> dict[str, Any]:
        if not asked.model and asked.bm25 == 0:
            raise InputError("neither the model nor BM25 counts: give bm25 a number above 0")
        return {"texts": [asked.text], "bm25": asked.bm25} if asked.bm25 else {}

    def _parts(self, asked: Question, vector: sp.csr_matrix, id: Id) -> list[Answer]:
        words = self._words(asked)
        options = {"text": asked.text, "bm25": words["bm25"]} if words else {}
        found = self._searched().explain(vector if asked.model else None, id, **options)
        return [self._part(part, left, right) for part, (left, right) in found.items()]

    def _part(self, part: int | str, query: float, document: float) -> Answer:
        word = isinstance(part, str)
        return {
            "kind": "word" if word else "token",
            "name": part if isinstance(part, str) else self._name_of(part),
            "query": query,
            "document": document,
            "score": query * document,
        }

    def _shown(self, text: str | None, document: sp.csr_matrix) -> Answer:
        """A document's text in pieces and its weights."""
        weights = _weights(document)
        shown = None if text is None else text[:LONGEST_DOCUMENT]
        pieces = [] if shown is None else self._pieces(shown, weights)
        inside = {piece["id"] for piece in pieces}
        tokens = [
            {"token": self._name_of(token), "id": token, "weight": weight, "in_text": token in inside}
            for token, weight in sorted(weights.items(), key=lambda item: -item[1])
        ]
        return {
            "active_dims": len(weights),
            "pieces": None if shown is None else pieces,
            "cut": len(text or "") > LONGEST_DOCUMENT,
            "tokens": tokens,
        }

    def _pieces(self, text: str, weights: Mapping[int, float]) -> list[Answer]:
        """A text cut by its tokens; put together again the pieces are the text."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        pieces: list[Answer] = []
        end = 0

        def add(start: int, stop: int, token: int | None) -> None:
            if stop > start:
                weight = 0.0 if token is None else weights.get(token, 0.0)
                pieces.append({"text": text[start:stop], "id": token, "weight": weight})

        for token, (start, stop) in zip(found.ids, found.offsets, strict=True):
            add(end, start, None)
            add(max(start, end), stop, token)  # bytes of one character are tokens that overlap
            end = max(end, stop)
        add(end, len(text), None)
        return pieces

    def _name_of(self, token: int) -> str:
        return str(self._encoder.tokenizer.convert_ids_to_tokens(token))

    def _as_kept(self, ids: Sequence[Id]) -> list[Any]:
        """Ids as the index has them: in an address all are strings, and those of an index may be integers."""
        numbers = [int(id) for id in ids if isinstance(id, int) or _NUMBER.fullmatch(id)]
        if len(numbers) == len(ids) and len(self._searched().missing(list(map(str, ids)))) == len(ids):
            return numbers
        return list(ids)


def _one(id: Id) -> Any:
    return [id]


def _weights(vector: sp.csr_matrix) -> dict[int, float]:
    return dict(zip(vector.indices.tolist(), vector.data.tolist(), strict=True))


def _check_text(text: str, what: str, longest: int) -> None:
    as_texts([text], what)
    if len(text) > longest:
        raise InputError(f"{what} has {len(text):,} characters; at most {longest:,} are taken")
