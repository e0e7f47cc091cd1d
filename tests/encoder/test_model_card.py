"""A card says what is known of a model, to whom may know it, and shows examples that run."""

import ast
import re
import sys
import uuid
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from sentence_transformers import SparseEncoder as Stock
from sentence_transformers import SparseEncoderTrainer, SparseEncoderTrainingArguments

from st_l0 import SparseEncoder
from st_l0.encoder.model_card import ModelCardData, plain
from st_l0.evaluation import write_json
from st_l0.hub.results import read_results
from st_l0.losses import InfoNCELoss, L0MaskFlopsLoss, SparseRetrievalLoss
from tiny_models import save_model


def card_of(model, folder):
    model.save_pretrained(str(folder))
    return (folder / "README.md").read_text()


def snippets(card):
    return re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)


@pytest.fixture
def no_hub(monkeypatch):
    """Nobody asks the Hub what a local path may be the name of."""

    def asked(*args, **kwargs):
        raise AssertionError("the Hub was asked")

    for name in ("get_model_info", "get_dataset_info"):
        monkeypatch.setattr(f"sentence_transformers.base.model_card.{name}", asked)


@pytest.fixture
def trained(tiny_encoder, tmp_path, no_hub):
    """A model after one step of sentence-transformers' own trainer."""
    model = tiny_encoder()
    texts = {"query": ["secret of the cat", "dog"], "positive": ["private river", "a mountain"]}
    loss = SparseRetrievalLoss(model, InfoNCELoss(), L0MaskFlopsLoss(5), 0.1)
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(tmp_path / "checkpoints"), max_steps=1, per_device_train_batch_size=2, use_cpu=True,
        report_to="none", save_strategy="no", router_mapping={"query": "query", "positive": "document"},
    )  # fmt: skip
    SparseEncoderTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(texts), loss=loss
    ).train()
    return model


def test_how_much_bm25_counts_beside_it(tiny_encoder, tmp_path, no_hub):
    model = tiny_encoder()
    folder = tmp_path / "model"
    model.save_pretrained(str(folder))
    assert "BM25 beside it" not in (folder / "README.md").read_text()
    model = type(model).from_pretrained(folder, device="cpu")
    model.bm25_weight = 2.5  # the card that was read says nothing of it
    model.save_pretrained(str(tmp_path / "other"))
    assert "| score + 2.5 × BM25 |" in (tmp_path / "other" / "README.md").read_text()


def test_no_text_of_the_training_and_no_placeholder(trained, tmp_path):
    card = card_of(trained, tmp_path / "model")
    for text in (
        "secret",
        "private river",
        "widget",
        "NoneType",
        "sparse_encoder_model_id",
        "nknown",
        "<!--",
    ):
        assert text not in card
    data = ModelCard(card).data
    assert "loss:SparseRetrievalLoss" in data.tags
    assert "dataset_size:2" in data.tags
    assert data.base_model is None  # a folder
    assert "2 examples with the columns <code>query</code>, <code>positive</code>" in card
    assert "document_regularizer_weight" in card
    assert "arxiv.org/abs/2504.14839" in card


def test_nothing_is_empty(tiny_encoder, tmp_path, no_hub):
    card = card_of(tiny_encoder(), tmp_path / "model")
    assert "None" not in card
    assert "| |" not in re.sub(r"\| \| \|\n\|---", "", card)
    headings = re.findall(r"^## .*", card, re.MULTILINE)
    assert headings == ["## Usage"]  # nothing else is known


def test_the_examples_run(tiny_encoder, tmp_path, monkeypatch):
    card = card_of(tiny_encoder(activation=1), tmp_path / "model")
    ours, stock, opensearch = snippets(card)
    monkeypatch.chdir(tmp_path)
    for code in (ours, stock):
        exec(code, {})
    sent = {}
    client = SimpleNamespace(
        indices=SimpleNamespace(create=lambda **options: sent.update(options)),
        search=lambda index, body: sent.update(body) or {"hits": {"hits": []}},
    )
    module = ModuleType("opensearchpy")
    module.OpenSearch = lambda address: client
    module.helpers = SimpleNamespace(bulk=lambda client, actions, refresh: sent.update(actions=actions))
    monkeypatch.setitem(sys.modules, "opensearchpy", module)
    exec(opensearch, {})
    ast.parse(opensearch)
    model = SparseEncoder.from_pretrained(tmp_path / "model", device="cpu")
    assert sent["body"]["mappings"]["properties"]["tokens"] == {"type": "rank_features"}
    text = sent["actions"][0]["text"]
    for weights, vector in (
        (sent["actions"][0]["tokens"], model.encode_document([text], convert_to_scipy=True)),
        (sent["query"]["neural_sparse"]["tokens"]["query_tokens"],
         model.encode_query(["what is sparse retrieval?"], convert_to_scipy=True)),
    ):  # fmt: skip
        expected = {
            str(token): pytest.approx(weight, rel=1e-5)
            for token, weight in zip(vector.indices, vector.data, strict=True)
        }
        assert weights == expected


