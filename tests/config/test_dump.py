from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from trimtab.config import (
    AlertRule,
    Config,
    Section,
    TrainingConfig,
    dump_config,
    effective,
    list_presets,
    load_config,
    load_with_origin,
)
from trimtab.config.base import Span
from trimtab.config.dump import yaml_value
from trimtab.config.effect import idle_keys
from trimtab.config.fit import FITS
from trimtab.config.keys import Key, keys, listed_keys
from trimtab.config.read import read_value
from trimtab.config.registry.optimizer import OPTIMIZERS

TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a field's JSON Schema lets through."""
    if "anyOf" in schema:
        return st.one_of([values(one) for one in schema["anyOf"]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    match schema["type"]:
        case "integer":
            return st.integers(low, high - ("exclusiveMaximum" in schema) if high is not None else None)
        case "number":
            open_ends = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
            return st.floats(low, high, allow_nan=False, allow_infinity=False, **open_ends)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            items = schema["items"]
            several = TEXT if items.get("type") == "string" and "enum" not in items else values(items)
            return st.lists(several, min_size=schema.get("minItems", 0), max_size=3, unique="enum" in items)
        case "object" if "type" in (inner := schema.get("additionalProperties") or {}):
            return st.dictionaries(st.text(max_size=5), values(inner), max_size=3)
        case "object":
            return st.dictionaries(st.text(max_size=5), JSON, max_size=3)
        case _ if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True)
        case _:
            return st.text(min_size=schema.get("minLength", 0), max_size=12)


@cache
def properties(section: type[Section]) -> dict[str, Any]:
    found: dict[str, Any] = section.model_json_schema()["properties"]
    return found


@cache
def key_of(section: type[Section], name: str) -> Key:
    everywhere = [*keys().values(), *listed_keys().values()]
    return next(one for several in everywhere for one in several if (one.owner, one.name) == (section, name))


@st.composite
def sections(draw: st.DrawFn, section: type[Section]) -> dict[str, Any]:
    """A section with some of its keys, all of those that must be given."""
    tree: dict[str, Any] = {}
    if section is AlertRule:
        when = draw(st.sampled_from(["train/loss > 3 for 2 steps", "finding overfitting", "end any"]))
        to = draw(st.lists(st.sampled_from(["console", "file"]), min_size=1, max_size=2))
        return {"when": when, "to": to, "every_minutes": draw(st.floats(0.0, 1e6))}
    for name, field in section.model_fields.items():
        key = key_of(section, name)
        if key.entries:
            if draw(st.booleans()):
                entry = st.sampled_from(list(key.entries.values())).flatmap(sections)
                if key.is_list:
                    tree[name] = draw(st.lists(entry, max_size=2, unique_by=lambda one: one["name"]))
                    continue
                names = (
                    st.from_regex(r"[a-z][a-z0-9_.-]{0,4}", fullmatch=True)
                    if "" in key.entries
                    else st.text(max_size=5)
                )
                tree[name] = draw(st.dictionaries(names, entry, max_size=2))
        elif not key.sections:
            is_tag = get_origin(field.annotation) is Literal and name == "name"
            if is_tag:
                tree[name] = get_args(field.annotation)[0]
            elif field.is_required() or draw(st.booleans()):
                tree[name] = draw(values(properties(section)[name]))
        elif field.is_required() or draw(st.booleans()):
            tree[name] = draw(sections(draw(st.sampled_from(list(key.sections.values())))))
    if tree.get("name") in ("decoder", "encoder", "encoder_decoder"):
        tree["num_heads"] = draw(st.integers(1, 32))
        tree["hidden_size"] = tree["num_heads"] * 2 * draw(st.integers(1, 64))
        tree["num_kv_heads"] = draw(st.sampled_from([None, 1, tree["num_heads"]]))
        tree.pop("max_positions", None)
    if section is TrainingConfig:
        # Any other would hardly ever be whole micro-batches.
        tree.pop("batch_size", None)
        tree["micro_batch_size"] = draw(st.integers(1, 64))
        if draw(st.booleans()):
            tree["batch_size"] = tree["micro_batch_size"] * draw(st.integers(1, 64))
            tree["micro_batch_size"] = draw(st.sampled_from([tree["micro_batch_size"], "auto"]))
        if tree.get("precision", {}).get("name") == "tf32":
            tree["device"] = "cuda"
        tree.get("quantize", {}).pop("start", None)
    if section is Config and tree.get("batch_control", {}).get("name") == "noise_scale":
        tree["logging"] = {**tree.get("logging", {}), "noise_scale": {"every": 3}}
        tree["training"] = {**tree.get("training", {}), "micro_batch_size": 3, "accumulation": 2, "batch_size": None}
    for parts in ("levels", "factors"):
        if parts in section.model_fields and "lengths" in section.model_fields:
            tree[parts] = draw(st.lists(values(properties(section)[parts]["items"]), min_size=1, max_size=3))
            tree["lengths"] = draw(st.lists(st.integers(1, 9) | st.floats(0.1, 1), min_size=2, max_size=2))
            tree["lengths"] = tree["lengths"][: len(tree[parts]) - 1]
    if tree.get("name") == "gap":
        tree["low"], tree["high"] = -1.0, draw(st.floats(0.0, 1.0))
        tree["highest"] = draw(st.floats(1.1, 3.0))
        tree.pop("settings", None)
    if tree.get("name") in OPTIMIZERS and "decay" in tree and not OPTIMIZERS[tree["name"]].decouples:
        tree["decay"].pop("target", None)
    if section is Config:
        fit_together(tree)
    return tree


def fit_together(tree: dict[str, Any]) -> None:
    """Take out of a whole configuration what does not go with its task, so that most trees are valid."""
    task = tree.get("task", {"name": "causal_lm"})
    fit = FITS["multi_label" if task["name"] == "classification" and task.get("multi_label") else task["name"]]
    for name, fitting, default in (("model", fit.models, "decoder"), ("objective", fit.objectives, "cross_entropy")):
        if tree.get(name, {}).get("name", default) not in fitting:
            tree[name] = {"name": fitting[0]}
    if not any(tree.get("model", {}).get("dropout", {}).values()):
        tree.pop("dropout_schedule", None)
    if tree.get("batch_control", {}).get("name") == "noise_scale":
        tree["training"].pop("accumulation_schedule", None)
    switch, averaging = tree.get("optimizer_switch"), tree.get("averaging", {})
    if "start" in averaging:
        averaging["start"] = 0.5
    if averaging.get("evaluate") == "average":
        averaging["evaluate"] = "both"
    if switch is not None:
        switch["at"] = 0.5
    if "schedule_free_adamw" in (tree.get("optimizer", {}).get("name"), (switch or {}).get("to", {}).get("name")):
        tree.pop("optimizer_switch", None)
        tree.pop("averaging", None)
    model = tree.get("model", {})
    if not model.get("freeze") or switch is not None or averaging or model.get("lora"):
        model.pop("unfreeze", None)
    if model.get("lora"):
        model.pop("freeze", None)


# Trees that do not fit together in other ways are left out.
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(tree=sections(Config))
def test_round_trip(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        config = Config.model_validate(tree)
    except ValidationError:
        assume(False)
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(dump_config(config), "utf-8")
    again = load_config(path, environment={})
    before, after = effective(config), effective(again)
    assert after == before
    assert {key: type(value) for key, value in after.items()} == {key: type(v) for key, v in before.items()}


@pytest.mark.parametrize("name", list_presets())
def test_presets_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name, environment={})
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), "utf-8")
    loaded = load_with_origin(path, environment={})
    assert loaded.config == config
    left_out = {key for key, origin in loaded.origins.items() if origin == "default"}
    assert left_out == set(idle_keys(config))


