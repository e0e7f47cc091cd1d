"""Sums and gathers over all devices of all nodes that pass gradients; the identity on one process.

Distributed data parallel averages the gradients of the ranks. Sum and gather hand each rank the gradients of
all ranks, summed, so that this average is the gradient of the mean of the ranks' losses: what one process
with the whole batch computes. No factor of the world size is needed.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor


def world_size() -> int:
    """Number of processes of the default group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def launched() -> int:
    """Number of processes that the launcher (torchrun, accelerate launch) started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Join the process group of the launcher, if there is one."""
    if launched() > 1:
        PartialState(cpu=not torch.accelerator.is_available())  # picks the backend and the device


def rank() -> int:
    """Global rank of this process over all nodes; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def first_of_run() -> bool:
    """Whether this is the first process of its run, be the process group joined yet or not."""
    return (rank() if world_size() > 1 else int(os.environ.get("RANK", "0"))) == 0


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum of ``tensor`` over all ranks, differentiable; the dtype stays."""
    return tensor if world_size() == 1 else _AllReduceSum.apply(tensor)  # type: ignore[no-untyped-call]


def all_gather(tensor: Tensor) -> Tensor:
    """Concatenate the ranks' ``(rows, ...)`` tensors in the order of the ranks, differentiable.

    The ranks may hold different numbers of rows. The dtype stays.
    """
    return tensor if world_size() == 1 else _AllGather.apply(tensor)  # type: ignore[no-untyped-call]


def all_gather_objects(items: list[str]) -> list[list[str]]:
    """One list of texts a rank, in the order of the ranks; a list may be empty."""
    if world_size() == 1:
        return [items]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, items)
    return gathered


def from_first(value: Any) -> Any:
    """What the first process gives, on all of them; it is pickled."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        rows = torch.tensor([len(tensor)], device=tensor.device)
        counts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(counts, rows)
        ctx.counts = [int(count) for count in counts]
        padded = tensor.new_zeros(max(ctx.counts), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in ctx.counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, ctx.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        start = sum(ctx.counts[: rank()])
        return total[start : start + ctx.counts[rank()]]
