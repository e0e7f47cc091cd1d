import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

from st_l0 import cli
from st_l0.cli.fields import as_columns
from st_l0.encoder.idf import TABLE
from st_l0.errors import InputError, MissingExtraError
from st_l0.index import EmbeddedIndex
from st_l0.indexing import identity
from tiny_models import save_model

WORDS = ["red", "green", "blue", "fish", "tree"]
IDF = np.array([1.0, 2.0, 0.5, 3.0, 1.5], np.float32)


class FakeEncoder:
    """Documents are their word counts, queries the IDF of their words."""

    query_weights = IDF
    inference_free = True
    weights = "first"
    table = "first"
    tokenizer = SimpleNamespace(convert_ids_to_tokens=WORDS.__getitem__)
    loaded: list = []  # noqa: RUF012

    @classmethod
    def from_pretrained(cls, name, **options):
        if "missing" in name:
            raise OSError(
                f"{name} is not a local folder\nand is not a valid model identifier\n\nlisted on the Hub"
            )
        cls.loaded.append(name)
        return cls()

    def fingerprint(self):
        return f"{self.weights} {self.table}"

    def has_fingerprint(self, found):
        return found == self.fingerprint()

    def query_fingerprint(self):
        return self.table

    def _counts(self, texts):
        return sp.csr_matrix(
            [[text.split().count(word) for word in WORDS] for text in texts], dtype=np.float32
        )

    def encode_document(self, texts, **options):
        return self._counts(texts)

    def encode_query(self, texts, **options):
        return sp.csr_matrix((self._counts(texts) > 0).multiply(IDF))


class FakeQueryEncoder:
    """The query side of `FakeEncoder`, without its documents."""

    tokenizer = FakeEncoder.tokenizer
    loaded: list = []  # noqa: RUF012

    @classmethod
    def from_pretrained(cls, name):
        cls.loaded.append(name)
        return cls()

    def query_fingerprint(self):
        return FakeEncoder.table

    def encode_query(self, texts, **options):
        return FakeEncoder().encode_query(texts, **options)


def replace_module(monkeypatch, name, **names):
    module = ModuleType(f"st_l0.{name}")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, f"st_l0.{name}", module)


@pytest.fixture(autouse=True)
def restore(monkeypatch):
    """What the commands set for the whole process ends with the test."""
    for name in (
        "TRANSFORMERS_VERBOSITY",
        "DATASETS_VERBOSITY",
        "HF_HUB_VERBOSITY",
        "HF_HUB_DISABLE_PROGRESS_BARS",
    ):
        monkeypatch.setenv(name, "error" if name.endswith("VERBOSITY") else "1")
    level = logging.getLogger("sentence_transformers").level
    yield
    logging.getLogger("sentence_transformers").setLevel(level)


@pytest.fixture
def encoder(monkeypatch):
    monkeypatch.setattr(FakeEncoder, "loaded", [])
    monkeypatch.setattr(FakeQueryEncoder, "loaded", [])
    replace_module(monkeypatch, "encoder.sparse_encoder", SparseEncoder=FakeEncoder)
    monkeypatch.setattr(identity, "QueryEncoder", FakeQueryEncoder)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args, **options: CliRunner().invoke(cli.app, [str(arg) for arg in args], **options)


@pytest.fixture
def trains(monkeypatch, tmp_path):
    """`train` with a function in the place of the training; the recipe is a stand-in as well."""

    def replace(function):
        recipe = SimpleNamespace(output="runs/one", overrides=None)
        replace_module(
            monkeypatch,
            "training.recipe",
            load_recipe=lambda path, overrides: SimpleNamespace(
                output=recipe.output, path=path, overrides=list(overrides)
            ),
        )
        replace_module(monkeypatch, "training.train_model", train=function)

    return replace


def raising(error):
    def function(*args, **options):
        raise error

    return function


def test_train_hands_over_recipe_overrides_and_resume(run, trains):
    calls = []
    trains(
        lambda recipe, *, resume, changed: (
            calls.append((str(recipe.path), recipe.overrides, resume)) or "runs/one/model"
        )
    )
    result = run("train", "recipe.yaml", "training.max_steps=10", "seed=1", "--resume")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "model: runs/one/model\n", "")
    run("train", "recipe.yaml")
    assert calls == [("recipe.yaml", ["training.max_steps=10", "seed=1"], True), ("recipe.yaml", [], False)]


