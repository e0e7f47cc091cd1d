"""A training whose texts are tokenized once is the same training, on one process and on two."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset, IterableDataset
from safetensors.torch import load_file
from sentence_transformers import SparseEncoderTrainingArguments

from launching import run
from st_l0.encoder.modules import encoder_modules
from st_l0.losses import FlopsLoss, InfoNCELoss, SparseRetrievalLoss
from st_l0.training import tokenizing
from st_l0.training.collator import StoredTokens
from st_l0.training.recipe import load_recipe
from st_l0.training.token_store import Side
from st_l0.training.train_model import train
from st_l0.training.trainer import SparseRetrievalTrainer
from tiny_models import WORDS

STEPS = 4
SAVED = {"save_strategy": "steps", "save_steps": 2}


def rows(start=0):
    """Eight queries of one word; each of the sixteen documents is in two rows, in another column each."""
    documents = [f"the {word} and {word}" for word in WORDS[start : start + 16]]
    for place in range(8):
        pair = [documents[2 * place], documents[(2 * place + 7) % 16]]
        yield {"query": WORDS[start + place], "documents": pair}


def by_id(folder, words):
    """Sources of rows of ids: the texts of two rows, of which the documents are those of words."""
    files = {"train": [{"query_id": f"{i}", "document_ids": [f"{2 * i}", f"{2 * i + 1}"]} for i in range(8)]}
    files["queries"] = [{"_id": f"{place}", "text": word} for place, word in enumerate(WORDS[:8])]
    files["corpus"] = [{"_id": f"{place}", "text": f"the {word}"} for place, word in enumerate(words)]
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {name: str(folder / f"{name}.jsonl") for name in files}


@pytest.fixture
def recipe(tmp_path, mlm_folder):
    """Function: name of the run and changes of its training to a recipe."""

    def build(name, data=None, length=16, corpus=None, **training):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in data or rows()))
        values = {
            "model": {"base_model": mlm_folder, "idf": "binary", "max_seq_length": length},
            "data": {"train": str(path), **(by_id(tmp_path, corpus) if corpus else {})},
            "loss": {"document_regularizer_weight": 0.01},
            "training": {
                "max_steps": STEPS,
                "per_device_train_batch_size": 4,
                "learning_rate": 1e-3,
                "use_cpu": True,
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": "none",
                **training,
            },
            "output": str(tmp_path / name),
        }
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values))
        return load_recipe(file)

    return build


@pytest.fixture
def seen(monkeypatch):
    """What the trainings of a test do: with which function each step preprocesses, and what is written."""
    found = {"steps": [], "written": 0, "folders": set()}
    training_step, write_tokens = SparseRetrievalTrainer.training_step, tokenizing.write_tokens

    def step(trainer, *args, **kwargs):
        found["steps"].append(isinstance(trainer.data_collator.preprocess_fn, StoredTokens))
        found["folders"] |= set(Path(trainer.args.output_dir).glob("_tokens-*/*"))
        return training_step(trainer, *args, **kwargs)

    def write(*args, **kwargs):
        found["written"] += 1
        write_tokens(*args, **kwargs)

    monkeypatch.setattr(SparseRetrievalTrainer, "training_step", step)
    monkeypatch.setattr(tokenizing, "write_tokens", write)
    return found


@pytest.fixture
def often(monkeypatch):
    """However few texts there are, they are worth a file."""
    monkeypatch.setattr(tokenizing, "_LEAST", 0)


def outcome(recipe):
    """Weights, and losses of all steps."""
    output = Path(recipe.output)
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    (weights,) = output.glob("model/*.safetensors")
    return load_file(weights), [(line["step"], line["loss"]) for line in log if "loss" in line]


def assert_same(one, other):
    (weights, losses), (others, other_losses) = outcome(one), outcome(other)
    assert losses == other_losses and len(losses) == STEPS
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_training_bit_for_bit(recipe, seen, monkeypatch, capsys, workers):
    live = recipe("live")
    train(live)
    assert not seen["written"] and not any(seen["steps"]) and not seen["folders"]
    assert "tokenized" not in capsys.readouterr().out
    monkeypatch.setattr(tokenizing, "_LEAST", 0)
    once = recipe("once", dataloader_num_workers=workers)
    train(once)
    assert seen["written"] == 1 and seen["steps"][STEPS:] == STEPS * [True]
    line = "tokenized 8 queries and 16 documents once: 0.0 M tokens, 0.0 MB"
    assert line in capsys.readouterr().out.splitlines()
    checkpoints = Path(once.output) / "checkpoints"
    assert seen["folders"] == {checkpoints / "_tokens-0" / "store"}
    assert not list(checkpoints.iterdir())
    assert_same(once, live)


def test_texts_that_are_seen_once_are_not_worth_it(recipe, seen, often):
    train(recipe("few", max_steps=3))  # 24 documents of 16, 12 queries of 8
    assert not seen["written"] and seen["steps"] == 3 * [False]
    train(recipe("epochs", max_steps=-1, num_train_epochs=2))  # 4 steps
    assert seen["written"] == 1 and seen["steps"][3:] == 4 * [True]


def test_only_texts_that_come_often_are_tokenized_before(recipe, seen, often, capsys):
    """Sixteen queries and two documents, in batches of four: 16 and 32 texts."""
    data = [{"query": word, "documents": ["the cat", "a dog"]} for word in WORDS[:16]]
    train(recipe("two", data))
    assert "tokenized 2 documents once" in capsys.readouterr().out
    assert seen["steps"] == STEPS * [True]


def test_a_full_disk_ends_no_training(recipe, monkeypatch, often, caplog):
    def write(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizing, "write_tokens", write)
    train(recipe("full"))
    assert "texts are tokenized batch by batch: [Errno 28] No space left on device" in caplog.messages


def broken(recipe, monkeypatch, step):
    """Train, and break before a step."""
    training_step = SparseRetrievalTrainer.training_step

    def breaking(trainer, *args, **kwargs):
        if trainer.state.global_step == step:
            raise KeyboardInterrupt
        return training_step(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SparseRetrievalTrainer, "training_step", breaking)
        with pytest.raises(KeyboardInterrupt):
            train(recipe)
    (folder,) = (Path(recipe.output) / "checkpoints").glob("_tokens-*")
    assert (folder / "store" / "ids.bin").exists()
    return folder


def test_a_broken_training_goes_on_with_its_tokens(recipe, seen, often, monkeypatch, capsys):
    whole, parts = recipe("whole"), recipe("parts", **SAVED)
    train(whole)
    folder = broken(parts, monkeypatch, 3)
    (folder / ".store.new-12345678").mkdir()  # as a kill leaves one
    seen["steps"].clear()
    train(parts, resume=True)
    assert seen["written"] == 2 and seen["steps"] == 2 * [True]  # one of each
    assert "the tokens of an earlier start are used: 0.0 M tokens" in capsys.readouterr().out
    assert not folder.exists()
    assert_same(parts, whole)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({}, {"data": list(rows(8))}),
        ({}, {"length": 12}),  # no text is cut at either
        ({"corpus": WORDS[:16]}, {"corpus": WORDS[16:32]}),  # the rows are the same
    ],
)
def test_other_tokens_are_replaced(recipe, seen, often, monkeypatch, first, then):
    broken(recipe("run", **first, **SAVED), monkeypatch, 3)
    train(recipe("run", max_steps=6, **then), resume=True, changed=True)
    assert seen["written"] == 2 and seen["steps"][-4:] == 4 * [True]


def test_a_file_that_is_cut_is_replaced(recipe, seen, often, monkeypatch):
    ids = broken(recipe("run", **SAVED), monkeypatch, 3) / "store" / "ids.bin"
    ids.write_bytes(ids.read_bytes()[:-2])
    train(recipe("run", max_steps=6), resume=True)
    assert seen["written"] == 2 and seen["steps"][-4:] == 4 * [True]


def test_the_steps_that_are_done_do_not_count(recipe, seen, often):
    """Two of six are left, which see 16 documents of 16."""
    train(recipe("run", **SAVED))
    train(recipe("run", max_steps=6), resume=True)
    assert seen["written"] == 1 and seen["steps"] == STEPS * [True] + 2 * [False]


def test_two_processes_share_a_file(recipe, tmp_path):
    loaded = recipe("both", per_device_train_batch_size=2)
    loaded.training.pop("use_cpu")
    file = tmp_path / "both.yaml"
    file.write_text(loaded.to_yaml())
    done = run(2, Path(__file__).parent / "shared_tokens.py", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tokenized 8 queries and 16 documents once") == 1
    first, second = (json.loads((tmp_path / "both" / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["written"] == [str(tmp_path / "both" / "checkpoints" / "_tokens-0" / "store")]
    assert second["written"] == []
    assert first["used"] == second["used"] and len(first["used"]) == 1
    assert not list((tmp_path / "both" / "checkpoints").glob("_tokens*"))


def test_what_is_left_to_live_tokenizing(tiny_encoder, tmp_path):
    data = {"query": ["cat", "dog"], "positive": ["a cat", "a dog"], "label": [1.0, 0.0]}
    plain = Dataset.from_dict(data)
    stream = IterableDataset.from_generator(lambda: iter(plain), features=plain.features)

    def columns(dataset=plain, setting=None, queries="table", examples=10_000):
        model = tiny_encoder() if queries == "table" else tiny_encoder(idf=None)
        arguments = SparseEncoderTrainingArguments(
            output_dir=str(tmp_path),
            use_cpu=True,
            max_steps=1,
            report_to="none",
            router_mapping={"query": "query", "positive": "document"} if queries == "table" else {},
            prompts={"query": "a: "},
        )
        loss = SparseRetrievalLoss(model, InfoNCELoss(), FlopsLoss(), 0.0)
        trainer = SparseRetrievalTrainer(model=model, args=arguments, train_dataset=dataset, loss=loss)
        if setting == "max_length":
            trainer.data_collator.max_length = 8
        if setting == "multiples":
            encoder_modules(model).transformer.processing_kwargs = {"text": {"pad_to_multiple_of": 8}}
        return tokenizing._columns(trainer, trainer.data_collator, examples)

    assert columns() == {Side("query", "a: "): ["query"], Side("document", None): ["positive"]}
    assert columns(queries="model") == {Side(None, "a: "): ["query"], Side(None, None): ["positive"]}
    for dataset in (stream, {"one": plain}, plain.with_transform(lambda rows: rows)):
        assert columns(dataset) == {}
    for setting in ("max_length", "multiples"):
        assert columns(setting=setting) == {}
    assert columns(examples=4_999) == {}
