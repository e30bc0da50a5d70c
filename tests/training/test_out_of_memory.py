"""What happens where memory runs out all the same: in a step, in an update, in an evaluation."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bounded import Bounded, module_of, plan_of, trainer_of
from torch import Tensor

from trimtab.errors import ResourceError
from trimtab.events import Event, RunStarted, StepsEnded
from trimtab.optimizer import Curvature
from trimtab.runs import read_record


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_out_of_memory_halves_the_micro_batch_and_the_same_step_is_tried_again(tmp_path: Path) -> None:
    small = trainer_of(
        tmp_path, "small", {"training.micro_batch_size": 2, "training.accumulation": 4}, model=module_of(2)
    )
    small.fit()
    full = trainer_of(tmp_path, "full", {}, model=module_of(2))
    result = full.fit()
    assert result.status == "finished"
    assert [d.decision.value for d in full.remembers.splits()] == [4.0, 2.0]
    assert full.remembers.losses() == small.remembers.losses(), "from the first step on it is the smaller split's run"
    for a, b in zip(small.model.parameters(), full.model.parameters(), strict=True):
        assert torch.equal(a, b)
    lines = [line for line in read_record(tmp_path / "full/record.jsonl") if line["event"] == "DecisionTaken"]
    assert [line["controller"] for line in lines if line["decision"]["kind"] == "Adjust"] == ["memory", "memory"]
    assert lines[0]["decision"]["reason"] == (
        "out of memory at step 1 with micro-batches of 8: CUDA out of memory. Tried to allocate 1.00 GiB."
    )
    assert lines[0]["note"] == "accumulation is 2 now"
    assert plan_of(tmp_path, "full")["chosen"] == 2


class InAnyMode(Bounded):
    """Too much in evaluation, too, as where activations of one layer do not fit."""

    def forward(self, tokens_BT: Tensor) -> Tensor:
        if tokens_BT.shape[0] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return super().forward(tokens_BT)


def test_looking_at_the_first_micro_batch_does_not_end_what_halving_saves(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "run", {"evaluation.batch_size": 1}, model=InAnyMode(2, 257))
    assert trainer.fit().status == "finished"
    assert [d.decision.value for d in trainer.remembers.splits()] == [4.0, 2.0]


def test_in_the_middle_of_a_run_too_and_a_resume_goes_on_so(tmp_path: Path) -> None:
    plain = trainer_of(tmp_path, "plain", {}, model=module_of(8))
    plain.fit()
    every = {"logging.every": 1}
    late = trainer_of(tmp_path, "late", every, stop_at=5, model=module_of(4, from_call=4))
    with pytest.raises(KeyboardInterrupt):
        late.fit()
    (split,) = late.remembers.splits()
    assert (split.step, split.decision.value) == (4, 4.0)
    again = trainer_of(tmp_path, "late", every, model=module_of(4))
    again.fit()
    assert again.remembers.splits() == [], "plan.json has the smaller micro-batch"
    tokens = [e.per_step["tokens"] for e in again.remembers.events if isinstance(e, StepsEnded)]
    assert set(np.concatenate(tokens)) == {128.0}
    expected = plain.remembers.losses()
    assert late.remembers.losses() == pytest.approx(expected[:5], rel=2e-5)
    assert again.remembers.losses() == pytest.approx(expected[3:], rel=2e-5)


def test_an_odd_micro_batch_falls_to_its_largest_divisor(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "run", {"training.micro_batch_size": 9}, model=module_of(4))
    trainer.fit()
    assert [d.decision.value for d in trainer.remembers.splits()] == [3.0]
    assert plan_of(tmp_path, "run")["accumulation"] == 3


def test_one_sequence_that_does_not_fit_ends_the_run_and_says_which(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "run", {"training.micro_batch_size": 2}, model=module_of(0, from_call=3))
    with pytest.raises(
        ResourceError, match=r"out of memory at step 4, one sequence at a time: 2 micro-batches"
    ) as caught:
        trainer.fit()
    assert caught.value.exit_code == 7
    assert "1 × 16 tokens, samples " in str(caught.value)
    assert "from position 6 on" in str(caught.value)
    assert "lower data.sequence_length" in str(caught.value.hint)
    last = read_record(tmp_path / "run/record.jsonl")[-1]
    assert (last["event"], last["status"]) == ("RunEnded", "failed")


def test_an_estimate_of_the_curvature_is_not_taken_twice(tmp_path: Path) -> None:
    """Sophia's first step: a pass for the estimate, one that fails, and two halves; the estimate stands."""
    module = module_of(4, from_call=1)
    changes = {"training.steps": 1, "optimizer": {"name": "sophia"}}
    trainer = trainer_of(tmp_path, "run", changes, model=module)
    trainer.fit()
    assert [d.decision.value for d in trainer.remembers.splits()] == [4.0]
    assert module.calls == 1 + 1 + 2


