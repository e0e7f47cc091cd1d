"""Training with everything that a recipe can name, on tiny models; kills are in test_kills."""

import json

import numpy as np
import pytest
import sentence_transformers
import torch
import yaml
from datasets import Dataset, Features, IterableDataset, Value
from sentence_transformers import SparseEncoderTrainingArguments

from launching import run
from st_l0 import SparseEncoder
from st_l0.encoder.modules import encoder_modules
from st_l0.errors import InputError
from st_l0.head.mlm_head import read_head
from st_l0.head.warm_start import warm_start_head
from st_l0.losses import FlopsLoss, InfoNCELoss, SparseRetrievalLoss
from st_l0.teachers import EnsembleTeacher, QueryPool, load_teacher
from st_l0.training.build import build_loss, build_model
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train
from st_l0.training.trainer import SparseRetrievalTrainer
from tiny_models import VOCABULARY, make_mlm, make_tokenizer

WORDS = ["cat", "dog", "bird", "fish", "tree", "river", "mountain", "sun"]


def rows(scores=False):
    """Eight queries of one word with two documents each."""
    for i, word in enumerate(WORDS):
        documents = [f"the {WORDS[(i + 1) % 8]} and", f"a {WORDS[(i + 3) % 8]} in"]
        yield {"query": word, "documents": documents, **({"scores": [2.0, i / 8]} if scores else {})}


@pytest.fixture
def recipe(tmp_path, mlm_folder):
    """Function: changes of sections to a recipe."""

    def build(data=None, **changes):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in (data or rows())))
        values = {
            "model": {"base_model": mlm_folder, "idf": "binary", "max_seq_length": 16, "dropout": 0.0},
            "data": {"train": str(path)},
            "loss": {"document_regularizer_weight": 0.01},
            "training": {
                "max_steps": 4,
                "per_device_train_batch_size": 4,
                "learning_rate": 1e-3,
                "use_cpu": True,
                "logging_steps": 2,
                "report_to": "none",
            },
            "output": str(tmp_path / "run"),
            "seed": 7,
        }
        for section, change in changes.items():
            values[section] = {**values.get(section, {}), **change} if isinstance(change, dict) else change
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(values))
        return load_recipe(file)

    return build


def log_of(output):
    (state,) = output.glob("checkpoints/*/trainer_state.json")
    return [line for line in json.loads(state.read_text())["log_history"] if "loss" in line]


def refusal(recipe):
    with pytest.raises(InputError) as caught:
        train(recipe)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def test_what_is_logged(recipe, tmp_path):
    loss = {"ranking": {"kl": 1.0, "margin_mse": 0.5, "infonce": 0.1}, "ramp_steps": 2}
    train(recipe(rows(scores=True), loss={"document_regularizer_weight": 0.5, **loss}))
    lines = log_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        parts = ("kl_loss", "margin_mse_loss", "infonce_loss", "document_regularizer_loss")
        assert line["loss"] == pytest.approx(sum(line[part] for part in parts), rel=1e-3)
        assert min(line[part] for part in parts) > 0
        assert line["document_regularizer_weight"] == 0.5
        assert 0 < line["flops"] < line["query_active_dims"] == 1.0
        assert 1 < line["document_active_dims"] <= line["document_active_dims_p95"] < len(VOCABULARY)
        assert line["queries_per_second"] > 0


def test_only_logged_steps_are_counted(recipe, monkeypatch):
    from st_l0.losses.statistics import BatchStatistics

    counted = []
    observe = BatchStatistics.observe
    monkeypatch.setattr(
        BatchStatistics, "observe", lambda self, *args: (counted.append(1), observe(self, *args))
    )
    train(recipe(training={"max_steps": 9, "logging_steps": 4}))
    assert len(counted) == 2  # of steps 4 and 8
    train(recipe(training={"max_steps": 3, "logging_strategy": "no"}, output=f"{recipe().output}-quiet"))


@pytest.mark.parametrize("queries", ["trained_table", "learned_scores"])
def test_query_weights_are_trained_at_their_own_rate(recipe, tmp_path, queries):
    model = {"queries": queries, "idf": "binary" if queries == "trained_table" else None}
    frozen = {"training": {"learning_rate": 0.0, "weight_decay": 0.5}}
    start = build_model(recipe(model=model))
    folder = train(recipe(model={**model, "query_learning_rate": 0.05}, **frozen))
    trained = SparseEncoder.from_pretrained(folder, device="cpu")
    known = [VOCABULARY.index(word) for word in WORDS]
    moved = np.abs(trained.query_weights - start.query_weights)
    assert moved[known].min() > 0.01
    assert trained.query_weights[:5].max() == 0 and trained.query_weights.min() >= 0
    if queries == "trained_table":  # weight decay would have pulled at these
        assert np.delete(moved, known).max() == 0
    texts = ["the cat and the dog"]
    assert torch.equal(
        trained.encode_document(texts).to_dense(), start.encode_document(texts).to_dense()
    )  # the model's own rate is 0
    stock = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    assert torch.equal(stock.encode_query(texts).to_dense(), trained.encode_query(texts).to_dense())


