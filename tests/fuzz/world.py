"""Clean inputs of every kind, tiny, made once; the commands that read them; what those give."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from running import run

DOCUMENTS = {
    "d1": "the cat sat on the big red mountain",
    "d2": "a dog and a bird eat bread",
    "d3": "snow rain wind on the river",
    "d4": "a man read a book in the old house",
    "d5": "fish swim in the water of the river",
    "7": "green tree, blue moon",
}
QUERIES = {"q1": "the cat on a mountain", "q2": "snow and wind", "q3": "who read the book?"}
QRELS = [("q1", "d1", 1), ("q1", "d2", 0), ("q2", "d3", 2), ("q3", "d4", 1), ("q3", "d1", 1)]
QUESTION = "the cat on the river"


def records():
    return [{"_id": id, "title": "", "text": text} for id, text in DOCUMENTS.items()]


def rows():
    return [
        {"query": QUERIES[query], "positive": DOCUMENTS[positive], "negative": DOCUMENTS[negative]}
        for query, positive, negative in (("q1", "d1", "d2"), ("q2", "d3", "7"), ("q3", "d4", "d5"),
        ("q1", "d1", "d4"))
    ]  # fmt: skip


def lines(entries):
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def build(folder):
    """Make everything in ``folder``."""
    from st_l0 import SparseEncoder
    from st_l0.encoder.idf import write_idf
    from st_l0.teachers import write_bm25, write_vectors
    from tiny_models import VOCABULARY, make_mlm, make_tokenizer, save_model

    folder = Path(folder)
    tokenizer = make_tokenizer()
    make_mlm("bert").save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    idf = np.random.default_rng(5).uniform(0.5, 8.0, len(VOCABULARY)).astype(np.float32)
    save_model(SparseEncoder.from_mlm(str(folder / "base"), idf=idf, device="cpu"), folder / "model")
    write_idf(folder / "idf.json", idf, tokenizer)
    (folder / "corpus.jsonl").write_text(lines(records()), encoding="utf-8")
    (folder / "corpus.txt").write_text("".join(f"{text}\n" for text in DOCUMENTS.values()), encoding="utf-8")
    _write_parquet(folder / "corpus.parquet")
    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True)
    shutil.copy(folder / "corpus.jsonl", beir)
    queries = ({"_id": id, "text": text} for id, text in QUERIES.items())
    (beir / "queries.jsonl").write_text(lines(queries), encoding="utf-8")
    table = "".join("\t".join(map(str, row)) + "\n" for row in [("query-id", "corpus-id", "score"), *QRELS])
    for split in ("test", "train"):
        (beir / "qrels" / f"{split}.tsv").write_text(table, encoding="utf-8")
    (folder / "rows.jsonl").write_text(lines(rows()), encoding="utf-8")
    (folder / "recipe.yaml").write_text(_RECIPE.format(folder=folder), encoding="utf-8")
    (folder / "sweep.yaml").write_text(_SWEEP.format(folder=folder), encoding="utf-8")
    fake = SimpleNamespace(
        name="dense:fake",
        model=SimpleNamespace(similarity_fn_name="cosine", prompts={}),
        embed=lambda texts, side: _embed(texts),
    )
    texts = [row[key] for row in rows() for key in ("positive", "negative")]
    write_vectors(fake, QUERIES.values(), texts, folder / "vectors", progress=False)
    write_bm25(folder / "bm25.json", DOCUMENTS.values())
    for args in (
        ("index", folder / "model", folder / "corpus.jsonl", "--to", folder / "index"),
        ("encode", folder / "model", folder / "corpus.jsonl", "--to", folder / "encoded"),
    ):
        ran = run(*args)
        assert ran.code == 0, ran
    return folder


_RECIPE = """\
# A comment.
model:
  base_model: {folder}/base
  idf: {folder}/idf.json
  max_seq_length: 32
data:
  train: [{folder}/rows.jsonl]
loss:
  document_regularizer_weight: 0.001
  ranking: {{infonce: 1.0}}
  ramp_steps: 1
training:
  max_steps: 2
  per_device_train_batch_size: 2
  learning_rate: 1.0e-4
  report_to: none
  save_strategy: "no"
output: out/run
seed: 3
"""

_SWEEP = """\
output: out/sweep
collections: [{folder}/beir]
set: {{training.max_steps: 2}}
variants:
  one:
    recipe: {folder}/recipe.yaml
    grid: {{loss.document_regularizer_weight: [0.001, 0.01]}}
  two:
    recipe: {folder}/recipe.yaml
    set: {{loss.regularizer: l1}}
