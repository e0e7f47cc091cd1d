import io
import json
import math
import os
import sys
import unicodedata

import pytest
from rich.table import Table

from st_l0.utils.terminal import cell, is_terminal, open_console, printable, to_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red\x1b[31m", r"red\x1b[31m"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("\x9b31m\x85\x7f", r"\x9b31m\x85\x7f"),  # C1: one byte does what ESC [ does
        ("\u202edcba\u2066", r"\u202edcba\u2066"),
        ("\u2028\u200b\ufeff\U000e0041", r"\u2028\u200b\ufeff\U000e0041"),
        ("\udcff", r"\udcff"),  # what a byte of a file name becomes that is not UTF-8
        ("Füße 日本語\u3000\xa0 🦊", "Füße 日本語\u3000\xa0 🦊"),
        ("می\u200cخواهم 👩\u200d🔬", "می\u200cخواهم 👩\u200d🔬"),
        (12, "12"),
    ],
)
def test_what_commands_a_terminal_is_spelled_out(text, shown):
    assert printable(text) == shown


def test_no_control_or_format_character_is_left():
    left = printable("".join(map(chr, range(sys.maxunicode + 1))))
    categories = {unicodedata.category(character) for character in left} - {"Cn", "Co", "Zs"}
    assert not [name for name in categories if name[0] in "CZ" and name != "Cf"]
    assert {character for character in left if unicodedata.category(character) == "Cf"} == set("\u200c\u200d")


def test_markup_and_emoji_codes_in_data_mean_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    console = open_console()
    console.print(cell("[red]a[/red] :fire: [/]\x1b[0m\\", style="bold"))
    assert sys.stdout.getvalue() == "[red]a[/red] :fire: [/]\\x1b[0m\\\n"


def test_a_table_is_not_cut_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("COLUMNS", "20")
    table = Table("id", "text", box=None)
    table.add_row(cell("i" * 300), cell("word " * 200 + "end"))
    console = open_console()
    console.print(table)
    console.print("note " * 100 + "end")
    lines = sys.stdout.getvalue().splitlines()
    assert len(lines) == 3
    assert "i" * 300 in lines[1]
    assert lines[1].rstrip().endswith("word end")
    assert lines[2].endswith("note end")


class Odd:
    def isatty(self):
        raise OSError


def test_what_is_no_terminal():
    closed = io.StringIO()
    closed.close()
    assert not any(is_terminal(stream) for stream in (None, object(), closed, io.StringIO(), Odd()))
    with open(os.devnull) as file:  # noqa: PTH123
        assert not is_terminal(file)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo terminals")
def test_a_terminal_is_one():
    ours, theirs = os.openpty()
    with open(theirs, "rb", buffering=0) as file:  # noqa: PTH123
        assert is_terminal(file)
    os.close(ours)


def test_json_for_scripts():
    value = {"id": "é\x1b\x7f\x9b\u202e\udcff", "n": [math.nan, -math.inf, 1.5], "number": 3, "none": None}
    text = to_json(value)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == {**value, "n": [None, None, 1.5]}
