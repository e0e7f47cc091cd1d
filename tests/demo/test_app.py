"""The JSON API over HTTP, and what keeps others out."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse

import pytest
from demo_data import DOCUMENTS, INJECTION, MODEL

from st_l0.demo.app import is_loopback
from st_l0.demo.openapi import ANSWERS

KINDS = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def check(value, schema, place="answer"):
    """A value against the part of JSON Schema that the API uses."""
    if "enum" in schema:
        assert value in schema["enum"], place
        return
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if value is None:
        assert "null" in kinds, place
        return
    assert any(
        isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))
        for kind in kinds
        if kind != "null"
    ), f"{place}: {value!r}"
    if isinstance(value, dict):
        assert value.keys() == schema["properties"].keys() == set(schema["required"]), place
        for name, inner in value.items():
            check(inner, schema["properties"][name], f"{place}.{name}")
    if isinstance(value, list):
        for inner in value:
            check(inner, schema["items"], f"{place}[]")


def test_answers_are_as_the_api_says(served, served_model, ask):
    described = ask(f"{served}/openapi.json").content
    assert described["openapi"] == "3.1.0" and described["paths"].keys() == ANSWERS.keys()
    asked = {
        "/about": "",
        "/search": "?q=red+fish&k=3&bm25=auto&prune=0.1",
        "/encode_query": "?q=red+fish",
        "/explain": "?q=red+fish&id=long&bm25=1",
    }
    for path, query in asked.items():
        answer = ask(f"{served}{path}{query}")
        assert answer.status == 200
        operation = described["paths"][path]["get"]
        check(answer.content, operation["responses"]["200"]["content"]["application/json"]["schema"], path)
        known = {one["name"] for one in operation.get("parameters", ())}
        assert set(urllib.parse.parse_qs(query[1:])) <= known
    check(ask(f"{served_model}/about").content, ANSWERS["/about"])
    check(ask(f"{served_model}/encode_query?q=fish").content, ANSWERS["/encode_query"])
    answer = ask(f"{served_model}/encode_document", {"text": "A red fish.", "q": "fish", "prune": 0.5})
    check(answer.content, ANSWERS["/encode_document"])
    assert answer.content["score"] > 0
    error = described["paths"]["/search"]["get"]["responses"]["400"]["content"]["application/json"]["schema"]
    check(ask(f"{served}/search?k=0").content, error)


def test_every_documented_parameter_is_taken(served, ask):
    described = ask(f"{served}/openapi.json").content["paths"]
    values = {"q": "fish", "k": 2, "prune": 0, "bm25": 0, "model": "true", "id": "long", "explain": "false"}
    for path, operations in described.items():
        for one in operations.get("get", {}).get("parameters", ()):
            if one["name"] != "filter":  # of an index on a server
                asked = {"q": "fish", "id": "long"} if path == "/explain" else {}
                query = urllib.parse.urlencode(asked | {one["name"]: values[one["name"]]})
                assert ask(f"{served}{path}?{query}").status == 200, (path, one["name"])


def test_parts_sum_to_scores_and_are_those_of_the_index(served, ask):
    hits = ask(f"{served}/search?q=red+fish+bread&bm25=2.5").content["hits"]
    assert len(hits) > 1
    for hit in hits:
        assert hit["score"] == pytest.approx(sum(part["score"] for part in hit["parts"]), rel=1e-5)
    id = urllib.parse.quote(hits[0]["id"])
    explained = ask(f"{served}/explain?q=red+fish+bread&bm25=2.5&id={id}").content
    assert explained["parts"] == hits[0]["parts"]
    assert "".join(piece["text"] for piece in explained["pieces"]) == DOCUMENTS[hits[0]["id"]]


def test_an_encoded_document_is_that_of_the_index(served, ask):
    stored = ask(f"{served}/explain?q=fish&id=long").content
    fresh = ask(f"{served}/encode_document", {"text": DOCUMENTS["long"], "q": "fish"}).content
    assert fresh["score"] == pytest.approx(stored["score"], rel=1e-4)
    assert {one["id"] for one in fresh["tokens"]} == {one["id"] for one in stored["tokens"]}


def test_long_texts_are_cut(served, ask):
    (hit,) = ask(f"{served}/search?q=river&id=long").content["hits"]
    assert hit["cut"] and len(hit["text"]) == 600


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/search?q=fish&k=x", "k must be a number"),
        ("/search?q=fish&k=101", "k must be from 1 to 100"),
        ("/search?q=fish&size=3", "no parameter 'size'"),
        ("/search?q=fish&bm25=much", "bm25 must be a number"),
        ("/search?q=fish&bm25=inf", "weight of BM25"),
        ("/search?q=fish&prune=2", "prune must be"),
        ("/search?q=fish&explain=yes", "explain must be true or false"),
        ("/search?q=fish&filter=lang", "FIELD=VALUE"),
        ("/search?q=fish&filter=lang%3Den", "no fields"),
        ("/search?q=" + "fish" * 501, "2,004 characters"),
        ("/explain?q=fish", "id is missing"),
        ("/explain?q=fish&id=none", "'none' is not in the index"),
        ("/about?q=fish", "it takes none"),
    ],
)
def test_refused_in_one_line(served, ask, path, message):
    answer = ask(served + path)
    assert answer.status == 400 and answer.content.keys() == {"error"}
    assert message in answer.content["error"] and "\n" not in answer.content["error"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"{", "application/json", 400, "no JSON"),
        (b"[]", "application/json", 400, "no text"),
        (b'{"text": 3}', "application/json", 400, "no text"),
        (b'{"text": " "}', "application/json", 400, "is empty"),
        (b'{"text": "a", "k": 3}', "application/json", 400, "nothing else"),
        (b'{"text": "\\ud800"}', "application/json", 400, "surrogate"),
        (b'{"text": "' + b"a" * 20_001 + b'"}', "application/json", 400, "20,001 characters"),
        (b'{"text": "' + b"a" * 300_000 + b'"}', "application/json", 413, "longer than"),
        (b'{"text": "a"}', "text/plain", 415, "application/json"),
    ],
)
def test_bodies_that_are_refused(served_model, ask, body, kind, status, message):
    answer = ask(f"{served_model}/encode_document", body, **{"content-type": kind})
    assert answer.status == status and message in answer.content["error"]


def test_paths_and_methods_that_are_not_there(served, ask):
    assert ask(f"{served}/nowhere").status == 404
    assert ask(f"{served}/search", b"{}").status == 405
    assert ask(f"{served}/%2e%2e/app.py").status == 404


@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "evil.example:8000", "[::2]", ""])
def test_other_names_of_this_server_are_refused(served, ask, name):
    answer = ask(f"{served}/search?q=fish", host=name)
    assert answer.status in (400, 421) and "hits" not in answer.content


@pytest.mark.parametrize("name", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"])
def test_its_own_names_are_taken(served, ask, name):
    assert ask(f"{served}/about", host=name).status == 200


def test_headers_and_page(served, ask):
    page = ask(f"{served}/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path in ("/", "/script.js", "/style.css", "/about", "/nowhere"):
        headers = ask(served + path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    assert not re.findall(r"https?://|//cdn| style=| on[a-z]+=", page.content)
    script = ask(f"{served}/script.js").content
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_an_answer_is_no_page(served, ask):
    answer = ask(f"{served}/search?q=bread")
    assert answer.headers.get_content_type() == "application/json"
    assert answer.content["hits"][0]["text"] == INJECTION


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False)])
def test_loopback(host, local):
    assert is_loopback(host) is local and is_loopback("localhost") and not is_loopback("example.org")


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "st_l0", "demo", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


def test_ctrl_c_ends_the_command_quietly(demo_index, ask):
    process = start(demo_index, "--port", 0)
    address = process.stdout.readline().split()[0]
    about = ask(f"{address}about").content
    assert (about["name"], about["model"], about["documents"]) == ("animals-index", "st-l0-mini", 5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors.strip()) == (0, "", "")


def test_a_demo_of_an_index_imports_no_torch(demo_index):
    script = (
        "import sys\n"
        "from st_l0.demo.app import make_app\n"
        "from st_l0.demo.opening import open_demo\n"
        "from st_l0.demo.service import Question\n"
        f"demo = open_demo({str(demo_index)!r})\n"
        "make_app(demo)\n"
        "assert demo.search(Question('fish', bm25='auto'))['hits']\n"
        "demo.explain(Question('fish'), 'long')\n"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_errors_of_the_command(demo_index, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = [
            ((demo_index, "--port", port), f"port {port} of 127.0.0.1 cannot be had"),
            ((tmp_path / "none", "--port", 0), "no model there"),
            ((MODEL, "--model", MODEL, "--port", 0), "is no index"),
            ((demo_index, "--host", "192.0.2.1"), "cannot be had"),
        ]
        running = [(start(*arguments), message) for arguments, message in cases]
        for process, message in running:
            output, errors = process.communicate(timeout=60)
            assert process.returncode == 2 and output == ""
            assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1


def test_an_extra_that_is_missing(monkeypatch):
    from typer.testing import CliRunner

    from st_l0 import cli

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(cli.app, ["demo", str(MODEL)])
    assert result.exit_code == 2 and "pip install 'st-l0[demo]'" in result.output
