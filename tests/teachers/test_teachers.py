"""The ensemble: by hand, and two processes = one."""

import math

import pytest
import torch
import torch.distributed as dist

from launching import spawn
from st_l0.errors import InputError
from st_l0.teachers import EnsembleTeacher, load_teacher, min_max


class Table:
    """A teacher that looks its scores up and remembers what it was asked."""

    vocabulary = None

    def __init__(self, scores, name="table"):
        self.scores, self.name, self.asked = scores, name, []

    def score_pairs(self, queries, documents):
        self.asked += zip(queries, documents, strict=True)
        return torch.tensor([float(self.scores[pair]) for pair in zip(queries, documents, strict=True)])

    def score_all(self, queries, documents):
        rows = [self.score_pairs([query] * len(documents), documents) for query in queries]
        return torch.stack(rows) if rows else torch.zeros(0, len(documents))


def table(rows, **options):
    """From ``{query: {document: score}}``."""
    return Table({(q, d): s for q, scores in rows.items() for d, s in scores.items()}, **options)


def message(function, *args):
    with pytest.raises(InputError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# min_max


def test_min_max_by_hand():
    scores = torch.tensor([[-1.0, 3.0, 0.0], [5.0, 5.0, 5.0], [2.0, 1.0, 1.5]])
    # (-1 + 1) / 4, (3 + 1) / 4, (0 + 1) / 4; no spread; (2 - 1) / 1, 0, 0.5 / 1
    assert min_max(scores).tolist() == [[0.0, 1.0, 0.25], [0.0, 0.0, 0.0], [1.0, 0.0, 0.5]]
    assert min_max(scores[0]).tolist() == [0.0, 1.0, 0.25]
    assert min_max(scores[:, :1]).tolist() == [[0.0], [0.0], [0.0]]
    assert min_max(torch.zeros(2, 0)).shape == (2, 0) and min_max(torch.zeros(0, 2)).shape == (0, 2)
    assert min_max(scores.double()).dtype == torch.float32


def test_min_max_of_the_largest_numbers():
    largest = torch.finfo(torch.float32).max
    assert min_max(torch.tensor([[-largest, 0.0, largest]])).tolist() == [[0.0, 0.5, 1.0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_min_max_refuses_what_is_not_finite(bad):
    assert "NaN or infinity" in message(min_max, torch.tensor([[1.0, bad]]))


# One process

FIRST = table({"q": {"a": 1, "b": 3, "c": 2}, "r": {"a": 7}, "s": {"a": 2, "b": 2}}, name="first")
SECOND = table({"q": {"a": 10, "b": 0, "c": 10}, "r": {"a": -1}, "s": {"a": 1, "b": 3}}, name="second")


def test_lists_by_hand():
    ensemble = EnsembleTeacher([FIRST, SECOND])
    found = ensemble.score_lists(["q", "r", "t", "s"], [("a", "b", "c"), ("a",), (), ("a", "b")])
    # q: first 0, 1, .5; second 1, 0, 1; mean .5, .5, .75; times 30.  s: first 0, 0; second 0, 1; mean 0, .5.
    assert [row.tolist() for row in found] == [[15.0, 15.0, 22.5], [0.0], [], [0.0, 15.0]]
    assert all(row.dtype == torch.float32 for row in found)
    assert EnsembleTeacher([FIRST], scale=2).score_lists(["q"], [["b", "c"]])[0].tolist() == [2.0, 0.0]
    assert ensemble.score_lists([], []) == []


def test_batch_by_hand():
    scores = table({"q": {"a": 1, "b": 5, "c": 2, "d": 4}, "r": {"a": 0, "b": 2, "c": 2, "d": 1}})
    found = EnsembleTeacher([scores], scale=4).score_batch(["q", "r"], [["a", "b"], ["c", "d"]])
    # q: 0, 4/4, 1/4, 3/4 times 4.  r: 0, 2/2, 2/2, 1/2 times 4.
    assert found.tolist() == [[0.0, 4.0, 1.0, 3.0], [0.0, 4.0, 4.0, 2.0]]


def test_scores_can_be_learned_from(mlm_folder):
    ensemble = EnsembleTeacher([load_teacher(f"dense:{mlm_folder}", device="cpu")])
    student = torch.ones(2, 4, requires_grad=True)
    (student * ensemble.score_batch(["cat", "dog"], [["a", "b"], ["c", "d"]])).sum().backward()
    assert student.grad.max() == 30


def test_bad_ensembles_are_refused():
    assert "at least one teacher" in message(EnsembleTeacher, [])
    for scale in (0, -1, math.nan, math.inf):
        assert "must be positive" in message(EnsembleTeacher, [FIRST], scale)


def test_scores_that_are_not_finite_are_refused_with_teacher_and_query():
    bad = table({"q": {"a": 1, "b": 2}, "broken one": {"a": 1, "b": math.nan}}, name="dense:x")
    ensemble = EnsembleTeacher([table({"q": {"a": 1, "b": 2}, "broken one": {"a": 1, "b": 3}}), bad])
    for score, documents in (
        (ensemble.score_lists, [["a"], ["a", "b"]]),
        (ensemble.score_batch, [["a", "b"]]),
    ):
        text = message(score, ["q", "broken one"], documents)
        assert "teacher dense:x" in text and "query 'broken one'" in text and "nan" in text


# Two processes

ROWS = ["the cat", "dog run", "big red bird", "river", "snow and rain", "milk", "old house", "new road"]
COLUMNS = [[f"{text} {word}" for text in ROWS] for word in ("song", "stone")]


def batches(folder, rank=None):
    """What a process finds for its part of a batch, for several ways to cut it."""
    found = {}
    teachers = [load_teacher(f"{kind}:{folder}", device="cpu") for kind in ("dense", "sparse")]
    counted = Table({(q, d): len(q) * len(d) % 7 for q in ROWS for column in COLUMNS for d in column})
    for cut in (3, 4, 0):
        mine = slice(None) if rank is None else slice(0, cut) if rank == 0 else slice(cut, None)
        counted.asked.clear()
        scores = EnsembleTeacher([*teachers, counted]).score_batch(ROWS[mine], [c[mine] for c in COLUMNS])
        found[cut] = scores, sorted({document for _, document in counted.asked})
    # More queries than documents: those of the batch, and extra ones.
    mine = slice(None) if rank is None else slice(0, 3) if rank == 0 else slice(3, None)
    extra_queries = [text[::-1] for text in ROWS[mine]]
    columns = [column[mine] for column in COLUMNS]
    found["extra_queries"] = EnsembleTeacher(teachers).score_batch([*ROWS[mine], *extra_queries], columns)
    broken = Table({(q, d): math.nan if (q, d) == (ROWS[0], "milk stone") else 1 for q, d in counted.scores})
    mine = slice(None) if rank is None else slice(0, 3) if rank == 0 else slice(3, None)
    found["broken"] = message(EnsembleTeacher([broken]).score_batch, ROWS[mine], [c[mine] for c in COLUMNS])
    return found


def process(rank, meeting, results, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.save(batches(folder, rank), f"{results}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path, mlm_folder):
    spawn(process, (str(tmp_path / "meeting"), str(tmp_path), mlm_folder), 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = batches(mlm_folder)
    for cut in (3, 4, 0):
        whole, documents = alone[cut]
        assert whole.shape == (8, 16) and len(documents) == 16
        assert first[cut][0].shape == (cut, 16)
        torch.testing.assert_close(torch.cat([first[cut][0], second[cut][0]]), whole, rtol=1e-5, atol=1e-4)
        # Each document was read by one process only.
        assert len(first[cut][1]) == 2 * cut and sorted(first[cut][1] + second[cut][1]) == documents
    scores = [first["extra_queries"], second["extra_queries"]]
    assert [part.shape for part in scores] == [(6, 16), (10, 16)]
    in_order = torch.cat([scores[0][:3], scores[1][:5], scores[0][3:], scores[1][5:]])
    torch.testing.assert_close(in_order, alone["extra_queries"], rtol=1e-5, atol=1e-4)
    # All know the reason, also the one without the query and the one without the document.
    assert first["broken"] == second["broken"] == alone["broken"]
    assert f"query {ROWS[0]!r}" in alone["broken"]


# what is given


@pytest.mark.parametrize(
    ("queries", "documents", "expected"),
    [
        (["q", None], [["a"], ["b"]], "query 1 is None, no string"),
        ("q", [["a"]], "'q' is one text where a list of texts is expected"),
        (["q"], [["a", 3]], "query 0: document 1 is 3 (int), no string"),
        (["q"], ["a"], "'a' is one text where a list of texts is expected"),
        (["q", "r"], [["a"]], "1 lists of documents for 2 queries; give one for each"),
    ],
)
def test_what_is_no_list_of_texts_is_refused_by_place(queries, documents, expected):
    ensemble = EnsembleTeacher([table({"q": {"a": 1, "b": 2}})])
    assert message(ensemble.score_lists, queries, documents).startswith(expected)


def test_teachers_refuse_what_is_no_text():
    from st_l0.teachers.model_teachers import EmbeddingTeacher

    teacher = EmbeddingTeacher()  # refuses before it embeds
    for score in (teacher.score_pairs, teacher.score_all):
        assert message(score, ["q"], [None]).startswith("document 0 is None, no string")
        assert message(score, [b"q"], ["d"]).startswith("query 0 is bytes, no string")
        assert message(score, "q", "d").startswith("'q' is one text where a list of texts is expected")
    assert "2 queries and 1 documents are no pairs" in message(teacher.score_pairs, ["q", "r"], ["d"])


@pytest.mark.parametrize("scores", [[1.0, 2.0], torch.ones(3)], ids=["a list", "too many"])
def test_a_teacher_that_gives_no_scores_is_named(scores):
    class Wrong(Table):
        def score_pairs(self, queries, documents):
            return scores

    found = message(EnsembleTeacher([Wrong({}, name="mine")]).score_lists, ["q"], [["a", "b"]])
    assert found.startswith("teacher mine gives ") and "no tensor with 2 rows" in found


def test_min_max_takes_integers_and_refuses_what_is_no_tensor():
    assert min_max(torch.tensor([[1, 3, 2]])).tolist() == [[0.0, 1.0, 0.5]]
    assert "give a tensor with a row" in message(min_max, [[1.0, 2.0]])
    assert "give a tensor with a row" in message(min_max, torch.tensor(1.0))
