"""Teachers without a model: BM25 against bm25s, stored embeddings against their model."""

import json

import bm25s
import numpy as np
import pytest
import sentence_transformers as st
import Stemmer
import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import st_l0.teachers.stored_vectors
from st_l0.errors import InputError
from st_l0.teachers import EnsembleTeacher, load_teacher, write_bm25, write_vectors
from tiny_models import DOCUMENTS, QUERIES

CORPUS = [
    "The red fox runs over the frozen river.",
    "A song about running rivers and a fox, a fox!",
    "Bread is baked from flour and water.",
    "",
    "the of and",
]
ASKED = ["running fox", "flour", "fox fox river", "zebra fox", "the"]


def message(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def bm25(tmp_path):
    write_bm25(tmp_path / "bm25.json", iter(CORPUS))
    return load_teacher(f"bm25:{tmp_path / 'bm25.json'}")


def test_bm25_is_that_of_bm25s(bm25):
    """The words that the corpus has; all of a query's words count, however often they occur."""
    stemmer = Stemmer.Stemmer("english")
    engine = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    engine.index(
        bm25s.tokenize(CORPUS, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False
    )
    rows = []
    for query in ASKED:
        (words,) = bm25s.tokenize(
            [query], stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False
        )
        known = [word for word in words if word in engine.vocab_dict]
        rows.append(engine.get_scores(known) if known else np.zeros(len(CORPUS)))
    expected = torch.tensor(np.array(rows), dtype=torch.float32)
    assert (expected > 0).sum() == 7
    torch.testing.assert_close(bm25.score_all(ASKED, CORPUS), expected)
    pairs = [(i, j) for j in range(len(CORPUS)) for i in range(len(ASKED))]
    left, right = [ASKED[i] for i, _ in pairs], [CORPUS[j] for _, j in pairs]
    torch.testing.assert_close(bm25.score_pairs(left, right), torch.stack([expected[p] for p in pairs]))


def test_bm25_by_hand(tmp_path):
    """Two documents of one and three words: mean length 2, idf of "fox" ln(1 + 0.5 / 2.5)."""
    write_bm25(tmp_path / "two", ["fox", "fox fox zebra"])
    teacher = load_teacher(f"bm25:{tmp_path / 'two'}")
    found = teacher.score_all(["fox", "fox fox", "lion"], ["fox", "fox fox zebra", "lion"])
    idf, unseen = np.log(1.2), np.log(1 + 2.5 / 0.5)
    one, three = 1 / (1 + 1.2 * (0.25 + 0.75 * 0.5)), 2 / (2 + 1.2 * (0.25 + 0.75 * 1.5))
    expected = [[idf * one, idf * three, 0], [2 * idf * one, 2 * idf * three, 0], [0, 0, unseen * one]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_bm25_does_not_depend_on_what_was_asked_before(bm25, tmp_path):
    before = bm25.score_all(ASKED[:1], CORPUS)
    bm25.score_all(["quite other words", *ASKED], ["words that nobody asked for", *CORPUS])
    assert torch.equal(bm25.score_all(ASKED[:1], CORPUS), before)


def test_bm25_refuses_what_it_cannot_count_or_read(tmp_path):
    assert "no word" in message(write_bm25, tmp_path / "none", ["", "the"])
    assert not (tmp_path / "none").exists()
    assert "write_bm25" in message(load_teacher, f"bm25:{tmp_path / 'none'}")
    (tmp_path / "other").write_text(json.dumps({"documents": 3}))
    assert "write_bm25" in message(load_teacher, f"bm25:{tmp_path / 'other'}")


def test_bm25_of_other_words_is_refused_and_an_earlier_file_has_none_of_one_character(tmp_path):
    path = tmp_path / "bm25.json"
    write_bm25(path, ["vitamin C", "vitamin"])
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"analyzer": "0123456789abcdef"}))
    assert "made with other words" in message(load_teacher, f"bm25:{path}")

    earlier = {"documents": 2, "mean_length": 1.0, "frequencies": {"vitamin": 2}}
    path.write_text(json.dumps(earlier))
    found = load_teacher(f"bm25:{path}").score_all(["vitamin C"], ["vitamin C"])
    assert found.item() == pytest.approx(np.log(1 + 0.5 / 2.5) / 2.2)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_stored_vectors_score_as_their_model(tmp_path, mlm_folder, similarity):
    pooling = Pooling(32, pooling_mode="mean")
    modules = [Transformer(mlm_folder), pooling]
    if similarity == "dot":
        from sentence_transformers.sentence_transformer.modules import Normalize

        modules.append(Normalize())
    model = st.SentenceTransformer(
        modules=modules, similarity_fn_name=similarity, prompts={"query": "the song "}, device="cpu"
    )
    model.save_pretrained(str(tmp_path / "dense"))
    dense = load_teacher(f"dense:{tmp_path / 'dense'}", device="cpu")
    write_vectors(dense, [*QUERIES, *QUERIES], DOCUMENTS, tmp_path / "vectors", progress=False)
    record = json.loads((tmp_path / "vectors" / "vectors.json").read_text())
    assert record["prompts"] == {"query": "the song ", "document": ""}
    stored = load_teacher(f"vectors:{tmp_path / 'vectors'}")
    near = {"rtol": 0, "atol": 2e-3}  # float16
    torch.testing.assert_close(
        stored.score_all(QUERIES, DOCUMENTS[::-1]), dense.score_all(QUERIES, DOCUMENTS[::-1]), **near
    )
    count = min(len(QUERIES), len(DOCUMENTS))
    pairs = QUERIES[:count], DOCUMENTS[-count:]
    torch.testing.assert_close(stored.score_pairs(*pairs), dense.score_pairs(*pairs), **near)
    # A text is embedded as a query or as a document: the prompt makes them differ.
    assert "query 'red fox' was not embedded" in message(stored.score_all, ["red fox"], DOCUMENTS[:1])
    assert "the query" in message(stored.score_all, [DOCUMENTS[0]], DOCUMENTS[:1])


