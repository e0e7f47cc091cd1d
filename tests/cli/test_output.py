"""What the command line prints: for terminals, for pipes, for scripts; and how it ends."""

import errno
import io
import json
import logging
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

from st_l0 import cli
from st_l0.index import open_index

PYTHON = [sys.executable, "-m", "st_l0"]
IDS = ["\x1b[31mred\x1b[0m", "a\nb", "\u202egnp", "[bold]x[/bold] :fire:", "i" * 120, "7"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args, **options: CliRunner().invoke(cli.app, [str(arg) for arg in args], **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory, mlm_folder, idf_weights):
    """Folder of a tiny checkpoint."""
    from st_l0 import SparseEncoder
    from tiny_models import save_model

    folder = tmp_path_factory.mktemp("model")
    return save_model(SparseEncoder.from_mlm(mlm_folder, idf=idf_weights, device="cpu"), folder)


def all_words(ids):
    """Vectors in which every token weighs something, so that every query finds them."""
    from tiny_models import VOCABULARY

    return sp.csr_matrix(np.arange(1, len(ids) + 1, dtype=np.float32)[:, None] * np.ones(len(VOCABULARY)))


@pytest.fixture
def indexed(model, tmp_path):
    """An index whose ids are commands to a terminal and to rich."""
    index = open_index(tmp_path / "my-index", metadata={"model": model})
    index.add(IDS, all_words(IDS), [f"the cat \x1b[2J{place}" for place in range(len(IDS))])
    return tmp_path / "my-index"


def test_ids_texts_and_tokens_command_nothing(run, indexed):
    output = run("search", indexed, "cat", "--explain").stdout
    assert [character for character in output if not character.isprintable() and character != "\n"] == []
    hits = [line for line in output.splitlines() if " = " not in line]
    shown = {r"\x1b[31mred\x1b[0m", r"a\nb", r"\u202egnp", "[bold]x[/bold] :fire:", "i" * 120, "7"}
    assert {line[15:].partition("  ")[0] for line in hits} == shown, output
    assert all(r"\x1b[2J" in line for line in hits)


def test_search_as_json(run, indexed):
    """One line, ids as they are, and tokens that make the score."""
    result = run("search", indexed, "the \x1b[31mcat", "-k", "3", "--json", "--explain")
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    found = json.loads(result.stdout)
    assert set(found) == {"query", "hits"}
    assert found["query"] == "the \x1b[31mcat"
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    everything = open_index(indexed)
    for hit in found["hits"]:
        assert set(hit) == {"rank", "id", "score", "text", "tokens"}
        assert hit["id"] in everything
        assert hit["text"].startswith("the cat \x1b[2J")
        assert {"token", "score", "query", "document"} == set(hit["tokens"][0])
        assert sum(token["score"] for token in hit["tokens"]) == pytest.approx(hit["score"], rel=1e-5)
        for token in hit["tokens"]:
            assert token["score"] == pytest.approx(token["query"] * token["document"])
    assert "tokens" not in json.loads(run("search", indexed, "cat", "--json").stdout)["hits"][0]


def test_json_keeps_the_type_of_ids_and_knows_no_text(run, model, tmp_path):
    index = open_index(tmp_path / "numbers", metadata={"model": model})
    index.add([7, 8], all_words([7, 8]))
    found = json.loads(run("search", tmp_path / "numbers", "cat dog", "--json").stdout)["hits"]
    assert {(hit["id"], hit["text"]) for hit in found} == {(7, None), (8, None)}
    assert all(type(hit["id"]) is int for hit in found)


def test_errors_leave_standard_output_empty(run, indexed):
    for args in (("search", indexed, "zzz", "--json"), ("search", indexed, "--json")):
        result = run(*args)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


@pytest.fixture
def collection(tmp_path):
    folder = tmp_path / "cats"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        '{"_id": "a", "text": "the cat"}\n{"_id": "b", "text": "a dog"}\n'
        '{"_id": "c", "text": "the big cat"}\n'
    )
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "the big cat and a dog on a red tree"}\n')
    for split in ("test", "train"):
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    return folder


def test_evaluate_as_json(run, model, collection, monkeypatch):
    from st_l0 import evaluation

    plain = evaluation.evaluate

    def measure(*args, **options):
        report = plain(*args, **options)
        return {**report, "model": {**report["model"], "flops": float("nan")}}

    monkeypatch.setattr(evaluation, "evaluate", measure)
    result = run("evaluate", model, "--data", collection, "--no-bm25", "--json")
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    assert set(found) == {"collections", "average", "protocol"}
    assert found["collections"]["cats"]["documents"] == 3
    assert 0 <= found["collections"]["cats"]["model"]["ndcg@10"] <= 1
    assert found["average"]["model"]["flops"] is None


