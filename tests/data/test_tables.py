"""Files of rows and of documents: tables with and without names, arrays, Arrow; the same values from each."""

import gzip
import json

import pytest
from data_files import message, write
from datasets import Dataset, disable_progress_bars

from st_l0.data import Row, open_texts, read_documents, read_rows

TEXT = 'He said "so", and\tleft.'
ROWS = [Row("q1", ("p, 1", TEXT)), Row("q2", ('"p" 2', "n"))]
RECORDS = [{"query": row.query, "positive": row.documents[0], "negative": row.documents[1]} for row in ROWS]


def pack(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("end", ["", ".gz"])
def test_rows_of_every_kind_of_file(tmp_path, end):
    def quoted(separator):
        lines = [["query", "positive", "negative"], *([row.query, *row.documents] for row in ROWS)]
        cells = ([f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in line] for line in lines)
        return "\r\n".join(separator.join(line) for line in cells) + "\r\n"

    for name, text in {
        "r.csv": quoted(","),
        "semicolons.csv": quoted(";"),
        "r.json": json.dumps(RECORDS, indent=1),
        "lines.json": "".join(json.dumps(record) + "\n" for record in RECORDS),
        "r.jsonl": "".join(json.dumps(record) + "\n" for record in RECORDS),
    }.items():
        assert list(read_rows(pack(tmp_path / f"{name}{end}", text))) == ROWS, name
    named = 'query\tpositive\tnegative\nq1\tp, 1\t\nq2\t"""p"" 2"\tn\n'
    assert list(read_rows(pack(tmp_path / f"r.tsv{end}", named))) == [Row("q1", ("p, 1",)), ROWS[1]]
    plain = 'q1\tp, 1\tn\nq2\t"p" 2\t"n\n'  # MS MARCO's triples: quotes are text
    expected = [Row("q1", ("p, 1", "n")), Row("q2", ('"p" 2', '"n'))]
    assert list(read_rows(pack(tmp_path / f"triples.tsv{end}", plain))) == expected
    assert list(read_rows(pack(tmp_path / f"pairs.tsv{end}", "q1\tp\n"))) == [Row("q1", ("p",))]


def test_rows_of_arrow_files(tmp_path, own_cache):
    disable_progress_bars()
    folder = tmp_path / "saved"
    Dataset.from_list(RECORDS).save_to_disk(folder)
    [file] = folder.glob("*.arrow")
    assert list(read_rows(file)) == ROWS
    import pyarrow as pa
    import pyarrow.feather as feather

    feather.write_feather(pa.Table.from_pylist(RECORDS), str(tmp_path / "f.arrow"))
    assert list(read_rows(tmp_path / "f.arrow")) == ROWS
    (tmp_path / "bad.arrow").write_bytes(file.read_bytes()[:20])
    assert "cannot be read as Arrow" in message(read_rows, tmp_path / "bad.arrow")


def test_scores_and_lists_in_a_table(tmp_path):
    path = pack(tmp_path / "r.csv", 'query,positive,negative,scores\nq,p,n,"[2.5, 1]"\n')
    assert list(read_rows(path)) == [Row("q", ("p", "n"), (2.5, 1.0))]
    path = pack(tmp_path / "m.tsv", "query\tpositive\tnegative\tlabel\nq\tp\tn\t1.5\n")
    assert list(read_rows(path)) == [Row("q", ("p", "n"), (0.0, -1.5))]
    path = pack(tmp_path / "b.csv", "query,positive,rerank_score\nq,p,0.7\n")
    assert message(read_rows, path).startswith(f"{path}:2: rerank_score may hold scores and is not known")


def test_msmarco_by_id(tmp_path):
    corpus = pack(
        tmp_path / "collection.tsv", '0\tThe "first" one\n7\tRain\tfalls\n'.replace("Rain\tf", "Rain f")
    )
    queries = pack(tmp_path / "queries.train.tsv", "121\twhat is rain\n")
    triples = pack(tmp_path / "qidpidtriples.tsv.gz", "121\t7\t0\n")
    lookups = {"corpus": open_texts(corpus, "corpus"), "queries": open_texts(queries, "queries")}
    expected = Row("what is rain", ("Rain falls", 'The "first" one'), None, "121", ("7", "0"))
    assert list(read_rows(triples, **lookups)) == [expected]
    expected = f"{triples}:1: query and positive are numbers; for ids, give corpus and queries as well"
    assert message(read_rows, triples) == expected
    documents = pack(tmp_path / "msmarco-docs.tsv", "D1\thttps://a.b\tA title\tA body.\n")
    assert list(read_documents(documents)) == [("D1", "A title A body.")]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("r.csv", "frage,absatz\na,b\n", "1: 'frage,absatz' holds no name of a column that is known"),
        ("r.csv", "query,positive\na,b,c\n", "2: 3 fields for 2 columns; give one for each"),
        (
            "r.csv",
            'query,positive\na,"b\nc\n',
            "2: not CSV (unexpected end of data); quote fields as CSV does",
        ),
        ("r.csv", "query,query\na,b\n", "1: two columns are called 'query'; give each its own name"),
        ("r.tsv", "frage\tabsatz\na\tb\n", "1: frage, absatz look like names of columns, but none is known"),
        (
            "r.tsv",
            "1\t2\t3\t4\n",
            "1: 4 fields and no line of names; give query, positive, negative, or query",
        ),
        ("r.tsv", "one query\tone text\na\n", "2: 1 fields for 2 columns; give one for each"),
        (
            "r.json",
            '[{"query": "q", "positive": "p"}, 3]',
            "2: expected a JSON object, found int; give one JSON object a line",
        ),
        ("r.json", '[{"query": "q"}', "1: invalid JSON (Expecting"),
        ("r.json", '["a"]', "1: expected a JSON object, found list"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, text, expected):
    path = pack(tmp_path / name, text)
    assert message(read_rows, path).startswith(f"{path}:{expected}")


def test_line_breaks_and_long_fields_of_csv(tmp_path):
    long = "word " * 40_000
    path = pack(tmp_path / "c.csv", f'id,text\n1,"two\nlines"\n\n2,{long}\nx,"y\n')
    documents = read_documents(path)
    assert [next(documents), next(documents)] == [("1", "two\nlines"), ("2", long)]
    assert message(lambda: documents).startswith(f"{path}:6: not CSV")


def test_documents_are_the_same_from_every_file(tmp_path):
    records = [{"id": "a", "title": "T", "text": "x"}, {"id": "b", "title": "", "text": ""}]
    expected = [("a", "T x"), ("b", "")]
    for name, text in {
        "c.csv": "id,title,text\na,T,x\nb,,\n",
        "c.tsv": "id\ttitle\ttext\na\tT\tx\nb\t\t\n",
        "c.json": json.dumps(records),
        "c.ndjson": "".join(json.dumps(record) + "\n" for record in records),
    }.items():
        path = pack(tmp_path / name, text)
        assert list(read_documents(path)) == expected, name
        texts = open_texts(path, "corpus")
        assert [(identifier, texts[identifier]) for identifier in texts.ids()] == expected
    assert message(read_documents, write(tmp_path / "empty.tsv")).endswith("give at least one document")
