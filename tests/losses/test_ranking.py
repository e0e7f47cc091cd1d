import math
import random

import pytest
import torch
from sentence_transformers.sparse_encoder.losses import SpladeLoss
from torch.nn import functional

from st_l0.errors import InputError
from st_l0.losses import InfoNCELoss
from st_l0.losses.combined import text_keys

QUERIES = [[1.0, 0.0], [0.0, 2.0]]
POSITIVES = [[1.0, 0.0], [0.0, 1.0]]
NEGATIVES = [[1.0, 1.0], [1.0, 1.0]]


def loss(*columns, keys=None, temperature=1.0):
    embeddings = [torch.tensor(column, dtype=torch.float64) for column in columns]
    keys = None if keys is None else [torch.tensor(column) for column in keys]
    return InfoNCELoss(temperature).compute_loss_from_embeddings(embeddings, keys=keys).item()


def independent(columns, keys, temperature):
    """Softmax by hand over the documents that are not known to be right for a query's text."""
    queries, positives, *negatives = ([[float(x) for x in row] for row in column] for column in columns)
    documents = [*positives, *(row for column in negatives for row in column)]
    texts = [*keys[1], *(key for column in keys[2:] for key in column)]
    total = 0.0
    for own, query in enumerate(queries):
        right = {keys[1][other] for other in range(len(queries)) if keys[0][other] == keys[0][own]}
        scores = [math.fsum(a * b for a, b in zip(query, d, strict=True)) / temperature for d in documents]
        rivals = [score for score, text in zip(scores, texts, strict=True) if text not in right]
        total += math.log(math.fsum(math.exp(score - scores[own]) for score in [scores[own], *rivals]))
    return total / len(queries)


def random_columns(columns, queries=6, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(columns, queries, size, dtype=torch.float64, generator=generator)


def test_numbers_by_hand():
    # Scores: 1 and 0 for the first query, 0 and 2 for the second.
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2
    assert loss(QUERIES, POSITIVES) == pytest.approx(expected, rel=1e-14)


def test_the_temperature_divides_the_scores():
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-4))) / 2
    assert loss(QUERIES, POSITIVES, temperature=0.5) == pytest.approx(expected, rel=1e-14)


def test_hard_negatives_are_candidates_of_every_query():
    # Scores 1, 0, 1, 1 and 0, 2, 2, 2.
    expected = (math.log(3 + math.exp(-1)) + math.log(3 + math.exp(-2))) / 2
    assert loss(QUERIES, POSITIVES, NEGATIVES) == pytest.approx(expected, rel=1e-14)
    # A second such column adds two more documents of the same score.
    expected = (math.log(5 + math.exp(-1)) + math.log(5 + math.exp(-2))) / 2
    assert loss(QUERIES, POSITIVES, NEGATIVES, NEGATIVES) == pytest.approx(expected, rel=1e-14)


BOTH = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([[1, 2], [7, 7]], 0.0),  # two queries share a passage
        ([[5, 5], [1, 2]], 0.0),  # one query with two passages
        ([[1, 2], [3, 4]], BOTH),
        ([[3, 4], [4, 3]], BOTH),  # a document that reads like a query is a document all the same
    ],
)
def test_no_known_positive_is_a_negative(keys, expected):
    assert loss(QUERIES, POSITIVES, keys=keys) == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        # Scores 1, 0 | 1, 1 and 0, 2 | 2, 2.
        ([[1, 2], [3, 4], [3, 4]], (math.log(2 + math.exp(-1)) + math.log(2 + math.exp(-2))) / 2),
        ([[1, 2], [3, 4], [4, 3]], (math.log(2 + math.exp(-1)) + math.log(2 + math.exp(-2))) / 2),
        ([[1, 2], [3, 4], [3, 3]], (math.log(1 + math.exp(-1)) + math.log(3 + math.exp(-2))) / 2),
        ([[1, 2], [3, 3], [3, 3]], 0.0),
        ([[1, 1], [3, 4], [5, 6]], math.log(3)),
        ([[1, 1], [3, 4], [4, 3]], 0.0),  # each query text has both passages, whichever row they stand in
    ],
)
def test_no_hard_negative_is_a_known_positive(keys, expected):
    assert loss(QUERIES, POSITIVES, NEGATIVES, keys=keys) == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("columns", [2, 3, 4])
def test_is_cross_entropy_where_nothing_occurs_twice(columns, temperature):
    embeddings = random_columns(columns)
    scores = embeddings[0] @ torch.cat(list(embeddings[1:])).T / temperature
    expected = functional.cross_entropy(scores, torch.arange(6)).item()
    keys = torch.arange(6 * columns).view(columns, 6).tolist()
    assert loss(*embeddings.tolist(), keys=keys, temperature=temperature) == pytest.approx(
        expected, rel=1e-13
    )
    assert loss(*embeddings.tolist(), temperature=temperature) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("seed", range(8))
