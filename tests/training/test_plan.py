"""The dry run: numbers worked out by hand, and no more and no less refused than a training refuses."""

import io
import json
import math
import re

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from sentence_transformers import SparseEncoderTrainingArguments
from transformers import BertModel

from st_l0.errors import InputError
from st_l0.teachers import pool
from st_l0.training.arguments import training_arguments, training_steps
from st_l0.training.build import build_loss, build_model, read_data, set_dropout
from st_l0.training.plan import dry_run
from st_l0.training.plan_table import render
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train
from tiny_models import VOCABULARY, WORDS, make_tokenizer, write_json

# A BERT of 2 layers, hidden size 32, feed-forward size 48, 130 positions, 127 tokens, decoder tied.
EMBEDDINGS = 127 * 32 + 130 * 32 + 2 * 32 + 2 * 32
LAYER = 4 * (32 * 32 + 32) + 2 * 32 + (32 * 48 + 48) + (48 * 32 + 32) + 2 * 32
HEAD = (32 * 32 + 32) + 2 * 32 + 127
PARAMETERS = EMBEDDINGS + 2 * LAYER + HEAD


@pytest.fixture
def recipe(tmp_path, mlm_folder):
    """Function: changes, such as ``loss={"threshold": 3}``, to a small recipe on data that are not there."""

    def load(**changes):
        values = {
            "model": {"base_model": mlm_folder, "idf": "binary", "max_seq_length": 16},
            "data": {"train": str(tmp_path / "none.jsonl"), "documents_per_query": 2},
            "loss": {"document_regularizer_weight": 0.04, "reduction": "per_position", "ramp_steps": 30},
            "training": {"max_steps": 100, "per_device_train_batch_size": 4, "use_cpu": True},
            "output": str(tmp_path / "run"),
        }
        for section, change in changes.items():
            old = values.get(section)
            values[section] = {**old, **change} if isinstance(old, dict) and change else change
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return load_recipe(path)

    return load


def rows_file(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def refusal(loaded, run=dry_run):
    with pytest.raises(InputError) as caught:
        run(loaded)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def text_of(planned, width=200):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(planned))
    return console.export_text()


# Numbers


def test_numbers_by_hand(recipe):
    assert len(VOCABULARY) == 127
    training = {"gradient_accumulation_steps": 2, "learning_rate": 3e-5, "warmup_steps": 10}
    planned = dry_run(recipe(training=training), devices=8)
    assert planned.trainable_parameters == PARAMETERS == 24607
    assert (planned.queries_at_once, planned.queries_per_step, planned.documents_per_step) == (32, 64, 128)
    assert (planned.steps, planned.warmup_steps, planned.learning_rate) == (100, 10, 3e-5)
    assert planned.document_regularizer_weights == {"per_position": 0.04, "pooled": 0.08}
    assert list(planned.document_regularizer_weights) == ["per_position", "pooled"]  # the recipe's own first
    assert (planned.ramp_steps, planned.max_seq_length) == (30, 16)
    assert planned.head == "its own"
    assert planned.queries == "fixed table: binary"
    assert planned.notes == ()

    memory = planned.memory
    assert memory.weights == 4 * (PARAMETERS + 127)
    assert memory.gradients == 2 * 4 * PARAMETERS  # a second copy is on its way to the other devices
    assert memory.optimizer == 8 * PARAMETERS
    tokens, texts = 4 * 2 * 16, 4 * 2
    layer = 4 * (8 * 32 + 2 * 48)
    assert memory.activations == tokens * (2 * layer + 4 * 5 * 32) + texts * 4 * 6 * 127 == 466_752
    assert memory.total == sum((memory.weights, memory.gradients, memory.optimizer, memory.activations))
    assert dry_run(recipe()).memory.gradients == 4 * PARAMETERS


def test_the_other_reduction(recipe):
    loss = {"reduction": "pooled", "document_regularizer_weight": 0.03}
    planned = dry_run(recipe(loss=loss, data={"documents_per_query": 3}))
    assert planned.document_regularizer_weights == pytest.approx({"pooled": 0.03, "per_position": 0.01})


