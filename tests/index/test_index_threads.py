"""Batches in several threads, and several threads that search at once."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from index_model import VOCABULARY, integers

from st_l0.index import EmbeddedIndex
from st_l0.index.embedded import searching


@pytest.fixture
def threads(monkeypatch):
    """Names of the threads that search; four may, and so many queries are there that each gets some."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(searching, "_ROWS", 10)
    monkeypatch.setattr(searching, "_QUERIES", 3)
    names, search, all_are_here = set(), searching._search, threading.Barrier(4)

    def noted(*arguments):
        name = threading.current_thread().name
        if name not in names and name.startswith("st_l0-search"):
            names.add(name)
            all_are_here.wait(timeout=30)
        return search(*arguments)

    monkeypatch.setattr(searching, "_search", noted)
    return names


def make(generator, documents=200, batch=60):
    """An index of several segments, with deletions."""
    index = EmbeddedIndex()
    for start in range(0, documents, batch):
        stop = min(start + batch, documents)
        index.add([f"d{i}" for i in range(start, stop)], integers(generator, stop - start), None)
    index.delete(["d0", "d7", "d150"])
    return index


def as_lists(results):
    return [list(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True)) for hits in results]


@pytest.mark.parametrize("allowed", [{}, {"ids": [f"d{i}" for i in range(0, 200, 3)]}])
def test_threads_find_what_one_by_one_finds(generator, threads, allowed):
    index, queries = make(generator), integers(generator, 50, negative=True)
    one_by_one = [index.search(query, 9, **allowed)[0] for query in queries]
    assert threads == set()
    batch = index.search(queries, 9, **allowed)
    assert threads == {f"st_l0-search_{i}" for i in range(4)}
    assert as_lists(batch) == as_lists(one_by_one)
    assert len({tuple(hits.ids) for hits in batch}) > 10


@pytest.mark.parametrize(("torch_threads", "rows"), [(1, 10), (4, 150)])
def test_one_thread_where_torch_has_one_or_the_index_is_small(
    generator, threads, monkeypatch, torch_threads, rows
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: torch_threads)
    monkeypatch.setattr(searching, "_ROWS", rows)
    index = make(generator)
    assert len(index.search(integers(generator, 50))) == 50
    assert threads == set()


def test_an_error_in_a_thread_reaches_the_caller(generator, threads, monkeypatch):
    index, queries = make(generator), integers(generator, 50)
    before = as_lists(index.search(queries))

    def fail(*arguments):
        raise MemoryError("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(searching, "top_k", fail)
        with pytest.raises(MemoryError, match="no memory left"):
            index.search(queries)
    assert as_lists(index.search(queries)) == before


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_searches_at_once_do_not_disturb_each_other(tmp_path, generator, place):
    path = tmp_path / "index"
    make(generator, 3000, 900).save(path)
    index = EmbeddedIndex(path)
    if place == "memory":
        index, source = EmbeddedIndex(), index
        index.add(source.ids().tolist(), np.repeat(integers(generator, 1), len(source), axis=0))
        index.update([f"d{i}" for i in range(1, 6)], integers(generator, 5))
    queries = [integers(generator, 5, negative=True) for _ in range(40)]
    expected = [as_lists(index.search(batch, 20)) for batch in queries]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda batch: as_lists(index.search(batch, 20)), queries * 3))
    assert found == expected * 3


def test_a_search_after_a_change_does_not_see_old_sums(generator):
    index, query = EmbeddedIndex(), np.ones(VOCABULARY)
    index.add(["a"], np.ones((1, VOCABULARY)))
    assert index.search(query)[0].scores.tolist() == [VOCABULARY]
    index.add(["b"], np.eye(1, VOCABULARY))
    assert index.search(np.eye(1, VOCABULARY)[0])[0].ids.tolist() == ["a", "b"]
    assert index.search(np.eye(1, VOCABULARY, 1)[0])[0].scores.tolist() == [1.0]
    assert index.search(np.zeros(VOCABULARY))[0].scores.tolist() == []


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("2,1", 2), ("0", 5), ("many", 5), (None, 5)])
def test_the_number_of_threads_without_torch(monkeypatch, given, expected):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(5)), raising=False)
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert searching._threads() == expected
    assert "torch" not in sys.modules
