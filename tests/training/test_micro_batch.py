"""The largest micro-batch that fits, and what happens where it does not fit after all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_step import VOCABULARY, make_batch, make_step
from torch import Tensor, nn

from trimtab import LanguageModelTrainer, Trainer, load_config
from trimtab.errors import ConfigError, ResourceError
from trimtab.events import DecisionTaken, Event, StepsEnded
from trimtab.runs import read_record
from trimtab.training import Step
from trimtab.training.execution import garbage_rests
from trimtab.training.memory import ProcessMemory, free_memory, is_out_of_memory, memory_meter
from trimtab.training.micro_batch import find_micro_batch

CPU = torch.device("cpu")


class Bounded(nn.Module):
    """Takes no more than so many sequences in training, as a device does that is full: torch's own error."""

    def __init__(self, most: int, vocabulary: int = VOCABULARY, *, from_call: int = 0) -> None:
        super().__init__()
        self.most, self.from_call, self.calls = most, from_call, 0
        self.embedding = nn.Embedding(vocabulary, 8)
        self.head = nn.Linear(8, vocabulary)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        self.calls += self.training
        if self.training and self.calls > self.from_call and tokens_BT.shape[0] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.\nGPU 0 has more to say")
        logits: Tensor = self.head(torch.cumsum(self.embedding(tokens_BT), 1))
        return logits


class Hungry(Bounded):
    """Takes 24 MB for every sequence."""

    def __init__(self) -> None:
        super().__init__(10**9)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        ballast = torch.ones(tokens_BT.shape[0], 6_000_000)
        return super().forward(tokens_BT) + 0.0 * ballast.mean()


def _step(module: nn.Module) -> Step:
    from trimtab.model import wrap_model

    return make_step(model=wrap_model(module, VOCABULARY))


def _find(step: Step, batch_size: int, *, most: int = 10**6, budget: float | None = 1e15) -> dict[str, Any]:
    return find_micro_batch(
        step,
        lambda rows: make_batch(rows, 0),
        batch_size,
        most=most,
        meter=memory_meter(CPU),
        budget_bytes=budget,
    )


@settings(max_examples=12, deadline=None)
@given(batch_size=st.integers(1, 60), limit=st.integers(1, 70), most=st.integers(1, 70))
def test_the_largest_divisor_that_fits(batch_size: int, limit: int, most: int) -> None:
    with garbage_rests():
        found = _find(_step(Bounded(limit)), batch_size, most=most)
    fitting = [n for n in range(1, batch_size + 1) if batch_size % n == 0 and n <= min(limit, most)]
    assert found["chosen"] == max(fitting)
    assert found["chosen"] * found["accumulation"] == batch_size
    assert len(found["tried"]) <= 2 * batch_size.bit_length() + 1


def test_the_search_changes_nothing_and_says_what_it_saw() -> None:
    step, same = _step(Bounded(6)), _step(Bounded(6))
    same.model.load_state_dict(step.model.state_dict())
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    found = _find(step, 24)
    assert found["chosen"] == 6
    assert found["reason"].endswith("8: out of memory: CUDA out of memory. Tried to allocate 1.00 GiB.")
    assert torch.equal(before, torch.random.get_rng_state())
    for number in (1, 2):
        for one in (step, same):
            one.run([make_batch(6, number), make_batch(6, number + 9)], number)
    assert step.ring.take().wait().tolist() == same.ring.take().wait().tolist()
    for a, b in zip(step.model.parameters(), same.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_on_a_cpu_a_budget_of_memory_decides() -> None:
    """How much a sequence takes depends on what the process has kept; that it decides does not."""
    step = _step(Hungry())
    _find(step, 1)
    free_memory(CPU)
    budget = psutil.Process().memory_info().rss + 130e6
    found = _find(step, 16, budget=budget)
    tried, chosen = found["tried"], found["chosen"]
    assert chosen in (2, 4), found
    assert tried[str(chosen)] <= budget
    larger = {int(size): outcome for size, outcome in tried.items() if int(size) > chosen}
    assert min(larger) == 2 * chosen
    assert all(isinstance(outcome, str) or outcome > budget for outcome in larger.values()), found
    assert str(tried[str(max(larger))]).startswith("not tried: about "), "what is foreseen to be too much is left alone"


def test_the_process_knows_its_peak_and_what_it_may_use() -> None:
    meter = ProcessMemory()
    free_memory(CPU)
    begun = meter.start()
    ballast = torch.ones(20_000_000)
    del ballast
    assert meter.peak() - begun == pytest.approx(80e6, rel=0.3)
    free_memory(CPU)
    assert meter.start() <= meter.peak() < begun + 70e6
    assert begun < meter.budget() < psutil.virtual_memory().total


def test_not_even_one_sequence() -> None:
    with pytest.raises(ResourceError, match=r"one sequence at a time does not fit \(out of memory: CUDA") as caught:
        _find(_step(Bounded(0)), 8)
    assert "data.sequence_length" in str(caught.value.hint)
    with pytest.raises(ResourceError, match="memory_budget_bytes"):
        _find(_step(Bounded(9)), 8, budget=1e6)


def test_what_is_no_lack_of_memory_is_an_error() -> None:
    class Broken(Bounded):
        def forward(self, tokens_BT: Tensor) -> Tensor:
            raise RuntimeError("no such thing")

    step = _step(Broken(9))
    with pytest.raises(RuntimeError, match="no such thing"):
        _find(step, 4)
    assert float(step.holds) == 0.0, "later steps are not held"
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert is_out_of_memory(MemoryError())


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 16,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
    "training.steps": 6,
    "training.micro_batch_size": 8,
    "training.threads": 1,
    "training.compile": "off",
    "evaluation": {"every": 3, "max_tokens": 512, "gap_tokens": 0, "yardsticks": False},
    "stopping": {"name": "none"},
}