@pytest.mark.parametrize("batch,hint", [(8, "lower evaluation.batch_size, which is 8 here"), (1, "a smaller model")])
def test_in_an_evaluation_the_hint_can_be_followed(tmp_path: Path, batch: int, hint: str) -> None:
    class Judged(Bounded):
        has_begun = False

        def forward(self, tokens_BT: Tensor) -> Tensor:
            if self.has_begun and not self.training:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
            return super().forward(tokens_BT)

    class Begins:
        def observe(self, event: Event) -> None:
            Judged.has_begun = Judged.has_begun or isinstance(event, RunStarted)

    auto = {"training.batch_size": 8, "training.micro_batch_size": "auto", "evaluation.batch_size": batch}
    with pytest.raises(ResourceError, match=f"in the evaluation after step 3, {batch} × ") as caught:
        trainer_of(tmp_path, "run", auto, model=Judged(8, 257), watch=(Begins(),)).fit()
    assert hint in str(caught.value.hint)


def test_where_an_estimate_of_the_curvature_does_not_fit_it_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Curvature, scale: Tensor, count: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    monkeypatch.setattr(Curvature, "take", full)
    with pytest.raises(ResourceError, match="at step 1, where the estimate of the curvature is kept") as caught:
        trainer_of(tmp_path, "run", {"optimizer": {"name": "sophia"}}, model=module_of(8)).fit()
    assert "Weights and state are as before the step" in str(caught.value)


def test_in_the_update_the_step_is_not_tried_again(tmp_path: Path) -> None:
    class Full(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    make = {"make_optimizer": lambda groups: Full(groups, lr=0.1)}
    told = r"in the update of step 1, after its gradient was complete, on \d+ micro-batches of \d+ × 16 tokens, samples"
    with pytest.raises(ResourceError, match=told):
        trainer_of(tmp_path, "run", {}, model=module_of(8), **make).fit()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the bound is Linux's")
def test_a_real_allocation_that_fails(tmp_path: Path) -> None:
    """The address space is bounded when the run begins: the CPU's allocator fails, and the run goes on smaller."""
    script = f"""
        import resource, sys, psutil
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "numerics")]!r}
        from pathlib import Path
        from trimtab.events import DecisionTaken, RunStarted
        import bounded as t

        class Bounds:
            def observe(self, event):
                if isinstance(event, RunStarted):
                    most = psutil.Process().memory_info().vms + 300_000_000
                    resource.setrlimit(resource.RLIMIT_AS, (most, most))
                if isinstance(event, DecisionTaken):
                    print(event.decision.value, event.decision.reason)

        module = t.Hungry()
        module.embedding, module.head = t.nn.Embedding(257, 8), t.nn.Linear(8, 257)
        changes = {{"training.micro_batch_size": 16, "training.steps": 2, "evaluation.batch_size": 1}}
        trainer = t.trainer_of(Path({str(tmp_path)!r}), "run", changes, model=module, watch=(Bounds(),))
        print(trainer.fit().status)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        # Threads would take address space for heaps of their own, more of it or less.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, *_, last = done.stdout.strip().splitlines()
    assert first.startswith("8.0 out of memory at step 1 with micro-batches of 16: ")
    assert last == "finished"
    assert plan_of(tmp_path, "run")["chosen"] in (8, 4)
