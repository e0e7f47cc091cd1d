"""Which rows of the data a training sees, and when: whole rounds of batches, one batch a device."""

from __future__ import annotations

import logging
import math
from itertools import islice
from typing import Any

from st_l0.errors import InputError
from st_l0.utils.batches import batched

logger = logging.getLogger(__name__)


def rounds_of_an_epoch(arguments: Any, examples: int, *, devices: int) -> int:
    """Rounds of an epoch, each a batch on every device; what fills no round on several devices is left out.

    So it is in accelerate's ``BatchSamplerShard`` as sentence-transformers sets it: in a distributed training
    its arguments say ``dataloader_drop_last`` whatever was given.

    Args:
        arguments: ``SparseEncoderTrainingArguments``.
        examples: Rows of the data.
        devices: On how many they are trained; one process says it for all.

    Example:
        >>> from types import SimpleNamespace
        >>> arguments = SimpleNamespace(per_device_train_batch_size=4, dataloader_drop_last=False)
        >>> [rounds_of_an_epoch(arguments, rows, devices=2) for rows in (10, 12, 15, 20)]
        [1, 1, 1, 2]
    """
    batch: int = arguments.per_device_train_batch_size * devices
    if arguments.dataloader_drop_last or devices > 1:
        return examples // batch
    return math.ceil(examples / batch)


def left_out(arguments: Any, examples: int, *, devices: int) -> str | None:
    """A sentence on the rows that an epoch has no room for, ``None`` where there are none."""
    rounds = rounds_of_an_epoch(arguments, examples, devices=devices)
    batch = arguments.per_device_train_batch_size * devices
    lost = examples - rounds * batch
    if lost <= 0:
        return None
    where = "" if devices == 1 else f" on {devices} devices"
    return f"an epoch leaves out {lost:,} of {examples:,} examples, which fill no batch of {batch:,}{where}"


def warn_of_duplicates(sampler: Any, arguments: Any, *, devices: int) -> None:
    """Say how many rows batches without duplicates leave out of the first epoch, where they do.

    Rows that share a text are never in one batch, and the trainer ends an epoch after as many batches as all
    rows would fill: 64 rows of 4 queries in batches of 16 are 4 batches of 4. Where batches that are not full
    are dropped, as on several devices, there is none.

    Args:
        sampler: The ``NoDuplicatesBatchSampler``.
        arguments: ``SparseEncoderTrainingArguments``.
        devices: That train; a round that has not a batch for each is left out.

    Raises:
        InputError: There is no whole round, so that nothing would be trained.
    """
    rounds = len(sampler) // devices
    if arguments.max_steps > 0:
        rounds = min(rounds, arguments.max_steps * arguments.gradient_accumulation_steps)
    size, examples = sampler.batch_size, len(sampler.dataset)
    found = [group for group in batched(islice(sampler, rounds * devices), devices) if len(group) == devices]
    mend = "rows that share a text are never in one batch; take smaller batches, or fewer rows of one query"
    if not found:
        batch = f"batch of {size}" if devices == 1 else f"batch of {size} on each of {devices} devices"
        raise InputError(f"training.batch_sampler: {examples:,} rows make no {batch}: {mend}")
    shown = len({row for group in found for batch in group for row in batch})
    room = min(examples, rounds * devices * size)
    if shown < room:
        logger.warning(
            "training.batch_sampler: %d batches of %d hold %d rows instead of %d: %s",
            len(found) * devices, size, shown, room, mend,
        )  # fmt: skip
    if len(found) < rounds:
        logger.warning(
            "training.batch_sampler: an epoch ends after %d of %d rounds, the training before its last step",
            len(found), rounds,
        )  # fmt: skip


def pass_epochs_on(shard: Any) -> None:
    """Let one process's share of the batches tell the sampler that it divides which epoch it is.

    Where a training goes on in the middle of an epoch, transformers looks for the sampler right below the
    batches that are skipped, and finds accelerate's ``BatchSamplerShard``, which hands nothing on: several
    processes would see the rest of the first epoch again. (A plain shuffle is reached in another way.)

    Args:
        shard: The batch sampler of a prepared data loader; of a single process's nothing has to be done.
    """
    divided: Any = getattr(shard, "batch_sampler", None)
    if hasattr(divided, "set_epoch") and not hasattr(shard, "set_epoch"):
        shard.set_epoch = divided.set_epoch
