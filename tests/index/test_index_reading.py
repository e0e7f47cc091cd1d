"""What an index gives back: vectors of documents, and how many documents have a token."""

import numpy as np
import pytest
import scipy.sparse as sp

from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex
from st_l0.index.opensearch import OpenSearchIndex
from st_l0.index.protocol import CountedTokens, StoredVectors

VECTORS = np.array([[1, 0, 2], [0, 3, 0], [0.1, 0, 0], [0, 0, 0]], dtype=np.float32)


@pytest.fixture(params=["memory", "folder", pytest.param("opensearch", marks=pytest.mark.opensearch)])
def index(request, tmp_path):
    if request.param == "opensearch":
        made = OpenSearchIndex(request.getfixturevalue("opensearch_target"))
    else:
        made = EmbeddedIndex(tmp_path / "index" if request.param == "folder" else None)
    made.add([*"abcd"], VECTORS)
    return made


def test_a_vector_comes_back_as_it_was_added(index):
    assert isinstance(index, StoredVectors)
    for id, vector in zip("abcd", VECTORS, strict=True):
        found = index.vector(id)
        assert found.shape == (1, 3) and np.array_equal(found.toarray()[0], vector)
    with pytest.raises(InputError, match="'e' is not in the index"):
        index.vector("e")


def test_many_segments_and_deleted_documents(tmp_path):
    matrix = sp.random(60, 40, 0.2, "csr", dtype=np.float32, random_state=1)
    index = EmbeddedIndex(tmp_path / "index")
    assert isinstance(index, CountedTokens)
    index.add(range(40), matrix[:40])
    index.add(range(40, 60), matrix[40:])
    index.delete([3, 50])
    kept = [number for number in range(60) if number not in (3, 50)]
    opened = EmbeddedIndex(tmp_path / "index", create=False)
    for number in kept:
        assert (opened.vector(number) != matrix[number]).nnz == 0
    counts = opened.document_frequencies(np.arange(40))
    assert counts.tolist() == np.count_nonzero(matrix[kept].toarray(), axis=0).tolist()
    assert opened.document_frequencies([]).tolist() == []
    with pytest.raises(InputError, match="from 0 to 39"):
        opened.document_frequencies([40])
