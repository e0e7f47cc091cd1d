import importlib.util
import json
import os
import re
import shutil
import sys
import zipfile

import numpy as np
import pytest
import sentence_transformers
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging

from launching import run
from st_l0 import SparseEncoder
from st_l0.errors import InputError
from st_l0.training import build as building
from st_l0.training import dry_run
from st_l0.training import train_model as training
from st_l0.training.arguments import route_columns, training_arguments
from st_l0.training.build import build_loss, build_model, read_data
from st_l0.training.checkpoints import mark_complete
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train

WORDS = ["cat", "dog", "bird", "fish", "tree", "river", "mountain", "sun"]
WORDS += ["moon", "star", "rain", "snow", "wind", "child", "house", "street"]


def pairs(negatives=0):
    """Each query word belongs to the word after it."""
    rows = []
    for index, word in enumerate(WORDS):
        right, *wrong = (WORDS[(index + step) % 16] for step in (1, 5, 7))
        row = {"query": word, "positive": f"the {right} and the {right}"}
        if negatives == 1:
            row["negative"] = f"a {wrong[0]}"
        elif negatives:
            row["negatives"] = [f"a {other}" for other in wrong[:negatives]]
        rows.append(row)
    return rows


@pytest.fixture
def recipe(tmp_path, mlm_folder):
    """Function: changes, such as ``loss={"threshold": 3}``, to the path of a small recipe."""

    def write(*, negatives=0, **changes):
        data = tmp_path / f"pairs{negatives}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in pairs(negatives)))
        values = {
            "model": {"base_model": mlm_folder, "idf": "binary", "max_seq_length": 16},
            "data": {"train": str(data)},
            "loss": {"document_regularizer_weight": 0.01},
            "training": {
                "max_steps": 3,
                "per_device_train_batch_size": 8,
                "learning_rate": 1e-3,
                "logging_steps": 1,
                "report_to": "none",
            },
            "output": str(tmp_path / "run"),
            "seed": 7,
        }
        for section, change in changes.items():
            values[section] = {**values.get(section, {}), **change} if isinstance(change, dict) else change
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def log_of(output):
    """The training log of the newest state, a line for each step."""
    state = max(output.glob("checkpoints/*/trainer_state.json"), key=lambda path: path.stat().st_mtime_ns)
    return [line for line in json.loads(state.read_text())["log_history"] if "loss" in line]


def weights(folder):
    """Every tensor of a saved model."""
    files = sorted(folder.glob("**/*.safetensors"))
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in files
        for name, tensor in load_file(path).items()
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refusal(recipe, **options):
    """The one line that a run is refused with."""
    with pytest.raises(InputError) as caught:
        train(recipe, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def test_a_run_from_end_to_end(recipe, tmp_path):
    path = recipe(
        loss={"document_regularizer_weight": 0.08, "ramp_steps": 4, "threshold": 5},
        training={"max_steps": 5},
    )
    loaded = load_recipe(path)
    folder = train(loaded)
    output = tmp_path / "run"
    assert folder == output / "model"
    assert sorted(entry.name for entry in output.iterdir()) == [
        "checkpoints", "model", "recipe.yaml", "trainer_state.json",
    ]  # fmt: skip
    assert load_recipe(output / "recipe.yaml") == loaded

    texts = ["the snow and the wind", "a bird in the tree"]
    ours = SparseEncoder.from_pretrained(folder, device="cpu")
    stock = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    assert type(stock) is sentence_transformers.SparseEncoder
    documents = stock.encode_document(texts).to_dense()
    assert documents.count_nonzero() > 0
    torch.testing.assert_close(ours.encode_document(texts).to_dense(), documents, rtol=1e-5, atol=1e-6)
    assert torch.equal(ours.encode_query(texts).to_dense(), stock.encode_query(texts).to_dense())

    log = log_of(output)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5]
    # The weight of each step is the one that its loss was computed with.
    assert [line["document_regularizer_weight"] for line in log] == [0.005, 0.02, 0.045, 0.08, 0.08]
    for line in log:
        total = line["infonce_loss"] + line["document_regularizer_loss"]
        assert line["loss"] == pytest.approx(total, rel=1e-3)
        assert 1 < line["document_active_dims"] < 100
        assert 0 < line["flops"] < line["query_active_dims"]
        assert line["query_active_dims"] == 1.0


