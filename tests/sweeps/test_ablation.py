"""What the ablation prepares, from a small folder in the layout of its data."""

import gzip
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from st_l0 import SparseEncoder
from st_l0.data import (
    Collection,
    open_texts,
    read_collection,
    read_records,
    read_training_data,
    write_collection,
)
from st_l0.data.sentences import sentences_of
from st_l0.errors import InputError
from st_l0.teachers import load_teacher
from tiny_models import VOCABULARY, WORDS

SCRIPT = Path(__file__).parents[2] / "training_recipes" / "ablation" / "prepare.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("prepare", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path):
    """Two sources of pairs, one of which repeats itself, a collection, and a table of query weights."""
    draw = np.random.default_rng(0)
    folder = tmp_path / "data"
    for name in ("train", "idf", "eval"):
        (folder / name).mkdir(parents=True)
    for source in ("one", "two"):
        rows = [" ".join(draw.choice(WORDS, 9)) for _ in range(30)]
        pairs = [{"query": " ".join(row.split()[:3]), "positive": row} for row in rows]
        with gzip.open(folder / "train" / f"{source}.jsonl.gz", "wt") as stream:
            stream.writelines(json.dumps(pair) + "\n" for pair in [*pairs, pairs[0]])
    with gzip.open(folder / "idf" / "table.json.gz", "wt") as stream:
        json.dump(dict.fromkeys(VOCABULARY, 2.0), stream)
    corpus = {f"d{i}": f"{WORDS[i % len(WORDS)]} {i}" for i in range(20)}
    collection = Collection("small", corpus, {"q": "cat"}, {"q": {"d3": 2, "d4": 0, "gone": 1}})
    write_collection(collection, folder / "eval" / "small")
    return folder


def test_what_is_prepared_is_what_the_recipes_read(script, data, mlm_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "CUT", 8)
    monkeypatch.setattr(script, "DEPTH", (3, 30))
    output = tmp_path / "out"
    settings = {"base_model": mlm_folder, "pairs_per_source": 20, "mlm_steps": 1, "bf16": False}
    script.prepare(data, output, **settings)

    pairs = [record for _, record in read_records(output / "pairs.jsonl")]
    assert len(pairs) == 40
    given = {
        json.dumps(record)
        for source in ("one", "two")
        for _, record in read_records(data / "train" / f"{source}.jsonl.gz")
    }
    assert len({json.dumps(pair) for pair in pairs} & given) == 40
    whole, cut = (read_collection(output / name / "small") for name in ("eval", "eval-cut"))
    assert len(whole.corpus) == 20 and len(cut.corpus) == 8
    assert {"d3", "d4"} <= cut.corpus.keys() and cut.corpus.items() <= whole.corpus.items()

    mined = output / "mined"
    read = read_training_data(
        mined / "train.jsonl", corpus=open_texts(mined, "corpus"), queries=open_texts(mined, "queries")
    )
    assert len(read.columns) == 2 + script.NEGATIVES
    start = SparseEncoder.from_pretrained(output / "start", device="cpu")
    assert start.query_weights.max() == 2.0
    row = read.dataset[0]
    documents = [row[name] for name in read.columns[1:]]
    for teacher in (f"vectors:{output / 'vectors'}", f"bm25:{output / 'bm25.json'}"):
        scores = load_teacher(teacher).score_all([row["query"]], documents)
        assert scores.shape == (1, len(documents)) and scores.isfinite().all()

    with pytest.raises(InputError, match="prepared with mlm_steps 1, not 2; remove"):
        script.prepare(data, output, **{**settings, "mlm_steps": 2})
    extra = data / "train" / "three.jsonl.gz"
    shutil.copyfile(data / "train" / "one.jsonl.gz", extra)
    with pytest.raises(InputError, match="prepared without train/three"):
        script.prepare(data, output, **settings)
    extra.unlink()
    moved = (data / "train" / "one.jsonl.gz").rename(tmp_path / "one.jsonl.gz")
    with pytest.raises(InputError, match="prepared with train/one"):
        script.prepare(data, output, **settings)
    shutil.copyfile(data / "idf" / "table.json.gz", data / "train" / "one.jsonl.gz")
    with pytest.raises(InputError, match=r"train/one.jsonl.gz of size \d+, not \d+; remove"):
        script.prepare(data, output, **settings)
    moved.rename(data / "train" / "one.jsonl.gz")
    (data / "train" / "README.md").touch()  # is not read
    with pytest.raises(InputError, match="needs train"):
        script.prepare(tmp_path / "nowhere", tmp_path / "other", **settings)
    assert not (tmp_path / "other").exists()

    more = tmp_path / "further"
    more.mkdir()
    with pytest.raises(InputError, match=r"further: holds no \*.jsonl.gz"):
        script.prepare(data, output, more=[more], **settings)
    shutil.copyfile(data / "train" / "one.jsonl.gz", more / "one.jsonl.gz")
    with pytest.raises(InputError, match=r"prepared without further/one\.jsonl\.gz; remove"):
        script.prepare(data, output, more=[more], **settings)
    with pytest.raises(InputError, match=r"another folder has train/one\.jsonl\.gz, too"):
        script.prepare(data, output, more=[data / "train"], **settings)
    with pytest.raises(InputError, match="prepared without dense_teacher; remove"):
        script.prepare(data, output, dense_teacher=mlm_folder, **settings)

    # Called again it finds everything there.
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    script.prepare(data, output, **settings)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == times

    # The same data may lie elsewhere.
    data.rename(tmp_path / "moved")
    assert not (output / "eval").exists()
    script.prepare(tmp_path / "moved", output, **settings)
    assert read_collection(output / "eval" / "small").corpus == whole.corpus