@pytest.mark.parametrize(
    "tree",
    [
        {"logging": {"capture": {"layers": ["*"], "values": 9}, "examine": {"every": 5000}}, "training": {"steps": 20}},
    ],
)
def test_what_went_astray_once(tree: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(Config.model_validate(tree)), "utf-8")
    assert effective(load_config(path, environment={})) == effective(Config.model_validate(tree))


def test_a_span_has_digits_of_ascii() -> None:
    with pytest.raises(ValidationError, match="must be a number of steps"):
        TypeAdapter(Span).validate_python("\u06f5 steps")


def test_every_key_is_described() -> None:
    text = dump_config(Config())
    for line in text.splitlines():
        if not line.rstrip().endswith(":"):
            assert "# " in line, line
    assert all(key.description for several in keys().values() for key in several)


@given(JSON)
def test_values_round_trip(value: Any) -> None:
    layer, problems = read_value(("a",), f"[{yaml_value(value)}]", "here")
    assert not problems
    assert layer["a",].value == [value]


def test_values_that_are_not_finite() -> None:
    assert [yaml_value(value) for value in (math.inf, -math.inf, math.nan)] == [".inf", "-.inf", ".nan"]
    layer, _ = read_value(("a",), "[.inf, -.inf]", "here")
    assert layer["a",].value == [math.inf, -math.inf]


def test_words_that_other_readers_take_for_something_else_are_quoted() -> None:
    assert yaml_value("off") == '"off"'
    assert yaml_value("Null") == '"Null"'
    assert yaml_value("1e-4") == '"1e-4"'
    assert yaml_value("validation/loss") == "validation/loss"
