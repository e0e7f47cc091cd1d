"""Encrypted connections and who asks, through a real TLS terminator in front of a real server."""

import logging
import pickle
import shutil
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from st_l0.errors import InputError
from st_l0.index import open_index
from tls_proxy import basic, make_certificate, tls_proxy

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
SECRET = "hunter2-tops3cret"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def target(opensearch, opensearch_target, certificate, monkeypatch):
    """The address of an index behind the proxy, which knows one user and one key."""
    for name in ("USERNAME", "PASSWORD", "API_KEY", "AWS_SERVICE"):
        monkeypatch.delenv(f"OPENSEARCH_{name}", raising=False)
    known = {basic("admin", SECRET), f"ApiKey {SECRET}"}
    with tls_proxy(
        opensearch, *certificate, lambda _, __, headers, ___: headers["Authorization"] in known
    ) as port:
        yield f"opensearch://127.0.0.1:{port}/{opensearch_target.rpartition('/')[2]}"


@pytest.fixture
def trusted(monkeypatch, certificate):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))


def sign_in(monkeypatch, kind):
    if kind == "key":
        monkeypatch.setenv("OPENSEARCH_API_KEY", SECRET)
    else:
        monkeypatch.setenv("OPENSEARCH_USERNAME", "admin")
        monkeypatch.setenv("OPENSEARCH_PASSWORD", SECRET)


def test_a_certificate_of_nobody_known_is_refused(target, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    sign_in(monkeypatch, "password")
    with pytest.raises(InputError, match="SSL_CERT_FILE") as caught:
        open_index(target)
    assert "certificate" in str(caught.value).lower() and "\n" not in str(caught.value)


def test_a_certificate_of_another_host_is_refused(target, trusted, monkeypatch):
    sign_in(monkeypatch, "password")
    with pytest.raises(InputError, match="no encrypted connection"):
        open_index(target.replace("127.0.0.1", "localhost"))


@pytest.mark.parametrize("key", [f"{SECRET}\n", f"{SECRET}\r\nX: y", f"{SECRET}é"])
def test_a_key_that_is_no_header_is_not_shown(target, trusted, monkeypatch, key):
    monkeypatch.setenv("OPENSEARCH_API_KEY", key)
    with pytest.raises(InputError, match="OPENSEARCH_API_KEY") as caught:
        open_index(target)
    assert SECRET not in str(caught.value)


def test_a_server_without_tls_is_told_apart(opensearch_target):
    with pytest.raises(InputError, match="opensearch\\+http"):
        open_index(opensearch_target.replace("+http", ""))


@pytest.mark.parametrize("kind", ["password", "key"])
def test_who_is_known_may_search_and_leaves_no_trace(
    target, trusted, monkeypatch, caplog, capfd, opensearch, kind
):
    sign_in(monkeypatch, kind)
    with caplog.at_level(logging.DEBUG):
        index = open_index(target, metadata={"model": "m"})
        index.add(["a"], np.array([[1.0, 2.0]], np.float32), ["A"])
        index.refresh()
        copy = pickle.loads(pickle.dumps(index))
        assert [list(hits) for hits in copy.search(np.array([[1.0, 0.0]]))] == [[("a", 1.0, "A")]]
        with pytest.raises(InputError) as caught:
            index.add(["a"], np.array([[1.0, 2.0]], np.float32))
    with urllib.request.urlopen(f"{opensearch}/{index.name}") as answer:
        stored = answer.read().decode()
    shown = [repr(index), str(index.address), str(caught.value), caplog.text, stored, *capfd.readouterr()]
    encoded = basic("admin", SECRET).partition(" ")[2]
    for secret in (SECRET, encoded):
        assert not any(secret in text for text in shown)
        assert secret.encode() not in pickle.dumps(index)


def test_who_is_not_known_is_told_where_to_say_it(target, trusted, monkeypatch, caplog):
    with pytest.raises(InputError, match="OPENSEARCH_PASSWORD"):
        open_index(target)
    monkeypatch.setenv("OPENSEARCH_API_KEY", f"{SECRET}-wrong")
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError, match="does not know who asks") as caught:
        open_index(target)
    assert SECRET not in str(caught.value) and SECRET not in caplog.text


def test_the_command_line_shows_no_secret(target, trusted, monkeypatch):
    monkeypatch.setenv("OPENSEARCH_API_KEY", f"{SECRET}-wrong")
    command = [sys.executable, "-m", "st_l0", "--debug", "search", target, "rain"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "does not know who asks" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_aws_signs_each_request(opensearch, opensearch_target, certificate, trusted, monkeypatch):
    pytest.importorskip("botocore")
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    for name, value in (
        ("ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("SECRET_ACCESS_KEY", SECRET),
        ("DEFAULT_REGION", "eu-west-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("OPENSEARCH_AWS_SERVICE", "es")
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", SECRET), "es", "eu-west-1")

    def signed(method, path, headers, body):
        """Compute the signature anew, from what arrived."""
        found = headers["Authorization"] or ""
        names = found.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        request = AWSRequest(
            method, f"https://{headers['Host']}{path}", {name: headers[name] for name in names}, body
        )
        request.context["timestamp"] = headers["X-Amz-Date"]
        canonical = signer.canonical_request(request)
        expected = signer.signature(signer.string_to_sign(request, canonical), request)
        return bool(names[0]) and found.endswith(f"Signature={expected}")

    with tls_proxy(opensearch, *certificate, signed) as port:
        target = f"opensearch://127.0.0.1:{port}/{opensearch_target.rpartition('/')[2]}"
        index = open_index(target)
        index.add(["a"], np.array([[1.0, 2.0]], np.float32))
        assert [hits.ids.tolist() for hits in index.search(np.array([[1.0, 0.0]]))] == [["a"]]
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        with pytest.raises(InputError, match="does not know who asks"):
            open_index(target)