def test_only_the_first_process_of_many_reports(run, trains, monkeypatch):
    trains(lambda recipe, *, resume, changed: "runs/one/model")
    monkeypatch.setenv("RANK", "1")
    assert run("train", "recipe.yaml").output == ""


ERRORS = [
    (InputError("pairs.jsonl:3: no 'query'"), 2, "error: pairs.jsonl:3: no 'query'"),
    (
        MissingExtraError("this needs 'mteb': pip install 'st-l0[eval]'"),
        2,
        "error: this needs 'mteb': pip install",
    ),
    (OSError(errno.ENOSPC, "No space left on device"), 1, "error: runs/one: No space left on device"),
    (OSError(errno.ENOSPC, "No space left on device", "x.bin"), 1, "error: x.bin: No space left on device"),
    (PermissionError(errno.EACCES, "Permission denied", "/a"), 1, "error: /a: Permission denied"),
    (
        OSError(errno.EROFS, "Read-only file system", "/new", None, "/a"),
        1,
        "error: /a: Read-only file system",
    ),
    (OSError("no such model\n  on the Hub"), 1, "error: no such model on the Hub"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (RuntimeError("two\nlines"), 1, "error: RuntimeError: two lines (run with --debug for the traceback)"),
    (KeyError("x"), 1, "error: KeyError: 'x' (run with --debug for the traceback)"),
    (RuntimeError("long " * 1000), 1, "error: RuntimeError: long long"),
]


@pytest.mark.parametrize(("error", "code", "line"), ERRORS, ids=lambda value: type(value).__name__)
def test_every_error_is_one_line_and_an_exit_code(run, trains, error, code, line):
    trains(raising(error))
    result = run("train", "recipe.yaml")
    assert result.exit_code == code
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(line)
    assert len(result.stderr) < 800


@pytest.mark.parametrize(
    "args", [("--debug", "train", "r.yaml"), ("train", "r.yaml", "--debug"), ("train", "--debug", "r.yaml")]
)
def test_debug_shows_the_traceback_wherever_it_stands(run, trains, args):
    trains(raising(InputError("bad pairs")))
    result = run(*args)
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert "in function" in result.stderr
    assert result.stderr.splitlines()[-1] == "error: bad pairs"


def test_debug_after_two_dashes_is_an_argument(run, trains):
    calls = []
    trains(lambda recipe, *, resume, changed: calls.append(recipe.overrides))
    run("train", "recipe.yaml", "--", "--debug")
    assert calls == [["--debug"]]


def test_libraries_are_silent_unless_debug(run, trains, monkeypatch):
    seen = []
    trains(
        lambda recipe, *, resume, changed: seen.append(
            (os.environ.get("TRANSFORMERS_VERBOSITY"), logging.getLogger("sentence_transformers").level)
        )
    )
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY")
    run("train", "recipe.yaml", "--debug")
    run("train", "recipe.yaml")
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")  # what the user says, holds
    run("train", "recipe.yaml")
    assert seen == [(None, logging.WARNING), ("error", logging.ERROR), ("info", logging.ERROR)]


def test_usage_errors_exit_with_2(run):
    for args in [
        ("train",),
        ("search",),
        ("nonsense",),
        ("search", "x", "-k", "0"),
        ("index", "m", "c"),
        ("--nope",),
    ]:
        result = run(*args)
        assert result.exit_code == 2, args
        assert "Traceback" not in result.output


def test_help_and_version(run):
    assert re.fullmatch(r"st-l0 \d+\.\d+\.\d+\S*\n", run("--version").stdout)
    listing = run("--help").stdout
    for command in ("train", "evaluate", "index", "search", "idf", "quickstart"):
        assert command in listing
        assert run(command, "--help").exit_code == 0


@pytest.fixture
def corpus(tmp_path):
    lines = [
        {"id": "a", "text": "red fish fish"},
        {"id": "b", "text": "blue [bold]fish\x1b[31m tree"},
        {"id": "c", "text": "green tree"},
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def indexed(run, encoder, corpus, tmp_path):
    (tmp_path / "model").mkdir()
    result = run("index", "model", corpus, "--to", "my-index")
    assert result.exit_code == 0, result.output
    assert result.stdout == "my-index: 3 documents added, 3 in all\n"
    FakeEncoder.loaded.clear()
    return tmp_path / "my-index"


def test_index_goes_on_where_it_stopped(run, indexed, corpus):
    with corpus.open("a") as file:
        file.write('{"id": "d", "text": "red"}\n')
    lines = run("index", "model", corpus, "--to", "my-index").stdout.splitlines()
    assert lines[0] == "my-index: 1 documents added, 4 in all"
    assert "left as they are" in lines[1]


def test_pruned_documents(run, indexed, corpus):
    options = ["--to", "pruned", "--max-active-dims", "1"]
    found = run("index", "model", corpus, *options)
    assert found.stdout == "pruned: 3 documents added, 3 in all, at most 1 weights each\n"
    assert run("index", "model", corpus, *options).stdout.startswith("pruned: 0 documents added")
    index = EmbeddedIndex("pruned")
    assert index.metadata["max_active_dims"] == 1
    # Fish twice; blue before tree, and green before tree.
    found = [[hit.id for hit in hits] for hits in index.search(np.eye(5, dtype=np.float32))]
    assert found == [[], ["c"], ["b"], ["a"], []]

    refused = run("index", "model", corpus, "--to", "pruned")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
    assert "keeps 1 weights of a document at most; add to it with max_active_dims 1" in refused.stderr
    refused = run("index", "model", corpus, "--to", indexed, "--max-active-dims", "1")
    assert "keeps all weights of a document; add to it without max_active_dims" in refused.stderr


def test_search_prints_rank_score_id_and_text(run, indexed, tmp_path):
    result = run("search", "my-index", "red fish", "-k", "5")
    assert FakeQueryEncoder.loaded == [str(tmp_path / "model")]  # absolute: the index works from any folder
    assert FakeEncoder.loaded == []  # no document is encoded
    # By hand: a = 1 · 1 + 3 · 2 = 7; b holds neither word, since its fish sticks to a bracket.
    assert result.stdout.splitlines() == ["  1    7.0000  a  red fish fish"]


def test_search_prints_texts_as_they_are_but_no_control_characters(run, indexed):
    result = run("search", "my-index", "blue", "--model", "other/model")
    assert FakeQueryEncoder.loaded == ["other/model"]
    assert result.stdout == "  1    0.5000  b  blue [bold]fish\\x1b[31m tree\n"


def test_k_limits_the_documents(run, indexed):
    assert len(run("search", "my-index", "tree red green").stdout.splitlines()) == 3
    lines = run("search", "my-index", "tree red green", "-k", "2").stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["c", "b"]  # 2 + 1.5, then 1.5 before 1


def test_explain_shows_terms_that_sum_to_the_score(run, indexed):
    lines = run("search", "my-index", "red fish", "--explain").stdout.splitlines()
    assert lines[1:] == ["       6.0000  = 3.0000 × 2.0000  fish", "       1.0000  = 1.0000 × 1.0000  red"]
    assert sum(float(line.split()[0]) for line in lines[1:]) == float(lines[0].split()[1]) == 7.0


def test_unknown_words_find_nothing(run, indexed):
    for query in ("zebra quagga", ""):
        result = run("search", "my-index", query)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == (
            f"error: the model knows no word of the query {query!r}: nothing to look for\n"
        )


def test_an_index_of_other_weights_is_refused(run, indexed, corpus, monkeypatch):
    monkeypatch.setattr(FakeEncoder, "table", "trained on")
    for command in (("search", "my-index", "red"), ("index", "model", corpus, "--to", "my-index")):
        result = run(*command)
        assert result.exit_code == 2
        assert "was made with a model of other weights" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_documents_of_other_weights_are_refused_but_their_queries_fit(run, indexed, corpus, monkeypatch):
    expected = run("search", "my-index", "red").stdout
    monkeypatch.setattr(FakeEncoder, "weights", "trained on")  # with the table as it was
    assert run("search", "my-index", "red").stdout == expected != ""
    result = run("index", "model", corpus, "--to", "my-index")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: my-index was made with a model of other weights or settings "
        f"(then at {indexed.parent / 'model'}): use that one, or build the index again\n"
    )


def test_an_index_that_does_not_know_its_query_side(run, indexed, monkeypatch):
    """As version 0.1 wrote it: all weights are compared, which takes the whole model."""
    expected = run("search", "my-index", "red").stdout
    (manifest,) = (path for path in indexed.glob("*.json") if "query_fingerprint" in path.read_text())
    content = json.loads(manifest.read_text())
    del content["metadata"]["query_fingerprint"], content["checksum"]
    for segment in content["segments"]:
        del segment["checksums"], segment["deleted_checksums"]
    manifest.write_text(json.dumps(content))
    assert run("search", "my-index", "red").stdout == expected != ""
    assert FakeEncoder.loaded == [str(indexed.parent / "model")]
    monkeypatch.setattr(FakeEncoder, "weights", "trained on")
    assert "was made with a model of other weights" in run("search", "my-index", "red").stderr


def test_an_unusable_corpus_leaves_no_index(run, encoder, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    result = run("index", "model", tmp_path / "empty.jsonl", "--to", tmp_path / "new")
    assert result.exit_code == 2
    assert not (tmp_path / "new").exists()


def test_the_prompt_ends_with_an_empty_line_or_the_end(run, indexed, monkeypatch):
    monkeypatch.setattr(
        cli.searching, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True), stderr=sys.stderr)
    )
    result = run("search", "my-index", input="red\nzebra\n\ngreen\n")
    assert result.exit_code == 0
    assert "red fish fish" in result.stdout
    assert "knows no word" in result.stdout
    assert "green" not in result.stdout
    assert run("search", "my-index", input="green\n").stdout.endswith("green tree\nquery> \n")