def test_half_precision_and_checkpointing(recipe):
    tokens, vectors = 4 * 2 * 16, 4 * 2 * 4 * 6 * 127
    half = dry_run(recipe(training={"bf16": True})).memory.activations
    assert half == tokens * (2 * (26 * 32 + 4 * 48) + 20 * 32) + vectors + 2 * PARAMETERS
    names = {"activation_checkpointing", "gradient_checkpointing"}  # the first is of newer transformers only
    for name in names & SparseEncoderTrainingArguments.__dataclass_fields__.keys():
        checkpointing = dry_run(recipe(training={name: True})).memory.activations
        assert checkpointing == tokens * (4 * (8 * 32 + 2 * 48) + 2 * 4 * 32 + 20 * 32) + vectors


KL = {"ranking": {"kl": 1.0}, "in_batch_negatives": True}


def test_an_extra_query_keeps_its_scores(recipe):
    few, many, every = (
        dry_run(recipe(loss=KL, teachers={"models": ["bm25:none.json"], "extra_queries": number}), devices=2)
        for number in (0, 50, "all")
    )
    # 4 queries with 2 documents on each of two devices: 16 documents.
    assert many.memory.activations - few.memory.activations == 50 * 16 * 6 * 4
    assert every.memory.activations - few.memory.activations == 32 * 8 * 16 * 6 * 4
    assert (few.extra_queries, few.memory.pool) == ("none", 0)
    assert many.extra_queries == "50 near ones a batch, out of at most 32,768 (on cpu); pool not known"
    assert every.extra_queries == "all near ones a batch, out of at most 32,768 (on cpu); pool not known"
    assert every.memory.pool is None and every.memory.total > few.memory.total
    assert re.search(r"^extra queries +all near ones a batch", text_of(every), re.MULTILINE)
    assert "pool of extra queries not known" in text_of(every) and "extra queries" not in text_of(few)


def test_a_pool_is_stated_by_the_files_that_are_there(recipe, tmp_path, monkeypatch):
    """1,000 vectors of 8 dims in float16, and statistics of documents of 20 words."""
    (tmp_path / "vectors").mkdir()
    np.save(tmp_path / "vectors" / "vectors.npy", np.zeros((1000, 8), np.float16))
    (tmp_path / "bm25.json").write_text(json.dumps({"mean_length": 20.0}))
    models = [f"vectors:{tmp_path / 'vectors'}", f"bm25:{tmp_path / 'bm25.json'}"]
    loaded = recipe(loss=KL, teachers={"models": models, "extra_queries": 50})
    planned = dry_run(loaded)
    # Half of the texts are taken for documents; queries are counted with 10 tokens and 10 words.
    queries, documents, neighbours = 1000, 500, 2 * 4 * 32
    sizes = queries * (16 + 2 * 88), documents * (16 + 8 * 21 + neighbours)
    assert planned.memory.pool == sum(sizes)
    assert planned.extra_queries == (
        "50 near ones a batch, out of the 1,000 or fewer that there are (on cpu); pool about 0.00 GiB"
    )
    # A pool that is sampled: the other vectors are at most of documents.
    monkeypatch.setattr(pool, "_MOST_ON_CPU", 100)
    planned = dry_run(loaded)
    assert planned.memory.pool == 100 * (16 + 2 * 88) + 900 * (16 + 8 * 21 + neighbours)
    assert "out of 100 of them, 10% or more (on cpu)" in planned.extra_queries
    # A limit of the data counts too: 60 examples with 2 documents each.
    planned = dry_run(recipe(loss=KL, teachers=loaded_teachers(models), data={"limit": 60}))
    assert planned.memory.pool == 60 * (16 + 2 * 88) + 120 * (16 + 8 * 21 + neighbours)
    # What a live model makes is not known.
    planned = dry_run(recipe(loss=KL, teachers=loaded_teachers([*models, "dense:x"])))
    assert planned.memory.pool is None and planned.extra_queries.endswith("pool not known")


def loaded_teachers(models):
    return {"models": models, "extra_queries": 50}