class Remembers:
    def __init__(self, stop_at: int = 0) -> None:
        self.events: list[Event] = []
        self.stop_at = stop_at

    def observe(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StepsEnded) and event.last_step == self.stop_at:
            raise KeyboardInterrupt

    def losses(self) -> list[float]:
        told = {e.first_step: e.per_step["train/loss"] for e in self.events if isinstance(e, StepsEnded)}
        return np.concatenate([told[first] for first in sorted(told)]).tolist()

    def splits(self) -> list[DecisionTaken]:
        return [e for e in self.events if isinstance(e, DecisionTaken) and e.controller == "memory"]


def _trainer(
    tmp_path: Path, run: str, changes: Mapping[str, Any], *, stop_at: int = 0, watch: tuple[Any, ...] = (), **rest: Any
) -> Any:
    source = tmp_path / "text.txt"
    if not source.exists():
        source.write_text((Path(os.__file__).parent / "heapq.py").read_text())
    remembers = Remembers(stop_at)
    trainer = LanguageModelTrainer(
        source,
        settings={**SETTINGS, **changes},
        run=tmp_path / run,
        progress=False,
        monitors=[*watch, remembers],
        **rest,
    )
    trainer.remembers = remembers
    return trainer


def _plan(tmp_path: Path, run: str) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((tmp_path / run / "plan.json").read_text())["micro_batch"]
    return plan


def _module(most: int, *, from_call: int = 0) -> Bounded:
    torch.manual_seed(0)
    return Bounded(most, 257, from_call=from_call)


def test_losses_do_not_depend_on_the_split(tmp_path: Path) -> None:
    losses = {}
    for micro in (8, 4, 2, 1, "auto"):
        changes = {"training.batch_size": "128 tokens", "training.micro_batch_size": micro}
        trainer = _trainer(tmp_path, f"run-{micro}", changes)
        trainer.fit()
        losses[micro] = trainer.remembers.losses()
        plan = _plan(tmp_path, f"run-{micro}")
        assert plan["chosen"] * plan["accumulation"] == 8
    for micro in (4, 2, 1, "auto"):
        assert losses[micro] == pytest.approx(losses[8], rel=2e-5)
    assert losses["auto"] == losses[8], "the whole batch fits, so that it is the same split"


def test_what_was_found_is_kept_and_a_resume_does_not_search_again(tmp_path: Path) -> None:
    auto = {"training.batch_size": 8, "training.micro_batch_size": "auto"}
    with pytest.raises(KeyboardInterrupt):
        _trainer(tmp_path, "run", auto, stop_at=3, model=_module(4)).fit()
    plan = _plan(tmp_path, "run")
    assert (plan["chosen"], plan["accumulation"]) == (4, 2)
    again = _trainer(tmp_path, "run", auto, model=_module(4))
    again.fit()
    assert _plan(tmp_path, "run") == plan
    whole = _trainer(tmp_path, "whole", {**auto, "training.micro_batch_size": 4}, model=_module(4))
    whole.fit()
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_where_the_noise_scale_is_measured_a_step_keeps_two_micro_batches(tmp_path: Path) -> None:
    auto = {"training.batch_size": 8, "training.micro_batch_size": "auto", "logging.noise_scale.every": 2}
    trainer = _trainer(tmp_path, "run", auto)
    trainer.fit()
    plan = _plan(tmp_path, "run")
    assert (plan["chosen"], plan["accumulation"]) == (4, 2)
    assert plan["reason"] == "no more than 4 are wanted at once"
    told = [e.values for e in trainer.remembers.events if isinstance(e, StepsEnded)]
    assert told[-1]["batch_size"] == 8


def test_accepted_drift_of_the_batch_is_followed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _trainer(tmp_path, "run", {}, stop_at=3, model=_module(8)).fit()
    changed = _trainer(tmp_path, "elsewhere", {"training.micro_batch_size": 4, "training.accumulation": 3})
    remembers = Remembers()
    Trainer(changed.config, run=tmp_path / "run", model=_module(8), monitors=[remembers], accept_drift=True).fit()
    assert (_plan(tmp_path, "run")["chosen"], _plan(tmp_path, "run")["accumulation"]) == (4, 3)
    tokens = [e.per_step["tokens"] for e in remembers.events if isinstance(e, StepsEnded)]
    assert np.concatenate(tokens)[-1] == 12 * 16


