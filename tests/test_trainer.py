"""Training from Python: objects in place of configuration, and what goes wrong."""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trimtab import LanguageModelTrainer, Trainer, load_config
from trimtab.config.registry import EXTRAS
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.errors import ConfigError, DataError, DriftError, StorageError, UsageError
from trimtab.events import EvaluationEnded, Event, RunEnded, RunStarted, StepsEnded, Stop
from trimtab.runs import History, RunDirectory, read_record
from trimtab.schedules import Constant, Cosine, Linear
from trimtab.training.checkpoint import keeper
from trimtab.training.trained import open_trained

SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 32,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2},
    "optimizer.learning_rate": 5e-3,
    "training.steps": 40,
    "training.micro_batch_size": 8,
    "evaluation.every": 10,
    "evaluation.max_tokens": 2048,
    "evaluation.gap_tokens": 1024,
    "evaluation.samples.max_tokens": 5,
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    source = Path(os.__file__).parent
    for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py"):
        (folder / name).write_text((source / name).read_text())
    return folder


def language_model(text: Path | None, run: Path, settings: Mapping[str, Any] | None = None, **rest: Any) -> Any:
    return LanguageModelTrainer(text, settings={**SETTINGS, **(settings or {})}, run=run, progress=False, **rest)


class Remembers:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)


