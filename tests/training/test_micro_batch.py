"""The largest micro-batch that fits."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
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
from bounded import Bounded, Hungry, Remembers, module_of, plan_of, trainer_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_step import VOCABULARY, make_batch, make_step
from torch import Tensor, nn

from trimtab import Trainer, load_config
from trimtab.errors import ConfigError, ResourceError
from trimtab.events import StepsEnded
from trimtab.optimizer import build_optimizer
from trimtab.training import Step
from trimtab.training.execution import garbage_rests
from trimtab.training.memory import ProcessMemory, free_memory, is_out_of_memory, memory_meter
from trimtab.training.micro_batch import find_micro_batch

CPU = torch.device("cpu")


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


@settings(max_examples=6, deadline=None)
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


class Large(Bounded):
    """40 MB of weights, which make most of what a step takes."""

    def __init__(self) -> None:
        super().__init__(10**9)
        self.large = nn.Parameter(torch.randn(2000, 5000) * 0.01)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return super().forward(tokens_BT) + self.large.mean()


def foreseen_and_taken(name: str) -> tuple[float, float]:
    """Bytes above what is in use: what the search foresees of a step, and what the first real one takes."""
    config = load_config(None, [f"optimizer={{name: {name}}}"], environment={}).optimizer
    step = _step(Large())
    step.optimizer = build_optimizer(config, step.model)
    weights = {key: weight.clone() for key, weight in step.optimizer.storage.weights.items()}
    state = {key: {s: t.clone() for s, t in slots.items()} for key, slots in step.optimizer.state_by_name().items()}
    free_memory(CPU)
    meter = ProcessMemory()
    before = meter.start()
    foreseen = _find(step, 1)["tried"]["1"] - before
    assert all(torch.equal(weight, weights[key]) for key, weight in step.optimizer.storage.weights.items())
    after = step.optimizer.state_by_name()
    assert after.keys() == state.keys()
    for key, slots in state.items():
        assert all(torch.equal(after[key][slot], tensor) for slot, tensor in slots.items()), "the state is a fresh one"
    del weights, state, after
    free_memory(CPU)
    before = meter.start()
    step.run([make_batch(1, 0)], 1)
    return foreseen, meter.peak() - before


@pytest.mark.slow
def test_what_the_first_real_step_takes_was_foreseen() -> None:
    """Estimates of the curvature, state that is allocated in the first update, and what an update holds meanwhile.

    In a process of its own: in this one a run may have told the allocator to keep what is freed.
    """
    names = ["sophia", "lion", *(["adamw_8bit"] if importlib.util.find_spec("bitsandbytes") else [])]
    script = f"""
        import json, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "numerics")]!r}
        import test_micro_batch as t
        print(json.dumps({{name: t.foreseen_and_taken(name) for name in {names!r}}}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name, (foreseen, taken) in json.loads(done.stdout.splitlines()[-1]).items():
        assert foreseen == pytest.approx(taken, rel=0.25, abs=24e6), (name, foreseen / 1e6, taken / 1e6)


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


def test_losses_do_not_depend_on_the_split(tmp_path: Path) -> None:
    losses = {}
    for micro in (8, 2, 1, "auto"):
        changes = {"training.batch_size": "128 tokens", "training.micro_batch_size": micro}
        trainer = trainer_of(tmp_path, f"run-{micro}", changes)
        trainer.fit()
        losses[micro] = trainer.remembers.losses()
        plan = plan_of(tmp_path, f"run-{micro}")
        assert plan["chosen"] * plan["accumulation"] == 8
    for micro in (2, 1, "auto"):
        assert losses[micro] == pytest.approx(losses[8], rel=2e-5)
    assert losses["auto"] == losses[8], "the whole batch fits, so that it is the same split"


def test_what_was_found_is_kept_and_a_resume_does_not_search_again(tmp_path: Path) -> None:
    auto = {"training.batch_size": 8, "training.micro_batch_size": "auto"}
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path, "run", auto, stop_at=3, model=module_of(4)).fit()
    plan = plan_of(tmp_path, "run")
    assert (plan["chosen"], plan["accumulation"]) == (4, 2)
    again = trainer_of(tmp_path, "run", auto, model=module_of(4))
    again.fit()
    assert plan_of(tmp_path, "run") == plan
    whole = trainer_of(tmp_path, "whole", {**auto, "training.micro_batch_size": 4}, model=module_of(4))
    whole.fit()
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_where_the_noise_scale_is_measured_a_step_keeps_two_micro_batches(tmp_path: Path) -> None:
    auto = {"training.batch_size": 8, "training.micro_batch_size": "auto", "logging.noise_scale.every": 2}
    trainer = trainer_of(tmp_path, "run", auto)
    trainer.fit()
    plan = plan_of(tmp_path, "run")
    assert (plan["chosen"], plan["accumulation"]) == (4, 2)
    assert plan["reason"] == "no more than 4 are wanted at once"
    told = [e.values for e in trainer.remembers.events if isinstance(e, StepsEnded)]
    assert told[-1]["batch_size"] == 8


def test_one_sequence_is_searched_for_where_the_noise_scale_waits_for_a_batch_that_grows(tmp_path: Path) -> None:
    changes = {
        "training.batch_size": 1,
        "training.micro_batch_size": "auto",
        "training.accumulation_schedule": {"factors": [1, 2]},
        "logging": {"every": 1, "noise_scale": {"every": 1}},
    }
    trainer = trainer_of(tmp_path, "run", changes)
    trainer.fit()
    assert (plan_of(tmp_path, "run")["chosen"], plan_of(tmp_path, "run")["accumulation"]) == (1, 1)
    told = {e.last_step: e.values.get("batch_size") for e in trainer.remembers.events if isinstance(e, StepsEnded)}
    assert told[3] is None
    assert told[6] == 2.0, "measured as soon as a step has two"


def test_accepted_drift_of_the_batch_is_followed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path, "run", {}, stop_at=3, model=module_of(8)).fit()
    changed = trainer_of(tmp_path, "elsewhere", {"training.micro_batch_size": 4, "training.accumulation": 3})
    remembers = Remembers()
    Trainer(changed.config, run=tmp_path / "run", model=module_of(8), monitors=[remembers], accept_drift=True).fit()
    assert (plan_of(tmp_path, "run")["chosen"], plan_of(tmp_path, "run")["accumulation"]) == (4, 3)
    tokens = [e.per_step["tokens"] for e in remembers.events if isinstance(e, StepsEnded)]
    assert np.concatenate(tokens)[-1] == 12 * 16