def test_mine_as_json(run, model, collection):
    result = run("mine", model, collection, "--output", "mined", "--number", "1", "--depth", "1:5", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    numbers = {"queries": 1, "pairs": 1, "rows": 1, "dropped": 0, "missing": 0, "own": 0}
    assert json.loads(result.stdout) == {"output": os.path.join("mined", "train.jsonl"), **numbers}  # noqa: PTH118


def test_a_table_in_a_pipe_is_whole(run, model, collection, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    long = collection.rename(collection.with_name("c" * 100))
    lines = run("evaluate", model, "--data", long, "--no-bm25").stdout.splitlines()
    assert any(line.startswith("c" * 100) for line in lines)
    assert not any("…" in line for line in lines)


def test_a_name_in_an_error_commands_nothing(run):
    result = run("train", "a\x1b[31m\nb\u202e.yaml", "--dry-run")
    assert result.exit_code == 2
    assert result.stderr.startswith(r"error: a\x1b[31m\nb\u202e.yaml: ")
    for args in (("a\x1b[2J",), ("search", "x", "y", "-k", "\x1b[2J"), ("search", "--\x1b[2J"), ("idf",)):
        result = run(*args)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert result.stderr.startswith("error: ")
        assert "--help)" in result.stderr
        assert "\x1b" not in result.stderr


def test_a_traceback_commands_nothing(run):
    result = run("--debug", "train", "a\x1b[31m.yaml", "--dry-run")
    assert "Traceback (most recent call last)" in result.stderr
    assert len(result.stderr.splitlines()) > 5
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ELOOP])
def test_a_name_that_no_machine_takes_is_an_input(number):
    from st_l0.cli.app import _describe

    message, code = _describe(OSError(number, os.strerror(number), "a\x1bb"))
    assert (message, code) == (rf"error: a\x1bb: {os.strerror(number)}; give another path", 2)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), os.strerror(errno.ENOSPC)),
        (Exception(f"I/O error: x (os error {errno.ENOSPC})"), os.strerror(errno.ENOSPC)),
        (RuntimeError("no file there (os error 2)"), None),
        (ValueError("a bug"), None),
    ],
)
def test_a_full_disk_names_the_output_however_a_library_reports_it(error, said):
    from st_l0.cli.app import _describe, writing

    with pytest.raises(Exception) as raised, writing("out/model"):
        raise error
    message, code = _describe(raised.value)
    assert code == 1
    assert message == f"error: out/model: {said}" if said else "--debug" in message


@pytest.mark.parametrize("kind", ["MemoryError", "torch", "allocator"])
def test_no_memory_is_the_machines_fault(kind):
    import torch

    from st_l0.cli.app import _describe

    error = {
        "MemoryError": MemoryError(),
        "torch": torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        "allocator": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"),
    }[kind]
    message, code = _describe(error)
    assert code == 1
    assert message.startswith("error: out of memory (")
    assert "\n" not in message


def test_logs_and_warnings_command_nothing(monkeypatch, capsys):
    from st_l0.cli import main

    factory, form = logging.getLogRecordFactory(), warnings.formatwarning
    monkeypatch.setattr(sys, "argv", ["st-l0", "--version"])
    try:
        with pytest.raises(SystemExit):
            main()
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        logging.getLogger("some.library").addHandler(handler)
        logging.getLogger("some.library").warning("%s: %d of them\nand more", "a\x1b[2J", 3)
        logging.getLogger("some.library").removeHandler(handler)
        assert stream.getvalue() == "a\\x1b[2J: 3 of them\\nand more\n"
        shown = warnings.formatwarning("a\x1b[2J\nb", UserWarning, "file.py", 3)
        assert shown == "file.py:3: UserWarning: a\\x1b[2J\\nb\n"
    finally:
        logging.setLogRecordFactory(factory)
        warnings.formatwarning = form


# Real processes.


@pytest.mark.skipif(os.name == "nt", reason="needs a shell of POSIX")
@pytest.mark.parametrize(
    ("redirection", "args", "code", "stdout", "stderr"),
    [
        (">&-", "recipes", 0, "", ""),
        ("2>&-", "train none.yaml", 2, "", ""),
        ("<&-", "search none", 2, "", "error: no QUERY was given"),
        (">&- 2>&- <&-", "search none", 2, "", ""),
        ("> /dev/full", "recipes", 1, "", "error: standard output: No space left on device"),
        ("| head -n 1", "recipes", 0, "df_flops\t", ""),
    ],
)
def test_streams_that_are_closed_or_full(tmp_path, redirection, args, code, stdout, stderr):
    if "/dev/full" in redirection and not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("no such device")
    command = f"{sys.executable} -m st_l0 {args} {redirection}"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == code
    assert ran.stdout.startswith(stdout)
    assert ran.stderr.startswith(stderr)
    assert ran.stderr.count("\n") == (1 if stderr else 0)


def test_any_terminal_encoding_takes_the_json(tmp_path, indexed):
    ran = subprocess.run(
        [*PYTHON, "search", str(indexed), "cat", "--json"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert {hit["id"] for hit in json.loads(ran.stdout.decode("ascii"))["hits"]} == set(IDS)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_a_terminal_cannot_show_is_replaced(indexed, encoding):
    ran = subprocess.run(
        [*PYTHON, "search", str(indexed), "cat"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert len(ran.stdout.decode(encoding).splitlines()) == len(IDS)


def test_the_exit_codes_are_documented(run):
    text = " ".join(run("--help").stdout.split())
    assert "Exit codes: 0 done; 1 the machine failed" in text
    assert "130 interrupted" in text