def test_a_language_model_in_ten_lines(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = LanguageModelTrainer(text, settings=SETTINGS, run=tmp_path / "run")
    result = trainer.fit()
    assert result.status == "finished"
    assert result.exit_code == 0
    assert result.metrics["validation/loss"] < 4.0 < math.log(257)
    assert trainer.compute_perplexity() == pytest.approx(math.exp(result.metrics["validation/loss"]), rel=1e-4)
    assert trainer.generate("def ", max_tokens=5).startswith("def ")
    assert "finished" in capsys.readouterr().out


class Recurrent(nn.Module):
    """Not a transformer: any module from tokens to logits will do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(257, 24)
        self.recurrent = nn.GRU(24, 24, batch_first=True)
        self.head = nn.Linear(24, 257)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.recurrent(self.embedding(tokens))[0])
        return logits


def test_own_module_and_own_optimizer_resume_in_python(text: Path, tmp_path: Path) -> None:
    def trainer(run: str, *, stop_at: int | None = None) -> Any:
        torch.manual_seed(0)

        class Leaves:
            def observe(self, event: Event) -> None:
                if isinstance(event, StepsEnded) and event.last_step == stop_at:
                    raise KeyboardInterrupt

        return language_model(
            text,
            tmp_path / run,
            model=Recurrent(),
            make_optimizer=lambda groups: torch.optim.SGD(groups, lr=0.5, momentum=0.9),
            monitors=[Leaves()],
        )

    whole = trainer("a")
    assert whole.fit().metrics["validation/loss"] < math.log(257)
    with pytest.raises(KeyboardInterrupt):
        trainer("b", stop_at=20).fit()
    again = trainer("b")
    again.fit()
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert json.loads((tmp_path / "b/environment.json").read_text())["source"] == "python"


def test_early_stopping_restores_the_best(text: Path, tmp_path: Path) -> None:
    """A rate that destroys the model after a good start: patience ends the run, and the best weights come back."""
    events = Remembers()
    trainer = language_model(
        text,
        tmp_path / "run",
        {
            "schedule": {"name": "constant", "warmup": 0},
            "stopping": {"name": "patience", "patience": 2},
            "gradients.clip": {"name": "none"},
            "training.steps": 400,
        },
        monitors=[events],
        controllers=[Wild(at=30)],
    )
    result = trainer.fit()
    assert result.status == "stopped"
    assert "has not improved" in result.reason
    ended = next(event for event in events.events if isinstance(event, RunEnded))
    evaluations = {e.step: e.metrics["validation/loss"] for e in events.events if isinstance(e, EvaluationEnded)}
    best = min(evaluations, key=lambda step: evaluations[step])
    assert ended.restored_step == result.best_step == best < result.step
    assert trainer.compute_perplexity() == pytest.approx(math.exp(evaluations[best]), rel=1e-4)


class Wild:
    """Raises the learning rate tenfold, and so spoils a run."""

    name = "wild"

    def __init__(self, at: int) -> None:
        self.at = at

    def decide(self, event: Event) -> Any:
        from trimtab.events import Adjust

        if isinstance(event, EvaluationEnded) and event.step == self.at:
            return Adjust("to see what happens", "learning_rate", 10.0)
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


def test_a_run_of_nothing_but_nan_ends_with_exit_code_4(text: Path, tmp_path: Path) -> None:
    class Broken(Recurrent):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens) * math.nan

    result = language_model(text, tmp_path / "run", {"gradients.max_skipped": 5}, model=Broken()).fit()
    assert result.status == "failed"
    assert result.exit_code == 4
    assert "not finite" in result.reason


def test_own_controllers_decide(text: Path, tmp_path: Path) -> None:
    class Enough:
        name = "enough"

        def decide(self, event: Event) -> Stop | None:
            return Stop("enough") if isinstance(event, EvaluationEnded) and event.step == 20 else None

        def state(self) -> dict[str, Any]:
            return {}

        def load_state(self, state: Mapping[str, Any]) -> None:
            pass

    result = language_model(text, tmp_path / "run", controllers=[Enough()]).fit()
    assert (result.status, result.reason, result.step) == ("stopped", "enough", 20)


def test_errors_say_what_to_do(text: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="call fit"):
        language_model(text, tmp_path / "x").generate("a")
    with pytest.raises(DataError):
        language_model(tmp_path / "nothing", tmp_path / "y").fit()
    (tmp_path / "tiny.txt").write_text("a short line of text\n" * 9)
    with pytest.raises(DataError, match="sequence_length"):
        language_model(tmp_path / "tiny.txt", tmp_path / "z").fit()
    with pytest.raises(ConfigError, match="no evaluation measures"):
        language_model(text, tmp_path / "w", {"checkpoint.metric": "validation/beauty"}).fit()
    with pytest.raises(ConfigError, match="float32"):
        language_model(text, tmp_path / "v", model=Recurrent().half()).fit()


def test_an_optimizer_that_counts_in_its_groups_resumes(text: Path, tmp_path: Path) -> None:
    class Counts(torch.optim.SGD):
        """Its rate falls with a count that it keeps in its groups, as Prodigy's and schedule-free's do."""

        def __init__(self, groups: Any) -> None:
            super().__init__(groups, lr=0.5, momentum=0.9)
            for group in self.param_groups:
                group["k"] = 0

        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                group["k"] += 1
                group["lr"] = group["lr"] / group["k"] ** 0.5
            return super().step()

    class Leaves:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded) and event.last_step == 20:
                raise KeyboardInterrupt

    whole = language_model(text, tmp_path / "a", make_optimizer=Counts)
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        language_model(text, tmp_path / "b", make_optimizer=Counts, monitors=[Leaves()]).fit()
    again = language_model(text, tmp_path / "b", make_optimizer=Counts)
    again.fit()
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_own_optimizers_get_the_groups_that_the_configuration_asks_for(text: Path, tmp_path: Path) -> None:
    seen: list[list[dict[str, Any]]] = []

    def make(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        seen.append(groups)
        return torch.optim.SGD(groups, lr=0.1)

    settings = {"optimizer.decay.embeddings": False, "training.steps": 2, "evaluation.every": 2}
    language_model(text, tmp_path / "run", settings, make_optimizer=make).fit()
    embedding = 257 * 32
    assert embedding not in [p.numel() for p in seen[0][0]["params"]]
    assert embedding in [p.numel() for p in seen[0][1]["params"]]


def test_controllers_given_in_python_belong_to_the_run(text: Path, tmp_path: Path) -> None:
    from trimtab.control import Patience

    with pytest.raises(ConfigError, match="distinct"):
        language_model(text, tmp_path / "x", controllers=[Patience(3)]).fit()
    language_model(text, tmp_path / "run", {"training.steps": 2, "evaluation.every": 2}, controllers=[Wild(9)]).fit()
    assert json.loads((tmp_path / "run/environment.json").read_text())["source"] == "python"
    started = json.loads((tmp_path / "run/record.jsonl").read_text().splitlines()[0])
    assert started["facts"]["begun_by"] == "python"
    identity = json.loads((tmp_path / "run/facts.json").read_text())["identity"]
    assert identity["controllers"][-1] == "wild"
    assert identity["device"] in ("cpu", "cuda")


def test_accepted_drift_takes_effect(text: Path, tmp_path: Path) -> None:
    class Leaves:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded) and event.last_step > 20:
                raise KeyboardInterrupt

    run, settings = tmp_path / "run", {**SETTINGS, "data.source": {"name": "text", "path": str(text)}}
    before, events = Remembers(), Remembers()
    overrides = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    config = load_config("gpt-1m", [*overrides, "training.accumulation=2"])
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=run, monitors=[before, Leaves()]).fit()
    Trainer(load_config("gpt-1m", overrides), run=run, monitors=[events], accept_drift=True).fit()
    started = next(event for event in events.events if isinstance(event, RunStarted))
    assert started.resumed_from == 20
    old, new = (
        [event.per_step["tokens"][-1] for event in seen.events if isinstance(event, StepsEnded)]
        for seen in (before, events)
    )
    assert new[-1] <= 8 * 32 < old[0]  # the end of the text may be shorter than a sequence


def test_measuring_leaves_running_statistics_alone(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Normalized(Recurrent):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(24)
            self.calls = [0]

        def get_extra_state(self) -> list[int]:
            return self.calls

        def set_extra_state(self, state: list[int]) -> None:
            self.calls = state

        def forward(self, tokens: Tensor) -> Tensor:
            self.calls[0] += self.training
            hidden = self.norm(self.embedding(tokens).transpose(1, 2)).transpose(1, 2)
            logits: Tensor = self.head(self.recurrent(hidden)[0])
            return logits

    settings = {"training.compile": "on", "training.steps": 3, "evaluation.every": 3}
    module = Normalized()
    monkeypatch.setattr("trimtab.training.execution._compile", lambda model, scope: None)
    language_model(text, tmp_path / "run", settings, model=module).fit()
    assert int(module.norm.num_batches_tracked) == 3
    assert module.calls == [3]


def test_a_folder_of_jsonl_is_read_as_such(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lines"
    folder.mkdir()
    for path in text.iterdir():
        (folder / f"{path.stem}.jsonl").write_text(json.dumps({"text": path.read_text()}))
    assert language_model(folder, tmp_path / "run").config.data.source.name == "jsonl"


def test_a_finished_run_is_not_begun_again_and_drift_is_refused(text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    language_model(text, run).fit()
    with pytest.raises(UsageError, match="already finished"):
        language_model(text, run).fit()
    interrupted = tmp_path / "other"

    class Leaves:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        language_model(text, interrupted, monitors=[Leaves()]).fit()
    with pytest.raises(DriftError, match=r"optimizer\.beta1"):
        language_model(text, interrupted, {"optimizer.beta1": 0.5}).fit()


def test_jsonl_and_a_file(tmp_path: Path, text: Path) -> None:
    lines = [json.dumps({"text": path.read_text()}) for path in text.iterdir() for _ in range(1)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    trainer = language_model(tmp_path / "data.jsonl", tmp_path / "run", {"training.steps": 4, "evaluation.every": 4})
    assert trainer.config.data.source.name == "jsonl"
    assert trainer.fit().status == "finished"


def test_the_run_keeps_its_configuration(text: Path, tmp_path: Path) -> None:
    trainer = Trainer(
        load_config(None, [f"{k}={json.dumps(v)}" for k, v in SETTINGS.items()] + [
            f'data.source={{"name": "text", "path": "{text}"}}', "training.steps=2", "evaluation.every=2",
        ]),
        run=tmp_path / "run",
    )  # fmt: skip
    trainer.fit()
    assert load_config(RunDirectory.open(tmp_path / "run").config) == trainer.config


class Adjusts:
    """Adjusts one thing after another, at evaluations."""

    name = "adjusts"

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)

    def decide(self, event: Event) -> Any:
        from trimtab.events import Adjust

        return Adjust("to see", self.names.pop(0), 1.0) if isinstance(event, EvaluationEnded) and self.names else None

    def state(self) -> dict[str, Any]:
        return {"names": self.names}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.names = list(state["names"])


@pytest.mark.parametrize("there", [True, False])
def test_an_adjustment_of_what_the_run_has_not_is_overruled_and_said(text: Path, tmp_path: Path, there: bool) -> None:
    from trimtab.config import ADJUSTABLE
    from trimtab.events import DecisionTaken

    settings: dict[str, Any] = {
        "training.steps": len(ADJUSTABLE),
        "evaluation.every": 1,
        "model.dropout": {"residual": 0.1},
    }
    settings |= {"objective.z_loss": 1e-4, "objective.label_smoothing": 0.1}
    settings |= {"optimizer_switch": {"patience": 4, "to": {"name": "sgd"}}}
    if not there:
        settings |= {"model.dropout": {"residual": 0.0}, "objective.z_loss": 0.0, "objective.label_smoothing": 0.0}
        settings |= {"optimizer.weight_decay": 0.0, "gradients.clip": {"name": "none"}, "lint.allow": ["clipping-off"]}
        settings |= {"optimizer_switch": None}
    events = Remembers()
    language_model(text, tmp_path / "run", settings, controllers=[Adjusts(ADJUSTABLE)], monitors=[events]).fit()
    decided = {e.decision.name: e for e in events.events if isinstance(e, DecisionTaken) and e.controller == "adjusts"}
    assert list(decided) == list(ADJUSTABLE)
    missing = {name: decision.note for name, decision in decided.items() if decision.outcome == "overruled"}
    without = {"dropout", "label_smoothing", "z_loss", "weight_decay", "clip_threshold", "optimizer"}
    assert set(missing) == {"unfreeze"} | (set() if there else without)  # it does not go with an optimizer's switch
    assert all(note.startswith("without effect in this run: ") for note in missing.values())


class Leaves:
    """Ends a run, as a kill would, when the window that ends at `step` is told."""

    def __init__(self, step: int) -> None:
        self.step = step

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step == self.step:
            raise KeyboardInterrupt


class Rolls(Recurrent):
    """Draws from every global generator, when it is built and in training, and counts in its extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("phase", torch.from_numpy(np.random.rand(24)).float(), persistent=False)
        self.offset = random.random()
        self.calls: dict[str, Any] = {"number": 0, "largest": math.inf}

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens) + self.phase * self.offset
        if self.training:
            self.calls["number"] += 1
            hidden = hidden * float(np.random.rand()) + random.random() + torch.rand(()) * self.calls["number"] / 100
        logits: Tensor = self.head(self.recurrent(hidden)[0])
        return logits

    def get_extra_state(self) -> dict[str, Any]:
        return self.calls

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.calls = dict(state)


