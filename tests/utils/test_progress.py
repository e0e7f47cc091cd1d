import io
import re
import sys
import time

import pytest

from st_l0.utils import progress
from st_l0.utils.progress import clock, show_progress, track, write


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.05)


def wait_for(capsys, text):
    """What stands on standard error once ``text`` does."""
    found, end = "", time.monotonic() + 20
    while text not in found and time.monotonic() < end:
        time.sleep(0.01)
        found += capsys.readouterr().err
    assert text in found
    return found


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (754, "12:34"), (11100, "3:05:00")]
)
def test_a_clock(seconds, text):
    assert clock(seconds) == text


def test_plain_lines_while_nothing_moves(often, capsys):
    with show_progress("encoding", 4000, unit="texts") as work:
        wait_for(capsys, "encoding: 0 of 4,000 texts (0 %), 0:0")
        work.update(1000)
        found = wait_for(capsys, "encoding: 1,000 of 4,000 texts (25 %), ")
        assert re.search(r"\(25 %\), [\d,.e+]+/s, \d:\d\d left\n", found)
    assert re.fullmatch(r"(encoding: .*\n)*encoding: 1,000 texts in \d:\d\d, .*/s\n", capsys.readouterr().err)
    time.sleep(0.15)
    assert capsys.readouterr().err == ""  # its thread has ended


def test_works_within_works_share_a_line(often, capsys):
    with show_progress("indexing", unit="documents"):
        for _ in track(["a", "b"], "encoding", unit="texts"):
            wait_for(capsys, "indexing: 0 documents, 0:00 gone · encoding: ")


def test_what_is_short_hidden_or_another_process_says_nothing(often, capsys, monkeypatch):
    assert list(track(range(3), "reading", unit="rows", delay=60)) == [0, 1, 2]
    with show_progress("reading", unit="rows", delay=60), show_progress("hidden", unit="rows", shown=False):
        time.sleep(0.15)
    monkeypatch.setenv("RANK", "1")
    with show_progress("elsewhere", unit="rows"):
        time.sleep(0.15)
    assert capsys.readouterr() == ("", "")


def test_a_line_of_output_takes_the_place_of_a_plain_one(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0.5)
    with show_progress("training", 9, unit="steps"):
        for _ in range(10):
            write("a row \x1b[31m")
            time.sleep(0.1)
    found = capsys.readouterr()
    assert found.out == "a row \\x1b[31m\n" * 10 and found.err == ""


def test_speed_and_time_left_are_of_this_run(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    work = progress.Work("training", None, "steps", 0)
    work.restart(500, 700)
    assert work.seconds_left is None
    now[0] += 50
    work.update(100)
    assert work.in_words() == "600 of 700 steps (85 %), 2/s, 0:50 left"
    assert work.in_the_end() == "600 steps in 0:50, 2/s"


@pytest.mark.parametrize("piped", [False, True])
def test_a_terminal_has_live_bars(monkeypatch, piped):
    monkeypatch.setenv("TERM", "xterm")
    screen, output = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", output if piped else screen)
    with show_progress("training", 40, unit="steps") as work, show_progress("reading", unit="rows", delay=60):
        work.update(10)
        write("a [red]row")
        end = time.monotonic() + 20
        while "10 of 40 steps (25 %)" not in screen.getvalue() and time.monotonic() < end:
            time.sleep(0.02)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert (
        "training" in shown and "10 of 40 steps (25 %)" in shown and "━" in shown and "reading" not in shown
    )
    assert "a [red]row\n" in (output.getvalue() if piped else shown)
    assert ("a [red]row" in shown) != piped
    assert sys.stderr is screen  # no proxy of the display is left behind


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(often, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with show_progress("training", 4, unit="steps"):
        end = time.monotonic() + 20
        while not screen.getvalue() and time.monotonic() < end:
            time.sleep(0.02)
    assert screen.getvalue().startswith("training: 0 of 4 steps") and "\x1b" not in screen.getvalue()
