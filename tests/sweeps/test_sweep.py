"""A sweep on a tiny model: which runs there are, what they leave, what is done twice and what is not."""

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

import st_l0.sweeps.sweep
from st_l0 import cli
from st_l0.data import Collection, write_collection
from st_l0.encoder.idf import write_idf
from st_l0.errors import InputError
from st_l0.evaluation.report import summarise
from st_l0.sweeps.report import write_report
from st_l0.sweeps.sweep import load_sweep, plan_runs, read_results, run_sweep
from st_l0.training.recipe import load_recipe
from tiny_models import DOCUMENTS, QUERIES, make_tokenizer

WEIGHT = "loss.document_regularizer_weight"


def message(function, *args):
    with pytest.raises(InputError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path, mlm_folder, idf_weights):
    """Writes a sweep of two variants over two collections, with changes; gives its path."""
    write_idf(tmp_path / "idf.json", idf_weights, make_tokenizer())
    pairs = [
        {"query": QUERIES[i % len(QUERIES)] or "dog", "positive": text or "cat"}
        for i, text in enumerate(DOCUMENTS)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    corpus = {f"d{i}": text for i, text in enumerate(DOCUMENTS)}
    for name, shift in (("one", 0), ("two", 1)):
        queries = {f"q{i}": text for i, text in enumerate(QUERIES)}
        qrels = {query: {f"d{i + shift}": 1} for i, query in enumerate(queries)}
        write_collection(Collection(name, corpus, queries, qrels), tmp_path / name)
    recipe = {
        "model": {"base_model": mlm_folder, "idf": str(tmp_path / "idf.json"), "max_seq_length": 32},
        "data": {"train": [str(tmp_path / "pairs.jsonl")]},
        "loss": {"document_regularizer_weight": 0.1},
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "save_strategy": "no",
            "logging_steps": 1,
            "learning_rate": 1e-3,
        },
        "output": "nowhere",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def build(**changes):
        variant = {"recipe": str(tmp_path / "recipe.yaml")}
        content = {
            "output": str(tmp_path / "runs"),
            "collections": [str(tmp_path / "one"), str(tmp_path / "two")],
            "set": {"training.max_steps": 1},
            "variants": {
                "flops": {**variant, "grid": {"seed": [1, 2], WEIGHT: [0.01, 1.0]}},
                "l0_mask": {**variant, "set": {"loss.threshold": 3}, "grid": {"seed": [1]}},
            },
        } | changes
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return build


def test_runs_are_the_points_of_the_variants_in_turn(write, tmp_path):
    runs = plan_runs(load_sweep(write()))
    weight = "document_regularizer_weight"
    assert [str(run.folder.relative_to(tmp_path / "runs")) for run in runs] == [
        f"flops/seed=1,{weight}=0.01",
        "l0_mask/seed=1",
        f"flops/seed=1,{weight}=1",
        f"flops/seed=2,{weight}=0.01",
        f"flops/seed=2,{weight}=1",
    ]
    assert [run.recipe.loss.threshold for run in runs] == [None, 3, None, None, None]
    assert [run.recipe.loss.document_regularizer_weight for run in runs] == [0.01, 0.1, 1, 0.01, 1]
    assert [run.recipe.seed for run in runs] == [1, 1, 1, 2, 2]
    assert {run.recipe.training["max_steps"] for run in runs} == {1}


def test_a_sweep_trains_measures_and_reports(write, tmp_path, capsys):
    sweep = load_sweep(write())
    results = run_sweep(sweep, progress=False)
    assert [result["variant"] for result in results] == ["flops", "l0_mask", "flops", "flops", "flops"]
    for run, result in zip(plan_runs(sweep), results, strict=True):
        assert load_recipe(run.folder / "recipe.yaml") == run.recipe
        assert result["point"] == run.point and result["steps"] == 1
        quality = result["quality"]
        both = [quality["collections"][name]["model"]["ndcg@10"] for name in ("one", "two")]
        assert quality["average"]["model"]["ndcg@10"] == pytest.approx(sum(both) / 2)
        assert min(result["seconds"].values()) > 0
    write_report(sweep, results, tmp_path, "small")
    table = (tmp_path / "small.md").read_text().partition("at equal cost")[0]
    rows = [line.split(" | ") for line in table.splitlines() if "flops | " in line]
    assert [row[2] for row in rows] == ["1 2", "1 2"]
    of_weight = {"0.01": [results[0], results[3]], "1.0": [results[2], results[4]]}
    for row in rows:
        own = of_weight[row[1].split()[-1]]
        values = [result["quality"]["average"]["model"]["ndcg@10"] for result in own]
        assert row[3] == f"{sum(values) / 2:.3f}" and row[4] == f"{abs(values[0] - values[1]) / 2:.3f}"
    assert (tmp_path / "small.ndcg_flops.svg").read_text().startswith("<?xml")


def test_what_is_done_is_not_done_again(write, tmp_path, monkeypatch):
    """Without a result a run is measured again, without a model trained again; the others are left."""
    sweep = load_sweep(write())
    first = run_sweep(sweep, progress=False)
    runs = plan_runs(sweep)
    (runs[1].folder / "result.json").unlink()
    (runs[2].folder / "result.json").unlink()
    (runs[2].folder / "recipe.yaml").unlink()  # the last that a training writes
    assert len(read_results(sweep)) == 3
    import st_l0.training.train_model

    trained = []
    train = st_l0.training.train_model.train
    monkeypatch.setattr(
        st_l0.training.train_model,
        "train",
        lambda recipe, **options: trained.append(recipe.output) or train(recipe, **options),
    )
    second = run_sweep(sweep, progress=False)
    assert trained == [str(runs[2].folder)]
    for one, other in zip(first, second, strict=True):
        assert (
            one["quality"]["average"]["model"]["ndcg@10"] == other["quality"]["average"]["model"]["ndcg@10"]
        )
    assert second[1]["seconds"]["training"] is None


def test_runs_of_other_settings_are_refused(write, tmp_path):
    """Done or only begun: neither is taken for what it is not, and nothing is lost."""
    first = load_sweep(write())
    results = run_sweep(first, progress=False)
    other = load_sweep(write(set={"training.max_steps": 2}))
    assert "begun with other settings" in message(run_sweep, other)
    for run in plan_runs(first):
        (run.folder / "result.json").rename(run.folder / "kept.json")
    assert "begun with other settings" in message(run_sweep, other)
    for run in plan_runs(first):
        (run.folder / "kept.json").rename(run.folder / "result.json")
    for change in ({"dtype": "bfloat16"}, {"collections": [str(tmp_path / "one")]}):
        assert "other collections or in another dtype" in message(run_sweep, load_sweep(write(**change)))
    assert read_results(first) == results
    assert "no run is done" in message(write_report, load_sweep(write(output="elsewhere")), [], ".", "x")


def test_settings_are_compared_as_recipes_not_as_text(write):
    """A run from before a key with a default was there is the same run; what cannot be read is not."""
    sweep = load_sweep(write())
    run = plan_runs(sweep)[0]
    run.folder.mkdir(parents=True)
    (run.folder / "result.json").write_text(
        json.dumps({"dtype": "float32", "collections": list(sweep.collections)}), encoding="utf-8"
    )
    settings = run.folder / "settings.yaml"
    plain = yaml.safe_load(run.recipe.to_yaml())
    del plain["loss"]["extra_logs"], plain["model"]["dropout"], plain["teachers"]
    settings.write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert len(read_results(sweep)) == 1
    for text in (
        yaml.safe_dump(plain | {"seed": 3}),
        yaml.safe_dump(plain | {"gone": 3}),
        yaml.safe_dump(plain | {"output": "elsewhere"}),
        "model: [\n",
        "",
    ):
        settings.write_text(text, encoding="utf-8")
        expected = f"{run.folder}: was begun with other settings; remove it, or give the sweep another output"
        assert message(read_results, sweep) == expected


def test_an_interrupted_sweep_reports_what_is_done(write, tmp_path, monkeypatch):
    path = write()
    executed = []
    real = st_l0.sweeps.sweep._execute

    def execute(*args):
        if executed:
            raise KeyboardInterrupt
        executed.append(args)
        return real(*args)

    monkeypatch.setattr(st_l0.sweeps.sweep, "_execute", execute)
    found = CliRunner().invoke(cli.app, ["sweep", str(path), "--report", str(tmp_path / "report")])
    assert found.exit_code == 130
    assert (tmp_path / "report" / "small.ndcg_flops.svg").exists()
    text = (tmp_path / "report" / "small.md").read_text()
    assert "**Not done yet: 4 of the sweep's runs.**" in text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")][2:] == [
        "| BM25",
        "| flops",
    ]


