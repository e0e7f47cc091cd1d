"""Benchmarks by name, offline: what is chosen, measured, kept, shown and refused."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
import sentence_transformers
from drawn_tasks import COLLECTION, draw_collection, draw_task, register, task_class
from typer.testing import CliRunner

from st_l0 import cli
from st_l0.data import Collection, write_collection
from st_l0.errors import InputError
from st_l0.evaluation import evaluate
from st_l0.evaluation.benchmark_report import notes, render_benchmark, summarise_benchmark
from st_l0.evaluation.benchmarks import BEIR_13, PUBLISHED, select_tasks
from st_l0.evaluation.leaderboard import enter, measure
from st_l0.evaluation.shelf import MTEB, Shelf
from st_l0.evaluation.trec import read_run
from tiny_models import save_model

mteb = pytest.importorskip("mteb")
pytest.importorskip("bm25s")

OTHER = draw_collection(seed=1)
GIVEN = {
    query: sorted(COLLECTION.corpus)[number : number + 12] for number, query in enumerate(COLLECTION.queries)
}


@pytest.fixture
def model(tiny_encoder, tmp_path):
    """Folder of a saved tiny model."""
    return save_model(tiny_encoder(), tmp_path / "model")


@pytest.fixture
def toy(monkeypatch):
    """A benchmark of two retrieval tasks, one to rank given documents, and one of another kind."""
    classes = (
        task_class(name="DrawnOne"),
        task_class(OTHER, name="DrawnTwo"),
        task_class(kind="Reranking", name="DrawnGiven", top_ranked=GIVEN, main_score="map_at_1000"),
    )
    return register(monkeypatch, "Toy", *classes, type(mteb.get_task("STS12")))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "default"))
    return lambda *args: CliRunner().invoke(cli.app, [str(arg) for arg in args])


def measured(model, tasks, tmp_path, **options):
    entry = enter(model, name="org/tiny", results=tmp_path / "results")
    return list(measure(entry, tasks, **options)), entry


def test_a_benchmark_in_one_command(run, model, toy, tmp_path):
    result = run(
        "evaluate", model, "--benchmark", "toy", "--name", "org/tiny", "--output", "out/numbers.json"
    )
    assert result.exit_code == 0, result.stderr
    assert "left out, neither retrieval nor reranking of texts: STS12" in result.stderr
    assert "3/3 DrawnGiven: map_at_1000" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["query", "doc"]
    assert lines[1].split() == ["Toy", "BM25", "model", "FLOPS", "dims", "dims"]
    assert [line.split()[0] for line in lines[2:6]] == ["DrawnOne", "DrawnTwo", "DrawnGiven", "average"]
    assert "DrawnGiven (map@1000)" in lines[4]
    assert "all measures @100 and below equal those of mteb's own search" in result.stdout
    assert "published" not in result.stdout  # of other tasks

    numbers = json.loads((tmp_path / "out/numbers.json").read_text())
    one = numbers["collections"]["DrawnOne"]
    alone = evaluate(enter(model).encoder, COLLECTION, progress=False)
    for system in ("model", "bm25"):
        for key in ("ndcg@10", "mrr@10", "recall@100"):
            assert one[system][key] == pytest.approx(alone[system][key], abs=1e-5), (system, key)
    for key in ("flops", "query_active_dims", "document_active_dims", "document_active_dims_p95"):
        assert one["model"][key] == pytest.approx(alone["model"][key]), key
    assert (one["documents"], one["queries"]) == (60, 20)
    means = [report["model"]["main_score"] for report in numbers["collections"].values()]
    assert numbers["average"]["model"]["main_score"] == pytest.approx(sum(means) / 3)
    assert numbers["left_out"] == ["STS12"]
    per_query = json.loads((tmp_path / "out/numbers.per_query.json").read_text())
    mean = sum(found["ndcg@10"] for found in per_query["DrawnTwo"]["model"].values()) / 20
    assert mean == pytest.approx(numbers["collections"]["DrawnTwo"]["model"]["ndcg@10"], abs=1e-5)
    assert len(read_run(tmp_path / "out/numbers.DrawnOne.bm25.run")) == 20

    filed = sorted(path.name for path in tmp_path.glob("default/results/org__tiny/*/*"))
    assert filed == [
        "DrawnGiven.json",
        "DrawnOne.json",
        "DrawnTwo.json",
        "model_meta.json",
        "run_settings.jsonl",
    ]


def test_scores_are_those_of_mteb_alone(model, tmp_path):
    """All @ <= 100, with the stock class and mteb's own search."""
    tasks = [draw_task(name="DrawnOne"), draw_task(kind="Reranking", name="DrawnGiven", top_ranked=GIVEN)]
    _, entry = measured(model, tasks, tmp_path, bm25=False)
    stock = sentence_transformers.SparseEncoder(model, device="cpu")
    expected = mteb.evaluate(
        stock, tasks, cache=None, co2_tracker=False, show_progress_bar=False
    ).task_results
    for task, theirs in zip(tasks, expected, strict=True):
        ours = entry.shelf.result(task, entry.meta).scores["test"][0]
        compared = {
            key: value
            for key, value in theirs.scores["test"][0].items()
            if isinstance(value, float) and "nauc" not in key and not key.endswith("1000")
        }
        assert len(compared) > 30
        assert {key: ours[key] for key in compared} == pytest.approx(compared, abs=1e-5)


