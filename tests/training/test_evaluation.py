"""Measuring while training: what is measured, what is kept, when it ends; on tiny models."""

import json

import numpy as np
import pytest
import torch
import yaml

from launching import run
from st_l0 import SparseEncoder
from st_l0.data import Collection, write_collection
from st_l0.errors import InputError
from st_l0.evaluation import evaluate
from st_l0.training import trainer as trainers
from st_l0.training.arguments import training_arguments
from st_l0.training.evaluation import PeriodicEvaluation, sample
from st_l0.training.plan import dry_run
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train

WORDS = ["cat", "dog", "bird", "fish", "tree", "river", "mountain", "sun"]


@pytest.fixture(scope="module")
def collections(tmp_path_factory):
    """Two folders of test collections."""
    folders = [tmp_path_factory.mktemp("collections") / name for name in ("one", "two")]
    for shift, folder in enumerate(folders, 1):
        corpus = {f"d{i}": f"the {word} and a {WORDS[(i + shift) % 8]}" for i, word in enumerate(WORDS)}
        qrels = {f"q{i}": {f"d{i}": 1} for i in range(8)}
        queries = {f"q{i}": word for i, word in enumerate(WORDS)}
        write_collection(Collection(folder.name, corpus, queries, qrels), folder)
    return [str(folder) for folder in folders]


