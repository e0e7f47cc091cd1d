"""A taught folder holds the ensemble's scores, whatever was killed and however many processes there were."""

import json
import math
import os
import signal
import zlib

import pytest
import torch
import torch.distributed as dist
from datasets import Dataset

import st_l0.teachers.teaching
import st_l0.utils.resumable
from launching import FORKED, spawn
from st_l0.data import Row, open_texts, read_rows
from st_l0.errors import InputError
from st_l0.teachers import EnsembleTeacher, load_teacher, teach, write_vectors

WORDS = ["snow", "bird", "fish", "ship", "bread", "milk", "gold", "paper", "song", "river", "tree", "moon"]


def make_rows(number=11, ids=False):
    """Rows of 1 to 4 documents, with scores of somebody else."""
    rows = []
    for i in range(number):
        documents = tuple(f"{WORDS[(i + 3 * j) % 12]} {WORDS[(i * j) % 12]}" for j in range(1 + i % 4))
        scores = tuple(float(j) for j in range(len(documents)))
        names = (f"q{i}", tuple(f"d{i}-{j}" for j in range(len(documents)))) if ids else (None, None)
        rows.append(Row(f"{WORDS[i % 12]} é {i}", documents, scores, *names))
    return rows


class Checksum:
    """A teacher of arbitrary scores, who may fall ill."""

    vocabulary = None

    def __init__(self, name="checksum", factor=1.0, illness=None):
        self.name, self.factor, self.illness, self.calls = name, factor, illness, 0

    def score_pairs(self, queries, documents):
        self.calls += 1
        if self.calls == self.illness:
            raise KeyboardInterrupt
        pairs = zip(queries, documents, strict=True)
        return torch.tensor([self.factor * (zlib.crc32(f"{q}|{d}".encode()) % 1000) for q, d in pairs])


def ensemble(**options):
    return EnsembleTeacher([Checksum(**options), Checksum("other", -0.3)])


