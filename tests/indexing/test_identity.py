"""Which model fits an index, and that a search waits for no torch."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from st_l0.encoder.queries import QueryEncoder
from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex
from st_l0.indexing.identity import check_model, index_metadata, load_query_encoder
from tiny_models import save_model

TABLE = "query_0_SparseStaticEmbedding"


@pytest.fixture
def model(tiny_encoder):
    return tiny_encoder()


@pytest.fixture
def folder(model, tmp_path):
    return save_model(model, tmp_path / "model")


@pytest.fixture
def index(model, folder):
    return EmbeddedIndex(metadata=index_metadata(model, folder))


def message(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    return str(caught.value)


def test_an_index_remembers_place_weights_and_query_side(model, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = {
        "model": folder,
        "fingerprint": model.fingerprint(),
        "query_fingerprint": QueryEncoder.from_pretrained(folder).query_fingerprint(),
    }
    assert index_metadata(model, "model") == index_metadata(model, Path(folder)) == expected
    assert index_metadata(model, "owner/name")["model"] == "owner/name"


def test_a_model_whose_queries_run_a_model_has_no_query_side(tiny_encoder):
    assert set(index_metadata(tiny_encoder(idf=None), "siamese")) == {"model", "fingerprint"}


def test_the_query_side_alone_is_loaded_and_checked(
    model, folder, index, tiny_encoder, idf_weights, tmp_path
):
    assert isinstance(load_query_encoder(folder, index, "there"), QueryEncoder)
    assert isinstance(load_query_encoder(folder, EmbeddedIndex(), "there"), QueryEncoder)
    # Documents trained on, with the same table: queries fit, new documents do not.
    trained = tiny_encoder()
    trained[0].sub_modules["document"][0].model.get_output_embeddings().bias.data += 1
    other = save_model(trained, tmp_path / "trained")
    assert isinstance(load_query_encoder(other, index, "there"), QueryEncoder)
    refused = (
        f"there was made with a model of other weights or settings (then at {folder}): "
        "use that one, or build the index again"
    )
    assert message(check_model, trained, index, "there") == refused
    check_model(model, index, "there")
    check_model(trained, EmbeddedIndex(), "there")
    # And a table of other weights, with the same documents.
    other = save_model(tiny_encoder(idf=idf_weights + 1), tmp_path / "table")
    assert message(load_query_encoder, other, index, "there") == refused


def test_an_index_without_a_query_fingerprint_takes_the_whole_model(
    model, folder, tiny_encoder, idf_weights, tmp_path
):
    index = EmbeddedIndex(metadata={"model": folder, "fingerprint": model.fingerprint()})
    assert not isinstance(load_query_encoder(folder, index, "there"), QueryEncoder)
    other = save_model(tiny_encoder(idf=idf_weights + 1), tmp_path / "table")
    assert "other weights" in message(load_query_encoder, other, index, "there")


def test_an_index_of_a_former_version_opens_with_its_model_only(model, folder, tiny_encoder, idf_weights):
    """Fingerprints were over pooling and weights alone."""
    former = hashlib.sha256(b"max relu")
    for parameter in model.parameters():
        former.update(parameter.detach().numpy().tobytes())
    index = EmbeddedIndex(metadata={"model": folder, "fingerprint": former.hexdigest()})
    check_model(model, index, "there")
    assert load_query_encoder(folder, index, "there").query_fingerprint() == model.query_fingerprint()
    assert "other weights" in message(check_model, tiny_encoder(idf=idf_weights + 1), index, "there")


def test_what_only_transformers_reads_takes_the_whole_model(model, folder, index):
    table = Path(folder, TABLE)
    model.tokenizer.backend_tokenizer.model.save(str(table))
    (table / "tokenizer.json").unlink()
    assert load_query_encoder(folder, index, "there").query_fingerprint() == model.query_fingerprint()


def test_a_query_fingerprint_of_another_version_does_not_lock_an_index_out(model, folder):
    """A library may write the same tokenizer in another way: then all weights decide."""
    index = EmbeddedIndex(metadata=index_metadata(model, folder) | {"query_fingerprint": "other"})
    assert not isinstance(load_query_encoder(folder, index, "there"), QueryEncoder)


# Fresh processes.

HEAVY = "{'torch', 'transformers', 'sentence_transformers', 'datasets', 'pyarrow'} & set(sys.modules)"


def run_code(code, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return result.stdout.splitlines()


@pytest.fixture
def on_disk(model, folder, tmp_path):
    index = EmbeddedIndex(tmp_path / "index", metadata=index_metadata(model, folder))
    texts = ["the cat sat on a mountain", "fish and bread"]
    index.add(["a", "b"], model.encode_document(texts, convert_to_scipy=True), texts)
    return index


def test_searching_imports_no_torch(model, folder, on_disk):
    code = f"""
import sys
from st_l0 import QueryEncoder, open_index
queries = QueryEncoder.from_pretrained(sys.argv[1]).encode_query(["cat mountain", "fish"] * 40)
for hit in open_index(sys.argv[2]).search(queries)[0]:
    print(hit.id, hit.score)
print({HEAVY})
"""
    vectors = model.encode_query(["cat mountain"], convert_to_scipy=True)
    expected = [f"{hit.id} {hit.score}" for hit in on_disk.search(vectors)[0]]
    assert run_code(code, folder, on_disk.path) == [*expected, "set()"]
    assert expected


def test_the_search_command_imports_no_torch(folder, on_disk):
    code = f"""
import sys
from st_l0.cli import main
sys.argv = ["st-l0", *sys.argv[1:]]
try: main()
finally: print({HEAVY})
"""
    lines = run_code(code, "search", on_disk.path, "cat mountain", "--explain")
    assert lines[-1] == "set()"
    assert any(" × " in line for line in lines)
    # The same without anything else that tells of torch: the documents' side is not there at all.
    shutil.rmtree(Path(folder, "document_0_Transformer"))
    assert run_code(code, "search", on_disk.path, "cat mountain", "--explain") == lines


def test_packages_import_no_torch():
    modules = ["st_l0", "st_l0.index", "st_l0.encoder", "st_l0.indexing", "st_l0.indexing.identity"]
    modules += [
        "st_l0.encoder.queries",
        "st_l0.encoder.query_files",
        "st_l0.encoder.idf",
        "st_l0.utils.sparse",
    ]
    assert run_code(f"import sys, {', '.join(modules)}\nprint({HEAVY})") == ["set()"]
    names = json.dumps(["QueryEncoder", "SparseEncoder", "open_index"])
    assert run_code(f"import json, st_l0\nprint(json.dumps(st_l0.__all__) == {names!r})") == ["True"]
