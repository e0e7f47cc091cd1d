"""Queries that a batch's documents draw from the pool."""

import numpy as np
import pytest
import torch

from st_l0.errors import InputError
from st_l0.teachers import EnsembleTeacher, QueryPool, load_teacher, write_bm25
from st_l0.teachers import pool as pool_module
from st_l0.teachers.model_teachers import CrossEncoderTeacher, EmbeddingTeacher


class Line(EmbeddingTeacher):
    """Texts are numbers (what stands behind a letter); near ones score high."""

    def __init__(self, name="line", sign=1.0):
        self.name, self.sign, self.embedded = name, sign, []

    def embed(self, texts, side):
        self.embedded.append((side, list(texts)))
        return torch.tensor([[float(text.lstrip("qd")), 1.0] for text in texts])

    def _all(self, queries, documents):
        # Times the length of the query's vector, which nearness divides by.
        gaps = (queries[:, None, 0] - documents[None, :, 0]).abs()
        return -self.sign * gaps * queries.norm(dim=1, keepdim=True)


QUERIES = [f"q{i}" for i in range(100)]


def test_the_nearest_are_drawn(monkeypatch):
    monkeypatch.setattr(pool_module, "_NEAREST", 4)
    pool = QueryPool(EnsembleTeacher([Line()]), [*QUERIES, "q11"], 4)
    assert pool.queries == QUERIES
    found = pool.draw(["q10", "q51"], ["d10.4", "d50.6"])
    # Of 9, 10, 11, 12 and of 49, 50, 51, 52, without what the batch has, two each.
    assert len(set(found)) == len(found) == 4
    assert len(set(found) & {"q9", "q11", "q12"}) == len(set(found) & {"q49", "q50", "q52"}) == 2
    assert pool.draw(["q10", "q51"], ["d10.4", "d50.6"]) == found  # as after a resume
    others = [pool.draw([f"q{i}"], ["d10.4", "d50.6"]) for i in range(60, 80)]
    assert len(set(map(tuple, others))) > 5  # another batch draws anew
    seen = {query for drawn in others for query in drawn}
    assert seen == {"q9", "q10", "q11", "q12", "q49", "q50", "q51", "q52"}


def test_the_pool_is_embedded_once():
    teacher = Line()
    ensemble = EnsembleTeacher([teacher])
    pool = QueryPool(ensemble, QUERIES, 6)
    found = pool.draw(["q1"], ["d1", "d1", "d2"])
    ensemble.score_batch(["q1", *found], [["d1", "d1", "d2"]])
    pool.draw(["q1"], ["d4"])
    expected = [("query", QUERIES), ("document", ["d1", "d2"]), ("document", ["d4"])]
    assert teacher.embedded == expected
    teacher.score_all(["q1", "q200"], ["d4"])
    assert teacher.embedded[3:] == [("query", ["q1", "q200"])]


def test_each_teacher_draws_its_share(monkeypatch):
    monkeypatch.setattr(pool_module, "_NEAREST", 20)
    near, far = Line("near"), Line("far", sign=-1.0)
    found = QueryPool(EnsembleTeacher([near, far], weights=[0.7, 0.3]), QUERIES, 25).draw([], ["d0", "d1"])
    numbers = [int(text[1:]) for text in found]
    assert sum(n < 20 for n in numbers) == 18 and sum(n >= 80 for n in numbers) == 7  # 17.5, and what is left


def test_there_may_be_fewer(monkeypatch):
    monkeypatch.setattr(pool_module, "_NEAREST", 4)
    assert len(QueryPool(EnsembleTeacher([Line()]), QUERIES, 50).draw(["q3"], ["d3", "d4"])) == 4
    assert QueryPool(EnsembleTeacher([Line()]), ["q3"], 50).draw(["q3"], ["d3", "d4"]) == []


def test_a_long_query_is_not_near_for_its_length(tmp_path):
    """BM25 of a query with more words is larger, whatever they are."""
    texts = ["green apple", "red apple tree in bloom", "stone"]
    write_bm25(tmp_path / "bm25.json", texts)
    teacher = load_teacher(f"bm25:{tmp_path / 'bm25.json'}", device="cpu")
    queries = ["green apple", "green apple stone roof house wall door"]
    assert len(set(teacher.score_all(queries, texts[:1]).flatten().tolist())) == 1
    embedded = teacher.remember(queries)
    near = teacher.nearness(embedded, texts[:1]).flatten()
    assert torch.equal(teacher.nearness(embedded, texts[:1], np.array([1])).flatten(), near[1:])
    assert (near[0] / near[1]).item() == pytest.approx((7 / 2) ** 0.5)


def test_of_a_large_pool_a_part_is_seen(monkeypatch):
    monkeypatch.setattr(pool_module, "_CANDIDATES", 10)
    pool = QueryPool(EnsembleTeacher([Line()]), QUERIES, 10)
    draws = [pool.draw([f"q{i}"], ["d50"]) for i in range(40)]
    assert all(len(drawn) >= 9 for drawn in draws)
    assert len({query for drawn in draws for query in drawn}) > 60
    # The nearest of those that it sees: one of some 50 is within a few of the document.
    monkeypatch.setattr(pool_module, "_CANDIDATES", 50)
    monkeypatch.setattr(pool_module, "_NEAREST", 1)
    near = [pool.draw([f"q{i}"], ["d50.4"]) for i in range(10)]
    assert [len(drawn) for drawn in near] == [1] * 10
    assert all(abs(int(query[1:]) - 50) < 10 for drawn in near for query in drawn)


def test_pools_may_share_a_teacher():
    teacher = EnsembleTeacher([Line()])
    first, _ = QueryPool(teacher, QUERIES, 4), QueryPool(teacher, ["q1000", "q2000"], 4)
    assert first.draw([], ["d50"]) == QueryPool(EnsembleTeacher([Line()]), QUERIES, 4).draw([], ["d50"])


def test_a_teacher_that_reads_pairs_is_refused_before_the_others_read():
    teacher, first = object.__new__(CrossEncoderTeacher), Line()
    teacher.name = "cross-encoder:x"
    with pytest.raises(InputError, match="cross-encoder:x reads query and document together"):
        QueryPool(EnsembleTeacher([first, teacher]), QUERIES, 5)
    assert not first.embedded
