"""Encoded documents come back from each format with the weights, or the rounding, that it promises."""

import json
from collections import Counter

import numpy as np
import pytest
from spelled import VOCABULARY, Spelled, drawn, encoded, exact, spelled
from typer.testing import CliRunner

from st_l0 import SparseEncoder, cli
from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex
from st_l0.indexing import read_shards
from st_l0.indexing.formats import FORMATS
from st_l0.indexing.vectors import write_vectors
from tiny_models import save_model

DOCUMENTS = [*drawn(40, 9, 1, prefix="d"), spelled("empty", {}), spelled("faint", {3: 0.004, 5: 0.0})]
QUERIES = [*drawn(12, 5, 2, prefix="q"), spelled("nothing", {})]

LEFT_OUT = "queries without weights, which find nothing and are left out (an average counts them as 0): "


def write(format, folder, documents=DOCUMENTS, queries=QUERIES, model=None, **options):
    model = model or Spelled()
    source = encoded(documents, folder / "encoded", model)
    target = folder / format
    return write_vectors(
        model, source, target, format, name="spelled", queries=queries, progress=False, **options
    ), target


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(format, folder):
    """Documents and queries, id → term → weight, in the order of the files."""
    if format in ("jsonl", "seismic"):
        documents, queries = (lines(folder / f"{what}.jsonl") for what in ("documents", "queries"))
        return ({one["id"]: one["vector"] for one in some} for some in (documents, queries))
    if format == "anserini":
        files = sorted((folder / "documents").iterdir())
        documents = {one["id"]: one["vector"] for file in files for one in lines(file)}
        rows = (line.split("\t") for line in (folder / "queries.tsv").read_text().splitlines())
        return documents, {id: Counter(terms.split(" ")) for id, terms in rows}
    if format == "qdrant":
        documents, queries = (lines(folder / f"{what}.jsonl") for what in ("documents", "queries"))
        pairs = [(one["payload"]["id"], one["vector"].get("emb")) for one in documents]
        return (
            {
                id: dict(zip(map(str, given["indices"]), given["values"], strict=True)) if given else {}
                for id, given in some
            }
            for some in (pairs, [(one["id"], one["query"]) for one in queries])
        )
    actions = lines(folder / "documents.ndjson")
    documents = {
        action["index"]["_id"]: source.get("emb", {})
        for action, source in zip(actions[::2], actions[1::2], strict=True)
    }
    queries = {
        one["id"]: one["query"]["sparse_vector"]["query_vector"] for one in lines(folder / "queries.jsonl")
    }
    return documents, queries


def score(query, document):
    return sum(weight * document[term] for term, weight in query.items() if term in document)


@pytest.mark.parametrize("format", FORMATS)
def test_scores_of_what_is_read_back(tmp_path, format):
    done, folder = write(format, tmp_path)
    documents, queries = read(format, folder)
    assert list(documents) == [one.id for one in DOCUMENTS]
    assert list(queries) == [one.id for one in QUERIES[:-1]]
    assert (done.documents, done.queries, done.empty_queries) == (42, 13, 1)
    index = EmbeddedIndex()
    for shard in read_shards(tmp_path / "encoded"):
        index.add(shard.ids, shard.vectors)
    hits = index.search(Spelled().encode_query([one.text for one in QUERIES[:-1]]), k=42)
    term = "t{}" if format == "jsonl" else "{}"
    for query, found in zip(QUERIES[:-1], hits, strict=True):
        weights = spelled_weights(query)
        for hit in found:
            other = spelled_weights(next(one for one in DOCUMENTS if one.id == hit.id))
            common = weights.keys() & other.keys()
            value = score(queries[query.id], documents[hit.id])
            if format == "anserini":
                bound = sum(0.005 * (weights[one] + other[one]) + 0.000025 for one in common)
                assert abs(value / 10_000 - hit.score) <= bound + 1e-6
            else:
                assert value == pytest.approx(hit.score, rel=1e-6)
                assert common == {
                    int(one.removeprefix("t")) for one in queries[query.id].keys() & documents[hit.id].keys()
                }
        assert term.format(next(iter(weights))) in queries[query.id]


def spelled_weights(one):
    return {int(token): float(weight) for token, weight in (entry.split(":") for entry in one.text.split())}


