"""Our own parts keep the promises that third-party parts are held to, and the tests see a broken one."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from trimtab.config import load_config
from trimtab.config.registry import EXTRAS
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.control import Patience, ReduceOnPlateau, RegularizeByGap, SaveBest, SkippedSteps
from trimtab.events import Event, StepsEnded, Stop
from trimtab.optimizer import AdamW, ForeignOptimizer, build_optimizer, parameter_groups
from trimtab.schedules import Constant, Cosine, Linear, Wsd
from trimtab.testing import check_controller, check_monitor, check_optimizer, check_schedule, sample_events


@pytest.mark.parametrize(
    "make",
    [
        lambda: Patience(2),
        lambda: SaveBest(),
        lambda: SkippedSteps(1),
        lambda: ReduceOnPlateau(2, cooldown=1),
        lambda: RegularizeByGap("dropout", high=-1.0, low=-2.0, patience=1),
    ],
)
def test_controllers(make: Any) -> None:
    events = sample_events()
    check_controller(make, events)
    answers = [make().decide(event) for event in events]
    controller = make()
    assert any(controller.decide(event) is not None for event in events), answers


def test_a_controller_that_forgets_is_found() -> None:
    class Forgetful:
        name = "forgetful"

        def __init__(self) -> None:
            self.seen = 0

        def decide(self, event: Event) -> Stop | None:
            self.seen += 1
            return Stop("enough") if self.seen == 5 else None

        def state(self) -> dict[str, Any]:
            return {}

        def load_state(self, state: Mapping[str, Any]) -> None:
            pass

    with pytest.raises(AssertionError, match="restored before event"):
        check_controller(Forgetful)


@pytest.mark.parametrize("state", [{"best": object()}, {"best": {1, 2}}])
def test_a_state_that_no_checkpoint_can_hold_is_found(state: dict[str, Any]) -> None:
    class Odd:
        name = "odd"

        def decide(self, event: Event) -> Stop | None:
            return None

        def state(self) -> dict[str, Any]:
            return state

        def load_state(self, state: Mapping[str, Any]) -> None:
            pass

    with pytest.raises(AssertionError, match="JSON"):
        check_controller(Odd)


def test_infinity_in_a_state_comes_back_as_a_number() -> None:
    class Hopes:
        name = "hopes"

        def __init__(self) -> None:
            self.best = float("inf")

        def decide(self, event: Event) -> Stop | None:
            self.best = min(self.best, float(event.step) if hasattr(event, "step") else self.best)
            return None

        def state(self) -> dict[str, Any]:
            return {"best": self.best}

        def load_state(self, state: Mapping[str, Any]) -> None:
            self.best = state["best"]

    check_controller(Hopes)


def test_a_monitor_that_changes_events_is_found() -> None:
    class Meddler:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded):
                event.per_step["train/loss"][0] = 0.0

    with pytest.raises(AssertionError, match="changed"):
        check_monitor(Meddler)


def test_a_monitor_that_raises_is_found() -> None:
    class Fragile:
        def observe(self, event: Event) -> None:
            raise ValueError("no")

    with pytest.raises(AssertionError, match="raised"):
        check_monitor(Fragile)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: AdamW(parameter_groups(model, 0.1)),
        lambda model: ForeignOptimizer(
            parameter_groups(model, 0.0), lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9)
        ),
        lambda model: ForeignOptimizer(parameter_groups(model, 0.1), lambda groups: torch.optim.AdamW(groups)),
        lambda model: ForeignOptimizer(parameter_groups(model, 0.0), lambda groups: torch.optim.RMSprop(groups)),
    ],
    ids=["adamw", "sgd", "torch-adamw", "rmsprop"],
)
def test_optimizers(make: Any) -> None:
    check_optimizer(make)


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {"custom"}))
def test_optimizers_by_name(name: str) -> None:
    for extra in OPTIMIZERS[name].needs:
        pytest.importorskip(EXTRAS[extra])
    section: Any = {"name": name, "weight_decay": 0.1, "rates": {"factors": {"3.*": 0.5}}}
    config = load_config(None, [f"optimizer={json.dumps(section)}"], environment={}).optimizer
    check_optimizer(lambda model: build_optimizer(config, model))


def test_an_optimizer_that_does_not_skip_is_found() -> None:
    class NeverSkips:
        def __init__(self, model: torch.nn.Module) -> None:
            self.inner = AdamW(parameter_groups(model, 0.1))
            self.storage = self.inner.storage
            self.state_by_name = self.inner.state_by_name
            self.load_state_by_name = self.inner.load_state_by_name
            self.evaluation_weights = self.inner.evaluation_weights

        def update(self, gradients: Any, settings: Any) -> None:
            gradients.skip = torch.zeros(())
            self.inner.update(gradients, settings)

    with pytest.raises(AssertionError, match="skipped update"):
        check_optimizer(NeverSkips)


class Wrapped:
    """An optimizer of ours, and what a third party may get wrong about its settings."""

    def __init__(self, inner: Any, wrong: str) -> None:
        self.inner, self.wrong = inner, wrong
        self.storage, self.groups, self.state_by_name = inner.storage, inner.groups, inner.state_by_name
        self.load_state_by_name, self.evaluation_weights = inner.load_state_by_name, inner.evaluation_weights

    def update(self, gradients: Any, settings: Any) -> None:
        if self.wrong == "scale":
            gradients.scale = torch.ones(())
        decay = {"no decay": 0.0, "setting ignored": 1.0}.get(self.wrong)
        self.inner.update(gradients, settings if decay is None else {**settings, "weight_decay": torch.tensor(decay)})


@pytest.mark.parametrize("wrong", ["scale", "no decay", "setting ignored", "norms"])
@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {"custom"}))
def test_settings_that_an_optimizer_ignores_are_found(name: str, wrong: str) -> None:
    for extra in OPTIMIZERS[name].needs:
        pytest.importorskip(EXTRAS[extra])
    override = f"optimizer={json.dumps({'name': name, 'weight_decay': 0.1})}"
    config = load_config(None, [override], environment={}).optimizer

    def make(model: torch.nn.Module) -> Any:
        if wrong != "norms":
            return Wrapped(build_optimizer(config, model), wrong)
        decay = config.decay.model_copy(update={"norms": True})
        optimizer = Wrapped(build_optimizer(config.model_copy(update={"decay": decay}), model), wrong)
        optimizer.groups = build_optimizer(config, copy.deepcopy(model)).groups
        return optimizer

    with pytest.raises(AssertionError, match="scale is not applied" if wrong == "scale" else "its group does"):
        check_optimizer(make)


@pytest.mark.parametrize(
    "schedule", [Constant(3), Linear(50, 5, 0.1), Cosine(50, 5, 0.1), Wsd(50, 5, 10), Wsd(50, 0, 10, "sqrt")]
)
def test_schedules(schedule: Any) -> None:
    check_schedule(schedule, 50)


def test_a_schedule_that_starts_at_zero_is_found() -> None:
    class FromZero:
        def factor(self, step: int) -> float:
            return min(1.0, step / 10)

    with pytest.raises(AssertionError, match="train nothing"):
        check_schedule(FromZero(), 50)
