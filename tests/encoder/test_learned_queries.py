import math

import numpy as np
import pytest
import sentence_transformers
import torch

from st_l0 import SparseEncoder
from st_l0.encoder.learned_queries import LearnedScores, TrainedTable, train_query_table, trained_parameter
from st_l0.encoder.modules import encoder_modules
from tiny_models import DOCUMENTS, QUERIES, VOCABULARY, dense

SPECIAL = range(5)


def test_a_trained_table_by_hand():
    table = TrainedTable(torch.tensor([0.0, 1.0, 1.0, 1.0]))
    parameter = torch.tensor([5.0, 2.0, -3.0, 0.0], requires_grad=True)
    weights = table(parameter)
    assert weights.tolist() == [0.0, 2.0, 0.0, 0.0]
    weights.sum().backward()
    assert parameter.grad.tolist() == [0.0, 1.0, 0.0, 0.0]


def test_learned_scores_by_hand():
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, -1.0], [3.0, 3.0]])
    scores = LearnedScores(embeddings, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    parameter = torch.tensor([0.5, 2.0, 1.0], requires_grad=True)  # w = (.5, 2), b = 1
    weights = scores(parameter)
    # 1.5, 5.5, -1 (below 0), and a special token.
    expected = [math.log(2.5), math.log(6.5), 0.0, 0.0]
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)
    weights.sum().backward()
    # Each active token passes e / (1 + x).
    first, second = 1 / 2.5, 1 / 6.5
    assert parameter.grad.tolist() == pytest.approx([first + second, 2 * second, first + second], rel=1e-6)
    embeddings.zero_()
    assert torch.equal(scores(parameter.detach()), weights.detach())  # a copy


def test_where_learned_scores_start(tiny_encoder):
    model = tiny_encoder(idf="binary")
    train_query_table(encoder_modules(model), "learned_scores")
    expected = np.ones(len(VOCABULARY), dtype=np.float32)
    expected[list(SPECIAL)] = 0
    np.testing.assert_allclose(model.query_weights, expected, rtol=1e-6)
    assert trained_parameter(encoder_modules(model)).shape == (33,)  # of 32 hidden states, and b


def test_a_trained_table_starts_where_it_was(tiny_encoder):
    model = tiny_encoder()
    before = model.encode_query(QUERIES).to_dense()
    assert trained_parameter(encoder_modules(model)) is None
    train_query_table(encoder_modules(model), "trained_table")
    assert trained_parameter(encoder_modules(model)).requires_grad
    assert torch.equal(model.encode_query(QUERIES).to_dense(), before)


@pytest.mark.parametrize("kind", ["trained_table", "learned_scores"])
def test_what_is_learned_is_saved_and_loaded(tiny_encoder, tmp_path, kind):
    model = tiny_encoder()
    train_query_table(encoder_modules(model), kind)
    parameter = trained_parameter(encoder_modules(model))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 2)
    weights = model.query_weights
    assert weights.min() == 0 and weights[list(SPECIAL)].max() == 0 and weights.std() > 0.1
    model.save_pretrained(str(tmp_path / "model"))
    assert trained_parameter(encoder_modules(model)) is parameter  # goes on being trained
    assert np.array_equal(model.query_weights, weights)

    stock = sentence_transformers.SparseEncoder(str(tmp_path / "model"), device="cpu")
    assert (
        type(stock[0].sub_modules["query"][0])
        is sentence_transformers.sparse_encoder.modules.SparseStaticEmbedding
    )
    again = SparseEncoder.from_pretrained(tmp_path / "model", device="cpu")
    assert np.array_equal(again.query_weights, weights)
    for other in (stock, again):
        np.testing.assert_array_equal(dense(other.encode_query(QUERIES)), dense(model.encode_query(QUERIES)))
        np.testing.assert_allclose(
            dense(other.encode_document(DOCUMENTS)), dense(model.encode_document(DOCUMENTS)), atol=1e-5
        )


@pytest.mark.parametrize("kind", ["trained_table", "learned_scores"])
def test_the_gradient_of_a_query(tiny_encoder, kind):
    model = tiny_encoder()
    train_query_table(encoder_modules(model), kind)
    features = model.preprocess(["the cat [SEP] the dog"], task="query")
    model(features, task="query")["sentence_embedding"].sum().backward()
    gradient = trained_parameter(encoder_modules(model)).grad
    if kind == "trained_table":
        used = {VOCABULARY.index(word) for word in ("the", "cat", "dog")}
        assert set(gradient.nonzero()[:, 0].tolist()) == used
        assert gradient[sorted(used)].tolist() == [1.0, 1.0, 1.0]
    else:
        # Scores are at log(1 + e - 1) = 1: each of the three tokens passes its embedding over e.
        rows = model[0].sub_modules["document"][0].model.get_input_embeddings().weight
        used = rows[[VOCABULARY.index(word) for word in ("the", "cat", "dog")]].detach()
        expected = torch.cat([used.sum(0), torch.tensor([3.0])]) / math.e
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