def test_equals_an_independent_implementation(seed):
    columns = 2 + seed % 3
    draw = random.Random(seed)
    keys = [[draw.randrange(5) for _ in range(6)] for _ in range(columns)]  # few texts: many duplicates
    embeddings = random_columns(columns, seed=seed).tolist()
    expected = independent(embeddings, keys, 0.7)
    assert loss(*embeddings, keys=keys, temperature=0.7) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_masked_documents_get_no_gradient():
    queries, positives, negatives = random_columns(3, queries=3).requires_grad_()
    negatives = negatives.detach().clone().requires_grad_()
    keys = [torch.tensor([1, 2, 3]), torch.tensor([4, 4, 4]), torch.tensor([4, 5, 4])]
    InfoNCELoss().compute_loss_from_embeddings([queries, positives, negatives], keys=keys).backward()
    assert [bool(row.any()) for row in negatives.grad] == [False, True, False]
    assert bool(negatives.grad.isfinite().all())


def test_one_query_with_one_document():
    assert loss([[1.0, 2.0]], [[3.0, 0.0]]) == 0.0
    assert loss([[1.0, 2.0]], [[3.0, 0.0]], keys=[[1], [1]]) == 0.0
    assert loss([[1.0]], [[3.0]], [[3.0]], keys=[[1], [2], [3]]) == pytest.approx(math.log(2))


def test_refuses_what_makes_no_sense():
    for temperature in (0, -1.0, math.nan):
        with pytest.raises(InputError, match=r"^temperature must be positive, not "):
            InfoNCELoss(temperature)
    with pytest.raises(InputError, match="one column only"):
        loss(QUERIES)


def test_says_what_it_is():
    assert InfoNCELoss(0.05).get_config_dict() == {"temperature": 0.05}
    assert "1807.03748" in InfoNCELoss().citation


def test_in_stock_splade_loss(tiny_encoder):
    model = tiny_encoder().eval()
    queries, documents = ["apple", "river stone"], ["an apple a day", "stone in the river"]
    columns = [model.preprocess(queries, task="query"), model.preprocess(documents, task="document")]
    parts = SpladeLoss(model, InfoNCELoss(2.0), 0.0)(columns)
    scores = model.encode_query(queries).to_dense() @ model.encode_document(documents).to_dense().T / 2
    expected = functional.cross_entropy(scores, torch.arange(2)).item()
    assert parts["base_loss"].item() == pytest.approx(expected, rel=1e-5)


def keys_of(texts, side="right"):
    """Keys of token sequences; what stands at a padded position is arbitrary."""
    width, filler = max(map(len, texts)), 77
    ids, mask = [], []
    for text in texts:
        padding = width - len(text)
        before, after = (padding, 0) if side == "left" else (0, padding)
        ids.append([filler] * before + list(text) + [filler] * after)
        mask.append([0] * before + [1] * len(text) + [0] * after)
    return text_keys(torch.tensor(ids), torch.tensor(mask))


def test_text_keys_do_not_depend_on_the_padding():
    draw = random.Random(1)
    texts = [[draw.randrange(30522) for _ in range(draw.randrange(1, 20))] for _ in range(50)]
    right, left = keys_of(texts), keys_of(texts, "left")
    assert right.dtype == torch.int64
    assert right.shape == (50,)
    assert torch.equal(right, left)
    alone = torch.cat([keys_of([text]) for text in texts])
    assert torch.equal(right, alone)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([5, 6], [6, 5]),
        ([5], [5, 0]),  # token 0 is a token
        ([0], [0, 0]),
        ([5, 6, 7], [5, 6]),
        ([1, 4], [2, 3]),
        ([9, 9, 2], [2, 9, 9]),
    ],
)
def test_text_keys_tell_texts_apart(one, other):
    keys = keys_of([one, other, one])
    assert keys[0] == keys[2]
    assert keys[0] != keys[1]


def test_text_keys_of_many_texts_do_not_collide():
    draw = random.Random(2)
    short = [(a, b) for a in range(180) for b in range(180)]
    long = [tuple(draw.randrange(250_000) for _ in range(draw.randrange(3, 40))) for _ in range(20_000)]
    near = [(*long[0][:i], token, *long[0][i + 1 :]) for i in range(len(long[0])) for token in range(300)]
    texts = sorted({*short, *long, *near})
    assert len(keys_of(texts).unique()) == len(texts)
