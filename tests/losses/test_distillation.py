"""Divergence and margins: the student's scores against the teachers', of own documents or of the batch."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from independent import kl, margin_mse, random_batch

from st_l0.errors import InputError
from st_l0.losses import ExtraQueries, InfoNCELoss, KLDivergenceLoss, MarginMSELoss, WeightedRankingLoss
from st_l0.utils.sparse_rows import SparseRows

# Scores 1, 0 | 0, 0 of the first query and 0, 2 | 2, 4 of the second.
QUERIES = [[1.0, 0.0], [0.0, 2.0]]
POSITIVES = [[1.0, 0.0], [0.0, 1.0]]
NEGATIVES = [[0.0, 1.0], [0.0, 2.0]]
COLUMNS = [QUERIES, POSITIVES, NEGATIVES]
# The first negative reads like the second positive: own for the first query, and right for the second.
KEYS = [[1, 2], [3, 4], [4, 5]]
E = math.e
BOTH = pytest.mark.parametrize("kind", [KLDivergenceLoss, MarginMSELoss])
IN_BATCH = pytest.mark.parametrize("in_batch", [False, True])


def value(loss, columns, labels, keys=None, **options):
    embeddings = [torch.tensor(column, dtype=torch.float64) for column in columns]
    keys = None if keys is None else [torch.tensor(column) for column in keys]
    if isinstance(labels, list):
        labels = torch.tensor(labels, dtype=torch.float64)
    return loss.compute_loss_from_embeddings(embeddings, labels, keys=keys, **options).item()


def entropy(*probabilities):
    return -sum(p * math.log(p) for p in probabilities)


# Teachers of the own documents that give 3/4 and 1/4, and 1/2 twice.
GIVEN = [[math.log(3), 0.0], [7.0, 7.0]]


def divergence(*normalizers, temperature=1.0):
    """Both queries' cross-entropies less the teachers' entropies, with the sum of exp(score) of each."""
    first = -0.75 * 1 / temperature + math.log(normalizers[0]) - entropy(0.75, 0.25)
    second = -(2 + 4) / 2 / temperature + math.log(normalizers[1]) - math.log(2)
    return pytest.approx((first + second) / 2, rel=1e-14)


def test_divergence_of_own_documents_by_hand():
    assert value(KLDivergenceLoss(), COLUMNS, GIVEN) == divergence(E + 1, E**2 + E**4)
    # Equal texts do not matter where a query sees its own documents alone.
    assert value(KLDivergenceLoss(), COLUMNS, GIVEN, KEYS) == divergence(E + 1, E**2 + E**4)


def test_the_temperature_divides_both_sides():
    # Teachers of twice the scores divided by two give the same probabilities; students are 1/2, 0 and 1, 2.
    doubled = [[2 * score for score in row] for row in GIVEN]
    expected = divergence(E**0.5 + 1, E + E**2, temperature=2.0)
    assert value(KLDivergenceLoss(2.0), COLUMNS, doubled) == expected


def test_divergence_in_the_batch_with_own_scores_by_hand():
    loss = KLDivergenceLoss(in_batch_negatives=True)
    assert value(loss, COLUMNS, GIVEN) == divergence(E + 3, 1 + 2 * E**2 + E**4)
    # The second positive equals the first query's negative, and the first negative the second's positive.
    assert value(loss, COLUMNS, GIVEN, KEYS) == divergence(E + 2, 1 + E**2 + E**4)
    # One query text: each other's positive is right as well.
    one_text = [[1, 1], [3, 4], [5, 6]]
    assert value(loss, COLUMNS, GIVEN, one_text) == divergence(E + 2, 2 * E**2 + E**4)


def test_divergence_in_the_batch_with_complete_scores_by_hand():
    given = [[math.log(5), 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    first = -5 / 8 + math.log(E + 3) - entropy(5 / 8, 1 / 8, 1 / 8, 1 / 8)
    second = -(0 + 2 + 2 + 4) / 4 + math.log(1 + 2 * E**2 + E**4) - math.log(4)
    loss = KLDivergenceLoss(in_batch_negatives=True)
    for keys in (None, KEYS):  # the teacher knows all documents: none is left out
        assert value(loss, COLUMNS, given, keys) == pytest.approx((first + second) / 2, rel=1e-14)


def extra(vectors, scores):
    """Extra queries of these vectors and teacher scores."""
    rows = SparseRows.from_scipy([sp.csr_matrix(np.array(vectors, np.float32))], "cpu")
    return ExtraQueries(rows, torch.tensor(scores, dtype=torch.float64))


def test_extra_queries_by_hand():
    # A third query like the first, without documents of its own; the teacher gives it no preference.
    third = extra([[1.0, 0.0]], [[0.0] * 4])
    given = [[math.log(5), 0.0, 0.0, 0.0], [0.0] * 4]
    kl, margins = KLDivergenceLoss(in_batch_negatives=True), MarginMSELoss(in_batch_negatives=True)
    for keys in (None, KEYS):
        expected = (2 * value(kl, COLUMNS, given) - 1 / 4 + math.log(E + 3) - math.log(4)) / 3
        assert value(kl, COLUMNS, given, keys, extra_queries=third) == pytest.approx(expected, rel=1e-14)
        # The others know a query by its own documents.
        for loss, labels in ((margins, given), (InfoNCELoss(), None)):
            alone = value(loss, COLUMNS, labels, keys)
            assert value(loss, COLUMNS, labels, keys, extra_queries=third) == alone
    both = WeightedRankingLoss({"kl": (kl, 0.5), "margin": (margins, 2.0)})
    columns = [torch.tensor(column, dtype=torch.float64) for column in COLUMNS]
    labels = torch.tensor(given, dtype=torch.float64)
    terms = both.compute_loss_from_embeddings(columns, labels, extra_queries=third)
    assert terms["kl_loss"].item() == pytest.approx(0.5 * expected, rel=1e-14)
    assert terms["margin_loss"].item() == 2 * value(margins, COLUMNS, given)


def test_extra_queries_that_fit_no_loss():
    third = extra([[1.0, 0.0]], [[0.0] * 4])
    for loss in (KLDivergenceLoss(in_batch_negatives=True), KLDivergenceLoss()):
        with pytest.raises(InputError, match="extra queries need in_batch_negatives, and teacher scores of"):
            value(loss, COLUMNS, [[1.0, 0.0]] * 2, extra_queries=third)
    kl, given = KLDivergenceLoss(in_batch_negatives=True), [[0.0] * 4] * 2
    with pytest.raises(InputError, match=r"shape \(1, 2\), but 1 extra queries need \(1, 4\)"):
        value(kl, COLUMNS, given, extra_queries=extra([[1.0, 0.0]], [[0.0] * 2]))
    with pytest.raises(InputError, match="teacher scores must be finite"):
        value(kl, COLUMNS, given, extra_queries=extra([[1.0, 0.0]], [[math.nan] * 4]))
    with pytest.raises(InputError, match=r"the columns have \[3, 2, 2\] rows"):  # rows that were lost
        value(InfoNCELoss(), [[*QUERIES, [1.0, 0.0]], POSITIVES, NEGATIVES], None)


# Teachers' margins 3 and 1; the student's are 1 and -2.
MARGINS = [[5.0, 2.0], [1.0, 0.0]]


def test_margins_of_own_documents_by_hand():
    for keys in (None, KEYS):
        assert value(MarginMSELoss(), COLUMNS, MARGINS, keys) == ((1 - 3) ** 2 + (-2 - 1) ** 2) / 2
    # A second negative column with student margins 1 - 1 and 2 - 0 and teacher margins 0 and 4.
    more = [*COLUMNS, [[1.0, 0.0], [1.0, 0.0]]]
    given = [[5.0, 2.0, 5.0], [1.0, 0.0, -3.0]]
    assert value(MarginMSELoss(), more, given) == ((4 + 0) / 2 + (9 + 4) / 2) / 2


def test_margins_in_the_batch_with_own_scores_by_hand():
    loss = MarginMSELoss(in_batch_negatives=True)
    # First query: own error 4; the two others have margins 1, 3 are wanted. Second: own error 9; margins
    # 2 and 0 where 1 is wanted, of which 2 is enough.
    assert value(loss, COLUMNS, MARGINS) == pytest.approx(((4 + 4 + 4) / 3 + (9 + 0 + 1) / 3) / 2)
    # Left out: for the first query the second positive, for the second the first negative.
    assert value(loss, COLUMNS, MARGINS, KEYS) == pytest.approx(((4 + 4) / 3 + (9 + 0) / 3) / 2)


def test_a_document_may_be_as_good_as_the_worst_own_one():
    # The teacher prefers the negatives: the worst own document is the first one, and no margin is wanted.
    loss = MarginMSELoss(in_batch_negatives=True)
    # Own errors (1 - -1)^2 and (-2 - -2)^2; others' margins 1, 1 and 2, 0: none below 0.
    assert value(loss, COLUMNS, [[1.0, 2.0], [1.0, 3.0]]) == pytest.approx((4 / 3 + 0) / 2)


def test_margins_in_the_batch_with_complete_scores_by_hand():
    # Wanted 1, 3, 0 where the student has 1, 1, 1; and 3, 0, 2 where it has 2, 0, -2.
    given = [[5.0, 4.0, 2.0, 5.0], [0.0, 3.0, 3.0, 1.0]]
    loss = MarginMSELoss(in_batch_negatives=True)
    for keys in (None, KEYS):
        assert value(loss, COLUMNS, given, keys) == pytest.approx(((0 + 4 + 1) / 3 + (1 + 0 + 16) / 3) / 2)


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_equals_an_independent_implementation(seed, complete):
    columns, keys, own, all_scores = random_batch(seed, positions=1 + seed % 3)
    for given in (None, keys):
        for in_batch in {complete, True}:
            labels = all_scores if complete else own
            expected = kl(columns, labels, given, 0.7, in_batch)
            loss = KLDivergenceLoss(0.7, in_batch_negatives=in_batch)
            assert value(loss, columns, labels, given) == pytest.approx(expected, rel=1e-12, abs=1e-14)
            expected = margin_mse(columns, labels, given, in_batch)
            loss = MarginMSELoss(in_batch_negatives=in_batch)
            assert value(loss, columns, labels, given) == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_duplicates_matter():
    """The random batches above tell losses with and without keys apart."""
    for seed in range(8):
        columns, keys, own, _ = random_batch(seed)
        assert kl(columns, own, keys, 1, True) < kl(columns, own, None, 1, True)
        assert margin_mse(columns, own, keys, True) < margin_mse(columns, own, None, True)


@BOTH
@pytest.mark.parametrize("labels", ["own", "own in batch", "complete"])
def test_the_gradient_is_that_of_the_formula(kind, labels):
    columns, keys, own, complete = random_batch(12, queries=3, size=4)
    given = torch.tensor(complete if labels == "complete" else own, dtype=torch.float64)
    loss = kind(in_batch_negatives=labels != "own")
    embeddings = [torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in columns]
    for texts in (None, [torch.tensor(column) for column in keys]):
        assert torch.autograd.gradcheck(
            lambda *vectors, texts=texts: loss.compute_loss_from_embeddings(vectors, given, keys=texts),
            embeddings,
        )


def gradients(loss, columns, labels, keys=None):
    embeddings = [torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in columns]
    keys = None if keys is None else [torch.tensor(column) for column in keys]
    labels = torch.tensor(labels, dtype=torch.float64)
    loss.compute_loss_from_embeddings(embeddings, labels, keys=keys).backward()
    assert all(column.grad.isfinite().all() for column in embeddings)
    return [column.grad for column in embeddings]


def test_the_gradient_of_margins_by_hand():
    # d/d(margin) of the mean over two queries: the errors -2 and -3. A margin grows with q times the
    # difference of its documents, so that the documents get the query and the query the difference.
    queries, positives, negatives = gradients(MarginMSELoss(), COLUMNS, MARGINS)
    assert positives.tolist() == [[-2, 0], [0, -3 * 2]]
    assert negatives.tolist() == [[2, 0], [0, 3 * 2]]
    assert queries.tolist() == [[-2 * 1, -2 * -1], [0, -3 * -1]]


def test_documents_that_are_far_enough_below_get_no_gradient():
    # The second positive and negative are of no use to the first query: margins 9 where 3 are wanted.
    columns = [[[1.0, 0.0], [0.0, 1.0]], [[9.0, 0.0], [0.0, 9.0]], [[7.0, 0.0], [0.0, 7.0]]]
    labels = [[5.0, 2.0], [5.0, 2.0]]
    in_batch = gradients(MarginMSELoss(in_batch_negatives=True), columns, labels)
    own = gradients(MarginMSELoss(), columns, labels)
    for one, other in zip(in_batch, own, strict=True):
        torch.testing.assert_close(one, other / 3)  # the mean is over three documents
        assert other.any()


@BOTH
def test_excluded_documents_get_no_gradient(kind):
    # All queries read alike and all negatives like the first positive: the other queries' documents are
    # right for each, and only the own ones count.
    columns, _, own, _ = random_batch(13, queries=3)
    keys = [[1, 1, 1], [2, 3, 4], [2, 2, 2]]
    found = gradients(kind(in_batch_negatives=True), columns, own, keys)
    alone = gradients(kind(), columns, own)
    factor = 5 if kind is MarginMSELoss else 1  # the mean is over the five other documents
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one * factor, other, rtol=1e-12, atol=1e-14)


@BOTH
@IN_BATCH
def test_nothing_to_learn_from_a_teacher_that_agrees(kind, in_batch):
    columns, _, _, _ = random_batch(14)
    vectors = [torch.tensor(column, dtype=torch.float64) for column in columns]
    scores = vectors[0] @ torch.cat(vectors[1:]).T
    if not in_batch:
        scores = torch.stack([scores.diagonal(), scores.diagonal(5)], dim=1)
    # A teacher's own zero is arbitrary.
    labels = (scores + torch.arange(5.0)[:, None]).tolist()
    assert value(kind(in_batch_negatives=in_batch), columns, labels) == pytest.approx(0, abs=1e-12)
    for gradient in gradients(kind(in_batch_negatives=in_batch), columns, labels):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-13)


@BOTH
@IN_BATCH
def test_one_query_with_one_document(kind, in_batch):
    loss = kind(in_batch_negatives=in_batch)
    assert value(loss, [[[1.0, 2.0]], [[3.0, 0.0]]], [[4.0]], [[1], [1]]) == 0
    assert not any(g.any() for g in gradients(loss, [[[1.0, 2.0]], [[3.0, 0.0]]], [[4.0]]))
    assert value(loss, [[[1.0]], [[3.0]], [[2.0]]], [[4.0, 2.0]]) == pytest.approx(
        (1 - 2) ** 2
        if kind is MarginMSELoss
        else math.log(1 + E) - 1 - math.log(1 + E**2) + 2 + (1 - 2) / (1 + E**2),
        rel=1e-12,
    )


@BOTH
def test_one_document_for_each_of_two_queries(kind):
    columns = COLUMNS[:2]  # scores 1, 0 and 0, 2
    assert value(kind(), columns, [[5.0], [7.0]]) == 0
    expected = (math.log(1 + 1 / E) + math.log(1 + E**-2)) / 2  # no other document has any probability
    if kind is MarginMSELoss:
        expected = 0  # the others are below the own one already
        swapped = [QUERIES, POSITIVES[::-1]]  # scores 0, 1 and 2, 0 against
        assert value(kind(in_batch_negatives=True), swapped, [[5.0], [7.0]]) == ((-1) ** 2 + (-2) ** 2) / 2
    assert value(kind(in_batch_negatives=True), columns, [[5.0], [7.0]]) == pytest.approx(expected, rel=1e-14)
    assert all(g.isfinite().all() for g in gradients(kind(in_batch_negatives=True), columns, [[5.0], [7.0]]))


@BOTH
def test_teachers_may_be_far_apart(kind):
    """A probability that is 0 in floating point is one, not NaN."""
    columns, _, _, _ = random_batch(15)
    for in_batch, width in ((False, 2), (True, 2), (True, 10)):
        labels = [[1e4 * (place == query) for place in range(width)] for query in range(5)]
        loss = kind(in_batch_negatives=in_batch)
        assert math.isfinite(value(loss, columns, labels))
        gradients(loss, columns, labels)


@BOTH
@IN_BATCH
def test_labels_of_any_number_type(kind, in_batch):
    columns, _, _, _ = random_batch(16)
    labels = [[3, 1], [0, 2], [5, 5], [-4, 1], [2, 2]]
    loss = kind(in_batch_negatives=in_batch)
    expected = value(loss, columns, torch.tensor(labels, dtype=torch.float64))
    for dtype in (torch.int64, torch.float16, torch.float32):
        assert value(loss, columns, torch.tensor(labels, dtype=dtype)) == expected


SHAPE = "teacher scores have the shape {}, but 2 queries with 2 documents each need {}"
NOT_FINITE = "teacher scores must be finite, but some are NaN or infinite"
NO_SCORES = "distillation needs teacher scores: give the rows scores, or the recipe teachers"


@BOTH
@pytest.mark.parametrize(
    ("labels", "in_batch", "message"),
    [
        (None, False, NO_SCORES),
        (None, True, NO_SCORES),
        (torch.zeros(2), False, SHAPE.format("(2,)", "(2, 2)")),
        (torch.zeros(2, 3), False, SHAPE.format("(2, 3)", "(2, 2)")),
        (torch.zeros(2, 4), False, SHAPE.format("(2, 4)", "(2, 2)")),
        (torch.zeros(3, 2), True, SHAPE.format("(3, 2)", "(2, 2) or (2, 4)")),
        (torch.zeros(2, 3), True, SHAPE.format("(2, 3)", "(2, 2) or (2, 4)")),
        *(
            (torch.tensor([[0.0, 0.0], [0.0, bad]]), in_batch, NOT_FINITE)
            for bad in (math.nan, math.inf, -math.inf)
            for in_batch in (False, True)
        ),
    ],
)
def test_refuses_teacher_scores_that_do_not_fit(kind, labels, in_batch, message):
    with pytest.raises(InputError) as refused:
        value(kind(in_batch_negatives=in_batch), COLUMNS, labels)
    assert str(refused.value) == message


@BOTH
def test_refuses_columns_that_do_not_fit(kind):
    with pytest.raises(
        InputError, match=r"^every query needs the same number of documents, .* \[1, 2\] rows$"
    ):
        value(kind(), [QUERIES[:1], POSITIVES], [[1.0]])
    with pytest.raises(InputError, match="one column only"):
        value(kind(), [QUERIES], [[1.0], [1.0]])


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_refuses_a_temperature_that_makes_no_sense(temperature):
    with pytest.raises(InputError) as refused:
        KLDivergenceLoss(temperature)
    assert str(refused.value) == f"temperature must be positive, not {temperature}"


def test_says_what_it_is():
    assert KLDivergenceLoss(0.5).get_config_dict() == {"temperature": 0.5, "in_batch_negatives": False}
    assert MarginMSELoss(in_batch_negatives=True).get_config_dict() == {"in_batch_negatives": True}
    assert "1503.02531" in KLDivergenceLoss().citation
    assert "2010.02666" in MarginMSELoss().citation


@BOTH
def test_the_citation_is_whole(kind):
    depth, depths = 0, []
    for letter in kind().citation:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        depths.append(depth)
    assert depths[-1] == 0
    assert depths.count(0) == 2 + depths.index(1)  # closed once, at its end
