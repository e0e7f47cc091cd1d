"""Queries that a batch's documents draw from the pool, and their scores."""

import math
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from st_l0.errors import InputError
from st_l0.teachers import EnsembleTeacher, QueryPool, load_teacher, neighbours, write_bm25, write_vectors
from st_l0.teachers import pool as pool_module
from st_l0.teachers.model_teachers import CrossEncoderTeacher, EmbeddingTeacher

WEIGHTS = torch.arange(1.0, 101)


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
DOCUMENTS = [f"d{i}" for i in range(100)]


def identity(texts):
    """The student's tokens: each query has one of its own, that of its number."""
    numbers = [int(text[1:]) for text in texts]
    return sp.csr_matrix((np.ones(len(texts)), numbers, range(len(texts) + 1)), shape=(len(texts), 100))


def make_pool(teacher, number, queries=QUERIES, documents=DOCUMENTS, tokens=identity):
    ensemble = teacher if isinstance(teacher, EnsembleTeacher) else EnsembleTeacher([teacher])
    return QueryPool(ensemble, queries, documents, number, tokens=tokens, weights=lambda: WEIGHTS)


def drawn(pool, queries, *columns):
    """The numbers of the extra queries of a batch."""
    return pool.score_batch(queries, columns).extra_queries.vectors.columns.tolist()


def test_the_nearest_are_drawn(monkeypatch):
    monkeypatch.setattr(neighbours, "NEAREST", 4)
    documents = ["d10.4", "d50.6", "d70"]
    pool = make_pool(Line(), 4, [*QUERIES, "q11"], documents)
    assert (pool.queries, pool.documents) == (100, 3)
    found = drawn(pool, ["q10", "q51"], documents[:2])
    # Of 9, 10, 11, 12 and of 49, 50, 51, 52, without what the batch has, two each.
    assert len(set(found)) == len(found) == 4
    assert len(set(found) & {9, 11, 12}) == len(set(found) & {49, 50, 52}) == 2
    assert drawn(pool, ["q10", "q51"], documents[:2]) == found  # as after a resume
    others = [drawn(pool, [f"q{i}"], documents[:2]) for i in range(60, 80)]
    assert len(set(map(tuple, others))) > 5  # another batch draws anew
    assert {query for numbers in others for query in numbers} == {9, 10, 11, 12, 49, 50, 51, 52}


def test_all_that_are_near(monkeypatch):
    monkeypatch.setattr(neighbours, "NEAREST", 4)
    pool = make_pool(Line(), "all", documents=["d10.4", "d50.6", "d11.4", "d70"])
    assert drawn(pool, ["q10", "q51"], ["d10.4", "d50.6"], ["d11.4", "d10.4"]) == [9, 11, 12, 13, 49, 50, 52]
    assert drawn(pool, ["q10", "q99"], ["d10.4", "d10.4"]) == [9, 11, 12]


def test_each_text_is_embedded_once():
    teacher = Line()
    pool = make_pool(teacher, 6, documents=["d1", "d2", "d1", "d4"])
    drawn(pool, ["q1"], ["d1", "d1", "d2"])
    drawn(pool, ["q1"], ["d4"])
    assert teacher.embedded == [("query", QUERIES), ("document", ["d1", "d2", "d4"])]


def test_each_teacher_draws_its_share(monkeypatch):
    monkeypatch.setattr(neighbours, "NEAREST", 20)
    near, far = Line("near"), Line("far", sign=-1.0)
    numbers = drawn(make_pool(EnsembleTeacher([near, far], weights=[0.7, 0.3]), 25), [], ["d0", "d1"])
    assert sum(n < 20 for n in numbers) == 18 and sum(n >= 80 for n in numbers) == 7  # 17.5, and what is left


def test_there_may_be_fewer(monkeypatch):
    monkeypatch.setattr(neighbours, "NEAREST", 4)
    assert len(drawn(make_pool(Line(), 50, documents=["d3", "d4"]), ["q3"], ["d3", "d4"])) == 4
    scores = make_pool(Line(), 50, ["q3"]).score_batch(["q3"], [["d3", "d4"]])
    assert scores.own.tolist() == [[30.0, 0.0]]
    assert len(scores.extra_queries.vectors) == 0 and scores.extra_queries.teacher_scores.shape == (0, 2)


def test_documents_are_searched_in_chunks(monkeypatch):
    whole = make_pool(Line(), 7)
    monkeypatch.setattr(neighbours, "_SCORES_ON_CPU", 700)
    assert drawn(make_pool(Line(), 7), ["q3"], ["d3", "d96"]) == drawn(whole, ["q3"], ["d3", "d96"])


def test_a_gradient_goes_to_the_weights():
    weights = torch.arange(1.0, 101, requires_grad=True)
    pool = QueryPool(
        EnsembleTeacher([Line()]), QUERIES, DOCUMENTS, 3, tokens=identity, weights=lambda: weights * 2
    )
    vectors = pool.score_batch(["q10"], [["d10"]]).extra_queries.vectors
    numbers = vectors.columns.tolist()
    assert vectors.values.tolist() == [2 * (number + 1) for number in numbers]
    vectors.values.sum().backward()
    assert weights.grad.tolist() == [2.0 * (number in numbers) for number in range(100)]


