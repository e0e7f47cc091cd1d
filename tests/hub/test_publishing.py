"""A model goes to a server that speaks as the Hub does, and comes back the same."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import sentence_transformers
import yaml
from fake_hub import running_hub
from huggingface_hub import ModelCard, parse_eval_result_entries
from typer.testing import CliRunner

from st_l0 import SparseEncoder, cli
from st_l0.encoder.model_card import write_training
from st_l0.errors import InputError
from st_l0.hub import publish, publishing
from tiny_models import DOCUMENTS, QUERIES, dense, save_model

FILES = {
    "README.md", "config.json", "config_sentence_transformers.json", "document_1_SpladePooling/config.json",
    "idf.json", "model.safetensors", "modules.json", "query_0_SparseStaticEmbedding/config.json",
    "query_0_SparseStaticEmbedding/model.safetensors", "query_0_SparseStaticEmbedding/tokenizer.json",
    "query_0_SparseStaticEmbedding/tokenizer_config.json", "router_config.json", "sentence_bert_config.json",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip
EVALUATION = {
    "collections": {
        name: {
            "collection": name,
            "documents": 3,
            "queries": 2,
            "model": {
                "ndcg@10": 0.5 + place,
                "mrr@10": 0.25,
                "recall@100": 1.0,
                "flops": 1.5,
                "document_active_dims": 20.0,
            },
            "bm25": {"ndcg@10": 0.125, "mrr@10": 0.25, "recall@100": 0.5},
        }
        for place, name in enumerate(["nfcorpus", "mine"])
    },
    "average": {},
}


@pytest.fixture
def run(tiny_encoder, tmp_path):
    """Output of a training, with what it leaves there and what is no one's business."""
    run = tmp_path / "run"
    model = tiny_encoder(max_seq_length=20)
    model.save(str(run / "model"), layout="root", create_model_card=False)
    write_training(run / "model", {"facts": {"Steps": "10 of 16 queries"}, "recipe": "seed: 1", "health": []})
    for name in ("model/optimizer.pt", "model/training_args.bin", "model/notes.txt", "model/secret.pkl"):
        (run / name).write_bytes(b"hf_abcdefghijklmnopqrstuvwxyz")
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    notes = {
        "license": "mit",
        "language": "en",
        "limits": "It knows few words.",
        "datasets": [{"name": "Pairs", "license": "cc0-1.0", "rows": 1200}],
        "benchmarks": {"nfcorpus": {"dataset": "mteb/nfcorpus", "task": "NFCorpus"}},
    }
    (run / "card.yaml").write_text(yaml.safe_dump(notes))
    return run


def test_a_dry_run_leaves_the_upload_there(run, monkeypatch):
    found = publish(run, "org/name", dry_run=True)
    folder = found.folder
    assert folder == run.with_name("run-upload")
    assert found.commit is None
    assert found.files.keys() == FILES | {"training.json", ".eval_results/mteb__nfcorpus.yaml"}
    assert found.difference < 1e-5
    for name in found.files:
        assert stat.S_IMODE((folder / name).stat().st_mode) & 0o444 == 0o444
        text = (folder / name).read_bytes()
        assert str(run.parent).encode() not in text
        assert b"hf_abc" not in text
        assert not text.startswith(b"\x80")  # a pickle
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.language, card.data.model_name) == ("mit", ["en"], "name")
    assert [(one.dataset_name, one.metric_name, one.metric_value) for one in card.data.eval_results][:2] == [
        ("nfcorpus", "nDCG@10", 0.5),
        ("nfcorpus", "MRR@10", 0.25),
    ]
    assert card.data.eval_results[0].dataset_type == "mteb/nfcorpus"
    assert "| nfcorpus | 0.500 | 0.250 | 1.000 | 0.125 | 0.250 | 0.500 | 1.50 | 20 |" in card.text
    assert "| mean | 1.000 | " in card.text
    for known in (
        "It knows few words.",
        "| Pairs | cc0-1.0 | 1,200 |",
        "| Steps | 10 of 16 queries |",
        "seed: 1",
    ):
        assert known in card.text
    results = (folder / ".eval_results" / "mteb__nfcorpus.yaml").read_text()
    (entry,) = parse_eval_result_entries(yaml.safe_load(results))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("mteb/nfcorpus", "NFCorpus", 50.0)
    monkeypatch.setattr(publishing, "check_upload", lambda *args: 0.0)
    again = publish(run, "org/name", dry_run=True)  # its own output is replaced
    assert again.files == found.files
    whole = SparseEncoder.from_pretrained(run / "model", device="cpu")
    loaded = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    np.testing.assert_allclose(
        dense(loaded.encode_document(DOCUMENTS)), dense(whole.encode_document(DOCUMENTS)), atol=1e-5
    )


# In a process of its own: the address of the Hub is read when huggingface_hub is imported.
CHILD = """
import json, sys
from st_l0 import QueryEncoder, SparseEncoder
from st_l0.errors import InputError
from st_l0.hub import publish, publishing
import sentence_transformers

run, texts = sys.argv[1], json.loads(sys.argv[2])
done = {}
for repo in ("org/regular", "org/lfs"):
    if repo == "org/lfs":
        try:
            publish(run, repo, private=True)
        except OSError as error:
            done["failed"] = str(error)
    done[repo] = publish(run, repo, private=True).commit
    publishing.check_upload = lambda *args: 0.0  # once is enough
    ours = SparseEncoder.from_pretrained(repo, device="cpu")
    stock = sentence_transformers.SparseEncoder(repo, device="cpu")
    for name, model in (("ours", ours), ("stock", stock)):
        vectors = model.encode_query(texts), model.encode_document(texts)
        done[f"{repo} {name}"] = [one.to_dense().tolist() for one in vectors]
    done[f"{repo} alone"] = QueryEncoder.from_pretrained(repo).encode_query(texts).toarray().tolist()
try:
    publish(run, "org/public", private=True)
except InputError as error:
    done["public"] = str(error)
try:
    publish(run, "org/other", token="hf_wrong")
except InputError as error:
    done["refused"] = str(error)
print(json.dumps(done))
"""