def test_a_fixed_table_stays(recipe):
    folder = train(recipe())
    weights = SparseEncoder.from_pretrained(folder, device="cpu").query_weights
    words, punctuation = weights[5:-3], weights[-3:]
    assert weights[:5].max() == punctuation.max() == 0 and (words == 1).all()


def test_queries_through_the_model(recipe, tmp_path):
    folder = train(
        recipe(
            model={"queries": "model", "idf": None},
            loss={"query_regularizer_weight": 0.02, "regularizer": "l1"},
        )
    )
    line = log_of(tmp_path / "run")[-1]
    assert line["query_active_dims"] > 5
    assert line["query_regularizer_loss"] > 0
    assert line["query_regularizer_weight"] == 0.02
    stock = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    ours = SparseEncoder.from_pretrained(folder, inference_free=False, device="cpu")
    with pytest.raises(InputError, match="its queries run a model"):
        SparseEncoder.from_pretrained(folder, device="cpu")
    texts = ["the cat in the tree", "a river"]
    for one in ("encode_query", "encode_document"):
        expected = getattr(stock, one)(texts).to_dense()
        torch.testing.assert_close(getattr(ours, one)(texts).to_dense(), expected, rtol=1e-5, atol=1e-6)
    # A further training starts from it.
    again = {"base_model": str(folder), "queries": "model", "idf": None}
    train(recipe(model=again, output=str(tmp_path / "again")))


@pytest.mark.parametrize("in_batch", [False, True])
def test_live_teachers_are_the_scores_of_their_texts(recipe, tmp_path, mlm_folder, tiny_encoder, in_batch):
    tiny_encoder().save_pretrained(str(tmp_path / "sparse"))
    specs = [f"dense:{mlm_folder}", f"sparse:{tmp_path / 'sparse'}"]
    ensemble = EnsembleTeacher([load_teacher(spec, device="cpu") for spec in specs], scale=8.0)
    given = list(rows())
    batch = {"per_device_train_batch_size": 8, "max_steps": 1, "logging_steps": 1}
    loss = {"ranking": "kl", "in_batch_negatives": in_batch}
    live = recipe(given, teachers={"models": specs, "scale": 8.0}, loss=loss, training=batch)
    model = build_model(live)
    train(live)
    queries = [row["query"] for row in given]
    documents = [row["documents"] for row in given]
    if in_batch:
        columns = [[pair[position] for pair in documents] for position in (0, 1)]
        teacher = ensemble.score_batch(queries, columns)
        flat = [text for column in columns for text in column]
        student = model.encode_query(queries).to_dense() @ model.encode_document(flat).to_dense().T
    else:
        teacher = torch.stack(ensemble.score_lists(queries, documents))
        student = torch.stack(
            [
                (model.encode_query([query]).to_dense() @ model.encode_document(pair).to_dense().T)[0]
                for query, pair in zip(queries, documents, strict=True)
            ]
        )
    expected = torch.nn.functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean"
    )
    assert log_of(tmp_path / "run")[0]["kl_loss"] == pytest.approx(expected.item(), abs=2e-4)


