"""What mypy knows of encoded texts; `make types` checks this file, nothing runs it.

scipy has no types of its own: to mypy its matrices are `Any` where scipy-stubs is not installed.
"""

from typing import Any, assert_type

import scipy.sparse as sp
from torch import Tensor

from st_l0 import SparseEncoder


def encoded(model: SparseEncoder, texts: list[str], flag: bool) -> None:
    for encode in (model.encode, model.encode_query, model.encode_document):
        assert_type(encode("a text"), Tensor)
        assert_type(encode(texts, batch_size=8), Tensor)
        assert_type(encode(tuple(texts), convert_to_scipy=False), Tensor)
        assert_type(encode(texts, convert_to_tensor=True, convert_to_sparse_tensor=False), Tensor)
        assert_type(encode("a text", convert_to_scipy=True), sp.csr_matrix)
        assert_type(encode(texts, show_progress_bar=False, convert_to_scipy=True), sp.csr_matrix)
        # A list where `convert_to_tensor` is false, and unknown where a flag is.
        assert_type(encode(texts, convert_to_tensor=False), sp.csr_matrix | Tensor | list[Tensor])
        assert_type(encode(texts, convert_to_tensor=flag), sp.csr_matrix | Tensor | list[Tensor])
        assert_type(encode(texts, convert_to_scipy=flag), sp.csr_matrix | Tensor | list[Tensor])


def the_methods_are_typed_each(model: SparseEncoder, texts: list[str]) -> None:
    assert_type(model.encode(texts), Tensor)
    assert_type(model.encode_query(texts), Tensor)
    assert_type(model.encode_document(texts), Tensor)
    assert_type(model.encode(texts, convert_to_scipy=True), sp.csr_matrix)
    assert_type(model.encode_query(texts, convert_to_scipy=True), sp.csr_matrix)
    assert_type(model.encode_document(texts, convert_to_scipy=True), sp.csr_matrix)


def takes_the_place_of_stock(model: SparseEncoder) -> Any:
    import sentence_transformers

    stock: sentence_transformers.SparseEncoder = model
    return stock.encode_document(["a text"])
