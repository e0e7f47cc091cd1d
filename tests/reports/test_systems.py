import json
import shutil

import pytest

from st_l0.errors import InputError
from st_l0.reports.systems import read_systems


def test_what_stands_in_folders_and_files(runs, numbers):
    systems = read_systems([runs / "a-1", runs / "a-2" / "evaluation.json", runs / "a-3"])
    assert [one.name for one in systems] == ["BM25", "a-1", "a-2", "a-3"]
    assert [one.settings for one in systems[1:]] == [{"λ": weight, "t": 5} for weight in (0.1, 0.01, 0.001)]
    assert len({one.series for one in systems[1:]}) == 1
    for one in systems[1:]:
        found = numbers[one.name]
        assert one.mean("flops") == found["average"]["model"]["flops"]
        assert one.mean("ndcg@10", "one") == found["collections"]["one"]["model"]["ndcg@10"]
        assert one.runs[0].model.endswith(f"{one.name}/model")
    assert systems[0].mean("mrr@10") == numbers["a-1"]["average"]["bm25"]["mrr@10"]
    assert systems[0].mean("flops") is None
    assert [one.name for one in read_systems([runs])] == ["BM25", "a-1", "a-2", "a-3"]


def test_runs_that_differ_in_the_seed_are_one_system(runs, tmp_path, numbers):
    for name in ("a-1", "a-2"):
        shutil.copytree(runs / name, tmp_path / name)
    recipe = (tmp_path / "a-1" / "recipe.yaml").read_text()
    (tmp_path / "a-2" / "recipe.yaml").write_text(f"{recipe}\nseed: 7\n")
    _, system = read_systems([tmp_path])
    values = [numbers[name]["average"]["model"]["ndcg@10"] for name in ("a-1", "a-2")]
    assert system.mean("ndcg@10") == pytest.approx(sum(values) / 2)
    assert system.spread("ndcg@10") == pytest.approx(abs(values[0] - values[1]))
    files = [runs / name / "evaluation.per_query.json" for name in ("a-1", "a-2")]
    per_query = [json.loads(file.read_text()) for file in files]
    first, second = (one["one"]["model"]["q3"]["ndcg@10"] for one in per_query)
    assert system.per_query("ndcg@10", "one")["q3"] == pytest.approx((first + second) / 2)


def test_an_evaluation_alone_has_no_settings(runs, tmp_path):
    shutil.copy(runs / "a-1" / "evaluation.json", tmp_path / "mine.json")
    bm25, one = read_systems([tmp_path / "mine.json"])
    assert (bm25.name, one.name, one.settings, one.per_query("ndcg@10", "one")) == ("BM25", "mine", {}, {})


def test_what_is_none(tmp_path):
    for content, message in [
        (None, "holds no evaluation.json and no result.json"),
        ("{}", "is no evaluation"),
        ("[1]", "not a dict"),
        ("{", "not valid JSON"),
    ]:
        if content is not None:
            (tmp_path / "evaluation.json").write_text(content)
        with pytest.raises(InputError, match=message):
            read_systems([tmp_path])
    with pytest.raises(InputError, match="cannot be read"):
        read_systems([tmp_path / "gone.json"])


def test_the_sum_of_a_run_and_bm25_is_a_system_of_its_own(runs, tmp_path):
    shutil.copytree(runs / "a-1", tmp_path / "a-1")
    file = tmp_path / "a-1" / "evaluation.json"
    found = json.loads(file.read_text())
    for part in (*found["collections"].values(), found["average"]):
        part["model_bm25"] = part["model"] | {"ndcg@10": 0.875, "bm25_weight": 2.0}
    file.write_text(json.dumps(found))
    bm25, alone, both = read_systems([tmp_path])
    assert (bm25.name, alone.name, both.name) == ("BM25", "a-1", "a-1 + BM25")
    assert both.mean("ndcg@10") == both.mean("ndcg@10", "one") == 0.875
    assert both.series != alone.series and both.settings == alone.settings