@pytest.mark.parametrize("format", sorted(FORMATS.keys() - {"anserini"}))
def test_floats_come_back_to_the_bit(tmp_path, format):
    _, folder = write(format, tmp_path)
    documents, queries = read(format, folder)
    for some, expected in ((documents, DOCUMENTS), (queries, QUERIES[:-1])):
        for one in expected:
            want = {token: np.float32(weight) for token, weight in spelled_weights(one).items() if weight}
            found = {int(term.removeprefix("t")): np.float32(weight) for term, weight in some[one.id].items()}
            assert found == want


def test_whole_hundredths_are_rounded(tmp_path):
    """.579 is cut to 57 by who does not round; what rounds to 0 is gone."""
    document = spelled("d", {1: 0.579, 2: 0.004, 3: 0.006, 4: 2.0})
    query = spelled("q", {1: 1.016, 3: 0.002, 4: 0.03})
    done, folder = write("anserini", tmp_path, [document, spelled("faint", {2: 0.004})], [query])
    documents, _ = read("anserini", folder)
    assert documents == {"d": {"1": 58, "3": 1, "4": 200}, "faint": {}}
    assert (folder / "queries.tsv").read_text() == "q\t" + " ".join(["1"] * 102 + ["4"] * 3) + "\n"
    assert done.notes() == [
        "weights are rounded to whole hundredths and scores are 10,000 times the model's",
        "documents without weights, which are not in the engine's index: 1 of 2",
    ]


def test_what_is_empty_is_counted(tmp_path):
    done, _ = write("seismic", tmp_path)
    assert done.empty == 1  # the faint one has a weight
    assert done.notes() == [
        "documents without weights, which are found by no query: 1 of 42",
        f"{LEFT_OUT}1 of 13",
    ]
    assert (
        "\n- Documents without weights, which are found by no query: 1 of 42."
        in (tmp_path / "seismic" / "README.md").read_text()
    )
    assert done.terms == VOCABULARY


def test_white_space_in_ids_is_counted_where_it_does_harm(tmp_path):
    documents, queries = [spelled("a b", {1: 1}), spelled("c", {1: 1})], [spelled("q\u00a0", {1: 1})]
    done, _ = write("anserini", tmp_path, documents, queries)
    assert done.notes()[1] == "ids with white space, which divides the columns of the engine's run files: 2"
    done, _ = write("qdrant", tmp_path, documents, queries)
    assert done.notes() == []


def test_one_file_a_shard_where_the_engine_reads_many(tmp_path):
    _, folder = write("anserini", tmp_path)
    assert [len(lines(file)) for file in sorted((folder / "documents").iterdir())] == [16, 16, 10]


def test_odd_ids_and_texts_come_back(tmp_path):
    ids = ["é", 'a "b"', "c\nd\u2028e\x85f", "日本", "\x1b[31m"]
    for format in FORMATS.keys() - {"anserini"}:
        _, folder = write(
            format, tmp_path / format, [spelled(id, {1: 1}) for id in ids], [spelled(ids[2], {1: 1})]
        )
        documents, queries = read(format, folder)
        assert (list(documents), list(queries)) == (ids, [ids[2]])


# Terms


def test_tokens_with_quotes_and_white_space(tmp_path):
    tokens = {f'"\\ {number}': number for number in range(VOCABULARY)}
    _, folder = write("jsonl", tmp_path, [spelled("d", {3: 0.5})], [], Spelled(tokens))
    assert lines(folder / "documents.jsonl") == [{"id": "d", "text": "3:0.5", "vector": {'"\\ 3': 0.5}}]
    assert "A term is a token as the vocabulary" in (folder / "README.md").read_text()


def test_ids_where_the_head_has_more_rows_than_there_are_tokens(tmp_path):
    tokens = {f"t{number}": number for number in range(VOCABULARY - 1)}
    _, folder = write("jsonl", tmp_path, [spelled("d", {3: 0.5, VOCABULARY - 1: 2})], [], Spelled(tokens))
    assert lines(folder / "documents.jsonl")[0]["vector"] == {"3": 0.5, "39": 2}
    assert "A term is the number of a token" in (folder / "README.md").read_text()