@pytest.mark.parametrize(
    ("model", "trained", "fixed", "words"),
    [
        (
            {"queries": "trained_table"},
            127,
            0,
            "trained table, from binary: 127 parameters at learning rate 5e-05",
        ),
        (
            {"queries": "trained_table", "query_learning_rate": 0.01},
            127,
            0,
            "trained table, from binary: 127 parameters at learning rate 0.01",
        ),
        (
            {"queries": "learned_scores", "idf": None},
            33,
            127 * 32,
            "learned scores: 33 parameters at learning rate 5e-05",
        ),
        ({"queries": "model", "idf": None}, 0, 0, "the model itself (siamese, not inference-free)"),
    ],
)
def test_what_is_trained_of_the_queries(recipe, model, trained, fixed, words):
    loaded = recipe(model=model)
    planned = dry_run(loaded)
    assert planned.trainable_parameters == PARAMETERS + trained
    assert planned.memory.weights == 4 * (PARAMETERS + trained + fixed)
    assert planned.queries == words
    built = build_model(loaded)
    assert planned.trainable_parameters == sum(p.numel() for p in built.parameters() if p.requires_grad)
    if model["queries"] == "model":  # queries go through the model too
        assert planned.memory.activations == 1.5 * dry_run(recipe()).memory.activations


@pytest.mark.parametrize("architecture", ["distilbert", "roberta", "mpnet", "modernbert"])
@pytest.mark.parametrize("vocabulary", [None, 140])
def test_parameters_are_those_of_the_model_that_would_be_built(recipe, mlm_folders, architecture, vocabulary):
    loaded = recipe(model={"base_model": mlm_folders(architecture, vocabulary)})
    built = sum(p.numel() for p in build_model(loaded).parameters() if p.requires_grad)
    planned = dry_run(loaded)
    assert planned.trainable_parameters == built
    assert planned.memory.activations > 0


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert"])
def test_the_estimate_is_near_to_what_a_forward_pass_keeps(recipe, tmp_path, mlm_folders, architecture):
    words = " ".join(WORDS[index % len(WORDS)] for index in range(80))  # cut to full length
    row = {"query": "snow", "positive": words, "negative": words + " cat"}
    model = {"base_model": mlm_folders(architecture), "max_seq_length": 64}
    data = {"train": rows_file(tmp_path / "rows.jsonl", *[row] * 4), "documents_per_query": None}
    loaded = recipe(model=model, data=data)
    encoder = build_model(loaded).train()
    set_dropout(encoder, 0.0)
    loss = build_loss(loaded, encoder, 2)
    columns = read_data(loaded.data)
    texts = [list(columns.dataset[name]) for name in columns.columns]
    tasks = ["query", "document", "document"]
    features = [encoder.preprocess(column, task=task) for column, task in zip(texts, tasks, strict=True)]
    own = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        parts = loss(features)
    assert sum(parts.values()).requires_grad
    measured = sum(size for size, _ in kept.values())
    assert 0.5 < dry_run(loaded).memory.activations / measured < 2


# Length


