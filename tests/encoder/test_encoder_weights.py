"""Which token weighs how much: special tokens, the query table, and why a document got its score."""

import numpy as np
import pytest
import torch

from st_l0 import SparseEncoder
from st_l0.encoder.idf import write_idf
from st_l0.errors import InputError
from tiny_models import DOCUMENTS, VOCABULARY, dense, make_tokenizer, stock_encode, through_stock

SPECIAL = range(5)


def assert_special_tokens_weigh_nothing(model):
    texts = ["[SEP] [MASK] bread", "[CLS] [PAD] [UNK] zzz cat", "[MASK]"]
    for vectors in (model.encode_query(texts), model.encode_document(texts)):
        assert (dense(vectors)[:, SPECIAL] == 0).all()
    assert model.encode_query("[SEP] [MASK] bread", convert_to_scipy=True).indices.tolist() == [
        VOCABULARY.index("bread")
    ]
    assert (model.query_weights[SPECIAL] == 0).all()
    for task in ("query", "document"):
        assert (dense(stock_encode(model, texts, task))[:, SPECIAL] == 0).all()


def test_special_tokens_never_weigh(tiny_encoder):
    model = tiny_encoder(idf=np.ones(len(VOCABULARY), np.float32), activation="log1p_relu")
    # The model itself would have them: it is the silencing that takes them out.
    documents = dense(model.encode_document(DOCUMENTS))
    assert (documents[:, SPECIAL] == 0).all()
    assert_special_tokens_weigh_nothing(model)


def test_special_tokens_never_weigh_after_training_steps(tiny_encoder):
    model = tiny_encoder()
    for parameter in model.parameters():
        parameter.requires_grad_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    model.train()
    for _ in range(5):
        optimizer.zero_grad()
        sides = [
            model(model.preprocess(["[SEP] cat zzz", "[MASK] snow"], task=task), task=task)[
                "sentence_embedding"
            ]
            for task in ("query", "document")
        ]
        (-(sides[0] * sides[1]).sum() - sides[1].sum()).backward()  # pulls weights up on both sides
        optimizer.step()
    assert_special_tokens_weigh_nothing(model)


def test_what_training_moved_is_put_right_in_memory_and_on_disk(tiny_encoder, tmp_path):
    model = tiny_encoder()
    cat, texts = VOCABULARY.index("cat"), ["cat dog [MASK]"]
    with torch.no_grad():
        model[0].sub_modules["query"][0].weight[cat] = -3.0
    in_memory = dense(model.encode_query(texts))
    assert in_memory[0, cat] == 0
    assert model.query_weights[cat] == 0
    with torch.no_grad():
        model[0].sub_modules["query"][0].weight[:5] = 2.0
        model[0].sub_modules["document"][0].model.get_output_embeddings().bias[:5] = 2.0
    plain = through_stock(model, tmp_path / "model")
    loaded = SparseEncoder.from_pretrained(tmp_path / "model", device="cpu")
    for one in (plain, loaded):
        np.testing.assert_array_equal(dense(one.encode_query(texts)), in_memory)
        assert (dense(one.encode_document(texts))[:, SPECIAL] == 0).all()
    assert loaded.query_weights[cat] == 0


def test_query_weights_are_a_copy(tiny_encoder, idf_weights):
    model = tiny_encoder(punctuation=True)
    weights = model.query_weights
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights[5:], idf_weights[5:])
    weights[:] = 99
    np.testing.assert_array_equal(model.query_weights[5:], idf_weights[5:])


def test_the_idf_may_be_a_file_or_binary(tiny_encoder, idf_weights, tmp_path):
    write_idf(tmp_path / "idf.json", idf_weights, make_tokenizer())
    for path in (tmp_path / "idf.json", str(tmp_path / "idf.json")):
        np.testing.assert_array_equal(
            tiny_encoder(idf=path, punctuation=True).query_weights[5:], idf_weights[5:]
        )
    binary = tiny_encoder(idf="binary", punctuation=True).query_weights
    np.testing.assert_array_equal(binary, [0] * 5 + [1] * (len(VOCABULARY) - 5))
    for bad in (idf_weights[:-1], np.append(idf_weights, 1), idf_weights.reshape(1, -1)):
        with pytest.raises(InputError, match=f"tokenizer knows {len(VOCABULARY)} tokens"):
            tiny_encoder(idf=bad)


def test_the_given_idf_array_is_left_alone(tiny_encoder):
    weights = np.full(len(VOCABULARY), 2, dtype=np.float32)
    tiny_encoder(idf=weights)
    assert (weights == 2).all()


def test_explain_sums_to_the_similarity(tiny_encoder):
    model = tiny_encoder()
    query, document = "the red cat and the dog sleeping zzz", DOCUMENTS[0]
    score = model.similarity(model.encode_query(query), model.encode_document(document)).item()
    for given in (
        document,
        model.encode_document(document),
        model.encode_document([document], convert_to_scipy=True),
    ):
        explanation = model.explain(query, given)
        assert explanation.score == pytest.approx(score, rel=1e-6)
        assert sum(match.contribution for match in explanation.matches) == pytest.approx(score, rel=1e-6)
        contributions = [match.contribution for match in explanation.matches]
        assert contributions == sorted(contributions, reverse=True)
        assert min(contributions) > 0
    weights, row = model.query_weights, dense(model.encode_document(document))
    assert len(explanation.matches) >= 2
    for match in explanation.matches:
        token = VOCABULARY.index(match.token)
        assert match.token in make_tokenizer().tokenize(query)
        assert match.query_weight == pytest.approx(weights[token])
        assert match.document_weight == pytest.approx(row[token], rel=1e-5)
        assert match.contribution == pytest.approx(match.query_weight * match.document_weight)
    assert model.explain("zzz", document).matches == ()


def test_explain_follows_prompts_and_max_active_dims(tiny_encoder):
    options = {"prompts": {"query": "snow ", "document": "moon "}, "max_active_dims": 20}
    model = SparseEncoder(modules=list(tiny_encoder().children()), device="cpu", **options)
    for limit in (20, 2):
        model.max_active_dims = limit
        for query in ("the red cat and the dog in the city", "snow and bread"):
            score = model.similarity(model.encode_query(query), model.encode_document(DOCUMENTS[0])).item()
            assert model.explain(query, DOCUMENTS[0]).score == pytest.approx(score, rel=1e-5)


def test_explain_takes_one_document(tiny_encoder):
    model = tiny_encoder()
    with pytest.raises(InputError, match="one document"):
        model.explain("cat", model.encode_document(["cat", "dog"]))


def test_damaged_weights_name_the_document(tiny_encoder):
    model = tiny_encoder()
    with torch.no_grad():
        model.transformers_model.get_output_embeddings().weight[7] = float("nan")
    with pytest.raises(InputError, match="text 0 gets weights that are not finite"):
        model.encode_document("cat")
