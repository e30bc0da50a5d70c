"""Gradual unfreezing: what is trained when, to the same bits after an interruption on either side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab import Trainer, load_config
from trimtab.control import UnfreezeOnPlateau
from trimtab.errors import ConfigError
from trimtab.events import Adjust, DecisionTaken, EvaluationEnded, Event, RunStarted, StepsEnded
from trimtab.testing import check_controller

FREEZE = ["embedding.*", "blocks.0.*"]
UNFREEZE = {"embedding.*": 0.75, "blocks.0.*": 6}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def config_of(steps: int = 16, *, freeze: Any = FREEZE, unfreeze: Any = UNFREEZE, **more: Any) -> Any:
    model = {"name": "decoder", "num_layers": 2, "hidden_size": 32, "num_heads": 2, "dropout": {"residual": 0.1}}
    settings = {
        "model": model | {"freeze": freeze, "unfreeze": unfreeze},
        "data": {
            "source": {"name": "text", "path": json.__file__},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 32,
        },
        "schedule": {"name": "constant"},
        "optimizer": {"name": "adamw", "learning_rate": 5e-3},
        "training": {"steps": steps, "micro_batch_size": 4, "accumulation": 2},
        "evaluation": {"every": 4, "gap_tokens": 0, "max_tokens": 512, "yardsticks": False},
        "logging": {"every": 3},
        "stopping": {"name": "none"},
        **more,
    }
    return load_config(settings, environment={})


class Follows:
    """What was adjusted; leaves after a step."""

    def __init__(self, leaves: int = 0) -> None:
        self.reasons: list[tuple[int, str]] = []
        self._leaves = leaves

    def observe(self, event: Event) -> None:
        if isinstance(event, DecisionTaken) and isinstance(event.decision, Adjust):
            self.reasons.append((event.step, event.decision.reason))
        if isinstance(event, StepsEnded) and self._leaves and event.last_step >= self._leaves:
            raise KeyboardInterrupt


def fitted(config: Any, run: Path, monitor: Follows | None = None) -> dict[str, torch.Tensor]:
    trainer = Trainer(config, run=run, monitors=[] if monitor is None else [monitor])
    trainer.fit()
    return {name: parameter.detach().clone() for name, parameter in trainer.trained()[0].named_parameters()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name.partition(".weight")[0] for name in before if not torch.equal(before[name], after[name])}


def test_each_lot_begins_at_its_step(tmp_path: Path) -> None:
    start = fitted(config_of(1, freeze=["*embedding*", "blocks.*"], unfreeze={}), tmp_path / "start")
    lots = {0: config_of(6, unfreeze={}), 1: config_of(12, unfreeze={"blocks.0.*": 6}), 2: config_of(16)}
    follows = Follows()
    ends = {number: fitted(config, tmp_path / str(number), follows) for number, config in lots.items()}
    first = {"blocks.0.attention.qkv", "blocks.0.feed_forward.up"}
    assert not first & changed(start, ends[0])
    assert "blocks.1.attention.qkv" in changed(start, ends[0])
    assert first < changed(start, ends[1])
    assert "embedding" not in changed(start, ends[1])
    assert "embedding" in changed(start, ends[2])
    assert [step for step, _ in follows.reasons] == [6, 6, 12]
    assert follows.reasons[0][1] == "6 steps are done (model.unfreeze): blocks.0.* is trained"


@pytest.mark.parametrize("leaves", [8, *(pytest.param(one, marks=pytest.mark.slow) for one in (5, 14))])
def test_it_resumes_to_the_same_bits_in_every_stage(leaves: int, tmp_path: Path) -> None:
    config = config_of()
    whole = fitted(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fitted(config, tmp_path / "parts", Follows(leaves))
    parts = fitted(config, tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_optimizer_holds_what_is_trained(tmp_path: Path) -> None:
    parts = Trainer(config_of(), run=tmp_path / "run").assemble()[1]
    sizes = []
    for number in (0, 1, 2, 0):
        parts.step.use_optimizer(number)
        weights = parts.step.optimizer.storage.weights
        assert set(weights) == {name for name, p in parts.model.named_parameters() if p.requires_grad}
        sizes.append(len(weights))
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[3] == sizes[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": []}, r"model.unfreeze has no effect: model.freeze is empty"),
        ({"averaging": {"name": "ema"}}, r"model.unfreeze does not go with averaging.name ema"),
        (
            {"gradients": {"clip": {"name": "norm", "threshold": 1.0, "groups": {"*": 1.0}}}},
            r"model.unfreeze does not go with gradients.clip.groups",
        ),
        ({"optimizer_switch": {"to": {"name": "sgd"}, "at": 3}}, r"model.unfreeze does not go with optimizer_switch"),
    ],
)
def test_what_it_does_not_go_with(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(**settings)


@pytest.mark.parametrize(
    ("unfreeze", "message"),
    [
        ({"blocks.1.*": 3}, r"no parameter of such a name is frozen still. Received: 'blocks.1"),
        ({"blocks.*": 3, "blocks.0.*": 4}, r"no parameter of such a name is frozen still. Received: 'blocks.0"),
        ({"embedding.*": 16}, r"embedding.\* would begin after the last step: 16 of 16. Received: 16"),
    ],
)
def test_entries_that_cannot_be(unfreeze: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Trainer(config_of(unfreeze=unfreeze), run=tmp_path / "run").fit()


STANDS = {"optimizer": {"name": "adamw", "learning_rate": 30.0}}
"""Far too high, so that the loss does not improve for long."""


def evaluated(step: int, value: float) -> EvaluationEnded:
    return EvaluationEnded(step, {"validation/loss": value}, 0.1)


def taken(step: int, lots: int, controller: str = "unfreezing") -> DecisionTaken:
    return DecisionTaken(step, step, controller, Adjust("", "unfreeze", float(lots)))


def test_the_next_lot_begins_when_the_metric_stands_still() -> None:
    controller = UnfreezeOnPlateau(2, patience=2)
    assert [controller.decide(evaluated(step, value)) for step, value in ((10, 3.0), (20, 3.1))] == [None, None]
    asked = controller.decide(evaluated(30, 3.0))
    assert asked is not None
    assert (asked.name, asked.value) == ("unfreeze", 1.0)
    assert asked.reason == (
        "validation/loss has not improved for 2 evaluations (best 3.0000 at step 10, now 3.0000): entry 1 of 2 of "
        "model.unfreeze is trained"
    )
    controller.decide(taken(30, 1))
    assert controller.decide(evaluated(40, 3.0)) is None  # the patience begins anew
    controller.decide(taken(45, 2, "plan"))  # by its time
    assert [controller.decide(evaluated(step, 9.0)) for step in (50, 60, 70)] == [None] * 3  # nothing is left
    controller.decide(RunStarted(44, 2, 1, 44, 100, {}))  # a rollback to before the second
    again = controller.decide(evaluated(50, 9.0))
    assert again is not None
    assert again.value == 2.0


def test_it_is_a_controller() -> None:
    check_controller(lambda: UnfreezeOnPlateau(2, 2))


@pytest.mark.parametrize("leaves", [5, pytest.param(9, marks=pytest.mark.slow)])
def test_lots_begin_early_and_resume_to_the_same_bits(leaves: int, tmp_path: Path) -> None:
    late = {"embedding.*": 0.9, "blocks.0.*": 0.8}
    control = {"unfreezing": {"name": "plateau", "patience": 1}}
    more: dict[str, Any] = {"control": control, "evaluation": {"every": 2, "gap_tokens": 0, "yardsticks": False}}
    config, follows = config_of(unfreeze=late, **STANDS, **more), Follows()
    whole = fitted(config, tmp_path / "whole", follows)
    early = [step for step, reason in follows.reasons if "has not improved" in reason]
    assert early
    assert early[0] < 0.8 * 16
    with pytest.raises(KeyboardInterrupt):
        fitted(config, tmp_path / "parts", Follows(leaves))
    parts = fitted(config, tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_what_it_waits_for_must_be_there() -> None:
    control = {"unfreezing": {"name": "plateau", "patience": 3}}
    with pytest.raises(ConfigError, match=r"control.unfreezing has nothing to unfreeze: model.unfreeze is empty"):
        config_of(unfreeze={}, control=control)
    with pytest.raises(ConfigError, match=r"patience 3 has no effect: stopping.patience 3 on the same metric"):
        config_of(control=control, stopping={"name": "patience", "patience": 3})
    with pytest.raises(ConfigError, match=r"control.unfreezing.metric validation/r2 is not measured"):
        config_of(control={"unfreezing": {"name": "plateau", "metric": "validation/r2"}})
