"""Every block of the README and of the documentation runs, on small data, or says why it does not."""

import os
import re
import shutil
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from blocks import Page, blocks_of
from stand_ins import REPOSITORY, fill_cache

PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    if not {"_build", "generated"} & {*path.parts}
}
# What the pages call a server; the names of indexes behind it.
SERVER = re.compile(r"opensearch(?:\+http)?://localhost:9200/([\w.-]+)")


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """What `st-l0 small-data` makes, of a few modules."""
    import asyncio
    import email
    import http
    import importlib
    import logging
    import unittest

    from st_l0.quickstart import small_data
    from st_l0.quickstart.docstring_corpus import collect_docstrings

    modules = (asyncio, email, http, importlib, logging, unittest)
    few = partial(collect_docstrings, roots=[Path(module.__file__).parent for module in modules])
    with pytest.MonkeyPatch.context() as patch:  # reading all modules takes half a minute
        patch.setattr(small_data, "collect_docstrings", few)
        return small_data.prepare_small(tmp_path_factory.mktemp("small") / "data", limit=150)


@pytest.fixture(scope="module")
def hub():
    """The stand-ins; afterwards the cache is empty again, as other tests want it."""
    fill_cache()
    yield
    for folder in Path(os.environ["HF_HUB_CACHE"]).glob("models--*"):
        shutil.rmtree(folder)


@pytest.fixture
def folder(tmp_path, monkeypatch, hub):
    """Where a page's blocks run: beside the repository's models and recipes."""
    for name in ("models", "training_recipes", "docs"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(opensearch):
    """Replaces the pages' server in a text by one that runs; its indexes are removed afterwards."""
    address, names = opensearch.partition("://")[2], set()

    def replaced(text):
        names.update(SERVER.findall(text))
        text = text.replace("opensearch://localhost", "opensearch+http://localhost")
        return text.replace("localhost:9200", address)

    yield replaced
    for name in names:
        url = f"{opensearch}/{name}*?ignore_unavailable=true"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=60).close()


def _marks(path):
    """All that need no server share the process that has the stand-ins, the small data and the imports."""
    if SERVER.search(path.read_text(encoding="utf-8")):
        return [pytest.mark.opensearch]
    return [pytest.mark.xdist_group("docs")]


@pytest.mark.parametrize("page", [pytest.param(name, marks=_marks(path)) for name, path in PAGES.items()])
def test_the_blocks_of_a_page_run(page, folder, request):
    text = PAGES[page].read_text(encoding="utf-8")
    replaced = request.getfixturevalue("server") if SERVER.search(text) else str
    if "runs/small" in text or "small-data" in text:
        (folder / "runs" / "small").symlink_to(request.getfixturevalue("small_data"))
    running = Page(folder)
    for block in blocks_of(PAGES[page]):
        block.text = replaced(block.text)
        running.run(block)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", PAGES[page].read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [link for link in links if not (PAGES[page].parent / link).exists()]
    assert [link for link in missing if not link.startswith("reference/generated/")] == []


def test_the_readme_begins_with_what_one_looks_for():
    head = "\n".join(PAGES["README.md"].read_text(encoding="utf-8").splitlines()[:40])
    assert ("| BM25 |" in head, "pip install st-l0" in head, "st-l0 train" in head) == (True,) * 3
    code = re.search(r"```python\n(.*?)```", head, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 8
