"""Which states of a run are kept, and which one is gone on from."""

import pytest

from st_l0.states import newest_state, rotate, seal, unseal


@pytest.fixture
def state(tmp_path):
    """Function: number of a step to a sealed state with one file."""

    def make(step):
        path = tmp_path / f"checkpoint-{step}"
        path.mkdir()
        (path / "weights").write_text("1 2 3")
        seal(path)
        return path

    return make


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("limit", "kept"), [(1, ["checkpoint-10"]), (2, ["checkpoint-10", "checkpoint-9"]), (None, None)]
)
def test_the_newest_are_kept(tmp_path, state, limit, kept):
    for step in (8, 9, 10):
        state(step)
    rotate(tmp_path, limit)
    assert names(tmp_path) == (kept or ["checkpoint-10", "checkpoint-8", "checkpoint-9"])


def test_what_is_not_whole_takes_no_place(tmp_path, state):
    """A run that was killed inside state 6, and resumed from 4, has written 5."""
    state(4)
    whole = state(5)
    unseal(state(6))
    (state(7) / "weights").write_text("1")
    rotate(tmp_path, 1)
    assert names(tmp_path) == ["checkpoint-5"]
    assert newest_state(tmp_path) == whole
