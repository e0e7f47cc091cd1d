import numpy as np
import pytest
import scipy.sparse as sp

from st_l0.index.embedded import kernel


def plain_top_k(scores, k):
    order = sorted((i for i, score in enumerate(scores) if score > 0), key=lambda i: (-scores[i], i))
    return order[:k]


@pytest.mark.parametrize("private", [True, False])
def test_accumulate_adds_weighted_columns(monkeypatch, private):
    if not private:
        monkeypatch.setattr(kernel, "csc_matvec", None)
    elif kernel.csc_matvec is None:
        pytest.skip("this scipy has no csc_matvec")
    # Token 0: documents 0 and 2; token 1: none; token 2: document 1.
    indptr = np.array([0, 2, 2, 3])
    rows = np.array([0, 2, 1], dtype=np.int32)
    weights = np.array([1.0, 2.0, 4.0], dtype=np.float32)
    scores = np.array([10.0, 0.0, 0.0], dtype=np.float32)
    tokens, token_weights = np.array([0, 1, 2]), np.array([3.0, 5.0, -0.5], dtype=np.float32)
    kernel.accumulate(indptr, rows, weights, tokens, token_weights, scores)
    assert scores.tolist() == [13.0, -2.0, 6.0]


def test_both_ways_to_accumulate_agree(monkeypatch, generator):
    shape = (500, 40)
    matrix = sp.csc_matrix(generator.random(shape, dtype=np.float32) * (generator.random(shape) < 0.2))
    tokens = np.array([3, 9, 30])
    token_weights = np.array([0.7, 1.3, -0.2], dtype=np.float32)
    results = []
    for function in (kernel.csc_matvec, None):
        monkeypatch.setattr(kernel, "csc_matvec", function)
        scores = np.zeros(500, dtype=np.float32)
        kernel.accumulate(
            matrix.indptr.astype(np.int64),
            matrix.indices.astype(np.int32),
            matrix.data,
            tokens,
            token_weights,
            scores,
        )
        results.append(scores)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(results[0], matrix[:, tokens] @ token_weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("documents", [0, 1, 5, 333, 5000])
@pytest.mark.parametrize("k", [1, 3, 40, 6000])
@pytest.mark.parametrize("distinct", [2, 5, 1000])
def test_top_k_is_the_sorted_prefix(generator, documents, k, distinct):
    scores = generator.integers(-distinct // 2, distinct, documents).astype(np.float32)
    assert kernel.top_k(scores, k).tolist() == plain_top_k(scores.tolist(), k)


def test_top_k_when_few_documents_score():
    scores = np.zeros(10_000, dtype=np.float32)
    scores[[9_999, 70, 5]] = [2.0, 1.0, 2.0]
    assert kernel.top_k(scores, 2).tolist() == [5, 9_999]
    assert kernel.top_k(scores, 10).tolist() == [5, 9_999, 70]


def test_top_k_when_one_group_holds_all_the_best():
    scores = np.ones(50_000, dtype=np.float32)
    best = scores[:: kernel._GROUPS]
    best[:] = np.arange(2, 2 + len(best))
    assert len(best) > 20
    assert kernel.top_k(scores, 20).tolist() == plain_top_k(scores.tolist(), 20)


@pytest.mark.parametrize("documents", [9, 4096])
def test_top_k_orders_the_smallest_and_the_largest_floats(documents):
    scores = np.zeros(documents, dtype=np.float32)
    scores[:9] = [
        1.0,
        1e-45,
        np.inf,
        -0.0,
        -1.0,
        3e38,
        -np.inf,
        1e-45,
        np.nextafter(np.float32(1), np.float32(2)),
    ]
    assert kernel.top_k(scores, 8).tolist() == [2, 5, 8, 0, 1, 7]
    assert kernel.top_k(scores, 5).tolist() == [2, 5, 8, 0, 1]


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("tokens", [[], [7], [0, 1, 2, 3], [0, 39], [3, 4, 20, 38, 39], [20, 4, 39, 3]])
def test_accumulate_takes_any_tokens(monkeypatch, generator, private, tokens):
    if not private:
        monkeypatch.setattr(kernel, "csc_matvec", None)
    dense = generator.integers(0, 3, (60, 40)).astype(np.float32)
    dense[:, [2, 39]] = 0  # tokens without postings, one of them the last
    matrix = sp.csc_matrix(dense)
    weights = generator.integers(-2, 5, len(tokens)).astype(np.float32)
    scores = np.ones(60, dtype=np.float32)
    indptr = matrix.indptr.astype(np.int64)
    tokens = np.array(tokens, dtype=np.int32)
    kernel.accumulate(indptr, matrix.indices.astype(np.int32), matrix.data, tokens, weights, scores)
    assert scores.tolist() == (1 + dense[:, tokens] @ weights).tolist()
