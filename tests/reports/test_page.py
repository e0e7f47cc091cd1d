"""The page as a file and in a browser."""

import html.parser
import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from st_l0 import cli
from st_l0.errors import InputError
from st_l0.evaluation.significance import holm, randomisation_test
from st_l0.reports.page import write_page
from st_l0.reports.systems import read_systems


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_page(read_systems([runs]), folder / "report.html", title="Runs <& more>", queries=2)


def test_the_page_says_its_protocol_and_its_bm25(page):
    text = " ".join(page.read_text().split())
    assert "queries without hits count 0. BM25: Lucene" in text


class Cells(html.parser.HTMLParser):
    """Numbers of the tables: (table, system, column) → the value, and the text that is shown."""

    def __init__(self):
        super().__init__()
        self.found, self.shown, self.at, self.value, self.links = {}, {}, [None] * 3, None, []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.links += [given[key] for key in ("src", "href", "xlink:href") if key in given]
        if tag == "table":
            self.at = [given["id"], None, None]
        elif tag == "tr" and self.at[0]:
            self.at[1] = given.get("data-system")
        elif tag == "td":
            self.at[2] = given.get("data-key", given.get("data-collection"))
        elif tag == "data" and self.at[0]:
            self.value = float(given["value"])
            self.found[tuple(self.at)] = self.value

    def handle_endtag(self, tag):
        if tag == "table":
            self.at = [None] * 3

    def handle_data(self, data):
        if self.value is not None:
            self.shown[tuple(self.at)] = data
            self.value = None


def differences(found):
    """Query to what the model has more than BM25."""
    return {
        query: value["ndcg@10"] - found["bm25"][query]["ndcg@10"] for query, value in found["model"].items()
    }


def texts(file):
    return {row["_id"]: row["text"] for row in map(json.loads, file.read_text().splitlines())}


def parse(page):
    cells = Cells()
    cells.feed(page.read_text())
    return cells


def test_numbers_of_the_page_are_those_of_the_evaluations(page, numbers):
    cells = parse(page)
    for name, found in numbers.items():
        average = found["average"]["model"]
        for key in ("ndcg@10", "mrr@10", "recall@100", "flops", "query_active_dims", "document_active_dims"):
            assert cells.found["averages", name, key] == average[key]
        assert cells.shown["averages", name, "ndcg@10"] == f"{average['ndcg@10']:.3f}"
        for collection, report in found["collections"].items():
            assert cells.found["collections", name, collection] == report["model"]["ndcg@10"]
            assert cells.found["recall@100", name, collection] == report["model"]["recall@100"]
            assert cells.found["collections", "BM25", collection] == report["bm25"]["ndcg@10"]
        assert cells.found["collections", name, "average"] == average["ndcg@10"]
    written = json.loads(page.with_suffix(".json").read_text())
    assert written["systems"]["a-2"]["average"] == pytest.approx(numbers["a-2"]["average"]["model"])


def test_tests_are_paired_and_corrected_together(page, runs):
    written = json.loads(page.with_suffix(".json").read_text())
    assert written["baseline"] == "BM25"
    expected = {}
    for name in ("a-1", "a-2", "a-3"):
        per_query = json.loads((runs / name / "evaluation.per_query.json").read_text())
        rows = {one: list(differences(found).values()) for one, found in per_query.items()}
        for collection, row in rows.items():
            expected[name, collection] = (sum(row) / len(row), randomisation_test([row]))
        means = [sum(row) / len(row) for row in rows.values()]
        expected[name, "average"] = (sum(means) / 2, randomisation_test(list(rows.values())))
    corrected = holm([p for _, p in expected.values()])
    text = page.read_text()
    for ((name, part), (difference, p)), right in zip(expected.items(), corrected, strict=True):
        test = written["systems"][name]["tests"][part]
        assert test["difference"] == pytest.approx(difference) and test["p"] == p
        assert test["p_corrected"] == pytest.approx(right)
        shown = "&lt; 0.001" if right < 0.001 else f"{right:.3f}"
        assert f"<small>{difference:+.3f} ({shown}){'*' if right < 0.05 else ''}</small>" in text
    assert set(written["systems"]["BM25"]["tests"].values()) == {None}


