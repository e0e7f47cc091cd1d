"""A training that is killed and resumed ends with the weights of one that was not, bit for bit."""

import json
import os
import random
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from launching import run
from st_l0.data import Collection, write_collection
from st_l0.errors import InputError
from st_l0.training.checkpoints import last_complete_checkpoint
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train

WORDS = ["cat", "dog", "bird", "fish", "tree", "river", "mountain", "sun", "moon", "star", "rain", "snow"]
STEPS = 8


@pytest.fixture(scope="module")
def write_recipe(tmp_path_factory, mlm_folder):
    """Function: name of a run to the path of its recipe. Everything that has a state takes part in it."""
    folder = tmp_path_factory.mktemp("kills")
    rows = [
        {
            "query": word,
            "documents": [f"the {WORDS[i % 11]} and", f"a {WORDS[i % 7]}"],
            "scores": [3.0, i / 9],
        }
        for i, word in enumerate(WORDS * 2)
    ]
    queries = {str(i): word for i, word in enumerate(WORDS)}
    corpus = {str(i): row["documents"][0] for i, row in enumerate(rows)}
    write_collection(Collection("dev", corpus, queries, {"0": {"0": 1}}), folder / "dev")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(name):
        values = {
            "model": {
                "base_model": mlm_folder,
                "queries": "trained_table",
                "idf": "binary",
                "query_learning_rate": 0.01,
                "max_seq_length": 16,
            },
            "data": {"train": str(folder / "rows.jsonl")},
            "loss": {
                "document_regularizer_weight": 0.05,
                "ranking": {"kl": 1.0, "infonce": 0.1},
                "token_weights": "df",
                "df_refresh_steps": 3,
                "ramp_steps": 3,
                "target_active_dims": 20,
                "target_sample": {"collections": str(folder / "dev"), "steps": 1},
            },
            "training": {
                "max_steps": STEPS,
                "per_device_train_batch_size": 4,
                "learning_rate": 1e-3,
                "logging_steps": 1,
                "save_steps": 2,
                "save_total_limit": 2,
                "report_to": "none",
            },
            "output": str(folder / name),
            "seed": 7,
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def kill(processes, recipe, kind, number):
    done = run(processes, Path(__file__).parent / "killed_training.py", recipe, kind, number)
    assert done.returncode != 0
    assert processes > 1 or done.returncode == -9, done.stderr
    output = Path(load_recipe(recipe).output)
    assert not (output / "model").exists()
    return output / "checkpoints"


def model_weights(recipe):
    files = Path(load_recipe(recipe).output).glob("model/**/*.safetensors")
    return {f"{file.parent.name}/{name}": value for file in files for name, value in load_file(file).items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert one
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(write_recipe):
    """Function: number of processes to the weights of the run that was not killed."""
    found = {}

    def weights(processes):
        if processes not in found:
            recipe = write_recipe(f"whole-{processes}")
            if processes == 1:
                torch.set_num_threads(1)
                train(load_recipe(recipe))
            else:
                done = run(processes, "-m", "st_l0", "train", recipe)
                assert done.returncode == 0, done.stderr
            found[processes] = model_weights(recipe)
        return found[processes]

    return weights


def test_killed_at_a_random_step(write_recipe, whole):
    step = random.Random(20).randrange(3, STEPS)
    recipe = write_recipe("step-1")
    kill(1, recipe, "step", step)
    train(load_recipe(recipe), resume=True)
    assert_same(whole(1), model_weights(recipe))


def test_killed_inside_a_write(write_recipe, whole, caplog):
    recipe = write_recipe("write-1")
    states = kill(1, recipe, "write", 4)
    assert last_complete_checkpoint(states) == states / "checkpoint-2"
    expected = f"{states / 'checkpoint-4'} was not written to its end: going on from checkpoint-2"
    assert caplog.messages == [expected]
    train(load_recipe(recipe), resume=True)
    assert_same(whole(1), model_weights(recipe))


@pytest.mark.parametrize(("kind", "number"), [("step", 5), ("write", 6)])
def test_killed_on_two_processes(write_recipe, whole, kind, number):
    recipe = write_recipe(f"{kind}-2")
    kill(2, recipe, kind, number)
    done = run(2, "-m", "st_l0", "train", recipe, "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("was not written to its end: going on from checkpoint-4") == 2 * (
        kind == "write"
    )
    assert_same(whole(2), model_weights(recipe))


def test_a_truncated_state_is_passed_over(write_recipe, whole, caplog):
    recipe = write_recipe("truncated")
    train(load_recipe(recipe))
    states = Path(load_recipe(recipe).output) / "checkpoints"
    assert sorted(path.name for path in states.iterdir()) == ["checkpoint-6", "checkpoint-8"]  # of four
    (damaged,) = (states / "checkpoint-8").glob("**/document_0_Transformer/model.safetensors")
    size = damaged.stat().st_size
    os.truncate(damaged, size - 1)
    caplog.clear()
    train(load_recipe(recipe), resume=True)
    name = damaged.relative_to(states / "checkpoint-8")
    assert caplog.messages[0] == (
        f"{states / 'checkpoint-8'} is damaged ({name} has {size - 1} of {size} bytes): "
        "going on from checkpoint-6"
    )
    assert_same(whole(1), model_weights(recipe))
    # The state was written anew, and is whole again.
    caplog.clear()
    assert last_complete_checkpoint(states) == states / "checkpoint-8"
    assert caplog.messages == []


def test_no_whole_state(write_recipe):
    recipe = write_recipe("none")
    states = Path(load_recipe(recipe).output) / "checkpoints"
    (states / "checkpoint-2").mkdir(parents=True)
    for resume in (True, False):
        with pytest.raises(InputError) as caught:
            train(load_recipe(recipe), resume=resume)
        assert str(caught.value) == (
            f"{states / 'checkpoint-2'} was not written to its end, and no older checkpoint is whole: "
            f"remove {states} to start anew"
        )
