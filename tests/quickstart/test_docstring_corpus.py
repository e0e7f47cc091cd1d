import random
import re
import sys
from pathlib import Path

import pytest

from st_l0.errors import InputError
from st_l0.quickstart.docstring_corpus import Docstring, collect_docstrings, split_by_module

WORDS = [
    consonant + vowel + end for consonant in "bdfgklmnp" for vowel in "aeiou" for end in ("nder", "stic")
]


def prose(seed, words=40):
    """Text that passes for English and shares no long run of words with that of another seed."""
    picked = random.Random(seed).choices(WORDS, k=words)
    return "This is " + " ".join(f"the {word}" if i % 4 == 0 else word for i, word in enumerate(picked)) + "."


def source(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text, encoding="utf-8")


def function(name, docstring):
    lines = docstring.replace("\n", "\n    ")
    return f'def {name}(x):\n    r"""{lines}\n    """\n'


def collect(tmp_path, **options):
    return collect_docstrings(roots=[tmp_path], progress=False, **options)


def one(tmp_path, name, docstring):
    source(tmp_path, "pkg.py", function(name, docstring))
    [item] = collect(tmp_path)
    return item


def test_modules_classes_functions_and_what_is_inside_them(tmp_path):
    source(
        tmp_path,
        "pkg/sub/__init__.py",
        f'"""Helpers for counting many things.\n\n{prose(0)}\n"""\n'
        f'class Outer:\n    """A holder of counted things. {prose(1)}"""\n'
        f'    async def run(self):\n        """Start to count things.\n\n        {prose(2)}\n        """\n'
        f'        def inner():\n            """Count a single thing twice. {prose(3)}"""\n'
        "try:\n    pass\nexcept ImportError as error:\n"
        f'    def spare(): "Replace what is not there.\\n\\n{prose(4)}"\n',
    )
    items = collect(tmp_path)
    assert [(item.id, item.module, item.query) for item in items] == [
        ("pkg.sub", "pkg", "Helpers for counting many things."),
        ("pkg.sub.Outer", "pkg", "A holder of counted things."),
        ("pkg.sub.Outer.run", "pkg", "Start to count things."),
        ("pkg.sub.Outer.run.inner", "pkg", "Count a single thing twice."),
        ("pkg.sub.spare", "pkg", "Replace what is not there."),
    ]
    assert items[0].document == prose(0)
    assert items[3].document == prose(3)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Return the first match. {}", "Return the first match."),
        ("Return the\n  first   match\n\n{}", "Return the first match"),
        ("Read a format, e.g. CSV, from disk. {}", "Read a format, e.g. CSV, from disk."),
        ("Read version 1.2 of a file. {}", "Read version 1.2 of a file."),
        ("Is there a match for this? {}", "Is there a match for this?"),
        ("work(x, y=1) -> z\n\nReturn the first match. {}", "Return the first match."),
        ("Return a ``list`` of :class:`~pkg.mod.Thing` or `None`. {}", "Return a list of Thing or None."),
        ("Follow `the guide <https://example.org>`_ to the *end*. {}", "Follow the guide to the end."),
    ],
)
def test_the_first_sentence_is_the_query(tmp_path, text, query):
    item = one(tmp_path, "work", text.format(prose(0)))
    assert item.query == query
    assert item.document == prose(0)


@pytest.mark.parametrize(
    "text",
    [
        "Too short here. {}",
        "Args:\n    x: the thing that is counted, and then some\n\n{}",
        "Return one of the following:\n\n{}",
        ">>> work(3) and then some more\n\n{}",
        "Größe und Gewicht der Dinge. {}",
        "Return " + "very " * 40 + "much. {}",
        "Return the first match.",
        "Return the first match. The document is too short to be of use here, though it is English text.",
        "Return the first match. " + "1 + 2 * (3 / x[4]) == {{y: 5}}; " * 20,
    ],
)
def test_what_makes_no_good_pair_is_left_out(tmp_path, text):
    source(tmp_path, "pkg.py", function("work", text.format(prose(0))))
    source(tmp_path, "kept.py", function("other", f"Return the last one instead. {prose(9)}"))
    assert [item.id for item in collect(tmp_path)] == ["kept.other"]


