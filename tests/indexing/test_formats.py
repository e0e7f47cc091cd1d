"""Each format's lines, written out by hand."""

import json
import uuid

import pytest

from st_l0.errors import InputError
from st_l0.indexing.formats import FORMATS, Vector, format_of, point_id

ODD = 'a "b"\n\u2028é'
ODD_JSON = r'"a \"b\"\n\u2028\u00e9"'
VECTOR = Vector(["7", "12"], ["0.5", "1.25"])
WHOLE = Vector(["7", "12"], ["3", "1"])
NONE = Vector([], [])


def document(format, id="d1", text="Rain.", vector=VECTOR):
    return FORMATS[format].document(id, text, vector)


def query(format, id="q1", text="rain", vector=VECTOR):
    return FORMATS[format].query(id, text, vector)


def test_json_lines():
    line = '{"id":"d1","text":"Rain.","vector":{"7":0.5,"12":1.25}}'
    assert document("jsonl") == line
    assert query("jsonl") == '{"id":"q1","text":"rain","vector":{"7":0.5,"12":1.25}}'
    assert document("jsonl", vector=NONE) == '{"id":"d1","text":"Rain.","vector":{}}'
    assert document("jsonl", ODD) == f'{{"id":{ODD_JSON},"text":"Rain.","vector":{{"7":0.5,"12":1.25}}}}'


def test_tokens_of_json_lines_are_escaped():
    """Terms come escaped, as tokens may hold quotes and backslashes."""
    line = document("jsonl", vector=Vector([json.dumps('"\\')[1:-1]], ["1"]))
    assert json.loads(line)["vector"] == {'"\\': 1}


def test_seismic():
    assert document("seismic") == '{"id":"d1","content":"Rain.","vector":{"7":0.5,"12":1.25}}'
    assert query("seismic") == '{"id":"q1","content":"rain","vector":{"7":0.5,"12":1.25}}'


def test_anserini():
    assert document("anserini", vector=WHOLE) == '{"id":"d1","contents":"Rain.","vector":{"7":3,"12":1}}'
    assert query("anserini", vector=WHOLE) == "q1\t7 7 7 12"
    assert query("anserini", "q é", vector=WHOLE) == "q é\t7 7 7 12"


@pytest.mark.parametrize("id", ["a\tb", "a\nb", "a\r"])
def test_a_query_id_that_ends_too_early(id):
    with pytest.raises(InputError, match=r"holds a tab or a line break"):
        query("anserini", id, vector=WHOLE)


def test_qdrant():
    point = str(uuid.uuid5(uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8"), "d1"))  # RFC 9562, OID
    assert point_id("d1") == point
    assert document("qdrant") == (
        f'{{"id":"{point}","vector":{{"emb":{{"indices":[7,12],"values":[0.5,1.25]}}}},'
        '"payload":{"id": "d1", "text": "Rain."}}'
    )
    assert json.loads(document("qdrant", ODD, vector=NONE)) == {
        "id": point_id(ODD),
        "vector": {},
        "payload": {"id": ODD, "text": "Rain."},
    }
    assert query("qdrant") == '{"id":"q1","query":{"indices":[7,12],"values":[0.5,1.25]},"using":"emb"}'
    assert FORMATS["qdrant"].settings == {"collection.json": {"sparse_vectors": {"emb": {}}}}  # no modifier


def test_elasticsearch():
    assert document("elasticsearch") == ('{"index":{"_id":"d1"}}\n{"text":"Rain.","emb":{"7":0.5,"12":1.25}}')
    assert (
        document("elasticsearch", ODD, vector=NONE) == f'{{"index":{{"_id":{ODD_JSON}}}}}\n{{"text":"Rain."}}'
    )
    assert query("elasticsearch") == (
        '{"id":"q1","query":{"sparse_vector":{"field":"emb","prune":false,"query_vector":{"7":0.5,"12":1.25}}}}'
    )
    properties = FORMATS["elasticsearch"].settings["index.json"]["mappings"]["properties"]
    assert properties["emb"] == {"type": "sparse_vector", "index_options": {"prune": False}}


def test_an_id_that_elasticsearch_refuses():
    assert document("elasticsearch", "é" * 256)
    for id in ("", "é" * 256 + "x"):
        with pytest.raises(InputError, match=f"has {len(id.encode())} bytes; Elasticsearch takes 1 to 512"):
            document("elasticsearch", id)


def test_names():
    assert format_of("qdrant") is FORMATS["qdrant"]
    with pytest.raises(
        InputError, match="format 'lucene': give one of jsonl, anserini, seismic, qdrant, ela"
    ):
        format_of("lucene")