@pytest.mark.parametrize("queries", ["table", "trained_table", "learned_scores"])
def test_extra_queries_are_ranked_like_the_others(recipe, tmp_path, mlm_folder, queries):
    """Loss and gradient are those of the same queries as dense vectors."""
    live = recipe(
        model={"queries": queries, "idf": None if queries == "learned_scores" else "binary"},
        teachers={"models": [f"dense:{mlm_folder}"], "scale": 8.0, "extra_queries": 5},
        loss={"ranking": {"kl": 1.0, "infonce": 0.5}, "in_batch_negatives": True},
        training={"max_steps": 1, "logging_steps": 1, "optim": "sgd", "lr_scheduler_type": "constant"},
    )
    model = build_model(live)
    asked, gradients = [], []
    real, step = QueryPool.score_batch, SparseRetrievalTrainer.training_step

    def score_batch(pool, queries, columns):
        asked.append((list(queries), [list(column) for column in columns], real(pool, queries, columns)))
        return asked[-1][2]

    def training_step(trainer, trained, *args, **kwargs):
        loss = step(trainer, trained, *args, **kwargs)
        gradients.append({name: p.grad.clone() for name, p in trained.named_parameters() if p.requires_grad})
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QueryPool, "score_batch", score_batch)
        patch.setattr(SparseRetrievalTrainer, "training_step", training_step)
        train(live)
    queries, columns, scores = asked[0]
    documents = [text for column in columns for text in column]
    assert len(queries) == 4 and len(documents) == 8
    vectors = scores.extra_queries.vectors
    token_of = {int(model.query_tokens([word]).indices[0]): word for word in WORDS}
    more = [token_of[token] for token in vectors.columns.tolist()]
    assert len(more) == 4 and set(more) == set(WORDS) - set(queries)
    ensemble = EnsembleTeacher([load_teacher(f"dense:{mlm_folder}", device="cpu")], scale=8.0)
    teacher = ensemble.score_batch([*queries, *more], columns)
    features = [
        model.preprocess(texts, task=task)
        for texts, task in (([*queries, *more], "query"), (documents, "document"))
    ]
    rows, held = (model(one)["sentence_embedding"] for one in features)
    student = rows @ held.T
    kl = torch.nn.functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean"
    )
    line = log_of(tmp_path / "run")[0]
    assert line["kl_loss"] == pytest.approx(kl.item(), abs=2e-4)
    # The other losses see the batch's own queries; all texts differ.
    own = 0.5 * torch.nn.functional.cross_entropy(student[:4], torch.arange(4))
    assert line["infonce_loss"] == pytest.approx(own.item(), abs=2e-4)
    penalty = build_loss(live, model, 2).document_regularizer.compute_loss_from_embeddings(held)
    (kl + own + live.loss.document_regularizer_weight * penalty).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert expected.keys() == gradients[0].keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_scores_must_come_from_one_place(recipe, mlm_folder):
    message = refusal(recipe(loss={"ranking": "kl"}))
    assert message == ("loss.ranking (kl) needs teacher scores: the data hold none and no teachers are given")
    teachers = {"models": [f"dense:{mlm_folder}"]}
    message = refusal(recipe(rows(scores=True), loss={"ranking": "kl"}, teachers=teachers))
    assert message == "the data hold teacher scores: leave teachers out, or the scores"


def test_a_sparse_teacher_of_another_vocabulary(recipe, tmp_path):
    folder = tmp_path / "other"
    make_mlm("bert", len(VOCABULARY) + 1).save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(folder)
    SparseEncoder.from_mlm(folder, idf="binary", device="cpu").save_pretrained(str(tmp_path / "teacher"))
    teacher = f"sparse:{tmp_path / 'teacher'}"
    message = refusal(recipe(loss={"ranking": "kl"}, teachers={"models": [teacher]}))
    assert message == (
        f"teacher {teacher} has another vocabulary ({len(VOCABULARY) + 1} tokens) than the model "
        f"({len(VOCABULARY)}): let st-l0 teach write its scores, and train on those"
    )


def test_bad_data_is_refused_before_the_first_step(recipe, tmp_path):
    path = tmp_path / "rows.jsonl"
    uneven = [*rows(), {"query": "x", "documents": ["one"]}]
    assert refusal(recipe(uneven)).startswith(f"{path}:9: 1 documents where the first row has 2")
    bad = [*rows(scores=True), {"query": "x", "documents": ["one", "two"], "scores": [1.0, float("nan")]}]
    assert refusal(recipe(bad, loss={"ranking": "kl"})).startswith(f"{path}:9: ")
    assert not (tmp_path / "run").exists()


def test_a_ramp_longer_than_the_epochs(recipe):
    change = {"max_steps": -1, "num_train_epochs": 3}
    message = refusal(recipe(loss={"ramp_steps": 7}, training=change))
    assert message == "loss.ramp_steps must not be longer than the training (6 steps), not 7"
    train(recipe(loss={"ramp_steps": 6}, training=change))


@pytest.mark.parametrize("precision", ["bf16"])
def test_half_precision_logs_nearly_the_same_loss(recipe, tmp_path, precision):
    found = {}
    for name in ("full", precision):
        change = {precision: True} if name == precision else {}
        train(recipe(output=str(tmp_path / name), training={"max_steps": 1, "logging_steps": 1, **change}))
        found[name] = log_of(tmp_path / name)[0]["loss"]
    assert found[precision] == pytest.approx(found["full"], rel=0.01)


