"""The recipes that come with the package: each loads and has a small twin that trains; the tables hold."""

import dataclasses
import json
import random
import re
from pathlib import Path

import pytest
import sentence_transformers
from accelerate.commands.config.config_args import load_config_from_file

from st_l0.data import open_texts, read_collection, read_rows
from st_l0.errors import InputError
from st_l0.quickstart import small_data
from st_l0.quickstart.docstring_corpus import Docstring
from st_l0.quickstart.small_data import prepare_small
from st_l0.sweeps.sweep import load_sweep, plan_runs
from st_l0.training.plan import dry_run
from st_l0.training.recipe import Recipe, load_recipe
from st_l0.training.train_model import train
from tiny_models import WORDS

ROOM = Path(__file__).parents[2] / "training_recipes"
RECIPES = {path.stem: path for path in sorted(ROOM.glob("*.yaml"))}
TWINS = {path.stem: path for path in sorted((ROOM / "small").glob("*.yaml"))}
STUDIES = sorted((*(ROOM / "ablation").glob("*.yaml"), *(ROOM / "mini").glob("*.yaml")))
SWEEPS = sorted((ROOM / "ablation" / "sweeps").glob("*.yaml"))
HARDWARE = sorted((ROOM / "accelerate").glob("*.yaml"))
README = (ROOM / "README.md").read_text(encoding="utf-8")

# Every field of the arguments of the reference implementation, in all its versions.
_OPTIONS = """
model_name_or_path tokenizer_name idf_path idf_requires_grad idf_lr inf_free split_batch prune_ratio
preprocess_func use_l0 activation_type decouple_activation max_seq_length eval_max_seq_length train_file
train_file_dir data_type loss_types ranking_loss_weight sample_num_one_query use_in_batch_negatives
flops_d_lambda flops_d_T flops_start_T flops_q_lambda flops_q_T flops_threshold
kd_ensemble_teacher_kwargs types model_ids teacher_tokenizer_ids score_scale first_rank_thresh
swap_times temperature beir_dir beir_datasets miracl_dir miracl_datasets use_two_phase skip_ingest
do_search query_prune mine_datasets source
"""
REFERENCE_OPTIONS = _OPTIONS.split()


def test_there_are_recipes():
    assert len(RECIPES) >= 13
    assert RECIPES.keys() == TWINS.keys()
    assert [path.name for path in HARDWARE] == ["eight_gpus.yaml", "one_gpu.yaml", "two_nodes_of_eight.yaml"]
    others = set(ROOM.rglob("*.yaml")) - {*RECIPES.values(), *TWINS.values(), *HARDWARE, *STUDIES, *SWEEPS}
    assert not others