def test_no_query_and_no_terminal(run, indexed):
    result = run("search", "my-index")
    assert result.exit_code == 2
    assert result.stderr == "error: no QUERY was given, and there is no terminal to ask for one\n"


def test_search_without_an_index(run):
    result = run("search", "no-index", "red")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_search_in_an_index_that_names_no_model(run, encoder, tmp_path):
    from st_l0.index import open_index

    index = open_index(tmp_path / "bare", vocabulary_size=5)
    index.add(["a"], FakeEncoder().encode_document(["red"]))
    result = run("search", "bare", "red")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: bare does not say which model made it: give --model\n",
    )
    assert run("search", "bare", "red", "--model", "m").stdout.split() == ["1", "1.0000", "a"]


def test_search_in_a_corpus(run, encoder, corpus, indexed):
    """With a model a corpus is encoded for the search, and nothing is left behind."""
    before = sorted(corpus.parent.iterdir())
    expected = run("search", "my-index", "red fish", "-k", "5").stdout
    assert run("search", corpus, "red fish", "-k", "5", "--model", "m").stdout == expected != ""
    beir = corpus.parent / "beir"
    beir.mkdir()
    (beir / "corpus.jsonl").write_bytes(corpus.read_bytes())
    assert run("search", beir, "red fish", "-k", "5", "--model", "m").stdout == expected
    assert sorted(corpus.parent.iterdir()) == sorted([*before, beir])
    result = run("search", corpus, "red")
    assert (result.exit_code, result.stderr) == (2, f"error: {corpus} is a corpus, no index: give --model\n")


