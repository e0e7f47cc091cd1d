"""Sentences of the training documents among the queries that a pool draws from."""

import json

import pytest
import torch

from st_l0.data.sentences import sentences_of
from st_l0.errors import InputError
from st_l0.teachers import EnsembleTeacher, QueryPool, load_teacher, write_vectors
from st_l0.training.build import build_model, build_pool, read_data
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


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """The queries that the pools were made of, as they come."""
    given = []

    class Pool(QueryPool):
        def __init__(self, teacher, queries, *rest, **options):
            given.append(list(queries))
            super().__init__(teacher, queries, *rest, **options)

    monkeypatch.setattr("st_l0.teachers.QueryPool", Pool)
    return given


@pytest.fixture
def pool(asked):
    """Function: recipe to its pool, and the queries that it was made of."""

    def build(recipe):
        teacher = EnsembleTeacher([load_teacher(spec, device="cpu") for spec in recipe.teachers.specs])
        made = build_pool(recipe, teacher, build_model(recipe), read_data(recipe.data), torch.device("cpu"))
        return made, asked[-1]

    return build


@pytest.mark.parametrize("ids", [False, True])
def test_sentences_join_the_queries(recipe, pool, capsys, ids):
    assert len(SENTENCES) == 24
    made, queries = pool(recipe(ids=ids))
    assert (made.queries, made.documents) == (32, 16)
    assert queries[:8] == [row["query"] for row in ROWS]
    assert len(queries) == 32 and set(queries[8:]) == SENTENCES
    assert capsys.readouterr().out.startswith(
        "teachers.sentence_queries is 100, and the training documents have 24\n"
    )


def test_some_of_the_sentences(recipe, pool, capsys):
    some = [pool(recipe("teachers.sentence_queries=5", f"seed={seed}"))[1][8:] for seed in (1, 1, 2)]
    assert some[0] == some[1] != some[2] and len(some[0]) == 5 and set(some[0]) < SENTENCES
    assert "sentence_queries" not in capsys.readouterr().out


def test_sentences_that_have_stored_vectors(recipe, pool, tmp_path, mlm_folder, capsys):
    queries = [row["query"] for row in ROWS]
    dense = load_teacher(f"dense:{mlm_folder}", device="cpu")
    texts = [text for row in ROWS for text in (row["positive"], *row["negatives"])]
    stored = sorted(SENTENCES)[:7]
    write_vectors(dense, [*queries, *stored], texts, tmp_path / "some", progress=False)
    write_vectors(dense, queries, texts, tmp_path / "none", progress=False)
    vectors = f"vectors:{tmp_path}/some"
    made, found = pool(recipe(f"teachers.models=['dense:{mlm_folder}', '{vectors}']"))
    assert set(found[8:]) == set(stored)
    assert (
        f"the training documents have 7 of which {vectors} hold vectors as queries" in capsys.readouterr().out
    )
    assert len(made.score_batch(queries[:2], [texts[:2]]).extra_queries.vectors) == 4
    assert pool(recipe(f"teachers.models=['{vectors}']", "teachers.sentence_queries=3"))[0].queries == 11
    with pytest.raises(InputError) as caught:
        pool(recipe(f"teachers.models=['vectors:{tmp_path}/none']"))
    assert str(caught.value) == (
        f"teachers.sentence_queries is 100, and the training documents have 0 of which "
        f"vectors:{tmp_path}/none hold vectors as queries: leave it out, or let write_vectors embed some"
    )


def test_sentences_without_a_pool(recipe):
    with pytest.raises(InputError, match=r"teachers.sentence_queries is of no use without extra_queries"):
        recipe("teachers.extra_queries=0")
