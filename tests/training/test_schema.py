"""The JSON schema of recipes: it takes what the recipes hold, and refuses what `load_recipe` refuses."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from st_l0 import cli
from st_l0.training.recipe import Recipe, load_recipe
from st_l0.training.schema import json_schema

ROOM = Path(__file__).parents[2] / "training_recipes"
PATHS = sorted({*ROOM.rglob("*.yaml")} - {*ROOM.glob("accelerate/*"), *ROOM.glob("ablation/sweeps/*")})
SCHEMA = json_schema(Recipe)
TYPES = {
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
KEYWORDS = {
    *("$schema", "$defs", "$ref", "title", "description", "default"),
    *("type", "enum", "anyOf", "properties", "required", "additionalProperties", "items", "minItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}


def fits(value, schema):
    """Whether a value is valid: the keywords that the schema uses, as the draft defines them."""
    assert schema.keys() <= KEYWORDS
    if "$ref" in schema and not fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]):
        return False
    if "anyOf" in schema and not any(fits(value, one) for one in schema["anyOf"]):
        return False
    if "enum" in schema and not any(value == one and type(value) is type(one) for one in schema["enum"]):
        return False
    if "type" in schema:
        boolean = isinstance(value, bool) and schema["type"] != "boolean"
        if boolean or not isinstance(value, TYPES[schema["type"]]):
            return False
    if isinstance(value, dict) and "properties" in schema:
        if not set(schema.get("required", ())) <= value.keys() <= schema["properties"].keys():
            return False
        return all(fits(one, schema["properties"][key]) for key, one in value.items())
    if isinstance(value, list) and "items" in schema:
        return len(value) >= schema.get("minItems", 0) and all(fits(one, schema["items"]) for one in value)
    if isinstance(value, int | float):
        return (
            schema.get("minimum", value) <= value <= schema.get("maximum", value)
            and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
            and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        )
    return True


def as_an_editor_reads(value):
    """YAML 1.2, in which `2e-5` is a number; PyYAML takes it for text."""
    if isinstance(value, dict):
        return {key: as_an_editor_reads(one) for key, one in value.items()}
    number = isinstance(value, str) and re.fullmatch(r"\d+e-\d+", value)
    return float(value) if number else value


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOM)))
def test_every_recipe_fits_as_it_is_written_and_in_full(path):
    assert fits(as_an_editor_reads(yaml.safe_load(path.read_text(encoding="utf-8"))), SCHEMA)
    assert fits(yaml.safe_load(load_recipe(path).to_yaml()), SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"los": {}},
        {"output": None},
        {"seed": -1},
        {"seed": 2**32},
        {"seed": True},
        {"model": {}},
        {"model": {"base_model": "m", "dropout": 1}},
        {"model": {"base_model": "m", "activation": "gelu"}},
        {"model": {"base_model": "m", "max_seq_length": 7}},
        {"data": {"train": []}},
        {"data": {"train": [1]}},
        {"loss": {"document_regularizer_weight": -1}},
        {"loss": {"document_regularizer_weight": 1, "ranking": "kll"}},
        {"loss": {"document_regularizer_weight": 1, "ranking": {"kl": 0}}},
        {"teachers": {"models": "m", "weights": ["1"]}},
        {"training": {"max_stepss": 1}},
        {"training": {"max_steps": 1.5}},
        {"training": {"max_steps": 1, "lr_scheduler_type": "linaer"}},
        {"training": {"max_steps": 1, "save_total_limit": 0}},
        {"training": {"max_steps": 1, "seed": 1}},
    ],
)
def test_what_is_refused_does_not_fit(change):
    plain = yaml.safe_load(load_recipe("l0_mask").to_yaml())
    assert fits(plain, SCHEMA)
    assert not fits(plain | change, SCHEMA)


def test_keys_are_described_with_their_defaults_and_bounds():
    loss = SCHEMA["$defs"]["Loss"]
    assert loss["properties"]["temperature"] == {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "Scores are divided by it before the softmax (``infonce``, ``kl``).",
        "default": 1.0,
    }
    assert loss["required"] == ["document_regularizer_weight"]
    assert loss["properties"]["ranking"]["default"] == {"infonce": 1.0}
    assert SCHEMA["required"] == ["model", "data", "loss", "training", "output"]
    assert SCHEMA["properties"]["training"]["properties"]["weight_decay"]["minimum"] == 0
    for section in (SCHEMA, *SCHEMA["$defs"].values(), SCHEMA["properties"]["training"]):
        for name, known in section["properties"].items():
            assert known["description"], name


def test_the_command_prints_it():
    result = CliRunner().invoke(cli.app, ["recipes", "--schema"])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert printed == SCHEMA
