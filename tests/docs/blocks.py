"""The code blocks of a page, run in order as a reader would run them.

- ```` ```python ````: one namespace a page.
- ```` ```bash ````: lines of `st-l0` run in this process, as its console script does (importing torch anew
  takes ten seconds a command); all others in bash. Variables and `cd` last for neighbouring lines only.
- ``<!-- file: NAME -->`` before a block writes it to that file: data, recipes.
- ``<!-- not run: REASON -->`` before a block: it is counted instead; `REASONS` are the good ones.
- ``<!-- prints -->`` before a ```` ```text ```` block: the block above printed just that, numbers apart.
- Blocks of ``<!-- invisible-code-block: python`` … ``-->`` are not shown.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

REASONS = (
    "installs packages",
    "needs a GPU",
    "needs several machines",
    "needs the network",
    "needs Docker",
    "runs until Ctrl-C",
    "shown in parts",
    "takes hours",
    "takes minutes",
    "what .ci/run runs",
)
_BLOCK = re.compile(
    r"(?:^<!-- *(?P<mark>[^\n]*?) *-->\n+)?"
    r"^(?P<indent> *)```(?P<language>[\w-]*)(?P<rest>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$"
    r"|^<!-- invisible-code-block: (?P<hidden>\w+)\n(?P<hidden_text>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
_RUN = ("python", "bash")
_SHOWN = ("text", "mermaid")
_MARK = re.compile(r"(?P<verb>file|not run|prints)(?:: *(?P<value>.*))?$")
_COMMENT = re.compile(r"\s+# .*")
_SHELL = re.compile(r"[|&;<>$`*]")


@dataclass
class Block:
    """A block of a page; ``mark`` is the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    verb: str | None = None
    value: str | None = None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """All blocks of a page, in order.

    Raises:
        ValueError: A block says neither that it runs nor why it does not.
    """
    source = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(source):
        line = source.count("\n", 0, found.start("text" if found["text"] is not None else "hidden_text"))
        if found["hidden"]:
            yield Block(page, line, found["hidden"], found["hidden_text"])
            continue
        indent = len(found["indent"])
        text = "".join(row[indent:] if row.strip() else "\n" for row in found["text"].splitlines(True))
        mark = _MARK.match(found["mark"] or "")
        block = Block(page, line, found["language"], text, *(mark.group("verb", "value") if mark else ()))
        if block.verb == "not run" and not (block.value or "").startswith(REASONS):
            raise ValueError(f"{block}: 'not run: {block.value}' is none of {REASONS}")
        if found["language"].startswith("{"):
            continue  # a directive
        if (
            block.verb is None
            and block.language not in (*_RUN, *_SHOWN)
            and not found["rest"].startswith("{")
        ):
            raise ValueError(f"{block}: ```{block.language} is neither run nor marked (see {__file__})")
        yield block


@dataclass
class Page:
    """Runs blocks in ``folder``."""

    folder: Path
    namespace: dict = field(default_factory=lambda: {"__name__": "__main__"})
    printed: str = ""

    def run(self, block: Block) -> None:
        """Run a block; its failure names the line."""
        if block.verb == "not run":
            return
        if block.verb == "file":
            path = self.folder / block.value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.verb == "prints":
            assert _without_numbers(self.printed) == _without_numbers(block.text), f"{block}: {self.printed}"
        elif block.language == "python":
            code = compile("\n" * block.line + block.text, str(block.page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, self.namespace)
            self.printed = out.getvalue()
        elif block.language == "bash":
            self.printed = "".join(self._shell(block))

    def _shell(self, block: Block) -> Iterator[str]:
        others: list[str] = []
        for command in _commands(block.text):
            command = _COMMENT.sub("", command)
            if command.startswith(("st-l0 ", ".venv/bin/st-l0 ")) and not _SHELL.search(command):
                yield self._bash(block, others)
                others = []
                yield self._st_l0(block, shlex.split(command)[1:])
            else:
                others.append(command)
        yield self._bash(block, others)

    def _bash(self, block: Block, commands: list[str]) -> str:
        if not commands:
            return ""
        scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
            cwd=self.folder,
            env={**os.environ, "PATH": scripts},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, (
            f"{block}: {commands} ended with {ran.returncode}: {ran.stdout}{ran.stderr}"
        )
        return ran.stdout

    def _st_l0(self, block: Block, arguments: list[str]) -> str:
        from st_l0.cli import app

        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            try:
                app(arguments)
            except SystemExit as end:
                assert not end.code, f"{block}: st-l0 {arguments} ended with {end.code}: {out.getvalue()}"
        return out.getvalue()


def _commands(text: str) -> Iterator[str]:
    """Lines of a shell block, continued ones as one; a here-document stays with its command."""
    rows = iter(text.replace("\\\n", " ").splitlines())
    for row in rows:
        if not row.strip() or row.lstrip().startswith("#"):
            continue
        here = re.search(r"<<-?\s*'?(\w+)'?", row)
        command = row
        while here and (following := next(rows, here[1])) is not None:
            command += "\n" + following
            if following.strip() == here[1]:
                break
        yield command


def _without_numbers(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"-?\d[\d.,]*(e-?\d+)?", "0", text)).strip()
