"""The demo of an index on a server: the same answers, and filters by fields."""

import numpy as np
import pytest
from demo_data import DOCUMENTS, MODEL

from st_l0.demo.opening import open_demo
from st_l0.demo.service import Question
from st_l0.errors import InputError
from st_l0.index.opensearch import OpenSearchIndex
from st_l0.indexing.identity import index_metadata


def test_an_index_on_a_server(opensearch_target, demo_index):
    from st_l0 import SparseEncoder

    model = SparseEncoder.from_pretrained(MODEL, device="cpu")
    index = OpenSearchIndex(opensearch_target, metadata=index_metadata(model, MODEL), bm25="english")
    vectors = model.encode_document([*DOCUMENTS.values()], convert_to_scipy=True)
    fields = [{"size": "long" if id == "long" else "short"} for id in DOCUMENTS]
    index.add([*DOCUMENTS], vectors, [*DOCUMENTS.values()], fields=fields)
    index.refresh()
    ours, there = open_demo(str(demo_index)), open_demo(opensearch_target)
    about = there.about()
    assert about["fields"] and about["documents"] == 5 and about["name"].startswith("test-")
    asked = Question("red fish and bread", bm25=2.5)
    expected, found = ours.search(asked)["hits"], there.search(asked)["hits"]
    assert [(hit["id"], hit["text"]) for hit in found] == [(hit["id"], hit["text"]) for hit in expected]
    for hit, other in zip(found, expected, strict=True):
        assert hit["score"] == pytest.approx(other["score"], rel=0.01)  # weights of 9 bits
        assert hit["score"] == pytest.approx(sum(part["score"] for part in hit["parts"]), rel=1e-4)
        assert {part["name"] for part in hit["parts"]} == {part["name"] for part in other["parts"]}
    assert there.search(asked)["flops"] is None
    hits = there.search(asked, filter={"size": ["long"]})["hits"]
    assert [hit["id"] for hit in hits] == ["long"]
    ours_explained, explained = (one.explain(asked, "files") for one in (ours, there))
    assert explained["pieces"] == ours_explained["pieces"]
    assert np.allclose(
        [one["weight"] for one in explained["tokens"]], [one["weight"] for one in ours_explained["tokens"]]
    )
    with pytest.raises(InputError, match="no index"):
        open_demo(f"{opensearch_target}-none")