def test_a_module_that_draws_from_every_generator_resumes_to_the_same_bits(text: Path, tmp_path: Path) -> None:
    settings = {"model": {"name": "custom", "target": f"{__name__}:Rolls"}, "training.accumulation": 2}
    whole = language_model(text, tmp_path / "a", settings)
    whole.fit()
    np.random.seed(1)
    random.seed(1)
    with pytest.raises(KeyboardInterrupt):
        language_model(text, tmp_path / "b", settings, monitors=[Leaves(20)]).fit()
    np.random.seed(2)
    random.seed(2)
    again = language_model(text, tmp_path / "b", settings)
    again.fit()
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert again.model.module.calls == whole.model.module.calls
    assert whole.model.module.calls["number"] == 80


def test_a_module_whose_state_cannot_be_saved_is_refused_before_training(text: Path, tmp_path: Path) -> None:
    class Keeps(Rolls):
        def get_extra_state(self) -> Any:
            return {"a set": {1, 2}}

    class Gives(Recurrent):
        def get_extra_state(self) -> Any:
            return torch.zeros(2)

    with pytest.raises(ConfigError, match=r"module\._extra_state is a dict, or holds what JSON cannot"):
        language_model(text, tmp_path / "x", model=Keeps()).fit()
    with pytest.raises(ConfigError, match="no set_extra_state"):
        language_model(text, tmp_path / "y", model=Gives()).fit()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("slot", ["history", "name"])
