"""An encoded corpus holds the model's vectors, whatever was killed and however many processes there were."""

import hashlib
import json
import os
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch
from typer.testing import CliRunner

from launching import run
from st_l0 import SparseEncoder, cli
from st_l0.data import Document, read_documents
from st_l0.errors import InputError
from st_l0.index import open_index
from st_l0.indexing.encode import encode_corpus
from st_l0.indexing.index import index_corpus, index_encoded
from st_l0.indexing.shards import Shard, encoding_record, is_encoded, read_shard, read_shards, write_shard
from st_l0.utils.records import shard_path
from tiny_models import WORDS, save_model

# encode MODEL CORPUS OUTPUT and, if given, die of SIGKILL inside the write of that part, half of it written.
SCRIPT = """
import os, signal, sys
import pyarrow.parquet as pq, torch
import st_l0.indexing.encode
from st_l0 import SparseEncoder
from st_l0.data import read_documents
from st_l0.utils.distributed import join

model, corpus, output, *victim = sys.argv[1:]
torch.set_num_threads(1)
join()
write = pq.write_table
def half(table, where, **options):
    write(table, where, **options)
    if victim and victim[0] in str(where):
        os.truncate(where, os.path.getsize(where) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
pq.write_table = half
encoder = SparseEncoder.from_pretrained(model, device="cpu")
st_l0.indexing.encode.encode_corpus(
    encoder, read_documents(corpus), output, name=model, shard_size=4, batch_size=2, progress=False
)
"""


class Words:
    """Documents are counts of eight words; weights as fingerprint."""

    max_seq_length, max_active_dims = 16, None

    def __init__(self, weights="first"):
        self.weights, self.encoded = weights, []

    def fingerprint(self):
        return self.weights

    def has_fingerprint(self, found):
        return found == self.weights

    def get_embedding_dimension(self):
        return 8

    def encode_document(self, texts, *, batch_size, convert_to_scipy, show_progress_bar):
        assert convert_to_scipy
        self.encoded.append((list(texts), batch_size))
        counts = [[text.split().count(word) / 3 for word in WORDS[:8]] for text in texts]
        return sp.csr_matrix(counts, dtype=np.float32)


def corpus(number=11):
    return [Document(f"d{i}é", " ".join(WORDS[(i * j) % 9] for j in range(i % 5))) for i in range(number)]


def encode(documents, folder, model=None, **options):
    options = {"name": "words", "shard_size": 4, "progress": False, **options}
    return encode_corpus(model or Words(), iter(documents), folder, **options)