def test_one_collection_makes_a_report_too(write, tmp_path):
    sweep = load_sweep(write(collections=[str(tmp_path / "two")]))
    write_report(sweep, run_sweep(sweep, progress=False)[:1], tmp_path, "one")
    rows = [line for line in (tmp_path / "one.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 4 and rows[2].startswith("| BM25") and rows[3].startswith("| flops")


def test_results_of_one_collection_in_their_former_shape_make_the_same_report(write, tmp_path):
    """They once held the collection's report as it is, instead of one of many with an average."""
    sweep = load_sweep(write(collections=[str(tmp_path / "two")]))
    results = run_sweep(sweep, progress=False)
    write_report(sweep, results, tmp_path, "one")
    today = (tmp_path / "one.md").read_text()
    for run in plan_runs(sweep):
        result = json.loads((run.folder / "result.json").read_text())
        result["quality"] = result["quality"]["collections"]["two"]
        (run.folder / "result.json").write_text(json.dumps(result))
    write_report(sweep, run_sweep(sweep, progress=False), tmp_path, "one")
    assert (tmp_path / "one.md").read_text() == today


def test_settings_are_applied_in_order(write, tmp_path):
    """A part of a section is set after the section, wherever the section was set."""
    recipe = str(tmp_path / "recipe.yaml")
    loss = {"document_regularizer_weight": 5.0, "threshold": 7}
    variant = {"recipe": recipe, "set": {"loss": loss}, "grid": {WEIGHT: [1.0, 2.0]}}
    sweep = load_sweep(write(set={WEIGHT: 9.0}, variants={"a": variant}))
    found = [
        (run.recipe.loss.document_regularizer_weight, run.recipe.loss.threshold) for run in plan_runs(sweep)
    ]
    assert found == [(1.0, 7), (2.0, 7)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": {}}, "variants must name at least one variant"),
        ({"variants": {1: {"recipe": "x.yaml", "grid": {"seed": 1}}}}, "variants.1.grid.seed must be a list"),
        ({"variants": {"a b": {"recipe": "x.yaml"}}}, "no name for a folder"),
        (
            {"variants": {"a": {"recipe": "x.yaml", "grid": {"seed": 1}}}},
            "variants.a.grid.seed must be a list",
        ),
        (
            {
                "variants": {
                    "a": {"recipe": "x.yaml", "grid": {f"loss.{key}": [0] * 10 for key in "abcdefghi"}}
                }
            },
            "variants.a.grid makes 1,000,000,000 runs: 1,000 are the most",
        ),
        (
            {"variants": {"a": {"recipe": "x.yaml", "grid": {"training.hub_token": ["x"]}}}},
            "variants.a.grid.training.hub_token is a secret",
        ),
        ({"variants": {"a": {"grid": {}}}}, "variants.a.recipe is missing"),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16"),
        ({"collection": []}, "did you mean collections?"),
    ],
)
def test_a_bad_sweep_is_refused(write, changes, said):
    assert said in message(load_sweep, write(**changes))


def test_a_target_varies_in_place_of_its_weight(write, tmp_path):
    recipe, target = str(tmp_path / "recipe.yaml"), "loss.target_flops"
    sample = {"collections": [str(tmp_path / "one")], "steps": 1}
    common = {"loss.target_sample": sample, "training.max_steps": 3}
    variant = {"recipe": recipe, "set": common, "grid": {target: [0.5, 1.0]}}
    runs = plan_runs(load_sweep(write(variants={"a": variant})))
    assert [run.recipe.loss.target for run in runs] == [("target_flops", 0.5), ("target_flops", 1.0)]
    assert [run.folder.name for run in runs] == ["target_flops=0.5", "target_flops=1"]
    variant = {**variant, "set": {**common, target: 0.5}, "grid": {WEIGHT: [1.0, 2.0]}}
    assert message(plan_runs, load_sweep(write(variants={"a": variant}))) == (
        f"variant a: grid varies {WEIGHT}, which loss.target_flops moves: vary the target"
    )


def test_a_bad_value_names_the_variant(write, tmp_path):
    recipe = str(tmp_path / "recipe.yaml")
    bad = {"variants": {"a": {"recipe": recipe, "grid": {"loss.treshold": [1]}}}}
    assert message(plan_runs, load_sweep(write(**bad))).startswith("variant a: override 'loss.treshold=1'")
    twice = {"variants": {"a": {"recipe": recipe, "grid": {"seed": [1, 1]}}}}
    assert "two runs of the sweep have this name" in message(plan_runs, load_sweep(write(**twice)))


def test_variants_are_compared_at_equal_cost(write, tmp_path):
    def result(variant, weight, flops, quality):
        model = {"ndcg@10": quality, "flops": flops, "document_active_dims": 7.0}
        found = {
            "quality": {"collection": "one", "model": model, "bm25": {"ndcg@10": 0.1}},
            "machine": "here",
        }
        rest = {"seed": 1, "steps": 1, "seconds": {"training": 60.0}}
        return {"variant": variant, "point": {"weight": weight}, **found, **rest}

    results = [
        result("narrow", 1, 0.5, 0.5),
        result("narrow", 2, 2.0, 0.54),
        result("wide", 1, 0.9, 0.4),
        result("wide", 2, 8.0, 0.6),
        result("wide", 3, 3.6, 0.5),
        result("wide", 4, 0.9, 0.4),
        result("dense", 1, 64.5, 0.7),
        result("dense", 2, 70.0, 0.7),
        result("one", 1, 1.2, 0.9),
        result("empty", 1, 0.0, 0.0),
    ]
    write_report(load_sweep(write()), results, tmp_path, "found")
    table = (tmp_path / "found.md").read_text().partition("at equal cost")[2]
    rows = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("| ")]
    # Of `wide`: 0.4 + 0.1 log(x / 0.9) / log 4; of `narrow`: 0.5 + 0.04 log(x / 0.5) / log 4.
    assert [row[0] for row in rows] == ["variant", "---", "narrow", "wide", "dense", "one", "empty"]
    assert rows[0][1:] == ["FLOPS 1.00", "FLOPS 1.20", "FLOPS 1.41", "FLOPS 2.00"]
    assert rows[2][1:] == ["0.520", "0.525", "0.530", "0.540"]
    assert rows[3][1:] == ["0.408", "0.421", "0.433", "0.458"]
    assert [cell.strip() for cell in rows[5][1:]] == ["", "0.900", "", ""]
    assert not "".join(rows[4][1:] + rows[6][1:]).strip("| ")
    write_report(load_sweep(write()), results[:2], tmp_path, "alone")
    assert "at equal cost" not in (tmp_path / "alone.md").read_text()


