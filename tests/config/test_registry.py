from __future__ import annotations

from collections.abc import Mapping

import pytest

from trimtab.config.keys import keys
from trimtab.config.registry import Spec, load_target
from trimtab.config.registry.averaging import AVERAGES
from trimtab.config.registry.data import SOURCES, TOKENIZERS
from trimtab.config.registry.model import MODELS
from trimtab.config.registry.objective import OBJECTIVES, TASKS
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.config.registry.procedures import PROCEDURES, SHARPNESS
from trimtab.config.registry.schedules import SCHEDULES
from trimtab.errors import ConfigError

TABLES: dict[str, Mapping[str, Spec]] = {
    "data.source": SOURCES,
    "data.tokenizer": TOKENIZERS,
    "model": MODELS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "task": TASKS,
    "averaging": AVERAGES,
    "procedure": PROCEDURES,
    "sharpness": SHARPNESS,
}


@pytest.mark.parametrize("path", TABLES)
def test_tables_and_choices_agree(path: str) -> None:
    (key,) = keys()[path]
    assert set(TABLES[path]) | {"custom", "none"} == set(key.sections) | {"custom", "none"}
    for spec in TABLES[path].values():
        assert spec.path.startswith("trimtab.")
        assert ":" in spec.path
        assert spec.description
        assert spec.source


def test_schedules_are_where_they_are_said_to_be() -> None:
    for spec in SCHEDULES.values():
        assert callable(load_target(spec.path, "schedule"))


def test_target_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"model\.target: cannot import 'nowhere_at_all'"):
        load_target("nowhere_at_all:thing", "model.target")
    with pytest.raises(ConfigError, match="module 'json' has no 'thing'"):
        load_target("json:thing", "model.target")