def test_mock_run(tiny_encoder):
    from st_l0.evaluation import MtebModel
    from st_l0.evaluation.mteb import MtebBM25

    for searched in (MtebModel(tiny_encoder(), "org/tiny"), MtebBM25()):
        found = mteb.mock_run(searched).task_results.values()
        assert not [one for one in found if isinstance(one, mteb.results.task_result.TaskError)]
        assert sum(one is not None for one in found) >= 9


def test_what_was_measured_is_not_measured_again(model, toy, tmp_path, monkeypatch):
    tasks = select_tasks("Toy").tasks
    first, _ = measured(model, tasks, tmp_path)
    monkeypatch.setattr(mteb, "evaluate", lambda *_, **__: pytest.fail("measured again"))
    again, entry = measured(model, tasks, tmp_path)
    assert again == first
    other = Shelf(tmp_path / "results").cache
    assert not list(other.cache_path.glob("results/st-l0__bm25"))  # which nobody submits
    assert entry.meta.revision == enter(model).meta.revision


def test_results_of_others_are_not_taken_for_measured(model, tmp_path):
    task = draw_task(name="DrawnOne")
    (first,), _ = measured(model, [task], tmp_path, bm25=False)
    shelf = tmp_path / "results"
    (shelf / "remote").mkdir()
    (shelf / "results").rename(shelf / "remote/results")  # as if they came from the results repository
    (filed,) = shelf.glob("remote/results/*/*/DrawnOne.json")
    filed.write_text(re.sub(r'"main_score": [0-9.]+', '"main_score": 0.99', filed.read_text()))
    (again,), _ = measured(model, [task], tmp_path, bm25=False)
    assert again == first


def test_a_run_that_was_killed_goes_on_with_the_next_task(model, tmp_path):
    tasks = [draw_task(name="DrawnOne"), draw_task(OTHER, name="DrawnTwo")]
    child = os.fork()
    if not child:
        entry = enter(model, name="org/tiny", results=tmp_path / "results")
        encode, calls = entry.encoder.encode_document, []

        def encode_document(*arguments, **options):
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return encode(*arguments, **options)

        entry.encoder.encode_document = encode_document
        list(measure(entry, tasks, bm25=False))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    filed = sorted(tmp_path.glob("results/results/org__tiny/*/Drawn*.json"))
    assert [path.name for path in filed] == ["DrawnOne.json"]
    before = filed[0].stat().st_mtime_ns
    entry = enter(model, name="org/tiny", results=tmp_path / "results")
    encode, calls = entry.encoder.encode_document, []
    entry.encoder.encode_document = lambda *a, **o: calls.append(1) or encode(*a, **o)
    reports = list(measure(entry, tasks, bm25=False))
    assert calls == [1]
    assert filed[0].stat().st_mtime_ns == before
    assert [report["collection"] for report in reports] == ["DrawnOne", "DrawnTwo"]
    assert all("flops" in report["model"] for report in reports)


