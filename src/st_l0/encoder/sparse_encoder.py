"""The encoder: stock modules inside, faster and stricter outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, overload

import numpy as np
import scipy.sparse as sp
from torch import Tensor, nn
from typing_extensions import Self

from st_l0.encoder.documents import encode_texts
from st_l0.encoder.explanation import Explanation, explain_match
from st_l0.encoder.fused_encoder import FusedEncoder
from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.idf import query_weights
from st_l0.encoder.leading_space import first_word_differs, tell_first_words
from st_l0.encoder.loading import loaders, start_document_encoder
from st_l0.encoder.model_card import ModelCardData
from st_l0.encoder.modules import (
    activation_name,
    check_sides,
    make_modules,
    match_vocabulary,
    set_sizes,
    silence_special_tokens,
    text_tokenizer,
)
from st_l0.encoder.pretrained import (
    has_mlm_head,
    is_bare_mlm,
    layout,
    loading_errors,
    no_encoder,
    siamese,
)
from st_l0.encoder.punctuation import silence_punctuation
from st_l0.encoder.structure import check_files, read_structure
from st_l0.errors import InputError
from st_l0.utils.inputs import as_texts, is_one_text
from st_l0.utils.paths import local_name
from st_l0.utils.sparse import as_csr, as_torch
from st_l0.utils.stock import load_with, resolve_prompt

Texts: TypeAlias = "str | Iterable[str]"
Encoded: TypeAlias = "sp.csr_matrix | Tensor | list[Tensor]"


class SparseEncoder(FusedEncoder):
    """Inference-free sparse encoder: documents by a masked language model, queries by a table.

    It is a `sentence_transformers.SparseEncoder`, takes the same arguments and goes wherever one goes. Build
    it with `from_mlm`, load it with `from_pretrained`. A saved model holds stock classes only: plain
    sentence-transformers loads it and computes the same vectors.

    Special tokens never weigh on either side. A query word that the tokenizer does not know ([UNK]) weighs
    nothing: all unknown words share that token, so a weight there would make unrelated texts match.

    The two sides have a tokenizer each; ``tokenizer`` is that of the queries.

    Example:
        >>> model = SparseEncoder.from_pretrained("models/st-l0-mini", device="cpu")
        >>> documents = model.encode_document(["Rain falls from clouds.", "An index lists words."])
        >>> model.similarity(model.encode_query(["why does it rain?"]), documents).argmax().item()
        0
    """

    model_card_data_class = ModelCardData

    def __init__(self, model_name_or_path: str | None = None, **kwargs: Any) -> None:
        if model_name_or_path is None:
            super().__init__(**kwargs)
            self._mend()
            return
        model_name_or_path, hub_options = local_name(model_name_or_path), HubOptions.among(kwargs)
        settings: dict[str, Any] = {}
        with loading_errors(model_name_or_path, hub_options):
            if hub_options.find(model_name_or_path, "modules.json") is not None:
                structure = read_structure(model_name_or_path, hub_options)
                settings = check_files(model_name_or_path, structure, hub_options)
                load_with(self, loaders(model_name_or_path, structure))
            super().__init__(model_name_or_path, **kwargs)
            if self.max_active_dims is None:  # sentence-transformers 6.0 does not read it
                self.max_active_dims = settings.get("max_active_dims")
            self.bm25_weight = settings.get("bm25_weight")
            self._mend()
            if self._encoder_modules is not None:
                check_sides(self._encoder_modules)
            self._note_card()
            self._tell_first_words(model_name_or_path)

    def _tell_first_words(self, source: str) -> None:
        tokenizer = self.tokenizer
        if self.inference_free and tokenizer.is_fast and first_word_differs(tokenizer.backend_tokenizer):
            tell_first_words(source)

    def _mend(self) -> None:
        modules = self._encoder_modules
        if modules is not None and modules.query is not None:
            match_vocabulary(modules.transformer)
            silence_special_tokens(modules)
        if modules is not None:
            set_sizes(modules)

    @classmethod
    def from_mlm(
        cls,
        base_model: str | Path,
        *,
        idf: str | Path | Mapping[str, float] | np.ndarray | Tensor | Sequence[float] | None,
        activation: str | int = "relu",
        pooling: str = "max",
        max_seq_length: int = 256,
        warm_start: Iterable[str] | None = None,
        punctuation: bool = False,
        device: str | None = None,
        hub_options: HubOptions | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Start an encoder from a masked language model.

        Where the vocabulary has another token for a word at the beginning of a text than for the same word
        further on, both tokenizers of the encoder put a space before a text (see
        `st_l0.encoder.leading_space`).

        Args:
            base_model: Hub id or folder of a transformers model.
            idf: Query weights: path of an ``idf.json``, or what ``json.load`` makes of it; an array
                ``(vocabulary,)``; or ``"binary"`` for weight 1 on every token (SPLADE-doc, arXiv 2109.10086);
                see `st_l0.encoder.idf.query_weights`. ``None`` sends queries through the model too: siamese
                SPLADE, which is not inference-free, as a baseline and as a teacher.
            activation: ``"relu"``: log(1 + relu(x)); ``"log1p_relu"``: one more log (l0 activation, arXiv
                2504.14839); or the number of extra logs, 0 to 3.
            pooling: ``"max"`` or ``"sum"`` over the tokens of a document.
            max_seq_length: Tokens after which a document is cut; a model with fewer positions cuts there. A
                query that runs no model is cut where the positions end.
            warm_start: Texts for a closed-form start of the head (see `st_l0.head.warm_start`). Needed where
                ``base_model`` has no MLM head (MiniLM, E5, GTE …), refused where it has one.
            punctuation: Whether punctuation keeps its weight in ``idf``. By default it weighs 0, which finds
                as well at lower cost: models light "?" and the like in nearly every document. See
                `st_l0.encoder.punctuation.punctuation_ids`.
            device: Where to put the model; ``None`` takes the best there is.
            hub_options: Token, revision and the like for the Hub.
            trust_remote_code: Whether code that comes with the base model may run; read it first.

        Raises:
            InputError: The base model cannot be loaded, or has no MLM head and no texts to start one, or the
                IDF does not fit; or its tokenizer makes another word of the first one, whatever is done.
        """
        hub_options = (hub_options or HubOptions()).trusting(trust_remote_code)
        transformer = start_document_encoder(local_name(base_model), max_seq_length, warm_start, hub_options)
        tokenizer = text_tokenizer(transformer)
        table = None if idf is None else query_weights(idf, tokenizer)
        if table is not None and not punctuation:
            silence_punctuation(table, tokenizer)
        modules = make_modules(transformer, table, activation, pooling)
        return cls._of(modules, local_name(base_model), device, hub_options)

    @classmethod
    def _of(
        cls, modules: list[nn.Module], base_model: str, device: str | None, hub_options: HubOptions
    ) -> Self:
        model = cls(
            modules=modules,
            device=device,
            similarity_fn_name="dot",
            trust_remote_code=hub_options.trust_remote_code,
        )
        model.model_card_data.set_base_model(base_model)
        return model

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        *,
        activation: str | int | None = None,
        inference_free: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Load an inference-free checkpoint from a folder or the Hub.

        Besides the layout of sentence-transformers it reads the older one of a masked language model with an
        ``idf.json`` beside it (OpenSearch doc-v1).

        Args:
            path_or_hub_id: Folder or Hub id.
            activation: Only for layouts that do not say it, the older one and a masked language model alone:
                ``"relu"`` (doc-v1, doc-v2, SPLADE; the default) or ``"log1p_relu"`` (doc-v3).
            inference_free: ``False`` also admits a checkpoint whose queries run a model, as a baseline; a
                masked language model alone is one, as the older siamese SPLADE were published.
            kwargs: Of `sentence_transformers.SparseEncoder` (``device``, ``revision``, ``token``,
                ``cache_folder``, ``local_files_only`` …). No code that comes with the checkpoint runs without
                ``trust_remote_code=True``.

        Raises:
            InputError: There is no model, it is not whole, or it is not an inference-free checkpoint.
        """
        name = local_name(path_or_hub_id)
        hub_options = HubOptions.among(kwargs)
        kind = layout(name, hub_options)
        if kind == "mlm-with-idf":
            if unused := sorted(set(kwargs) - {"device", *HubOptions.__dataclass_fields__}):
                raise InputError(f"{name} is of the older layout, which does not take {', '.join(unused)}")
            # 512 is what OpenSearch serves them with. Table and tokenizer stay as they were published.
            transformer = start_document_encoder(name, 512, None, hub_options, trained=True)
            table = query_weights(hub_options.find(name, "idf.json"), text_tokenizer(transformer))
            modules = make_modules(transformer, table, "relu" if activation is None else activation)
            model = cls._of(modules, name, kwargs.get("device"), hub_options)
            model._tell_first_words(name)
            return model
        bare = kind == "other" and is_bare_mlm(name, hub_options)
        if kind == "other" and (inference_free or not bare):
            raise no_encoder(name, hub_options)
        if bare and not has_mlm_head(name, hub_options):
            raise InputError(f"{name}: its weights have no MLM head: restore the checkpoint")
        if activation is not None and not bare:
            raise InputError(f"{name} states its activation itself: leave activation out")
        model = cls(name, **kwargs)
        if inference_free and not model.inference_free:
            raise siamese(name)
        if activation is not None:
            cast(Any, model[1]).activation_function = activation_name(activation)
        return model

    @overload  # type: ignore[override]
    def encode_query(
        self, inputs: Texts, *, convert_to_scipy: Literal[True], **options: Any
    ) -> sp.csr_matrix: ...
    @overload
    def encode_query(
        self,
        inputs: Texts,
        *,
        convert_to_scipy: Literal[False] = ...,
        convert_to_tensor: Literal[True] = ...,
        **options: Any,
    ) -> Tensor: ...
    @overload
    def encode_query(self, inputs: Any, *args: Any, **options: Any) -> Encoded: ...
    def encode_query(self, inputs: Texts, *args: Any, **kwargs: Any) -> Any:
        """Encode queries; arguments and errors as in `encode`."""
        as_row = kwargs == {"convert_to_scipy": True}
        changed = self.max_active_dims or self.prompts.get("query") or self.default_prompt_name
        if isinstance(inputs, str) and not args and (as_row or not kwargs) and not changed:
            # The way through `encode` would take as long as all the rest.
            modules = self._encoder_modules
            if modules is not None and modules.query is not None and (weight := modules.query.weight).is_cpu:
                if not inputs.isascii():
                    as_texts([inputs])
                encoder, table = self._query_side(modules), self._table(weight)
                return encoder([inputs], table) if as_row else encoder.vector(inputs, table)
        stock: Any = super().encode_query
        return stock(inputs, *args, **kwargs)

    @overload  # type: ignore[override]
    def encode_document(
        self, inputs: Texts, *, convert_to_scipy: Literal[True], **options: Any
    ) -> sp.csr_matrix: ...
    @overload
    def encode_document(
        self,
        inputs: Texts,
        *,
        convert_to_scipy: Literal[False] = ...,
        convert_to_tensor: Literal[True] = ...,
        **options: Any,
    ) -> Tensor: ...
    @overload
    def encode_document(self, inputs: Any, *args: Any, **options: Any) -> Encoded: ...
    def encode_document(self, *args: Any, **kwargs: Any) -> Any:
        """Encode documents; arguments and errors as in `encode`."""
        stock: Any = super().encode_document
        return stock(*args, **kwargs)

    @overload  # type: ignore[override]
    def encode(self, inputs: Texts, *, convert_to_scipy: Literal[True], **options: Any) -> sp.csr_matrix: ...
    @overload
    def encode(
        self,
        inputs: Texts,
        *,
        convert_to_scipy: Literal[False] = ...,
        convert_to_tensor: Literal[True] = ...,
        **options: Any,
    ) -> Tensor: ...
    @overload
    def encode(self, inputs: Any, *args: Any, **options: Any) -> Encoded: ...
    def encode(
        self,
        inputs: Texts,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = True,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: Any = None,
        max_active_dims: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,
        convert_to_scipy: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Encode texts; `encode_query` and `encode_document` come here with ``task``.

        Arguments as in `sentence_transformers.SparseEncoder.encode`, and ``convert_to_scipy``: return one
        ``scipy.sparse.csr_matrix`` ``(texts, vocabulary)`` instead of torch tensors (fastest; what an index
        takes). Queries run no model. ``batch_size`` documents of the longest make a batch; shorter ones go in
        batches of as many tokens, up to four times as many documents. For documents that do not fit in memory
        see `st_l0.indexing.encode.encode_stream`. Several devices go through the stock path.

        Raises:
            InputError: ``inputs`` are no texts, or one of them is none; see `st_l0.utils.inputs.as_texts`. A
                weight is not finite.
        """
        modules = self._encoder_modules
        single = is_one_text(inputs)
        foreign = modules is None and self.modalities != ["text"]  # stock knows what such a model takes
        texts: Any = inputs if foreign else as_texts([inputs] if single else inputs)
        prompt = resolve_prompt(self, prompt, prompt_name)
        stocks = modules is None or pool is not None or isinstance(device, list) or kwargs.keys() - {"task"}
        if stocks and (foreign or texts):
            stock: Any = super().encode
            embeddings = stock(
                texts[0] if single and not foreign else texts,
                prompt=prompt,
                batch_size=batch_size,
                show_progress_bar=show_progress_bar,
                convert_to_tensor=convert_to_tensor or convert_to_scipy,
                convert_to_sparse_tensor=convert_to_sparse_tensor,
                save_to_cpu=save_to_cpu,
                device=device,
                max_active_dims=max_active_dims,
                pool=pool,
                chunk_size=chunk_size,
                **kwargs,
            )
            return as_csr(embeddings) if convert_to_scipy else embeddings
        if modules is None or stocks:  # stock gives no texts no columns either
            home, shape = self.device, (0, cast(int, self.get_embedding_dimension()))
            matrix = sp.csr_matrix(shape, dtype=np.float32)
        elif batch_size <= 0:
            raise ValueError(f"batch_size must be positive, not {batch_size}")
        elif modules.query is not None and kwargs.get("task") == "query":
            queries = [prompt + text for text in texts] if prompt else texts
            home = modules.query.weight.device
            limit = max_active_dims or self.max_active_dims
            matrix = self._query_side(modules)(queries, self._table(modules.query.weight), limit)
        else:
            if device is not None:
                self.to(device)
            home = self.device
            matrix = encode_texts(
                self,
                texts,
                prompt=prompt,
                task=kwargs.get("task") or ("document" if modules.query is not None else None),
                batch_size=batch_size,
                max_active_dims=max_active_dims or self.max_active_dims,
                progress=bool(show_progress_bar),
            )
        if convert_to_scipy:
            return matrix
        embeddings = as_torch(matrix)
        if single:
            embeddings = embeddings[0].coalesce()
        if not save_to_cpu and home.type != "cpu":
            embeddings = embeddings.to(home)
        if not convert_to_sparse_tensor:
            embeddings = embeddings.to_dense()
        return embeddings if single or convert_to_tensor else list(embeddings)

    def explain(self, query: str, document: str | Tensor | sp.csr_matrix) -> Explanation:
        """Say which tokens make the score of a query and a document.

        Args:
            query: Text of the query.
            document: Its text, or its vector as `encode_document` gave it.

        Returns:
            The score and the contribution of each token that both sides hold, largest first.
        """
        modules = self._inference_free_modules()
        if isinstance(document, str):
            document = self.encode_document([document], convert_to_scipy=True)
        vector = self.encode_query([query], convert_to_scipy=True)
        return explain_match(vector, as_csr(document), modules.tokenizer)