@pytest.mark.parametrize(
    ("training", "devices", "steps"),
    [
        ({"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}, 2, 3 * 3),  # 6 whole rounds
        (
            {
                "per_device_train_batch_size": 8,
                "gradient_accumulation_steps": 2,
                "dataloader_drop_last": True,
            },
            2,
            3 * 3,  # 6 batches
        ),
        ({"per_device_train_batch_size": 100, "dataloader_drop_last": True}, 1, 3),
        ({"per_device_train_batch_size": 4, "num_train_epochs": 0.5}, 1, 13),  # of 25
    ],
)
def test_steps_of_epochs(recipe, training, devices, steps):
    loaded = recipe(
        training={"max_steps": -1, "num_train_epochs": 3, **training},
        data={"limit": 100},
        loss={"ramp_steps": 0},
    )
    planned = dry_run(loaded, devices=devices)
    assert planned.steps == steps
    assert f"at most {steps} optimizer steps" in planned.length
    lost = f"an epoch leaves out 4 of 100 examples, which fill no batch of 16 on {devices} devices"
    assert any(note.startswith(lost) for note in planned.notes) == (devices == 2)
    if devices == 1:
        arguments = training_arguments(loaded, "states")
        assert training_steps(arguments, 100, devices=1) == steps


def test_epochs_of_data_that_were_not_counted(recipe):
    planned = dry_run(
        recipe(training={"max_steps": -1, "num_train_epochs": 2, "warmup_steps": 0.1}), devices=2
    )
    assert (planned.steps, planned.warmup_steps) == (None, None)
    assert planned.length == "2 epochs of (examples / 8) optimizer steps"
    assert planned.notes == ("loss.ramp_steps not checked against 2 epochs: the examples were not counted",)


def test_sources_with_weights(recipe, tmp_path):
    row = {"query": "q", "positive": "p", "negatives": ["m", "n"]}
    many, few = rows_file(tmp_path / "many.jsonl", *[row] * 45), rows_file(tmp_path / "few.jsonl", *[row] * 5)
    sources = [{"path": many, "weight": 3}, {"path": few, "weight": 1}]
    training = {"max_steps": -1, "num_train_epochs": 2, "gradient_accumulation_steps": 2}
    data = {"train": sources}
    planned = dry_run(recipe(training=training, data=data, loss={"ramp_steps": 0}), devices=2)
    # 90 and 10 examples of 2 documents: 6 rounds of 16 in an epoch, 3 steps; 96 of the 100 are seen.
    assert planned.steps == 6 * 2 and planned.length == "2 epochs, 12 optimizer steps"
    assert planned.mixture == (
        f"{many}: 90 examples, 75 % of the training, each seen about 1.6 times",
        f"{few}: 10 examples, 25 % of the training, each seen about 4.8 times",
    )
    assert f"mixes                 {few}: 10 examples, 25 % of the training" in text_of(planned)
    assert "an epoch leaves out 4 of 100 examples, which fill no batch of 8 on 2 devices" in planned.notes

    absent = str(tmp_path / "none.jsonl")
    planned = dry_run(recipe(data={"train": [sources[0], {"path": absent, "weight": 1}]}))
    assert planned.mixture == ()
    assert f"data.train: how often a row is seen is not known, {absent} is not there" in planned.notes

    scored = rows_file(tmp_path / "scored.jsonl", {**row, "scores": [3, 2, 1]})
    loaded = recipe(data={"train": [sources[0], {"path": scored, "weight": 1}]})
    assert (
        refusal(loaded)
        == refusal(loaded, train)
        == (f"{scored}:1: has scores where the first row has none; give scores to all rows or to none")
    )


def test_a_share_of_the_steps_as_warm_up(recipe):
    assert dry_run(recipe(training={"warmup_steps": 0.25})).warmup_steps == 25


def test_refuses_a_ramp_longer_than_the_training(recipe):
    training = {"max_steps": -1, "num_train_epochs": 1}
    data = {"limit": 100}
    assert dry_run(recipe(training=training, data=data, loss={"ramp_steps": 25})).steps == 25
    expected = "loss.ramp_steps must not be longer than the training (25 steps), not 26"
    assert refusal(recipe(training=training, data=data, loss={"ramp_steps": 26})) == expected
    # Two devices need half the steps.
    message = refusal(
        recipe(training=training, data=data, loss={"ramp_steps": 25}),
        lambda loaded: dry_run(loaded, devices=2),
    )
    assert "(12 steps), not 25" in message


def test_refuses_a_training_without_a_batch(recipe):
    loaded = recipe(data={"limit": 7}, training={"dataloader_drop_last": True})
    assert dry_run(loaded).queries_at_once == 4
    expected = "the data make 7 examples, less than one batch of 8, and 2 devices train on whole rounds only"
    assert refusal(loaded, lambda loaded: dry_run(loaded, devices=2)).startswith(expected)


# The trainer's arguments


@pytest.mark.parametrize("name", ["fp16", "bf16", "tf32"])
def test_what_needs_a_gpu_is_not_checked_without_one(recipe, monkeypatch, name):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    planned = dry_run(recipe(training={"use_cpu": False, name: True}))
    assert planned.notes == (f"training.{name}: not checked here, needs a GPU",)
    assert planned.trainable_parameters == PARAMETERS


def test_refuses_two_precisions(recipe):
    assert refusal(recipe(training={"fp16": True, "bf16": True})).startswith("training: fp16 and bf16 ")


# The base model and its tables


@pytest.mark.parametrize("name", ["some/model", "folder/not/there"])
def test_a_model_out_of_reach(recipe, tmp_path, name):
    planned = dry_run(recipe(model={"base_model": name, "idf": str(tmp_path / "idf.json")}), devices=8)
    assert planned.notes == (
        f"config of {name} not reachable: sizes not checked",
        f"{tmp_path}/idf.json: not there yet",
    )
    assert (planned.trainable_parameters, planned.memory, planned.head) == (None, None, "not known")
    assert (planned.queries_per_step, planned.max_seq_length) == (32, 16)
    assert "not known" in text_of(planned)


def test_too_few_positions(recipe):
    planned = dry_run(recipe(model={"max_seq_length": 256}))
    assert planned.max_seq_length == 130
    assert planned.notes == ("the model has 130 positions: documents are cut there, not at 256",)
    assert dry_run(recipe(model={"max_seq_length": None})).max_seq_length == 130
    assert planned.memory.activations == pytest.approx(
        dry_run(recipe()).memory.activations * 130 / 16, rel=0.5
    )


def test_tables_are_read_where_they_are_there(recipe, tmp_path, mlm_folder):
    table = tmp_path / "idf.json"
    loaded = recipe(model={"idf": str(table)}, loss={"token_weights": str(table)})
    assert dry_run(loaded).notes == (f"{table}: not there yet",) * 2
    write_json(table, {"cat": 2.0})
    assert dry_run(loaded).notes == ()
    assert dry_run(loaded).queries == f"fixed table: {table}"
    write_json(table, {"no such token": 2.0})
    assert "1 of 1 entries are not in the tokenizer's vocabulary" in refusal(loaded)
    elsewhere = dry_run(recipe(model={"base_model": "some/model", "idf": str(table)}))
    assert f"{table}: there, but not checked without the tokenizer" in elsewhere.notes


@pytest.fixture
def headless(tmp_path, mlm_folder):
    """Folder of an encoder without an MLM head."""
    folder = tmp_path / "headless"
    BertModel.from_pretrained(mlm_folder).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_base_model_without_a_head(recipe, tmp_path, headless):
    texts = tmp_path / "texts.txt"
    message = refusal(recipe(model={"base_model": headless}))
    assert message == f"{headless} has no MLM head: give texts to start one (model.warm_start)"
    planned = dry_run(recipe(model={"base_model": headless, "warm_start": str(texts)}))
    assert planned.head == f"closed-form start from {texts}"
    assert planned.trainable_parameters == PARAMETERS
    assert (str(texts), "not there yet") in planned.sources


def test_refuses_what_a_training_refuses(recipe, tmp_path, tiny_encoder):
    trained, siamese = str(tmp_path / "trained"), str(tmp_path / "siamese")
    tiny_encoder(activation="log1p_relu").save_pretrained(trained)
    tiny_encoder(idf=None).save_pretrained(siamese)
    texts = tmp_path / "texts.txt"
    texts.write_text("the snow")
    data = {"train": rows_file(tmp_path / "pairs.jsonl", {"query": "cat", "documents": ["a dog", "snow"]})}
    for model in (
        {"idf": None},
        {"warm_start": str(texts)},
        {"base_model": trained},
        {"base_model": trained, "idf": None, "warm_start": str(texts)},
        {"base_model": trained, "idf": None, "activation": "relu"},
        {"base_model": siamese, "idf": None, "queries": "model", "pooling": "max"},
    ):
        loaded = recipe(model=model, data=data)
        assert refusal(loaded) == refusal(loaded, train)
    for base_model, queries in ((trained, "table"), (siamese, "model"), (trained, "trained_table")):
        loaded = recipe(model={"base_model": base_model, "idf": None, "queries": queries})
        planned = dry_run(loaded)
        assert planned.head == "of the trained encoder"
        built = sum(p.numel() for p in build_model(loaded).parameters() if p.requires_grad)
        assert planned.trainable_parameters == built
    assert not (tmp_path / "run").exists()


def test_refuses_a_damaged_checkpoint(recipe, tmp_path, tiny_encoder):
    folder = tmp_path / "trained"
    tiny_encoder().save_pretrained(str(folder))
    loaded = recipe(model={"base_model": str(folder), "idf": None})
    (folder / "router_config.json").write_text("{}")
    assert refusal(loaded) == f"{folder}/router_config.json: lacks types: restore the checkpoint"
    (folder / "router_config.json").write_text('{"structure": {"document": ["nowhere"]}}')
    assert str(folder) in refusal(loaded)
    no_language_model = tmp_path / "clip"
    write_json(no_language_model / "config.json", {"model_type": "clip_vision_model"})
    message = refusal(recipe(model={"base_model": str(no_language_model)}))
    assert str(no_language_model) in message


# Data and teachers


def test_documents_per_query_come_from_the_first_row(recipe, tmp_path):
    rows = tmp_path / "rows.jsonl"
    unknown = dry_run(recipe(data={"train": str(rows), "documents_per_query": None}))
    assert (unknown.documents_per_query, unknown.documents_per_query_from) == (2, "a guess")
    assert unknown.sources == ((str(rows), "not there yet"),)
    # Only the first row is read.
    rows.write_text(json.dumps({"query": "a", "positive": "b", "negatives": ["c", "d"]}) + "\nnot json\n")
    planned = dry_run(recipe(data={"train": str(rows), "documents_per_query": None}))
    assert (planned.documents_per_query, planned.documents_per_query_from) == (3, f"{rows}:1")
    assert planned.sources == ((str(rows), "there"),)
    planned = dry_run(recipe(data={"train": str(rows), "documents_per_query": 2}))
    assert (planned.documents_per_query, planned.documents_per_query_from) == (2, "data.documents_per_query")
    message = refusal(recipe(data={"train": str(rows), "documents_per_query": 4}))
    assert message.startswith(f"{rows}:1: 3 documents, but documents_per_query is 4")


def test_rows_that_cannot_be_used(recipe, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("")
    assert refusal(recipe(data={"train": str(rows)})).startswith(f"{rows}: no training data")
    rows_file(rows, {"query": "a"})
    assert refusal(recipe(data={"train": str(rows)})).startswith(f"{rows}:1: names no documents")
    rows_file(rows, {"query_id": "1", "document_ids": ["2", "3"]})
    assert "give corpus and queries" in refusal(recipe(data={"train": str(rows)}))
    data = {"train": str(rows), "corpus": "BeIR/msmarco", "queries": str(tmp_path)}
    assert refusal(recipe(data=data)).startswith(f"{tmp_path}: neither a BEIR folder (no queries.jsonl")
    rows_file(tmp_path / "queries.jsonl", {"code": "1", "text": "a"})
    assert refusal(recipe(data=data)) == f"{tmp_path / 'queries.jsonl'}:1: no _id; give every line one"
    data["columns"] = {"queries_id": "code"}
    sources = dict(dry_run(recipe(data=data)).sources)
    assert sources == {
        str(rows): "there",
        "BeIR/msmarco": "no such path: to be fetched from the Hub",
        str(tmp_path): "there",
    }


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        ({"query": "q", "positive": "p", "hard": ["n"]}, {}, "hard may hold documents and is not known"),
        ({"query": "q", "positive": "p", "hard": ["n"]}, {"negatives": "hard"}, 2),
        ({"query": "q", "positive": "p", "hard": ["n"]}, {"ignore": "hard"}, 1),
        ({"query": "q", "pos": ["p"], "neg": ["n", "m"]}, {}, 3),
        (
            {"query": "q", "positive": "p", "label": 0},
            {},
            "label is 0, which says that the document is wrong",
        ),
        ({"query": "q", "positive": "p"}, {"negatives": "hrad"}, "has no hrad"),
    ],
)
def test_the_dry_run_reads_rows_as_the_run_does(recipe, tmp_path, row, columns, expected):
    rows = tmp_path / "rows.jsonl"
    rows_file(rows, row)
    planned = recipe(data={"train": str(rows), "columns": columns, "documents_per_query": None})
    if isinstance(expected, str):
        with pytest.raises(InputError) as caught:
            read_data(planned.data)
        assert refusal(planned) == str(caught.value) and expected in refusal(planned)
    else:
        assert dry_run(planned).documents_per_query == len(read_data(planned.data).columns) - 1 == expected


def test_where_teacher_scores_come_from(recipe, tmp_path, mlm_folder):
    rows = tmp_path / "rows.jsonl"
    data, kl = {"train": str(rows)}, {"ranking": "kl"}
    teachers = {"models": [f"dense:{mlm_folder}", "sparse:some/model"], "scale": 20}
    live = f"live: dense:{mlm_folder} + sparse:some/model, times 20"
    assert dry_run(recipe(data=data)).teacher_scores == "none needed"
    assert dry_run(recipe(data=data, loss=kl)).teacher_scores == "must be in the data"
    assert dry_run(recipe(data=data, loss=kl, teachers=teachers)).teacher_scores == live
    row = {"query": "a", "documents": ["b", "c"]}
    rows_file(rows, row)
    expected = (
        f"{rows}:1: loss.ranking (kl) needs teacher scores: the data hold none and no teachers are given"
    )
    assert refusal(recipe(data=data, loss=kl)) == expected
    planned = dry_run(recipe(data=data, loss=kl, teachers=teachers))
    assert planned.teacher_scores == live
    assert (mlm_folder, "there") in planned.sources
    rows_file(rows, {**row, "scores": [1, 0]})
    assert dry_run(recipe(data=data, loss=kl)).teacher_scores == "in the data"
    assert "the data hold teacher scores" in refusal(recipe(data=data, loss=kl, teachers=teachers))
    for spec in ("dens:some/model", "some/model", "dense:"):
        message = refusal(recipe(loss=kl, teachers={"models": [spec]}))
        assert message.startswith(f"teacher {spec!r}: give kind:model, where kind is one of dense, sparse")


# The rest


def test_an_earlier_run_is_noted(recipe, tmp_path):
    data = {
        "train": rows_file(tmp_path / "rows.jsonl", *[{"query": "cat", "documents": ["dog", "snow"]}] * 4)
    }
    loaded = recipe(data=data, loss={"ramp_steps": 0}, training={"max_steps": 1, "report_to": "none"})
    assert dry_run(loaded).notes == ()
    assert not (tmp_path / "run").exists()  # a plan leaves nothing behind
    train(loaded)
    assert dry_run(loaded).notes == (
        f"{tmp_path}/run holds an earlier run: give --resume, or another output",
    )


def test_refuses_no_devices(recipe):
    assert refusal(recipe(), lambda loaded: dry_run(loaded, devices=0)) == "devices is 0; give 1 or more"


def test_the_table_says_it_all(recipe, tmp_path):
    loss = {"query_regularizer_weight": 0.5, "threshold": 200, "extra_logs": 1, "token_weights": "df"}
    ranking = {"ranking": {"kl": 1.0, "infonce": 0.1}}
    loaded = recipe(
        model={"queries": "model", "idf": None},
        loss={**loss, **ranking},
        training={"per_device_train_batch_size": 128, "warmup_steps": 10},
        output="runs/[red]a[/red]",
    )
    text = " ".join(text_of(dry_run(loaded, devices=8)).split())
    for part in (
        "trained parameters 24,607",
        "1,024 queries with 2,048 documents a step on 8 device(s); the losses see 1,024 queries at once",
        "100 optimizer steps",
        "5e-05, after 10 steps of warm-up",
        "ranking 0.1 infonce + kl",
        "penalty flops, of documents with more than 200 active dims, after 1 more log(s), times document",
        "λ_d at its peak 0.04 per_position (about 0.08 pooled)",
        "λ_q at its peak 0.5",
        "λ ramp 30 steps",
        f"{tmp_path}/none.jsonl (not there yet)",
    ):
        assert part in text
    memory = dry_run(loaded, devices=8).memory
    assert f"activations about {memory.activations / 2**30:.2f}" in text
    assert math.isclose(memory.total / 2**30, float(text.split("about ")[-2].split(" GiB")[0]), abs_tol=0.006)
