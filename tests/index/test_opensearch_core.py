"""A server of OpenSearch's core alone, without neural-search."""

import os

import numpy as np
import pytest

from opensearch_server import UnavailableError, can_be_had, running
from st_l0.errors import InputError
from st_l0.index.opensearch import OpenSearchIndex

pytestmark = pytest.mark.opensearch


@pytest.fixture(scope="module")
def core():
    try:
        with running(plugins=False, heap="512m") as cluster:
            yield f"opensearch+http://127.0.0.1:{cluster.nodes[0].http}"
    except UnavailableError as error:
        if os.environ.get("CI") and can_be_had():
            raise
        pytest.skip(f"no OpenSearch: {error}")


def test_it_is_told_from_one_with_the_plugin(core):
    index = OpenSearchIndex(f"{core}/papers", bm25="english")
    index.add(["a", "b"], np.array([[1, 0, 2], [0, 3, 0]], np.float32), ["cats", "dogs"])
    assert not index.neural
    (hits,) = index.search(np.array([1.0, 1.0, 1.0]))
    assert hits.as_run() == {"a": 3.0, "b": 3.0}
    (hits,) = index.search(np.array([1.0, 0.0, 0.0]), texts=["dog"], bm25=2.0)
    assert hits.ids.tolist() == ["b", "a"] or hits.ids.tolist() == ["a", "b"]
    assert index.explain(np.array([1.0, 1.0, 1.0]), "a") == {2: (1.0, 2.0), 0: (1.0, 1.0)}
    with pytest.raises(InputError, match="neural-search"):
        index.search(np.ones(3), two_phase=True)


def test_what_needs_the_plugin_is_refused(core):
    with pytest.raises(InputError, match="sparse"):
        OpenSearchIndex(f"{core}/other?vectors=sparse_vector")
    index = OpenSearchIndex(f"{core}/tokens", tokens=["x", "."])
    with pytest.raises(InputError, match="neural-search"):
        index.search(np.ones(2))
