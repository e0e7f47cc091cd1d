"""mteb itself, offline, on tasks made by hand: our index against its dense search."""

from __future__ import annotations

import random
import re
import string

import numpy as np
import pytest
import sentence_transformers
from drawn_tasks import COLLECTION
from drawn_tasks import draw_task as task

from protocol_index import ProtocolIndex, TruncatedIndex
from st_l0.data import Collection
from st_l0.errors import InputError
from st_l0.evaluation import MtebModel, evaluate
from tiny_models import VOCABULARY, WORDS, save_model

mteb = pytest.importorskip("mteb")


def run(model, one_task, **options):
    result = mteb.evaluate(model, one_task, cache=None, co2_tracker=False, show_progress_bar=False, **options)
    return result.task_results[0].scores["test"][0]


def metrics(scores):
    return {key: value for key, value in scores.items() if not isinstance(value, str | list)}


@pytest.fixture
def models(tiny_encoder, tmp_path):
    model = tiny_encoder()
    return model, sentence_transformers.SparseEncoder(save_model(model, tmp_path / "model"), device="cpu")


def test_all_scores_are_those_of_the_dense_way(models):
    model, stock = models
    expected = metrics(run(stock, task()))
    assert metrics(run(MtebModel(model, "org/tiny"), task())) == pytest.approx(
        expected, abs=1e-4, nan_ok=True
    )
    assert metrics(run(model, task())) == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert 0.05 < expected["ndcg_at_10"] < 0.95


def test_ndcg_is_that_of_our_own_evaluation(models):
    found = run(MtebModel(models[0], "org/tiny"), task())
    report = evaluate(models[0], COLLECTION, bm25=False, progress=False)
    assert found["ndcg_at_10"] == pytest.approx(report["model"]["ndcg@10"], abs=1e-5)  # mteb rounds
    assert found["recall_at_100"] == pytest.approx(report["model"]["recall@100"], abs=1e-5)


def test_small_chunks_titles_and_instructions(models):
    model, stock = models
    titles = [string.ascii_lowercase[number % 20] if number % 3 else "" for number in range(60)]
    instruction = ["the red house" if number % 2 else "snow" for number in range(20)]
    searched = MtebModel(model, "org/tiny")
    searched._search.corpus_chunk_size = 7
    options = {"titles": titles, "instruction": instruction}
    expected = metrics(run(stock, task(**options)))
    assert metrics(run(searched, task(**options))) == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert metrics(run(searched, task())) != pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_prompts_are_chosen_as_mteb_does(tiny_encoder):
    prompts = {"query": "red house ", "Retrieval-document": "snow ", "document": "fish "}
    model = tiny_encoder()
    plain = metrics(run(MtebModel(model, "org/tiny"), task()))
    model.prompts = prompts
    searched = MtebModel(model, "org/tiny")
    found = metrics(run(searched, task()))
    assert found == pytest.approx(metrics(run(model, task())), abs=1e-5, nan_ok=True)
    assert found != pytest.approx(plain, abs=1e-5, nan_ok=True)
    assert searched.mteb_model_meta.use_instructions


def test_reranking(models):
    model, stock = models
    draw = random.Random(3)
    given = {query: draw.sample(list(COLLECTION.corpus), 12) for query in COLLECTION.queries}
    options = {"kind": "Reranking", "top_ranked": given}
    expected = metrics(run(stock, task(**options)))
    found = metrics(run(MtebModel(model, "org/tiny"), task(**options)))
    assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert 0.05 < expected["ndcg_at_10"] < 0.95


def search(model, collection, top_k, **options):
    """The protocol, called as mteb calls it."""
    one = task(collection, **options)
    one.load_data()
    data = one.dataset["default"]["test"]
    common = {
        "task_metadata": one.metadata,
        "hf_split": "test",
        "hf_subset": "default",
        "encode_kwargs": {"batch_size": 4, "show_progress_bar": False},
        "num_proc": None,
    }
    model.index(data["corpus"], **common)
    return model.search(data["queries"], top_k=top_k, top_ranked=data["top_ranked"], **common)