def test_an_optimizer_that_keeps_what_cannot_be_saved_is_refused_at_its_first_update(
    text: Path, tmp_path: Path, slot: str
) -> None:
    class Keeps(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter][slot] = [1.0, 2.0] if slot == "history" else "a text"
            return super().step()

    events = Remembers()
    with pytest.raises(ConfigError, match=rf"Keeps cannot be resumed: .*keeps a (list|str) in .*/{slot}"):
        language_model(text, tmp_path / "run", make_optimizer=lambda g: Keeps(g, lr=0.1), monitors=[events]).fit()
    assert not [event for event in events.events if isinstance(event, StepsEnded)]


def test_an_optimizer_that_is_built_with_what_cannot_be_saved_is_refused_there(text: Path, tmp_path: Path) -> None:
    def make(groups: Any) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(groups, lr=0.1)
        optimizer.state[optimizer.param_groups[0]["params"][0]]["window"] = (1, 2)
        return optimizer

    with pytest.raises(ConfigError, match="keeps a tuple"):
        language_model(text, tmp_path / "run", make_optimizer=make).fit()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {"custom"}))
def test_every_optimizer_trains_a_little_and_resumes_to_the_same_bits(text: Path, tmp_path: Path, name: str) -> None:
    for extra in OPTIMIZERS[name].needs:
        pytest.importorskip(EXTRAS[extra])
    rates = {"sgd": 0.3, "lion": 1e-3, "adafactor": 0.03, "lamb": 0.02}
    given: dict[str, Any] = {
        "optimizer.name": name,
        "optimizer.learning_rate": rates.get(name, 5e-3),
        "optimizer.rates.layers": 0.8,
        "schedule": {"name": "constant", "warmup": "0.05 epochs"},
        "evaluation.every": 15,
        "training.steps": 30,
        "stopping": {"name": "none"},
    }
    if name == "sophia":
        given["training.accumulation"] = 2  # estimates, too, come in parts
    if name not in ("adam", "sgd", "adafactor", "galore"):
        given["decay_schedule"] = {"name": "linear", "warmup": 0}

    class Leaves:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded) and event.last_step >= 16:
                raise KeyboardInterrupt

    told = Remembers()
    whole = language_model(text, tmp_path / "whole", given, monitors=[told])
    result = whole.fit()
    first, *_, last = [event.metrics["validation/loss"] for event in told.events if isinstance(event, EvaluationEnded)]
    assert last < first < math.log(257)
    with pytest.raises(KeyboardInterrupt):
        language_model(text, tmp_path / "cut", given, monitors=[Leaves()]).fit()
    again = Remembers()
    resumed = language_model(text, tmp_path / "cut", given, monitors=[again])
    assert resumed.fit().metrics == result.metrics
    assert [e.resumed_from for e in again.events if isinstance(e, RunStarted)] == [15]
    for (key, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), key
    # The weights that the model is left with, and those of the checkpoint, are the judged ones.
    assert whole.compute_perplexity() == pytest.approx(math.exp(last), rel=1e-4)
    trained = open_trained(tmp_path / "whole", "latest")
    for (key, a), b in zip(whole.model.named_parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(a, b), key
    facts = json.loads(RunDirectory.open(tmp_path / "whole").facts.read_text())
    assert len({group["rate"] for group in facts["parameter_groups"]}) > 1
    warmup = round(0.05 * facts["tokens_per_epoch"] / facts["tokens_per_step"])
    applied = np.concatenate([e.per_step["learning_rate"] for e in told.events if isinstance(e, StepsEnded)])
    expected = [given["optimizer.learning_rate"] * min(1.0, (step + 1) / warmup) for step in range(30)]
    assert applied == pytest.approx(expected, rel=1e-5)


def test_schedules_of_groups_are_recorded_and_resume_to_the_same_bits(text: Path, tmp_path: Path) -> None:
    """What is recorded of each group is the closed form of its schedule; decay to a norm and clipping by group, too."""
    given: dict[str, Any] = {
        "optimizer.learning_rate": 4e-3,
        "optimizer.rates.layers": 0.5,
        "optimizer.rates.schedules": {"*norm*": {"name": "constant"}, "embedding*": {"name": "linear", "warmup": 0.5}},
        "optimizer.decay.target": 0.9,
        "gradients.clip.groups": {"embedding*": 0.2},
        "schedule": {"name": "cosine", "warmup": 3, "floor": 0.2},
        "evaluation.every": 15,
        "training.steps": 30,
        "stopping": {"name": "none"},
        "logging.every": 4,
    }

    class Leaves:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded) and event.last_step >= 19:
                raise KeyboardInterrupt

    told = Remembers()
    whole = language_model(text, tmp_path / "whole", given, monitors=[told])
    result = whole.fit()
    curves: dict[str | None, Any] = {None: Cosine(30, 3, 0.2), "*norm*": Constant(), "embedding*": Linear(30, 15)}
    groups = json.loads(RunDirectory.open(tmp_path / "whole").facts.read_text())["parameter_groups"]
    assert {group["schedule"] for group in groups} == set(curves)
    windows = [event for event in told.events if isinstance(event, StepsEnded)]
    assert [window.last_step for window in windows][:4] == [1, 2, 4, 8]
    for window in windows:
        for group in groups:
            expected = 4e-3 * group["rate"] * curves[group["schedule"]].factor(window.last_step - 1)
            assert window.values[f"group/{group['name']}/learning_rate"] == pytest.approx(expected, rel=1e-12)
    with pytest.raises(KeyboardInterrupt):
        language_model(text, tmp_path / "cut", given, monitors=[Leaves()]).fit()
    again = Remembers()
    resumed = language_model(text, tmp_path / "cut", given, monitors=[again])
    assert resumed.fit().metrics == result.metrics
    for (key, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), key
    later = {event.last_step: event.values for event in again.events if isinstance(event, StepsEnded)}
    assert later
    for window in windows:
        for name, value in later.get(window.last_step, {}).items():
            assert not name.startswith("group/") or value == window.values[name]
    recorded = History.read(tmp_path / "cut" / "record.jsonl").series[f"group/{groups[0]['name']}/learning_rate"]
    curve = curves[groups[0]["schedule"]]
    assert recorded.steps.tolist() == [window.last_step for window in windows]
    expected = [4e-3 * groups[0]["rate"] * curve.factor(step - 1) for step in recorded.steps.tolist()]
    assert recorded.mean.tolist() == pytest.approx(expected, rel=1e-5)