def test_of_two_trainings_on_one_output_the_second_is_refused(recipe, tmp_path, monkeypatch):
    path = recipe(training={"max_steps": 1})
    loaded, messages = load_recipe(path), []

    def meanwhile(settings):
        messages.append(refusal(loaded))
        monkeypatch.setenv("RANK", "1")  # a process of the same run is none of another
        with pytest.raises(ZeroDivisionError):
            train(loaded)
        raise ZeroDivisionError

    def reached(settings):
        if len(messages) == 1:
            raise ZeroDivisionError
        return meanwhile(settings)

    monkeypatch.setattr(training, "read_data", reached)
    with pytest.raises(ZeroDivisionError):
        train(loaded)
    assert re.fullmatch(
        rf"{tmp_path / 'run'}: process {os.getpid()} on \S+ is training there; "
        "wait for it, or give another output",
        messages[0],
    )
    assert not (tmp_path / "run").exists()


def test_the_model_that_a_training_starts_from_is_not_replaced(recipe, tmp_path, mlm_folder):
    shutil.copytree(mlm_folder, tmp_path / "run" / "model")
    (tmp_path / "run" / "model" / ".st_l0.json").write_text('{"kind": "trained model"}')
    loaded = load_recipe(recipe(model={"base_model": str(tmp_path / "run" / "model")}))
    assert "is or holds what the output is made of" in refusal(loaded)


@pytest.fixture
def without_dropout(tmp_path, mlm_folder):
    """Folder of a model that computes the same in training as after it."""
    folder = tmp_path / "without-dropout"
    model = AutoModelForMaskedLM.from_pretrained(
        mlm_folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model.get_output_embeddings().bias.data.add_(3.0)  # a dim that no document has can never be learnt
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(mlm_folder).save_pretrained(folder)
    return str(folder)


def test_the_log_says_what_the_loss_saw(recipe, tmp_path, without_dropout):
    path = recipe(
        model={"base_model": without_dropout},
        loss={"document_regularizer_weight": 0.5, "temperature": 4.0},
        training={"max_steps": 1, "per_device_train_batch_size": 16},
    )
    model = build_model(load_recipe(path))
    rows = pairs()
    queries = model.encode_query([row["query"] for row in rows]).to_dense()
    documents = model.encode_document([row["positive"] for row in rows]).to_dense()
    train(load_recipe(path))
    (line,) = log_of(tmp_path / "run")
    ranking = torch.nn.functional.cross_entropy(queries @ documents.T / 4, torch.arange(16)).item()
    assert line["infonce_loss"] == pytest.approx(ranking, abs=1e-4)
    penalty = documents.mean(0).square().sum().item()
    assert line["document_regularizer_loss"] == pytest.approx(penalty / 2, abs=1e-4)
    active = (documents != 0).float()
    assert 0 < active.mean() < 1
    assert line["document_active_dims"] == pytest.approx(active.sum(1).mean().item(), abs=1e-4)
    flops = ((queries != 0).float().mean(0) * active.mean(0)).sum().item()
    assert line["flops"] == pytest.approx(flops, abs=1e-4)


def test_a_run_learns_what_can_be_learnt(recipe, tmp_path, without_dropout):
    path = recipe(
        model={"base_model": without_dropout},
        loss={"document_regularizer_weight": 1e-3, "temperature": 0.2},
        training={
            "max_steps": 50,
            "per_device_train_batch_size": 16,
            "learning_rate": 1e-3,
            "save_strategy": "no",
        },
    )
    trained = {}

    class Remember(training.RegularizerRamp):
        def on_log(self, args, state, control, **kwargs):
            trained["log"] = [line for line in state.log_history if "infonce_loss" in line]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "RegularizerRamp", Remember)
        folder = train(load_recipe(path))
    assert not list(tmp_path.glob("run/checkpoints/*"))  # no state was asked for
    losses = [line["infonce_loss"] for line in trained["log"]]
    assert len(losses) == 50
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    rows = pairs()
    scores = model.encode_query([row["query"] for row in rows]).to_dense() @ (
        model.encode_document([row["positive"] for row in rows]).to_dense().T
    )
    assert (scores.argmax(1) == torch.arange(16)).float().mean() > 0.8


