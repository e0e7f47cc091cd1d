"""Files of prose as sections: what stands below a heading of Markdown, reStructuredText, HTML, plain text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from typing import NamedTuple

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*")
_RULER = re.compile(r"([=\-~^\"'`#*+.:_<>])\1{2,}[ \t]*")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_MARKDOWN = [
    (re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*(?:\s+\"[^\"]*\")?\)"), r"\1"),  # a link or an image
    (re.compile(r"</?[a-zA-Z][^<>]*>"), " "),
    (re.compile(r"(?<![\w*])(\*{1,3})(\S(?:[^*\n]*\S)?)\1(?![\w*])"), r"\2"),
    (re.compile(r"`+"), ""),
]
_RST = [
    (re.compile(r"^[ \t]*\.\. (?:version\w+|deprecated|code-block|highlight|_)[^\n]*$", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*(?:\.\. [\w-]+::|!!! |```[^\n]*$)", re.MULTILINE), ""),
    (re.compile(r"(?::[A-Za-z][\w:.+-]*:)?`([^`<>]+?)\s*<[^`<>]*>`_*"), r"\1"),  # a link with its text
    (re.compile(r":[A-Za-z][\w:.+-]*:`"), "`"),  # a role
    (re.compile(r"\[`~?([^`\]]+)`\]"), r"\1"),
    (re.compile(r"^[ \t]*:(\w+(?: [^:\n]+)?):", re.MULTILINE), r"\1:"),  # a field
    (re.compile(r"(?<![\w*])(\*\*?)(\w[^*\n]*)\1(?![\w*])"), r"\2"),
    (re.compile(r"~\.?(?:\w+\.)*(?=\w)|`+_*|\[\w+\]_|::(?=\s)"), ""),
]


class Section(NamedTuple):
    """What stands below a heading, down to the next one.

    Attributes:
        title: The heading, after that of the whole file: ``"Guide: Install"``; empty where there is none.
        paragraphs: Each in one line; at least one.
    """

    title: str
    paragraphs: list[str]


class _Heading(NamedTuple):
    level: int
    text: str


_Parts = Iterator["_Heading | str"]  # headings, and what stands between them with blank lines


def sections(name: str, text: str) -> Iterator[Section]:
    r"""Split the text of a file by its headings.

    Args:
        name: The file's name; its end, one of `KINDS`, tells how it is read.
        text: Its content.

    Example:
        >>> for section in sections("guide.md", "# Guide\n\nBegin here.\n\n## Install\n\nUse *pip*.\n"):
        ...     print(section.title, section.paragraphs)
        Guide ['Begin here.']
        Guide: Install ['Use pip.']
    """
    parts = KINDS[kind_of_name(name)](text.replace("\r\n", "\n").replace("\r", "\n"))
    path: list[_Heading] = []
    body: list[str] = []
    for part in (*parts, _Heading(0, "")):
        if isinstance(part, str):
            body.append(part)
            continue
        paragraphs = [" ".join(one.split()) for one in re.split(r"\n[ \t]*\n", "\n".join(body))]
        if paragraphs := [one for one in paragraphs if any(map(str.isalnum, one))]:
            titles = [path[0].text, path[-1].text] if path else []
            yield Section(": ".join(dict.fromkeys(titles)), paragraphs)
        body = []
        path = [*(above for above in path if above.level < part.level), part]


def kind_of_name(name: str) -> str:
    """The end of a file's name in lower case, such as ``".md"``; empty if it has none."""
    _, dot, end = name.rpartition(".")
    return f".{end.lower()}" if dot else ""


def plain_rst(text: str) -> str:
    """Text of reStructuredText in one line, without its markup."""
    return " ".join(_cleaned(text, _RST).split())


def _cleaned(text: str, markup: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in markup:
        text = pattern.sub(replacement, text)
    return text


def _markdown(text: str) -> _Parts:
    text = _COMMENT.sub("", _FRONT_MATTER.sub("", text))
    fence = ""
    before = ""  # the line before, if it may be the text of an underlined heading
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            yield before
            before, fence = "", "" if fence else mark[1]
            yield ""
        elif fence:
            yield line
        elif heading := _ATX.fullmatch(line):
            yield before
            before = ""
            yield _Heading(len(heading[1]), _cleaned(heading[2], _MARKDOWN))
        elif (
            before.strip() and re.fullmatch(r" {0,3}(?:=+|-{3,})[ \t]*", line) and not before.startswith("|")
        ):
            yield _Heading(1 if "=" in line else 2, _cleaned(before.strip(), _MARKDOWN))
            before = ""
        else:
            yield before
            before = _cleaned(re.sub(r"^[ \t]*(?:[-*+]|>+)[ \t]+|\|", " ", line), _MARKDOWN)
            if not line.strip() or re.fullmatch(r"[-|: \t]+", line):
                before = ""
    yield before


def _underlined(markup: Iterable[tuple[re.Pattern[str], str]]) -> Callable[[str], _Parts]:
    """A reader of headings with a line of one sign below, and maybe above, which is the level."""

    def read(text: str) -> _Parts:
        lines = text.split("\n")
        levels: dict[tuple[str, bool], int] = {}
        body: list[str] = []
        number = 0
        while number < len(lines):
            over = bool(_RULER.fullmatch(lines[number]))
            title, below = [*lines[number + over : number + over + 2], "", ""][:2]
            if _is_title(title, below) and (not over or lines[number].rstrip() == below.rstrip()):
                yield _cleaned("\n".join(body), markup)
                style = (below[0], over)
                yield _Heading(levels.setdefault(style, len(levels) + 1), _cleaned(title.strip(), markup))
                body, number = [], number + 2 + over
                continue
            body.append("" if over else lines[number])
            number += 1
        yield _cleaned("\n".join(body), markup)

    return read


def _is_title(line: str, below: str) -> bool:
    return (
        any(map(str.isalnum, line))
        and bool(_RULER.fullmatch(below))
        and len(below.rstrip()) >= len(line.rstrip())
    )


class _Html(HTMLParser):
    """Collects headings and blocks of text, without what is no part of it, such as scripts and menus."""

    _SKIPPED = frozenset(
        ["script", "style", "nav", "header", "footer", "template", "head", "svg", "noscript"]
    )
    _INLINE = frozenset(
        ["a", "abbr", "b", "code", "em", "i", "kbd", "small", "span", "strong", "sub", "sup", "u"]
    )

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[_Heading | str] = []
        self._skipped: list[str] = []
        self._heading: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._SKIPPED:
            self._skipped.append(tag)
        elif re.fullmatch("h[1-6]", tag) and not self._skipped:
            self._heading = []
        elif tag not in self._INLINE and not self._skipped:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._skipped:
            while self._skipped.pop() != tag:
                pass
        elif self._heading is not None and re.fullmatch("h[1-6]", tag):
            self.parts.append(_Heading(int(tag[1]), " ".join("".join(self._heading).split())))
            self._heading = None
        elif tag not in self._INLINE and not self._skipped:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            (self.parts if self._heading is None else self._heading).append(data)


def _html(text: str) -> _Parts:
    parser = _Html()
    parser.feed(text)
    parser.close()
    run: list[str] = []
    for part in parser.parts:
        if isinstance(part, str):
            run.append(part)
            continue
        yield "".join(run)
        run = []
        yield part
    yield "".join(run)


KINDS: dict[str, Callable[[str], _Parts]] = {
    ".md": _markdown,
    ".markdown": _markdown,
    ".rst": _underlined(_RST),
    ".txt": _underlined(()),
    ".html": _html,
    ".htm": _html,
}
"""The files that are read, by the ends of their names."""