def test_a_nameless_model_is_kept_apart_by_its_digest(run, model, tiny_encoder, toy, tmp_path):
    args = ("--tasks", "DrawnOne,DrawnTwo", "--no-bm25", "--json", "--results", "kept")
    first = run("evaluate", model, *args)
    assert first.exit_code == 0, first.stderr
    assert "has no name: its results are kept in kept/st_l0, and none can be submitted" in first.stderr
    (tmp_path / "another").mkdir()
    other = save_model(tiny_encoder(activation=2), tmp_path / "another" / "model")  # of the same folder name
    second = json.loads(run("evaluate", other, *args).stdout)
    assert second["collections"] != json.loads(first.stdout)["collections"]
    assert json.loads(run("evaluate", model, *args).stdout) == json.loads(first.stdout)
    assert not (tmp_path / "kept/results").exists()
    assert len(list(tmp_path.glob("kept/st_l0/results/unnamed__model/*"))) == 2
    assert not list(tmp_path.rglob("no_model_name*"))
    refused = run("evaluate", model, *args, "--submit")
    assert refused.exit_code == 2
    assert "only a model of the Hub is submitted: publish it" in refused.stderr


def test_data_from_folders(run, model, tmp_path):
    """NanoBEIR and BEIR by the names of folders, in whatever split there is."""
    root = tmp_path / "data"
    write_collection(COLLECTION, root / "nano-arguana-retrieval")
    write_collection(OTHER, root / "scifact")
    args = ("evaluate", model, "--data-root", root, "--json", "--results", "kept")
    result = run(*args, "--benchmark", "NanoBEIR", "--tasks", "NanoArguAnaRetrieval")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["collections"]["NanoArguAnaRetrieval"]
    alone = evaluate(enter(model).encoder, COLLECTION, progress=False)
    assert found["model"]["ndcg@10"] == pytest.approx(alone["model"]["ndcg@10"], abs=1e-5)
    assert found["bm25"]["ndcg@10"] == pytest.approx(alone["bm25"]["ndcg@10"], abs=1e-5)
    assert json.loads(result.stdout)["data_root"] == str(root)
    shown = run(
        "evaluate", model, "--data-root", root, "--results", "kept", "--tasks", "NanoArguAnaRetrieval"
    )
    assert f"The data are those in {root}, whether or not they are the benchmark's own." in shown.stdout
    assert run(*args, "--tasks", "SciFact", "--name", "org/tiny").exit_code == 0
    assert not (tmp_path / "kept/results").exists()  # own data are no results of the benchmark
    (filed,) = tmp_path.glob("kept/st_l0/results/org__tiny/*/SciFact.json")
    assert json.loads(filed.read_text())["dataset_revision"].startswith("local-")

    missing = run(*args, "--tasks", "NFCorpus")
    assert (missing.exit_code, missing.stderr.splitlines()[-1]) == (
        2,
        f"error: {root}: no folder for task NFCorpus; call it NFCorpus or nfcorpus",
    )
    (root / "scifact/queries.jsonl").write_text('{"_id": "q0", "text": "snow"}\n')
    (root / "scifact/qrels/test.tsv").write_text("q0\td1\t1.0\n")
    changed = json.loads(run(*args, "--tasks", "SciFact", "--name", "org/tiny").stdout)
    assert changed["collections"]["SciFact"]["queries"] == 1