def test_out_of_memory_halves_the_micro_batch_and_the_same_step_is_tried_again(tmp_path: Path) -> None:
    small = _trainer(tmp_path, "small", {"training.micro_batch_size": 2, "training.accumulation": 4}, model=_module(2))
    small.fit()
    full = _trainer(tmp_path, "full", {}, model=_module(2))
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
    assert _plan(tmp_path, "full")["chosen"] == 2


def test_in_the_middle_of_a_run_too_and_a_resume_goes_on_so(tmp_path: Path) -> None:
    plain = _trainer(tmp_path, "plain", {}, model=_module(8))
    plain.fit()
    every = {"logging.every": 1}
    late = _trainer(tmp_path, "late", every, stop_at=5, model=_module(4, from_call=4))
    with pytest.raises(KeyboardInterrupt):
        late.fit()
    (split,) = late.remembers.splits()
    assert (split.step, split.decision.value) == (4, 4.0)
    again = _trainer(tmp_path, "late", every, model=_module(4))
    again.fit()
    assert again.remembers.splits() == [], "plan.json has the smaller micro-batch"
    tokens = [e.per_step["tokens"] for e in again.remembers.events if isinstance(e, StepsEnded)]
    assert set(np.concatenate(tokens)) == {128.0}
    expected = plain.remembers.losses()
    assert late.remembers.losses() == pytest.approx(expected[:5], rel=2e-5)
    assert again.remembers.losses() == pytest.approx(expected[3:], rel=2e-5)


def test_an_odd_micro_batch_falls_to_its_largest_divisor(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, "run", {"training.micro_batch_size": 9}, model=_module(4))
    trainer.fit()
    assert [d.decision.value for d in trainer.remembers.splits()] == [3.0]
    assert _plan(tmp_path, "run")["accumulation"] == 3


def test_one_sequence_that_does_not_fit_ends_the_run_and_says_which(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, "run", {"training.micro_batch_size": 2}, model=_module(0, from_call=3))
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
    module = _module(4, from_call=1)
    changes = {"training.steps": 1, "optimizer": {"name": "sophia"}}
    trainer = _trainer(tmp_path, "run", changes, model=module)
    trainer.fit()
    assert [d.decision.value for d in trainer.remembers.splits()] == [4.0]
    assert module.calls == 1 + 1 + 2


def test_in_the_update_the_step_is_not_tried_again(tmp_path: Path) -> None:
    class Full(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    make = {"make_optimizer": lambda groups: Full(groups, lr=0.1)}
    told = r"in the update of step 1, after its gradient was complete, on \d+ micro-batches of \d+ × 16 tokens, samples"
    with pytest.raises(ResourceError, match=told):
        _trainer(tmp_path, "run", {}, model=_module(8), **make).fit()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the bound is Linux's")
def test_a_real_allocation_that_fails(tmp_path: Path) -> None:
    """The address space is bounded when the run begins: the CPU's allocator fails, and the run goes on smaller."""
    script = f"""
        import resource, sys, psutil
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "numerics")]!r}
        from pathlib import Path
        from trimtab.events import DecisionTaken, RunStarted
        import test_micro_batch as t

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
        trainer = t._trainer(Path({str(tmp_path)!r}), "run", changes, model=module, watch=(Bounds(),))
        print(trainer.fit().status)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, *_, last = done.stdout.strip().splitlines()
    assert first.startswith("8.0 out of memory at step 1 with micro-batches of 16: ")
    assert last == "finished"
    assert _plan(tmp_path, "run")["chosen"] in (8, 4)


@pytest.mark.parametrize(
    "overrides,message",
    [
        (["training.micro_batch_size=auto"], r"training\.batch_size is not set"),
        (["training.batch_size=24"], r"whole number of micro-batches of 16; training\.micro_batch_size=12 or auto"),
        (["training.batch_size=1000 tokens"], r"no whole number of sequences"),
        (["training.batch_size=0"], "at least 1"),
        (["training.batch_size=32", "training.accumulation=2"], r"it follows from training\.batch_size"),
        (["training.memory_budget_bytes=1000000"], r"micro_batch_size is given"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("gpt-1m", overrides, environment={})


def test_a_batch_in_sequences_or_tokens() -> None:
    base = load_config("gpt-1m", environment={})
    length = base.data.sequence_length
    given = load_config("gpt-1m", [f"training.batch_size={32 * length} tokens"], environment={})
    assert (given.sequences_per_step, given.split.accumulation) == (32, 2)  # type: ignore[union-attr]
    assert given.tokens_per_step == 32 * length
    auto = load_config("gpt-1m", ["training={batch_size: 48, micro_batch_size: auto}"], environment={})
    assert (auto.sequences_per_step, auto.split, auto.evaluation_batch_size) == (48, None, 16)