def message(*args, **kwargs):
    with pytest.raises(InputError) as caught:
        teach(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(folder):
    """Bytes of all files that a reader sees."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


# What is written


def test_files_by_hand(tmp_path):
    class Lengths(Checksum):
        def score_pairs(self, queries, documents):
            return torch.tensor([float(len(document)) for document in documents])

    rows = [
        Row("q1", ("a", "bbbb", "cc"), (1.0, 2.0, 3.0)),
        Row("é", ("dd",), None),
        Row("q3", ("", "eeeeeee"), None, "7", ("x", "y")),
    ]
    folder = teach(iter(rows), EnsembleTeacher([Lengths("l")], 10), tmp_path / "new" / "taught", chunk_size=2)
    assert folder == tmp_path / "new" / "taught"
    # Lengths 1, 4, 2: 0, 3/3, 1/3, times 10.
    first = [
        '{"query": "q1", "documents": ["a", "bbbb", "cc"], "scores": [0.0, 10.0, 3.33333]}',
        '{"query": "é", "documents": ["dd"], "scores": [0.0]}',
    ]
    both = '"query": "q3", "documents": ["", "eeeeeee"]'
    second = ['{"query_id": "7", "document_ids": ["x", "y"], ' + both + ', "scores": [0.0, 10.0]}']
    found = content(folder)
    assert found.pop("part-000000.jsonl").decode() == "".join(f"{line}\n" for line in first)
    assert found.pop("part-000001.jsonl").decode() == "".join(f"{line}\n" for line in second)
    state = json.loads(found.pop("teachers.json"))
    assert not found
    assert state.pop("probe") == [[38.0, 38.0, 42.0]]
    assert [len(digest) for digest in state.pop("parts")] == [64, 64]
    assert state == {"teachers": ["l"], "scale": 10, "weights": [1.0], "chunk_size": 2, "rows": 3}


def test_the_folder_is_a_data_set(tmp_path):
    rows = make_rows()
    teacher = ensemble()
    scores = teacher.score_lists([row.query for row in rows], [row.documents for row in rows])
    found = list(read_rows(teach(rows, teacher, tmp_path / "texts", chunk_size=4)))
    assert [row[:2] for row in found] == [row[:2] for row in rows]
    for row, expected in zip(found, scores, strict=True):
        assert row.scores == pytest.approx(expected.tolist(), rel=1e-5)
    with_ids = make_rows(ids=True)
    texts = {f"q{i}": row.query for i, row in enumerate(rows)}
    texts |= {n: t for row in with_ids for n, t in zip(row.document_ids, row.documents, strict=True)}
    saved = Dataset.from_dict({"_id": list(texts), "text": list(texts.values())})
    saved.save_to_disk(tmp_path / "collection")
    folder = teach(with_ids, teacher, tmp_path / "ids", by_id=True, chunk_size=4)
    corpus, queries = (open_texts(tmp_path / "collection", kind) for kind in ("corpus", "queries"))
    again = list(read_rows(folder, corpus=corpus, queries=queries))
    assert [row[:2] + row[3:] for row in again] == [row[:2] + row[3:] for row in with_ids]
    assert [row.scores for row in again] == [row.scores for row in found]


def test_scores_of_real_teachers(tmp_path, mlm_folder):
    rows = make_rows(6)
    teachers = [load_teacher(f"{kind}:{mlm_folder}", device="cpu") for kind in ("dense", "sparse")]
    for row in read_rows(teach(rows, EnsembleTeacher(teachers, 5.0), tmp_path / "taught", chunk_size=4)):
        expected = torch.zeros(len(row.documents))
        for teacher in teachers:
            scores = teacher.score_all([row.query], row.documents)[0]
            if len(scores) > 1:
                expected += 5 / 2 * (scores - scores.min()) / (scores.max() - scores.min())
        assert row.scores == pytest.approx(expected.tolist(), abs=1e-4)


def test_rows_are_streamed(tmp_path):
    taken, seen = 0, []

    def rows():
        nonlocal taken
        for row in make_rows():
            taken += 1
            yield row

    class Watching(Checksum):
        def score_pairs(self, queries, documents):
            seen.append(taken)
            return super().score_pairs(queries, documents)

    teach(rows(), EnsembleTeacher([Watching()]), tmp_path / "taught", chunk_size=4)
    assert seen == [0, 4, 8, 11]  # the first time is the probe


# Stopped and started again


@pytest.mark.parametrize("stop", range(2, 8))
def test_stopped_and_started_again(tmp_path, stop):
    whole = teach(make_rows(), ensemble(), tmp_path / "whole", chunk_size=2)
    assert len(content(whole)) == 7  # 6 parts
    with pytest.raises(KeyboardInterrupt):  # the first call is the probe
        teach(make_rows(), ensemble(illness=stop), tmp_path / "stopped", chunk_size=2)
    begun = content(tmp_path / "stopped")
    assert len(begun) == stop - 1 and json.loads(begun["teachers.json"])["rows"] is None
    teacher = ensemble()
    teach(make_rows(), teacher, tmp_path / "stopped", chunk_size=2)
    assert content(tmp_path / "stopped") == content(whole)
    assert teacher.teachers[0].calls == 1 + 6 - (stop - 2)  # the probe and the parts that were missing
    teach(make_rows(), teacher, tmp_path / "stopped", chunk_size=2)
    assert content(tmp_path / "stopped") == content(whole)


def killed(output):
    """Die of SIGKILL in the middle of the second part."""
    lists, original = 0, st_l0.teachers.teaching._rounded

    def rounded(scores):
        nonlocal lists
        lists += 1
        if lists == 2 + 4 + 3:  # of two probes, of a part, of most of the next one
            os.kill(os.getpid(), signal.SIGKILL)
        return original(scores)

    st_l0.teachers.teaching._rounded = rounded
    teach(make_rows(), ensemble(), output, chunk_size=4)


def test_killed_while_writing(tmp_path):
    child = FORKED.Process(target=killed, args=(tmp_path / "killed",))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert sorted(content(tmp_path / "killed")) == ["part-000000.jsonl", "teachers.json"]
    teach(make_rows(), ensemble(), tmp_path / "killed", chunk_size=4)
    teach(make_rows(), ensemble(), tmp_path / "whole", chunk_size=4)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def process(rank, meeting, folder, model):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    real = EnsembleTeacher([load_teacher(f"dense:{model}", device="cpu", batch_size=3), Checksum()])
    teach(make_rows(), real, f"{folder}/real", chunk_size=2)
    teacher = ensemble()
    teach(make_rows(), teacher, f"{folder}/resumed", chunk_size=2)
    torch.save(teacher.teachers[0].calls, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path, mlm_folder):
    with pytest.raises(KeyboardInterrupt):
        teach(make_rows(), ensemble(illness=4), tmp_path / "resumed", chunk_size=2)
    spawn(process, (str(tmp_path / "meeting"), str(tmp_path), mlm_folder), 2)
    real = EnsembleTeacher([load_teacher(f"dense:{mlm_folder}", device="cpu", batch_size=3), Checksum()])
    teach(make_rows(), real, tmp_path / "alone", chunk_size=2)
    assert content(tmp_path / "real") == content(tmp_path / "alone")
    teach(make_rows(), ensemble(), tmp_path / "whole", chunk_size=2)
    assert content(tmp_path / "resumed") == content(tmp_path / "whole")
    # Parts 0 and 1 were there; each process did the probe, and 2, 4 or 3, 5.
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)] == [3, 3]


def test_the_last_process_to_end_says_how_many_rows_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(st_l0.utils.resumable, "world_size", lambda: 2)
    for rank, parts, rows in ((1, 3, None), (0, 6, 11)):
        monkeypatch.setattr(st_l0.utils.resumable, "rank", lambda rank=rank: rank)
        found = content(teach(make_rows(), ensemble(), tmp_path / "taught", chunk_size=2))
        assert len(found) == parts + 1 and json.loads(found["teachers.json"])["rows"] == rows


def test_stored_vectors_teach_as_the_model_does(tmp_path, mlm_folder):
    rows = make_rows(6)
    dense = load_teacher(f"dense:{mlm_folder}", device="cpu")

    def stored(documents):
        write_vectors(dense, [row.query for row in rows], documents, tmp_path / "vectors")
        return EnsembleTeacher([load_teacher(f"vectors:{tmp_path / 'vectors'}")], 5.0)

    ours = stored([text for row in rows for text in row.documents])
    folder = teach(rows, ours, tmp_path / "taught", chunk_size=4)
    for row, expected in zip(
        read_rows(folder),
        EnsembleTeacher([dense], 5.0).score_lists(
            [row.query for row in rows], [row.documents for row in rows]
        ),
        strict=True,
    ):
        assert row.scores == pytest.approx(expected.tolist(), abs=0.02)  # float16
    teach(rows, ours, folder, chunk_size=4)  # again
    assert "other weights of vectors" in message(rows, stored(["bread", "milk"]), folder, chunk_size=4)


# What is refused


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    folder = teach(make_rows(), ensemble(), tmp_path / "taught", chunk_size=4)
    before = content(folder)
    others = [
        ("teachers ['checksum', 'other'], not ['x', 'other']", ensemble(name="x"), 4),
        ("scale 30.0, not 20.0", EnsembleTeacher(ensemble().teachers, 20.0), 4),
        ("chunk_size 4, not 3", ensemble(), 3),
        ("other weights of checksum", ensemble(factor=1.1), 4),
    ]
    for expected, teacher, chunk_size in others:
        text = message(make_rows(), teacher, folder, chunk_size=chunk_size)
        assert text.startswith(f"{folder / 'teachers.json'}: begun with {expected}")
    assert content(folder) == before
    teach(make_rows(), ensemble(factor=1.0001), folder, chunk_size=4)  # another machine
    assert content(folder) == before


def test_another_input_is_refused(tmp_path):
    rows = make_rows()
    folder = teach(rows, ensemble(), tmp_path / "taught", chunk_size=4)
    before = content(folder)
    changed = [*rows[:5], rows[5]._replace(query="another"), *rows[6:]]
    assert message(changed, ensemble(), folder, chunk_size=4).startswith(
        f"{folder / 'part-000001.jsonl'}:2: "
    )
    fewer = message(rows[:10], ensemble(), folder, chunk_size=4)
    assert "part-000002.jsonl: holds 3 rows, but the input has 2 there" in fewer
    assert "part-000002.jsonl: the input ends before" in message(rows[:8], ensemble(), folder, chunk_size=4)
    assert content(folder) == before


def test_rows_can_be_appended_to_a_full_part(tmp_path):
    folder = teach(make_rows(8), ensemble(), tmp_path / "taught", chunk_size=4)
    teach(make_rows(11), ensemble(), folder, chunk_size=4)
    assert content(folder) == content(teach(make_rows(11), ensemble(), tmp_path / "whole", chunk_size=4))


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert "holds files but no teachers.json" in message(make_rows(), ensemble(), tmp_path)
    for state, expected in (
        ("{", "not valid JSON"),
        ("[]", "holds a JSON list, not a dict;"),
        ('{"rows": 1}', "not a record, it lacks probe;"),
    ):
        (tmp_path / "teachers.json").write_text(state)
        text = message(make_rows(), ensemble(), tmp_path)
        assert text.startswith(f"{tmp_path / 'teachers.json'}: {expected}")
    assert sorted(content(tmp_path)) == ["mine.txt", "teachers.json"]


def test_no_rows_and_no_chunks_are_refused(tmp_path):
    assert "no rows" in message([], ensemble(), tmp_path / "taught")
    assert "at least 1" in message(make_rows(), ensemble(), tmp_path / "taught", chunk_size=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(tmp_path, bad):
    class Broken(Checksum):
        def score_pairs(self, queries, documents):
            scores = super().score_pairs(queries, documents)
            return torch.tensor(
                [bad if q == make_rows()[6].query else s for q, s in zip(queries, scores, strict=True)]
            )

    teacher = EnsembleTeacher([Checksum(), Broken("dense:broken")])
    text = message(make_rows(), teacher, tmp_path / "taught", chunk_size=4)
    assert "teacher dense:broken" in text and f"query {make_rows()[6].query!r}" in text
    assert sorted(path.name for path in (tmp_path / "taught").iterdir()) == [
        "part-000000.jsonl",
        "teachers.json",
    ]


def test_a_broken_teacher_begins_nothing(tmp_path):
    text = message(make_rows(), ensemble(factor=math.nan), tmp_path / "taught")
    assert "teacher checksum" in text and not (tmp_path / "taught").exists()
