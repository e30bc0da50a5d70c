"""The learning rate goes with the batch as the rule says, and is told as it is applied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab import LanguageModelTrainer
from trimtab.config import Config, dump_config, load_config
from trimtab.doctor import Case
from trimtab.doctor.remedies import change, learning_rate_in_use
from trimtab.errors import ConfigError
from trimtab.events import Event, StepsEnded
from trimtab.runs.files import read_json
from trimtab.runs.history import History


def scaled(name: str, reference: int, micro_batch: int = 16, accumulation: int = 1) -> Config:
    scaling: dict[str, Any] = {"name": name} | ({} if name == "none" else {"reference_batch": reference})
    training = {"micro_batch_size": micro_batch, "accumulation": accumulation}
    return Config.model_validate({"optimizer": {"name": "adamw", "batch_scaling": scaling}, "training": training})


@given(reference=st.integers(1, 512), micro_batch=st.integers(1, 64), accumulation=st.integers(1, 8))
def test_the_rules(reference: int, micro_batch: int, accumulation: int) -> None:
    ratio = micro_batch * accumulation / reference
    for name, scale in (("none", 1.0), ("linear", ratio), ("square_root", ratio**0.5)):
        config = scaled(name, reference, micro_batch, accumulation)
        assert config.rate_scale == pytest.approx(scale)
        assert config.full_rate == pytest.approx(config.optimizer.learning_rate * scale)
    split, whole = (
        scaled("linear", reference, micro_batch, accumulation),
        scaled("linear", reference, micro_batch * accumulation),
    )
    assert split.full_rate == whole.full_rate, "how a batch is split changes nothing"


def test_the_table_of_goyal() -> None:
    """Goyal et al. 2017, section 5.1: 0.1 for 256 images, 3.2 for 8,192."""
    config = load_config(
        None,
        [
            "optimizer={name: sgd, learning_rate: 0.1, batch_scaling: {name: linear, reference_batch: 256}}",
            "training.micro_batch_size=256",
            "training.accumulation=32",
        ],
        environment={},
    )
    assert config.full_rate == pytest.approx(3.2)


def test_it_is_told_where_the_rate_is_shown_and_loads_again(tmp_path: Path) -> None:
    config = scaled("square_root", 4)
    text = dump_config(config)
    (line,) = [line for line in text.splitlines() if line.strip().startswith("learning_rate: 0")]
    assert line.endswith("applied: 0.0006, 2 times it, as 16 sequences are an update (square root scaling)")
    assert "applied" not in dump_config(scaled("none", 4))
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert load_config(path, environment={}) == config


def test_the_reference_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.batch_scaling\.reference_batch: must be given"):
        load_config(None, ["optimizer.batch_scaling.name=linear"], environment={})


def test_the_doctor_speaks_of_the_rate_as_applied_and_sets_what_gives_it() -> None:
    case = Case(History(), {"optimizer.learning_rate": 1e-3}, {"learning_rate": {"scale": 4.0}})
    assert learning_rate_in_use(case) == 4e-3
    remedy = change(case, "lower the learning rate to 0.001", learning_rate=1e-3)
    assert remedy.config == {"optimizer.learning_rate": 2.5e-4}
    assert remedy.summary == "lower the learning rate to 0.001 as applied, by setting 0.00025"
    plain = Case(History(), {"optimizer.learning_rate": 1e-3})
    assert change(plain, "lower it", learning_rate=1e-4).config == {"optimizer.learning_rate": 1e-4}


def test_a_run_applies_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "text.py"
    source.write_text((Path(os.__file__).parent / "heapq.py").read_text())
    seen: list[float] = []

    class Watch:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded):
                seen.extend(event.per_step["learning_rate"].tolist())

    settings = {
        "data.tokenizer": {"name": "bytes"}, "data.sequence_length": 32, "seed": 1,
        "model": {"name": "decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2},
        "schedule": {"name": "linear", "warmup": 0}, "training.steps": 4, "training.micro_batch_size": 4,
        "training.accumulation": 2, "evaluation.gap_tokens": 0, "evaluation.max_tokens": 256,
        "evaluation.samples.max_tokens": 0, "optimizer.learning_rate": 1e-3,
        "optimizer.batch_scaling": {"name": "square_root", "reference_batch": 2},
    }  # fmt: skip
    result = LanguageModelTrainer(
        source, settings=settings, run=tmp_path / "run", monitors=[Watch()], progress=False
    ).fit()
    assert seen == pytest.approx(2e-3 * (1.0 - np.arange(1, 5) / 4))
    facts = read_json(result.run / "facts.json")["learning_rate"]
    assert facts == {"set": 1e-3, "scale": 2.0, "applied": 2e-3, "batch": 8}
