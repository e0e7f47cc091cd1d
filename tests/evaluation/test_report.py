from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from st_l0.errors import InputError
from st_l0.evaluation.measure import SystemResults
from st_l0.evaluation.metrics import PROTOCOL
from st_l0.evaluation.report import own_documents_note, render, summarise, write_json, write_results

PETS = {
    "collection": "pets", "documents": 1400, "queries": 30,
    "bm25": {"ndcg@10": 0.5, "mrr@10": 0.5, "recall@100": 0.75,
             "index_seconds": 1.0, "search_ms_per_query": 0.25},
    "model": {"ndcg@10": 0.25, "mrr@10": 0.625, "recall@100": 0.875, "flops": 1.5,
              "document_active_dims": 100.0},
}  # fmt: skip
PLANTS = {
    "collection": "[plants]", "documents": 7, "queries": 3,
    "bm25": {"ndcg@10": 0.25, "mrr@10": 0.25, "recall@100": 0.25,
             "index_seconds": 3.0, "search_ms_per_query": 0.75},
    "model": {"ndcg@10": 0.75, "mrr@10": 0.125, "recall@100": 0.375, "flops": 2.5},
}  # fmt: skip
ALONE = {key: value for key, value in PLANTS.items() if key != "bm25"}


def _rows(reports):
    """Cells of the lines below the header."""
    console = Console(file=io.StringIO(), width=200)
    console.print(render(reports))
    lines = console.file.getvalue().splitlines()
    below = next(i for i, line in enumerate(lines) if "nDCG@10" in line)
    return [line.split() for line in lines[below + 1 :] if line.strip()]


def _header(reports):
    return [str(column.header).replace("\n", " ") for column in render(reports).columns][2:]


def test_one_collection():
    assert _header([PETS]) == ["nDCG@10", "MRR@10", "R@100", "FLOPS", "doc dims", "search ms/q"]
    assert _rows([PETS]) == [
        ["pets", "BM25", "0.500", "0.500", "0.750", "–", "–", "0.250"],
        ["model", "0.250", "0.625", "0.875", "1.50", "100", "–"],
    ]


def test_the_sum_has_a_row_with_its_weight_and_both_costs():
    both = {
        "model_bm25": {"ndcg@10": 0.75, "p_value": 0.03, "flops": 1.5, "word_flops": 0.25, "bm25_weight": 2.0}
    }
    assert _header([PETS | both])[3:6] == ["p", "FLOPS", "word FLOPS"]
    cells = ["0.750", "–", "–", "0.030", "1.50", "0.25", "–", "–"]
    assert _rows([PETS | both])[2] == ["model", "+", "2", "BM25", *cells]
    assert "p_value" not in summarise([PETS | both])["average"]["model_bm25"]


def test_several_collections_have_an_average():
    rows = _rows([PETS, PLANTS])
    assert rows[2:4] == [
        ["[plants]", "BM25", "0.250", "0.250", "0.250", "–", "–", "0.750"],
        ["model", "0.750", "0.125", "0.375", "2.50", "–", "–"],
    ]
    assert rows[4:] == [
        ["average", "BM25", "0.375", "0.375", "0.500", "–", "–", "0.500"],
        ["model", "0.500", "0.375", "0.625", "2.00", "–", "–"],
    ]


def test_the_better_system_is_bold():
    columns = [list(column.cells) for column in render([PETS]).columns]
    assert columns[2] == ["[bold]0.500[/bold]", "0.250"]
    assert columns[3] == ["0.500", "[bold]0.625[/bold]"]


def test_the_table_fits_a_terminal():
    full = {**PETS["model"], "query_active_dims": 12.5, "documents_per_second": 40.0,
            "encode_query_ms": 0.05, "search_ms_per_query": 0.125}  # fmt: skip
    console = Console(file=io.StringIO(), width=80)
    console.print(render([{**PETS, "model": full}]))
    assert "…" not in console.file.getvalue()


def test_recall_at_another_depth_is_shown():
    deeper = {**ALONE, "model": {"ndcg@10": 0.5, "recall@20": 0.25}}
    assert _header([deeper]) == ["nDCG@10", "R@20"]
    assert _rows([deeper]) == [["[plants]", "model", "0.500", "0.250"]]


def test_without_bm25():
    assert _rows([ALONE]) == [["[plants]", "model", "0.750", "0.125", "0.375", "2.50"]]


def test_bm25_of_some_collections_has_no_average():
    rows = _rows([PETS, ALONE])
    assert rows[2][1] == "model"
    assert rows[3:] == [["average", "model", "0.500", "0.375", "0.625", "2.00", "–", "–"]]


