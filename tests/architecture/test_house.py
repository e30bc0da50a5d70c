"""The house stands as docs/architecture.md draws it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import trimtab
from trimtab.config.registry import (
    averaging,
    control,
    data,
    load_target,
    model,
    objective,
    optimizer,
    procedures,
    schedules,
)

ROOT = Path(__file__).parents[2]
ROOMS = sorted(name for _, name, is_package in pkgutil.iter_modules(trimtab.__path__) if is_package)
WITHOUT_TORCH = ["errors", "config", "schedules", "events", "runs", "planning", "doctor", "report", "control", "cli"]
WITHOUT_TORCH += ["supervisor"]


@pytest.mark.skipif(
    not Path(sys.executable).with_name("lint-imports").exists(), reason="needs import-linter, of the extra dev"
)
def test_imports_point_down_and_light_rooms_stay_light() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_and_lists_its_names(room: str) -> None:
    module = importlib.import_module(f"trimtab.{room}")
    assert module.__doc__, f"{room} has no sentence"
    assert module.__doc__.strip().endswith("."), f"the sentence of {room} does not end"
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name), f"trimtab.{room} lists {name}, which it does not have"
    assert sorted(getattr(module, "__all__", ())) == sorted(set(getattr(module, "__all__", ())))


def test_importing_trimtab_and_its_light_rooms_does_not_import_torch() -> None:
    code = f"import sys, trimtab; {'; '.join(f'import trimtab.{room}' for room in WITHOUT_TORCH)}; "
    code += "assert not {'torch', 'tokenizers', 'safetensors', 'scipy'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_load() -> None:
    for name in trimtab.__all__:
        assert getattr(trimtab, name) is not None
    with pytest.raises(AttributeError, match="LanguageModelTrainer"):
        _ = trimtab.LanguageModelTrainr  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "table",
    [model.MODELS, optimizer.OPTIMIZERS, schedules.SCHEDULES, data.SOURCES, data.TOKENIZERS, objective.TASKS,
     objective.OBJECTIVES, control.CONTROLLERS, averaging.AVERAGES,
     procedures.PROCEDURES, procedures.SHARPNESS, procedures.EMBEDDING_TRANSFORMS],
)  # fmt: skip
def test_every_card_names_a_part_that_is_there(table: dict[str, object]) -> None:
    for name, spec in table.items():
        assert load_target(spec.path, name) is not None  # type: ignore[attr-defined]
        assert spec.description  # type: ignore[attr-defined]
        assert spec.source  # type: ignore[attr-defined]


def test_no_junk_drawers_and_no_open_ends() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert path.stem not in {"utils", "common", "core", "helpers", "misc"}, path
        text = path.read_text()
        assert "TODO" not in text, path
        assert "NotImplementedError" not in text, path


def test_every_public_class_and_function_says_what_it_gives() -> None:
    silent = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
            if public and ast.get_docstring(node) is None:
                silent.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert not silent, silent


def test_the_loop_is_one_file_that_a_reader_takes_in_whole() -> None:
    assert len((ROOT / "src/trimtab/training/loop.py").read_text().splitlines()) <= 330