@pytest.mark.parametrize(
    "path", [*RECIPES.values(), *TWINS.values(), *STUDIES], ids=lambda path: str(path.relative_to(ROOM))
)
def test_each_loads_and_can_be_planned_offline(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nothing that it names is there
    recipe = load_recipe(path)
    planned = dry_run(recipe, devices=8)
    assert planned.queries_per_step == 8 * recipe.training["per_device_train_batch_size"]
    assert any("not reachable" in note for note in planned.notes)
    assert {state for _, state in planned.sources} <= {
        "not there yet",
        "no such path: to be fetched from the Hub",
    }
    assert not list(tmp_path.iterdir())


def test_the_published_numbers():
    """Those of the papers' code, as it spells them."""
    for name, weight, threshold, ramp, batch, activation in (
        ("l0_mask", 0.04, 200, 10_000, 40, "relu"),
        ("l0_mask_activation", 0.04, 200, 10_000, 40, "log1p_relu"),
        ("l0_mask_activation_cocondenser", 0.08, 150, 40_000, 20, "log1p_relu"),
        ("splade_doc_distill", 0.004, None, 10_000, 20, "relu"),
    ):
        recipe = load_recipe(RECIPES[name])
        loss, training = recipe.loss, recipe.training
        assert (loss.document_regularizer_weight, loss.threshold, loss.ramp_steps) == (
            weight,
            threshold,
            ramp,
        )
        assert (loss.ranking, loss.reduction, loss.in_batch_negatives) == ({"kl": 1.0}, "per_position", None)
        assert (recipe.model.activation, recipe.model.max_seq_length) == (activation, 256)
        assert training == {
            "max_steps": 100_000,
            "per_device_train_batch_size": batch,
            "learning_rate": 2e-5,
            "warmup_steps": 6000,
            "weight_decay": 0.01,
            "max_grad_norm": 0.0,
            "fp16": True,
            "dataloader_drop_last": True,
            "logging_steps": 50,
            "save_steps": 10_000,
            "save_total_limit": 2,
        }
        assert dry_run(recipe, devices=8).documents_per_step == 8 * batch * 2
    splade = load_recipe(RECIPES["splade_max"])
    assert dry_run(splade, devices=8).queries_per_step == 128
    # The authors average two positions, per_position sums them.
    assert splade.loss.document_regularizer_weight == 1e-4 / 2
    assert splade.loss.query_regularizer_weight == 3e-4


def method(recipe):
    """What makes a method, apart from its numbers."""
    loss, trained = recipe.loss, recipe.model
    weights = loss.token_weights
    return {
        "queries": trained.queries,
        "binary queries": trained.idf == "binary",
        "activation": trained.activation,
        "pooling": trained.pooling,
        "warm start": trained.warm_start is not None,
        "ranking": loss.ranking,
        "in-batch negatives": loss.in_batch_negatives,
        "regularizer": loss.regularizer,
        "query regularizer": loss.query_regularizer_weight > 0,
        "threshold": loss.threshold is not None,
        "top_k": loss.top_k is not None,
        "extra_logs": loss.extra_logs,
        "token_weights": weights if weights in (None, "df") else "file",
        "reduction": loss.reduction,
        "ramp": loss.ramp_steps > 0,
        "live teachers": recipe.teachers and [spec.partition(":")[0] for spec in recipe.teachers.models],
        "teacher scale": recipe.teachers and recipe.teachers.scale,
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_twin_has_the_method_of_its_recipe(name):
    recipe, twin = load_recipe(RECIPES[name]), load_recipe(TWINS[name])
    assert method(recipe) == method(twin)
    assert recipe.output != twin.output
    assert twin.training["max_steps"] <= 500
    assert twin.model.max_seq_length == 64
    text = TWINS[name].read_text(encoding="utf-8")
    assert f"../{name}.yaml" in text


@pytest.mark.parametrize(
    "path", [*RECIPES.values(), *TWINS.values()], ids=lambda path: str(path.relative_to(ROOM))
)
def test_each_begins_with_its_method_paper_and_data(path):
    """The form that `st-l0 recipes` reads: three lines, then the rest of the comment or the recipe."""
    method, paper, data, rest = path.read_text(encoding="utf-8").split("\n", 3)
    assert re.fullmatch(r"# Method: \S.{20,}[^.]", method)
    assert re.fullmatch(r"# Paper: arXiv \d{4}\.\d{5}", paper)
    assert re.fullmatch(r"# Data: \S.{20,}[^.]", data)
    assert max(map(len, (method, data))) <= 110
    assert rest.startswith(("#\n# ", "model:\n"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_twin_names_the_paper_of_its_recipe(name):
    papers = {path.read_text(encoding="utf-8").splitlines()[1] for path in (RECIPES[name], TWINS[name])}
    assert len(papers) == 1


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("pairs_")])
def test_each_recipe_says_what_is_published_and_what_is_not(name):
    comment = re.match(r"(#.*\n)+", RECIPES[name].read_text(encoding="utf-8"))[0]
    assert "# Published" in comment
    assert "# Ours" in comment
    assert re.search(r"arXiv \d{4}\.\d{5}", comment)


def test_no_output_is_written_twice():
    outputs = [load_recipe(path).output for path in (*RECIPES.values(), *TWINS.values(), *STUDIES)]
    assert len(set(outputs)) == len(outputs)


# The ablation


def test_the_variants_of_the_ablation_differ_in_their_method_only():
    recipes = {path.stem: load_recipe(path) for path in STUDIES if path.parent.name == "ablation"}
    assert set(recipes) == {
        *("splade_doc", "idf_splade_doc", "l0_mask", "l0_activation", "l0_mask_activation", "decoupled"),
        *("df_flops", "li_lsr"),
    }
    reference = recipes["idf_splade_doc"]
    for recipe in recipes.values():
        assert (recipe.training, recipe.data, recipe.seed) == (
            reference.training,
            reference.data,
            reference.seed,
        )
        assert recipe.loss.ramp_steps == reference.loss.ramp_steps
    assert {name for name, recipe in recipes.items() if recipe.loss.threshold} == {
        "l0_mask",
        "l0_mask_activation",
    }
    assert {name for name, recipe in recipes.items() if recipe.model.activation == "log1p_relu"} == {
        "l0_activation",
        "l0_mask_activation",
    }
    assert {name for name, recipe in recipes.items() if recipe.loss.extra_logs} == {"decoupled"}
    assert {name for name, recipe in recipes.items() if recipe.loss.token_weights} == {"df_flops"}
    assert recipes["splade_doc"].model.idf == "binary"
    assert recipes["li_lsr"].model.queries == "learned_scores"


ABLATIONS = {"gpu": 17 * 4 * 2, "cpu": 4 * 3 * 2 + 3 * 2 + 4}


@pytest.mark.parametrize("path", [one for one in SWEEPS if one.stem in ABLATIONS], ids=lambda path: path.stem)
def test_the_sweeps_plan_what_the_ablation_needs(path, monkeypatch):
    monkeypatch.chdir(ROOM.parent)
    runs = plan_runs(load_sweep(path))
    assert len(runs) == ABLATIONS[path.stem]
    assert {run.recipe.loss.target for run in runs} == {None}
    distilled = [run for run in runs if "_distilled" in run.variant]
    assert len({run.variant for run in distilled}) == 9
    extra = {run.variant for run in distilled if run.recipe.teachers.extra_queries}
    assert extra == {"l0_mask_distilled_extra_queries"}
    for run in runs:
        assert run.recipe.loss.distils == (run.recipe.teachers is not None) == (run in distilled)
    for run in runs:
        narrow = run.variant.startswith(("splade_doc", "li_lsr"))
        assert run.recipe.loss.temperature == (1 if narrow else 4)
    assert_equally_sharp(distilled, 12.5 if path.stem == "cpu" else 20.0)


def assert_equally_sharp(runs, expected):
    """The teacher asks for the same distribution, whatever the weights of queries."""
    assert {run.recipe.teachers.scale / run.recipe.loss.temperature for run in runs} == {expected}


@pytest.mark.parametrize("name", ["equal_cost", "equal_cost_cpu"])
def test_the_methods_are_compared_at_one_cost(name, monkeypatch):
    monkeypatch.chdir(ROOM.parent)
    (path,) = (one for one in SWEEPS if one.stem == name)
    runs = plan_runs(load_sweep(path))
    on_cpu = name.endswith("cpu")
    assert {run.recipe.loss.target for run in runs} == {("target_flops", 0.5 if on_cpu else 1.0)}
    assert_equally_sharp(runs, 12.5 if on_cpu else 20.0)
    losses = {run.variant: run.recipe.loss for run in runs}
    assert list(losses) == ["flops", "l0_mask", "l0_activation", "l0_mask_activation", "df_flops", "li_lsr"]
    assert [run.recipe.seed for run in runs] == [1] * 6 + [2] * 6 + [3] * 6
    assert [name for name, loss in losses.items() if loss.threshold] == ["l0_mask", "l0_mask_activation"]
    assert [name for name, loss in losses.items() if loss.token_weights] == ["df_flops"]


@pytest.mark.parametrize("path", HARDWARE, ids=lambda path: path.stem)
def test_accelerate_reads_the_hardware(path):
    config = load_config_from_file(str(path))
    machines = 2 if path.stem == "two_nodes_of_eight" else 1
    assert config.num_machines == machines
    assert config.num_processes == {"one_gpu": 1, "eight_gpus": 8, "two_nodes_of_eight": 16}[path.stem]
    assert config.distributed_type.value == ("NO" if path.stem == "one_gpu" else "MULTI_GPU")
    assert config.mixed_precision == "no"  # a matter of the recipe
    assert not config.use_cpu


# The README


def reference_table():
    """The rows of the last table: options there, keys here, and the remark."""
    section = README.partition("## From the reference implementation")[2]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line) for line in lines if not line[0].strip().startswith("there")]


