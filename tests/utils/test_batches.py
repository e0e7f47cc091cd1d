"""Streams in pieces."""

from st_l0.utils.batches import batched


def test_batched_is_lazy_and_loses_nothing():
    assert list(batched(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(batched("abcd", 2)) == [["a", "b"], ["c", "d"]]
    assert list(batched([], 2)) == []
    seen = []
    stream = batched((seen.append(letter) or letter for letter in "abcdef"), 2)
    next(stream)
    assert seen == ["a", "b"]