def test_the_document_is_cut_and_free_of_markup(tmp_path):
    text = (
        "Count all things on a shelf.\n\n.. versionadded:: 1.2\n\n.. note:: Not for `books`.\n\n"
        "Parameters\n----------\nx : int\n    The **shelf**, see :func:`pkg.other` [1]_.\n:return: a number\n"
        f"\n{prose(0, 200)}"
    )
    document = one(tmp_path, "work", text).document
    start = "Not for books. Parameters x : int The shelf, see pkg.other . return: a number This is the"
    assert document.startswith(start)
    assert len(document.split()) == 64


def test_neither_the_first_sentence_nor_the_name_is_in_the_document(tmp_path):
    text = (
        "Read a table from a file.\n\nread_table(path, sep=',') -> Table\n\nRead a table from a file. "
        f"Use pkg.io.read_table(path) or ``read_table``, not read_table_fast. {prose(0)}"
    )
    document = one(tmp_path, "read_table", text).document
    assert "Read a table from a file" not in document
    assert not re.search(r"(?<!\w)read_table(?!\w)", document)
    assert "read_table_fast" in document


def test_a_plain_word_stays_where_it_is_no_name(tmp_path):
    rest = f"The mean of nothing is undefined. See np.mean and mean(x, y). {prose(0)}"
    document = one(tmp_path, "mean", f"Compute the arithmetic mean of numbers. {rest}").document
    assert document.startswith("The mean of nothing is undefined. See and")
    document = one(tmp_path, "mean", f"Compute the average of many numbers. {rest}").document
    assert not re.search(r"\bmean\b", document)


def test_files_that_cannot_be_read_and_tests_are_skipped(tmp_path):
    good = function("work", f"Return the first match. {prose(0)}")
    source(tmp_path, "pkg/good.py", good)
    other = function("work", f"Return quite another thing. {prose(1)}")
    for name in (
        "pkg/tests/a.py",
        "pkg/_vendor/lib/b.py",
        "pkg/test_c.py",
        "pkg/conftest.py",
        "site-packages/d.py",
        "pkg-1.0.dist-info/e.py",
        "pkg/not-a-module.py",
        "pkg/data.txt",
    ):
        source(tmp_path, name, other)
    source(tmp_path, "pkg/broken.py", other + "def (:\n")
    source(tmp_path, "pkg/latin.py", b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + other.encode())
    source(tmp_path, "pkg/null.py", other + "\0")
    source(tmp_path, "pkg/deep.py", other + "x = " + "(" * 5000 + ")" * 5000)
    (tmp_path / "pkg" / "folder.py").mkdir()
    assert [item.id for item in collect(tmp_path)] == ["pkg.good.work"]


