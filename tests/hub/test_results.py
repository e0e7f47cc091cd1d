"""Measurements for a card: read as they were written, plain numbers, and the Hub's own form."""

import json

import numpy as np
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from st_l0.errors import InputError
from st_l0.hub.results import hub_results, read_results

RESULT = {
    "dataset_revision": "ec0fa4fe99da2ff19ca1214b7966684033a58814",
    "task_name": "NFCorpus",
    "mteb_version": "2.26.24",
    "scores": {
        "test": [{"hf_subset": "default", "main_score": 0.32, "ndcg_at_10": 0.32, "languages": ["eng-Latn"]}]
    },
}


def test_results_of_mteb(tmp_path):
    pytest.importorskip("mteb")
    folder = tmp_path / "results" / "model"
    folder.mkdir(parents=True)
    (folder / "NFCorpus.json").write_text(json.dumps(RESULT))
    (folder / "model_meta.json").write_text("{}")
    (entry,) = read_results([tmp_path / "results"], {})
    assert (entry["collection"], entry["metrics"], entry["split"]) == ("NFCorpus", {"nDCG@10": 0.32}, "test")
    assert entry["dataset"] == "mteb/nfcorpus"
    ((name, text),) = hub_results([entry]).items()
    assert name == ".eval_results/mteb__nfcorpus.yaml"
    (found,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (found.dataset_id, found.task_id, found.value) == ("mteb/nfcorpus", "NFCorpus_default_test", 32.0)
    assert (found.dataset_revision, found.source_name) == (RESULT["dataset_revision"], "mteb")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{}", "no results; give what st-l0 evaluate"),
        ("[]", "holds a JSON list"),
        ('{"collections": {"toy": {}}}', "toy is no report of st-l0 evaluate"),
        ('{"collections": {"toy": {"model": {"ndcg@10": NaN}}}}', "nan is no number"),
        ('{"task_name": "NFCorpus", "scores": {"test": 5}}', "no result of mteb"),
        ('{"task_name": "NoSuchTask", "scores": {}}', "mteb knows no task 'NoSuchTask'"),
    ],
)
def test_what_is_none(tmp_path, content, problem):
    if "task_name" in content:
        pytest.importorskip("mteb")
    file = tmp_path / "evaluation.json"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        read_results([file], {})
    assert problem in str(caught.value)
    assert str(file) in str(caught.value)


def test_numbers_of_numpy_never_reach_a_file():
    """YAML would hold them as objects of Python, which nobody can load."""
    entry = {
        "collection": "toy",
        "dataset": "org/toy",
        "metrics": {"nDCG@10": np.float64(0.25), "MRR@10": np.float32(0.5)},
        "bm25": {},
        "costs": {},
        "source": "`st-l0 evaluate`",
    }
    ((_, text),) = hub_results([entry]).items()
    assert "numpy" not in text and yaml.safe_load(text)[0]["value"] == 25.0
