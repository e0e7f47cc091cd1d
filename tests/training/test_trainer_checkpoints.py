"""Which checkpoints of a run are kept, and which one is gone on from."""

import pytest

from st_l0.training.checkpoints import last_complete_checkpoint, mark_complete, mark_incomplete, rotate


@pytest.fixture
def checkpoint(tmp_path):
    """Function: number of a step to a sealed checkpoint with one file."""

    def make(step):
        path = tmp_path / f"checkpoint-{step}"
        path.mkdir()
        (path / "weights").write_text("1 2 3")
        mark_complete(path)
        return path

    return make


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("limit", "kept"), [(1, ["checkpoint-10"]), (2, ["checkpoint-10", "checkpoint-9"]), (None, None)]
)
def test_the_newest_are_kept(tmp_path, checkpoint, limit, kept):
    for step in (8, 9, 10):
        checkpoint(step)
    rotate(tmp_path, limit)
    assert names(tmp_path) == (kept or ["checkpoint-10", "checkpoint-8", "checkpoint-9"])


def test_what_is_not_whole_takes_no_place(tmp_path, checkpoint):
    """A run that was killed inside checkpoint 6, and resumed from 4, has written 5."""
    checkpoint(4)
    whole = checkpoint(5)
    mark_incomplete(checkpoint(6))
    (checkpoint(7) / "weights").write_text("1")
    rotate(tmp_path, 1)
    assert names(tmp_path) == ["checkpoint-5"]
    assert last_complete_checkpoint(tmp_path) == whole