def test_decay_to_a_norm_under_an_optimizer_from_outside_is_refused(text: Path, tmp_path: Path) -> None:
    trainer = language_model(
        text,
        tmp_path / "run",
        {"optimizer.decay.target": 0.5},
        make_optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
    )
    with pytest.raises(ConfigError, match=r"optimizer\.decay\.target: an optimizer from outside decays by itself"):
        trainer.fit()


def test_a_missing_library_is_told_before_a_run_is_begun(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="needs bitsandbytes, which is not installed"):
        language_model(text, tmp_path / "run", {"optimizer.name": "adamw_8bit"}).fit()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("clip", ["value", "parameter", "agc", "quantile", "z_score"])
def test_every_gradient_transform_resumes_to_the_same_bits(text: Path, tmp_path: Path, clip: str) -> None:
    given: dict[str, Any] = {
        "gradients": {
            "centralize": True,
            "clip": {"name": clip, **({"memory": 10} if clip in ("quantile", "z_score") else {})},
            "noise": {"scale": 1e-6},
        },
        "recovery": {"spikes": {"name": "skip", "deviations": 2.0, "memory": 10}},
        "evaluation.every": 15,
        "training.steps": 30,
        "stopping": {"name": "none"},
    }

    class Leaves:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded) and event.last_step >= 16:
                raise KeyboardInterrupt

    whole = language_model(text, tmp_path / "whole", given)
    result = whole.fit()
    assert result.metrics["validation/loss"] < math.log(257)
    with pytest.raises(KeyboardInterrupt):
        language_model(text, tmp_path / "cut", given, monitors=[Leaves()]).fit()
    again = Remembers()
    resumed = language_model(text, tmp_path / "cut", given, monitors=[again])
    assert resumed.fit().metrics == result.metrics
    assert [e.resumed_from for e in again.events if isinstance(e, RunStarted)] == [15]
    for (key, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_fails_while_it_saves_has_the_save_in_its_record(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    class Fails:
        name = "fails"

        def decide(self, event: Event) -> None:
            if isinstance(event, StepsEnded) and event.last_step >= 14:
                raise ValueError("a controller failed")

        def state(self) -> dict[str, Any]:
            return {}

        def load_state(self, state: Mapping[str, Any]) -> None:
            pass

    write = keeper.write_snapshot

    def slowly(*given: Any) -> int:
        time.sleep(0.5)
        if fails:
            raise StorageError("the checkpoint could not be written: No space left on device")
        return write(*given)

    monkeypatch.setattr(keeper, "write_snapshot", slowly)
    monkeypatch.setattr(keeper, "RETRY_SECONDS", 0.01)
    settings = {"training.steps": 40, "evaluation.every": 40, "checkpoint.every": 14, "logging.every": 4}
    trainer = language_model(text, tmp_path / "run", settings, controllers=[Fails()])
    with warnings.catch_warnings(record=True) as warned, pytest.raises(ValueError, match="a controller failed"):
        trainer.fit()
    assert any("No space left on device" in str(warning.message) for warning in warned) == fails
    lines = [line["event"] for line in read_record(tmp_path / "run/record.jsonl")]
    assert lines.count("CheckpointSaved") == (0 if fails else 1)
    assert lines[-1] == "RunEnded"