def test_fields_of_other_names(run, encoder, tmp_path):
    lines = [{"sku": "a", "label": "red", "note": "fish"}, {"sku": "b", "label": "green", "note": "tree"}]
    corpus = tmp_path / "goods.jsonl"
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields = ("--id-field", "sku", "--text-field", "label", "--text-field", "note")
    for given, problem in (
        ((), "no _id, but sku, which may be one"),
        (fields[:2], "so no text; name it with text_fields (--text-field"),
    ):
        result = run("index", "model", corpus, "--to", "my-index", *given)
        assert result.exit_code == 2
        assert problem in result.stderr
    assert run("index", "model", corpus, "--to", "my-index", *fields).exit_code == 0
    found = run("search", "my-index", "red", "-k", "5").stdout
    assert found.split()[2:] == ["a", "red", "fish"]
    assert run("search", corpus, "red", "-k", "5", "--model", "m", *fields).stdout == found
    result = run("search", "my-index", "red", *fields)
    line = "error: my-index: is no corpus; leave --id-field and --text-field out\n"
    assert (result.exit_code, result.stderr) == (2, line)


def test_keys_of_rows_of_other_names():
    assert as_columns(["negatives=a", "negatives=b", "ignore=c=d"]) == {
        "negatives": ["a", "b"],
        "ignore": ["c=d"],
    }
    assert as_columns(None) == {}
    with pytest.raises(InputError, match="--column query: give WORD=KEY, such as positive=passage_text"):
        as_columns(["query"])


def test_a_missing_model_is_one_line(run, encoder, corpus):
    result = run("index", "some/missing", corpus, "--to", "my-index")
    assert result.exit_code == 1
    line = "error: some/missing is not a local folder and is not a valid model identifier listed on the Hub\n"
    assert result.stderr == line


