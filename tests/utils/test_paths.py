"""What no shell has expanded is expanded here, once, or refused."""

from pathlib import Path

import pytest

from st_l0.errors import InputError
from st_l0.utils.paths import local_name, local_path


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USERPROFILE", "/home/ada")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("runs/x", "runs/x"),
        ("./runs/x", "./runs/x"),  # as it stands: it may also be a name of the Hub
        ("owner/model-v1.5", "owner/model-v1.5"),
        ("~", "/home/ada"),
        ("~/runs/x", "/home/ada/runs/x"),
        ("runs/~/x", "runs/~/x"),
        ("$SCRATCH/x", "/scratch/x"),
        ("${SCRATCH}2/x", "/scratch2/x"),
        ("price$5.jsonl", "price$5.jsonl"),
        ("a$", "a$"),
        ("C:/x", "C:/x"),
        ("C:\\x", "C:\\x"),
        ("queries:dev.jsonl", "queries:dev.jsonl"),
    ],
)
def test_what_is_meant(given, meant):
    assert local_name(given) == meant
    assert local_name(Path(given)) == str(Path(meant))
    assert local_path(given) == Path(meant)


def test_a_variable_in_the_middle():
    assert local_path("/data$SCRATCH/x") == Path("/data/scratch/x")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("gs://bucket/run", "is no path on this machine"),
        ("s3://bucket", "is no path on this machine"),
        ("https://example.org/model", "is no path on this machine"),
        ("hf://datasets/owner/name", "is no path on this machine"),
        ("file:///tmp/x", "is no path on this machine"),
        ("$UNSET/x", "the variable UNSET is not set"),
        ("x/${UNSET}", "the variable UNSET is not set"),
        ("$EMPTY/x", "the variable EMPTY is not set"),  # not /x
        ("~nobody-of-that-name/x", "there is no such user"),
        ("", "is no path"),
        ("a\0b", "is no path"),
    ],
)
def test_what_cannot_be_meant(given, problem):
    for one in (given, Path(given)) if given else (given,):
        with pytest.raises(InputError, match=problem) as caught:
            local_name(one)
        assert len(str(caught.value).splitlines()) == 1


def test_what_exists_under_its_name_is_taken(tmp_path):
    for name in ("$UNSET", "~nobody-of-that-name"):
        (tmp_path / name).touch()
        assert local_name(name) == name
    (tmp_path / "~").mkdir()  # as former versions left it
    assert local_name("~/x") == "/home/ada/x"


@pytest.mark.parametrize("given", [None, 3, b"models/x", ["models/x"]])
def test_what_is_no_path(given):
    with pytest.raises(InputError, match="is no path; give a str or a Path"):
        local_name(given)