def test_a_text_is_embedded_once_however_often_it_comes(tmp_path, mlm_folder, monkeypatch):
    monkeypatch.setattr(st_l0.teachers.stored_vectors, "_CHUNK", 2)
    dense = load_teacher(f"dense:{mlm_folder}", device="cpu")
    write_vectors(dense, ["a"] * 5, ["the cat", "a", "a", "the cat", "red"], tmp_path / "v", progress=False)
    assert np.load(tmp_path / "v" / "vectors.npy").shape == (4, 32)
    scores = load_teacher(f"vectors:{tmp_path / 'v'}").score_all(["a"], ["red", "the cat"])
    torch.testing.assert_close(scores, dense.score_all(["a"], ["red", "the cat"]), rtol=0, atol=2e-3)


def test_stored_vectors_are_those_that_were_written(tmp_path, mlm_folder):
    dense = load_teacher(f"dense:{mlm_folder}", device="cpu")
    write_vectors(dense, QUERIES[:2], DOCUMENTS[:2], tmp_path / "v", progress=False)
    record = tmp_path / "v" / "vectors.json"
    for name in ("keys.npy", "vectors.npy"):
        file = tmp_path / "v" / name
        before = file.read_bytes()
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        problem = f"{file}: is not the part that was written there, or has changed"
        assert problem in message(load_teacher, f"vectors:{tmp_path / 'v'}")
        file.unlink()
        assert f"{file}: no such part" in message(load_teacher, f"vectors:{tmp_path / 'v'}")
        file.write_bytes(before)
    record.write_text('{"teacher": "dense"}')  # as earlier versions wrote it
    assert load_teacher(f"vectors:{tmp_path / 'v'}").score_all(QUERIES[:1], DOCUMENTS[:1]).shape == (1, 1)


def test_stored_vectors_are_of_unit_length(tmp_path, mlm_folder):
    model = st.SentenceTransformer(
        modules=[Transformer(mlm_folder), Pooling(32, pooling_mode="mean")],
        similarity_fn_name="dot",
        device="cpu",
    )
    model.save_pretrained(str(tmp_path / "dense"))
    dense = load_teacher(f"dense:{tmp_path / 'dense'}", device="cpu")
    assert "unit length" in message(write_vectors, dense, QUERIES, DOCUMENTS, tmp_path / "vectors")
    assert "no texts" in message(write_vectors, dense, [], [], tmp_path / "vectors")
    assert not (tmp_path / "vectors").exists()
    assert "write_vectors" in message(load_teacher, f"vectors:{tmp_path / 'vectors'}")


class Fixed:
    """Always the same scores."""

    vocabulary = None

    def __init__(self, *scores):
        self.scores, self.name = torch.tensor(scores), "fixed"

    def score_pairs(self, queries, documents):
        return self.scores

    def score_all(self, queries, documents):
        return self.scores.expand(len(queries), -1)


def test_weights_of_an_ensemble_by_hand():
    """3/4 of (0, 1, 0.5) and 1/4 of (1, 0, 0), times 8."""
    ensemble = EnsembleTeacher([Fixed(2.0, 4.0, 3.0), Fixed(7.0, 5.0, 5.0)], 8.0, [0.6, 0.2])
    expected = torch.tensor([2.0, 6.0, 3.0])
    torch.testing.assert_close(ensemble.score_lists(["q"], [["a", "b", "c"]])[0], expected)
    torch.testing.assert_close(ensemble.score_batch(["q"], [["a"], ["b"], ["c"]])[0], expected)
    for weights in ([1.0], [1.0, 0.0], [1.0, float("nan")]):
        assert "as many positive weights" in message(EnsembleTeacher, ensemble.teachers, 8.0, weights)
