"""Addresses of indices on OpenSearch, and who asks: what is refused before anything is sent."""

import pytest

from st_l0.errors import InputError
from st_l0.index import check_target, open_index
from st_l0.index.opensearch.address import Address, as_filter
from st_l0.index.opensearch.server import Server

CREDENTIALS = ("USERNAME", "PASSWORD", "API_KEY", "AWS_SERVICE")


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    for name in CREDENTIALS:
        monkeypatch.delenv(f"OPENSEARCH_{name}", raising=False)


@pytest.mark.parametrize(
    ("target", "hosts", "tls"),
    [
        ("opensearch://search.example.org/papers", (("search.example.org", 9200),), True),
        ("opensearch://a:443,b:9201/papers", (("a", 443), ("b", 9201)), True),
        ("opensearch+http://[::1]:9200/papers", (("::1", 9200),), False),
        ("opensearch+http://127.0.0.1:19200/papers?shards=3&replicas=0", (("127.0.0.1", 19200),), False),
    ],
)
def test_an_address_in_parts(target, hosts, tls):
    address = Address.parse(target)
    assert (address.hosts, address.tls, address.name) == (hosts, tls, "papers")
    assert Address.parse(str(address)).hosts == hosts


def test_the_settings_of_an_address():
    address = Address.parse("opensearch://a/x?shards=3&replicas=0&timeout=5&vectors=sparse_vector")
    assert (address.shards, address.replicas, address.timeout) == (3, 0, 5)
    assert address.vectors == "sparse_vector"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "*",
            "a*",
            "a,b",
            "_all",
            "-a",
            ".hidden",
            "..",
            "a..b",
            "<a-{now/d}>",
            "A",
            "a/b",
            "a/_search",
            "é",
        ),
        *("%2e", "a b", "a#b", "a:b", "+a", "a\n", "x" * 201, "a\\b", "a|b", '"a"', "?shards=1"),
    ],
)
@pytest.mark.parametrize("call", [open_index, check_target])
def test_a_name_that_could_mean_another_index_is_refused(name, call):
    with pytest.raises(InputError) as caught:
        call(f"opensearch+http://127.0.0.1:1/{name}")
    assert "\n" not in str(caught.value)
    assert "no name of an index" in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        *("opensearch://", "opensearch:///papers", "opensearch://:9200/papers", "opensearch://a:b/papers"),
        *("opensearch://a:99999/papers", "opensearch://a,,b/papers", "opensearch://a b/papers"),
        *(
            "opensearch://a/papers?shards=0",
            "opensearch://a/papers?shards=x",
            "opensearch://a/papers?replicas=-1",
        ),
        *(
            "opensearch://a/papers?vectors=dense",
            "opensearch://a/papers?shards=1&shards=2",
            "opensearch:/a/papers",
        ),
        *("opensearch+https://a/papers", "elasticsearch://a/papers", "opensearch+ftp://a/papers"),
    ],
)
def test_what_is_no_address_is_refused(target):
    with pytest.raises(InputError) as caught:
        open_index(target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "opensearch://admin:hunter2@a/papers",
        "opensearch://hunter2@a/papers",
        "opensearch://a/papers?user=admin:hunter2@a",
        "opensearch://a/papers?api_key=hunter2",
        "opensearch://a/papers?password=hunter2",
    ],
)
@pytest.mark.parametrize("call", [open_index, check_target])
def test_a_password_in_an_address_is_refused_and_not_repeated(target, call):
    with pytest.raises(InputError) as caught:
        call(target)
    assert "hunter2" not in str(caught.value)
    assert "environment" in str(caught.value) or "OPENSEARCH_PASSWORD" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"USERNAME": "admin"}, "go together"),
        ({"PASSWORD": "hunter2"}, "go together"),
        ({"USERNAME": "admin", "PASSWORD": "hunter2", "API_KEY": "hunter2"}, "several"),
        ({"API_KEY": "hunter2"}, "plain HTTP"),
        ({"USERNAME": "admin", "PASSWORD": "hunter2"}, "plain HTTP"),
        ({"AWS_SERVICE": "hunter2"}, "plain HTTP"),
    ],
)
def test_credentials_that_do_not_fit_are_refused(monkeypatch, given, message):
    for name, value in given.items():
        monkeypatch.setenv(f"OPENSEARCH_{name}", value)
    with pytest.raises(InputError, match=message) as caught:
        Server.connect(Address.parse("opensearch+http://search.example.org/papers"))
    assert "hunter2" not in str(caught.value)


def test_who_is_not_there_is_a_wrong_address():
    with pytest.raises(InputError, match="is this the address"):
        open_index("opensearch+http://127.0.0.1:1/papers")


def test_a_filter_becomes_clauses():
    assert as_filter({"lang": "en", "meta.year": ["2020", "2021"]}) == [
        {"terms": {"fields.lang": ["en"]}},
        {"terms": {"fields.meta.year": ["2020", "2021"]}},
    ]


@pytest.mark.parametrize(
    "given", [[], {"a*": "x"}, {"": "x"}, {"a..b": "x"}, {".a": "x"}, {"a": 1}, {"a": [None]}, {1: "x"}]
)
def test_what_is_no_filter_is_refused(given):
    with pytest.raises(InputError):
        as_filter(given)
