"""Queries that a batch's documents draw from the pool."""

import pytest
import torch

from st_l0.errors import InputError
from st_l0.teachers import EnsembleTeacher, QueryPool
from st_l0.teachers import pool as pool_module
from st_l0.teachers.models import CrossEncoderTeacher, EmbeddingTeacher


class Line(EmbeddingTeacher):
    """Texts are numbers (what stands behind a letter); near ones score high."""

    def __init__(self, name="line", sign=1.0):
        self.name, self.sign, self.embedded = name, sign, []

    def embed(self, texts, side):
        self.embedded.append((side, list(texts)))
        return torch.tensor([float(text.lstrip("qd")) for text in texts])

    def _all(self, queries, documents):
        return -self.sign * (queries[:, None] - documents[None]).abs()


QUERIES = [f"q{i}" for i in range(100)]


def test_the_nearest_are_drawn(monkeypatch):
    monkeypatch.setattr(pool_module, "_NEAREST", 4)
    pool = QueryPool(EnsembleTeacher([Line()]), [*QUERIES, "q3"], 6)
    found = pool.draw(["q10", "q51"], ["d10.4", "d50.6"])
    # Of 9, 10, 11, 12 and of 49, 50, 51, 52 three each, without what the batch has.
    assert set(found) <= {"q9", "q11", "q12", "q49", "q50", "q52"} and 4 <= len(found) <= 6
    assert len(set(found)) == len(found)
    assert pool.draw(["q10", "q51"], ["d10.4", "d50.6"]) == found  # as after a resume
    others = [pool.draw([f"q{i}"], ["d10.4", "d50.6"]) for i in range(60, 80)]
    assert len(set(map(tuple, others))) > 5  # another batch draws anew
    seen = {query for drawn in others for query in drawn}
    assert seen == {"q9", "q10", "q11", "q12", "q49", "q50", "q51", "q52"}


def test_the_pool_is_embedded_once():
    teacher = Line()
    pool = QueryPool(EnsembleTeacher([teacher]), QUERIES, 6)
    for _ in range(2):
        pool.draw([], ["d1", "d1", "d2"])
    assert [side for side, _ in teacher.embedded] == ["query", "document", "document"]
    assert teacher.embedded[0][1] == QUERIES and teacher.embedded[1][1] == ["d1", "d2"]


def test_each_teacher_draws_its_share(monkeypatch):
    monkeypatch.setattr(pool_module, "_NEAREST", 20)
    near, far = Line("near"), Line("far", sign=-1.0)
    found = QueryPool(EnsembleTeacher([near, far], weights=[3, 1]), QUERIES, 16).draw([], ["d0"])
    numbers = [int(text[1:]) for text in found]
    assert len(numbers) == 16 and sum(n < 20 for n in numbers) == 12 and sum(n >= 80 for n in numbers) == 4


def test_no_more_than_asked():
    found = QueryPool(EnsembleTeacher([Line()]), QUERIES, 5).draw([], [f"d{i}" for i in range(0, 100, 10)])
    assert len(found) == 5


def test_of_a_large_pool_a_part_is_seen(monkeypatch):
    monkeypatch.setattr(pool_module, "_CANDIDATES", 10)
    pool = QueryPool(EnsembleTeacher([Line()]), QUERIES, 10)
    draws = [pool.draw([f"q{i}"], ["d50"]) for i in range(40)]
    assert all(len(drawn) >= 9 for drawn in draws)
    assert len({query for drawn in draws for query in drawn}) > 60


def test_a_teacher_that_reads_pairs_is_refused():
    teacher = object.__new__(CrossEncoderTeacher)
    teacher.name = "cross-encoder:x"
    with pytest.raises(InputError, match="cross-encoder:x reads query and document together"):
        QueryPool(EnsembleTeacher([teacher]), QUERIES, 5)
