"""Sentences of the training documents among the queries that a pool draws from."""

import json

import pytest

from st_l0.data.sentences import sentences_of
from st_l0.errors import InputError
from st_l0.teachers import EnsembleTeacher, load_teacher, write_vectors
from st_l0.training.build import build_pool, read_data
from st_l0.training.recipe import load_recipe
from tiny_models import WORDS

ROWS = [
    {
        "query": word,
        "positive": f"the {word} and a {word} of the {word}. a red {word} in the blue {word}!",
        "negatives": [f"a green {word} in the {word} and the snow"],
    }
    for word in WORDS[:8]
]
SENTENCES = {
    text for row in ROWS for one in (row["positive"], *row["negatives"]) for text in sentences_of(one)
}


@pytest.fixture
def recipe(tmp_path, mlm_folder):
    def load(*changes, ids=False):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        data = {"train": str(tmp_path / "rows.jsonl")}
        if ids:
            folder, documents = tmp_path / "texts", []
            folder.mkdir()
            lines = []
            for number, row in enumerate(ROWS):
                documents += [row["positive"], *row["negatives"]]
                ids_of = {"positive_id": f"{2 * number}", "negative_ids": [f"{2 * number + 1}"]}
                lines.append({"query_id": str(number), **ids_of})
            for name, texts in (("corpus", documents), ("queries", [row["query"] for row in ROWS])):
                rows = [{"_id": str(number), "text": text} for number, text in enumerate(texts)]
                (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (tmp_path / "ids.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            data = {"train": str(tmp_path / "ids.jsonl"), "corpus": str(folder), "queries": str(folder)}
        values = {
            "model": {"base_model": mlm_folder, "idf": "binary"},
            "data": data,
            "loss": {"document_regularizer_weight": 0.01, "ranking": "kl", "in_batch_negatives": True},
            "teachers": {"models": [f"dense:{mlm_folder}"], "extra_queries": 4, "sentence_queries": 100},
            "training": {"max_steps": 1},
            "output": str(tmp_path / "run"),
        }
        (tmp_path / "recipe.yaml").write_text(json.dumps(values))
        return load_recipe(tmp_path / "recipe.yaml", changes)

    return load


def pool(recipe):
    teacher = EnsembleTeacher([load_teacher(spec, device="cpu") for spec in recipe.teachers.specs])
    return build_pool(recipe, teacher, read_data(recipe.data))


@pytest.mark.parametrize("ids", [False, True])
def test_sentences_join_the_queries(recipe, capsys, ids):
    assert len(SENTENCES) == 24
    loaded = recipe(ids=ids)
    queries = pool(loaded).queries
    assert queries[:8] == [row["query"] for row in ROWS]
    assert len(queries) == 32 and set(queries[8:]) == SENTENCES
    assert capsys.readouterr().out == (
        "teachers.sentence_queries is 100, and the training documents have 24\n"
    )


def test_some_of_the_sentences(recipe, capsys):
    some = [pool(recipe("teachers.sentence_queries=5", f"seed={seed}")).queries[8:] for seed in (1, 1, 2)]
    assert some[0] == some[1] != some[2] and len(some[0]) == 5 and set(some[0]) < SENTENCES
    assert capsys.readouterr().out == ""


def test_sentences_that_have_stored_vectors(recipe, tmp_path, mlm_folder, capsys):
    queries = [row["query"] for row in ROWS]
    dense = load_teacher(f"dense:{mlm_folder}", device="cpu")
    texts = [text for row in ROWS for text in (row["positive"], *row["negatives"])]
    stored = sorted(SENTENCES)[:7]
    write_vectors(dense, [*queries, *stored], texts, tmp_path / "some", progress=False)
    write_vectors(dense, queries, texts, tmp_path / "none", progress=False)
    vectors = f"vectors:{tmp_path}/some"
    found = pool(recipe(f"teachers.models=['dense:{mlm_folder}', '{vectors}']"))
    assert set(found.queries[8:]) == set(stored)
    assert (
        f"the training documents have 7 of which {vectors} hold vectors as queries" in capsys.readouterr().out
    )
    assert len(found.draw(queries[:2], texts[:2])) == 4
    assert len(pool(recipe(f"teachers.models=['{vectors}']", "teachers.sentence_queries=3")).queries) == 11
    with pytest.raises(InputError) as caught:
        pool(recipe(f"teachers.models=['vectors:{tmp_path}/none']"))
    assert str(caught.value) == (
        f"teachers.sentence_queries is 100, and the training documents have 0 of which "
        f"vectors:{tmp_path}/none hold vectors as queries: leave it out, or let write_vectors embed some"
    )


def test_sentences_without_a_pool(recipe):
    with pytest.raises(InputError, match=r"teachers.sentence_queries is of no use without extra_queries"):
        recipe("teachers.extra_queries=0")