def test_index_below_a_file(run, encoder, corpus):
    result = run("index", "model", corpus, "--to", corpus / "below")
    assert result.exit_code in (1, 2)
    assert str(corpus) in result.stderr
    assert len(result.stderr.splitlines()) == 1


class FakeTokenizer:
    @classmethod
    def from_pretrained(cls, name, **options):
        return name


@pytest.fixture
def tokenizer(monkeypatch):
    module = ModuleType("transformers")
    module.AutoTokenizer = FakeTokenizer
    monkeypatch.setitem(sys.modules, "transformers", module)


def test_idf_counts_the_corpus(run, tokenizer, corpus, monkeypatch, caplog):
    calls = []
    replace_module(
        monkeypatch,
        "encoder.idf",
        TABLE=TABLE,
        document_frequencies=lambda texts, tokenizer, progress: (
            calls.append((next(iter(texts)), tokenizer)) or (np.array([0, 2, 0, 1, 0]), 2)
        ),
        read_idf=lambda path, tokenizer: calls.append((path, tokenizer)) or IDF,
        write_idf=lambda path, weights, tokenizer: calls.append((str(path), weights.tolist(), tokenizer)),
    )
    monkeypatch.setattr(
        "st_l0.encoder.smoothing.smooth_idf",
        lambda frequencies, documents, tokenizer, **options: calls.append((documents, options)) or IDF,
    )
    given = ["idf", corpus, "--tokenizer", "some/model", "--output", "idf.json"]
    result = run(*given)
    assert result.stdout == (
        "idf.json: 5 tokens; 2 documents, 2 tokens occur, 3 do not and weigh 1, punctuation weighs 0\n"
    )
    assert caplog.messages == [
        f"{corpus}: 2 documents are few: in collections below 10,000 the mean with MS MARCO's table found "
        "more than the own table alone; --general TABLE takes it, see docs/which-idf.md"
    ]
    caplog.clear()
    options = {"unseen": 1.0, "general": None, "general_documents": 3000, "punctuation": False}
    assert calls == [
        ("red fish fish", "some/model"),
        (2, options),
        ("idf.json", IDF.tolist(), "some/model"),
    ]
    calls.clear()
    result = run(*given, "--general", "other.json", "--general-documents", "6", "--unseen", "rarest")
    assert result.stdout == (
        "idf.json: 5 tokens; 2 documents, 2 tokens occur, 3 do not and weigh the most, punctuation weighs 0, "
        "mean of 0.25 of this table and 0.75 of the general one\n"
    )
    assert not caplog.messages and ("other.json", "some/model") in calls
    assert (2, {"unseen": None, "general": IDF, "general_documents": 6, "punctuation": False}) in calls


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--general-documents", "5"], "--general-documents has no effect without --general"),
        (["--unseen", "much"], "--unseen 'much' is no weight: give a number, or rarest"),
    ],
)
def test_idf_refuses_options_that_mean_nothing(run, corpus, options, problem):
    result = run("idf", corpus, "--tokenizer", "some/model", "--output", "idf.json", *options)
    assert (result.exit_code, result.stderr) == (2, f"error: {problem}\n")


def test_idf_takes_the_tokenizer_of_a_checkpoint(run, corpus, tiny_encoder, mlm_folder, tmp_path):
    checkpoint = save_model(tiny_encoder(), tmp_path / "model")
    for number, name in enumerate((checkpoint, mlm_folder)):
        result = run("idf", corpus, "--tokenizer", str(name), "--output", f"{number}.json")
        assert result.exit_code == 0, result.stderr
    assert Path("0.json").read_bytes() == Path("1.json").read_bytes()


def test_a_full_disk_names_the_file(run, tokenizer, corpus, monkeypatch):
    error = OSError(errno.ENOSPC, "No space left on device")
    replace_module(
        monkeypatch,
        "encoder.idf",
        TABLE=TABLE,
        document_frequencies=lambda *_, **options: (np.array([0, 2, 0, 1, 0]), 2),
        read_idf=None,
        write_idf=raising(error),
    )
    monkeypatch.setattr("st_l0.encoder.smoothing.smooth_idf", lambda *_, **options: IDF)
    result = run("idf", corpus, "--tokenizer", "some/model", "--output", "out/idf.json")
    assert (result.exit_code, result.stderr) == (1, "error: out/idf.json: No space left on device\n")


def test_a_missing_tokenizer_is_named(run, tokenizer, corpus, monkeypatch):
    monkeypatch.setattr(FakeTokenizer, "from_pretrained", raising(OSError("cannot\nconnect")))
    result = run("idf", corpus, "--tokenizer", "some/model", "--output", "idf.json")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: some/model: no tokenizer found there: cannot connect\n",
    )


