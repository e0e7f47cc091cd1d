from __future__ import annotations

import gzip
import random
import re

import numpy as np
import pytest

from st_l0.errors import InputError
from st_l0.evaluation import quality_per_query, read_run, write_run


def test_lines_by_hand(tmp_path):
    run = {
        "q2": {"a": 0.5, "c": 1.0, "b": 1.0},  # the tie goes to the larger id, as in trec_eval
        "none": {},
        "q1": {"d": float(np.float32(0.1))},
    }
    path = tmp_path / "new" / "pets.model.run"
    write_run(run, path, "mini")
    assert path.read_text() == (
        "q2 Q0 c 1 1.0 mini\nq2 Q0 b 2 1.0 mini\nq2 Q0 a 3 0.5 mini\nq1 Q0 d 1 0.10000000149011612 mini\n"
    )
    assert read_run(path) == {"q2": run["q2"], "q1": run["q1"]}
    assert list(read_run(path)["q2"]) == ["c", "b", "a"]


def test_a_round_trip_keeps_every_bit(tmp_path):
    draw = np.random.default_rng(0)
    scores = draw.random((20, 50), dtype=np.float32) * 10.0 ** draw.integers(-30, 30, (20, 50))
    run = {
        f"q{row}": dict(zip(map(str, range(50)), values, strict=True))
        for row, values in enumerate(scores.astype(np.float32).tolist())
    }
    write_run(run, tmp_path / "one.run")
    assert read_run(tmp_path / "one.run") == run
    singles = {query: {id: np.float32(score) for id, score in found.items()} for query, found in run.items()}
    write_run(singles, tmp_path / "two.run")
    assert (tmp_path / "two.run").read_bytes() == (tmp_path / "one.run").read_bytes()


def test_a_run_measures_the_same_after_a_round_trip(tmp_path):
    dice = random.Random(0)
    documents = [f"d{number}" for number in range(30)]
    run = {f"q{n}": {id: dice.randrange(9) / 3 for id in dice.sample(documents, 15)} for n in range(20)}
    qrels = {query: {id: dice.randrange(3) for id in dice.sample(documents, 9)} for query in run}
    write_run(run, tmp_path / "run")
    assert quality_per_query(qrels, read_run(tmp_path / "run")) == quality_per_query(qrels, run)


# Id → what stands in the file.
WRITTEN = {
    "a b": r"a\u0020b",
    " a": r"\u0020a",
    "tab\there": r"tab\u0009here",
    "line\nfeed": r"line\u000afeed",
    "a\u00a0b\u2028c": r"a\u00a0b\u2028c",
    r"back\slash": r"back\slash",
    r"space \ and": r"space\u0020\u005c\u0020and",
    r"a\u0020b": r"a\u005cu0020b",
    "100%": "100%",
    "é": "é",
    "\\": "\\",
}


def test_white_space_in_ids_is_escaped(tmp_path):
    run = {id: dict.fromkeys(WRITTEN, 1.0) for id in WRITTEN}
    write_run(run, tmp_path / "run")
    lines = (tmp_path / "run").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert all(len(line.split()) == 6 for line in lines)
    pairs = [(WRITTEN[query], WRITTEN[id]) for query in run for id in sorted(run, reverse=True)]
    assert [(line.split()[0], line.split()[2]) for line in lines] == pairs
    assert read_run(tmp_path / "run") == run


def test_runs_of_others_are_read(tmp_path):
    path = tmp_path / "theirs.run.gz"
    path.write_bytes(gzip.compress(b"q1\t0\td1\t0\t12\tx\r\n\n301 Q0  FR-2 7 -1e-3 y"))
    assert read_run(path) == {"q1": {"d1": 12.0}, "301": {"FR-2": -0.001}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 a 1 1.0", "5 columns; give query Q0 document rank score tag"),
        ("q Q0 a 1 1.0 my tag", "7 columns; give"),
        ("q Q0 a 1 high x", "score 'high' is no finite number"),
        ("q Q0 a 1 nan x", "score 'nan' is no finite number"),
        ("q Q0 a 1 inf x", "score 'inf' is no finite number"),
        ("q Q0 b 2 0.5 x", "document 'b' of query 'q' occurs twice"),
    ],
)
def test_unusable_lines(tmp_path, line, message):
    path = tmp_path / "run"
    path.write_text(f"q Q0 b 1 0.5 x\n{line}\n")
    with pytest.raises(InputError, match=re.escape(f"{path}:2: {message}")):
        read_run(path)


@pytest.mark.parametrize(
    ("run", "tag", "message"),
    [
        ({"q": {"a": 1.0}}, "my tag", "tag 'my tag' is not one word"),
        ({"q": {"a": 1.0}}, "", "tag '' is not one word"),
        ({"q": {"a": 1.0}}, "tag\n", r"tag 'tag\n' is not one word"),
        ({"": {"a": 1.0}}, "x", "an id is empty"),
        ({"q": {"": 1.0}}, "x", "an id is empty"),
        ({"q": {"a": float("nan")}}, "x", "document 'a' of query 'q' has the score nan"),
        ({"q": {"a": float("inf")}}, "x", "document 'a' of query 'q' has the score inf"),
    ],
)
def test_what_cannot_be_written_leaves_the_former_file(tmp_path, run, tag, message):
    path = tmp_path / "run"
    write_run({"q": {"b": 1.0}}, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=re.escape(f"{path}: {message}")) as caught:
        write_run({"p": {"b": 1.0}} | run, path, tag)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
