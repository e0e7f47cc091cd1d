"""Which checkpoints of a run are kept, and which one is gone on from."""

import json

import pytest

from st_l0.errors import InputError
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


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("position", [0, 2, -1])
def test_a_flipped_bit_is_seen(tmp_path, checkpoint, caplog, position):
    older, newer = checkpoint(3), checkpoint(4)
    flip(newer / "weights", position)
    assert last_complete_checkpoint(tmp_path) == older
    assert caplog.messages == [
        f"{newer} is damaged (the checksum of weights differs): going on from checkpoint-3"
    ]
    flip(older / "weights", position)
    with pytest.raises(
        InputError, match=r"checkpoint-4 is damaged \(the checksum of weights differs\), and no"
    ):
        last_complete_checkpoint(tmp_path)


def test_a_flipped_bit_of_the_seal_is_seen(tmp_path, checkpoint):
    path = checkpoint(1) / "complete.json"
    whole = path.read_bytes()
    for position in range(len(whole)):
        flip(path, position)
        noted = path.read_bytes()
        if noted.translate(None, b" \n\r\t") != whole.translate(None, b" \n\r\t"):  # more than white space
            with pytest.raises(InputError):
                last_complete_checkpoint(tmp_path)
        path.write_bytes(whole)


def test_checkpoints_of_a_version_without_checksums(tmp_path, checkpoint, caplog):
    path = checkpoint(1)
    (path / "complete.json").write_text(json.dumps({"files": {"weights": 5}}, indent=1))
    assert last_complete_checkpoint(tmp_path) == path
    assert caplog.messages == [f"{path} is of an earlier version, without checksums: only sizes were checked"]


def test_what_the_trainer_removes_is_not_part_of_a_checkpoint(tmp_path, checkpoint):
    path = checkpoint(1)
    (path / "checkpoint-is-incomplete.txt").write_text("in progress")
    mark_complete(path)
    (path / "checkpoint-is-incomplete.txt").unlink()
    assert last_complete_checkpoint(tmp_path) == path
