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
from st_l0.indexing.index import index_corpus, index_encoded

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
        self.calls.append((list(texts), batch_size))
        columns = [int(text.split()[1]) for text in texts]
        return sp.csr_matrix(
            (np.ones(len(texts), np.float32), (range(len(texts)), columns)), shape=(len(texts), 7)
        )


class DictIndex:
    """Keeps what was added, and how it came."""

    def __init__(self):
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
