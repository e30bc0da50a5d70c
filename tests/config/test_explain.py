from __future__ import annotations

import json
from typing import Any

import pytest

from trimtab.config import Config, config_schema, explain, flatten
from trimtab.config.keys import keys
from trimtab.errors import ConfigError


def test_a_value() -> None:
    assert explain("training.steps") == (
        "training.steps\n  updates; a skipped one counts\n  takes: a whole number at least 1\n  default: 1000"
    )


def test_variants_apart() -> None:
    page = explain("optimizer.learning_rate")
    assert "with optimizer.name adamw, adamw_8bit or adam:" in page
    assert "default: 0.0003" in page
    assert "default: 0.001" in page
    assert "with schedule.name constant or warm_restarts:" in explain("schedule.warmup")


def test_the_name_of_a_variant() -> None:
    page = explain("schedule.name")
    assert "takes one of (default: cosine):" in page
    assert "wsd: Warm-up, full rate" in page
    assert explain("schedule").endswith(page.partition("\n")[2])


def test_a_value_that_must_be_given() -> None:
    assert "must be given" in explain("data.source.path")


@pytest.mark.parametrize("key", sorted(keys()))
def test_every_key(key: str) -> None:
    page = explain(key)
    assert page.startswith(f"{key}\n  ")
    assert "takes" in page


@pytest.mark.parametrize("key, meant", [("training.step", "training.steps"), ("lr", "optimizer.learning_rate")])
def test_unknown_key(key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        explain(key)


def accepts(schema: Any, value: Any, root: dict[str, Any]) -> bool:
    """The part of JSON Schema that the configuration's uses."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root)
    if "anyOf" in schema:
        return any(accepts(one, value, root) for one in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if schema["type"] != "object":
        types = {"integer": int, "number": (int, float), "string": str, "array": list, "boolean": bool}
        return value is None if schema["type"] == "null" else isinstance(value, types[schema["type"]])
    if not isinstance(value, dict) or not set(schema.get("required", ())) <= set(value):
        return False
    if schema.get("additionalProperties", True) is not False:
        return True
    return all(
        name in schema["properties"] and accepts(schema["properties"][name], one, root) for name, one in value.items()
    )


def test_schema_is_json_and_knows_every_key() -> None:
    schema = json.loads(json.dumps(config_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "trimtab configuration"
    assert "gpt2" in schema["properties"]["preset"]["enum"]
    assert accepts(schema, json.loads(json.dumps(Config().model_dump())), schema)
    assert len(flatten(Config())) > 70


@pytest.mark.parametrize(
    "value, good",
    [
        ({"preset": "gpt2", "schedule": {"warmup": 10}}, True),
        ({"schedule": {"name": "wsd", "decay": 0.1}}, True),
        ({"schedule": {"name": "cosine", "decay": 0.1}}, False),
        ({"optimizer": {"learning_raet": 1.0}}, False),
        ({"training": {"steps": "3"}}, False),
    ],
)
def test_schema_judges_files_as_the_loader_does(value: dict[str, Any], good: bool) -> None:
    schema = config_schema()
    assert accepts(schema, value, schema) == good
