"""How often the rows of each source are seen."""

from collections import Counter

import pytest
from data_files import message, write

from st_l0.data import read_training_data
from st_l0.data.mixture import Mixture
from st_l0.data.training_data import count_examples


def test_shares_of_an_epoch_by_hand():
    assert Mixture((53, 1, 6), (1.0, 1.0, 1.0)).given() == [20, 20, 20]
    # 10 / 3 = 3.33 each: the one left over goes to the first.
    assert Mixture((4, 3, 3), (0.5, 0.5, 0.5)).given() == [4, 3, 3]
    # 8.4, 0.6 and 1: what is left over goes where most was cut off.
    assert Mixture((5, 3, 2), (84.0, 6.0, 10.0)).given() == [8, 1, 1]
    assert Mixture((7,), (0.1,)).given() == [7]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (7.0, 2.0, 1.0), (1.0, 1.0, 100.0)])
def test_rows_of_a_source_are_seen_equally_often(weights):
    mixture = Mixture((50, 3, 7), weights)
    given = mixture.given()
    seen = Counter()
    for epoch in range(9):
        rows = mixture.rows(5, epoch)
        assert len(rows) == 60
        sources = Counter("abc"[(row >= 50) + (row >= 53)] for row in rows.tolist())
        assert [sources[name] for name in "abc"] == given
        seen.update(rows.tolist())
        for begin, end in ((0, 50), (50, 53), (53, 60)):
            times = [seen[row] for row in range(begin, end)]
            assert max(times) - min(times) <= 1  # after each epoch


def test_rows_follow_from_seed_and_epoch():
    mixture = Mixture((50, 3), (1.0, 1.0))
    assert mixture.rows(5, 2).tolist() == Mixture((50, 3), (2.0, 2.0)).rows(5, 2).tolist()
    assert sorted(mixture.rows(5, 0)) != sorted(mixture.rows(6, 0))
    # 26 of 49 rows an epoch: the second begins with the 23 others.
    first, second = (Mixture((49, 3), (1.0, 1.0)).rows(5, epoch)[:26].tolist() for epoch in (0, 1))
    assert sorted(first + second[:23]) == list(range(49))


def pairs(name, number):
    return [{"query": f"{name}{i}", "positive": f"p{name}{i}"} for i in range(number)]


def test_sources_are_counted_and_kept_in_order(tmp_path):
    many, few = write(tmp_path / "a.jsonl", *pairs("a", 5)), write(tmp_path / "b.jsonl", *pairs("b", 2))
    data = read_training_data([many, few], weights=[1, 3])
    assert data.mixture == Mixture((5, 2), (1, 3))
    assert data.dataset["query"][:] == ["a0", "a1", "a2", "a3", "a4", "b0", "b1"]
    assert read_training_data([many, few]).mixture is None


def test_examples_are_counted_without_their_texts(tmp_path):
    rows = [{"query_id": "1", "document_ids": list("abcdefg")[:n]} for n in (2, 5, 7)]
    one = write(tmp_path / "a.jsonl", *rows)
    counted = count_examples([one, one], [1.0, 3.0], by_id=True, documents_per_query=2)
    assert counted == Mixture((6, 6), (1.0, 3.0))  # 1 + 2 + 3 groups


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (
            [{"query": "q", "positive": "p", "negative": "n"}],
            "b.jsonl:1: 2 documents where the first row has 1",
        ),
        (
            [{"query": "q", "positive": "p", "score": 0.5}],
            "b.jsonl:1: has scores where the first row has none",
        ),
        ([{"query": "q", "documents": ["p"]}], "b.jsonl:1: names no positive where the first row names one"),
        ([], "b.jsonl: no training data; give at least one row"),
    ],
)
def test_sources_of_other_forms_are_refused(tmp_path, other, expected):
    sources = [write(tmp_path / "a.jsonl", *pairs("a", 5)), write(tmp_path / "b.jsonl", *other)]
    text = message(lambda: read_training_data(sources, weights=[1, 1]))
    assert expected in text
    assert message(lambda: count_examples(sources, [1, 1], by_id=False)) == text


def test_weights_that_cannot_be(tmp_path):
    sources = [write(tmp_path / "a.jsonl", *pairs("a", 5)), write(tmp_path / "b.jsonl", *pairs("b", 5))]

    def refusal(weights, paths=sources, **options):
        return message(lambda: read_training_data(paths, weights=weights, **options))

    assert refusal([1, 1e-6]) == (
        f"{sources[1]}: its weight gives it none of the 10 examples of an epoch; raise it, or leave the "
        "source out"
    )
    assert (
        refusal([1])
        == refusal([1], sources[0])
        == ("weights are for a list of sources: give a weight for each of them")
    )
    assert refusal([1, 0]) == "weights are 1, 0; give finite numbers above 0"
    assert refusal([1, 1], limit=3).startswith("limit would cut off")
