import json
import math
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import yaml

import st_l0.training
from st_l0.errors import InputError
from st_l0.training.recipe import Data, Recipe, load_recipe

MINIMAL = """\
model:
  base_model: some/model
  idf: idf.json
data:
  train: pairs.jsonl
loss:
  document_regularizer_weight: 0.04
  ramp_steps: 50
training:
  max_steps: 100
  learning_rate: 2e-5
output: runs/one
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="recipe.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def message(path, *overrides):
    """The one line that a bad recipe is refused with, without the folder of the test."""
    with pytest.raises(InputError) as caught:
        load_recipe(path, overrides)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text.replace(f"{path.parent}/", "")


def test_minimal_recipe_gets_the_defaults(write):
    recipe = load_recipe(write(MINIMAL))
    assert recipe.model.base_model == "some/model"
    assert (recipe.model.activation, recipe.model.pooling, recipe.model.max_seq_length) == (
        None,
        None,
        None,
    )
    assert recipe.data.train == ("pairs.jsonl",)
    assert (recipe.loss.ranking, recipe.loss.temperature, recipe.loss.reduction) == (
        {"infonce": 1.0},
        1.0,
        "pooled",
    )
    assert recipe.loss.document_regularizer_weight == 0.04
    assert recipe.loss.threshold is None
    assert recipe.training == {"max_steps": 100, "learning_rate": 2e-5}
    assert (recipe.output, recipe.seed) == ("runs/one", 42)


def test_every_key_can_be_set(write):
    text = MINIMAL.replace("train: pairs.jsonl", "train: [a.jsonl, b.jsonl]\n  limit: 7")
    overrides = [
        "model.activation=2",
        "model.pooling=sum",
        "model.max_seq_length=8",
        "model.warm_start=texts.txt",
        "model.idf=binary",
        "loss.ranking=infonce",
        "loss.temperature=5e-2",
        "loss.threshold=0",
        "loss.reduction=per_position",
        "seed=0",
        "training.save_strategy=steps",
        "training.report_to=[none]",
        "training.fp16=true",
        "training.prompts={query: 'q: '}",
        "training.batch_sampler=no_duplicates",
    ]
    recipe = load_recipe(write(text), overrides)
    assert recipe.data == Data(train=("a.jsonl", "b.jsonl"), limit=7)
    assert recipe.model.activation == 2
    assert recipe.model.idf == "binary"
    assert (recipe.loss.temperature, recipe.loss.threshold) == (0.05, 0)
    assert recipe.training["report_to"] == ["none"]
    assert recipe.training["prompts"] == {"query": "q: "}
    assert recipe.training["batch_sampler"] == "no_duplicates"


def test_round_trip(write):
    overrides = ["model.activation=1", "training.weight_decay=1e-7", "data.train=[ä.jsonl, '2e-5', 'no']"]
    overrides.append("data.columns={positive: passage, ignore: [a, b]}")
    recipe = load_recipe(write(MINIMAL), overrides)
    again = load_recipe(write(recipe.to_yaml(), "again.yaml"))
    assert again == recipe
    assert again.training["weight_decay"] == 1e-7
    assert again.data.train == ("ä.jsonl", "2e-5", "no")
    assert again.data.columns == {"positive": ("passage",), "ignore": ("a", "b")}
    assert "limit: null" in recipe.to_yaml()  # every key is written out


def test_from_python_with_plain_mappings_or_sections():
    sections = {"model": {"base_model": "m"}, "loss": {"document_regularizer_weight": 0}, "output": "o"}
    recipe = Recipe(data=Data(train="one.jsonl"), training={"num_train_epochs": 1}, **sections)
    assert recipe.data.train == ("one.jsonl",)
    assert recipe.training == {"num_train_epochs": 1.0}
    assert isinstance(recipe.loss.document_regularizer_weight, float)
    with pytest.raises(FrozenInstanceError):
        recipe.seed = 1
    with pytest.raises(InputError, match=r"^train must not be empty$"):
        Data(train=())


def test_sources_with_weights(write, monkeypatch):
    monkeypatch.setenv("PLACE", "/data")
    many = {"path": "$PLACE/many.jsonl", "weight": 3}
    text = MINIMAL.replace("pairs.jsonl", json.dumps([many, {"path": "owner/few", "weight": "1e-1"}]))
    assert text != MINIMAL
    recipe = load_recipe(write(text))
    assert recipe.data.paths == ("/data/many.jsonl", "owner/few") and recipe.data.weights == (3.0, 0.1)
    assert load_recipe(write(recipe.to_yaml(), "again.yaml")) == recipe
    plain = load_recipe(write(text), ["data.train=pairs.jsonl"])
    assert plain.data.train == plain.data.paths == ("pairs.jsonl",) and plain.data.weights is None


def test_teachers_with_prompts(write, monkeypatch):
    monkeypatch.setenv("PLACE", "/models")
    prompted = {"model": "dense:$PLACE/e5", "query_prompt": "query: ", "document_prompt": "passage: "}
    asking = {"model": "dense:org/bge", "query_prompt": "Represent: "}
    changes = ["loss.ranking=kl", f"teachers.models={json.dumps(['bm25:b.json', prompted, asking])}"]
    recipe = load_recipe(write(MINIMAL), changes)
    assert recipe.teachers.specs == ("bm25:b.json", "dense:/models/e5", "dense:org/bge")
    assert recipe.teachers.prompts == [
        {}, {"query": "query: ", "document": "passage: "}, {"query": "Represent: "},
    ]  # fmt: skip
    assert load_recipe(write(recipe.to_yaml(), "again.yaml")) == recipe


@pytest.mark.parametrize("value", ["2e-5", "2E-5", "0.00002", "2.0e-5", "2e-05", "'2e-5'", "+2e-5"])
def test_numbers_as_people_write_them(write, value):
    assert load_recipe(write(MINIMAL), [f"training.learning_rate={value}"]).training["learning_rate"] == 2e-5


def test_later_overrides_win_and_may_make_a_section(write):
    text = "".join(line for line in MINIMAL.splitlines(keepends=True) if "steps" not in line)
    text = text.replace("loss:\n  document_regularizer_weight: 0.04\n", "")
    path = write(text)
    overrides = ["loss.document_regularizer_weight=1", "training.max_steps=5", "training.max_steps=6"]
    recipe = load_recipe(path, overrides)
    assert recipe.loss.document_regularizer_weight == 1.0
    assert recipe.training["max_steps"] == 6


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["loss.document_regularizer_weight=-1"],
            "loss.document_regularizer_weight must be at least 0, not -1.0",
        ),
        (["loss.document_regularizer_weight=.nan"], "must be a finite number, not nan"),
        (["loss.document_regularizer_weight=.inf"], "must be a finite number, not inf"),
        (["loss.document_regularizer_weight="], "must be a number, not empty"),
        (["loss.document_regularizer_weight=true"], "must be a number, not True"),
        (["loss.document_regularizer_weight=much"], "must be a number, not 'much'"),
        (["loss.document_regularizer_weight='nan'"], "must be a number, not 'nan'"),
        (["model.dropout=1"], "model.dropout must be less than 1, not 1.0"),
        (["loss.temperature=0"], "loss.temperature must be more than 0, not 0.0"),
        (["loss.threshold=-1"], "loss.threshold must be at least 0, not -1"),
        (["loss.threshold=1.5"], "loss.threshold must be a whole number, not 1.5"),
        (["loss.threshold=true"], "loss.threshold must be a whole number, not True"),
        (["loss.ranking=kll"], "loss.ranking.kll is not a known key: did you mean loss.ranking.kl?"),
        (["loss.ranking={}"], "loss.ranking must name at least one loss"),
        (["loss.ranking={kl: 0}"], "loss.ranking.kl must be more than 0, not 0.0"),
        (["loss.ranking={kl: much}"], "loss.ranking.kl must be a number, not 'much'"),
        (["loss.extra_logs=4"], "loss.extra_logs must be one of 0, 1, 2, 3, not 4"),
        (["loss.top_k=-1"], "loss.top_k must be at least 0, not -1"),
        (["loss.df_alpha=1"], "loss.df_alpha must be less than 1, not 1.0"),
        (
            ["loss.query_regularizer_weight=1"],
            "loss.query_regularizer_weight must be 0: model.queries is a table",
        ),
        (["model.queries=model", "model.idf=x"], "model.idf must be left out where queries is model"),
        (["model.queries=learned_scores", "model.idf=x"], "model.idf must be left out where queries is"),
        (["model.query_learning_rate=1e-3"], "model.query_learning_rate is of no use where queries is table"),
        (["data.documents_per_query=0"], "data.documents_per_query must be at least 1, not 0"),
        (["data.repair_latin1=true"], "data.repair_latin1 is of no use: it repairs the texts of corpus and"),
        (["training.save_total_limit=0"], "training.save_total_limit must be at least 1, not 0"),
        (["training.max_grad_norm=-1"], "training.max_grad_norm must be at least 0, not -1.0"),
        (
            ["training.dataloader_num_workers=-1"],
            "dataloader_num_workers must be at least 0, not -1",
        ),
        (["seed=4294967296"], "seed must be less than 4294967296, not 4294967296"),
        (["data.score_scale=0"], "data.score_scale must be more than 0, not 0.0"),
        (["teachers.models=dense:x"], "teachers are of no use: loss.ranking names neither kl nor margin_mse"),
        (["loss.ranking=kl", "teachers={}"], "teachers.models is missing"),
        (["loss.ranking=kl", "teachers.models=[]"], "teachers.models must not be empty"),
        (
            ["loss.ranking=kl", "teachers={models: x, scale: 0}"],
            "teachers.scale must be more than 0, not 0.0",
        ),
        *(
            (
                [*loss, "teachers={models: x, extra_queries: 5}"],
                "teachers.extra_queries needs kl among loss.ranking, with loss.in_batch_negatives: true",
            )
            for loss in (["loss.ranking=kl"], ["loss.ranking=margin_mse", "loss.in_batch_negatives=true"])
        ),
        (
            [
                *("model.queries=model", "model.idf=null", "loss.ranking=kl", "loss.in_batch_negatives=true"),
                "teachers={models: x, extra_queries: 5}",
            ],
            "teachers.extra_queries must be 0 where model.queries is model: each query would run it",
        ),
        (
            [
                *("model.queries=trained_table", "training.fsdp=full_shard"),
                *(
                    "loss.ranking=kl",
                    "loss.in_batch_negatives=true",
                    "teachers={models: x, extra_queries: all}",
                ),
            ],
            "teachers.extra_queries must be 0 where fsdp or deepspeed divides query weights that are trained",
        ),
        (
            ["loss.ranking=kl", "teachers={models: x, extra_queries: -1}"],
            "teachers.extra_queries must be at least 0, not -1",
        ),
        (
            ["loss.ranking=kl", "teachers={models: x, extra_queries: every}"],
            "teachers.extra_queries must be a whole number, not 'every'",
        ),
        (["loss.reduction=mean"], "loss.reduction must be one of pooled, per_position, not 'mean'"),
        (
            ["loss.ramp_steps=101"],
            "loss.ramp_steps must not be longer than the training (100 steps), not 101",
        ),
        (["loss=3"], "loss must hold keys, not 3"),
        (["loss.threshold.x=3"], "loss.threshold must be a whole number, not {'x': 3}"),
        (["model.activation=4"], "model.activation must be one of relu, log1p_relu, 0, 1, 2, 3, not 4"),
        (["model.activation=true"], "not True"),
        (["model.activation=1.0"], "not 1.0"),
        (["model.max_seq_length=7"], "model.max_seq_length must be at least 8, not 7"),
        (["model.base_model=''"], "model.base_model must not be empty"),
        (["model.base_model=no"], "model.base_model must be text, not False (write it in quotes)"),
        (["model.base_model=5"], "model.base_model must be text, not 5 (write it in quotes)"),
        (["data.train=[]"], "data.train must not be empty"),
        (["data.train=[a, 1]"], "data.train must be text, not 1"),
        (["data.train=3"], "data.train must be a list, not 3"),
        (["data.train=[{path: a, weight: 1}, b]"], "data.train must give all sources a weight, or none"),
        (["data.train=[{path: a, weight: 0}]"], "data.train.weight must be more than 0, not 0.0"),
        (["data.train=[{path: a}]"], "data.train.weight is missing"),
        (["data.train=[{path: a, wieght: 1}]"], "wieght is not a known key: did you mean data.train.weight?"),
        (["data.train={path: a, weight: 1}"], "data.train must be a list, not {"),
        (
            ["data.train=[{path: a, weight: 1}]", "data.limit=5"],
            "data.limit must be left out where sources have weights: it would cut off the last of them",
        ),
        (["data.limit=0"], "data.limit must be at least 1, not 0"),
        (["data.columns={negs: a}"], "data.columns.negs is not a known key: did you mean data.columns.neg"),
        (["data.columns={query: [a, b]}"], "data.columns query names 2 keys; give one"),
        (["data.columns={query: a, ignore: [a]}"], "data.columns 'a' is named twice; name each key once"),
        (["data.columns={corpus_id: a}"], "data.columns name fields of corpus and queries: give both"),
        (["seed=-1"], "seed must be at least 0, not -1"),
        (["output="], "output must be text, not empty"),
        (["training=3"], "training must be a mapping, not 3"),
        (["training="], "training must be a mapping, not empty"),
        (["training={}"], "training must hold max_steps or num_train_epochs"),
        (["training.max_steps=0"], "training.max_steps must be at least 1, not 0"),
        (["training.max_steps=1e3"], "training.max_steps must be a whole number, not '1e3'"),
        (["training.num_train_epochs=0"], "training.num_train_epochs must be more than 0, not 0.0"),
        (
            ["training.per_device_train_batch_size=0"],
            "training.per_device_train_batch_size must be at least 1",
        ),
        (["training.learning_rate=-1"], "training.learning_rate must be at least 0, not -1.0"),
        (["training.fp16=1"], "training.fp16 must be true or false, not 1"),
        (
            ["training.save_strategy=no"],
            "training.save_strategy must be one of no, steps, epoch, best, not False",
        ),
        (["training.lr_scheduler_type=linaer"], "training.lr_scheduler_type must be one of linear"),
        (["training.optim=adamw_torch_fuse"], "training.optim must be one of adamw_torch_fused, adamw_torch"),
        (["training.output_dir=x"], "training.output_dir is set by the recipe itself: set output instead"),
        (["training.seed=1"], "training.seed is set by the recipe itself"),
        (["training.router_mapping={}"], "training.router_mapping is set by the recipe itself"),
        (
            ["training.max_stepss=1"],
            "training.max_stepss is not a known key: did you mean training.max_steps?",
        ),
        (["loss.temprature=1"], "loss.temprature is not a known key: did you mean loss.temperature?"),
        (["los.temperature=1"], "los is not a known key: did you mean loss?"),
        (["model.temperature=1"], "model.temperature is not a known key: did you mean loss.temperature?"),
        (["learning_rate=1"], "learning_rate is not a known key: did you mean training.learning_rate?"),
        (["data.zzzzzz=1"], "data.zzzzzz is not a known key: known are train, corpus, queries"),
    ],
)
def test_impossible_values_name_the_key_and_the_override(write, overrides, expected):
    text = message(write(MINIMAL), *overrides)
    assert expected in text
    assert text.startswith(f"override '{overrides[-1]}': ")


def test_rows_of_ids_need_corpus_and_queries(write):
    expected = "recipe.yaml:4: data.{} is missing: rows of ids need both corpus and queries"
    assert message(write(MINIMAL), "data.corpus=x") == expected.format("queries")
    assert message(write(MINIMAL), "data.queries=x") == expected.format("corpus")


@pytest.mark.parametrize("override", ["training.max_steps", "=3", "training..max_steps=3", ".seed=3"])
def test_overrides_that_are_none(write, override):
    assert f"override '{override}': write key.path=value" in message(write(MINIMAL), override)


def test_max_steps_of_minus_one_is_not_set(write):
    expected = "recipe.yaml:9: training must hold max_steps or num_train_epochs"
    assert message(write(MINIMAL), "training.max_steps=-1") == expected
    assert load_recipe(write(MINIMAL), ["training.max_steps=-1", "training.num_train_epochs=0.5"])


def test_override_below_a_value(write):
    assert message(write(MINIMAL), "seed=1", "seed.x=3") == "override 'seed.x=3': seed holds no keys"
    assert message(write(MINIMAL), "output.x=3") == "override 'output.x=3': output holds no keys"
    assert "not valid YAML" in message(write(MINIMAL), "output=[")


def test_errors_in_the_file_name_the_line(write):
    path = write(MINIMAL.replace("ramp_steps: 50", "ramp_stepz: 50"))
    assert message(path) == "recipe.yaml:8: loss.ramp_stepz is not a known key: did you mean loss.ramp_steps?"
    assert message(write(MINIMAL.replace("0.04", "lots"))).startswith("recipe.yaml:7: loss.document_")
    assert message(write(MINIMAL.replace("  ramp_steps: 50\n", "  ramp_steps: 101\n"))).startswith(
        "recipe.yaml:8: "
    )
    assert message(write(MINIMAL.replace("max_steps: 100", "max_step: 100"))).startswith("recipe.yaml:10: ")


def test_missing_keys_name_the_section(write):
    assert (
        message(write(MINIMAL.replace("base_model: some/model", "")))
        == "recipe.yaml:1: model.base_model is missing"
    )
    assert message(write(MINIMAL.replace("output: runs/one\n", ""))) == "recipe.yaml: output is missing"
    text = MINIMAL.replace("  document_regularizer_weight: 0.04\n", "")
    assert message(write(text)) == "recipe.yaml:6: loss.document_regularizer_weight is missing"
    epochs = MINIMAL.replace("  max_steps: 100\n", "")
    assert message(write(epochs)) == "recipe.yaml:9: training must hold max_steps or num_train_epochs"


def test_a_long_ramp_is_fine_when_epochs_count(write):
    path = write(
        MINIMAL.replace("max_steps: 100", "num_train_epochs: 2").replace("ramp_steps: 50", "ramp_steps: 9999")
    )
    assert load_recipe(path).loss.ramp_steps == 9999


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "recipe.yaml: expected the keys 'model:', 'data:'"),
        (b"# only a comment\n", "recipe.yaml: expected the keys"),
        (b"- a\n- b\n", "recipe.yaml: expected the keys"),
        (b"just words", "recipe.yaml: expected the keys"),
        (b"output: 'a\n\xff\xfe'", "recipe.yaml: not UTF-8 (byte 11)"),
        (b"\x00\x01\x02", "recipe.yaml: not valid YAML"),
        (b"model: [\n", "recipe.yaml:2: not valid YAML"),
        (b"a: 1\n b: 2\n", "recipe.yaml:2: not valid YAML"),
        (b"a: 1\n---\nb: 2\n", "not valid YAML"),
        (b"output: !!python/object:os.system {}\n", "not valid YAML"),
        (b"seed: !!int many\n", "not valid YAML (a value does not fit its type"),
        (b"seed: !!bool many\n", "not valid YAML (a value does not fit its type"),
        (b"output: 2020-13-45\n", "not valid YAML (a value does not fit its type"),
        (b"? {a: 1}\n: 2\n", "not valid YAML"),
        (b"[" * 5000, "not valid YAML (nested too deeply)"),
        (b"model: &m\n  idf: *m\n", "recipe.yaml:1: an alias holds itself: write values out"),
        (b"seed: 1\noutput: a\nseed: 2\n", "recipe.yaml:3: seed is given twice, first in line 1"),
        (b"model:\n  idf: a\n  idf: b\n", "recipe.yaml:3: model.idf is given twice, first in line 2"),
        (b"1: 2\n", "recipe.yaml:1: 1 is not a known key"),
        (b'"\\ud800": 2\n', r"recipe.yaml:1: '\ud800' is not a known key"),
    ],
)
def test_files_that_are_no_recipe(write, content, expected):
    assert expected in message(write(content))


def test_files_that_cannot_be_read(tmp_path, write):
    assert message(tmp_path / "none.yaml").startswith("none.yaml: cannot be read (No such file")
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml: cannot be read" in message(tmp_path / "folder.yaml")
    assert "cannot be read" in message(write(MINIMAL) / "below-a-file.yaml")


def test_a_byte_order_mark_and_anchors_do_no_harm(write):
    text = MINIMAL.replace("train: pairs.jsonl", "train: [&p pairs.jsonl, *p]")
    assert load_recipe(write(b"\xef\xbb\xbf" + text.encode())).data.train == ("pairs.jsonl",) * 2


def test_no_recipe_holds_a_number_that_is_not_finite(write):
    training = {"max_steps": 5, "prompts": None, "max_grad_norm": math.inf}
    text = MINIMAL.replace(
        "  max_steps: 100", yaml.safe_dump(training).replace("\n", "\n  ").join(["  ", ""]).rstrip()
    )
    assert re.search(
        r"training\.max_grad_norm must be a finite number, not inf", message(write(text), "loss.ramp_steps=1")
    )


def test_reading_a_recipe_module_is_cheap():
    code = "import sys, st_l0.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_names_what_it_is_for_and_loads_it_on_use():
    code = "import sys, st_l0.training; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in st_l0.training.__all__:
        assert getattr(st_l0.training, name).__name__ == name
    with pytest.raises(AttributeError, match=r"module 'st_l0.training' has no attribute 'plans'"):
        st_l0.training.plans  # noqa: B018


def test_recipes_of_this_repository_are_valid():
    folder = Path(__file__).parents[2] / "training_recipes"
    for path in sorted(folder.glob("*.yaml")):
        recipe = load_recipe(path)
        assert Recipe(**yaml.safe_load(recipe.to_yaml())) == recipe
