"""Words beside the model on the command line: kept, weighed, searched and explained."""

import json

import pytest
from typer.testing import CliRunner

from st_l0 import SparseEncoder, cli
from st_l0.data import write_collection
from st_l0.data.beir import Collection
from st_l0.errors import InputError
from st_l0.index import open_index

TEXTS = {
    "a": "Rain falls from clouds. It is wet.",
    "b": "Rain on a mountain. Clouds hide it.",
    "c": "The sun warms the clouds. No rain today.",
    "d": "A cat sleeps in the sun. Clouds pass.",
    "e": "Rain and sun make a rainbow in clouds.",
}
MODEL = "models/st-l0-mini"


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"_id": id, "text": text}) + "\n" for id, text in TEXTS.items()))
    return path


@pytest.fixture(scope="module")
def built(corpus, tmp_path_factory):
    """An index with words, and what its making said."""
    folder = tmp_path_factory.mktemp("built") / "index"
    return folder, run("index", MODEL, corpus, "--to", folder, "--bm25", "english")


def test_the_weight_is_found_stored_and_said(built):
    folder, said = built
    index = open_index(folder)
    assert index.bm25.language == "english" and index.bm25_weight > 0
    assert "words with english stop words, english stemmer" in said
    assert f"BM25 counts {index.bm25_weight:g} (by the spread of scores over 5 titles or" in said


def test_a_search_adds_words_up_and_explains_them(built):
    folder, _ = built
    encoder, index = SparseEncoder.from_pretrained(MODEL, device="cpu"), open_index(folder)
    query = "rain clouds"
    vectors = encoder.encode_query([query], convert_to_scipy=True)

    def found(*options):
        return json.loads(run("search", folder, query, "--json", *options))["hits"]

    for options, weight in (((), index.bm25_weight), (("--bm25", "3"), 3.0), (("--bm25", "0"), 0.0)):
        expected = index.search(vectors, texts=[query], bm25=weight)[0]
        assert [(hit["id"], hit["score"]) for hit in found(*options)] == [hit[:2] for hit in expected]
    assert found("--bm25", "auto") == found()
    for hit in found("--explain"):
        parts = hit["tokens"] + hit["words"]
        assert sum(part["score"] for part in parts) == pytest.approx(hit["score"], rel=1e-5)
        assert {part["word"] for part in hit["words"]} <= {"rain", "cloud"}
    assert all("words" not in hit for hit in found("--explain", "--bm25", "0"))
    assert "cloud (word)" in run("search", folder, query, "--explain")


def test_words_of_encoded_documents(corpus, built, tmp_path):
    run("encode", MODEL, corpus, "--to", tmp_path / "encoded")
    said = run("index", MODEL, tmp_path / "encoded", "--to", tmp_path / "index", "--bm25", "english")
    assert "over 5 titles or" in said
    assert open_index(tmp_path / "index").bm25_weight == open_index(built[0]).bm25_weight


def test_a_given_weight_stays_when_documents_are_added(corpus, tmp_path):
    folder = tmp_path / "index"
    assert "BM25 counts 2.5 (as given)" in run(
        "index", MODEL, corpus, "--to", folder, "--bm25", "english", "--bm25-weight", "2.5"
    )
    assert "BM25 counts" not in run("index", MODEL, corpus, "--to", folder)
    assert open_index(folder).bm25_weight == 2.5


def test_a_model_names_its_weight(corpus, tmp_path):
    model = SparseEncoder.from_pretrained(MODEL, device="cpu")
    assert model.bm25_weight is None
    model.bm25_weight = 1.75
    model.save_pretrained(str(tmp_path / "model"))
    assert SparseEncoder.from_pretrained(tmp_path / "model", device="cpu").bm25_weight == 1.75
    said = run("index", tmp_path / "model", corpus, "--to", tmp_path / "index", "--bm25", "english")
    assert "BM25 counts 1.75 (as the model names it)" in said
    with pytest.raises(InputError, match="weight of BM25"):
        model.bm25_weight = -1
    settings = tmp_path / "model" / "config_sentence_transformers.json"
    settings.write_text(settings.read_text().replace("1.75", '"much"'))
    with pytest.raises(InputError, match="bm25_weight is 'much'"):
        SparseEncoder.from_pretrained(tmp_path / "model", device="cpu")


def test_judgements_choose_the_weight(built, corpus, tmp_path):
    collection = Collection("labels", TEXTS, {"q": "sun"}, {"q": {"d": 1}})
    write_collection(collection, tmp_path / "labels")
    said = run("index", MODEL, corpus, "--to", built[0], "--data", tmp_path / "labels")
    assert "best on the judgements of" in said and "without words)" in said


def test_a_corpus_is_searched_with_words_for_once(corpus):
    hits = json.loads(run("search", corpus, "rain", "--model", MODEL, "--bm25", "auto", "--json"))["hits"]
    assert hits[0]["id"] in TEXTS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--bm25", "klingon"), "klingon"),
        (
            ("--bm25", "english", "--bm25-weight", "-1"),
            "--bm25-weight '-1': give a number of at least 0, or auto",
        ),
        (("--bm25", "english", "--bm25-weight", "nan"), "--bm25-weight 'nan'"),
        (("--bm25", "english", "--bm25-weight", "2", "--data", "x"), "leave one out"),
        (("--bm25-weight", "2"), "no index that holds words"),
        (("--data", "x"), "no index that holds words"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, said, corpus, tmp_path):
    output = run("index", MODEL, corpus, "--to", tmp_path / "index", *arguments, code=2)
    assert said in output and len(output.strip().splitlines()) == 1
    assert not (tmp_path / "index").exists()


def test_an_index_without_words_says_so(corpus, tmp_path):
    run("index", MODEL, corpus, "--to", tmp_path / "index")
    assert "no words" in run("search", tmp_path / "index", "rain", "--bm25", "2", code=2)
    assert "no weight" in run("search", tmp_path / "index", "rain", "--bm25", "auto", code=2)
    assert "give a number" in run("search", tmp_path / "index", "rain", "--bm25", "much", code=2)