def keys_of_the_recipe():
    keys = set()
    for section in dataclasses.fields(Recipe):
        keys.add(section.name)
        entries = section.metadata.get("entries")
        keys |= {f"{section.name}.{name}" for name in (entries() if entries else ())}
    loaded = load_recipe(TWINS["idf_splade_doc_distill_pretrain"])
    for name in ("model", "data", "loss", "teachers"):
        keys |= {f"{name}.{field.name}" for field in dataclasses.fields(getattr(loaded, name))}
    return keys


def test_the_table_names_keys_that_exist():
    known = keys_of_the_recipe()
    assert {"loss.ramp_steps", "training.max_steps", "teachers.models", "output"} <= known
    rows = reference_table()
    assert len(rows) > 30
    for there, here, _ in rows:
        assert re.findall(r"`[^`]+`", there), there
        named = re.findall(r"`([^`]+)`", here)
        assert named or here == "–", (there, here)
        assert set(named) <= known, (there, here)


def test_the_table_misses_no_option():
    named = {option for there, _, _ in reference_table() for option in re.findall(r"`(\w+)`", there)}
    assert set(REFERENCE_OPTIONS) <= named


def test_what_has_no_counterpart_has_a_reason():
    assert [there for there, here, remark in reference_table() if here == "–" and not remark] == []


def test_keys_in_the_text_exist():
    known = keys_of_the_recipe()
    text = README.partition("## From the reference implementation")[0]
    named = re.findall(r"(?<![.\w])((?:model|data|loss|training|teachers)\.[a-z_0-9]+)", text)
    assert len(named) >= 8
    assert set(named) <= known


def test_every_recipe_is_in_the_readme():
    listed = set(re.findall(r"\]\((\w+)\.yaml\)", README))
    assert listed == RECIPES.keys()
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOM / link).exists(), link


