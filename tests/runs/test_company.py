"""Other programs on the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from trimtab.runs.company import SPIN_COUNT, OtherPrograms, wait_briefly_in_company


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> OtherPrograms:
    """Others take all cores."""
    monkeypatch.setattr(OtherPrograms, "cores", lambda self: float(os.cpu_count() or 1))
    return OtherPrograms()


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"])
def test_what_the_user_set_stands(name: str, busy: OtherPrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    empty: dict[str, str] = {}
    assert wait_briefly_in_company(busy, empty)
    assert empty == {"GOMP_SPINCOUNT": SPIN_COUNT}
    given = {name: "7"}
    assert not wait_briefly_in_company(busy, given)
    assert given == {name: "7"}


def test_after_torch_it_is_too_late(busy: OtherPrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert not wait_briefly_in_company(busy, {})


def test_alone_it_spins(busy: OtherPrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(OtherPrograms, "cores", lambda self: 0.1)
    assert not wait_briefly_in_company(busy, {})


def test_openmp_hears_of_it() -> None:
    """GNU OpenMP itself says what it read when torch loaded it, for a trainer in Python."""
    code = (
        "import trimtab; from trimtab.runs.company import OtherPrograms; OtherPrograms.cores = lambda self: 1024.0; "
        "trimtab.Trainer"
    )
    variables = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch has another OpenMP here")
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in done.stderr


def test_a_busy_loop_is_noticed() -> None:
    loop = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        assert loop.stdout is not None
        loop.stdout.readline()
        others, mine = OtherPrograms(), psutil.Process().cpu_times().user
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and psutil.Process(loop.pid).cpu_times().user < 1:
            sum(range(10_000))  # one's own work does not count
        assert psutil.Process().cpu_times().user > mine
        assert others.cores() > 0.1
    finally:
        loop.kill()
        loop.communicate()


def test_the_warning_names_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    others = OtherPrograms()
    for taken, threads, warns in [(0.1, 4, False), (1.0, 4, True), (1.0, 3, False), (3.0, 2, True)]:
        monkeypatch.setattr(OtherPrograms, "cores", lambda self, taken=taken: taken)
        warning = others.warning(threads)
        assert (warning is not None) == warns
        assert warning is None or f"other programs take {taken} of its 4 cores" in warning
        if warning is not None:
            monkeypatch.setitem(sys.modules, "torch", sys)
            assert "GOMP_SPINCOUNT=1000" in str(others.warning(threads))
            with monkeypatch.context() as set_before:
                set_before.setenv("OMP_WAIT_POLICY", "PASSIVE")
                assert "GOMP_SPINCOUNT" not in str(others.warning(threads))
