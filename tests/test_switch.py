"""Another optimizer takes over: at a step or when a metric stands still, to the same bits before, at and after it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab import LanguageModelTrainer, Trainer, load_config
from trimtab.config import Budget
from trimtab.control import SwitchOptimizer
from trimtab.errors import CheckpointError, ConfigError
from trimtab.events import Adjust, DecisionTaken, EvaluationEnded, Event, Rollback, RunStarted, StepsEnded
from trimtab.optimizer import ClipByGroup, Rule, RuleOptimizer, adam, parameter_groups, sgd
from trimtab.runs import RunDirectory
from trimtab.runs.checkpoints import latest
from trimtab.runs.files import read_json
from trimtab.runs.history import History
from trimtab.runs.summary import render, summarize
from trimtab.signals import Gradients
from trimtab.testing import check_controller
from trimtab.training import Progress
from trimtab.training.checkpoint import read_tensors
from trimtab.training.switch import planned_switch

SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 16,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 1},
    "optimizer": {"name": "adamw", "learning_rate": 5e-3},
    "optimizer_switch": {"at": 10, "to": {"name": "sgd", "learning_rate": 0.2, "weight_decay": 0.01}},
    "schedule": {"name": "linear", "warmup": 4, "floor": 0.5},
    "training.steps": 20,
    "training.micro_batch_size": 8,
    "training.compile": "off",
    "evaluation.every": 5,
    "evaluation.max_tokens": 256,
    "evaluation.gap_tokens": 0,
    "evaluation.yardsticks": False,
    "evaluation.samples.max_tokens": 0,
    "checkpoint": {"every": 5, "keep_latest": 9, "keep_best": 0},
    "stopping": {"name": "none"},
    "logging": {"every": 2},
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    source = Path(os.__file__).parent
    for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py"):
        (folder / name).write_text((source / name).read_text())
    return folder


class Watches:
    """Keeps what was told; leaves, as after a crash, once `leave_at` steps were told."""

    def __init__(self, leave_at: int | None = None) -> None:
        self.leave_at = leave_at
        self.rates: dict[int, float] = {}
        self.decisions: list[DecisionTaken] = []
        self.losses: list[float] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            steps = range(event.first_step, event.last_step + 1)
            self.rates |= dict(zip(steps, event.per_step["learning_rate"].tolist(), strict=True))
            self.losses += event.per_step["train/loss"].tolist()
            if self.leave_at is not None and event.last_step >= self.leave_at:
                raise KeyboardInterrupt
        if isinstance(event, DecisionTaken) and isinstance(event.decision, Adjust | Rollback):
            self.decisions.append(event)


def trainer(text: Path, run: Path, settings: Mapping[str, Any], *monitors: Any, **rest: Any) -> LanguageModelTrainer:
    values = {**SETTINGS, **settings}
    return LanguageModelTrainer(text, settings=values, run=run, progress=False, monitors=monitors, **rest)


def tensors_of(run: Path) -> dict[str, Tensor]:
    info = latest(run)
    assert info is not None
    return read_tensors(info.path, "")


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    names: Iterable[str] = [name for name in a if not name.startswith("window/")]
    return [name for name in names if not torch.equal(a[name], b[name])] + sorted(a.keys() ^ b.keys())


AVERAGED = {"averaging": {"name": "ema", "decay": 0.9}, "checkpoint.metric": "validation/loss@ema"}
TO_MUON = {"optimizer_switch": {"at": 10, "to": {"name": "muon", "learning_rate": 0.01, "weight_decay": 0.0}}}
TO_CUSTOM = {
    "optimizer_switch": {
        "at": 10,
        "to": {"name": "custom", "target": "torch.optim:SGD", "arguments": {"momentum": 0.9}},
    }
}
FROM_CUSTOM = {"optimizer": {"name": "custom", "target": "torch.optim:Adam"}}
TO_SOPHIA = {"optimizer_switch": {"at": 10, "to": {"name": "sophia", "learning_rate": 1e-3}}}
SCHEDULED = {
    "optimizer": {
        "name": "adamw",
        "learning_rate": 5e-3,
        "rates": {"schedules": {"embedding*": {"name": "linear", "warmup": 0, "floor": 0.0}}},
    },
    "optimizer_switch": {
        "at": 10,
        "to": {
            "name": "muon",
            "learning_rate": 0.01,
            "rates": {
                "schedules": {
                    "embedding*": {"name": "constant", "warmup": 0},
                    "blocks.0.attention.*": {"name": "linear", "warmup": 0, "floor": 0.5},
                }
            },
        },
    },
    "gradients": {"clip": {"name": "norm", "threshold": 1.0, "groups": {"embedding*": 0.05, "*norm*": 0.02}}},
}
BF16 = {"training.precision": {"name": "bf16", "parameters": "bf16"}}


@pytest.mark.parametrize(
    "settings",
    [
        AVERAGED,
        TO_MUON,
        pytest.param(TO_SOPHIA, marks=pytest.mark.slow),
        TO_CUSTOM,
        pytest.param(FROM_CUSTOM, marks=pytest.mark.slow),
        BF16,
        SCHEDULED,
    ],
    ids=["ema", "muon", "sophia", "to custom", "custom", "bf16", "groups"],
)
def test_it_resumes_to_the_same_bits_before_at_and_after_it(
    text: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole, again = Watches(), Watches()
    trainer(text, tmp_path / "whole", settings, whole).fit()
    for leave_at in (8, 12, 17):
        with pytest.raises(KeyboardInterrupt):
            trainer(text, tmp_path / "left", settings, Watches(leave_at)).fit()
    trainer(text, tmp_path / "left", settings, again).fit()
    one, other = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "left")
    assert differing(one, other) == []
    assert [(d.step, d.controller, d.outcome) for d in whole.decisions] == [(10, "plan", "taken")]
    assert again.decisions == []


def test_the_new_optimizer_begins_afresh_at_its_own_rate_and_the_schedule_goes_on(text: Path, tmp_path: Path) -> None:
    watches = Watches()
    trainer(text, tmp_path / "run", {}, watches).fit()
    without = Watches()
    trainer(text, tmp_path / "without", {"optimizer_switch": None}, without).fit()
    for step in range(1, 21):
        factor = without.rates[step] / 5e-3
        assert watches.rates[step] == pytest.approx((5e-3 if step <= 10 else 0.2) * factor), step
    before, at, after = (
        read_tensors(tmp_path / f"run/checkpoints/step-{step:08}", "optimizer/", "model/") for step in (5, 10, 20)
    )
    name = "optimizer/embedding.weight"
    assert f"{name}/exp_avg" in before
    assert f"{name}/exp_avg" not in at, "the checkpoint at the switch is of the new optimizer"
    assert float(at[f"{name}/momentum"].abs().sum()) == 0.0
    assert int(at["optimizer//applied"]) == 0
    assert float(after[f"{name}/momentum"].abs().sum()) > 0.0
    assert int(after["optimizer//applied"]) == 10
    same = read_tensors(tmp_path / "without/checkpoints/step-00000010", "model/")
    assert all(torch.equal(at[name], tensor) for name, tensor in same.items()), "the weights stay"
    (decision,) = watches.decisions
    assert decision.decision.reason == "10 steps are done (optimizer_switch.at): sgd takes over from adamw"
    assert "optimizer (1)" in render(summarize(RunDirectory.open(tmp_path / "run")))
    assert watches.losses[-1] < watches.losses[0]


def test_it_is_two_optimizers_one_after_the_other_by_hand() -> None:
    """In float64: Adam for three updates, SGD with momentum from nothing for three more."""
    from tiny_step import make_batch, make_step

    step = make_step()

    def build(rule: Rule) -> RuleOptimizer:
        return RuleOptimizer([(group, rule) for group in parameter_groups(step.model, 0.0)])

    builders = [partial(build, adam(0.9, 0.999, 1e-8)), partial(build, sgd(0.9))]
    step.optimizer.storage.hand_back()
    step.optimizer, step._optimizers = builders[0](), tuple(builders)
    names = list(step.optimizer.storage.weights)
    weights = {name: weight.double() for name, weight in step.optimizer.storage.weights.items()}
    state = {name: [torch.zeros_like(w), torch.zeros_like(w)] for name, w in weights.items()}
    for number in range(1, 7):
        if number == 4:
            step.use_optimizer(1)
            step.set(learning_rate=0.1)
            state = {name: [torch.zeros_like(w)] for name, w in weights.items()}
        step.run([make_batch(4, number)], number)
        norm = torch.cat([g.flatten() for g in step.optimizer.storage.gradients.values()]).norm().double()
        for name in names:
            gradient = step.optimizer.storage.gradients[name].double() * min(1.0, 1.0 / float(norm))
            if number < 4:
                first, second = state[name]
                first.lerp_(gradient, 0.1)
                second.lerp_(gradient.square(), 0.001)
                corrected = (second / (1 - 0.999**number)).sqrt() + 1e-8
                weights[name] -= 1e-2 * first / (1 - 0.9**number) / corrected
            else:
                state[name][0].mul_(0.9).add_(gradient)
                weights[name] -= 0.1 * state[name][0]
    for name, weight in step.optimizer.storage.weights.items():
        assert torch.allclose(weight.double(), weights[name], atol=2e-5), name
        assert weight.data_ptr() == dict(step.model.named_parameters())[name].data_ptr()


def test_groups_follow_schedules_of_their_own_before_and_after_it(text: Path, tmp_path: Path) -> None:
    told: dict[int, dict[str, float]] = {}

    class Groups:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded):
                told[event.last_step] = {
                    name.split("/")[1]: value for name, value in event.values.items() if name.startswith("group/")
                }

    trainer(text, tmp_path / "run", {**SCHEDULED, "logging": {"every": 1}}, Groups()).fit()
    for step in range(1, 21):
        scheduled = {name: rate for name, rate in told[step].items() if "schedule" in name}
        embedding = [rate for name, rate in scheduled.items() if "schedule embedding*" in name]
        attention = [rate for name, rate in scheduled.items() if "attention" in name]
        assert embedding, step
        if step <= 10:
            assert embedding == pytest.approx([5e-3 * (1 - step / 20)] * len(embedding))
            assert not attention
        else:
            assert embedding == pytest.approx([0.01] * len(embedding))
            assert attention == pytest.approx([0.01 * (1 - 0.5 * step / 20)] * len(attention))
            assert attention


def test_each_group_is_clipped_by_its_own_norm_in_whatever_order_the_parameters_are() -> None:
    names = ["a.weight", "b.weight", "c.weight"]
    clip = ClipByGroup(names, 1.0, {"b*": 0.5})
    settings = {"clip_threshold": torch.tensor(1.0)}
    generator = torch.Generator().manual_seed(0)
    given = {name: torch.randn(3, 2, generator=generator, dtype=torch.float64) for name in names}
    rest = math.hypot(float(given["a.weight"].norm()), float(given["c.weight"].norm()))
    factor = {"a.weight": 1 / rest, "b.weight": 0.5 / float(given["b.weight"].norm()), "c.weight": 1 / rest}
    for order in (names, names[::-1], ["b.weight", "a.weight", "c.weight"], names):
        by_name = {name: given[name].clone() for name in order}
        norms_P = torch.stack([gradient.norm() for gradient in by_name.values()])
        clip.apply(Gradients(by_name, norms_P, norms_P.norm(), torch.tensor(1.0), torch.tensor(0.0)), settings)
        for name in names:
            assert torch.allclose(by_name[name], given[name] * min(1.0, factor[name])), (order, name)


def test_what_is_wrong_with_the_second_is_said_before_the_first_step(text: Path, tmp_path: Path) -> None:
    for to, message in (
        ({"name": "sgd", "rates": {"factors": {"nothing*": 2.0}}}, r"optimizer_switch\.to\.rates\.factors: no train"),
        ({"name": "sgd", "rates": {"schedules": {"none": {"name": "constant"}}}}, r"optimizer_switch\.to\.rates\.sch"),
        ({"name": "galore", "rank": 999}, r"optimizer_switch\.to\.rank: no matrix"),
        ({"name": "custom", "target": "torch.optim:Nothing"}, r"optimizer_switch\.to\.target"),
    ):
        with pytest.raises(ConfigError, match=message):
            trainer(text, tmp_path / "run", {"optimizer_switch": {"at": 10, "to": to}}).fit()
    assert not (tmp_path / "run").exists()


def test_the_facts_know_both(text: Path, tmp_path: Path) -> None:
    trainer(text, tmp_path / "run", {**TO_MUON, "training.steps": 12}).fit()
    facts = read_json(tmp_path / "run/facts.json")
    assert facts["optimizer"] == "adamw"
    later = facts["optimizer_switch"]
    assert (later["optimizer"], later["learning_rate"]["applied"]) == ("muon", 0.01)
    parameters = sum(group["parameters"] for group in facts["parameter_groups"])
    assert sum(group["parameters"] for group in later["parameter_groups"]) == parameters
    assert {group["name"] for group in later["parameter_groups"]} >= {"decay, muon", "no_decay, adamw"}


def test_columns_keep_their_names(text: Path, tmp_path: Path) -> None:
    """Muon has its parameters in another order; the norms of a layer go on under its name."""
    trainer(text, tmp_path / "run", {**TO_MUON, "logging": {"every": 2, "layers": True}}).fit()
    run = tmp_path / "run"
    history = History.read(run / "record.jsonl", statistics=run / "statistics")
    steps, names, norms = history.layers.values("weight_norm")
    kept = read_tensors(run / "checkpoints/step-00000020", "model/")
    assert list(steps)[-1] == 20
    for name, norm in zip(names, norms[-1], strict=True):
        parameter = name.removeprefix("layer/").removesuffix("/weight_norm")
        assert float(norm) == pytest.approx(float(kept[f"model/{parameter}"].norm()), rel=1e-5), name


class GoesBack:
    """Rolls back once, to before the switch."""

    name = "goes_back"

    def __init__(self) -> None:
        self.done = False

    def decide(self, event: Event) -> Rollback | None:
        if isinstance(event, EvaluationEnded) and event.step == 15 and not self.done:
            self.done = True
            return Rollback("to try", 8)
        return None

    def state(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.done = state["done"]


def test_a_rollback_to_before_it_brings_the_first_back_and_it_comes_again(text: Path, tmp_path: Path) -> None:
    watches = Watches()
    trainer(text, tmp_path / "run", {}, watches, controllers=[GoesBack()]).fit()
    trainer(text, tmp_path / "plain", {}).fit()
    kinds = [(d.step, type(d.decision).__name__) for d in watches.decisions]
    assert kinds == [(10, "Adjust"), (15, "Rollback"), (10, "Adjust")]
    assert differing(tensors_of(tmp_path / "run"), tensors_of(tmp_path / "plain")) == []


def test_a_metric_that_stands_still_brings_it(text: Path, tmp_path: Path) -> None:
    """A rate of nothing: no evaluation after the first is better."""
    settings = {
        "optimizer": {"name": "adamw", "learning_rate": 1e-30, "weight_decay": 0.0},
        "optimizer_switch": {"patience": 2, "to": {"name": "sgd", "learning_rate": 0.5}},
    }
    whole, again = Watches(), Watches()
    trainer(text, tmp_path / "whole", settings, whole).fit()
    (decision,) = whole.decisions
    assert (decision.step, decision.controller) == (15, "switch")
    assert decision.decision.reason.startswith("validation/loss has not improved for 2 evaluations (best ")
    assert decision.decision.reason.endswith(": sgd takes over")
    with pytest.raises(KeyboardInterrupt):
        trainer(text, tmp_path / "left", settings, Watches(17)).fit()
    trainer(text, tmp_path / "left", settings, again).fit()
    assert differing(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "left")) == []


def test_the_controller_keeps_what_controllers_promise() -> None:
    check_controller(lambda: SwitchOptimizer("sgd", 2))
    controller = SwitchOptimizer("sgd", 2, "validation/accuracy")

    def judged(step: int, value: float) -> Adjust | None:
        return controller.decide(EvaluationEnded(step, {"validation/accuracy": value}, 0.0))

    assert [judged(step, value) for step, value in ((1, 0.5), (2, 0.4), (3, 0.6), (4, float("nan")))] == [None] * 4
    assert judged(5, 0.6) is not None
    assert judged(6, 0.6) is None, "it asks once"
    controller.decide(RunStarted(4, 1, 1, 4, 10))
    assert judged(5, 0.6) is not None, "after a rollback to before it, once more"


def test_without_the_setting_a_checkpoint_of_the_second_does_not_load(text: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(text, tmp_path / "run", {}, Watches(17)).fit()
    config = load_config(tmp_path / "run/config.yaml", ["optimizer_switch=null"], environment={})
    with pytest.raises(CheckpointError, match=r"trained with optimizer 2, and the configuration has but 1"):
        Trainer(config, run=tmp_path / "run", accept_drift=True).fit()


def test_with_an_optimizer_from_python_it_is_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="optimizer_switch: it does not go with an optimizer that is given"):
        trainer(text, tmp_path / "run", {}, make_optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1)).fit()


SGD = "to: {name: sgd}"
REFUSED = [
    ([f"optimizer_switch={{{SGD}}}"], "say when: give at, patience, or both"),
    ([f"optimizer_switch={{at: 1000, {SGD}}}"], "optimizer_switch.at 1000 lies after the last of training.steps"),
    (["optimizer_switch={at: 0.5, to: {name: schedule_free_adamw}}"], "does not go with optimizer_switch.to.name"),
    (
        ["optimizer.name=schedule_free_adamw", f"optimizer_switch={{at: 0.5, {SGD}}}"],
        "does not go with optimizer.name schedule_free_adamw",
    ),
    ([f"optimizer_switch={{patience: 5, {SGD}}}"], "optimizer_switch.patience 5 has no effect: stopping.patience 5"),
    ([f"optimizer_switch={{at: 0.5, metric: validation/accuracy, {SGD}}}"], "optimizer_switch.metric: has no effect"),
    (
        [f"optimizer_switch={{patience: 1, metric: validation/loss@ema, {SGD}}}"],
        "optimizer_switch.metric validation/loss@ema is not measured",
    ),
    (["optimizer_switch={at: 0.5, to: {name: sgd, decay: {norms: true}}}"], "optimizer_switch.to.weight_decay is 0"),
    (["optimizer_switch={at: 0.5}"], "optimizer_switch.to"),
    (
        ["optimizer_switch={at: 0.5, to: {name: sgd, weight_decay: 0.1, decay: {target: 1.0}}}"],
        "optimizer_switch.to.decay.target is for weight decay apart from the gradient",
    ),
]


@pytest.mark.parametrize("settings,message", REFUSED)
def test_what_does_not_go_together_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, settings, environment={})
    assert message in str(caught.value)


def test_decay_that_only_the_second_has_may_have_a_schedule() -> None:
    given = ["optimizer.weight_decay=0.0", "decay_schedule={name: linear}"]
    later = "optimizer_switch={at: 0.5, to: {name: sgd, weight_decay: 0.1}}"
    assert load_config(None, [*given, later], environment={}).decay_schedule is not None


def test_the_noise_scale_is_measured_across_a_switch_that_reorders_the_parameters(text: Path, tmp_path: Path) -> None:
    settings = {
        **SETTINGS,
        "optimizer_switch": {"at": 10, "to": {"name": "muon", "learning_rate": 5e-3}},
        "training.accumulation": 2,
        "logging": {"every": 2, "noise_scale": {"every": 1, "memory": 4}},
    }
    trainer = LanguageModelTrainer(text, settings=settings, run=tmp_path / "run", progress=False)
    assert trainer.fit().status == "finished"
    measured = History.read(tmp_path / "run/record.jsonl").series
    name = next(name for name in measured if "gradient_noise" in name)
    assert measured[name].steps[-1] > 10


def test_a_planned_switch_needs_no_metric_and_one_added_later_still_comes() -> None:
    config = load_config(
        "gpt-1m",
        [
            "averaging={name: ema, evaluate: average}",
            "checkpoint.metric=validation/loss@ema",
            "stopping={name: none}",
            "optimizer_switch={at: 7, to: {name: sgd}}",
            "training.steps=20",
        ],
    )
    decided = planned_switch(config, Budget(20), Progress())
    assert [step for step in range(1, 20) if decided(step)] == list(range(7, 20))
    assert not planned_switch(config, Budget(20), Progress(optimizer=1))(9)
