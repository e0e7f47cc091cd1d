import json
import os
import time

import numpy as np
import pytest
import scipy.sparse as sp

from st_l0.data import Collection, Document
from st_l0.errors import InputError
from st_l0.evaluation import evaluate
from st_l0.index import EmbeddedIndex
from st_l0.indexing.encode import encode_corpus, encode_stream
from st_l0.indexing.identity import index_metadata
from st_l0.indexing.index import encoded_limit, index_corpus, index_encoded

CORPUS = [Document(str(number), f"text {number}") for number in range(7)]


class LengthModel:
    """Gives each text one active dim, its number; ends with an error before a given call."""

    def __init__(self, fails_at=None):
        self.calls = []
        self.fails_at = fails_at

    def encode_document(self, texts, *, batch_size, convert_to_scipy, show_progress_bar):
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        assert isinstance(texts, list)
        assert convert_to_scipy
        assert not show_progress_bar
        self.calls.append((list(texts), batch_size))
        columns = [int(text.split()[1]) for text in texts]
        return sp.csr_matrix(
            (np.ones(len(texts), np.float32), (range(len(texts)), columns)), shape=(len(texts), 7)
        )


class DictIndex:
    """Keeps what was added, and how it came."""

    def __init__(self):
        self.metadata = {}
        self.documents = {}
        self.commits = []
        self.asked = []

    def missing(self, ids):
        self.asked.append(list(ids))
        return [id for id in self.asked[-1] if id not in self.documents]

    def add(self, ids, vectors, texts):
        assert len(ids) == vectors.shape[0] == len(texts)
        assert not set(ids) & set(self.documents)
        rows = [vectors[row].indices.tolist() for row in range(len(ids))]
        self.documents.update(zip(ids, zip(rows, texts, strict=True), strict=True))
        self.commits.append(list(ids))


def test_each_chunk_is_one_commit_of_ids_vectors_and_texts():
    model, index = LengthModel(), DictIndex()
    assert index_corpus(model, iter(CORPUS), index, batch_size=2, chunk_size=3, progress=False) == 7
    assert index.commits == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert index.documents == {str(number): ([number], f"text {number}") for number in range(7)}
    assert index.asked == index.commits  # once a chunk
    assert model.calls[0] == (["text 0", "text 1", "text 2"], 2)


def test_known_ids_are_not_encoded_again():
    model, index = LengthModel(), DictIndex()
    index_corpus(model, CORPUS[1:5], index, progress=False)
    model.calls.clear()
    assert index_corpus(model, CORPUS, index, chunk_size=2, progress=False) == 3
    assert [texts for texts, _ in model.calls] == [["text 0"], ["text 5"], ["text 6"]]
    assert index_corpus(model, CORPUS, index, progress=False) == 0


def test_an_interrupted_run_keeps_whole_chunks_and_resumes():
    index = DictIndex()
    with pytest.raises(KeyboardInterrupt):
        index_corpus(LengthModel(fails_at=2), CORPUS, index, chunk_size=2, progress=False)
    assert list(index.documents) == ["0", "1", "2", "3"]
    assert index_corpus(LengthModel(), CORPUS, index, chunk_size=2, progress=False) == 3
    assert list(index.documents) == [document.id for document in CORPUS]


def test_no_documents():
    index = DictIndex()
    assert index_corpus(LengthModel(), [], index, progress=False) == 0
    assert index.commits == []


@pytest.mark.parametrize("sizes", [{"batch_size": 0}, {"chunk_size": 0}, {"chunk_size": -1}])
def test_impossible_sizes(sizes):
    with pytest.raises(InputError, match="must be at least 1"):
        index_corpus(LengthModel(), CORPUS, DictIndex(), **sizes)


def test_no_bar_where_there_is_no_terminal(capsys):
    index_corpus(LengthModel(), CORPUS, DictIndex())
    assert capsys.readouterr() == ("", "")