def test_sources_are_not_imported(tmp_path, monkeypatch):
    source(
        tmp_path, "trap.py", "raise SystemExit\n" + function("work", f"Return the first match. {prose(0)}")
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [item.id for item in collect(tmp_path)] == ["trap.work"]
    assert "trap" not in sys.modules


def test_invalid_escapes_in_a_source_do_not_warn(tmp_path, recwarn):
    text = function("work", f"Return the first match \\d. {prose(0)}").replace('r"""', '"""')
    source(tmp_path, "pkg.py", text)
    assert len(collect(tmp_path)) == 1
    assert not recwarn.list


def test_near_duplicates_are_removed(tmp_path):
    words = prose(0, 60).split()
    edited = [*words[:8], "x", *words[9:]]  # 5 of some 60 sequences differ, and so do the first words
    same_start = " ".join(words[:25]) + " " + prose(2, 30)
    docstrings = {
        "a": f"Return the first match. {' '.join(words)}",
        "b": f"Return the first MATCH. {prose(1)}",
        "c": f"Find the first match quickly. {' '.join(words)}",
        "d": f"Find a match at once. So {' '.join(words[20:])}",
        "e": f"Find some match or none. {' '.join(edited)}",
        "f": f"Find what starts the same. {same_start}",
        "g": f"Count the matches by kind. {prose(3, 40)} {' '.join(words[40:50])}",
    }
    for name, docstring in docstrings.items():
        source(tmp_path, f"{name}.py", function("work", docstring))
    assert [item.id for item in collect(tmp_path)] == ["a.work", "g.work"]
    for name in docstrings:  # each is a good pair alone
        (tmp_path / "alone" / name).mkdir(parents=True)
        source(tmp_path / "alone" / name, f"{name}.py", function("work", docstrings[name]))
        assert [item.id for item in collect(tmp_path / "alone" / name)] == [f"{name}.work"]


def test_an_id_is_given_once(tmp_path):
    text = function("work", f"Return the first match. {prose(0)}") + function(
        "work", f"Count by kind. {prose(60)}"
    )
    source(tmp_path, "pkg.py", text)
    assert [item.id for item in collect(tmp_path)] == ["pkg.work"]


def test_a_large_package_is_read_in_part(tmp_path):
    for index in range(8):
        text = function("work", f"Return the match of kind number{index} only. {prose(index)}")
        source(tmp_path, f"pkg/m{index}.py", text + "#" * 130_000)
    read = collect(tmp_path)
    assert [item.id for item in read] != [f"pkg.m{index}.work" for index in range(8)]
    assert len(read) == 4  # 130 kB each: the fourth passes 0.5 MB
    assert read == collect(tmp_path)


def test_the_result_is_the_same_each_time_and_limit_draws_a_sample(tmp_path):
    for index in range(20):
        source(
            tmp_path,
            f"m{index:02}.py",
            function("work", f"Return the kind number{index} only. {prose(index)}"),
        )
    everything = collect(tmp_path)
    assert len(everything) == 20 and everything == collect(tmp_path) == sorted(everything)
    sample = collect(tmp_path, limit=5, seed=1)
    assert len(sample) == 5 and set(sample) < set(everything) and sample == sorted(sample)
    assert sample == collect(tmp_path, limit=5, seed=1) != collect(tmp_path, limit=5, seed=2)
    assert collect(tmp_path, limit=100) == everything


def test_nothing_found_is_refused(tmp_path):
    with pytest.raises(InputError, match="no docstrings of use in"):
        collect(tmp_path)
    assert list(Path(tmp_path).iterdir()) == []


def items_of(*modules):
    return [Docstring(f"{module}.f{index}", module, "q", "d") for module in modules for index in range(3)]


STANDARD = ["json", "os", "re", "ast", "csv", "heapq", "random", "string", "types", "zlib"]
OTHERS = [f"package{index}" for index in range(40)]


@pytest.mark.parametrize("seed", range(5))
def test_no_module_is_in_both_parts(seed):
    items = items_of(*STANDARD, *OTHERS)
    train, test = split_by_module(items, seed=seed)
    left, right = {item.module for item in train}, {item.module for item in test}
    assert not left & right and sorted(train + test) == sorted(items)
    assert right & set(STANDARD) and right & set(OTHERS) and left & set(STANDARD) and left & set(OTHERS)
    assert 3 <= len(right) <= 25  # 12.5 of 50 are expected
    assert train == [item for item in items if item.module in left]


def test_a_further_package_moves_no_other():
    train, test = split_by_module(items_of(*STANDARD, *OTHERS))
    more_train, more_test = split_by_module(items_of(*STANDARD, "newcomer", *OTHERS))
    assert set(train) <= set(more_train) and set(test) <= set(more_test)
    assert split_by_module(items_of(*STANDARD, *OTHERS), seed=1) != (train, test)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_both_kinds_are_in_both_parts_at_any_share(share):
    train, test = split_by_module(items_of("json", "re", "package1", "package2"), test_share=share)
    for part in (train, test):
        assert len({item.module for item in part} & {"json", "re"}) == 1
        assert len({item.module for item in part}) == 2


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(InputError, match="test_share"):
        split_by_module([], test_share=share)
