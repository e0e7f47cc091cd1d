import numpy as np
import pytest

from st_l0.index.embedded import merging
from st_l0.index.embedded.segment import LiveSegment, Segment, Strings
from st_l0.index.embedded.writing import write_segment
from st_l0.utils.sparse import as_csr


def segment_of(size):
    """A segment with one document and ``size - 1`` postings."""
    return LiveSegment(Segment.build(["a"], as_csr(np.ones((1, size - 1), dtype=np.float32))))


def planned(sizes):
    return [[live.segment.size for live in group] for group in merging.plan([segment_of(s) for s in sizes])]


@pytest.fixture(autouse=True)
def numbers(monkeypatch):
    monkeypatch.setattr(merging, "FAN_IN", 3)
    monkeypatch.setattr(merging, "SMALL", 10)
    monkeypatch.setattr(merging, "MAX_SIZE", 1000)


def test_tiers_grow_by_the_fan_in():
    assert [merging._tier(size) for size in (1, 10, 11, 30, 31, 90, 91)] == [0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([5], [[5]]),
        ([5, 5], [[5], [5]]),
        ([5, 5, 5], [[5, 5, 5]]),
        ([80, 5, 9], [[80], [5], [9]]),
        ([80, 5, 9, 2], [[80], [5, 9, 2]]),
        ([20, 20, 5, 20], [[20, 20, 5, 20]]),  # the third of its kind takes what lies between along
        ([80, 5, 20], [[80], [5, 20]]),  # no small one stays in front of a larger one
        ([600, 5, 5, 5], [[600], [5, 5, 5]]),
        ([600, 300, 300, 300], [[600], [300, 300, 300]]),
        ([400, 400, 400], [[400, 400], [400]]),  # never beyond the limit
        ([501, 501, 501], [[501], [501], [501]]),  # full ones rest
    ],
)
def test_plan(sizes, groups):
    assert planned(sizes) == groups


def test_plan_drops_parts_without_documents():
    assert merging.plan([segment_of(5).without(np.array([0])), segment_of(7)])[0][0].segment.size == 7


def test_each_document_is_rewritten_a_logarithmic_number_of_times():
    sizes, written = [], 0
    for _ in range(243):
        sizes = [sum(group) for group in planned([*sizes, 10])]
        written += sizes[-1]
        # At most two of each kind wait to be merged: 10, 30, 90, 270 and 810 are the kinds.
        assert len(sizes) <= 2 * 5 + 2430 // 501
    assert sum(sizes) == 2430
    assert written <= 2430 * 6


def test_texts_and_ids_survive_any_characters():
    values = ["", "é", "\ud800", "a\x00b", None, "日本", "\U0001f600"]
    strings = Strings.encode(values)
    assert strings.take(np.arange(len(values))) == values
    assert strings.take(np.array([5, 0])) == ["日本", ""]


def test_runs_are_what_was_not_deleted():
    segment = Segment.build(list("abcdef"), as_csr(np.eye(6, dtype=np.float32)))
    assert list(LiveSegment(segment).runs()) == [(0, 6)]
    assert list(LiveSegment(segment).without(np.array([3, 0, 4])).runs()) == [(1, 3), (5, 6)]
    assert list(LiveSegment(segment).without(np.arange(6)).runs()) == []


def test_merge_gives_the_arrays_worked_out_by_hand():
    first = Segment.build(["a", "b"], as_csr(np.array([[1, 0, 2], [0, 3, 4]])), ["A", "B"])
    second = Segment.build(["c"], as_csr(np.array([[5, 0, 6]])))
    merged = write_segment([LiveSegment(first).without(np.array([0])), LiveSegment(second)], None)
    assert merged.vectors.indptr.tolist() == [0, 1, 2, 4]
    assert merged.vectors.rows.tolist() == [1, 0, 0, 1]
    assert merged.vectors.values.tolist() == [5, 3, 4, 6]
    assert merged.all_ids.tolist() == ["b", "c"]
    assert merged.texts.take(np.arange(2)) == ["B", None]
