"""The texts of a training are tokenized once, before it, where that pays."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from datasets import Dataset
from sentence_transformers.base.data_collator import BaseDataCollator

from st_l0.data.distinct_texts import DistinctTexts, text_columns
from st_l0.encoder.fingerprints import tokenization
from st_l0.training.collator import KeepTexts, StoredTokens
from st_l0.training.origin import checksum
from st_l0.training.token_store import NotStorable, Preprocess, Side, TokenStore, write_tokens
from st_l0.utils.locks import hold
from st_l0.utils.progress import write

if TYPE_CHECKING:
    from st_l0.encoder.modules import EncoderModules
    from st_l0.training.trainer import SparseRetrievalTrainer

logger = logging.getLogger(__name__)

_LEAST = 10_000  # texts that a training sees, below which nothing is worth a file
_TIMES = 2  # how often it sees each of them at least, in the mean
_SAMPLE = 64  # rows by which an earlier file is tried
_FOREVER = 1e9  # seconds


@contextmanager
def tokenized_once(trainer: SparseRetrievalTrainer, resumed: object) -> Iterator[None]:
    """Have the texts of a training tokenized once, where it sees them often enough, while the body runs.

    The batches are the same as without, to the last bit. On each node one process writes the tokens, under
    the output folder of the trainer, and all map them. They go at the end; a training that breaks leaves
    them, and one that goes on takes up those of its own data and tokenizer. What is no text of the training
    data, and what does not follow from token ids alone, is made by the model as ever.

    Args:
        trainer: It is about to train.
        resumed: The checkpoint that it goes on from, if any.
    """
    collator: Any = trainer.data_collator
    collator = collator.collate if isinstance(collator, KeepTexts) else collator
    examples = _examples(trainer, resumed)
    columns = _columns(trainer, collator, examples)
    if not columns:
        yield
        return
    arguments, live = trainer.args, collator.preprocess_fn
    # Nodes may share the output, which then has one for each. What begins with _ is not uploaded from there.
    first_of_node = arguments.process_index - arguments.local_process_index
    folder = Path(cast(str, arguments.output_dir)) / f"_tokens-{first_of_node}"
    lock, place, what = folder / "lock", folder / "store", "tokenizes the texts of the training"
    store: TokenStore | None = None
    if trainer.is_local_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        with hold(lock, what):
            trainer.accelerator.wait_for_everyone()
            store = _prepare(trainer, place, columns, live, examples)
    else:  # not by a barrier, which gives up after minutes
        trainer.accelerator.wait_for_everyone()
        with hold(lock, what, seconds=_FOREVER):
            store = TokenStore(place) if place.exists() else None
    if store is not None:
        collator.preprocess_fn = StoredTokens(live, store)
    try:
        yield
    finally:
        collator.preprocess_fn = live
    trainer.accelerator.wait_for_everyone()
    if trainer.is_local_process_zero():
        for one in folder.parent.glob("_tokens-*"):  # of a start on more nodes, too
            shutil.rmtree(one, ignore_errors=True)


def _examples(trainer: SparseRetrievalTrainer, resumed: object) -> int:
    """Rows that a training sees, with repetitions."""
    arguments, rows = trainer.args, trainer.train_dataset
    batch: int = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    steps: int = arguments.max_steps
    if steps <= 0:
        steps = math.ceil(arguments.num_train_epochs * len(rows) / batch) if isinstance(rows, Dataset) else 0
    done = re.search(r"-(\d+)$", str(resumed))
    return (steps - (int(done[1]) if done else 0)) * batch


def _columns(trainer: SparseRetrievalTrainer, collator: Any, examples: int) -> dict[Side, list[str]]:
    """The columns of texts by how the collator asks for their features; none where nothing is gained."""
    dataset, modules = trainer.train_dataset, trainer._encoder()._encoder_modules
    if (
        not isinstance(dataset, Dataset)
        or not isinstance(collator, BaseDataCollator)
        or modules is None
        or any(modules.transformer.processing_kwargs.values())  # which may fill up otherwise
        or collator.max_length is not None
    ):
        return {}
    found: dict[Side, list[str]] = {}
    for name in text_columns(dataset):
        if name not in (*collator.valid_label_columns, "dataset_name"):
            prompts, tasks = collator.prompts, collator.router_mapping or {}
            prompt = prompts.get(name) if isinstance(prompts, dict) else prompts
            found.setdefault(Side(cast(Any, tasks.get(name)), cast(Any, prompt)), []).append(name)
    texts = examples * sum(map(len, found.values()))
    # To count the texts of so many rows would take as long as to tokenize the few.
    return found if texts >= _LEAST and examples >= len(dataset) / 20 else {}


def _prepare(
    trainer: SparseRetrievalTrainer,
    place: Path,
    columns: dict[Side, list[str]],
    live: Preprocess,
    examples: int,
) -> TokenStore | None:
    """The tokens of a former start, or new ones where they pay; what is there and is no good is removed."""
    dataset = cast(Dataset, trainer.train_dataset)
    modules = cast("EncoderModules", trainer._encoder()._encoder_modules)
    fingerprint = _fingerprint(dataset, columns, modules)
    store = _former(place, fingerprint, dataset, columns, live)
    if store is not None:
        if trainer.is_world_process_zero():
            write(f"the tokens of an earlier start are used: {_size(store)}")
        return store
    for entry in place.parent.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    texts = {side: DistinctTexts(dataset, names) for side, names in columns.items()}
    texts = {
        side: found for side, found in texts.items() if examples * len(columns[side]) >= _TIMES * len(found)
    }
    if not texts:
        return None
    size = len(modules.tokenizer)
    try:
        write_tokens(place, texts, live, vocabulary_size=size, fingerprint=fingerprint)
    except NotStorable as reason:
        logger.info("texts are tokenized batch by batch: %s", reason)
        return None
    except OSError as error:
        logger.warning("texts are tokenized batch by batch: %s", error)
        return None
    store = TokenStore(place)
    if trainer.is_world_process_zero():
        kinds = {"query": "queries", "document": "documents"}
        counts = (f"{len(found):,} {kinds.get(side.task or '', 'texts')}" for side, found in texts.items())
        write(f"tokenized {' and '.join(counts)} once: {_size(store)}")
    return store


def _former(
    place: Path, fingerprint: str, dataset: Dataset, columns: dict[Side, list[str]], live: Preprocess
) -> TokenStore | None:
    """The tokens that a broken training has left, if they are of the same texts and tokenizer."""
    try:
        store = TokenStore(place)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if store.fingerprint != fingerprint:
        return None
    # The fingerprint of rows of ids is of their numbers, not of what a corpus holds by now.
    rows = dataset[range(0, len(dataset), math.ceil(len(dataset) / _SAMPLE))]
    same = all(store.agrees(rows[name], side, live) for side, names in columns.items() for name in names)
    return store if same else None


def _fingerprint(dataset: Dataset, columns: dict[Side, list[str]], modules: EncoderModules) -> str:
    """A digest of all that the tokens depend on."""
    versions = [version(name) for name in ("sentence-transformers", "transformers", "tokenizers")]
    found = [versions, len(dataset), checksum(dataset), list(columns.items()), tokenization(modules)]
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()


def _size(store: TokenStore) -> str:
    return f"{store.tokens / 1e6:,.1f} M tokens, {store.nbytes / 1e6:,.1f} MB"
