import zipfile

import pytest
from data_files import write

from st_l0.data import read_positives
from st_l0.errors import InputError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pets"
    write(folder / "corpus.jsonl", *({"_id": f"d{number}", "text": f"text {number}"} for number in range(4)))
    write(
        folder / "queries.jsonl", *({"_id": f"q{number}", "text": f"query {number}"} for number in range(3))
    )
    write(
        folder / "qrels" / "train.tsv",
        "q0 0 d1 1\n",
        "q0 0 d3 2\n",
        "q1 0 d1 0\n",
        "q2 0 lost 1\n",
        "q2 0 d0 1\n",
    )
    return folder


def test_judgements_of_a_folder_and_of_an_archive(folder, tmp_path):
    known = read_positives(folder, "train")
    assert known.positives == {"q0": ["d1", "d3"], "q2": ["d0"]}
    assert (len(known.corpus), known.queries["q2"], known.missing, known.judged) == (4, "query 2", 1, True)
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path))
    assert read_positives(tmp_path / "pets.zip", "train") == known


def test_pairs_of_a_file_and_of_an_archive(tmp_path):
    pairs = [("wet?", "rain"), ("wet?", "a lake"), ("dry?", "rain")]
    path = write(tmp_path / "pairs.jsonl", *({"query": query, "positive": text} for query, text in pairs))
    known = read_positives(path, "train")
    assert known.corpus == {"d0": "rain", "d1": "a lake"}
    assert known.queries == {"q0": "wet?", "q1": "dry?"}
    assert known.positives == {"q0": ["d0", "d1"], "q1": ["d0"]}
    assert (known.missing, known.judged) == (0, False)
    with zipfile.ZipFile(tmp_path / "pairs.zip", "w") as archive:
        archive.write(path, "pairs.jsonl")
    assert read_positives(tmp_path / "pairs.zip", "train") == known


def test_nothing_relevant_is_refused(folder):
    write(folder / "qrels" / "train.tsv", "q0 0 d1 0\n", "q2 0 lost 1\n")
    with pytest.raises(InputError, match="pets: split train judges no document of the corpus as relevant"):
        read_positives(folder, "train")
