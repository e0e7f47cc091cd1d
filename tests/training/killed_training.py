"""Train by a recipe and die of SIGKILL on the way: ``killed_training.py RECIPE step 4`` or ``... write 6``.

``step n`` dies when step n begins; ``write n`` inside the write of the state after n steps, when half of the
optimizer's file is there. Started by torchrun, every process dies.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from st_l0.training import trainer
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_step(number):
    begin = trainer.RegularizerRamp.on_step_begin

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == number:
            die()
        begin(self, args, state, control, **kwargs)

    trainer.RegularizerRamp.on_step_begin = on_step_begin


def die_in_write(number):
    save = torch.save

    def half(content, target, *args, **kwargs):
        save(content, target, *args, **kwargs)
        if Path(target).name == "optimizer.pt" and Path(target).parent.name == f"checkpoint-{number}":
            os.truncate(target, Path(target).stat().st_size // 2)
            die()

    torch.save = half


if __name__ == "__main__":
    recipe, kind, number = sys.argv[1:]
    torch.set_num_threads(1)
    {"step": die_at_step, "write": die_in_write}[kind](int(number))
    train(load_recipe(recipe))
