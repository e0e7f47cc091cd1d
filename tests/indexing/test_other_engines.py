"""Other engines index and search what was written for them, and find what exact search finds."""

import pytest
from spelled import VOCABULARY, Spelled, drawn, encoded, exact, spelled

import other_engines as engines
from st_l0.index.opensearch.documents import truncate
from st_l0.indexing.formats import SCALE
from st_l0.indexing.vectors import write_vectors

DOCUMENTS = [*drawn(150, 9, 1, prefix="d"), spelled("empty", {}), spelled("faint", {3: 0.004})]
QUERIES = [*drawn(20, 5, 2, prefix="q"), spelled("nothing", {})]
K = 10


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Function: format to the folder with documents and queries in it."""
    folder = tmp_path_factory.mktemp("written")
    source = encoded(DOCUMENTS, folder / "encoded", shard_size=64)

    def write(format):
        options = {"name": "spelled", "queries": QUERIES, "progress": False}
        write_vectors(Spelled(), source, folder / format, format, **options)
        return folder / format

    return write


def needs(engine):
    reason = engines.unavailable(engine)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


def check(run, expected, tolerance):
    """Scores are those expected, of each document and at each rank; queries without weights are not there."""
    assert run.keys() == {query.id for query in QUERIES[:-1]}
    for query, found in run.items():
        best = sorted(expected[query].values(), reverse=True)[:K]
        assert [score for score, _ in found] == pytest.approx(best, rel=tolerance)
        assert len({id for _, id in found}) == len(found) == K
        for score, id in found:
            assert score == pytest.approx(expected[query][id], rel=tolerance)


def whole(weights):
    return (weights * SCALE).round()


def test_the_python_of_the_guide(written):
    check(engines.by_guide(written("jsonl"), K), exact(DOCUMENTS, QUERIES), 1e-6)


@needs("seismic")
def test_seismic(written):
    """By the guide's own lines; weights are float16 there."""
    check(engines.by_guide(written("seismic"), K), exact(DOCUMENTS, QUERIES), 2**-11)


@needs("seismic")
def test_seismic_leaves_out_what_it_is_told_to(written):
    """What the guide warns of is so: with one token of a query the scores are others."""
    run = engines.by_guide(written("seismic"), K, query_cut="1", heap_factor="0.9")
    expected = exact(DOCUMENTS, QUERIES)
    best = {query: sorted(scores.values(), reverse=True)[:K] for query, scores in expected.items()}
    assert any(
        [score for score, _ in found] != pytest.approx(best[query], rel=0.01) for query, found in run.items()
    )


@needs("qdrant")
def test_qdrant(written):
    check(engines.qdrant(written("qdrant"), K), exact(DOCUMENTS, QUERIES), 1e-6)


@needs("anserini")
def test_anserini(written):
    check(engines.anserini(written("anserini"), K), exact(DOCUMENTS, QUERIES, whole), 1e-9)


@pytest.mark.opensearch
def test_anserinis_whole_numbers_in_lucene(written, opensearch):
    run = engines.lucene_impacts(written("anserini"), opensearch, K)
    check(run, exact(DOCUMENTS, QUERIES, whole), 1e-9)


@pytest.mark.opensearch
def test_elasticsearchs_lines_in_lucene(written, opensearch):
    """The bulk lines as they are; 9 bits of a document's weight are kept."""

    def kept(weights):
        held = len(weights) == len(DOCUMENTS)
        return truncate(weights.astype("f4")).astype("f8") if held else weights

    run = engines.lucene_features(written("elasticsearch"), opensearch, K)
    check(run, exact(DOCUMENTS, QUERIES, kept), 1e-6)
    check(run, exact(DOCUMENTS, QUERIES), 2**-8)


def test_there_is_something_to_find():
    """Each query has more hits than are asked for, and the whole vocabulary is in use."""
    assert all(len(scores) > K for scores in list(exact(DOCUMENTS, QUERIES).values())[:-1])
    assert {int(entry.split(":")[0]) for one in DOCUMENTS for entry in one.text.split()} == set(
        range(VOCABULARY)
    )
