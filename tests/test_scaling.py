"""The plan for many documents: docs/scaling.md says what its script prints."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_document_has_the_tables_of_the_script():
    command = [sys.executable, str(ROOT / "benchmarks" / "scaling.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    document = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    tables = [part for part in printed.split("\n\n") if part.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert table.strip() in document


def test_a_plan_worked_out_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scaling

    known = {"encode_core": 50, "encode_gpu": 5000, "embedded_bytes": 8, "embedded_ms": 4, "bytes": 30}
    known |= {"searched": 10, "load_ms": 0.5, "query_ms": 1, "query_ms_million": 3}
    given = scaling.parse(["--active-dims", "100", "--text-bytes", "1000", "--queries", "100"])
    plan = scaling.plan(36_000_000, known, given)
    assert plan.core_hours == pytest.approx(200)
    assert plan.gpu_hours == pytest.approx(2)
    assert plan.load_core_hours == pytest.approx(10)  # twice 36 M × 0.5 ms
    assert plan.disk == 2 * 36_000_000 * (100 * 30 + 1000)
    assert plan.searched == 2 * 36_000_000 * 100 * 10
    assert plan.shards == 4  # of 40 GB: 144 GB
    assert plan.processor_ms == pytest.approx(109)
    assert plan.nodes == 2  # 72 GB of caches, 10.9 cores, 288 GB
    assert plan.once == pytest.approx(2 * 3.0 + 10 * 0.04)
    assert plan.monthly == pytest.approx(730 * 2 * 1.0 + 288 * 0.08)