# Equal to the plain path: texts that the ensemble embeds anew for each batch

WORDS = ["cat", "dog", "bird", "fish", "red", "blue", "big", "small", "run", "swim", "fly"]
WORDS += ["sleep", "house", "tree", "river", "stone"]


class Projection:
    """Stands in for an embedding model: a fixed random direction for each word."""

    name = "projection"

    class model:
        similarity_fn_name = "cosine"
        prompts: ClassVar = {}

    def embed(self, texts, side):
        table = np.random.default_rng(0).standard_normal((len(WORDS), 8)).astype(np.float32)
        rows = [table[[WORDS.index(word) for word in text.split()]].sum(0) for text in texts]
        return torch.from_numpy(np.stack(rows))


def sentences(seed, number, longest):
    chance = np.random.default_rng(seed)
    return [" ".join(chance.choice(WORDS, chance.integers(2, longest))) for _ in range(number)]


PLAIN_QUERIES = list(dict.fromkeys(sentences(1, 300, 6)))
PLAIN_DOCUMENTS = list(dict.fromkeys(sentences(2, 60, 15)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    write_vectors(Projection(), PLAIN_QUERIES, PLAIN_DOCUMENTS, folder / "vectors")
    write_bm25(folder / "bm25.json", PLAIN_DOCUMENTS)
    return folder


def stored_ensemble(folder):
    teachers = [load_teacher(f"vectors:{folder / 'vectors'}"), load_teacher(f"bm25:{folder / 'bm25.json'}")]
    return EnsembleTeacher(teachers, scale=1.0, weights=[0.7, 0.3])


def by_row(texts):
    """Tokens that tell which queries of the plain ones they are."""
    rows = [PLAIN_QUERIES.index(text) for text in texts]
    shape = (len(texts), len(PLAIN_QUERIES))
    return sp.csr_matrix((np.ones(len(texts)), rows, range(len(texts) + 1)), shape=shape)


def stored_pool(folder, number):
    return QueryPool(
        stored_ensemble(folder),
        PLAIN_QUERIES,
        iter(PLAIN_DOCUMENTS),
        number,
        tokens=by_row,
        weights=lambda: torch.ones(len(PLAIN_QUERIES)),
    )


def lengths(folder):
    """Of each query's vector, for each teacher."""
    for teacher in stored_ensemble(folder).teachers:
        vectors = teacher.embed(PLAIN_QUERIES, "query")
        vectors = vectors.numpy() if isinstance(vectors, torch.Tensor) else vectors.toarray()
        yield torch.from_numpy(np.linalg.norm(vectors, axis=1))


@pytest.mark.parametrize("number", ["all", 40])
def test_equal_to_the_ensemble_on_the_same_texts(folder, number):
    pool, ensemble = stored_pool(folder, number), stored_ensemble(folder)
    scores = [teacher.score_all(PLAIN_QUERIES, PLAIN_DOCUMENTS) for teacher in ensemble.teachers]
    scores = [one / length[:, None] for one, length in zip(scores, lengths(folder), strict=True)]
    for batch in range(4):
        queries = PLAIN_QUERIES[5 * batch : 5 * batch + 5]
        columns = [PLAIN_DOCUMENTS[5 * batch + start : 5 * batch + start + 5] for start in (0, 30)]
        found = pool.score_batch(queries, columns)
        rows = found.extra_queries.vectors.columns.tolist()
        texts = [PLAIN_QUERIES[row] for row in rows]
        expected = ensemble.score_batch([*queries, *texts], columns)
        given = torch.cat([found.own, found.extra_queries.teacher_scores])
        torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)
        assert len(rows) == len(set(rows)) and not set(texts) & set(queries)
        # Near is what at most 31 others beat for one of the documents; ties may go either way.
        places = [PLAIN_DOCUMENTS.index(text) for column in columns for text in column]
        near, surely = set(), set()
        for one in scores:
            last = one[:, places].topk(32, dim=0).values[-1]
            near |= set((one[:, places] >= last - 1e-6).any(1).nonzero()[:, 0].tolist())
            surely |= set((one[:, places] > last + 1e-6).any(1).nonzero()[:, 0].tolist())
        own = set(range(5 * batch, 5 * batch + 5))
        assert set(rows) <= near - own
        assert len(rows) == 40 if number == 40 else surely - own <= set(rows)


def test_of_a_large_pool_a_part_is_held(folder, monkeypatch):
    monkeypatch.setattr(pool_module, "_MOST_ON_CPU", 50)
    pool, again = stored_pool(folder, "all"), stored_pool(folder, "all")
    assert (pool.queries, pool.documents) == (50, len(PLAIN_DOCUMENTS))
    queries, columns = PLAIN_QUERIES[:8], [PLAIN_DOCUMENTS[:8]]
    found = pool.score_batch(queries, columns)
    rows = found.extra_queries.vectors.columns.tolist()
    assert 20 < len(rows) <= 50 and max(rows) > 50  # by chance, not the first ones
    assert again.score_batch(queries, columns).extra_queries.vectors.columns.tolist() == rows
    # Those of the batch are not among them, and have their scores all the same.
    expected = stored_ensemble(folder).score_batch([*queries, *(PLAIN_QUERIES[row] for row in rows)], columns)
    given = torch.cat([found.own, found.extra_queries.teacher_scores])
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_does_not_touch_the_teachers(folder):
    pool, batch = stored_pool(folder, 20), (PLAIN_QUERIES[:8], [PLAIN_DOCUMENTS[:8]])
    expected = pool.score_batch(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = pool.score_batch(*batch)
    assert torch.equal(found.own, expected.own)
    assert torch.equal(found.extra_queries.teacher_scores, expected.extra_queries.teacher_scores)


def test_what_it_takes(folder):
    pool = stored_pool(folder, 5)
    queries, documents = len(PLAIN_QUERIES), len(PLAIN_DOCUMENTS)
    vectors = 2 * 8 * (queries + documents)  # float16
    words = [sum(len(set(text.split())) for text in texts) for texts in (PLAIN_QUERIES, PLAIN_DOCUMENTS)]
    counts = 8 * sum(words) + 8 * (queries + documents + 2)
    tokens = 8 * queries + 8 * (queries + 1)
    assert pool.nbytes == vectors + counts + tokens + 2 * 4 * 32 * documents


def test_a_long_query_is_not_near_for_its_length(folder, tmp_path, monkeypatch):
    """BM25 of a query with more words is larger, whatever they are."""
    monkeypatch.setattr(neighbours, "NEAREST", 1)
    write_bm25(tmp_path / "bm25.json", ["green apple", "red apple tree in bloom", "stone"])
    ensemble = EnsembleTeacher([load_teacher(f"bm25:{tmp_path / 'bm25.json'}")])
    queries = ["q0 green apple stone roof house wall door", "q1 green apple"]
    pool = make_pool(ensemble, 1, queries, ["green apple"], lambda texts: identity([t[:2] for t in texts]))
    assert drawn(pool, [], ["green apple"]) == [1]


# Two processes

CUTS = {"even": (4, 4), "uneven": (2, 6), "idle": (0, 8)}


def batches(folder, mine, number):
    pool = stored_pool(folder, number)
    found = []
    for batch in range(3):
        rows = slice(8 * batch, 8 * batch + 8)
        columns = [PLAIN_DOCUMENTS[rows][mine], PLAIN_DOCUMENTS[20:][rows][mine]]
        found.append(pool.score_batch(PLAIN_QUERIES[rows][mine], columns))
    return [(one.own, one.extra_queries.vectors.columns, one.extra_queries.teacher_scores) for one in found]


def process(rank, meeting, results, folder):
    torch.set_num_threads(1)
    neighbours._SCORES_ON_CPU = 3000  # several chunks, which the processes share
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    found = {}
    for name, cut in CUTS.items():
        mine = slice(0, cut[0]) if rank == 0 else slice(cut[0], None)
        found[name] = {number: batches(folder, mine, number) for number in ("all", 20)}
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "_SCORES_ON_CPU", 3000)
    mp.spawn(process, (str(tmp_path / "meeting"), str(tmp_path), folder), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for number in ("all", 20):
        # A number is that of a device.
        alone = batches(folder, slice(None), number if number == "all" else 2 * number)
        for name in CUTS:
            for batch, (own, rows, scores) in enumerate(alone):
                first, second = (part[name][number][batch] for part in parts)
                torch.testing.assert_close(torch.cat([first[0], second[0]]), own, rtol=1e-5, atol=1e-5)
                assert torch.equal(rows[0::2], first[1]) and torch.equal(rows[1::2], second[1])
                torch.testing.assert_close(first[2], scores[0::2], rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(second[2], scores[1::2], rtol=1e-5, atol=1e-5)
                assert number == "all" or len(rows) == 40


# What is refused


def test_a_teacher_that_reads_pairs_is_refused_before_the_others_read():
    teacher, first = object.__new__(CrossEncoderTeacher), Line()
    teacher.name = "cross-encoder:x"
    with pytest.raises(InputError, match="cross-encoder:x reads query and document together"):
        make_pool(EnsembleTeacher([first, teacher]), 5)
    assert not first.embedded


def test_texts_that_are_not_there():
    with pytest.raises(InputError, match="there is no document"):
        make_pool(Line(), 5, documents=[])
    with pytest.raises(InputError, match="there is no query"):
        make_pool(Line(), 5, queries=[])
    with pytest.raises(InputError, match=r"query 1 is None, no string"):
        make_pool(Line(), 5, queries=["q1", None])
    with pytest.raises(InputError, match="document 'd500' is not in the pool of extra queries"):
        make_pool(Line(), 5).score_batch(["q1"], [["d1", "d500"]])


def test_embeddings_that_are_not_finite():
    class Broken(Line):
        def embed(self, texts, side):
            vectors = super().embed(texts, side)
            vectors[[text == "d7" for text in texts]] = math.nan
            return vectors

    with pytest.raises(InputError, match="teacher broken makes NaN or infinity of a document"):
        make_pool(Broken("broken"), 5)