@pytest.mark.parametrize("format", sorted(FORMATS.keys() - {"jsonl"}))
def test_engines_get_ids(tmp_path, format):
    """Also of tokens that would do: the texts of many vocabularies are not distinct."""
    documents, _ = read(format, write(format, tmp_path)[1])
    assert all(term.isdecimal() for vector in documents.values() for term in vector)


# What is refused, and what stays


def refused(*args, **options):
    with pytest.raises(InputError) as caught:
        write(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_doubled_id(tmp_path):
    documents = [*drawn(20, 3, 1, prefix="d"), spelled("d3", {1: 1})]
    assert "id 'd3' occurs twice" in refused("seismic", tmp_path, documents)
    assert not (tmp_path / "seismic").exists()


def test_a_negative_weight(tmp_path):
    assert "a weight is negative (-0.5)" in refused("qdrant", tmp_path, [spelled("d", {1: -0.5})])


def test_another_model(tmp_path):
    encoded(DOCUMENTS, tmp_path / "encoded")
    with pytest.raises(InputError, match="made with a model of other weights"):
        write_vectors(Spelled(weights="second"), tmp_path / "encoded", tmp_path / "o", "jsonl", name="x")


def test_a_failure_leaves_what_was_there(tmp_path):
    _, folder = write("elasticsearch", tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    source = encoded([spelled("x" * 513, {1: 1})], tmp_path / "other")
    with pytest.raises(InputError, match="has 513 bytes"):
        write_vectors(Spelled(), source, folder, "elasticsearch", name="spelled", progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir() if ".new-" in path.name) == []


def test_only_vectors_of_the_same_format_are_replaced(tmp_path):
    source = encoded(DOCUMENTS, tmp_path / "encoded")
    options = {"name": "spelled", "progress": False}
    write_vectors(Spelled(), source, tmp_path / "out", "jsonl", **options)
    with pytest.raises(InputError, match="holds files that are no qdrant vectors"):
        write_vectors(Spelled(), source, tmp_path / "out", "qdrant", **options)
    with pytest.raises(InputError, match="holds files that are no qdrant vectors"):
        write_vectors(Spelled(), source, source, "qdrant", **options)
    write_vectors(Spelled(), source, tmp_path / "out", "jsonl", **options)


@pytest.mark.parametrize("format", FORMATS)
def test_guides(tmp_path, format):
    """Each names its files; without queries nothing of them is left."""
    _, folder = write(format, tmp_path)
    guide = (folder / "README.md").read_text()
    assert guide.startswith(f"# Vectors for {FORMATS[format].engine}\n\n42 documents and 13 queries, ")
    files = {path.name for path in folder.iterdir()} - {"README.md", ".st_l0.json"}
    assert all(name in guide for name in files)
    assert str(tmp_path) not in guide
    write_vectors(Spelled(), tmp_path / "encoded", folder, format, name="spelled", progress=False)
    assert not list(folder.glob("queries*"))
    assert (folder / "README.md").read_text().splitlines()[2].startswith("42 documents, encoded by `spelled`")


@pytest.mark.parametrize(("size", "index"), [(2**16, "SeismicIndex"), (2**16 + 1, "SeismicIndexLV")])
def test_the_guide_to_seismic_counts_tokens(tmp_path, size, index):
    """The usual index ends in the middle of a build where more tokens weigh than 16 bits count."""
    document = spelled("all", dict.fromkeys(range(size), 0.5))
    _, folder = write("seismic", tmp_path, [document], [], Spelled(size=size))
    assert f"import {index}, " in (folder / "README.md").read_text()


# The command


@pytest.fixture(scope="module")
def work(tmp_path_factory, mlm_folder):
    """A folder with a model, a corpus and queries."""
    folder = tmp_path_factory.mktemp("work")
    save_model(SparseEncoder.from_mlm(mlm_folder, idf="binary", device="cpu"), folder / "model")
    texts = {"a": "the red cat", "b": "a dog sleeping", "c": "", "d": "snow on the mountain"}
    rows = [json.dumps({"_id": id, "text": text}) for id, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    (folder / "queries.tsv").write_text("query-id\ttext\n7\tred snow\n8\tzzz\n")
    return folder


def run(work, *arguments):
    result = CliRunner().invoke(cli.app, [argument.replace("W/", f"{work}/") for argument in arguments])
    return result.exit_code, result.stdout.replace(f"{work}/", "W/").splitlines(), result.stderr


def test_the_command_encodes_once(work, monkeypatch):
    common = ["W/model", "W/corpus.jsonl", "--to", "W/out"]
    asked = ["--queries", "W/queries.tsv", "--format", "qdrant", "--format", "anserini"]
    code, said, error = run(work, "encode", *common, *asked)
    assert code == 0, error
    assert said == [
        "W/out: 4 documents encoded",
        "W/out/qdrant: 4 documents, 2 queries; see README.md",
        "  documents without weights, which are found by no query: 1 of 4",
        f"  {LEFT_OUT}1 of 2",
        "W/out/anserini: 4 documents, 2 queries; see README.md",
        "  weights are rounded to whole hundredths and scores are 10,000 times the model's",
        "  documents without weights, which are not in the engine's index: 1 of 4",
        f"  {LEFT_OUT}1 of 2",
    ]

    def fail(*args, **options):
        raise AssertionError("encoded again")

    monkeypatch.setattr(SparseEncoder, "encode_document", fail)
    code, said, error = run(work, "encode", *common, "--format", "seismic")
    assert (code, said[0], said[1]) == (
        0,
        "W/out: 4 documents encoded",
        "W/out/seismic: 4 documents, 0 queries; see README.md",
    )
    code, said, error = run(work, "encode", "W/model", "W/out", "--to", "W/elsewhere", "--format", "jsonl")
    assert (code, said[0]) == (0, "W/elsewhere/jsonl: 4 documents, 0 queries; see README.md"), error
    assert [one["id"] for one in lines(work / "elsewhere" / "jsonl" / "documents.jsonl")] == list("abcd")
    for format in ("qdrant", "seismic"):  # what is there goes on being read
        assert (work / "out" / format / "README.md").exists()
    assert sum(len(shard.ids) for shard in read_shards(work / "out")) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["W/corpus.jsonl", "--to", "W/new", "--queries", "W/queries.tsv"], "give --format"),
        (["W/corpus.jsonl", "--to", "W/new", "--format", "qdrant", "--queries", "W/none"], "W/none"),
        (["W/corpus.jsonl", "--to", "W/model", "--format", "qdrant"], "holds files but no encoding.json"),
        (["W/done", "--to", "W/new", "--format", "qdrant", "--id-field", "x"], "is no corpus"),
        (["W/done", "--to", "W/new", "--format", "qdrant", "--max-active-dims", "9"], "is encoded already"),
        (["W/done", "--to", "W/held", "--format", "qdrant"], "holds files that are no qdrant vectors"),
    ],
)
def test_what_the_command_refuses_before_it_loads_a_model(work, monkeypatch, arguments, message):
    encoded([spelled("d", {1: 1})], work / "done")
    (work / "held" / "qdrant").mkdir(parents=True, exist_ok=True)
    (work / "held" / "qdrant" / "mine.txt").touch()
    monkeypatch.setattr(SparseEncoder, "from_pretrained", lambda *args, **options: pytest.fail("loaded"))
    code, said, error = run(work, "encode", "W/model", *arguments)
    assert (code, said, len(error.splitlines())) == (2, [], 1)
    assert message in error.replace(f"{work}/", "W/")
    assert not (work / "new").exists()


def test_many_processes_encode_first(work, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, error = run(work, "encode", "W/model", "W/corpus.jsonl", "--to", "W/many", "--format", "jsonl")
    assert code == 2
    assert "without torchrun" in error


def test_exact_is_what_the_index_finds():
    """The numbers that engines are compared with are no copy of theirs."""
    index = EmbeddedIndex()
    index.add([one.id for one in DOCUMENTS], Spelled().encode_document([one.text for one in DOCUMENTS]))
    expected = exact(DOCUMENTS, QUERIES[:2])
    for query, hits in zip(
        QUERIES, index.search(Spelled().encode_query([one.text for one in QUERIES[:2]]), k=50), strict=False
    ):
        assert {hit.id: pytest.approx(hit.score, rel=1e-6) for hit in hits} == expected[query.id]
