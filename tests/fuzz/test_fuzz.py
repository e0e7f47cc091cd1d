"""Malformed inputs of every kind through every command: right, or refused in one line.

``--fuzz N`` tries more; ``--fuzz-case corpus/17`` tries that one again, in its folder, which then stays.
"""

import math
import os
import random
import shutil
from collections import Counter

import pytest
from mutations import SAME
from running import complaints, memory_limit, run, snapshot
from subjects import SUBJECTS

NAMES = {subject.__name__: subject for subject in SUBJECTS}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Folder of the clean inputs, which no command may change."""
    from world import build

    folder = build(tmp_path_factory.mktemp("clean"))
    files = snapshot(folder)
    with memory_limit():
        yield folder
    assert snapshot(folder) == files


def make(subject, number, seed, clean, folder):
    """Make a case in an empty working folder."""
    for name in ("in", "out"):
        (folder / name).mkdir(parents=True)
    os.chdir(folder)
    return NAMES[subject](random.Random(f"{seed}/{subject}/{number}"), clean)


def judge(case, folder, results):
    """What a case did wrong, and what the command gave."""
    before = snapshot(folder, but=("out",))
    ran = run(*case.args)
    found = complaints(ran, columns=case.args == ("recipes",))
    changed = _changed(case, folder, before, accepted=not ran.code)
    if changed:
        found.append(f"changed {', '.join(map(str, changed))}"[:300])
    if not ran.code and case.effect == SAME and case.read(ran) != results[case.clean]:
        found.append("exit code 0, but not what the clean input gives")
    return found, ran


def _changed(case, folder, before, *, accepted):
    """What is not as it was: an output that was taken may have got files, what was there stays."""
    after = snapshot(folder, but=("out",))
    old = {path.relative_to(folder) for path, content in before.items() if after.get(path) != content}
    new = {path.relative_to(folder) for path in after.keys() - before.keys() if path.name != ".lock"}
    if accepted and case.place is not None:
        new = {path for path in new if case.place not in (*path.parents, path)}
        if case.effect == SAME:  # an index that was added to: what it gives is compared
            old = {path for path in old if case.place not in (*path.parents, path)}
    return sorted(old | new)


@pytest.mark.parametrize("subject", NAMES)
def test_malformed_inputs(subject, clean, clean_results, tmp_path, monkeypatch, request):
    seed, only = request.config.getoption("--fuzz-seed"), request.config.getoption("--fuzz-case")
    share = SUBJECTS[NAMES[subject]] / sum(SUBJECTS.values())
    total = math.ceil(request.config.getoption("--fuzz") * share)
    if only is not None and not only.startswith(f"{subject}/"):
        pytest.skip("another case was asked for")
    numbers = range(total) if only is None else [int(only.partition("/")[2])]
    monkeypatch.chdir(tmp_path)
    failures, codes = [], Counter()
    for number in numbers:
        folder = tmp_path / str(number)
        case = make(subject, number, seed, clean, folder)
        (tmp_path / "now.txt").write_text(f"{subject}/{number}\n")  # what it was, should the process die
        found, ran = judge(case, folder, clean_results)
        codes[ran.code] += 1
        if found:
            args = " ".join(map(str, case.args)).replace(str(clean), "CLEAN")
            said = (ran.stderr or ran.stdout).strip()[-300:]
            lines = (
                f"{subject}/{number}: {'; '.join(found)}",
                f"{case.did!r:.200}",
                f"{args!r:.250}",
            )
            repr(said)
            failures.append("\n    ".join(lines))
        os.chdir(tmp_path)
        if only is None:
            shutil.rmtree(folder)
    print(f"{subject}: {len(numbers)} inputs, exit codes {dict(sorted(codes.items()))}")
    again = f"again: pytest tests/fuzz --fuzz-seed {seed} --fuzz-case SUBJECT/NUMBER"
    if failures:
        pytest.fail(
            "\n".join([f"{len(failures)} of {len(numbers)} inputs, {again}", *failures]), pytrace=False
        )
