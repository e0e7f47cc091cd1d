"""Tiny deterministic models, built once a run in a temporary folder; nothing is downloaded.

They are made in `tiny_models`, which is imported inside, so that tests without a model stay quick.
"""

import os
import shutil
import sys
import tempfile

# Before transformers, huggingface_hub and torch are imported by any test.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# As the command line has it without a terminal.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = os.environ["TQDM_DISABLE"] = "1"
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="datasets-")
os.environ["HF_HUB_CACHE"] = tempfile.mkdtemp(prefix="hub-")

import numpy as np
import pytest


def pytest_addoption(parser):
    group = parser.getgroup("fuzz")
    group.addoption("--fuzz", type=int, default=1000, metavar="N", help="Malformed inputs to try in all.")
    group.addoption("--fuzz-seed", default="0", help="Other inputs.")
    group.addoption("--fuzz-case", metavar="SUBJECT/NUMBER", help="Only this one, whose folder stays.")
    group = parser.getgroup("docs")
    group.addoption("--screenshots", metavar="FOLDER", help="Keep those of the demo, such as in docs/images.")


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups in the same hook
def pytest_collection_modifyitems(items):
    for item in items:
        if (
            "opensearch" in getattr(item, "fixturenames", ())
            and item.get_closest_marker("opensearch") is None
        ):
            item.add_marker("opensearch")
        # Of several processes one has the server, and each file's fixtures are made once.
        server = item.get_closest_marker("opensearch") is not None
        if server or item.get_closest_marker("xdist_group") is None:
            group = "opensearch" if server else item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_unconfigure():
    for cache in ("HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        shutil.rmtree(os.environ[cache], ignore_errors=True)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """Folder of the saved tokenizer."""
    from tiny_models import make_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def mlm_folders(tmp_path_factory):
    """Function: architecture (and vocabulary of the model) to the folder of a saved model and tokenizer."""
    from tiny_models import make_mlm, make_tokenizer

    built = {}

    def folder_of(architecture, vocabulary=None, **options):
        key = (architecture, vocabulary, *sorted(options.items()))
        if key not in built:
            folder = tmp_path_factory.mktemp(architecture)
            make_mlm(architecture, vocabulary, **options).save_pretrained(folder)
            make_tokenizer().save_pretrained(folder)
            built[key] = str(folder)
        return built[key]

    return folder_of


@pytest.fixture(scope="session")
def mlm_folder(mlm_folders):
    """Folder of a saved tiny `BertForMaskedLM` and its tokenizer."""
    return mlm_folders("bert")


@pytest.fixture(scope="session")
def idf_weights():
    """A positive weight for each token, float32, `(vocabulary,)`."""
    from tiny_models import VOCABULARY

    return np.random.default_rng(5).uniform(0.5, 8.0, len(VOCABULARY)).astype(np.float32)


@pytest.fixture
def tiny_encoder(mlm_folder, idf_weights):
    """Function that builds a fresh `st_l0.SparseEncoder` on the CPU; takes what `from_mlm` takes."""

    def build(base_model=mlm_folder, **options):
        from st_l0 import SparseEncoder

        return SparseEncoder.from_mlm(base_model, **{"idf": idf_weights, "device": "cpu", **options})

    return build


@pytest.fixture(scope="session")
def opensearch():
    """The URL of a real OpenSearch with its plugins, started once a run; skipped where none can be had.

    ``ST_L0_OPENSEARCH_URL`` names one that runs already, as by ``make opensearch``.
    """
    from opensearch_server import running_or_skipped

    if os.environ.get("ST_L0_OPENSEARCH_URL"):
        yield os.environ["ST_L0_OPENSEARCH_URL"]
        return
    with running_or_skipped() as cluster:
        yield cluster.url


@pytest.fixture
def opensearch_target(opensearch):
    """An address of no index yet, whose indices are removed afterwards."""
    import urllib.request
    import uuid

    name = f"test-{uuid.uuid4().hex[:12]}"
    yield f"opensearch+http://{opensearch.partition('://')[2]}/{name}"
    request = urllib.request.Request(f"{opensearch}/{name}*?ignore_unavailable=true", method="DELETE")
    urllib.request.urlopen(request, timeout=60).close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium by selenium; skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (the extra dev)")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no chromium with chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for switch in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(switch)
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture(autouse=True)
def one_thread():
    """Same numbers on every machine, and no fight for the cores."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