@pytest.mark.parametrize(
    ("queries", "extra"), [("trained_table", 0), ("trained_table", "all"), ("learned_scores", 0)]
)
def test_two_processes_train_as_one(recipe, tmp_path, mlm_folder, queries, extra):
    """Batches are of 8 on one process, of 4 on each of two; without extra queries one is all rows."""
    found = {}
    more = [{**row, "query": f"{row['query']} and {row['query']} in"} for row in rows()] if extra else []
    batch = {"optim": "sgd", "learning_rate": 0.1, "logging_steps": 1}
    for processes in (1, 2):
        loaded = recipe(
            [*rows(), *more],
            model={"queries": queries, "idf": "binary" if queries == "trained_table" else None},
            loss={"ranking": "kl", "in_batch_negatives": True, "token_weights": "df", "df_refresh_steps": 2},
            teachers={"models": [f"dense:{mlm_folder}"], "scale": 8.0, "extra_queries": extra},
            training={**batch, "per_device_train_batch_size": 8 // processes},
            output=str(tmp_path / f"run-{processes}"),
        )
        path = tmp_path / f"recipe-{processes}.yaml"
        path.write_text(loaded.to_yaml())
        if processes > 1 and queries == "learned_scores":  # once as people start it
            torchrun = "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)
            done = run(1, "-m", *torchrun, "-m", "st_l0", "train", path)
        else:
            done = run(processes, "-m", "st_l0", "train", path)
        assert done.returncode == 0, done.stderr
        model = SparseEncoder.from_pretrained(tmp_path / f"run-{processes}" / "model", device="cpu")
        found[processes] = (
            {name: value.numpy() for name, value in model.state_dict().items()},
            [
                {key: value for key, value in line.items() if key not in ("queries_per_second", "grad_norm")}
                for line in log_of(tmp_path / f"run-{processes}")
            ],
        )
    (one, log), (two, logs) = found.values()
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5, rtol=1e-5, err_msg=name)
    start = build_model(loaded).query_weights
    assert np.abs(one["0.sub_modules.query.0.weight"] - start).max() > 1e-4  # something was learned
    for line, other in zip(log, logs, strict=True):
        assert line == pytest.approx(other, rel=1e-3)


def test_accumulated_batches_train_as_the_larger_batch(recipe):
    """Where no text of one query is another's negative, and with a penalty that is a plain mean."""
    loss = {"in_batch_negatives": False, "regularizer": "l1", "document_regularizer_weight": 0.1}
    options = {"max_steps": 3, "max_grad_norm": 0.0, "save_strategy": "no"}
    whole = train(recipe(loss=loss, training=options))
    accumulated = {**options, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    parts = train(recipe(loss=loss, training=accumulated, output=f"{recipe().output}-parts"))
    models = [SparseEncoder.from_pretrained(folder, device="cpu") for folder in (whole, parts)]
    vectors = [model.encode_document(WORDS).to_dense() for model in models]
    torch.testing.assert_close(vectors[1], vectors[0], rtol=1e-4, atol=1e-5)
    start = build_model(recipe()).encode_document(WORDS).to_dense()
    assert (vectors[0] - start).abs().max() > 1e-2


@pytest.mark.parametrize("started", [False, True])
def test_bfloat16_trains_what_float32_evaluates(tmp_path, mlm_folder, started):
    """The same active dims under autocast and without; also with a closed-form start, around a constant."""
    draw = np.random.default_rng(1)
    texts = [" ".join(draw.choice(WORDS, 12)) for _ in range(150)]
    model = SparseEncoder.from_mlm(mlm_folder, idf="binary", device="cpu")
    if started:
        transformer = encoder_modules(model).transformer
        warm_start_head(transformer, texts)
        with torch.no_grad():
            read_head(transformer.model).decoder.bias[5:] = -2.0
    exact = model.encode_document(texts).to_dense() > 0
    assert 5 < exact.sum(1).float().mean() < len(VOCABULARY) - 5
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.encode_document(texts).to_dense() > 0
    assert rounded.sum().item() == pytest.approx(exact.sum().item(), rel=0.005)
    assert (rounded != exact).sum() < 0.03 * exact.sum()  # what bfloat16 does to the transformer below


def test_a_column_of_ids_is_never_a_text(tiny_encoder, tmp_path):
    model = tiny_encoder()
    rows = {"query_id": ["q1"], "query": ["cat"], "positive": ["a cat"]}
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        max_steps=1,
        report_to="none",
        router_mapping={"query": "query", "positive": "document"},
    )
    for data in (
        Dataset.from_dict(rows),
        {"one": Dataset.from_dict(rows)},
        IterableDataset.from_generator(
            lambda: iter([]), features=Features(dict.fromkeys(rows, Value("string")))
        ),
    ):
        options = {
            "model": model,
            "args": arguments,
            "train_dataset": data,
            "loss": SparseRetrievalLoss(model, InfoNCELoss(), FlopsLoss(), 0.0),
        }
        with pytest.raises(InputError, match=r"a column query_id, .*remove_columns\('query_id'\)"):
            SparseRetrievalTrainer(**options)