def message(*args, **kwargs):
    with pytest.raises(InputError) as caught:
        encode(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(folder):
    """Bytes of all files that a reader sees."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def real(tmp_path_factory, mlm_folder):
    """Folder of a saved encoder, and a corpus of 18 documents as a file."""
    folder = tmp_path_factory.mktemp("real")
    model = SparseEncoder.from_mlm(mlm_folder, idf="binary", device="cpu", max_seq_length=32)
    generator = np.random.default_rng(1)
    lines = [
        json.dumps({"_id": f"n{i}", "text": " ".join(generator.choice(WORDS, generator.integers(0, 25)))})
        for i in range(18)
    ]
    (folder / "corpus.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return save_model(model, folder / "model"), folder / "corpus.jsonl"


@pytest.fixture(scope="module")
def launch(tmp_path_factory, real):
    """Function: processes, folder and perhaps the part to die in, to what came of the run."""
    script = tmp_path_factory.mktemp("script") / "encode.py"
    script.write_text(SCRIPT)
    return lambda processes, output, *victim: run(processes, script, *real, output, *victim)


# What is written and read


def test_files_by_hand(tmp_path):
    documents = [Document("1", "the a the"), Document("é", ""), Document("3", "in zebra")]
    assert encode(documents, tmp_path / "new" / "out", shard_size=2) == 3
    folder = tmp_path / "new" / "out"
    assert sorted(content(folder)) == ["encoding.json", "part-000000.parquet", "part-000001.parquet"]
    assert json.loads((folder / "encoding.json").read_text()) == {
        "model": "words",
        "fingerprint": "first",
        "vocabulary_size": 8,
        "max_seq_length": 16,
        "max_active_dims": None,
        "dtype": "float32",
        "part_size": 2,
        "documents": 3,
        "parts": [
            hashlib.sha256((folder / f"part-00000{number}.parquet").read_bytes()).hexdigest()
            for number in range(2)
        ],
    }
    assert WORDS[:5] == ["the", "a", "of", "in", "on"]
    third = float(np.float32(1 / 3))
    first = pq.read_table(folder / "part-000000.parquet").to_pylist()
    assert first == [
        {"id": "1", "text": "the a the", "indices": [0, 1], "weights": [float(np.float32(2 / 3)), third]},
        {"id": "é", "text": "", "indices": [], "weights": []},
    ]
    second = pq.read_table(folder / "part-000001.parquet").to_pylist()
    assert second == [{"id": "3", "text": "in zebra", "indices": [3], "weights": [third]}]


def test_shards_are_read_as_they_were_made(tmp_path):
    documents, model = corpus(), Words()
    assert encode(documents, tmp_path, model, batch_size=3) == 11
    assert [(len(texts), size) for texts, size in model.encoded] == [(4, 3), (4, 3), (3, 3)]
    shards = list(read_shards(tmp_path))
    assert [len(shard.ids) for shard in shards] == [4, 4, 3]
    read = [Document(*pair) for shard in shards for pair in zip(shard.ids, shard.texts, strict=True)]
    assert read == documents
    vectors = sp.vstack([shard.vectors for shard in shards], format="csr")
    expected = Words().encode_document(
        [document.text for document in documents],
        batch_size=1,
        convert_to_scipy=True,
        show_progress_bar=False,
    )
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors.toarray(), expected.toarray())


def test_the_corpus_is_streamed(tmp_path):
    model, read = Words(), []

    def source():
        for document in corpus(9):
            read.append(len(model.encoded))
            yield document

    assert encode(source(), tmp_path, model) == 9
    assert read == [0] * 4 + [1] * 4 + [2]


# Resuming


def test_what_is_there_is_not_encoded_again(tmp_path):
    encode(corpus(), tmp_path)
    whole = content(tmp_path)
    shard_path(tmp_path, 1, "parquet").unlink()
    (tmp_path / ".part-000001.parquet.new-1234").write_text("left behind")
    record = json.loads(whole["encoding.json"])
    (tmp_path / "encoding.json").write_text(json.dumps({**record, "documents": None}))
    model = Words()
    assert encode(corpus(), tmp_path, model) == 11
    assert [texts for texts, _ in model.encoded] == [[document.text for document in corpus()[4:8]]]
    assert content(tmp_path) == whole
    # A batch size that fits better may take its place, and the model may have moved.
    encode(corpus(), tmp_path, name="elsewhere", batch_size=1)
    assert content(tmp_path) == whole


def test_shards_are_read_at_an_address(tmp_path):
    import fsspec

    encode(corpus(), tmp_path)
    fsspec.filesystem("memory").put(f"{tmp_path}/", "memory://shards/", recursive=True)
    try:
        assert is_encoded("memory://shards") and not is_encoded("memory://elsewhere")
        found = [
            (shard.ids, shard.texts, shard.vectors.toarray().tolist())
            for shard in read_shards("memory://shards")
        ]
        assert found == [
            (shard.ids, shard.texts, shard.vectors.toarray().tolist()) for shard in read_shards(tmp_path)
        ]
        with fsspec.open("memory://shards/part-000001.parquet", "ab") as file:
            file.write(b"more")
        assert str(_refusal(read_shards, "memory://shards")).startswith(
            "memory://shards/part-000001.parquet: is not the part that was written there"
        )
    finally:
        fsspec.filesystem("memory").rm("/shards", recursive=True)


def test_killed_runs_and_several_processes_give_the_same_bytes(tmp_path, launch, real):
    whole = tmp_path / "whole"
    done = launch(1, whole)
    assert done.returncode == 0, done.stderr
    assert len(content(whole)) == 6
    assert encoding_record(whole)["documents"] == 18

    killed = tmp_path / "killed"
    for victim, left in (("part-000002", 3), ("part-000004", 5)):
        assert launch(1, killed, victim).returncode == -9
        assert len(content(killed)) == left
        with pytest.raises(InputError, match="not encoded to its end"):
            next(read_shards(killed))
    assert launch(1, killed).returncode == 0
    assert content(killed) == content(whole)

    two = tmp_path / "two"
    assert launch(2, two, "part-000003").returncode != 0
    assert encoding_record(two)["documents"] is None
    done = launch(2, two)
    assert done.returncode == 0, done.stderr
    assert content(two) == content(whole)

    model = SparseEncoder.from_pretrained(real[0], device="cpu")
    texts = [document.text for document in read_documents(real[1])]
    expected = model.encode_document(texts, convert_to_scipy=True).toarray()
    expected[[not text for text in texts]] = 0  # the third is empty
    vectors = sp.vstack([shard.vectors for shard in read_shards(two)], format="csr")
    np.testing.assert_allclose(vectors.toarray(), expected, atol=1e-5)


# Indexing


def test_indexing_shards_equals_indexing_the_corpus(tmp_path, tiny_encoder):
    model = tiny_encoder()
    documents = [Document(str(i), " ".join(WORDS[i : i + 6])) for i in range(30)]
    encode(documents, tmp_path / "encoded", model, shard_size=7)
    direct, loaded = (open_index(tmp_path / name) for name in ("direct", "loaded"))
    index_corpus(model, documents, direct, chunk_size=7, progress=False)
    loaded.add([documents[8].id], model.encode_document([documents[8].text]), ["kept"])
    assert index_encoded(model, tmp_path / "encoded", loaded, progress=False) == 29
    assert index_encoded(model, tmp_path / "encoded", loaded, progress=False) == 0
    queries = model.encode_query(["the cat", "red house street", "moon"])
    for one, other in zip(direct.search(queries, k=30), loaded.search(queries, k=30), strict=True):
        found = {hit.id: (hit.score, hit.text) for hit in other}
        assert found.pop("8", ("", "kept"))[1] == "kept"
        expected = {hit.id: (pytest.approx(hit.score, rel=1e-5), hit.text) for hit in one if hit.id != "8"}
        assert found == expected
    with pytest.raises(InputError, match=r"settings \(then at words\): use that one, or encode again$"):
        index_encoded(Words("second"), tmp_path / "encoded", loaded, progress=False)


# Half precision


def test_bfloat16_is_close_and_leaves_the_model_as_it_was(tmp_path, tiny_encoder):
    model = tiny_encoder()
    before = model.fingerprint()
    documents = [Document(str(i), " ".join(WORDS[i : i + 9])) for i in range(8)]
    encode(documents, tmp_path, model, dtype="bfloat16", shard_size=8)
    assert model.fingerprint() == before == encoding_record(tmp_path)["fingerprint"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    (shard,) = read_shards(tmp_path)
    exact = model.encode_document([document.text for document in documents], convert_to_scipy=True)
    difference = abs(shard.vectors - exact).max()
    assert 1e-5 < difference < 0.15
    again = model.encode_document([document.text for document in documents], convert_to_scipy=True)
    assert (again != exact).nnz == 0
    assert shard.vectors.dtype == np.float32
    assert "begun with dtype bfloat16, not float32" in message(documents, tmp_path, model, shard_size=8)


# Refusals


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shard_size": 0}, "batch_size (32) and shard_size (0) must be at least 1"),
        ({"batch_size": 0}, "batch_size (0) and shard_size (4) must be at least 1"),
        ({"dtype": "int4"}, "dtype must be one of float32, bfloat16, int8, not 'int4'"),
    ],
)
def test_impossible_settings(tmp_path, options, complaint):
    assert message(corpus(), tmp_path / "out", **options) == complaint
    assert not (tmp_path / "out").exists()


def test_no_documents(tmp_path):
    assert message([], tmp_path) == f"{tmp_path}: there are no documents; give at least one"


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    expected = f"{tmp_path}: holds files but no encoding.json; give a new or empty folder"
    assert message(corpus(), tmp_path) == expected
    assert not is_encoded(tmp_path)
    with pytest.raises(InputError, match=r"holds no encoding\.json; give a folder written by st-l0 encode"):
        next(read_shards(tmp_path))


def test_a_folder_of_another_run(tmp_path):
    encode(corpus(), tmp_path)
    before, path = content(tmp_path), tmp_path / "encoding.json"
    assert message(corpus(), tmp_path, Words("second")) == (
        f"{path}: begun with a model of other weights or settings (then at words); "
        "use that one, or give a new folder"
    )
    assert (
        message(corpus(), tmp_path, shard_size=5)
        == f"{path}: begun with part_size 4, not 5; give a new folder"
    )
    shorter = Words()
    shorter.max_seq_length = 8
    complaint = f"{path}: begun with max_seq_length 16, not 8; give a new folder"
    assert message(corpus(), tmp_path, shorter) == complaint
    foreign = "not the documents that the corpus has there; give a new folder"
    assert message(corpus()[1:], tmp_path) == f"{shard_path(tmp_path, 0, 'parquet')}: {foreign}"
    changed = [*corpus()[:10], Document("d10é", "new")]
    assert message(changed, tmp_path) == f"{shard_path(tmp_path, 2, 'parquet')}: {foreign}"
    ends = f"{shard_path(tmp_path, 2, 'parquet')}: the input ends before this part; give a new folder"
    assert message(corpus(8), tmp_path) == ends
    assert content(tmp_path) == before


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"model": 1'])
def test_a_damaged_record(tmp_path, text):
    encode(corpus(), tmp_path)
    (tmp_path / "encoding.json").write_text(text)
    for complaint in (message(corpus(), tmp_path), str(_refusal(read_shards, tmp_path))):
        problem = "holds a JSON list" if text == "[1]" else "not "
        assert complaint.startswith(f"{tmp_path / 'encoding.json'}: {problem}")
        assert complaint.endswith("; give a new folder")


def _refusal(read, folder):
    with pytest.raises(InputError) as caught:
        list(read(folder))
    return caught.value


AGAIN = "; remove it and start st-l0 encode again"


def without_digests(folder):
    """As earlier versions wrote it."""
    record = json.loads((folder / "encoding.json").read_text())
    del record["parts"]
    (folder / "encoding.json").write_text(json.dumps(record))


def test_a_part_is_the_one_that_was_written(tmp_path):
    encode(corpus(12), tmp_path / "one")  # three parts of four documents
    encode([Document(f"x{i}", "of in") for i in range(12)], tmp_path / "two")
    folder, before = tmp_path / "one", content(tmp_path / "one")
    part, other = (shard_path(folder, number, "parquet") for number in (1, 2))
    flipped = bytearray(part.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    for bad in (
        other.read_bytes(),  # copied over another: the same number of documents
        shard_path(tmp_path / "two", 1, "parquet").read_bytes(),
        part.read_bytes()[:-1],
        bytes(flipped),
        b"",
    ):
        part.write_bytes(bad)
        changed = f"{part}: is not the part that was written there, or has changed; remove it and start "
        assert str(_refusal(read_shards, folder)) == f"{changed}st-l0 encode again"
        assert message(corpus(12), folder) == f"{changed}again"
    part.unlink()
    assert str(_refusal(read_shards, folder)) == f"{part}: no such part{AGAIN}"
    assert encode(corpus(12), folder) == 12
    assert content(folder) == before
    renamed = part.rename(shard_path(folder, 3, "parquet"))
    expected = f"{renamed}: is no part of these 12 documents{AGAIN}"
    assert str(_refusal(read_shards, folder)) == expected


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("documents", -5, "documents is -5, not a number above 0"),
        ("documents", 8, "its parts are not those of 2 shards"),
        ("documents", "11", "documents is '11', not a number above 0"),
        ("documents", True, "documents is True, not a number above 0"),
        ("part_size", 0, "part_size is 0, not a number above 0"),
        ("vocabulary_size", None, "vocabulary_size is None, not a number above 0"),
        ("parts", ["00"], "its parts are not those of 3 shards"),
        ("parts", {}, "its parts are not those of 3 shards"),
    ],
)
def test_a_record_that_cannot_be(tmp_path, key, value, problem):
    encode(corpus(), tmp_path)
    path = tmp_path / "encoding.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert str(_refusal(read_shards, tmp_path)) == f"{path}: {problem}; give a new folder"


def test_a_folder_of_an_earlier_version_has_no_digests(tmp_path):
    encode(corpus(), tmp_path)
    before, shards = content(tmp_path), list(read_shards(tmp_path))
    without_digests(tmp_path)
    assert [shard.ids for shard in read_shards(tmp_path)] == [shard.ids for shard in shards]
    assert encode(corpus(), tmp_path) == 11  # adds them
    assert content(tmp_path) == before


def test_one_run_at_a_time(tmp_path):
    def documents():
        yield from corpus()
        inner.append(message(corpus(), tmp_path))

    inner = []
    encode(documents(), tmp_path)
    assert re.fullmatch(
        rf"{re.escape(str(tmp_path))}: process {os.getpid()} on \S+ is writing there; "
        "wait for it, or give another output",
        inner[0],
    )
    assert encode(corpus(), tmp_path) == 11


def test_damaged_parts(tmp_path):
    encode(corpus(), tmp_path)
    without_digests(tmp_path)
    part = shard_path(tmp_path, 1, "parquet")
    good = part.read_bytes()
    again = AGAIN
    flipped = bytearray(good)
    flipped[good.index("d4é".encode())] ^= 0x01  # inside a page: its checksum tells
    for bad in (good[: len(good) // 2], b"", b"text", bytes(flipped)):
        part.write_bytes(bad)
        for complaint in (str(_refusal(read_shards, tmp_path)), message(corpus(), tmp_path)):
            assert complaint.startswith(f"{part}: cannot be read (")
            assert complaint.endswith(again)
    part.write_bytes(shard_path(tmp_path, 2, "parquet").read_bytes())
    assert str(_refusal(read_shards, tmp_path)) == f"{part}: holds 3 documents, not 4{again}"


def test_parts_of_something_else(tmp_path):
    vectors = sp.csr_matrix(np.eye(2, 9, 7, dtype=np.float32))
    write_shard(tmp_path / "part", Shard([Document("1", "a"), Document("2", "b")], vectors))
    assert read_shard(tmp_path / "part", 9).ids == ["1", "2"]
    with pytest.raises(InputError, match="an index is outside the vocabulary of 8"):
        read_shard(tmp_path / "part", 8)
    table = pq.read_table(tmp_path / "part")
    pq.write_table(table.drop_columns(["weights"]), tmp_path / "part")
    with pytest.raises(InputError, match="other columns than id, text, indices, weights"):
        read_shard(tmp_path / "part", 9)
    pq.write_table(table.set_column(3, "weights", [[[1.0, 2.0], []]]).cast(table.schema), tmp_path / "part")
    with pytest.raises(InputError, match="indices and weights do not match"):
        read_shard(tmp_path / "part", 9)


# The command


def command(*arguments):
    result = CliRunner().invoke(cli.app, [*map(str, arguments)])
    lines = re.split(r"[\r\n]", result.stdout if result.exit_code == 0 else result.stderr)
    return result.exit_code, [line for line in lines if line and not line.startswith("Loading weights")]


def test_the_command(tmp_path, real):
    model, documents = real
    out = tmp_path / "out"
    for _ in range(2):
        assert command("encode", model, documents, "--to", out) == (0, [f"{out}: 18 documents encoded"])
    assert encoding_record(out)["model"] == os.path.realpath(model)
    (shard,) = read_shards(out)
    assert shard.ids == [f"n{i}" for i in range(18)]
    code, (line,) = command("encode", model, documents, "--to", out, "--dtype", "bfloat16")
    assert code == 2
    assert (
        line == f"error: {out / 'encoding.json'}: begun with dtype float32, not bfloat16; give a new folder"
    )


def test_the_index_command_takes_what_was_encoded(tmp_path, real):
    model, documents = real
    out, index = tmp_path / "out", tmp_path / "index"
    assert command("encode", model, documents, "--to", out)[0] == 0
    assert command("index", model, out, "--to", index) == (0, [f"{index}: 18 documents added, 18 in all"])


def test_the_index_command_takes_both_to_a_server(tmp_path, real, opensearch_target, monkeypatch):
    model, documents = real
    monkeypatch.chdir(tmp_path)
    assert command("encode", model, documents, "--to", "out")[0] == 0
    added = [f"{opensearch_target}: 18 documents added, 18 in all"]
    assert command("index", model, "out", "--to", opensearch_target) == (0, added)
    code, (line, _) = command("index", model, f"file://{documents}", "--to", opensearch_target)
    assert (code, line) == (0, f"{opensearch_target}: 0 documents added, 18 in all")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing was refused


def test_an_empty_corpus_leaves_no_folder(tmp_path, real):
    (tmp_path / "empty.jsonl").write_text("")
    code, (line,) = command("encode", real[0], tmp_path / "empty.jsonl", "--to", tmp_path / "out")
    assert code == 2
    assert "the corpus is empty" in line
    assert not (tmp_path / "out").exists()


def test_titles_come_back_and_are_no_column_where_there_are_none(tmp_path):
    vectors = sp.csr_matrix(np.eye(2, 9, dtype=np.float32))
    for name, documents in {
        "with": [Document("1", "Rain falls.", "Rain"), Document("2", "b")],
        "without": [Document("1", "a"), Document("2", "b")],
    }.items():
        write_shard(tmp_path / name, Shard(documents, vectors))
        found = read_shard(tmp_path / name, 9).documents
        assert found == documents and [one.title for one in found] == [one.title for one in documents]
        assert ("title" in pq.read_schema(tmp_path / name).names) == (name == "with")
