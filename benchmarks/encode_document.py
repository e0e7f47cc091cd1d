"""What encoding documents costs: `encode_document` here and in stock sentence-transformers.

Claim: at least 2 times stock on the CPU, with equal vectors.

    python benchmarks/encode_document.py --threads 1

Encodes 192 texts of mixed lengths (docstrings of this Python, and first sentences alone) with
all-MiniLM-L6-v2 and 30,522 tokens, batch size 32. Prints seconds, where ours go, and what bfloat16 and
int8 below the head change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from common import medians, parse_threads, real_encoder, real_texts, report, stock_twin

from st_l0 import SparseEncoder
from st_l0.encoder.precision import PRECISIONS, encoder_precision
from st_l0.utils.sparse import as_csr

LONG, SHORT, REPEATS, CHECKED = 144, 48, 3, 32
# This head subtracts numbers of like size: stock itself is about 8e-5 from float64.
ROUNDING = 2e-4


def profile(encoder: SparseEncoder, texts: list[str]) -> dict[str, float]:
    """Seconds of one call, by part."""
    spent = {"tokenizer": 0.0, "transformer": 0.0, "all of the model": 0.0}

    def timed(function: Any, part: str) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            spent[part] += time.perf_counter() - start
            return result

        return run

    router: Any = encoder[0]
    transformer = router.sub_modules["document"][0].model.base_model
    patched = {
        "tokenizer": (encoder, "preprocess"),
        "transformer": (transformer, "forward"),
        "all of the model": (encoder, "forward"),
    }
    for part, (owner, name) in patched.items():
        setattr(owner, name, timed(getattr(owner, name), part))
    start = time.perf_counter()
    encoder.encode_document(texts, convert_to_scipy=True)
    whole = time.perf_counter() - start
    for owner, name in patched.values():
        delattr(owner, name)
    model = spent.pop("all of the model")
    return {**spent, "head": model - spent["transformer"], "rows": whole - model - spent["tokenizer"]}


def shared(one: sp.csr_matrix, other: sp.csr_matrix) -> float:
    """Active dims that two sides have in common, as a share of all that either has."""
    both = int((one > 0).multiply(other > 0).nnz)
    return both / int(one.nnz + other.nnz - both)


def main() -> None:
    """Check that both sides agree, time them in turn, and say where the time goes."""
    threads = parse_threads(__doc__)
    pairs = real_texts()
    texts = [document for _, document in pairs[:LONG]] + [query for query, _ in pairs[LONG : LONG + SHORT]]
    encoder = real_encoder()
    stock = stock_twin(encoder)

    def ours() -> sp.csr_matrix:
        return cast(sp.csr_matrix, encoder.encode_document(texts, convert_to_scipy=True))

    def cheaper(precision: str) -> sp.csr_matrix:
        with encoder_precision(encoder, precision):
            return ours()

    matrix, theirs = ours(), as_csr(stock.encode_document(texts))
    found, expected = matrix.toarray(), theirs.toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=ROUNDING)
    assert not ((found > 0) != (expected > 0))[np.maximum(found, expected) > ROUNDING].any()

    rough = {precision: cheaper(precision) for precision in PRECISIONS[1:]}
    sides: dict[str, Callable[[], object]] = {"stock": lambda: stock.encode_document(texts), "ours": ours}
    sides |= {precision: partial(cheaper, precision) for precision in rough}
    seconds = medians(sides, REPEATS)
    parts = profile(encoder, texts)
    whole = sum(parts.values())
    lines = [f"{part} {100 * spent / whole:.1f} %" for part, spent in parts.items()]
    print(f"{len(texts)} texts, {matrix.nnz / len(texts):.0f} active dims a text; ours: {', '.join(lines)}")
    for precision, vectors in rough.items():
        print(
            f"{precision} below the head: {seconds[precision]:.4g} s, "
            f"x {seconds['ours'] / seconds[precision]:.2f} of float32; weights differ by at most "
            f"{abs(vectors - matrix).max():.2g}, {100 * shared(vectors, matrix):.1f} % of dims in common"
        )
    # Against float64, neither side rounds worse than the other.
    exact = as_csr(stock.double().encode_document(texts[:CHECKED])).toarray()
    errors = [float(np.abs(side[:CHECKED] - exact).max()) for side in (found, expected)]
    print(f"largest distance from float64: ours {errors[0]:.2g}, stock {errors[1]:.2g}")
    assert errors[0] < 2 * errors[1]
    report(
        "encode_document",
        ours=seconds["ours"],
        stock=seconds["stock"],
        unit="s",
        threads=threads,
        goal=2,
    )


if __name__ == "__main__":
    main()