def test_a_raised_batch_that_is_split_otherwise_stays_raised_and_another_batch_begins_anew(tmp_path: Path) -> None:
    """The noise scale raises 8 sequences to 16; accepted drift then divides the same batch in another way."""
    raising = {
        "training.micro_batch_size": 2,
        "training.accumulation": 4,
        "training.steps": 16,
        "logging": {"every": 1, "noise_scale": {"every": 1, "memory": 4}},
        "batch_control": {"name": "noise_scale", "most": 16, "part": 1e6, "error": 1e6, "wait": 1},
    }

    def sequences(run: str, changes: Mapping[str, Any], stop_at: int = 0) -> list[int]:
        config = trainer_of(tmp_path, "elsewhere", {**raising, **changes}).config
        remembers = Remembers(stop_at)
        trainer = Trainer(config, run=tmp_path / run, monitors=[remembers], accept_drift=True)
        if stop_at:
            with pytest.raises(KeyboardInterrupt):
                trainer.fit()
        else:
            trainer.fit()
        tokens = np.concatenate([e.per_step["tokens"] for e in remembers.events if isinstance(e, StepsEnded)])
        return (tokens / 16).round().astype(int).tolist()

    assert sequences("run", {}, stop_at=8)[-1] == 16
    shutil.copytree(tmp_path / "run", tmp_path / "anew")
    assert set(sequences("run", {"training.micro_batch_size": 4, "training.accumulation": 2})) == {16}
    anew = sequences("anew", {"training.micro_batch_size": 2, "training.accumulation": 2})
    assert (anew[0], anew[-1]) == (4, 16), "set anew, and raised again"


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