def test_only_documents_that_match_are_found_and_given_ones_are_all_ranked(tiny_encoder):
    model = tiny_encoder()
    model.max_active_dims = 12
    texts = dict(zip("abcdef", WORDS[10:60:9], strict=True))
    vectors = model.encode_document(list(texts.values())).to_dense().numpy()
    some = np.flatnonzero((vectors > 0).any(0) & (vectors == 0).any(0))
    word = next(VOCABULARY[token] for token in some if VOCABULARY[token].isalpha())
    queries = {"q": word, "none": "zzz"}
    weights = model.encode_query(word).to_dense().numpy()
    scores = dict(zip(texts, (vectors @ weights).tolist(), strict=True))
    matching = {id: score for id, score in scores.items() if score}
    assert 0 < len(matching) < len(texts)
    relevant = {query: {next(iter(matching)): 1} for query in queries}
    collection = Collection("small", texts, queries, relevant)
    searched = MtebModel(model, "org/tiny")
    found = search(searched, collection, 10)
    assert found == {"q": pytest.approx(matching), "none": {}}
    report = evaluate(model, collection, bm25=False, progress=False)  # a query without hits counts 0
    assert run(searched, task(collection))["ndcg_at_10"] == pytest.approx(report["model"]["ndcg@10"])
    assert 0 < report["model"]["ndcg@10"] <= 0.5
    given = {"q": ["f", *"abcd"], "none": ["b"]}
    ranked = search(searched, collection, 10, kind="Reranking", top_ranked=given)
    assert ranked == {"q": pytest.approx({id: scores[id] for id in given["q"]}), "none": {"b": 0}}


def test_another_engine_one_index_a_corpus(models):
    made = []
    other = MtebModel(models[0], "org/tiny", make_index=lambda: made.append(ProtocolIndex()) or made[-1])
    expected = search(MtebModel(models[0], "org/tiny"), COLLECTION, 10)
    for corpora in (1, 2):
        assert search(other, COLLECTION, 10) == expected
        assert [len(index) for index in made] == [60] * corpora
    assert made[0].calls == ["add", "search"]


def test_on_a_cluster(models, opensearch_target):
    from st_l0.index.opensearch.scratch import scratch

    with scratch(opensearch_target) as make_index:
        found = metrics(run(MtebModel(models[0], "us/model", make_index=make_index), task()))
    expected = metrics(run(MtebModel(models[0], "us/model", make_index=TruncatedIndex), task()))
    assert found == pytest.approx(expected, nan_ok=True)


def test_the_deepest_hits_are_cut(models):
    searched = MtebModel(models[0], "org/tiny")
    full = search(searched, COLLECTION, 1000)
    for query, found in search(searched, COLLECTION, 5).items():
        assert found == dict(sorted(full[query].items(), key=lambda hit: -hit[1])[:5])


def test_results_say_what_was_measured(tiny_encoder):
    model = tiny_encoder()
    searched = MtebModel(model, "org/tiny")
    meta = searched.mteb_model_meta
    assert meta.name == "org/tiny"
    assert meta.model_type == ["sparse"]
    assert meta.similarity_fn_name.value == "dot"
    assert meta.loader.__name__ == "SparseEncoderWrapper"
    assert meta.max_tokens == 130  # the positions of the tiny model
    assert meta.embed_dim == len(model.query_weights)
    assert meta.n_parameters == sum(weight.numel() for weight in model.parameters())
    assert not meta.use_instructions
    assert isinstance(searched, mteb.SearchProtocol)
    assert not isinstance(searched, mteb.EncoderProtocol)
    result = mteb.evaluate(searched, task(), cache=None, co2_tracker=False, show_progress_bar=False)
    assert (result.model_name, result.model_revision) == ("org/tiny", meta.revision)
    assert MtebModel(model, "org/tiny", "0123abc").mteb_model_meta.revision == "0123abc"


def test_a_revision_names_weights_and_settings(tiny_encoder):
    def revision(model):
        return MtebModel(model, "org/tiny").mteb_model_meta.revision

    model = tiny_encoder()
    first = revision(model)
    assert re.fullmatch("[0-9a-f]{40}", first)
    assert revision(tiny_encoder()) == first
    others = {first, revision(tiny_encoder(activation=2)), revision(tiny_encoder(max_seq_length=64))}
    model.max_active_dims = 7
    others.add(revision(model))
    model.max_active_dims = None
    model.prompts = {"query": "q: ", "document": ""}
    others.add(revision(model))
    others.add(revision(tiny_encoder(idf="binary")))
    shorter = tiny_encoder()
    shorter.tokenizer.model_max_length = 9  # of queries
    others.add(revision(shorter))
    assert len(others) == 7


@pytest.mark.parametrize("name", ["tiny", "./tiny/model", "org/", "a b/c", "/tmp/model"])
def test_a_name_without_an_organization_is_refused(tiny_encoder, name):
    with pytest.raises(InputError, match="give organization/model"):
        MtebModel(tiny_encoder(), name)


def test_a_moving_revision_and_another_similarity_are_refused(tiny_encoder):
    model = tiny_encoder()
    with pytest.raises(InputError, match="'main' moves"):
        MtebModel(model, "org/tiny", revision="main")
    model.similarity_fn_name = "cosine"
    with pytest.raises(InputError, match="cosine"):
        MtebModel(model, "org/tiny")
