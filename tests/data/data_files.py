"""Writing small files, and the one line of a complaint."""

import gzip
import json

import pytest

from st_l0.errors import InputError


def write(path, *rows):
    """Rows, or lines as they are, into a file."""
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8", newline="")
    return path


def message(function, *args, **kwargs):
    """What a call, or the iterator that it returns, complains of: one line."""
    with pytest.raises(InputError) as caught:
        list(function(*args, **kwargs))
    text = str(caught.value)
    assert "\n" not in text
    return text