@pytest.fixture
def recipe(tmp_path, mlm_folder, collections):
    """Function: keys to values that replace those of a short training with an evaluation."""
    rows = [
        {"query": word, "documents": [f"the {word} in", f"a {WORDS[(i + 3) % 8]}"]}
        for i, word in enumerate(WORDS)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "model": {"base_model": mlm_folder, "idf": "binary", "max_seq_length": 16, "dropout": 0.0},
        "data": {"train": str(tmp_path / "rows.jsonl")},
        "loss": {"document_regularizer_weight": 0.01},
        "training": {
            "max_steps": 5,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-3,
            "use_cpu": True,
            "logging_steps": 10,
            "save_steps": 100,
            "report_to": "none",
        },
        "evaluation": {"collections": collections, "steps": 2},
        "output": str(tmp_path / "run"),
    }

    def build(*overrides, name="recipe.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump(values))
        return load_recipe(tmp_path / name, overrides)

    return build


def state_of(output):
    return json.loads((output / "trainer_state.json").read_text())


def measured(output, key="eval_ndcg@10"):
    return {line["step"]: line[key] for line in state_of(output)["log_history"] if key in line}


def scripted(monkeypatch, *values, metric="ndcg@10"):
    """Let the measurements give these values of a metric."""
    left = list(values)

    def measure(self, model):
        found = dict.fromkeys(("ndcg@10", "mrr@10", "recall@100", "flops", "document_active_dims"), 0.5)
        return {**found, "query_active_dims": 1.0, "runtime": 0.1, metric: left.pop(0)}

    monkeypatch.setattr(PeriodicEvaluation, "measure", measure)
    return left


def weights_of(folder):
    return SparseEncoder.from_pretrained(folder, device="cpu").state_dict()


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_it_measures_what_evaluate_measures_and_disturbs_nothing(recipe, tmp_path, collections, capfd):
    folder = train(recipe())
    line = [line for line in state_of(tmp_path / "run")["log_history"] if "eval_ndcg@10" in line][-1]
    assert list(measured(tmp_path / "run")) == [2, 4, 5]
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    whole = PeriodicEvaluation(recipe().evaluation)
    reports = [evaluate(model, one, bm25=False)["model"] for one in whole.collections]
    for name in ("ndcg@10", "mrr@10", "recall@100", "flops", "document_active_dims"):
        assert line[f"eval_{name}"] == pytest.approx(np.mean([report[name] for report in reports]))
    assert line["eval_two_ndcg@10"] == pytest.approx(reports[1]["ndcg@10"])
    assert line["eval_runtime"] > 0
    shown = capfd.readouterr().out
    assert "step 4: ndcg@10 0." in shown and "measured in" in shown and "{" not in shown
    train(recipe("evaluation=null", f"output={tmp_path}/without"))
    assert same(weights_of(folder), weights_of(tmp_path / "without" / "model"))


@pytest.mark.parametrize(
    ("metric", "values", "best"), [("ndcg@10", [0.3, 0.5, 0.4], 4), ("flops", [0.3, 0.2, 0.4], 4)]
)
def test_the_best_model_is_kept(recipe, tmp_path, monkeypatch, metric, values, best, capfd):
    scripted(monkeypatch, *values, metric=metric)
    folder = train(recipe("training.load_best_model_at_end=true", f"evaluation.metric={metric}"))
    state = state_of(tmp_path / "run")
    assert (state["best_global_step"], state["best_metric"]) == (best, values[1])
    kept = tmp_path / "run" / "checkpoints" / f"checkpoint-{best}"  # which no save_steps asked for
    assert same(weights_of(folder), weights_of(kept))
    assert not same(weights_of(folder), weights_of(tmp_path / "run" / "checkpoints" / "checkpoint-5"))
    assert f"the model of step {best} is the best, and is kept" in capfd.readouterr().out


def test_the_best_checkpoint_outlives_the_others(recipe, tmp_path, monkeypatch):
    scripted(monkeypatch, 0.5, 0.4, 0.3, 0.2)
    train(
        recipe(
            *("training.load_best_model_at_end=true", "training.save_steps=2", "training.save_total_limit=2"),
            *("training.max_steps=8",),
        )
    )
    left = {path.name for path in (tmp_path / "run" / "checkpoints").glob("checkpoint-*")}
    assert left == {"checkpoint-2", "checkpoint-8"}


def test_it_ends_when_nothing_gets_better(recipe, tmp_path, monkeypatch, capfd):
    left = scripted(monkeypatch, 0.5, 0.5, 0.4, 0.9)
    train(recipe("evaluation.patience=2", "training.max_steps=20"))
    assert left == [0.9] and state_of(tmp_path / "run")["global_step"] == 6
    assert "step 6: stopped, 2 measurements without a better one" in capfd.readouterr().out


def test_a_training_that_goes_on_knows_the_best(recipe, tmp_path, monkeypatch):
    best = "training.load_best_model_at_end=true"
    scripted(monkeypatch, 0.5, 0.4)
    train(recipe(best, "training.max_steps=4"))
    moved = tmp_path / "moved"
    (tmp_path / "run").rename(moved)
    left = scripted(monkeypatch, 0.45, 0.3, 0.9)
    patient = (best, "training.max_steps=20", "evaluation.patience=3", f"output={moved}")
    train(recipe(*patient), resume=True)
    state = state_of(moved)
    assert left == [0.9] and (state["best_global_step"], state["best_metric"]) == (2, 0.5)
    assert same(weights_of(moved / "model"), weights_of(moved / "checkpoints" / "checkpoint-2"))
    # Another metric cannot be compared with it.
    costs = (*patient, "evaluation.metric=flops")
    with pytest.raises(InputError, match=r"other evaluation\.metric"):
        train(recipe(*costs), resume=True)
    scripted(monkeypatch, 3.0, 4.0, 5.0, 6.0, 7.0, metric="flops")
    train(recipe(*costs), resume=True, changed=True)
    state = state_of(moved)
    assert state["best_metric"] == 3.0 and state["best_global_step"] > 4


def test_autocast_is_off_while_it_measures_and_after(recipe, monkeypatch):
    seen = []
    texts = ["the cat and a dog", "a river in the sun"]

    def measure(self, model):
        seen.append((model, model.encode_document(texts).to_dense()))
        return {"ndcg@10": 0.5, "flops": 1.0, "document_active_dims": 9.0, "runtime": 0.1}

    monkeypatch.setattr(PeriodicEvaluation, "measure", measure)
    made = []
    real = trainers.SparseRetrievalTrainer.train
    monkeypatch.setattr(
        trainers.SparseRetrievalTrainer,
        "train",
        lambda self, *args, **kwargs: (made.append(self._encoder()), real(self, *args, **kwargs))[1],
    )
    folder = train(recipe("training.bf16=true", "training.learning_rate=0", "training.max_steps=2"))
    exact = SparseEncoder.from_pretrained(folder, device="cpu").encode_document(texts).to_dense()
    assert torch.equal(seen[-1][1], exact) and torch.equal(made[0].encode_document(texts).to_dense(), exact)
    rounded = made[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(rounded.encode_document(texts).to_dense(), exact)


def test_two_processes_measure_once_and_end_together(recipe, tmp_path):
    recipe("evaluation.patience=1", name="both.yaml")
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib\n"
        "from st_l0.training.evaluation import PeriodicEvaluation\n"
        "from st_l0.training.recipe import load_recipe\n"
        "from st_l0.training.train_model import train\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "values = [0.5, 0.4, 0.9]\n"
        "def measure(self, model):\n"
        "    with (folder / 'measured').open('a') as file:\n"
        "        file.write(os.environ['RANK'])\n"
        "    found = dict.fromkeys(('flops', 'document_active_dims', 'runtime'), 0.5)\n"
        "    return {**found, 'ndcg@10': values.pop(0)}\n"
        "PeriodicEvaluation.measure = measure\n"
        "train(load_recipe(folder / 'both.yaml', ['evaluation.patience=1', 'training.max_steps=9']))\n"
    )
    done = run(2, script)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "measured").read_text() == "00"
    assert state_of(tmp_path / "run")["global_step"] == 4
    assert done.stdout.count("step 4: ndcg@10 0.4") == 1


