"""Everything that searches, on a real OpenSearch: what it finds is what it finds in an embedded index."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from protocol_index import TruncatedIndex
from st_l0.cli import app
from st_l0.data import Collection, Document
from st_l0.errors import InputError
from st_l0.evaluation import IndexInformationRetrievalEvaluator, evaluate
from st_l0.index import open_index
from st_l0.index.opensearch.scratch import scratch
from st_l0.indexing.identity import index_metadata
from st_l0.indexing.index import index_corpus
from st_l0.mining import mine, mine_collection
from tiny_models import WORDS, save_model


@pytest.fixture(scope="module")
def texts():
    generator = np.random.default_rng(4)

    def some(count, words):
        return [" ".join(generator.choice(WORDS, words)) for _ in range(count)]

    corpus = {f"d{row}": text for row, text in enumerate(some(60, 12))}
    queries = {f"q{row}": text for row, text in enumerate(some(10, 3))}
    qrels = {query: {f"d{6 * row}": 1, f"d{6 * row + 1}": 1} for row, query in enumerate(queries)}
    return Collection("toy", corpus, queries, qrels)


@pytest.fixture
def filled(opensearch_target, tiny_encoder, texts, tmp_path):
    """The model, its folder and an index of the collection."""
    model = tiny_encoder()
    folder = save_model(model, tmp_path / "model")
    index = open_index(
        opensearch_target,
        vocabulary_size=len(model.query_weights),
        metadata=index_metadata(model, folder),
    )
    documents = [Document(*item) for item in texts.corpus.items()]
    assert index_corpus(model, documents, index, progress=False) == len(documents)
    assert index_corpus(model, documents, index, progress=False) == 0
    embedded = TruncatedIndex(tmp_path / "embedded", metadata=index_metadata(model, folder))
    index_corpus(model, documents, embedded, progress=False)
    return model, folder, index, embedded


@pytest.fixture
def collection_folder(texts, tmp_path):
    """The collection as BEIR has it."""
    folder = tmp_path / "toy"
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", texts.corpus), ("queries", texts.queries)):
        lines = (json.dumps({"_id": id, "text": text}) for id, text in rows.items())
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    pairs = [f"{query}\t{id}\t1" for query, judged in texts.qrels.items() for id in judged]
    for split in ("test", "train"):
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *pairs]))
    return folder


def quality(report):
    return {name: value for name, value in report["model"].items() if "@" in name}


def test_an_evaluation(filled, texts, opensearch_target):
    model, _, index, embedded = filled
    results, expected = {}, {}
    options = {"bm25": False, "progress": False}
    report = evaluate(model, texts, index=index, results=results, **options)
    ours = evaluate(model, texts, index=embedded, results=expected, **options)
    assert quality(report) == pytest.approx(quality(ours), abs=1e-6)
    for query, found in results["model"].run.items():
        other = expected["model"].run[query]
        assert found.keys() == other.keys()
        assert found == pytest.approx(other, rel=1e-5)
    with scratch(f"{opensearch_target}-own") as make_index:
        own = evaluate(model, texts, make_index=make_index, **options)
    assert quality(own) == quality(report)


def test_an_address_may_say_two_phases(filled, texts, opensearch_target):
    model, _, index, _ = filled
    index.refresh()
    target = f"{opensearch_target}?two_phase=true"
    query = model.encode_query(["the red house"], convert_to_scipy=True)
    index = open_index(target, create=False)
    assert index.search(query, 5)[0].as_run() == index.search(query, 5, two_phase=True)[0].as_run()
    # Its first phase finds five times as many, and no more than 10,000.
    with pytest.raises(InputError, match="two phases of 2001 hits need"):
        index.search(query, 2001)
    assert index.search(query, 2001, two_phase=False)[0]
    with pytest.raises(InputError, match="two_phase is true or false, not 'yes'"):
        open_index(f"{opensearch_target}?two_phase=yes")
    report = evaluate(model, texts, index=index, bm25=False, progress=False)
    assert report["model"]["ndcg@10"] > 0


def test_indexes_of_a_measurement_go(opensearch_target):
    with pytest.raises(RuntimeError), scratch(f"{opensearch_target}?replicas=0") as make_index:
        index = make_index()
        index.add(["a"], np.eye(1, 3))
        assert index.search(np.eye(1, 3))[0][0].id == "a"
        raise RuntimeError
    with pytest.raises(InputError):
        open_index(str(index.address), create=False)


def test_the_evaluator_of_a_trainer(tiny_encoder, texts, opensearch_target):
    model = tiny_encoder()
    given = {
        "queries": texts.queries,
        "corpus": texts.corpus,
        "relevant_docs": {query: set(judged) for query, judged in texts.qrels.items()},
        "corpus_chunk_size": 25,
        "batch_size": 8,
    }
    expected = IndexInformationRetrievalEvaluator(**given, make_index=TruncatedIndex)(model)
    with scratch(opensearch_target) as make_index:
        found = IndexInformationRetrievalEvaluator(**given, make_index=make_index)(model)
    assert found == pytest.approx(expected, abs=1e-6)


def test_mining(filled, texts):
    model, _, index, embedded = filled
    positives = {query: list(judged) for query, judged in texts.qrels.items()}
    options = {"number": 3, "depth": (1, 40), "max_ratio": 0.95, "progress": False}
    found = list(mine(model, index, texts.queries, positives, **options))
    assert found == list(mine(model, embedded, texts.queries, positives, **options))
    assert len(found) > 5


def test_mining_a_collection(filled, collection_folder, opensearch_target, tmp_path):
    model, folder, index, _ = filled
    options = {"number": 3, "depth": (1, 40), "progress": False}
    rows = []
    for name, place in (("one", tmp_path / "embedded"), ("server", opensearch_target)):
        mine_collection(folder, collection_folder, tmp_path / name, index_folder=place, **options)
        rows.append((tmp_path / name / "train.jsonl").read_text())
    assert rows[0] == rows[1]
    record = json.loads((tmp_path / "server" / "mining.json").read_text())
    assert record["index"] == opensearch_target
    index.add(["stranger"], np.eye(1, len(model.query_weights)))
    index.refresh()  # for others at once
    arguments = ["mine", folder, str(collection_folder), "--output", str(tmp_path / "more")]
    done = CliRunner().invoke(app, [*arguments, "--index", opensearch_target, "--number", "3"])
    assert done.exit_code == 2
    assert f"{opensearch_target}: holds 1 documents that are not in" in done.output


def test_search_and_evaluate_commands(filled, collection_folder, texts, opensearch_target):
    model, folder, _, embedded = filled
    query = texts.queries["q0"]
    done = CliRunner().invoke(app, ["search", opensearch_target, query, "--json", "--explain", "-k", "5"])
    assert done.exit_code == 0, done.output
    hits = json.loads(done.output)["hits"]
    expected = embedded.search(model.encode_query([query]), 5)[0]
    assert [hit["id"] for hit in hits] == expected.ids.tolist()
    assert hits[0]["text"] == texts.corpus[hits[0]["id"]]
    assert sum(part["score"] for part in hits[0]["tokens"]) == pytest.approx(hits[0]["score"], rel=1e-5)
    arguments = ["evaluate", folder, "--data", str(collection_folder), "--no-bm25", "--json"]
    reports = [
        json.loads(CliRunner().invoke(app, [*arguments, *more]).output)
        for more in ([], ["--index", opensearch_target])
    ]
    assert quality(reports[1]["collections"]["toy"]) == pytest.approx(
        quality(reports[0]["collections"]["toy"])
    )
    assert "encode_documents_seconds" not in reports[1]["collections"]["toy"]["model"]


def test_a_benchmark(filled, opensearch_target, collection_folder, tmp_path, monkeypatch):
    """A task of mteb, its data from a folder, searched on the server; the indexes go afterwards."""
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    _, folder, index, _ = filled
    (tmp_path / "root").mkdir()
    collection_folder.rename(tmp_path / "root" / "SciFact")

    def run(*options, code=0):
        arguments = ["evaluate", folder, "--tasks", "SciFact", "--data-root", str(tmp_path / "root")]
        result = CliRunner().invoke(app, [*arguments, "--no-bm25", *options])
        assert result.exit_code == code, result.output
        return result.stdout or result.output

    def scores(*options):
        summary = json.loads(run("--json", "--results", str(tmp_path / f"kept{len(options)}"), *options))
        return summary["collections"]["SciFact"]["model"]["main_score"]

    before = index.server.request("GET", "/_cat/indices?format=json")
    assert scores("--engine", opensearch_target) == pytest.approx(scores(), abs=1e-3)
    after = index.server.request("GET", "/_cat/indices?format=json")
    assert {one["index"] for one in after} == {one["index"] for one in before}
    assert "give --results FOLDER" in run("--engine", opensearch_target, code=2)


def test_words_by_commands(opensearch_target, texts, tmp_path, tiny_encoder):
    """On a server as in a folder, where lengths are short enough to be exact."""
    model = save_model(tiny_encoder(), tmp_path / "model")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"_id": id, "text": text}) + "\n" for id, text in texts.corpus.items())
    )

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    found = {}
    for place in (opensearch_target, str(tmp_path / "index")):
        said = run("index", model, corpus, "--to", place, "--bm25", "english")
        assert "60 documents added" in said and "BM25 counts" in said
        weight = open_index(place).bm25_weight
        hits = json.loads(run("search", place, "cat river bread", "--explain", "--json"))["hits"]
        for hit in hits:
            parts = [part["score"] for part in hit["tokens"] + hit["words"]]
            assert sum(parts) == pytest.approx(hit["score"], rel=1e-4)
        alone = json.loads(run("search", place, "cat river bread", "--bm25", "0", "--json"))["hits"]
        found[place] = weight, [hit["score"] for hit in hits], [hit["score"] for hit in alone]
    (weight, both, alone), (other_weight, other_both, other_alone) = found.values()
    assert weight == pytest.approx(other_weight, rel=0.02)
    assert alone == pytest.approx(other_alone, rel=4e-3)
    assert both == pytest.approx(other_both, rel=0.02) and both != alone
