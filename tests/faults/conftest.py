"""A folder, a cache, and a run that nobody disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import Cli


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(tmp_path: Path, cache: Path) -> Cli:
    return Cli(tmp_path, cache)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, str]:
    """A run that nobody disturbed, and what it printed."""
    cli = Cli(tmp_path_factory.mktemp("whole"), cache)
    run = cli.folder / "run"
    return run, cli.train(run)


@pytest.fixture(scope="session")
def rolled_back(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run that went back once, and that nobody disturbed."""
    cli = Cli(tmp_path_factory.mktemp("rolled_back"), cache)
    run = cli.folder / "run"
    done = cli.script("rolls_back.py", run)
    assert done.returncode == 0, done.stderr
    return run