def test_there_and_back(run, tmp_path):
    texts = [*DOCUMENTS, *QUERIES]
    with running_hub() as hub:
        hub.files["org/public"], hub.private["org/public"] = {".gitattributes": b""}, False
        hub.commit("org/public", [])
        hub.files["org/regular"], hub.private["org/regular"] = {}, True
        hub.files["org/regular"]["document_0_Transformer/model.safetensors"] = b"of an earlier layout"
        hub.files["org/regular"]["figure.png"] = b"somebody's"
        hub.commit("org/regular", [])
        hub.fail.add("org/lfs")
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_of_the_test",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "home"),
        }
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            environment.pop(name, None)
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(run), json.dumps(texts)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["org/regular"] == hub.commits["org/regular"]
    assert found["org/lfs"] == hub.commits["org/lfs"]
    assert "start it again" in found["failed"]
    model = SparseEncoder.from_pretrained(run / "model", device="cpu")
    queries, documents = (dense(encode(texts)) for encode in (model.encode_query, model.encode_document))
    for repo in ("org/regular", "org/lfs"):
        for name in ("ours", "stock"):
            np.testing.assert_array_equal(found[f"{repo} {name}"][0], queries)
            np.testing.assert_allclose(found[f"{repo} {name}"][1], documents, atol=1e-5)
        np.testing.assert_array_equal(found[f"{repo} alone"], queries)
    sizes = {len(one) for path, one in hub.files["org/lfs"].items() if path.endswith("safetensors")}
    assert sorted(hub.sent) == sorted(sizes)  # once, although the first commit failed
    assert hub.private["org/lfs"]
    kept = set(hub.files["org/regular"]) - {"figure.png"}
    assert kept == FILES | {"training.json", ".eval_results/mteb__nfcorpus.yaml"}
    assert set(hub.files["org/lfs"]) == kept | {".gitattributes"}
    assert hub.files["org/public"].keys() == {".gitattributes"}
    assert found["public"].startswith("org/public is public: make it private")
    assert "the Hub does not let you write to org/other (status 401)" in found["refused"]


def refusal(run, repo="org/name", **options):
    with pytest.raises(InputError) as caught:
        publish(run, repo, dry_run=True, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_published(run, tmp_path, monkeypatch):
    assert "names no owner; give organisation/name" in refusal(run, "name")
    assert "is no name of a repository" in refusal(run, "org/na me")
    assert "no such folder" in refusal(tmp_path / "nothing")
    assert "'x' is not a known key" in refusal(run, card=written(tmp_path / "x.yaml", "x: y"))
    assert "datasets[1] needs name" in refusal(
        run, card=written(tmp_path / "x.yaml", "datasets: [{license: mit}]")
    )
    assert "no results" in refusal(run, evaluation=[written(tmp_path / "x.json", "{}")])
    monkeypatch.setattr(publishing, "check_upload", lambda *args: 0.0)
    local = written(tmp_path / "card.md", f"---\nlicense: mit\n---\n\nTrained in {tmp_path}/data.\n")
    assert refusal(run, card=local).startswith(f"README.md:5: names {tmp_path}/, a folder of this machine")
    token = written(tmp_path / "card.md", f"---\nlicense: mit\n---\n\nhf_{'a' * 34}\n")
    assert refusal(run, card=token).startswith("README.md:5: holds a token of the Hub")
    assert "card.md: its head cannot be read" in refusal(run, card=written(local, "---\na: [\n---\n"))


def written(path, text):
    path.write_text(text)
    return path


def test_another_model_is_not_sent(run, monkeypatch):
    """The pre-flight compares with what the run holds, not with what was written."""
    copy = publishing.write_copy

    def damage(encoder, folder, **options):
        copy(encoder, folder, **options)
        config = folder / "document_1_SpladePooling" / "config.json"
        config.write_text(config.read_text().replace('"relu"', '"log1p_relu"'))

    monkeypatch.setattr(publishing, "write_copy", damage)
    assert "plain sentence-transformers finds other scores" in refusal(run)


def test_stock_has_to_know_the_activation(tiny_encoder, tmp_path):
    folder = save_model(tiny_encoder(activation=2), tmp_path / "two")
    assert "plain sentence-transformers cannot load it, nothing was sent" in refusal(folder)


def test_the_command(run, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "check_upload", lambda *args: 0.0)
    finished = written(tmp_path / "card.md", "---\nlicense: mit\n---\n\n# Mine\n")
    result = CliRunner().invoke(
        cli.app, ["publish", str(run), "--repo", "org/name", "--dry-run", "--card", str(finished)]
    )
    assert result.exit_code == 0, result.stderr
    assert "  model.safetensors\n" in result.stdout
    assert "plain sentence-transformers finds the same scores (to " in result.stdout
    assert result.stdout.endswith("run-upload (nothing was sent)\n")
    assert (tmp_path / "run-upload" / "README.md").read_text() == finished.read_text()