def test_it_needs_nothing_else_and_data_is_no_markup(page):
    text = page.read_text()
    assert not [link for link in parse(page).links if not link.startswith("#")]
    assert not re.search(r"<script|<link|@import|url\((?!#)|https?://(?!www\.w3\.org/)", text)
    assert "<two>" not in text and "&lt;two&gt;" in text and "Runs &lt;&amp; more&gt;" in text
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    assert len(text) < 400_000


def test_figures_are_of_what_was_measured_and_varied(page):
    names = sorted(path.name for path in page.parent.iterdir())
    drawn = ("dims", "flops", "lambda")
    figures = [f"report.ndcg_{name}.{kind}" for name in drawn for kind in ("png", "svg")]
    assert names == sorted(["report.html", "report.json", *figures])
    svg = (page.parent / "report.ndcg_lambda.svg").read_text()
    assert "λ, weight of the document penalty" in svg and "BM25" in svg and "#010203" not in svg
    assert (page.parent / "report.ndcg_flops.png").read_bytes().startswith(b"\x89PNG")
    assert page.read_text().count("currentColor") > 10


def test_queries_are_those_that_differ_most_and_say_why(page, runs):
    text = page.read_text()
    per_query = json.loads((runs / "a-1" / "evaluation.per_query.json").read_text())["one"]
    found = differences(per_query)
    lost = sorted((value, query) for query, value in found.items() if value < 0)
    shown = re.findall(r'data-system="a-1" data-collection="one" data-kind="lost" data-query="(\w+)"', text)
    assert [found[query] for query in shown] == [value for value, _ in lost[:2]]
    assert "the best relevant one: rank " in text and 'class="tokens"' in text
    from st_l0 import SparseEncoder

    model = SparseEncoder.from_pretrained(runs / "a-1" / "model", device="cpu")
    block = text[text.index(f'data-collection="one" data-kind="lost" data-query="{shown[0]}"') :]
    document = re.search(r"<b>(d\d+)</b>", block)[1]
    queries, corpus = texts(runs / "one" / "queries.jsonl"), texts(runs / "one" / "corpus.jsonl")
    best = model.explain(queries[shown[0]], corpus[document]).matches[:1]
    for match in best:
        assert f"<b>{match.token}</b> {match.contribution:.2f}" in block[: block.index("</details>")]


def test_another_baseline_and_one_run(runs, tmp_path):
    options = ["--output", str(tmp_path / "r.html"), "--baseline", "a-3", "--queries", "0"]
    found = CliRunner().invoke(cli.app, ["report", str(runs), *options])
    assert found.exit_code == 0 and found.output.strip() == f"report: {tmp_path}/r.html"
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["baseline"] == "a-3" and written["systems"]["a-3"]["tests"]["one"] is None
    assert written["systems"]["BM25"]["tests"]["one"]["p"] > 0
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(runs / "a-1" / "evaluation.json", alone)
    found = CliRunner().invoke(cli.app, ["report", str(alone), "--output", str(tmp_path / "alone.html")])
    assert found.exit_code == 0
    text = (tmp_path / "alone.html").read_text()
    assert "No numbers of single queries were kept" in text and "<details" not in text


def test_what_is_refused(runs, tmp_path):
    systems = read_systems([runs])
    with pytest.raises(InputError, match="no such system; there are BM25, a-1, a-2, a-3"):
        write_page(systems, tmp_path / "r.html", title="", baseline="b")
    with pytest.raises(InputError, match="give it a name that ends"):
        write_page(systems, tmp_path / "r.txt", title="")
    with pytest.raises(InputError, match="nothing to report"):
        write_page(systems[:1], tmp_path / "r.html", title="")
    (tmp_path / "r.html").write_text("<html>mine</html>")
    with pytest.raises(InputError, match="page of st-l0 report"):
        write_page(systems, tmp_path / "r.html", title="")
    assert (tmp_path / "r.html").read_text() == "<html>mine</html>"