def test_a_sample_keeps_what_is_relevant():
    corpus = {f"d{i}": str(i) for i in range(100)}
    queries = {f"q{i}": "?" for i in range(10)}
    qrels = {f"q{i}": {f"d{i}": 1, f"d{i + 10}": 0, "gone": 1} for i in range(10)}
    whole = Collection("c", corpus, queries, qrels)
    assert sample(whole, None, None) == sample(whole, 10, 100) == whole
    part = sample(whole, 4, 12)
    assert part == sample(whole, 4, 12) and len(part.queries) == 4 and len(part.corpus) == 12
    judged = {id for row in part.qrels.values() for id in row if id != "gone"}
    assert part.qrels.keys() == part.queries.keys() and len(judged) == 8 and judged < part.corpus.keys()
    assert list(part.corpus) == [id for id in corpus if id in part.corpus]
    few = sample(whole, 10, 12)  # ten relevant ones, and two of ten that were judged
    assert {f"d{i}" for i in range(10)} < few.corpus.keys() and len(few.corpus) == 12
    assert {id for id in few.corpus if int(id[1:]) >= 20} == set()
    assert sample(whole, 10, 5).corpus.keys() == {f"d{i}" for i in range(10)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation=null", "training.load_best_model_at_end=true"], "needs the section evaluation"),
        (["evaluation=null", "training.save_strategy=best"], "needs the section evaluation"),
        (["training.load_best_model_at_end=true", "training.save_strategy='no'"], "needs checkpoints"),
        (["training.metric_for_best_model=flops"], "set evaluation.metric instead"),
        (["training.eval_steps=3"], "the section evaluation says"),
        (["evaluation.metric=loss"], "must be one of ndcg@10"),
        (["evaluation.collections=[]"], "must not be empty"),
    ],
)
def test_what_cannot_be_is_refused(recipe, overrides, message):
    with pytest.raises(InputError, match=message):
        recipe(*overrides)


def test_a_dry_run_says_what_it_costs(recipe, tmp_path, collections):
    # 16 documents every 2 steps of 8 documents, which count three times.
    assert dry_run(recipe()).evaluation == (
        "every 2 steps, 3 times: 16 documents and 16 queries of 2 collection(s), "
        "about 33.3% of the training's time"
    )
    assert (collections[0], "there") in dry_run(recipe()).sources
    gone = dry_run(recipe(f"evaluation.collections={tmp_path}/gone")).evaluation
    assert gone == f"every 2 steps; what it costs is not known, {tmp_path}/gone is not there"
    with pytest.raises(InputError, match="two have the same name"):
        train(recipe(f"evaluation.collections=[{collections[0]}, {collections[0]}]"))


def test_a_rate_that_waits_for_progress_looks_the_right_way(recipe, tmp_path):
    for metric, mode in (("ndcg@10", "max"), ("flops", "min")):
        built = recipe("training.lr_scheduler_type=reduce_lr_on_plateau", f"evaluation.metric={metric}")
        assert training_arguments(built, tmp_path).lr_scheduler_kwargs == {"mode": mode}
