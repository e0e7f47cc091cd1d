"""MLM head, mask, max and activation alone; ours and stock's decoder and pooling.

Claim: the head is many times as fast as in stock sentence-transformers, and not slower for one short text.

    python benchmarks/fused_head_cpu.py [--threads 2]

Hidden states of real texts from MiniLM with a head that has 200 to 500 active dims, 30,522 tokens. Values are
compared in each case, gradients in each that is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import medians, parse_threads, real_encoder, real_texts, report
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import Tensor, nn

from st_l0.head import screening
from st_l0.head.mlm_head import activate, max_logits, read_head, without_padding
from st_l0.head.packing import PackedTokens

BATCH, TOKENS = 16, 256
REPEATS = 5


def hidden_states(encoder: Any, texts: list[str]) -> tuple[Tensor, Tensor]:
    """What the decoder gets, ``(texts, tokens, hidden)``, and the mask."""
    transformer = encoder[0].sub_modules["document"][0]
    head = read_head(transformer.model)
    assert head is not None
    features = transformer.preprocess(texts)
    with torch.no_grad():
        inputs = {key: features[key] for key in ("input_ids", "attention_mask")}
        return head.transform(transformer.model.base_model(**inputs).last_hidden_state), inputs[
            "attention_mask"
        ]


def stock_way(decoder: nn.Linear, pooling: SpladePooling) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits of every token, then stock's pooling."""
    return lambda hidden, mask: pooling({"token_embeddings": decoder(hidden), "attention_mask": mask})[
        "sentence_embedding"
    ]


def encode(way: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, mask: Tensor) -> Tensor:
    """Forward pass as in encoding."""
    with torch.inference_mode():
        return way(hidden, mask)


def train(
    way: Callable[[Tensor, Tensor], Tensor], decoder: nn.Linear, hidden: Tensor, mask: Tensor
) -> list[Tensor]:
    """Forward and backward pass; values and gradients."""
    inputs = [hidden.clone().requires_grad_(), *decoder.parameters()]
    values = way(inputs[0], mask)
    return [values.detach(), *torch.autograd.grad(values.square().sum(), inputs)]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Equal to a part in a hundred thousand of their length."""
    for one, other in zip(ours, theirs, strict=True):
        away = ((one - other).norm() / other.norm()).item()
        assert away < 1e-5, f"{away:.1e} apart"


def share_computed(hidden: Tensor, mask: Tensor, decoder: nn.Linear) -> float:
    """Share of the entries that screening cannot prove inactive."""
    rows, offsets = without_padding(hidden, mask)
    lengths = offsets.diff().tolist()
    out = torch.empty(len(lengths), decoder.out_features)
    with torch.no_grad():
        screening.upper_bounds(rows, PackedTokens(lengths), decoder.weight, decoder.bias, out)
    return (out > 0).float().mean().item()


def compare(
    name: str, hidden: Tensor, mask: Tensor, decoder: nn.Linear, pooling: SpladePooling
) -> list[dict[str, float]]:
    """Check, time and print a case; seconds of encoding and of training."""

    def ours(hidden: Tensor, mask: Tensor) -> Tensor:
        return activate(max_logits(hidden, mask, decoder), 0)

    ways = {"ours": ours, "stock": stock_way(decoder, pooling)}
    repeats = REPEATS if hidden.numel() > 1 << 18 else 6 * REPEATS
    found = []
    pooling.eval()
    vectors = [encode(way, hidden, mask) for way in ways.values()]
    assert_same(vectors[:1], vectors[1:])
    found.append(medians({one: partial(encode, way, hidden, mask) for one, way in ways.items()}, repeats))
    pooling.train()
    assert_same(*(train(way, decoder, hidden, mask) for way in ways.values()))
    found.append(
        medians({one: partial(train, way, decoder, hidden, mask) for one, way in ways.items()}, repeats)
    )
    active, computed = (vectors[0] > 0).float().mean(), share_computed(hidden, mask, decoder)
    print(
        f"{name}: {int(mask.sum())} tokens of {mask.numel()} positions, {active:.2%} of the entries active, "
        f"{computed:.2%} not ruled out by screening"
    )
    for kind, seconds in zip(("encoding", "training"), found, strict=True):
        mine, theirs = seconds["ours"] * 1e3, seconds["stock"] * 1e3
        print(f"    {kind}  {mine:8.1f} ms, stock {theirs:8.1f} ms  x {theirs / mine:.2f}", flush=True)
    return found


def main() -> None:
    """All cases, the claim last."""
    threads = parse_threads(__doc__)
    encoder: Any = real_encoder(TOKENS)
    decoder = encoder[0].sub_modules["document"][0].model.get_output_embeddings()
    texts = [text for _, text in real_texts()]
    short = [" ".join(text.split()[:8]) for text in texts[:32]]
    cases = {
        "1 text of 8 words": short[:1],
        "1 text": texts[:1],
        "32 texts of 8 words": short,
        "32 texts of all lengths": texts[:32],
        f"{BATCH} texts of {TOKENS} tokens": [" ".join(texts[20 * i : 20 * i + 20]) for i in range(BATCH)],
    }
    print(f"{'with' if screening.available() else 'without'} screening, {threads} threads")
    found = [
        seconds
        for name, chosen in cases.items()
        for seconds in compare(name, *hidden_states(encoder, chosen), decoder, SpladePooling("max"))
    ]
    print(f"the least of the ratios: x {min(one['stock'] / one['ours'] for one in found):.2f}")
    report("head alone, forward and backward", **found[-1], unit="s", threads=threads, goal=None)


if __name__ == "__main__":
    main()
