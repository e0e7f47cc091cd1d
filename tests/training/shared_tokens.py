"""Train by a recipe on several processes, texts tokenized once; tells who wrote and who used which file."""

import json
import os
import sys
from pathlib import Path

import torch

from st_l0.training import tokenizing
from st_l0.training.collator import StoredTokens
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train
from st_l0.training.trainer import SparseRetrievalTrainer

written, used = [], set()
write_tokens, training_step = tokenizing.write_tokens, SparseRetrievalTrainer.training_step


def write(place, *args, **kwargs):
    written.append(str(place))
    write_tokens(place, *args, **kwargs)


def step(trainer, *args, **kwargs):
    stored = trainer.data_collator.preprocess_fn
    assert isinstance(stored, StoredTokens)
    used.add((stored.store._folder / "ids.bin").stat().st_ino)
    return training_step(trainer, *args, **kwargs)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tokenizing._LEAST = 0
    tokenizing.write_tokens = write
    SparseRetrievalTrainer.training_step = step
    recipe = load_recipe(sys.argv[1])
    train(recipe)
    told = {"written": written, "used": sorted(used)}
    Path(recipe.output, f"{os.environ['RANK']}.json").write_text(json.dumps(told), encoding="utf-8")
