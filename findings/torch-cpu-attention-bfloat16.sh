#!/usr/bin/env bash
# torch 2.13.0: on a CPU, the backward pass of attention takes several times as long in bfloat16 as in float32.
#
# scaled_dot_product_attention is on autocast's list for CPUs, so that a training in bfloat16 computes it in bfloat16.
# Where the processor has products in it (AMX), linear layers gain a factor of two to four by that, and attention's
# backward pass loses about as much: a step of a small BERT at 128 tokens takes hardly less time than in float32. What
# follows: a training in bfloat16 on a CPU leaves autocast for the attention, where casts to float32 and back cost
# little.
#
# Seen (32 texts of 128 tokens, 12 heads of 32 dims, 2 threads, a Xeon with AMX; medians of seven):
# attention forward: float32 10.60 ms, bfloat16 5.53 ms; backward: 20.94 ms, 131.57 ms (of other runs the factor was 3 to
# 6); a linear layer of the same tokens: 5.22 ms, 1.28 ms.
#
# It installs torch, which on Linux is some gigabytes: minutes instead of seconds.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import statistics
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

torch.manual_seed(0)
states = [torch.randn(32, 12, 128, 32) for _ in range(3)]
weights = torch.randn(384, 384)


def milliseconds(run):
    times = []
    for _ in range(8):
        begun = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times[1:])


def passes(dtype):
    """Forward and backward pass of attention, and a linear layer of the same tokens."""
    given = [one.detach().to(dtype).requires_grad_() for one in states]
    found = scaled_dot_product_attention(*given)
    gradient = torch.ones_like(found)
    tokens, layer = states[0].reshape(-1, 384).to(dtype), weights.to(dtype)
    return (
        milliseconds(lambda: scaled_dot_product_attention(*given)),
        milliseconds(lambda: torch.autograd.grad(found, given, gradient, retain_graph=True)),
        milliseconds(lambda: tokens @ layer),
    )


whole, half = passes(torch.float32), passes(torch.bfloat16)
for name, one, other in zip(("attention forward", "attention backward", "linear layer"), whole, half):
    print(f"{name}: float32 {one:.2f} ms, bfloat16 {other:.2f} ms")
assert half[1] > 2 * whole[1]
PYTHON
