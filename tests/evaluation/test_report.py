from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from st_l0.errors import InputError
from st_l0.evaluation.report import render, write_json

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


def _printed(reports):
    console = Console(file=io.StringIO(), width=200)
    console.print(*render(reports))
    return console.file.getvalue()


def _rows(reports):
    """Cells of all lines that have any, without the frame."""
    lines = _printed(reports).replace("┃", "│").splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]


def test_one_collection():
    rows = _rows([PETS])
    assert rows[0][3:] == ["nDCG@10", "nDCG@10", "MRR@10", "MRR@10", "R@100", "R@100"]
    assert rows[1] == ["collection", "documents", "queries"] + ["BM25", "model"] * 3
    assert rows[2] == ["pets", "1,400", "30", "0.500", "0.250", "0.500", "0.625", "0.750", "0.875"]
    assert rows[3] == ["collection", "FLOPS", "document dims", "BM25 search ms/query"]
    assert rows[4] == ["pets", "1.50", "100", "0.250"]
    assert len(rows) == 5


def test_several_collections_have_an_average():
    rows = _rows([PETS, PLANTS])
    assert rows[3] == ["[plants]", "7", "3", "0.250", "0.750", "0.250", "0.125", "0.250", "0.375"]
    assert rows[4] == ["average", "", "", "0.375", "0.500", "0.375", "0.375", "0.500", "0.625"]
    assert rows[6:] == [
        ["pets", "1.50", "100", "0.250"],
        ["[plants]", "2.50", "–", "0.750"],
        ["average", "2.00", "–", "0.500"],
    ]


def test_the_better_system_is_bold():
    table = render([PETS])[0]
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells[3:7] == ["[bold]0.500[/bold]", "0.250", "0.500", "[bold]0.625[/bold]"]


def test_without_bm25():
    rows = _rows([ALONE])
    assert "BM25" not in _printed([ALONE])
    assert rows[2] == ["[plants]", "7", "3", "0.750", "0.125", "0.375"]


def test_bm25_of_some_collections_has_no_average():
    rows = _rows([PETS, ALONE])
    assert rows[3] == ["[plants]", "7", "3", "–", "0.750", "–", "0.125", "–", "0.375"]
    assert rows[4] == ["average", "", "", "–", "0.500", "–", "0.375", "–", "0.625"]


def test_json_of_one_collection(tmp_path):
    write_json([PETS], tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == PETS


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


@pytest.mark.parametrize(("reports", "message"), [([], "no reports"), ([PETS, PETS], "of one name")])
def test_refused(tmp_path, reports, message):
    with pytest.raises(InputError, match=message):
        render(reports)
    with pytest.raises(InputError, match=message):
        write_json(reports, tmp_path / "report.json")