@pytest.mark.parametrize(("reduction", "positions"), [("pooled", 1), ("per_position", 3)])
def test_hard_negatives(recipe, tmp_path, reduction, positions):
    loaded = load_recipe(recipe(negatives=2, loss={"reduction": reduction}, training={"max_steps": 2}))
    columns = read_data(loaded.data).columns
    arguments = training_arguments(loaded, tmp_path / "states")
    route_columns(arguments, loaded, columns)
    assert arguments.router_mapping == {
        "query": "query",
        "positive": "document",
        "negative_1": "document",
        "negative_2": "document",
    }
    loss = build_loss(loaded, build_model(loaded), len(columns) - 1)
    assert loss.document_regularizer.positions == positions
    train(loaded)
    assert len(log_of(tmp_path / "run")) == 2


def test_one_hard_negative_and_a_limit(recipe, tmp_path):
    train(load_recipe(recipe(negatives=1, data={"limit": 8}, training={"max_steps": 3})))
    assert [line["epoch"] for line in log_of(tmp_path / "run")] == [1.0, 2.0, 3.0]  # 8 rows are one batch


class Crash(RuntimeError):
    pass


@pytest.fixture
def steps(monkeypatch):
    """Numbers of the steps that were begun; a run breaks off at ``crash_at``."""

    class Steps(list):
        crash_at = None

    begun = Steps()

    class Watching(training.RegularizerRamp):
        def on_step_begin(self, args, state, control, **kwargs):
            super().on_step_begin(args, state, control, **kwargs)
            if state.global_step == begun.crash_at:
                raise Crash
            begun.append(state.global_step)

    monkeypatch.setattr(training, "RegularizerRamp", Watching)
    return begun