@pytest.fixture
def collections(tmp_path):
    """Two tiny collections that differ in what they judge relevant."""
    for name in ("one", "two"):
        (tmp_path / name / "qrels").mkdir(parents=True)
        (tmp_path / name / "corpus.jsonl").write_text(
            '{"_id": "a", "text": "red fish"}\n{"_id": "b", "text": "tree"}\n{"_id": "c", "text": "blue"}\n'
        )
        (tmp_path / name / "queries.jsonl").write_text('{"_id": "q", "text": "red tree"}\n')
        # By hand: b scores 1.5 for its tree, a 1 for its red.
        relevant = "b" if name == "one" else "a"
        (tmp_path / name / "qrels" / "dev.tsv").write_text(f"query-id\tcorpus-id\tscore\nq\t{relevant}\t1\n")


def test_evaluate_prints_tables_and_writes_json(run, encoder, collections, tmp_path):
    args = ("evaluate", "model", "--data", "one", "--data", "two", "--split", "dev", "--no-bm25")
    result = run(*args, "--output", "out/numbers.json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "nDCG@10" in result.stdout
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text())
    found = {name: report["model"]["mrr@10"] for name, report in numbers["collections"].items()}
    assert found == {"one": 1.0, "two": 0.5}
    per_query = json.loads((tmp_path / "out" / "numbers.per_query.json").read_text())
    assert {name: systems["model"]["q"]["mrr@10"] for name, systems in per_query.items()} == found
    assert (tmp_path / "out" / "numbers.two.model.run").read_text() == (
        "q Q0 b 1 1.5 model\nq Q0 a 2 1.0 model\n"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "numbers.json", "numbers.one.model.run", "numbers.per_query.json", "numbers.two.model.run",
    ]  # fmt: skip
    assert run(*args, "--output", tmp_path / "one" / "corpus.jsonl" / "x").exit_code == 2


def test_evaluate_refuses_before_it_loads_the_model(run, encoder, collections):
    assert run("evaluate", "model", "--data", "one", "--split", "none").exit_code == 2
    result = run("evaluate", "model", "--data", "one", "--data", "./one", "--split", "dev")
    assert result.exit_code == 2
    assert result.stderr == "error: two collections have the same name: rename the folder of one\n"
    assert FakeEncoder.loaded == []


def test_quickstart_gets_only_the_options_given(run, monkeypatch):
    calls = []
    replace_module(monkeypatch, "quickstart.pipeline", run_quickstart=lambda **options: calls.append(options))
    assert run("quickstart").exit_code == 0
    run(
        "quickstart",
        "--corpus",
        "c",
        "--output",
        "here",
        "--base-model",
        "m",
        "--max-steps",
        "3",
        "--limit",
        "9",
    )
    assert [{name: str(value) for name, value in options.items()} for options in calls] == [
        {},
        {"corpus": "c", "output": "here", "base_model": "m", "max_steps": "3", "limit": "9"},
    ]


# Real processes.

PYTHON = [sys.executable, "-m", "st_l0"]


def test_help_imports_no_library():
    code = (
        "import sys\nfrom st_l0.cli import main\nsys.argv = ['st-l0', *sys.argv[1:]]\n"
        "try: main()\nfinally: print(sorted({'torch', 'transformers', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    for args in (["--help"], ["train", "--help"], ["--version"], ["search"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False
        )
        assert result.stdout.splitlines()[-1] == "[]", args


def test_a_real_process_reports_one_line(tmp_path):
    result = subprocess.run(
        [*PYTHON, "train", "none.yaml"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "error: none.yaml: cannot be read (No such file or directory): give the path of a YAML file"
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_ctrl_c_in_the_middle_of_a_command(tmp_path):
    pipe = tmp_path / "recipe.yaml"
    os.mkfifo(pipe)

    def heed_ctrl_c():  # a job in the background inherits that it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        [*PYTHON, "train", str(pipe)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    writer = os.open(pipe, os.O_WRONLY)  # returns once the command has begun to read
    process.send_signal(signal.SIGINT)
    try:
        output, errors = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:  # it came just before the read began, which then waits on
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    os.close(writer)
    assert (process.returncode, output, errors) == (130, "", "interrupted\n")


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    command = f"{sys.executable} -m st_l0 --help | true"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.stderr == ""