def test_json_of_one_collection(tmp_path):
    write_json([PETS], tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written == {
        "collections": {"pets": PETS},
        "average": {"bm25": PETS["bm25"], "model": PETS["model"]},
        "protocol": PROTOCOL,
    }
    assert PROTOCOL.keys() == {"metrics", "equal_scores", "queries_without_hits", "own_documents"}


def test_json_of_several_collections(tmp_path):
    write_json([PETS, PLANTS], tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["collections"] == {"pets": PETS, "[plants]": PLANTS}
    assert written["average"] == {
        "bm25": {
            "ndcg@10": 0.375, "mrr@10": 0.375, "recall@100": 0.5, "index_seconds": 2.0,
            "search_ms_per_query": 0.5,
        },
        "model": {"ndcg@10": 0.5, "mrr@10": 0.375, "recall@100": 0.625, "flops": 2.0},
    }  # fmt: skip


def test_a_failed_write_keeps_the_former_report(tmp_path):
    path = tmp_path / "report.json"
    write_json([PETS], path)
    former = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json([{**PETS, "model": {"ndcg@10": float("nan")}}], path)
    assert path.read_text() == former
    assert list(tmp_path.iterdir()) == [path]


# Query q1 finds b, then a; q2 finds nothing. Of q1, a is relevant.
FOUND = SystemResults(
    {"q1": {"a": 0.5, "b": 2.0}, "q2": {}},
    {
        "q1": {"ndcg@10": 1 / math.log2(3), "mrr@10": 0.5, "recall@20": 1.0},
        "q2": {"ndcg@10": 0.0, "mrr@10": 0.0, "recall@20": 0.0},
    },
)


def test_results_stand_beside_the_report(tmp_path):
    empty = SystemResults({}, {"q": {"ndcg@10": 0.0}})
    write_results(
        {"pets": {"bm25": empty, "model": FOUND}, "a b": {"model": FOUND}}, tmp_path / "mini.v1.json"
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "mini.v1.per_query.json", "mini.v1.pets.bm25.run", "mini.v1.pets.model.run", "mini.v1.a b.model.run",
    }  # fmt: skip
    assert json.loads((tmp_path / "mini.v1.per_query.json").read_text()) == {
        "pets": {"bm25": empty.per_query, "model": FOUND.per_query},
        "a b": {"model": FOUND.per_query},
    }
    assert (tmp_path / "mini.v1.pets.model.run").read_text() == "q1 Q0 b 1 2.0 model\nq1 Q0 a 2 0.5 model\n"
    assert (tmp_path / "mini.v1.pets.bm25.run").read_text() == ""


def test_runs_of_an_earlier_report_that_this_one_lacks_are_removed(tmp_path):
    path = tmp_path / "report.json"
    (tmp_path / "report.cats.bm25.run").write_text("of somebody else")
    write_results({"pets": {"bm25": FOUND, "model": FOUND}, "plants": {"model": FOUND}}, path)
    write_results({"pets": {"model": FOUND}}, tmp_path / "report.json")
    assert {file.name for file in tmp_path.iterdir()} == {
        "report.per_query.json", "report.pets.model.run", "report.cats.bm25.run",
    }  # fmt: skip


def test_a_system_that_found_nothing_for_most_queries_says_so():
    bm25 = {**PETS["bm25"], "without_hits": 0.8}
    table = render([{**PETS, "bm25": bm25, "model": {**PETS["model"], "without_hits": 0.5}}])
    assert list(table.columns[1].cells) == ["BM25 (no hits: 80%)", "model"]


@pytest.mark.parametrize("name", ["beir/pets", "../pets"])
def test_a_name_that_is_no_file_name_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(InputError, match="cannot be part of a file name"):
        write_results({"pets": {"model": FOUND}, name: {"model": FOUND}}, tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("reports", "message"), [([], "no reports"), ([PETS, PETS], "of one name")])
def test_refused(tmp_path, reports, message):
    with pytest.raises(InputError, match=message):
        render(reports)
    with pytest.raises(InputError, match=message):
        write_json(reports, tmp_path / "report.json")


def test_own_documents_are_said():
    reports = [{"collection": "arguana", "own_documents": 3}, {"collection": "med", "own_documents": 0}]
    assert own_documents_note(reports) == (
        "A query's own document is no hit, for the model and for BM25: 3 of arguana queries."
    )
    assert own_documents_note(reports[1:]) is None
