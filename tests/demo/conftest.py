"""Demos on loopback, in a thread, of a small index that the model of this repository encoded."""

import json
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from demo_data import DOCUMENTS, MODEL

pytest.importorskip("uvicorn", reason="the extra demo is not installed")


@pytest.fixture(scope="session")
def demo_index(tmp_path_factory):
    """Folder of the index."""
    from st_l0 import SparseEncoder
    from st_l0.index import EmbeddedIndex
    from st_l0.indexing.identity import index_metadata

    model = SparseEncoder.from_pretrained(MODEL, device="cpu")
    folder = tmp_path_factory.mktemp("demo") / "animals-index"
    index = EmbeddedIndex(folder, metadata=index_metadata(model, MODEL), bm25="english")
    vectors = model.encode_document([*DOCUMENTS.values()], convert_to_scipy=True)
    index.add([*DOCUMENTS], vectors, [*DOCUMENTS.values()])
    index.bm25_weight = 2.5
    return folder


@contextmanager
def serving(app):
    from st_l0.demo.app import listen, make_server

    server = make_server(app)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="session")
def served(demo_index):
    """Address of a demo of the index."""
    from st_l0.demo.app import make_app
    from st_l0.demo.opening import open_demo

    with serving(make_app(open_demo(str(demo_index)))) as address:
        yield address


@pytest.fixture(scope="session")
def served_model():
    """Address of a demo of the model alone."""
    from st_l0.demo.app import make_app
    from st_l0.demo.opening import open_demo

    with serving(make_app(open_demo(str(MODEL)))) as address:
        yield address


@pytest.fixture(scope="session")
def ask():
    """Function: an address, and data and headers of a request, to status, headers and content."""

    def send(address, data=None, **headers):
        body = None if data is None else data if isinstance(data, bytes) else json.dumps(data).encode()
        if body is not None:
            headers.setdefault("content-type", "application/json")
        request = urllib.request.Request(address, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, found, text = answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, found, text = error.code, error.headers, error.read().decode()
        kind = found.get_content_type()
        content = json.loads(text) if kind == "application/json" else text
        return SimpleNamespace(status=status, headers=found, content=content)

    return send
