"""Queries that a real OpenSearch encodes itself, against ours."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from st_l0 import QueryEncoder
from st_l0.cli import app
from st_l0.errors import InputError
from st_l0.index.opensearch import OpenSearchIndex, models
from st_l0.index.opensearch.address import Address
from st_l0.index.opensearch.server import Server
from st_l0.indexing import server_queries
from st_l0.indexing.server_queries import register

MINI = Path(__file__).parents[2] / "models" / "st-l0-mini"
TEXTS = [
    "what is sparse retrieval?",
    "größe café naïve",
    "日本語 テキスト 한국어",
    "😀 smile 👍🏽",
    "[SEP] [MASK] bread [CLS] [UNK]",
    "zzzzqqqq 🜲 qqqqxx",
    "playing players unaffable",
    "a.b . ... e.g. don't",
    "word " * 600,
    " ".join(map(str, range(700))),
    "\u200b \x00 null",
    "",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with an IDF of its own, some of it 0; what the documents need is left out."""
    folder = tmp_path_factory.mktemp("model") / "own"
    shutil.copytree(MINI, folder, ignore=lambda path, names: {"model.safetensors"} & set(names))
    weights = np.random.default_rng(1).uniform(0.1, 20, 30522).astype(np.float32)
    weights[1000:1100] = 0  # some punctuation and letters
    save_file({"weight": weights}, folder / "query_0_SparseStaticEmbedding" / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def encoder(model):
    return QueryEncoder.from_pretrained(model)


def server_of(target):
    return Server.connect(Address.parse(target))


def fill(target, encoder, **options):
    index = OpenSearchIndex(
        target,
        vocabulary_size=encoder.vocabulary_size,
        metadata={"query_fingerprint": encoder.query_fingerprint()},
        **options,
    )
    documents = encoder.encode_query(TEXTS[:8])
    documents.data[:] = np.random.default_rng(2).uniform(0.1, 3, documents.nnz)
    index.add([f"d{row}" for row in range(8)], documents)
    return index


def settings(server):
    found = server.request("GET", "/_cluster/settings", flat_settings=True)
    return found["persistent"], found["transient"]


def ask(target, found, text):
    """The ids and scores that a client without a model gets."""
    body = json.loads(json.dumps(found.query))
    body["query"]["neural_sparse"]["emb"]["query_text"] = text
    path, _, rest = found.path.partition("?")
    options = dict(one.split("=") for one in rest.split("&") if one)
    hits = server_of(target).request("POST", path, body, **options)["hits"]["hits"]
    return {hit["_source"]["id"]: hit["_score"] for hit in hits}


@pytest.mark.parametrize("ids", [False, True])
def test_tokens_and_weights_are_ours(opensearch_target, model, encoder, ids):
    names = [encoder.tokenizer.convert_ids_to_tokens(row) for row in range(encoder.vocabulary_size)]
    fill(opensearch_target, encoder, **({} if ids else {"tokens": names}))
    found = register(model, opensearch_target, on_data_nodes=True)
    server = server_of(opensearch_target)
    by_name = models.predict(server, found.model, TEXTS, ids=False)
    by_id = models.predict(server, found.model, TEXTS, ids=True)
    ours = encoder.encode_query(TEXTS)
    for row in range(len(TEXTS)):
        expected = dict(zip(ours[row].indices.tolist(), ours[row].data.tolist(), strict=True))
        numbers = {int(name): weight for name, weight in by_id[row].items()}
        words = {int(name) if ids else names.index(name): weight for name, weight in by_name[row].items()}
        for weights in (numbers, words):
            heavy = {token: weight for token, weight in weights.items() if weight > 2e-9}
            assert heavy == pytest.approx(expected, rel=1e-6)
    assert len(by_id[8]) == 1
    assert len(by_id[9]) > 300  # cut where ours is


def test_a_search_needs_no_model(opensearch_target, model, encoder):
    index = fill(opensearch_target, encoder)
    found = register(model, opensearch_target, on_data_nodes=True)
    for text in TEXTS[:8]:
        expected = index.search(encoder.encode_query([text]), 8)[0].as_run()
        assert ask(opensearch_target, found, text) == pytest.approx(expected, rel=1e-5)
        assert expected
    assert ask(opensearch_target, found, "[MASK]") == {}


def test_a_default_of_a_pipeline(opensearch_target, model, encoder):
    index = fill(opensearch_target, encoder)
    name = opensearch_target.rpartition("/")[2]
    found = register(model, opensearch_target, pipeline=name, on_data_nodes=True)
    assert found.query == {"query": {"neural_sparse": {"emb": {"query_text": "what is sparse retrieval?"}}}}
    expected = index.search(encoder.encode_query([TEXTS[0]]), 8)[0].as_run()
    assert ask(opensearch_target, found, TEXTS[0]) == pytest.approx(expected, rel=1e-5)
    assert register(model, opensearch_target, pipeline=name).model == found.model  # its own is replaced
    server = server_of(opensearch_target)
    other = {"request_processors": [{"filter_query": {"query": {"match_all": {}}}}]}
    server.request("PUT", f"/_search/pipeline/{name}", other)
    with pytest.raises(InputError, match="has a filter_query too, which would be lost"):
        register(model, opensearch_target, pipeline=name)
    assert server.request("GET", f"/_search/pipeline/{name}")[name] == other
    server.request("DELETE", f"/_search/pipeline/{name}")
    with pytest.raises(InputError, match="no name of a pipeline"):
        register(model, opensearch_target, pipeline="../_all")


def test_an_approximate_index(opensearch_target, model, encoder):
    index = fill(f"{opensearch_target}?vectors=sparse_vector", encoder)
    found = register(model, opensearch_target, on_data_nodes=True)
    for text in TEXTS[:4]:
        best = index.search(encoder.encode_query([text]), 1)[0][0]
        assert ask(opensearch_target, found, text)[best.id] == pytest.approx(best.score, rel=1e-5)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_settings_are_put_back_and_what_was_begun_goes_on(opensearch_target, model, monkeypatch, error):
    encoder = QueryEncoder.from_pretrained(model)
    # A model of its own, also on a server that earlier runs have used.
    encoder.query_weights *= np.float32(int(opensearch_target[-6:], 16) / 0xFFFFFF)
    fill(opensearch_target, encoder)
    server = server_of(opensearch_target)
    free = {"persistent": {models._UPLOAD: None, models._ML_NODES_ONLY: None}}
    server.request("PUT", "/_cluster/settings", free)
    before = settings(server)
    archive = models_archive(encoder)

    def cut(*_):
        assert settings(server)[0][models._UPLOAD] == "true"
        raise error

    options = {"function": "SPARSE_TOKENIZE", "name": "test"}
    with pytest.raises(InputError, match="no node has the role ml"):
        models.deploy(server, archive, **options)
    assert settings(server) == before
    with monkeypatch.context() as patched:
        patched.setattr(models, "_upload", cut)
        with pytest.raises(error):
            models.deploy(server, archive, **options, on_data_nodes=True)
    assert settings(server) == before
    begun = models._find(server, models.hashlib.sha256(archive).hexdigest(), "SPARSE_TOKENIZE")
    assert begun[1] == "REGISTERING"
    done = models.deploy(server, archive, **options, on_data_nodes=True)
    assert done == (begun[0], True)
    assert settings(server)[0].get(models._UPLOAD) is None
    # Taken down, as by a restart without the role: it runs again.
    server.request("POST", f"/_plugins/_ml/models/{done.id}/_undeploy")
    assert models.deploy(server, archive, **options) == done
    assert models.predict(server, done.id, ["bread"], ids=True)[0]


def models_archive(encoder):
    from st_l0.indexing.query_archive import query_archive

    return query_archive(encoder, "model", ids=True)


def test_the_analyzer_of_the_server(opensearch_target, tmp_path):
    """It has MS MARCO's IDF. The shipped model differs in punctuation only, which weighs 0."""
    mini = QueryEncoder.from_pretrained(MINI)
    weights, vocabulary = mini.query_weights.copy(), mini.tokenizer.get_vocab()
    there, split = {}, mini.tokenizer.backend_tokenizer.encode
    for text in server_queries._texts_of_tokens(mini):
        if any(weights[row] == 0 for row in split(text, add_special_tokens=False).ids):
            there |= server_queries._analyze(server_of(opensearch_target), [text])
    for token, weight in there.items():
        weights[vocabulary[token]] = weight
    assert ((weights > 0) & (mini.query_weights == 0)).sum() > 200
    folder = tmp_path / "mini"
    shutil.copytree(MINI, folder, ignore=lambda path, names: {"model.safetensors"} & set(names))
    save_file({"weight": weights}, folder / "query_0_SparseStaticEmbedding" / "model.safetensors")
    own = QueryEncoder.from_pretrained(folder)
    names = [own.tokenizer.convert_ids_to_tokens(row) for row in range(own.vocabulary_size)]
    index = fill(opensearch_target, own, tokens=names)
    found = register(folder, opensearch_target, analyzer=True)
    assert found.model is None
    assert found.query["query"]["neural_sparse"]["emb"]["analyzer"] == "bert-uncased"
    expected = index.search(own.encode_query([TEXTS[0]]), 8)[0].as_run()
    assert ask(opensearch_target, found, TEXTS[0]) == pytest.approx(expected, rel=1e-5)


def test_the_analyzer_of_another_table(opensearch_target, model, encoder):
    names = [encoder.tokenizer.convert_ids_to_tokens(row) for row in range(encoder.vocabulary_size)]
    fill(opensearch_target, encoder, tokens=names)
    with pytest.raises(InputError, match=r"weighs .*, and weighs .* in the server's analyzer bert-uncased"):
        register(model, opensearch_target, analyzer=True)


def test_what_does_not_fit(opensearch_target, model, encoder):
    with pytest.raises(InputError, match="there is no such index"):
        register(model, opensearch_target)
    fill(opensearch_target, encoder)
    with pytest.raises(InputError, match="made with a model of other weights"):
        register(MINI, opensearch_target)
    with pytest.raises(InputError, match="names its features by token ids"):
        register(model, opensearch_target, analyzer=True)
    with pytest.raises(InputError, match="is no index on OpenSearch"):
        register(model, "runs/index")


def test_the_command(opensearch_target, model, encoder):
    fill(opensearch_target, encoder)
    arguments = ["opensearch", "register", str(model), "--to", opensearch_target, "--on-data-nodes"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["query"]["query"]["neural_sparse"]["emb"]["model_id"] == found["model"]
    said = CliRunner().invoke(app, arguments).output
    assert f"model {found['model']}: was there already" in said
    assert json.loads(said.splitlines()[-1]) == found["query"]