"""


def _embed(texts):
    import torch

    return torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(len(text))) for text in texts])


def _write_parquet(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(records()), path)


# Commands: arguments, with what is under test in ``in/`` and all else in the clean folder, and a function
# that reads what came of it, to compare.


def _hits(args):
    def read(ran):
        found = json.loads(run(*args, "--json").stdout)["hits"] if args else json.loads(ran.stdout)["hits"]
        return [(hit["id"], round(hit["score"], 4), hit["text"]) for hit in found]

    return read


def _file(name):
    return lambda ran: Path(name).read_text(encoding="utf-8")


def _parts(ran):
    return {path.name: path.read_bytes() for path in sorted(Path("out").rglob("part-*"))}


def _quality(ran):
    found = json.loads(ran.stdout)["collections"]
    keys = ("ndcg@10", "mrr@10", "recall@100", "flops", "document_active_dims")
    return {name: [round(report["model"][key], 4) for key in keys] for name, report in found.items()}


def _stdout(ran):
    return ran.stdout


_FOUND = _hits(("search", "out/index", QUESTION))


def corpus_commands(clean, name):
    model = clean / "model"
    return [
        (("search", name, QUESTION, "--model", model, "--json"), _hits(())),
        (("index", model, name, "--to", "out/index"), _FOUND),
        (("encode", model, name, "--to", "out/encoded"), _parts),
        (("idf", name, "--tokenizer", clean / "base", "--output", "out/idf.json"), _file("out/idf.json")),
    ]


def collection_commands(clean, name):
    model = clean / "model"
    mine = ("mine", model, name, "--output", "out/mined", "--number", "1", "--depth", "1:5", "--json")
    return [
        (("evaluate", model, "--data", name, "--no-bm25", "--json"), _quality),
        (mine, _file("out/mined/train.jsonl")),
    ]


def rows_commands(clean, name):
    recipe = clean / "recipe.yaml"
    return [
        (("train", recipe, "--dry-run", f"data.train={name}"), lambda ran: ran.stdout.replace(str(name), "")),
        (("teach", name, "--teacher", f"sparse:{clean / 'model'}", "--output", "out/scored"), _parts),
        (("mine", clean / "model", name, "--output", "out/mined", "--number", "1"),
        _file("out/mined/train.jsonl")),
    ]  # fmt: skip


def teacher_commands(clean, spec):
    return [(("teach", clean / "rows.jsonl", "--teacher", spec, "--output", "out/scored"), _parts)]


def recipe_commands(clean, name):
    return [(("train", name, "--dry-run"), _stdout)]


def sweep_commands(clean, name):
    return [(("sweep", name, "--dry-run"), _stdout)]


def idf_commands(clean, name):
    return [(("train", clean / "recipe.yaml", "--dry-run", f"model.idf={name}"), _stdout)]


def checkpoint_commands(clean, name):
    corpus, exported = (
        clean / "corpus.jsonl",
        ("search", clean / "corpus.jsonl", QUESTION, "--model", "out/model"),
    )
    return [
        (("search", corpus, QUESTION, "--model", name, "--json"), _hits(())),
        (("search", clean / "index", QUESTION, "--model", name, "--json"), _hits(())),
        (("index", name, corpus, "--to", "out/index"), _FOUND),
        (("encode", name, corpus, "--to", "out/encoded"), _parts),
        (("evaluate", name, "--data", clean / "beir", "--no-bm25", "--json"), _quality),
        (("export", name, "--output", "out/model", "--whole"), _hits(exported)),
        (("mine", name, clean / "beir", "--output", "out/mined", "--number", "1", "--depth", "1:5"),
         _file("out/mined/train.jsonl")),
        (("teach", clean / "rows.jsonl", "--teacher", f"sparse:{name}", "--output", "out/scored"), _parts),
    ]  # fmt: skip


def index_commands(clean, name):
    model = clean / "model"
    return [
        (("search", name, QUESTION, "--json", "--model", model), _hits(())),
        (("index", "--check", name), lambda ran: None),
        (("index", model, clean / "corpus.jsonl", "--to", name), _hits(("search", name, QUESTION))),
        (("mine", model, clean / "beir", "--output", "out/mined", "--number", "1", "--depth", "1:5",
          "--index", name), _file("out/mined/train.jsonl")),
    ]  # fmt: skip


def encoded_commands(clean, name):
    return [(("index", clean / "model", name, "--to", "out/index"), _FOUND)]