def test_an_empty_text_is_found_by_no_query(tiny_encoder, tmp_path):
    model, index = tiny_encoder(), EmbeddedIndex()
    texts = {"a": "the cat", "b": "", "c": " \n", "d": "a dog"}
    assert model.encode_document("").to_dense().any()  # as in sentence-transformers
    documents = [Document(id, text) for id, text in texts.items()]
    index_corpus(model, documents, index, progress=False)
    everything = np.ones((1, model.get_embedding_dimension()), dtype=np.float32)
    found = index.search(everything, 10)[0]
    assert sorted(found.ids.tolist()) == ["a", "d"]
    assert len(index) == 4
    encode_corpus(model, documents, tmp_path / "encoded", name="tiny", progress=False)
    again = EmbeddedIndex()
    index_encoded(model, tmp_path / "encoded", again, progress=False)
    assert again.search(everything, 10)[0].scores.tolist() == found.scores.tolist()
    (vectors,) = encode_stream(model, texts.values())
    assert np.diff(vectors.indptr)[1:3].tolist() == [0, 0]
    collection = Collection("c", dict(texts), {"q": "cat dog"}, {"q": {"a": 1}})
    report = evaluate(model, collection, bm25=False, progress=False)
    assert report["model"]["document_active_dims"] == vectors.nnz / 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_of_two_processes_the_second_waits_and_has_nothing_to_add(tmp_path):
    class Slow(LengthModel):
        def encode_document(self, texts, **options):
            time.sleep(0.05)
            return super().encode_document(texts, **options)

    folder, pipes = tmp_path / "index", [os.pipe() for _ in range(2)]
    EmbeddedIndex(folder)
    for _, sink in pipes:
        if os.fork() == 0:
            code = 1
            try:
                index, model = EmbeddedIndex(folder), Slow()
                added = index_corpus(model, CORPUS, index, chunk_size=2, progress=False)
                os.write(sink, json.dumps([added, len(model.calls), len(index)]).encode())
                code = 0
            finally:
                os._exit(code)
    assert [os.wait()[1] for _ in pipes] == [0, 0]
    found = sorted(json.loads(os.read(source, 100)) for source, _ in pipes)
    assert found == [[0, 0, 7], [7, 4, 7]]
    alone = EmbeddedIndex()
    index_corpus(LengthModel(), CORPUS, alone, chunk_size=2, progress=False)
    together = EmbeddedIndex(folder)
    assert together.ids().tolist() == alone.ids().tolist()
    query = sp.csr_matrix(np.ones((1, 7), np.float32))
    assert list(together.search(query)[0]) == list(alone.search(query)[0])
    assert not list(folder.glob(".*"))


# Pruned documents


class Counts:
    """Weighs each token of its vocabulary by how often it is in the text."""

    inference_free, max_active_dims, max_seq_length = False, None, 16

    def encode_document(self, texts, **_):
        return sp.csr_matrix([[text.count(letter) for letter in "abcd"] for text in texts], dtype=np.float32)

    def fingerprint(self):
        return "counts"

    def has_fingerprint(self, found):
        return found == "counts"

    def get_embedding_dimension(self):
        return 4


LETTERS = [Document("1", "abbcccdddd"), Document("2", "abcd"), Document("3", "d"), Document("4", " ")]
# The two largest weights of each; of equal ones those of lower tokens.
PRUNED = [[0, 0, 3, 4], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def vectors_of(index):
    found = np.zeros((4, 4))
    for query in np.eye(4, dtype=np.float32):
        for hit in index.search(query, 4)[0]:
            found[int(hit.id) - 1] += hit.score * query
    return found.tolist()


def pruned_index(limit=2):
    return EmbeddedIndex(metadata=index_metadata(Counts(), "counts", max_active_dims=limit))


def test_an_index_keeps_the_largest_weights_and_says_how_many(tmp_path):
    index = pruned_index()
    assert index.metadata["max_active_dims"] == 2
    index_corpus(Counts(), LETTERS, index, max_active_dims=2, progress=False)
    assert vectors_of(index) == PRUNED

    whole, folder = tmp_path / "whole", tmp_path / "pruned"
    encode_corpus(Counts(), LETTERS, whole, name="counts", progress=False)
    encode_corpus(Counts(), LETTERS, folder, name="counts", max_active_dims=2, progress=False)
    assert json.loads((folder / "encoding.json").read_text())["max_active_dims"] == 2
    for encoded, wished in ((whole, 2), (folder, None), (folder, 2)):
        assert encoded_limit(Counts(), encoded, wished) == 2
        index = pruned_index()
        index_encoded(Counts(), encoded, index, max_active_dims=wished, progress=False)
        assert vectors_of(index) == PRUNED


def test_another_number_of_weights_is_refused(tmp_path):
    for held, given, message in (
        (2, 3, "keeps 2 weights of a document at most; add to it with max_active_dims 2, or make a new one"),
        (2, None, "with max_active_dims 2"),
        (None, 2, "keeps all weights of a document; add to it without max_active_dims"),
    ):
        with pytest.raises(InputError, match=f"^the index: .*{message}"):
            index_corpus(Counts(), LETTERS, pruned_index(held), max_active_dims=given, progress=False)

    folder = tmp_path / "pruned"
    encode_corpus(Counts(), LETTERS, folder, name="counts", max_active_dims=2, progress=False)
    with pytest.raises(InputError, match="begun with max_active_dims 2, not 3; give a new folder"):
        encode_corpus(Counts(), LETTERS, folder, name="counts", max_active_dims=3, progress=False)
    with pytest.raises(InputError, match="begun with max_active_dims 2, not None"):
        encode_corpus(Counts(), LETTERS, folder, name="counts", progress=False)
    with pytest.raises(InputError, match=r"encoding\.json: encoded with max_active_dims 2; give no more"):
        index_encoded(Counts(), folder, pruned_index(3), max_active_dims=3, progress=False)
    with pytest.raises(InputError, match="max_active_dims is 0; give at least 1"):
        encode_corpus(Counts(), LETTERS, tmp_path / "new", name="counts", max_active_dims=0, progress=False)