def test_further_pairs_and_a_second_dense_teacher(script, data, mlm_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "DEPTH", (3, 30))
    more = tmp_path / "train_more"
    more.mkdir()
    rows = [" ".join(np.random.default_rng(9).permutation(WORDS)[:9]) for _ in range(3)]
    pairs = [
        {"query": f"{word} alone", "positive": f"{row} {word}"}
        for row, word in zip(rows, WORDS, strict=False)
    ]
    with gzip.open(more / "three.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(pair) + "\n" for pair in pairs)
    output = tmp_path / "out"
    settings = {"base_model": mlm_folder, "pairs_per_source": 10, "mlm_steps": 1, "bf16": False}
    further = {
        "more": [more],
        "dense_teacher": mlm_folder,
        "query_prompt": "the song ",
        "sentence_queries": 4,
    }
    script.prepare(data, output, **settings, **further)
    found = [record for _, record in read_records(output / "pairs.jsonl")]
    assert len(found) == 23 and all(pair in found for pair in pairs)
    assert "train_more/three.jsonl.gz" in json.loads((output / "prepared.json").read_text())
    query, document = pairs[0]["query"], pairs[0]["positive"]
    plain, prompted = (load_teacher(f"vectors:{output / name}") for name in ("vectors", "vectors-2"))
    dense = load_teacher(f"dense:{mlm_folder}", device="cpu")
    for stored, text in ((plain, query), (prompted, f"the song {query}")):
        expected = dense.score_all([text], [document])
        np.testing.assert_allclose(stored.score_all([query], [document]), expected, atol=2e-3)
        sentences = [sentence for pair in found for sentence in sentences_of(pair["positive"])]
        assert stored.knows(sorted({*sentences}), "query").sum() == 4
    with pytest.raises(InputError, match="prepared with sentence_queries 4, not 5"):
        script.prepare(data, output, **settings, **{**further, "sentence_queries": 5})
    with pytest.raises(InputError, match="--query-prompt is for --dense-teacher"):
        script.prepare(data, output, **settings, query_prompt="the song ")