@pytest.mark.parametrize("extra", [0, 3, "all"])
def test_resuming_gives_the_uninterrupted_run(recipe, tmp_path, steps, mlm_folder, extra):
    changes = {
        "loss": {"document_regularizer_weight": 0.05, "ramp_steps": 6},
        "training": {"max_steps": 6, "save_steps": 3, "warmup_steps": 2},
    }
    if extra:  # queries that each batch draws
        changes["loss"] |= {"ranking": "kl", "in_batch_negatives": True}
        changes["teachers"] = {"models": [f"dense:{mlm_folder}"], "extra_queries": extra}
    whole = train(load_recipe(recipe(**changes, output=str(tmp_path / "whole"))))
    broken = load_recipe(recipe(**changes, output=str(tmp_path / "broken")))
    steps.clear()
    steps.crash_at = 4
    with pytest.raises(Crash):
        train(broken)
    assert steps == [0, 1, 2, 3]
    steps.clear()
    steps.crash_at = None
    assert not (tmp_path / "broken" / "model").exists()
    assert "holds an earlier run: give --resume, or another output" in refusal(broken)
    resumed = train(broken, resume=True)
    assert steps == [3, 4, 5]  # from the state after three steps

    assert same(weights(whole), weights(resumed))
    logs = [
        [
            {key: value for key, value in line.items() if key not in ("grad_norm", "queries_per_second")}
            for line in log_of(tmp_path / output)
        ]
        for output in ("whole", "broken")
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 6
    at_three = weights(tmp_path / "whole" / "checkpoints" / "checkpoint-3")
    assert not same(at_three, weights(tmp_path / "whole" / "checkpoints" / "checkpoint-6"))

    # A finished run, resumed once more, is still that run.
    assert same(weights(whole), weights(train(broken, resume=True)))
    assert steps == [3, 4, 5]


def test_the_same_recipe_gives_the_same_model(recipe, tmp_path):
    folders = [
        train(load_recipe(recipe(output=str(tmp_path / name), seed=seed)))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    one, again, other = map(weights, folders)
    assert same(one, again)
    assert not same(one, other)


def test_refuses_to_resume_from_nothing(recipe, tmp_path):
    loaded = load_recipe(recipe())
    expected = f"{tmp_path}/run/checkpoints holds no checkpoint to resume from: start without --resume"
    assert refusal(loaded, resume=True) == expected
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert refusal(loaded, resume=True) == expected


def test_refuses_what_does_not_go_together(recipe, tmp_path, mlm_folder, tiny_encoder):
    expected = f"{mlm_folder} has no query weights: give model.idf (st-l0 idf makes one) or 'binary'"
    assert refusal(load_recipe(recipe(model={"idf": None}))) == expected
    texts = tmp_path / "texts.txt"
    texts.write_text("the snow")
    message = refusal(load_recipe(recipe(model={"warm_start": str(texts)})))
    assert message == f"{mlm_folder} has an MLM head of its own: leave warm_start out"

    trained = str(tmp_path / "trained")
    tiny_encoder().save_pretrained(trained)
    expected = f"{trained} is a trained encoder: leave model.idf and model.warm_start out"
    assert refusal(load_recipe(recipe(model={"base_model": trained}))) == expected
    change = {"base_model": trained, "idf": None, "warm_start": "texts.txt"}
    assert refusal(load_recipe(recipe(model=change))) == expected
    missing = str(tmp_path / "no-such-model")
    message = refusal(load_recipe(recipe(model={"base_model": missing})))
    assert message.startswith(f"{missing}: no model there")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"fp16": True, "use_cpu": True}, "fp16: needs a GPU"),
        (
            {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"foo": 1}},
            "lr_scheduler_kwargs: get_linear_schedule_with_warmup() got an unexpected keyword argument 'foo'",
        ),
        ({"learning_rate_mapping": {"(": 1e-3}}, "learning_rate_mapping: '(' is no pattern"),
        ({"learning_rate_mapping": {"bert": -1}}, "learning_rate_mapping: gives 'bert' -1.0"),
        ({"report_to": "paper"}, "report_to: 'paper' is not known; give none, all, or some of"),
        (
            {"dataloader_num_workers": 0, "dataloader_prefetch_factor": 2},
            "dataloader_prefetch_factor: --dataloader_prefetch_factor can only be set when",
        ),
        ({"optim_args": "momentum"}, "optim_args: is 'momentum'; write name=value"),
        ({"optim_args": "momentum=0.9"}, "optim_args: momentum=0.9 changes nothing of adamw_torch_fused"),
        ({"optim": "sgd", "optim_args": "momentum=fast"}, "optim_args: could not convert string to float"),
        ({"fsdp": "full_shard"}, "fsdp: needs several processes"),
        ({"torch_compile_backend": "none_such"}, "torch_compile_backend: "),
        ({"torch_compile_mode": "none-such"}, "torch_compile_mode: "),
        (
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"foo": 1}},
            "gradient_checkpointing_kwargs: ",
        ),
        ({"push_to_hub": True}, "push_to_hub: needs the Hub, but HF_HUB_OFFLINE is set"),
        ({"hub_model_id": "a/b/c"}, "hub_model_id: Repo id must be in the form"),
        ({"use_cpu": True, "debug": "overflow"}, "debug: "),
    ],
)
def test_refuses_what_the_trainer_would_refuse_later(recipe, tmp_path, monkeypatch, training, expected):
    """Run and dry run alike, by key, before data and model are looked for."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    loaded = load_recipe(recipe(training=training, data={"train": "none.jsonl"}))
    message = refusal(loaded)
    assert message.startswith(f"training.{expected}")
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    if "fp16" not in training and "fsdp" not in training:  # which only the machine that trains can tell
        with pytest.raises(InputError, match=re.escape(message)):
            dry_run(loaded)


@pytest.mark.parametrize(
    ("training", "package"),
    [
        ({"report_to": "wandb"}, "wandb"),
        ({"report_to": ["tensorboard"]}, "tensorboard"),
        ({"report_to": "mlflow"}, "mlflow"),
        ({"optim": "adamw_bnb_8bit"}, "bitsandbytes"),
        ({"optim": "schedule_free_adamw"}, "schedulefree"),
        ({"deepspeed": {"train_batch_size": "auto"}}, "deepspeed"),
    ],
)
def test_refuses_packages_that_are_not_there(recipe, training, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    (key,) = training
    loaded = load_recipe(recipe(training=training, data={"train": "none.jsonl"}))
    message = refusal(loaded)
    assert re.match(rf"training\.{key}: .*pip install .*{package}", message)
    with pytest.raises(InputError, match=re.escape(message)):
        dry_run(loaded)


def logged(folder, step):
    """Name to value of what a run logged of a step."""
    (state,) = folder.glob("checkpoints/checkpoint-*/trainer_state.json")
    lines = json.loads(state.read_text())["log_history"]
    return next(line for line in lines if line["step"] == step and "loss" in line)


@pytest.fixture
def stopped(recipe, tmp_path):
    """Function: options to the path of a recipe of four steps, under a linear schedule from 1e-3."""
    options = {"max_steps": 4, "save_steps": 4, "logging_steps": 1, "save_total_limit": 1}
    options |= {"learning_rate": 1e-3, "warmup_steps": 0}
    path = recipe(training=options)
    train(load_recipe(path))
    return path


def test_a_longer_training_goes_on_at_the_rate_of_its_own_schedule(stopped, tmp_path):
    train(load_recipe(stopped, ["training.max_steps=8", "training.save_steps=8"]), resume=True)
    assert [round(logged(tmp_path / "run", step)["learning_rate"], 9) for step in (5, 6, 8)] == [
        0.0005, 0.000375, 0.000125,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("training.learning_rate=1e-6", "training.learning_rate"),
        ("training.weight_decay=0.5", "training.weight_decay"),
        ("training.per_device_train_batch_size=4", "training.per_device_train_batch_size"),
        ("training.adam_beta1=0.8", "training.adam_beta1"),
        ("loss.document_regularizer_weight=9", "loss.document_regularizer_weight"),
        ("data.limit=12", "data"),
        ("seed=8", "seed"),
    ],
)
def test_another_recipe_is_not_gone_on_with_unless_it_is_said(stopped, tmp_path, caplog, change, key):
    loaded = load_recipe(stopped, ["training.max_steps=6", "training.save_steps=6", change])
    state = tmp_path / "run" / "checkpoints" / "checkpoint-4"
    assert refusal(loaded, resume=True).startswith(
        f"{state} is of a training with other {key}: put that back"
    )
    train(loaded, resume=True, changed=True)
    assert f"{state} is gone on from with other {key}: learning rate and" in " ".join(caplog.messages)
    if key == "training.learning_rate":
        assert logged(tmp_path / "run", 5)["learning_rate"] == pytest.approx(1e-6 / 3)


def test_another_model_is_never_gone_on_with(stopped, tmp_path, mlm_folders):
    change = ["training.max_steps=6", f"model.base_model={mlm_folders('distilbert')}"]
    with pytest.raises(InputError, match="checkpoint-4 is of another model"):
        train(load_recipe(stopped, change), resume=True, changed=True)


def test_changed_is_for_resume(recipe):
    with pytest.raises(InputError, match="--changed is for --resume"):
        train(load_recipe(recipe()), changed=True)


def test_a_checkpoint_of_an_earlier_version_says_nothing_of_its_recipe(stopped, tmp_path):
    state = tmp_path / "run" / "checkpoints" / "checkpoint-4"
    (state / "origin.json").unlink()
    mark_complete(state)
    train(load_recipe(stopped, ["training.max_steps=5", "training.learning_rate=1e-4"]), resume=True)


def test_a_token_of_the_hub_is_in_no_file_of_a_training(recipe, tmp_path):
    path = recipe(training={"max_steps": 2, "save_steps": 1, "logging_steps": 1, "hub_model_id": "a/b"})
    token = "hf_abcdefghijklmnop"
    train(load_recipe(path, [f"training.hub_token={token}"]))
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert {"training_args.bin", "recipe.yaml", "README.md", "trainer_state.json"} <= {f.name for f in files}
    assert not [str(file) for file in files if token.encode() in file.read_bytes()]
    assert not [str(file) for file in files if file.name == "training_args.bin" and token in unpacked(file)]


def unpacked(path):
    """All that a file of `torch.save` holds, uncompressed."""
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist()).decode("latin1")


def test_a_machine_that_cannot_train_at_all_is_not_the_recipes_fault(recipe, monkeypatch):
    monkeypatch.setattr("st_l0.training.arguments.rehearse", lambda arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(load_recipe(recipe()))


def test_the_query_side_keeps_its_learning_rate_beside_others(recipe, tmp_path):
    model = {"queries": "trained_table", "query_learning_rate": 0.5}
    loaded = load_recipe(recipe(model=model, training={"learning_rate_mapping": {"bias": 1e-4}}))
    mapping = training_arguments(loaded, tmp_path).learning_rate_mapping
    assert mapping == {"bias": 1e-4, r"sub_modules\.query\.": 0.5}


def test_refuses_processes_that_would_train_alone(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    message = refusal(load_recipe(recipe(training={"use_cpu": False})))
    assert message.startswith("4 processes were started, but the trainer joins 1: ")


def test_one_process_takes_one_gpu(recipe, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    caplog.clear()
    arguments = training_arguments(load_recipe(recipe(training={"use_cpu": False})), tmp_path)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 8)
    assert caplog.messages[-1:] == [
        "one of 8 GPUs is used: torchrun --nproc_per_node 8 -m st_l0 train … takes all"
    ]


@pytest.mark.parametrize(
    ("processor", "warned"),
    [
        ({"architecture": "x86_64", "avx512_f": True}, True),
        ({"architecture": "x86_64", "avx512_bf16": True}, False),
        ({"architecture": "x86_64", "amx_bf16": True}, False),
        ({"architecture": "aarch64"}, False),  # not known
        ({}, False),
    ],
)
def test_says_where_bfloat16_is_slow(recipe, tmp_path, monkeypatch, caplog, processor, warned):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor, raising=False)
    caplog.clear()
    training_arguments(load_recipe(recipe(training={"bf16": True, "use_cpu": True})), tmp_path)
    assert ("slower than float32 on this CPU" in caplog.text) == warned


def test_refuses_a_training_without_a_batch(recipe):
    loaded = load_recipe(recipe(data={"limit": 7}, training={"dataloader_drop_last": True}))
    assert refusal(loaded).startswith("the data make 7 examples, less than one batch of 8, and ")


@pytest.mark.parametrize("ranking", ["kl", "margin_mse", "infonce"])
def test_refuses_to_rank_one_document(recipe, tmp_path, ranking):
    rows = tmp_path / "one.jsonl"
    rows.write_text('{"query": "cat", "documents": ["a dog"], "scores": [1.5]}\n' * 8)
    options = {"data": {"train": str(rows)}, "loss": {"ranking": ranking, "in_batch_negatives": False}}
    message = refusal(load_recipe(recipe(**options)))
    expected = (
        f"loss.ranking.{ranking} has nothing to rank: the data hold one document a query; give negatives"
    )
    assert message == expected
    # Other queries' documents help, but a stored score is for the query's own.
    options["loss"]["in_batch_negatives"] = True
    if ranking == "margin_mse":
        assert refusal(load_recipe(recipe(**options))) == expected
    else:
        train(load_recipe(recipe(**options)))


def test_refuses_to_resume_from_a_model_alone(recipe, tmp_path):
    path = recipe(training={"save_only_model": True, "save_steps": 2, "max_steps": 2})
    train(load_recipe(path))
    state = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    assert refusal(load_recipe(path), resume=True).startswith(f"{state} holds the model only ")


def test_refuses_data_that_is_not_there(recipe):
    assert refusal(load_recipe(recipe(data={"train": "none.jsonl"}))).startswith("none.jsonl: no such file")


def test_goes_on_from_a_trained_encoder(recipe, tmp_path, tiny_encoder, idf_weights):
    trained = tiny_encoder(activation="log1p_relu")
    trained.save_pretrained(str(tmp_path / "trained"))
    change = {"base_model": str(tmp_path / "trained"), "idf": None}
    folder = train(load_recipe(recipe(model=change, training={"max_steps": 1, "learning_rate": 0.0})))
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    texts = ["the snow and the wind", "fish"]
    assert torch.equal(model.encode_document(texts).to_dense(), trained.encode_document(texts).to_dense())
    assert np.array_equal(model.query_weights, trained.query_weights)
    assert len(set(model.query_weights)) > 50  # its own table, not 'binary'

    folder = train(load_recipe(recipe(model=change, output=str(tmp_path / "second"))))
    moved = SparseEncoder.from_pretrained(folder, device="cpu")
    assert not torch.equal(moved.encode_document(texts).to_dense(), trained.encode_document(texts).to_dense())


def test_texts_are_cut_where_the_recipe_says(recipe, tmp_path, tiny_encoder):
    long, short = "snow " * 200, "snow " * 14  # with [CLS] and [SEP] 16 tokens
    tiny_encoder().save_pretrained(str(tmp_path / "trained"))
    for change in ({}, {"base_model": str(tmp_path / "trained"), "idf": None}):
        model = build_model(load_recipe(recipe(model=change)))
        assert torch.equal(*(model.encode_document([text]).to_dense() for text in (long, short)))
        # A model with 130 positions cannot take more than that.
        model = build_model(load_recipe(recipe(model={**change, "max_seq_length": 256})))
        cut = model.encode_document([long]).to_dense()
        assert torch.equal(cut, model.encode_document(["snow " * 128]).to_dense())
        assert not torch.equal(cut, model.encode_document(["snow " * 14]).to_dense())


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_in_a_terminal_only(recipe, tmp_path, monkeypatch, terminal):
    loaded = load_recipe(recipe())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    before = logging.get_verbosity()
    try:
        for verbosity in (logging.ERROR, logging.WARNING):  # what the trainer would go by
            logging.set_verbosity(verbosity)
            assert training_arguments(loaded, tmp_path).disable_tqdm is not terminal
    finally:
        logging.set_verbosity(before)
    for disabled in (True, False):
        stated = load_recipe(recipe(training={"disable_tqdm": disabled}))
        assert training_arguments(stated, tmp_path).disable_tqdm is disabled


@pytest.mark.parametrize("queries", ["table", "trained_table", "learned_scores", "model"])
def test_two_processes_train_the_model_of_one(recipe, tmp_path, without_dropout, queries):
    def options(processes):
        return {
            "negatives": 1,
            "model": {
                "base_model": without_dropout,
                "queries": queries,
                "idf": None if queries in ("learned_scores", "model") else "binary",
            },
            "loss": {"threshold": 8, "query_regularizer_weight": 0.0 if queries == "table" else 0.01},
            "training": {
                "per_device_train_batch_size": 8 // processes,
                # Adam would make whole steps of the rounding errors of gradients that are zero.
                "optim": "sgd",
                "learning_rate": 1e-2,
                "save_strategy": "no",
            },
            "output": str(tmp_path / f"run-{processes}"),
        }

    for processes in (1, 2):
        done = run(processes, "-m", "st_l0", "train", recipe(**options(processes)), folder=tmp_path)
        assert done.returncode == 0, done.stderr
        output = tmp_path / f"run-{processes}"
        assert not [path for path in output.rglob(".*") if path.is_dir()]  # nothing half-written
        assert not list(output.glob("checkpoints/*"))
        assert done.stdout.count(f"model: {output / 'model'}") == 1
    one, two = (weights(tmp_path / f"run-{processes}" / "model") for processes in (1, 2))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], rtol=1e-5, atol=1e-6), name
    stock = sentence_transformers.SparseEncoder(str(output / "model"), device="cpu")
    start = build_model(load_recipe(recipe(**options(2))))
    assert not torch.equal(
        stock.encode_document("a dog").to_dense(), start.encode_document("a dog").to_dense()
    )


def test_dropout_is_the_recipes_for_every_architecture(tiny_encoder, mlm_folders):
    from tiny_models import ARCHITECTURES

    for architecture in ARCHITECTURES:
        model = tiny_encoder(mlm_folders(architecture))
        texts = ["the cat sat on the mat", "a dog"]
        features = model.preprocess(texts, task="document")
        building.set_dropout(model, 0.5)
        model.train()
        noisy = [model(dict(features))["sentence_embedding"] for _ in range(2)]
        assert not torch.equal(*noisy)
        building.set_dropout(model, 0.0)
        quiet = [model(dict(features))["sentence_embedding"] for _ in range(2)]
        assert torch.equal(*quiet)


def test_a_run_that_diverges_keeps_the_former_model(recipe, tmp_path):
    good = train(load_recipe(recipe(training={"save_strategy": "no"})))
    before = weights(good)
    message = refusal(load_recipe(recipe(training={"learning_rate": 1e30, "save_strategy": "no"})))
    assert message.startswith("step 2: the infonce_loss (nan) is not finite, the training diverged")
    assert same(before, weights(good))


def test_a_model_that_cannot_be_saved_keeps_the_former_one(recipe, tmp_path, monkeypatch):
    good = train(load_recipe(recipe(training={"save_strategy": "no"})))
    before = weights(good)

    def full(self, path, *args, **kwargs):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(SparseEncoder, "save", full)
    with pytest.raises(OSError, match=r"run: the model could not be saved \(.*No space left"):
        train(load_recipe(recipe(training={"save_strategy": "no"})))
    assert same(before, weights(good))


def test_a_trained_encoder_keeps_its_activation(recipe, tmp_path, tiny_encoder):
    trained = str(tmp_path / "trained")
    tiny_encoder(activation="log1p_relu").save_pretrained(trained)
    base = {"base_model": trained, "idf": None, "max_seq_length": None}
    assert "leave model.activation" in refusal(load_recipe(recipe(model={**base, "activation": "relu"})))
    model = build_model(load_recipe(recipe(model=base)))
    assert model[0].sub_modules["document"][1].activation_function == "log1p_relu"


@pytest.mark.parametrize("name", ["model/thesis.tex", "recipe.yaml"])
def test_what_no_training_wrote_is_not_replaced(recipe, tmp_path, monkeypatch, name):
    monkeypatch.setattr(
        training, "read_data", lambda *args: pytest.fail("it has to be refused before the work")
    )
    mine = tmp_path / "run" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(InputError, match="give a"):
        train(load_recipe(recipe()))
    assert mine.read_text() == "years of work"


def test_a_training_replaces_its_own(recipe, tmp_path):
    for seed in (1, 2):
        folder = train(load_recipe(recipe(seed=seed, training={"save_strategy": "no"})))
    assert load_recipe(folder.parent / "recipe.yaml").seed == 2
