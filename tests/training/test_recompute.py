"""Runs that compute activations again: the same losses, resumed as begun, and the least that fits."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab import LanguageModelTrainer
from trimtab.config import load_config
from trimtab.errors import ConfigError, ResourceError
from trimtab.model import Decoder
from trimtab.trainer import Trainer
from trimtab.training.recompute import least_recompute

TEXT = "what is not kept is computed again, and what is computed again is the same\n" * 600


def settings(tmp_path: Path, *, recompute: str, **training: Any) -> dict[str, Any]:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    dropout = {"residual": 0.1, "layer": 0.2}
    return {
        "model": {"name": "decoder", "num_layers": 2, "hidden_size": 16, "num_heads": 2, "dropout": dropout},
        "data": {"sequence_length": 16, "source": {"name": "text", "path": str(path)}, "tokenizer": {"name": "bytes"}},
        "training": {
            "steps": 8, "micro_batch_size": 4, "accumulation": 2, "compile": "off", "device": "cpu", "threads": 1,
            "recompute": recompute, **training,
        },
        "evaluation": {"every": 4, "gap_tokens": 0, "yardsticks": False},
        "stopping": {"name": "none"},
    }  # fmt: skip


class _Leaves:
    def observe(self, event: Any) -> None:
        if type(event).__name__ == "StepsEnded" and event.last_step >= 5:
            raise KeyboardInterrupt


def test_a_run_has_the_same_weights_and_resumes_to_them(tmp_path: Path) -> None:
    found = {}
    for how in ("none", "selective", "full"):
        trainer = Trainer(load_config(settings(tmp_path, recompute=how), environment={}), run=tmp_path / how)
        trainer.fit()
        found[how] = trainer.trained()[0].state_dict()
        assert json.loads((tmp_path / how / "plan.json").read_text())["recompute"]["chosen"] == how
    config = load_config(settings(tmp_path, recompute="full"), environment={})
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=tmp_path / "parts", monitors=[_Leaves()]).fit()
    again = Trainer(config, run=tmp_path / "parts")
    again.fit()
    found["resumed"] = again.trained()[0].state_dict()
    for weights in found.values():
        assert all(torch.equal(weights[key], value) for key, value in found["none"].items())


IN_A_PROCESS = """
import json, sys
import psutil
from trimtab.config import load_config
from trimtab.training.memory import free_memory
from trimtab.trainer import Trainer
import torch
small, config, run, more = json.loads(sys.argv[1])
Trainer(load_config(small, environment={}), run=run + "-small").fit()  # what a first run loads is not of the second
free_memory(torch.device("cpu"))
config["training"]["memory_budget_bytes"] = psutil.Process().memory_info().rss + (more << 20)
Trainer(load_config(config, environment={}), run=run).fit()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decoder", "hugging_face"])
def test_auto_takes_what_fits_and_the_run_keeps_it(tmp_path: Path, kind: str) -> None:
    """In a process of its own: where much was freed before, the memory asked for does not show."""
    config = settings(tmp_path, recompute="auto", steps=1, micro_batch_size=8, accumulation=1)
    theirs = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 2, "n_positions": 512, "attn_pdrop": 0.0}
    if kind == "hugging_face":
        config["model"] = {"name": kind, "config": theirs}
    small = copy.deepcopy(config)
    config["model"] = {"name": "decoder", "num_layers": 16, "hidden_size": 64, "num_heads": 2}
    if kind == "hugging_face":
        config["model"] = {"name": kind, "config": theirs | {"n_layer": 16}}
    config["data"]["sequence_length"] = 512
    arguments = json.dumps([small, config, str(tmp_path / "run"), 230 if kind == "decoder" else 430])
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert plan["recompute"]["chosen"] == "full"
    assert set(plan["recompute"]["tried"]) == {"none", "selective"} - ({"selective"} if kind != "decoder" else set())
    assert (plan["micro_batch"]["chosen"], plan["micro_batch"]["accumulation"]) == (8, 1)


def _model() -> Decoder:
    return Decoder(vocabulary_size=5, max_positions=4, num_layers=1, hidden_size=8, num_heads=1, feed_forward_size=8)


@pytest.mark.parametrize(
    ("fits", "size", "chosen"),
    [
        ({"none": 8, "selective": 8, "full": 8}, 8, "none"),
        ({"none": 4, "selective": 8, "full": 8}, 8, "selective"),
        ({"none": 0, "selective": 4, "full": 8}, 8, "full"),
        ({"none": 0, "selective": 0, "full": 4}, 8, "full"),
        ({"none": 1, "selective": 8, "full": 8}, None, "none"),  # a smaller micro-batch is quicker
        ({"none": 0, "selective": 2, "full": 8}, None, "selective"),
    ],
)
def test_the_least_that_fits(fits: dict[str, int], size: int | None, chosen: str) -> None:
    model = _model()

    def find(*, tries: bool = False) -> dict[str, Any]:
        block = next(iter(model.all_blocks))
        if not tries:
            return {"chosen": size, "reason": "as configured"}
        if not fits[block.recompute]:
            raise ResourceError("one sequence does not fit")
        return {"chosen": fits[block.recompute], "reason": "found"}

    plan, micro_batch = least_recompute("auto", model, find, size, lambda what, fraction: None)
    assert plan["chosen"] == next(iter(model.all_blocks)).recompute == chosen
    assert micro_batch["chosen"] == (size or fits[chosen])
    assert plan.get("fallback", False) == (fits["full"] < (size or 0))


def test_of_models_of_transformers_whole_layers_are_tried_alone() -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=5, n_embd=8, n_head=1, n_layer=1))

    def find(*, tries: bool = False) -> dict[str, Any]:
        with warnings.catch_warnings(action="ignore"):
            if not model.is_gradient_checkpointing:
                raise ResourceError("one sequence does not fit")
        return {"chosen": 8, "reason": "found"}

    plan, _ = least_recompute("auto", model, find, 8, lambda what, fraction: None)
    assert (plan["chosen"], list(plan["tried"])) == ("full", ["none"])


def test_what_does_not_fit_at_all_is_said() -> None:
    def find(*, tries: bool = False) -> dict[str, Any]:
        raise ResourceError("one sequence does not fit")

    with pytest.raises(ResourceError, match="does not fit"):
        least_recompute("auto", _model(), find, None, lambda what, fraction: None)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": {"name": "custom", "target": "torch.nn:Identity"}}, "is for transformers, and model.name is custom"),
        ({"training": {"recompute": "full", "precision": {"name": "fp8"}}}, "fp8"),
    ],
)
def test_what_it_does_not_go_with_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config({"training": {"recompute": "full"}, **more}, environment={})


def test_a_module_given_in_python_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    module = torch.nn.Sequential(torch.nn.Embedding(300, 4), torch.nn.Linear(4, 300))
    overrides = {"training.recompute": "full", "training.steps": 2, "data.tokenizer": {"name": "bytes"}}
    with pytest.raises(ConfigError, match=r"own transformers, .*that can: none"):
        LanguageModelTrainer(text, model=module, settings=overrides, run=tmp_path / "run", progress=False).fit()