def test_nano_beir_as_it_is_on_the_hub(model, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    judged = [
        (query, id) for query, found in COLLECTION.qrels.items() for id, score in found.items() if score
    ]
    parts = {
        "corpus": {"_id": list(COLLECTION.corpus), "text": list(COLLECTION.corpus.values())},
        "queries": {"_id": list(COLLECTION.queries), "text": list(COLLECTION.queries.values())},
        "qrels": {"query-id": [pair[0] for pair in judged], "corpus-id": [pair[1] for pair in judged]},
    }
    for name, columns in parts.items():
        (tmp_path / "data/NanoSciFact" / name).mkdir(parents=True)
        path = tmp_path / "data/NanoSciFact" / name / "train-00000-of-00001.parquet"
        pq.write_table(pa.table(columns), path)
    tasks = select_tasks("NanoBEIR", ["nanoscifactretrieval"]).tasks
    (report,), _ = measured(model, tasks, tmp_path, data_root=tmp_path / "data", bm25=False)
    binary = {
        query: {id: 1 for id, score in found.items() if score} for query, found in COLLECTION.qrels.items()
    }
    alone = evaluate(
        enter(model).encoder,
        Collection("nano", COLLECTION.corpus, COLLECTION.queries, binary),
        bm25=False,
        progress=False,
    )
    assert report["model"]["ndcg@10"] == pytest.approx(alone["model"]["ndcg@10"], abs=1e-5)
    with pytest.raises(InputError, match="no such folder; give one with a folder for each task"):
        measured(model, tasks, tmp_path, data_root=tmp_path / "none")


def test_documents_to_rank_from_a_folder(model, tmp_path):
    task = draw_task(kind="Reranking", name="DrawnGiven", top_ranked=GIVEN)
    from_mteb, _ = measured(model, [task], tmp_path / "theirs")
    write_collection(COLLECTION, tmp_path / "data/DrawnGiven")
    with pytest.raises(InputError, match=r"no top_ranked\.jsonl, the documents to rank"):
        measured(model, [task], tmp_path / "ours", data_root=tmp_path / "data")
    rows = ({"query-id": query, "corpus-ids": ids} for query, ids in GIVEN.items())
    (tmp_path / "data/DrawnGiven/top_ranked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ours, _ = measured(model, [task], tmp_path / "ours", data_root=tmp_path / "data")
    for system in ("model", "bm25"):
        assert ours[0][system] == pytest.approx(from_mteb[0][system])


def test_given_documents_of_score_0_are_tied_and_ordered_by_falling_id(model, tmp_path):
    """As mteb orders them, in the index and in its own search."""
    corpus = {"a": "snow", "b": "zzz", "c": "zzz", "d": "zzz"}
    collection = Collection("ties", corpus, {"q": "qqq"}, {"q": {"b": 1, "c": 0}})  # no word is known
    task = draw_task(collection, kind="Reranking", name="DrawnTies", top_ranked={"q": list("abcd")})
    (report,), entry = measured(model, [task], tmp_path)
    assert report["model"]["mrr@10"] == pytest.approx(1 / 3)  # d, c, b, a
    stock = sentence_transformers.SparseEncoder(model, device="cpu")
    theirs = mteb.evaluate(stock, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results[
        0
    ]
    ours = entry.shelf.result(task, entry.meta)
    assert ours.get_score() == pytest.approx(theirs.get_score())
    assert report["bm25"]["main_score"] == pytest.approx(theirs.get_score())


@pytest.mark.parametrize("own", [True, False])
def test_a_document_of_the_querys_own_id(model, tmp_path, own):
    """As mteb has it for the task, for the model and BM25, and said."""
    text = COLLECTION.queries["q0"]
    corpus = {"q": text, "d1": COLLECTION.corpus["d1"] + " " + text[:20], "d2": COLLECTION.corpus["d2"]}
    collection = Collection("own", corpus, {"q": text}, {"q": {"d1": 1}})
    task = draw_task(collection, name="DrawnOwn", own=own)
    results = {}
    (report,), _ = measured(model, [task], tmp_path, results=results)
    for system in ("model", "bm25"):
        assert ("q" in results["DrawnOwn"][system].run["q"]) is not own
        mean = results["DrawnOwn"][system].per_query["q"]["ndcg@10"]
        assert mean == pytest.approx(report[system]["ndcg@10"], abs=1e-5)
    summary = summarise_benchmark([report], benchmark=None, name="org/tiny", revision="1", left_out=())
    said = " ".join(notes(summary))
    assert ("is no hit in DrawnOwn" in said) is own
    assert ("is a hit, as mteb has it, in DrawnOwn" in said) is not own


def test_beir_13_and_the_papers_rows():
    assert len(set(BEIR_13)) == 13
    selected = select_tasks("beir-13")
    assert selected.name == "BEIR-13"
    assert {task.metadata.name for task in selected.tasks} == set(BEIR_13)
    every = {task.metadata.name for task in select_tasks("BEIR").tasks}
    assert every - set(BEIR_13) == {"MSMARCO", "CQADupstackRetrieval"}
    assert {row.system: row.ndcg for row in PUBLISHED} == {
        "SPLADE-doc-distill": 45.02, "IDF-SPLADE-doc-distill": 49.52, "ℓ0 Mask": 50.43,
        "ℓ0 Mask + ℓ0 Activation": 50.28, "OpenSearch doc-v3-distill": 51.7, "OpenSearch doc-v3-gte": 54.6,
    }  # fmt: skip
    english = select_tasks("MTEB(eng, v2)")
    assert (len(english.tasks), len(english.left_out)) == (12, 29)
    assert "STS12" in english.left_out and "AskUbuntuDupQuestions" not in english.left_out

    def report(name):
        model = {"main_score": 0.5, "flops": 2.0, "query_active_dims": 4.0, "document_active_dims": 100.0}
        common = {"metric": "ndcg_at_10", "measured_by": "index", "own_documents": "none"}
        return {"collection": name, "model": model, "bm25": {"main_score": 0.4}, **common}

    options = {"benchmark": "BEIR", "name": "org/tiny", "revision": "1", "left_out": ()}
    summary = summarise_benchmark([report(name) for name in (*BEIR_13, "MSMARCO")], **options)
    from rich.console import Console

    with (console := Console(width=200)).capture() as shown:
        console.print(render_benchmark(summary))
    assert "published, not measured here (BEIR-13):" in shown.get()
    rows = [line.split() for line in shown.get().splitlines()]
    assert ["average", "of", "14", "40.00", "50.00", "2.00", "4.0", "100"] in rows
    assert ["average", "of", "BEIR-13", "40.00", "50.00", "2.00", "4.0", "100"] in rows
    assert next(row for row in rows if row[:2] == ["ℓ0", "Mask"])[-4:] == ["50.43", "–", "–", "–"]
    assert summary["published"][2] == {
        "system": "ℓ0 Mask", "ndcg@10": 0.5043, "source": "arXiv 2504.14839", "measured_here": False,
    }  # fmt: skip
    few = summarise_benchmark([report(name) for name in BEIR_13[:12]], **options)
    assert "published" not in few


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--benchmark", "NanoBIER"), "'NanoBIER' is no benchmark that mteb knows; the nearest: NanoBEIR"),
        (("--tasks", "ScFact"), "'ScFact' is no task that mteb knows; the nearest: SciFact"),
        (("--benchmark", "BEIR-13", "--tasks", "MSMARCO"), "'MSMARCO' is no task of BEIR-13 that mteb knows"),
        (("--tasks", "STS12"), "STS12: neither retrieval nor reranking of texts"),
        (("--tasks", "SciFact", "--data", "x"), "--data and a benchmark are measured apart"),
        (("--data", "x", "--submit"), "--submit goes with a benchmark: give --benchmark or --tasks"),
        (("--data-root", "x", "--data", "x"), "--data-root goes with a benchmark"),
        ((), "nothing to measure on: give --data, --benchmark or --tasks"),
        (("--tasks", "SciFact", "--dtype", "int8"), "--dtype int8: benchmarks are measured in float32"),
        (("--tasks", "SciFact", "--name", "tiny"), "'tiny' is no name for mteb: give organization/model"),
        (("--tasks", "SciFact", "--revision", "main"), "revision 'main' moves"),
        (("--tasks", "SciFact", "--revision", "0" * 40), "a folder has no revision"),
        (("--tasks", "SciFact", "--meta", "licence=mit"), "--meta licence=mit: give KEY=VALUE with a key of"),
        (("--tasks", "SciFact", "--meta", "license=mine", "--name", "a/b"), "mteb refuses license 'mine'"),
    ],
)
def test_unusable_options(run, model, options, message):
    result = run("evaluate", model, *options)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert message in result.stderr


def test_dense_and_siamese_checkpoints_are_refused(run, mlm_folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(mlm_folder)
    SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu").save(str(tmp_path / "dense"))
    for checkpoint, message in ((tmp_path / "dense", "dense"), (mlm_folder, "no inference-free checkpoint")):
        result = run("evaluate", checkpoint, "--tasks", "SciFact")
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert message in result.stderr
    write_collection(COLLECTION, tmp_path / "own")
    result = run("evaluate", tmp_path / "dense", "--data", "own")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.stderr


def test_unusable_data_is_said_in_one_line(model, tmp_path, caplog):
    def tell(collection, **options):
        measured(model, [draw_task(collection, name="DrawnBad", **options)], tmp_path / "bad", bm25=False)

    corpus, queries = {"a": "snow", "b": "rain"}, {"q": "snow"}
    with pytest.raises(InputError, match="task DrawnBad, test: has no judgements, so there is nothing to"):
        tell(Collection("bad", corpus, queries, {}))
    with pytest.raises(InputError, match="task DrawnBad, test: has no documents"):
        tell(Collection("bad", {}, queries, {"q": {"a": 1}}))
    with pytest.raises(InputError, match="no judgement is about one of its queries"):
        tell(Collection("bad", corpus, queries, {"p": {"a": 1}}))
    with pytest.raises(InputError, match="document 'z', to be ranked for query 'q', is not in the corpus"):
        tell(
            Collection("bad", corpus, queries, {"q": {"a": 1}}),
            kind="Reranking",
            top_ranked={"q": ["a", "z"]},
        )
    tell(Collection("bad", corpus, queries, {"q": {"a": 1, "z": 1}}))
    assert "task DrawnBad, test: 1 of 2 judged documents are not in the corpus" in caplog.text


def test_a_language_that_cannot_be_split_is_said(model, tmp_path, caplog):
    """A script that BM25's analyzer takes no words from, here signs only."""
    collection = Collection("odd", {"a": "☂ ☃", "b": "☄"}, {"q": "☂"}, {"q": {"a": 1}})
    (report,), _ = measured(model, [draw_task(collection, name="DrawnOdd", language="zho-Hans")], tmp_path)
    assert report["bm25"]["without_hits"] == 1
    assert (
        "task DrawnOdd: BM25 found nothing for 1 of 1 queries; can it split their language (zho)?"
        in caplog.text
    )


def test_data_that_cannot_be_reached(run, model):
    result = run("evaluate", model, "--tasks", "SciFact", "--no-bm25")
    assert result.exit_code == 2
    assert "task SciFact: its data mteb/scifact cannot be loaded (" in result.stderr.splitlines()[-1]
    assert result.stderr.endswith("go online, or give a folder by --data-root\n")


def test_mteb_alone_measures_again_what_an_index_measured(model, tmp_path):
    tasks = [draw_task(name="DrawnOne")]
    (first,), entry = measured(model, tasks, tmp_path, bm25=False)
    assert first["measured_by"] == "index"
    (second,), entry = measured(model, tasks, tmp_path, bm25=False, reference=True)
    assert (second["measured_by"], entry.shelf.measured_by("DrawnOne", entry.meta)) == ("mteb", MTEB)
    assert second["model"] == pytest.approx(first["model"])  # the costs are those of the same vectors
    scores = entry.shelf.result(tasks[0], entry.meta).scores["test"][0]
    stock = sentence_transformers.SparseEncoder(model, device="cpu")
    theirs = mteb.evaluate(stock, tasks, cache=None, co2_tracker=False, show_progress_bar=False).task_results[
        0
    ]
    assert {key: value for key, value in scores.items() if isinstance(value, float)} == pytest.approx(
        {key: value for key, value in theirs.scores["test"][0].items() if isinstance(value, float)},
        abs=1e-5,
        nan_ok=True,
    )


def test_a_task_that_is_the_mean_of_others(model, tmp_path):
    from mteb.abstasks.aggregate_task_metadata import AggregateTaskMetadata
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    parts = [draw_task(name="DrawnOne"), draw_task(OTHER, name="DrawnTwo")]

    class Both(AbsTaskAggregate):
        metadata = AggregateTaskMetadata(
            name="DrawnBoth", description="", reference=None, tasks=parts, main_score="ndcg_at_10",
            type="Retrieval", eval_splits=["test"], bibtex_citation="",
        )  # fmt: skip

    results = {}
    (report,), entry = measured(model, [Both()], tmp_path, results=results)
    apart, _ = measured(model, parts, tmp_path)
    for key in ("main_score", "ndcg@10", "flops"):
        assert report["model"][key] == pytest.approx(sum(one["model"][key] for one in apart) / 2)
    assert (report["documents"], report["queries"]) == (120, 40)
    assert len(results["DrawnBoth"]["model"].per_query) == 40
    assert (entry.shelf.results_of(entry.meta) / "DrawnBoth.json").exists()
