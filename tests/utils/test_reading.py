import json
import os
import re
import threading

import pytest

from st_l0.data import read_records
from st_l0.errors import InputError
from st_l0.training.recipe import load_recipe
from st_l0.utils.reading import read_json


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"not valid JSON \(Expecting value.*\); mend it"),
        (b"{", r"not valid JSON \(.*\); mend it"),
        (b"\xff\xfe{\0}\0", r"not UTF-8 \('utf-8' codec .*\); mend it"),
        (b"[" * 100_000, r"not valid JSON \(maximum recursion depth.*\); mend it"),
        (b"1" * 5000, r"not valid JSON \(Exceeds the limit.*\); mend it"),
        (b"[]", "holds a JSON list, not a dict; mend it"),
    ],
)
def test_a_damaged_file_is_said_in_one_line(tmp_path, content, said):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {said}$"):
        read_json(path, "mend it")


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "none", tmp_path / "loop"):
        with pytest.raises(InputError, match=r"cannot be read \(.+\); mend it$"):
            read_json(path, "mend it")


def test_a_value_of_its_kind(tmp_path):
    (tmp_path / "a.json").write_text('{"a": "é"}', encoding="utf-8")
    (tmp_path / "b.json").write_text("[1]")
    assert read_json(tmp_path / "a.json", "") == {"a": "é"}
    assert read_json(tmp_path / "b.json", "", list) == [1]


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs devices of POSIX")  # noqa: PTH110
@pytest.mark.parametrize(
    "read", [lambda path: read_json(path, ""), load_recipe, lambda path: list(read_records(path))]
)
def test_a_device_has_no_end_and_is_refused(read):
    with pytest.raises(InputError, match=r"^/dev/zero: is a device; give a file$"):
        read("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read(tmp_path):
    pipe = tmp_path / "rows.jsonl"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(json.dumps({"a": 1}) + "\n",))
    writer.start()
    assert list(read_records(pipe)) == [(1, {"a": 1})]
    writer.join()