def test_names_in_a_report_are_no_markup(write, tmp_path):
    model = {"ndcg@10": 0.5, "flops": 1.0, "document_active_dims": 7.0}
    names = ["a|b", "`rm` <b>x</b>", "\x1b[2Jc\nd", "[x](y) *z* l0_mask _q_"]
    result = {
        "quality": summarise([{"collection": name, "model": model, "bm25": model} for name in names]),
        "machine": "<i>here</i>", "seed": 1, "steps": 1, "seconds": {"training": 60.0}, "variant": "l0_mask",
        "point": {"a|b": "<script>"},
    }  # fmt: skip
    write_report(load_sweep(write(note="one\x1b[2J\ntwo")), [result], tmp_path, "odd name")
    lines = (tmp_path / "odd name.md").read_text().splitlines()
    assert lines[:2] == [r"one\x1b[2J", "two"]
    assert "Machine: &lt;i&gt;here&lt;/i&gt;." in lines
    assert "](odd%20name.ndcg_flops.svg)" in "".join(lines)
    head, rule, _, row = [line for line in lines if line.startswith("| ")]
    shown = [r"a\|b", r"\`rm\` &lt;b&gt;x&lt;/b&gt;", r"\\x1b\[2Jc\\nd", r"\[x\](y) \*z\* l0_mask \_q\_"]
    assert [cell.strip() for cell in re.split(r"(?<!\\)\|", head)][6:10] == shown
    assert row.startswith(r"| l0_mask | a\|b &lt;script&gt; | 1 |")
    assert len(re.findall(r"(?<!\\)\|", row)) == rule.count("|")
