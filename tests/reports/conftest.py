"""Three trainings of one curve, measured on two collections, as st-l0 train and st-l0 evaluate leave them."""

import json

import numpy as np
import pytest
import yaml

from st_l0.data import Collection, write_collection
from st_l0.evaluation import evaluate, write_json, write_results
from st_l0.index import EmbeddedIndex

WORDS = ["cat", "dog", "bird", "fish", "tree", "river", "mountain", "sun", "moon", "star"]


def write_run(folder, model, collections, weight, **loss):
    """A folder with a recipe, a model and its evaluation."""
    folder.mkdir(parents=True)
    recipe = {
        "model": {"base_model": "base", "idf": "binary"},
        "data": {"train": "rows.jsonl"},
        "loss": {"document_regularizer_weight": weight, **loss},
        "training": {"max_steps": 1},
        "output": str(folder),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    model.save_pretrained(str(folder / "model"))
    results = {collection.name: {} for collection, _ in collections}
    options = {"progress": False, "make_index": EmbeddedIndex}  # without words
    reports = [evaluate(model, one, results=results[one.name], **options) for one, _ in collections]
    file = folder / "evaluation.json"
    data = [str(place) for _, place in collections]
    write_json(reports, file, made_with={"model": str(folder / "model"), "data": data, "split": "test"})
    write_results(results, file)
    return file


@pytest.fixture(scope="session")
def runs(tmp_path_factory, mlm_folder):
    """Folder of the runs ``a-1``, ``a-2`` and ``a-3`` and of the collections ``one`` and ``<two>``."""
    from st_l0 import SparseEncoder
    from tiny_models import VOCABULARY

    folder = tmp_path_factory.mktemp("runs")
    draw = np.random.default_rng(0)
    collections = []
    for name in ("one", "<two>"):
        corpus = {f"d{i}": " ".join(draw.choice(WORDS, 4)) for i in range(30)}
        queries = {f"q{i}": " ".join(draw.choice(WORDS, 2)) for i in range(12)}
        queries["q0"] = "<b>sun</b> & moon"
        qrels = {query: {f"d{draw.integers(30)}": 1} for query in queries}
        collection = Collection(name, corpus, queries, qrels)
        write_collection(collection, folder / name)
        collections.append((collection, folder / name))
    for number, weight in enumerate((0.1, 0.01, 0.001), 1):
        idf = draw.uniform(0.1, 3, len(VOCABULARY)).astype(np.float32)
        model = SparseEncoder.from_mlm(mlm_folder, idf=idf, device="cpu")
        model.max_active_dims = 10 * number
        write_run(folder / f"a-{number}", model, collections, weight, threshold=5)
    return folder


@pytest.fixture(scope="session")
def numbers(runs):
    """The JSON of the runs, by name."""
    return {name: json.loads((runs / name / "evaluation.json").read_text()) for name in ("a-1", "a-2", "a-3")}