# The small twins, on a tiny model and a made-up installation


def docstrings(count):
    rng = random.Random(0)
    made = []
    for i in range(count):
        document = " ".join(rng.choices(WORDS, k=25))
        query = " ".join(rng.sample(document.split(), 4))
        made.append(Docstring(f"m{i % 40}.f{i}", f"m{i % 40}", query, document))
    return made


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, mlm_folder):
    """Folder in which ``runs/small`` lies as `prepare_small` makes it, with a tiny model."""
    import datasets

    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets-cache"))
        patch.setattr(small_data, "collect_docstrings", lambda **options: docstrings(160))
        patch.chdir(folder)
        assert prepare_small(base_model=mlm_folder) == Path("runs/small")
        yield folder


def test_what_is_prepared(prepared):
    small = prepared / "runs" / "small"
    pairs = [json.loads(line) for line in (small / "pairs.jsonl").read_text().splitlines()]
    unseen = read_collection(small / "unseen")
    assert len(pairs) + len(unseen.corpus) == 160
    assert not {pair["positive"] for pair in pairs} & set(unseen.corpus.values())

    corpus, queries = open_texts(small / "mined", "corpus"), open_texts(small / "mined", "queries")
    mined = list(read_rows(small / "mined" / "train.jsonl", corpus=corpus, queries=queries))
    scored = list(read_rows(small / "scored", corpus=corpus, queries=queries))
    assert len(mined) > 10  # a random model finds little
    assert [row._replace(scores=None) for row in scored] == mined
    positives = {pair["query"]: pair["positive"] for pair in pairs}
    for row in scored:
        assert len(row.documents) == len(set(row.documents)) == len(row.scores) == 4
        assert row.documents[0] == positives[row.query]
        assert min(row.scores) >= 0
        assert max(row.scores) <= 30
    assert {state for row in scored for state in row.scores} != {0.0}


def test_the_models_that_are_prepared(prepared):
    from transformers import AutoConfig, AutoTokenizer

    small = prepared / "runs" / "small"
    assert AutoConfig.from_pretrained(small / "base").architectures == ["BertForMaskedLM"]
    assert AutoConfig.from_pretrained(small / "dense").architectures == ["BertModel"]
    vocabularies = [AutoTokenizer.from_pretrained(small / name).get_vocab() for name in ("base", "dense")]
    stock = sentence_transformers.SparseEncoder(str(small / "sparse"), device="cpu")
    assert vocabularies[0] == vocabularies[1] == stock.tokenizer.get_vocab()
    dense = sentence_transformers.SentenceTransformer(str(small / "dense"), device="cpu")
    assert dense.encode("a cat").shape == (32,)


def test_what_is_there_is_kept(prepared, monkeypatch, mlm_folder):
    small = prepared / "runs" / "small"
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*") if path.is_file()}
    monkeypatch.setattr(small_data, "collect_docstrings", lambda **options: pytest.fail("worked"))
    prepare_small(small, base_model=mlm_folder)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*") if path.is_file()} == before


def test_too_few_docstrings_are_refused(tmp_path, monkeypatch, mlm_folder):
    monkeypatch.setattr(small_data, "collect_docstrings", lambda **options: docstrings(20))
    with pytest.raises(InputError, match=r"too few: raise the limit of 1200"):
        prepare_small(tmp_path / "small", base_model=mlm_folder)
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_can_be_planned_in_full(name, prepared):
    planned = dry_run(load_recipe(TWINS[name]))
    assert planned.notes == ()
    assert {state for _, state in planned.sources} == {"there"}
    assert planned.documents_per_query == (1 if "pairs" in name or "pretrain" in name else 2)
    assert planned.trainable_parameters > 24_000


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_trains_ten_steps(name, prepared, tmp_path):
    overrides = [
        "training.max_steps=10",
        "loss.ramp_steps=5",
        "training.warmup_steps=2",
        "training.logging_steps=10",
        "training.per_device_train_batch_size=4",
        "training.save_strategy=steps",
        "training.save_steps=10",
        "training.use_cpu=true",
        "training.report_to=none",
        "model.max_seq_length=32",
        f"output={tmp_path}",
    ]
    recipe = load_recipe(TWINS[name], overrides)
    folder = train(recipe)
    model = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    assert model.encode_document("the cat and the snow").coalesce().values().isfinite().all()
    state = json.loads((tmp_path / "checkpoints" / "checkpoint-10" / "trainer_state.json").read_text())
    (line,) = [line for line in state["log_history"] if "loss" in line]
    assert line["step"] == 10
    assert line["document_regularizer_weight"] == recipe.loss.document_regularizer_weight  # at its peak
    assert line["document_active_dims"] > 0
    assert all(line[f"{loss}_loss"] >= 0 for loss in recipe.loss.ranking)
