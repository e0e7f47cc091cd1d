"""What `docker compose up` starts, as far as a machine without Docker can tell."""

from pathlib import Path

import yaml

from opensearch_server import VERSION

SERVICE = yaml.safe_load((Path(__file__).parents[1] / "docker-compose.yml").read_text(encoding="utf-8"))[
    "services"
]["opensearch"]


def test_it_is_the_version_of_the_tests():
    assert SERVICE["image"] == f"opensearchproject/opensearch:{VERSION}"  # with all plugins; -min has none


def test_without_security_nobody_else_reaches_it():
    assert SERVICE["environment"]["DISABLE_SECURITY_PLUGIN"] == "true"
    assert SERVICE["ports"] == ["127.0.0.1:9200:9200"]
    assert "network_mode" not in SERVICE


def test_values_are_of_the_kinds_that_compose_takes():
    assert all(isinstance(value, str) for value in SERVICE["environment"].values())
    assert SERVICE["environment"]["plugins.ml_commons.only_run_on_ml_node"] == "false"
    assert SERVICE["healthcheck"]["test"][0] == "CMD-SHELL"
    assert SERVICE["volumes"] == ["opensearch-data:/usr/share/opensearch/data"]
