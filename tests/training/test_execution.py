"""Choices made by measuring leave the run as it was, and are kept."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import pytest
import torch
from tiny_step import make_batch, make_step

from trimtab.config import TrainingConfig, load_config
from trimtab.errors import ConfigError, ResourceError
from trimtab.training import Step, execution
from trimtab.training.attention import choose_packing
from trimtab.training.execution import (
    choose_compile,
    choose_device,
    keep_freed_memory,
    set_threads,
)
from trimtab.training.memory import out_of_memory_explained


def _state(step: Step) -> list[torch.Tensor]:
    slots = [t for slots in step.optimizer.state_by_name().values() for t in slots.values()]
    return [t.clone() for t in [*step.optimizer.storage.weights.values(), *slots]]


def test_a_short_run_is_not_compiled_and_says_why() -> None:
    step = make_step()
    before = _state(step)
    choice = choose_compile(TrainingConfig(steps=10), step, make_batch(2, 0), True, None, accumulation=1)
    assert choice["chosen"] is False
    assert choice["eager_seconds"] > 0
    assert "tried from 600 s on" in choice["reason"]
    assert all(torch.equal(a, b) for a, b in zip(before, _state(step), strict=True))


def test_what_does_not_repeat_bit_for_bit_is_not_taken_where_that_is_asked() -> None:
    flash = {"training": {"deterministic": True, "attention": "flash"}}
    assert load_config(flash, environment={}).training.deterministic
    with pytest.raises(ConfigError, match=r"attention cudnn does not repeat"):
        load_config(flash, ["training.attention=cudnn"], environment={})
    choice = choose_packing(
        TrainingConfig(deterministic=True), make_step().model, torch.device("cuda"), {"chosen": "cudnn"}
    )
    assert choice == {"chosen": "apart", "reason": "cuDNN's kernels do not repeat bit for bit"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_long_run_is_measured_compiled_and_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(execution._COMPILE_PAYS_AFTER_SECONDS, "cpu", 0.0)
    monkeypatch.setattr(execution, "_COMPILE_GAIN", 1e9)
    step, plain = make_step(), make_step()
    choice = choose_compile(TrainingConfig(steps=10), step, make_batch(2, 0), True, None, accumulation=1)
    assert choice["chosen"] is True, choice
    assert choice["compiled_seconds"] > 0
    for number in range(1, 4):
        step.run([make_batch(2, number)], number)
        plain.run([make_batch(2, number)], number)
    for a, b in zip(_state(step), _state(plain), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    kept = choose_compile(TrainingConfig(steps=10), make_step(), make_batch(2, 0), True, choice, accumulation=1)
    assert kept == choice


def test_what_is_slower_compiled_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(execution._COMPILE_PAYS_AFTER_SECONDS, "cpu", 0.0)
    monkeypatch.setattr(execution, "_compile", lambda model, scope: None)
    monkeypatch.setattr(execution, "_COMPILE_GAIN", 0.0)
    step = make_step()
    choice = choose_compile(TrainingConfig(steps=10), step, make_batch(2, 0), True, None, accumulation=1)
    assert choice["chosen"] is False
    assert "measured" in choice["reason"]


def test_a_compiler_that_fails_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: object, scope: str) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setitem(execution._COMPILE_PAYS_AFTER_SECONDS, "cpu", 0.0)
    monkeypatch.setattr(execution, "_compile", broken)
    choice = choose_compile(TrainingConfig(steps=10), make_step(), make_batch(2, 0), True, None, accumulation=1)
    assert choice["chosen"] is False
    assert "no compiler here" in choice["reason"]


def test_off_and_foreign() -> None:
    assert not choose_compile(TrainingConfig(compile="off"), make_step(), make_batch(1, 0), True, None, accumulation=1)[
        "chosen"
    ]
    assert not choose_compile(TrainingConfig(), make_step(), make_batch(1, 0), False, None, accumulation=1)["chosen"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_that_is_not_there_is_refused() -> None:
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no CUDA device"):
        choose_device("cuda")


def test_threads_and_allocator() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == 1
        assert set_threads(0) == 1
    finally:
        torch.set_num_threads(before)
    assert keep_freed_memory() == sys.platform.startswith("linux")


def test_only_running_out_of_memory_is_explained_as_that() -> None:
    on_the_host = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    for error in (
        MemoryError(),
        on_the_host,
        torch.OutOfMemoryError("x"),
    ):
        with pytest.raises(ResourceError, match="out of memory"), out_of_memory_explained():
            raise error
    with pytest.raises(torch.linalg.LinAlgError), out_of_memory_explained():
        torch.linalg.cholesky(-torch.eye(2))
    for other in (NotImplementedError("no kernel"), RecursionError("deep"), RuntimeError("shapes differ")):
        with pytest.raises(type(other)), out_of_memory_explained():
            raise other


def test_an_evaluation_that_does_not_fit_says_so() -> None:
    from trimtab.training.judging import evaluated

    class Judges:
        batch_size = 32
        task = type("Task", (), {"name": "causal_lm"})
        data = type("Data", (), {"validation": type("Texts", (), {"sequence_length": 2048})})

        def __call__(self, step: int) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    judges: Any = Judges()
    with pytest.raises(ResourceError, match=r"in the evaluation after step 1,200, 32 × up to 2,048 tokens") as caught:
        evaluated(judges, 1200)
    assert "lower evaluation.batch_size, which is 32 here" in str(caught.value)
