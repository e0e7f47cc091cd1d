"""Stock's encoder, aware of the modules that it is made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import scipy.sparse as sp
import sentence_transformers
import torch
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import Tensor, nn

from st_l0.encoder.adapters import merged_adapters
from st_l0.encoder.documents import largest_logits
from st_l0.encoder.fingerprints import RULES, fingerprint, former_fingerprint
from st_l0.encoder.learned_queries import stock_query_side
from st_l0.encoder.model_card import HUB_ID, ModelCardData
from st_l0.encoder.modules import (
    EncoderModules,
    extra_logs,
    find_encoder_modules,
    silence_special_tokens,
    state_length,
    text_tokenizer,
)
from st_l0.encoder.new_tokens import NewToken, add_tokens
from st_l0.encoder.punctuation import has_punctuation
from st_l0.encoder.queries import QueryLookup
from st_l0.encoder.root_layout import to_root
from st_l0.encoder.similarity import as_equally_many, as_pair, as_tensor, dot_scores, has_fast_scores
from st_l0.errors import InputError
from st_l0.head.mlm_head import activate
from st_l0.index.protocol import as_weight
from st_l0.utils.files import make_readable
from st_l0.utils.stock import card_text, routed_modules

Layout: TypeAlias = Literal["root", "folders"]


class FusedEncoder(sentence_transformers.SparseEncoder):
    """A sparse encoder that runs its documents through the fused head, and whose values are stock's."""

    _query_encoder: QueryLookup | None = None
    _bm25_weight: float | None = None
    _layout: Layout = "folders"
    _card_read: list[Any] | None = None
    _modules_read: tuple[tuple[nn.Module | None, ...], EncoderModules | None] | None = None

    @property
    def _encoder_modules(self) -> EncoderModules | None:
        modules = routed_modules(self)
        if modules is None:
            return find_encoder_modules(list(self.children()))
        # Read again only where a module was exchanged.
        if self._modules_read is None or self._modules_read[0] != modules:
            self._modules_read = (modules, find_encoder_modules([cast(nn.Module, modules[0])]))
        return self._modules_read[1]

    def _inference_free_modules(self) -> EncoderModules:
        modules = self._encoder_modules
        if modules is None or modules.query is None:
            raise InputError("this model's queries run a model: it is not inference-free")
        return modules

    @property
    def inference_free(self) -> bool:
        """Whether queries are a table and documents a masked language model."""
        return self._encoder_modules is not None and self._encoder_modules.query is not None

    @property
    def query_weights(self) -> np.ndarray:
        """Weight of each token in a query, ``(vocabulary,)``, float32.

        Raises:
            InputError: The model is not inference-free.
        """
        query = cast(SparseStaticEmbedding, self._inference_free_modules().query)
        return cast(np.ndarray, np.maximum(self._table(query.weight), 0))

    @staticmethod
    def _table(weight: Tensor) -> np.ndarray:
        # Taken anew for each call, as training moves it; float32 on the CPU is not copied.
        return (weight if weight.dtype is torch.float32 else weight.float()).numpy(force=True)

    @property
    def max_seq_length(self) -> int:
        """Tokens after which a text is cut that goes through the model.

        Queries that run no model have a limit of their own, ``tokenizer.model_max_length``. In stock this is
        the larger limit of the two sides.
        """
        modules = self._encoder_modules
        if modules is None:
            return super().max_seq_length
        return cast(int, modules.transformer.max_seq_length)

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        modules = self._encoder_modules
        limited: Any = self[0] if modules is None else modules.transformer
        limited.max_seq_length = value

    def _query_side(self, modules: EncoderModules) -> QueryLookup:
        tokenizer, encoder = modules.tokenizer, self._query_encoder
        limit = tokenizer.model_max_length  # where stock cuts
        if encoder is None or encoder.max_length != limit or encoder.tokenizer is not tokenizer:
            encoder = self._query_encoder = QueryLookup(tokenizer, limit)
        return encoder

    def query_tokens(self, texts: list[str]) -> sp.csr_matrix:
        """The distinct tokens of queries, whatever they weigh: ``(queries, vocabulary)`` with a 1 at each.

        Raises:
            InputError: the model is not inference-free.
        """
        modules = self._inference_free_modules()
        prompt = self.prompts.get("query") or ""
        ones = np.ones(cast(SparseStaticEmbedding, modules.query).weight.shape, np.float32)
        return self._query_side(modules)([prompt + text for text in texts], ones)

    def query_fingerprint(self) -> str:
        """SHA-256 over all that query vectors depend on: table, tokenizer, cut, prompt, most active dims.

        Raises:
            InputError: the model is not inference-free.
        """
        lookup = self._query_side(self._inference_free_modules())
        return lookup.fingerprint(self.query_weights, self.prompts.get("query") or "", self.max_active_dims)

    def fingerprint(self) -> str:
        """A digest of all that vectors depend on: two models with one fingerprint compute the same ones."""
        query_side = self.query_fingerprint() if self.inference_free else self._prompt("query")
        others = [query_side, self._prompt("document", "passage", "corpus"), self.max_active_dims]
        with merged_adapters(self):  # as it is when it is saved and loaded again
            return fingerprint(self, self._encoder_modules, others)

    def has_fingerprint(self, found: str) -> bool:
        """Whether a fingerprint is this model's, by the present rules or by those of former versions."""
        if found.startswith(RULES):
            return found == self.fingerprint()
        return found == former_fingerprint(self, self._encoder_modules)

    def _prompt(self, *names: str) -> str:
        """What stands before a text where the prompt is the first of these names that there is."""
        return next((self.prompts[name] for name in names if name in self.prompts), "") or ""

    def save(self, path: str, *args: Any, layout: Layout | None = None, **kwargs: Any) -> None:
        """Save with stock classes only; other arguments as in sentence-transformers.

        All files that state a length state the same one: `max_seq_length` of documents, and for queries that
        run no model ``tokenizer.model_max_length``. All are readable by whom the folder is readable by. An
        adapter of peft (LoRA and kin) is saved merged into the weights; in memory it stays as it is.

        Args:
            path: The folder.
            args: As in sentence-transformers.
            layout: Of an inference-free model: ``"root"``, which every tool reads (see
                `st_l0.encoder.root_layout`), or ``"folders"``, one for each module, which trainers expect.
                ``None`` is the latter, except in `push_to_hub`.
            kwargs: As in sentence-transformers.

        Raises:
            InputError: Merged, an adapter would give other vectors.
        """
        modules = self._encoder_modules
        if self.inference_free:  # training may have moved what was silenced at the start
            silence_special_tokens(cast(EncoderModules, modules))
        with merged_adapters(self), stock_query_side(self[0], modules):
            if modules is not None:
                for tokenizer in (modules.tokenizer, text_tokenizer(modules.transformer)):
                    state_length(tokenizer)
            super().save(path, *args, **kwargs)
        if self.trust_remote_code:  # the base model's own code is looked for at the root only
            for code in Path(path).glob("*_*_*/*.py"):
                shutil.copy(code, path)
        if self.inference_free and (layout or self._layout) == "root":
            to_root(Path(path), self.query_weights, self.tokenizer)
        make_readable(Path(path))

    def push_to_hub(self, *args: Any, **kwargs: Any) -> str:
        """Upload to the Hub, in the layout that every tool reads; arguments as in sentence-transformers."""
        self._layout = "root"
        try:
            return super().push_to_hub(*args, **kwargs)
        finally:
            del self._layout

    def _create_model_card(self, path: str, model_name: str | None = None, *args: Any, **kwargs: Any) -> None:
        data = self.model_card_data
        if not isinstance(data, ModelCardData):
            super()._create_model_card(path, model_name, *args, **kwargs)
            return
        if model_name and HUB_ID.fullmatch(model_name) and not Path(model_name).exists():
            data.model_id = data.model_id or model_name
        data.save_dir = path
        inherited = self._card_read is not None and self._card_read == self._card_state()
        text = card_text(self) if inherited and not data.describes_more() else data.render()
        Path(path, "README.md").write_text(cast(str, text), encoding="utf-8")

    def _note_card(self) -> None:
        """Remember of what the card tells that was loaded, which no other model inherits."""
        if card_text(self):
            self._card_read = self._card_state()

    def _card_state(self) -> list[Any]:
        """What a card tells of: settings, and weights by a sum over their bits."""
        poolings = [one.get_config_dict() for one in self.modules() if isinstance(one, SpladePooling)]
        settings = [self.prompts, self.max_active_dims, self.max_seq_length, self.bm25_weight, poolings]
        return [json.dumps(settings, default=str), *(_bits(parameter) for parameter in self.parameters())]

    def add_tokens(
        self, tokens: Iterable[str], *, texts: Iterable[str], batch_size: int = 32, progress: bool = True
    ) -> list[NewToken]:
        """Make tokens of words that the vocabulary has in pieces only: names, products, terms of a trade.

        A new token starts from its pieces: its embedding (and the row of an untied decoder) is their mean,
        and its decoder bias is such that it is active in as many of the texts as they were in the mean, and
        in no fewer than hold it. In a query it weighs what other tokens weigh that occur in about as many
        texts. It takes part from now on; a training afterwards makes it good.

        Args:
            tokens: Words, without spaces. Where the tokenizer lowers the case of texts, so it does of them.
            texts: Texts of the kind to be indexed, which hold each word; they are encoded twice. Some
                hundreds will do: shares are no finer than one text.
            batch_size: As in `encode`.
            progress: Whether to show progress.

        Returns:
            What became of each, in order; see `st_l0.encoder.new_tokens.NewToken`.

        Raises:
            InputError: A word is a token already, has no known piece, or is in none of the texts; the model
                is not inference-free, its head has no bias or is of no known kind, or its query weights are
                being trained.

        Example:
            >>> from st_l0 import SparseEncoder
            >>> model = SparseEncoder.from_pretrained("models/st-l0-mini", device="cpu")
            >>> texts = ["A microservice is small.", "Rain falls.", "Cats sleep."]
            >>> (new,) = model.add_tokens(["microservice"], texts=texts, progress=False)
            >>> new.pieces, model.tokenizer.tokenize("a microservice")
            (('micro', '##ser', '##vic', '##e'), ['a', 'microservice'])
        """
        return add_tokens(self, tokens, texts, batch_size=batch_size, progress=progress)

    @property
    def bm25_weight(self) -> float | None:
        """How much BM25 should count beside this model's scores; None if nobody has found out.

        It is saved with the model. An index with words that is filled by it takes it over ("auto").
        """
        return self._bm25_weight

    @bm25_weight.setter
    def bm25_weight(self, weight: float | None) -> None:
        self._bm25_weight = None if weight is None else as_weight(weight)

    def _get_model_config(self) -> dict[str, Any]:
        """What stands in ``config_sentence_transformers.json``; stock passes over the last entries."""
        config = super()._get_model_config()
        if self._bm25_weight is not None:
            config["bm25_weight"] = self._bm25_weight
        if self.inference_free:
            config["query_punctuation"] = has_punctuation(self.query_weights, self.tokenizer)
        return config

    def forward(self, input: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run a batch; documents take the fused head where they can (same values as stock)."""
        modules = self._encoder_modules
        if modules is None:
            return super().forward(input, **kwargs)
        if modules.query is not None and (kwargs.get("task") or input.get("task")) == "query":
            return super().forward(input, **kwargs)
        logs = extra_logs(modules.pooling)
        head = modules.fused_head
        if head is None:
            if logs > 1:
                name = modules.pooling.activation_function
                raise NotImplementedError(f"{name} needs max pooling and a head known to st_l0.head.mlm_head")
            return super().forward(input, **kwargs)
        input["sentence_embedding"] = activate(largest_logits(modules.transformer, head, input), logs)
        return input

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Scores of all pairs, as in sentence-transformers; several times faster for many documents.

        Args:
            embeddings1: Vectors in any form: torch tensors (dense or sparse), numpy arrays, scipy matrices,
                or a list of vectors; one vector alone counts as one row.
            embeddings2: The same, of the same length.

        Returns:
            Dense, ``(embeddings1, embeddings2)``.

        Raises:
            InputError: One of the two is no vectors, or their lengths differ.
        """
        first, second = as_pair(embeddings1, embeddings2)
        if self.similarity_fn_name == "dot" and has_fast_scores(first, second):
            return dot_scores(first, second)
        return super().similarity(first, second)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Scores of row 0 with row 0, row 1 with row 1, …: ``(rows,)``; arguments as in `similarity`.

        Raises:
            InputError: As in `similarity`, or there are more rows on one side.
        """
        return super().similarity_pairwise(*as_equally_many(*as_pair(embeddings1, embeddings2)))

    def decode(self, embeddings: Any, top_k: int | None = None) -> Any:
        """Tokens and weights as in sentence-transformers, of vectors in any form (see `similarity`)."""
        return super().decode(as_tensor(embeddings), top_k=top_k)

    @staticmethod
    def sparsity(embeddings: Any) -> dict[str, float]:
        """Mean active dims and share of zeros as in sentence-transformers, of vectors in any form."""
        return sentence_transformers.SparseEncoder.sparsity(as_tensor(embeddings))

    @staticmethod
    def intersection(embeddings_1: Any, embeddings_2: Any) -> Tensor:
        """What two vectors share as in sentence-transformers, of vectors in any form; one row is a vector."""
        first, second = as_pair(embeddings_1, embeddings_2)
        if first.dim() == 2 and len(first) == 1:
            first = first[0]
        return sentence_transformers.SparseEncoder.intersection(first, second)


def _bits(parameter: Tensor) -> tuple[Any, ...]:
    """Shape, type and the sum of the bits of a parameter: as good as unlike for unlike weights, and quick."""
    content = parameter.detach().reshape(-1).view(torch.uint8)
    words = content[: len(content) // 8 * 8].view(torch.int64)
    total = int(words.sum()) + int(content[8 * len(words) :].sum())
    return tuple(parameter.shape), parameter.dtype, total
