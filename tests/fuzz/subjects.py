"""What is spoiled, and for which commands: one function a kind of input makes one case."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import mutations
import text_mutations
import world
from mutations import OTHER, SAME


class Case(NamedTuple):
    """A command over inputs in ``in/`` of the working folder, of which something is spoiled."""

    did: str
    args: tuple[Any, ...]
    effect: str  # SAME: exit 0 only with what the clean input gives
    clean: str  # key of the clean result, where there is one
    read: Any = None  # what gives the result
    place: Path | None = None  # an output among the inputs, which gets new files, or is compared (SAME)


def _pick(rng, commands, key):
    number = rng.randrange(len(commands))
    args, read = commands[number]
    return args, read, f"{key} {number}"


def _copy(clean, name):
    target = Path("in") / name
    (shutil.copytree if (clean / name).is_dir() else shutil.copy)(clean / name, target)
    return target


def corpus(rng, clean):
    kind = rng.choice(["corpus.jsonl", "corpus.jsonl", "corpus.jsonl", "corpus.txt", "corpus.parquet"])
    path = _copy(clean, kind)
    if rng.random() < 0.08:
        path, did, effect = mutations.spoil_name(rng, path), "renamed", SAME
    elif path.suffix == ".jsonl":
        did, effect = text_mutations.spoil_rows(rng, path)
    else:
        did, effect = mutations.spoil_file(rng, path), OTHER
    args, read, key = _pick(rng, world.corpus_commands(clean, path), kind)
    return Case(f"{kind}: {did}", args, effect, key, read)


def collection(rng, clean):
    folder = _copy(clean, "beir")
    name = rng.choice(["corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "qrels/train.tsv"])
    if rng.random() < 0.08:
        folder, did, effect = mutations.spoil_name(rng, folder), "renamed", OTHER  # the report has its name
    elif name.endswith(".tsv"):
        did, effect = text_mutations.spoil_table(rng, folder / name)
    else:
        did, effect = text_mutations.spoil_rows(rng, folder / name)
    args, read, key = _pick(rng, world.collection_commands(clean, folder), "beir")
    return Case(f"{name}: {did}", args, effect, key, read)


def rows(rng, clean):
    path = _copy(clean, "rows.jsonl")
    if rng.random() < 0.08:
        path, did, effect = mutations.spoil_name(rng, path), "renamed", OTHER  # the plan has its name
    else:
        did, effect = text_mutations.spoil_rows(rng, path)
    args, read, key = _pick(rng, world.rows_commands(clean, path), "rows.jsonl")
    return Case(f"rows.jsonl: {did}", args, effect, key, read)


def recipe(rng, clean):
    name = rng.choice(["recipe.yaml", "recipe.yaml", "sweep.yaml"])
    path = _copy(clean, name)
    if rng.random() < 0.05:
        path, did, effect = mutations.spoil_name(rng, path), "renamed", SAME
    else:
        did, effect = text_mutations.spoil_yaml(rng, path)
    commands = world.recipe_commands if name == "recipe.yaml" else world.sweep_commands
    args, read, key = _pick(rng, commands(clean, path), name)
    return Case(f"{name}: {did}", args, effect, key, read)


def checkpoint(rng, clean):
    folder = _copy(clean, "model")
    did, effect = mutations.spoil_folder(rng, folder)
    args, read, key = _pick(rng, world.checkpoint_commands(clean, folder), "model")
    return Case(f"model/{did}", args, effect, key, read)


def index(rng, clean):
    folder = _copy(clean, "index")
    did, effect = mutations.spoil_sealed(rng, folder)
    args, read, key = _pick(rng, world.index_commands(clean, folder), "index")
    return Case(f"index/{did}", args, effect, key, read, place=folder if "--to" in args else None)


def training(rng, clean):
    """Whole trainings, of two steps: they are slow, so these are few."""
    path, spoiled = _copy(clean, "recipe.yaml"), _copy(clean, "rows.jsonl")
    did, _ = text_mutations.spoil_rows(rng, spoiled)
    overrides = (f"data.train={spoiled}", "output=out/run")
    return Case(f"rows.jsonl: {did}", ("train", path, *overrides), OTHER, "")


def encoded(rng, clean):
    folder = _copy(clean, "encoded")
    did, effect = mutations.spoil_sealed(rng, folder)
    args, read, key = _pick(rng, world.encoded_commands(clean, folder), "encoded")
    return Case(f"encoded/{did}", args, effect, key, read)


def teachers(rng, clean):
    name = rng.choice(["vectors", "bm25.json"])
    path = _copy(clean, name)
    spec = f"{name.removesuffix('.json')}:{path}"
    if name == "vectors":  # without checksums: a flipped weight is another weight
        did, effect = mutations.spoil_folder(rng, path, weights=(), texts=(".npy", ".json"))
    else:
        spoil = rng.choice([mutations.spoil_file, mutations.spoil_json])
        did, effect = spoil(rng, path), OTHER
    args, read, key = _pick(rng, world.teacher_commands(clean, spec), name)
    return Case(f"{name}: {did}", args, effect, key, read)


def idf(rng, clean):
    path = _copy(clean, "idf.json")
    spoil = rng.choice([mutations.spoil_file, mutations.spoil_json])
    did = spoil(rng, path)
    args, read, key = _pick(rng, world.idf_commands(clean, path), "idf.json")
    return Case(f"idf.json: {did}", args, OTHER, key, read)


NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "9" * 30,
    "x",
    "",
    " ",
    "0x10",
    "٣",
    "\x1b[1m",
    "1:2",
]
DEPTHS = [
    "0:1",
    "1:0",
    "5",
    "a:b",
    ":",
    "1:",
    ":5",
    "1:5:9",
    "٣:٥",
    "1:" + "9" * 30,
    "-1:5",
    "1.0:2",
    "\x1b:1",
    "",
]
TEXTS = [
    "",
    " ",
    "\x1b[31mred",
    "zzz",
    "a\nb",
    "\udcff",
    "日本 cat",
    "cat " * 3000,
    "[red]",
    "\0",
    "--",
    "-x",
    "\u202e",
]


def options(rng, clean):
    """Values of options and arguments, over clean inputs."""
    model, beir, text = clean / "model", clean / "beir", clean / "corpus.jsonl"
    path = mutations.nowhere(rng, Path("in"))
    number, word, depth = rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(DEPTHS)
    mine = ("mine", model, beir, "--output", "out/mined")
    evaluate = ("evaluate", model, "--no-bm25", "--data", beir)
    teach = ("teach", clean / "rows.jsonl", "--output", "out/scored")
    args = rng.choice([
        ("search", clean / "index", word), ("search", clean / "index", word, "--json", "--explain"),
        ("search", clean / "index", "cat", "-k", number), ("search", path, "cat"),
        ("search", path, "cat", "--model", model), ("search", clean / "index", "cat", "--model", path),
        ("search", text, "cat", "--model", path), ("search", clean / "index"),
        ("search", text, word, "--model", model),
        ("index", model, path, "--to", "out/index"), ("index", path, text, "--to", "out/index"),
        ("index", model, text, "--to", "out/index", "--batch-size", number), ("index", "--check", path),
        ("encode", model, path, "--to", "out/encoded"), ("encode", path, text, "--to", "out/encoded"),
        ("encode", model, text, "--to", "out/encoded", "--dtype", word),
        ("evaluate", path, "--data", beir), ("evaluate", model, "--data", path), (*evaluate, "--split", word),
        (*evaluate, "--dtype", word), (*evaluate, "--batch-size", number), (*evaluate, "--data", beir),
        ("mine", path, beir, "--output", "out/mined"), ("mine", model, path, "--output", "out/mined"),
        (*mine, "--depth", depth), (*mine, "--number", number), (*mine, "--margin", number),
        (*mine, "--max-ratio", number), (*mine, "--index", path), (*mine, "--split", word),
        (*teach, "--teacher", word), (*teach, "--teacher", f"sparse:{path}"),
        (*teach, "--teacher", f"dense:{path}"),
        (*teach, "--teacher", f"bm25:{path}"), (*teach, "--teacher", f"vectors:{path}"),
        (*teach, "--teacher", f"bm25:{clean / 'bm25.json'}", "--weight", number),
        (*teach, "--teacher", f"bm25:{clean / 'bm25.json'}", "--scale", number),
        (*teach, "--teacher", f"bm25:{clean / 'bm25.json'}", "--corpus", path, "--queries", beir),
        ("teach", path, "--teacher", f"bm25:{clean / 'bm25.json'}", "--output", "out/scored"),
        ("idf", path, "--tokenizer", clean / "base", "--output", "out/idf.json"),
        ("idf", text, "--tokenizer", path, "--output", "out/idf.json"),
        ("export", path, "--output", "out/model"),
        ("export", model, "--output", "out/model", "--max-seq-length", number),
        ("train", path, "--dry-run"), ("train", clean / "recipe.yaml", word, "--dry-run"),
        ("train", clean / "recipe.yaml", f"{rng.choice(KEYS)}={rng.choice([number, word, str(path)])}",
        "--dry-run"),
        ("train", clean / "recipe.yaml", f"{rng.choice(KEYS)}={rng.choice([number, word, str(path)])}",
        "--dry-run"),
        ("train", clean / "recipe.yaml", "--dry-run", "--devices", number), ("sweep", path, "--dry-run"),
        ("sweep", clean / "sweep.yaml", word, "--dry-run"), (word,), (word, word), ("recipes", word),
        ("recipes",),
    ])  # fmt: skip
    return Case("options", args, OTHER, "")


KEYS = ["model.base_model", "model.idf", "model.queries", "model.max_seq_length", "model.dropout",
        "data.train",
        "data.corpus", "data.limit", "data.documents_per_query", "loss.ranking", "loss.threshold",
        "loss.ramp_steps",
        "loss.document_regularizer_weight", "loss.token_weights", "training.max_steps",
        "training.learning_rate",
        "training.optim", "training.warmup_steps", "training.save_steps", "output", "seed", "teachers.models",
        "teachers", "training", "", ".", "model..idf", "\x1b[1m"]  # fmt: skip


def outputs(rng, clean):
    """Outputs where something is already, or cannot be: what is there stays."""
    model, text = clean / "model", clean / "corpus.jsonl"
    for name in ("corpus.jsonl", "beir", "index", "recipe.yaml"):
        _copy(clean, name)
    Path("in/.git").mkdir()
    Path("in/.git/HEAD").write_text("ref: refs/heads/main\n")
    Path("in/thesis.tex").write_text("\\section{One}\n")
    Path("in/link").symlink_to("thesis.tex")
    Path("in/gone").symlink_to("nowhere")
    place = rng.choice(["in", "in/beir", "in/corpus.jsonl", "in/thesis.tex", "in/link", "in/link/x",
                        "in/thesis.tex/x", ".", "in/beir/qrels", "in/.git", "in/.git/HEAD", "s3://bucket/x",
                        "in/recipe.yaml"])  # fmt: skip
    if rng.random() < 0.1:
        place = "out/" + rng.choice(
            ["\x1b[31mred", "a\nb", "\u202ex", "x" * 300, "日本", " ", "\udcff", "[red]"]
        )
    args = rng.choice([
        ("index", model, "in/corpus.jsonl", "--to", place),
        ("encode", model, "in/corpus.jsonl", "--to", place),
        ("export", model, "--output", place),
        ("idf", "in/corpus.jsonl", "--tokenizer", clean / "base", "--output", place),
        ("mine", model, "in/beir", "--output", place, "--number", "1", "--depth", "1:5"),
        ("teach", clean / "rows.jsonl", "--teacher", f"bm25:{clean / 'bm25.json'}", "--output", place),
        ("evaluate", model, "--data", "in/beir", "--no-bm25", "--output", place),
        ("train", "in/recipe.yaml", f"output={place}", "--dry-run"), ("index", model, text, "--to", place),
    ])  # fmt: skip
    return Case(f"output {place!r}", args, OTHER, "", place=None if "://" in place else Path(place))


# Share of all cases.
SUBJECTS = {
    corpus: 16, collection: 14, rows: 14, recipe: 12, checkpoint: 14, index: 8, encoded: 4, teachers: 4,
    idf: 3, options: 14, outputs: 5, training: 1,
}  # fmt: skip