def test_the_example_for_opensearch_runs_on_a_real_one(tiny_encoder, tmp_path, request, capsys):
    opensearchpy = pytest.importorskip("opensearchpy")
    try:
        url = request.getfixturevalue("opensearch")
    except pytest.FixtureLookupError:
        pytest.skip("no OpenSearch is started by these tests")
    example = snippets(card_of(tiny_encoder(), tmp_path / "model"))[2]
    index = f"cards-{uuid.uuid4().hex}"
    try:
        exec(example.replace("http://localhost:9200", url).replace("my-documents", index), {})
    finally:
        opensearchpy.OpenSearch(url).indices.delete(index=index)
    model = SparseEncoder.from_pretrained(tmp_path / "model", device="cpu")
    query = model.encode_query(["what is sparse retrieval?"])
    texts = ["Sparse retrieval matches weighted tokens in an inverted index.", "It rains."]
    expected = {
        text: score for text, score in zip(texts, dense_scores(model, query, texts), strict=True) if score
    }
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    found = {text: float(score) for score, _, text in lines}
    assert found == {
        text: pytest.approx(score, rel=0.01) for text, score in expected.items()
    }  # 9 bits a weight
    assert found


def dense_scores(model, query, texts):
    return model.similarity(query, model.encode_document(texts))[0].tolist()


@pytest.mark.parametrize(("activation", "served", "fast"), [("relu", "by its", "no:"), (1, "no:", "by its")])
def test_engines_by_activation(tiny_encoder, tmp_path, activation, served, fast):
    card = card_of(tiny_encoder(activation=activation), tmp_path / "model")
    assert f"| text-embeddings-inference (`--pooling splade`) | {served}" in card
    assert f"| FastEmbed | {fast}" in card
    assert card.count("log(1 + ") == 1 + activation if activation == 1 else card.count("log(1 + ") == 1


def test_a_card_is_inherited_by_the_same_model_only(tiny_encoder, tmp_path):
    folder = tmp_path / "first"
    save_model(tiny_encoder(), folder)
    written = "---\nlicense: mit\n---\n\n# By hand\n"
    (folder / "README.md").write_text(written)

    def load():
        return SparseEncoder.from_pretrained(folder, device="cpu")

    assert card_of(load(), tmp_path / "copy") == written

    def change_one_weight(model):
        with torch.no_grad():
            model[0].sub_modules["query"][0].weight[7] += 1e-4

    for number, change in enumerate(
        (
            change_one_weight,
            lambda model: setattr(model, "max_seq_length", 30),
            lambda model: model.prompts.update(query="cat "),
            lambda model: model.model_card_data.set_model_id("org/other"),
        )
    ):
        model = load()
        change(model)
        assert "By hand" not in card_of(model, tmp_path / str(number))
    assert 'from_pretrained("org/other")' in (tmp_path / "3" / "README.md").read_text()


def test_the_base_model_is_named_where_it_is_known(tiny_encoder, tmp_path, monkeypatch, no_hub):
    model = tiny_encoder()
    config = model.transformers_model.config
    for name, cached, expected in (
        ("org/base", str(tmp_path), "org/base"),
        ("runs/base", None, None),  # a folder that is gone
        (str(tmp_path), str(tmp_path), None),
    ):
        monkeypatch.setattr(
            "st_l0.encoder.model_card.try_to_load_from_cache", lambda *args, found=cached: found
        )
        config._name_or_path = name
        model.model_card_data = ModelCardData()
        model.model_card_data.register_model(model)
        assert ModelCard(card_of(model, tmp_path / "model")).data.base_model == expected


def test_numbers_of_numpy_are_written_as_numbers(tiny_encoder, tmp_path):
    model = tiny_encoder()
    entry = {
        "collection": "toy",
        "metrics": {"nDCG@10": np.float32(0.25)},
        "bm25": {},
        "costs": {},
        "source": "me",
    }
    model.model_card_data.evaluation = [entry]
    model.model_card_data.co2_eq_emissions = None
    card = card_of(model, tmp_path / "model")
    assert "!!python" not in card
    assert yaml.safe_load(card.split("---")[1])
    (result,) = ModelCard(card).data.eval_results
    assert (result.metric_type, result.metric_value) == ("ndcg_at_10", 0.25)
    found = plain({"a": [np.float64(1.5), torch.tensor(2)], "b": (np.int64(3), "c")})
    assert found == {"a": [1.5, 2], "b": [3, "c"]}
    assert type(found["a"][0]) is float


def test_a_table_says_its_protocol_and_its_bm25(tiny_encoder, tmp_path):
    model = tiny_encoder()
    reports = [
        {"collection": name, "model": {"ndcg@10": 0.5}, "bm25": {"ndcg@10": 0.25}, "bm25_variant": variant}
        for name, variant in (("one", "k1 1.2"), ("two", "k1 1.2"), ("three", "k1 0.9"))
    ]
    write_json(reports, tmp_path / "evaluation.json")
    model.model_card_data.evaluation = read_results([tmp_path / "evaluation.json"], {})
    card = card_of(model, tmp_path / "model")
    assert " queries without hits: count 0; " in card and "relevant. BM25: k1 1.2. BM25: k1 0.9.\n" in card
    assert [one.metric_value for one in ModelCard(card).data.eval_results] == [0.5] * 3


def test_stocks_own_data_make_stocks_card(tiny_encoder, tmp_path):
    from sentence_transformers import SparseEncoderModelCardData

    model = tiny_encoder()
    model.model_card_data = SparseEncoderModelCardData(local_files_only=True)
    model.model_card_data.register_model(model)
    assert "sparse_encoder_model_id" in card_of(model, tmp_path / "model")


def test_plain_sentence_transformers_keeps_it(tiny_encoder, tmp_path):
    card = card_of(tiny_encoder(), tmp_path / "model")
    Stock(str(tmp_path / "model"), device="cpu").save_pretrained(str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "README.md").read_text() == card
