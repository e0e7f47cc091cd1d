"""The notebook runs from the first to the last cell, on a few files and steps; its kept outputs are clean."""

import json
from pydoc_data.topics import topics

import pytest
from stand_ins import REPOSITORY

nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")
nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")

NOTEBOOK = REPOSITORY / "docs" / "notebooks" / "from_files_to_search.ipynb"
FILES = ("with", "try", "while", "for", "truth", "assert", "import", "slicings")
PARAMETERS = "\ntexts = Path('texts')\noutput = Path('file-search')\nsteps = 2\n"


def test_a_folder_of_files_becomes_a_search(tmp_path):
    notebook = nbformat.read(NOTEBOOK, 4)
    (tmp_path / "texts").mkdir()
    for name in FILES:
        (tmp_path / "texts" / f"{name}.txt").write_text(topics[name], encoding="utf-8")
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert len(tagged) == 1
    tagged[0].source += PARAMETERS
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    output = tmp_path / "file-search"

    from st_l0 import QueryEncoder, open_index

    index, queries = open_index(output / "index"), QueryEncoder.from_pretrained(output / "model-float16")
    for question, name in (
        ("wrap a block with a context manager", "with.txt"),
        ("run a handler when an exception occurs", "try.txt"),
    ):
        hits = index.search(queries.encode_query([question]), k=1, texts=[question], bm25="auto")[0]
        assert hits[0].id.split(":")[0] == name
    measured = json.loads((output / "run" / "evaluation.json").read_text())["collections"]["unseen"]
    seen = {json.loads(line)["query"] for line in (output / "pairs.jsonl").read_text().splitlines()}
    unseen = [json.loads(line) for line in (output / "unseen" / "queries.jsonl").read_text().splitlines()]
    assert len(unseen) == measured["queries"] > 0
    assert seen and not seen & {one["text"] for one in unseen}
    card = (tmp_path / "file-search" / "run-upload" / "README.md").read_text(encoding="utf-8")
    assert "Finds passages of the language reference of Python." in card


def test_what_is_kept_is_clean():
    notebook = nbformat.read(NOTEBOOK, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [one for cell in cells for one in cell.outputs]
    assert {one.get("name") for one in outputs} == {"stdout"}
    for place in ("/root", "/home/", "/tmp/", "/Users/", "\x1b"):
        assert not [one.text for one in outputs if place in one.text]
