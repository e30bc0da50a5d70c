"""show --attention and --modules, on a run of a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trimtab import Trainer, load_config, visualize_attention
from trimtab.cli import app
from trimtab.cli.inside import beginning
from trimtab.data import byte_tokenizer
from trimtab.errors import UsageError
from trimtab.runs import RunDirectory
from trimtab.training.trained import open_trained

SMALL = (
    "training.steps=4",
    "evaluation.every=4",
    "data.tokenizer.name=bytes",
    "model.num_layers=2",
    "model.hidden_size=16",
    "model.num_heads=2",
    "data.sequence_length=32",
    "evaluation.gap_tokens=0",
    "evaluation.max_tokens=500",
    "evaluation.yardsticks=false",
    "evaluation.samples.max_tokens=40",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inside") / "run"
    Trainer(load_config("gpt-1m", SMALL), run=path).fit()
    return path


def show(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["show", *map(str, arguments)])
    if isinstance(done.exception, UsageError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_picture_of_a_layer_from_the_newest_sample(run: Path) -> None:
    text = show(run, "--attention")
    assert "blocks.1.attention, layer 1 (the last; of 2, counted from 0), 32 tokens" in text
    picture = run / "artifacts" / "attention" / "step-00000004-layer-1.png"
    assert f"picture: {picture}" in text
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("most", range(1, 9))
def test_what_is_no_text_is_cut_to_its_tokens(most: int) -> None:
    tokenizer = byte_tokenizer()
    text = tokenizer.decode([97, 200, 98, 255, 254, 99])
    found = beginning(text, tokenizer, most)
    assert len(tokenizer.encode(found)) <= most
    assert text.startswith(found.rstrip("\ufffd"))
    assert beginning("abc", tokenizer, 2) == "ab"


def test_one_head_as_json_is_what_python_gives(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "head.svg"
    told = json.loads(show(run, "--attention", "--layer", 0, "--head", 1, "--text", "abc def", "--json", "--out", out))
    trained = open_trained(run)
    view = visualize_attention(trained.model, "abc def", trained.tokenizer, 0, 1)
    assert told["tokens"] == list("abc def")
    np.testing.assert_allclose(told["weights"], view.weights, atol=1e-6)
    assert told["step"] == 4
    assert out.exists()


def test_the_modules_of_a_run(run: Path) -> None:
    assert "0 … 1 (2): Block" in show(run, "--modules")
    told = json.loads(show(run, "--modules", "--json"))
    assert {one["name"]: one["output"] for one in told["modules"]}["blocks.0"] == [1, 32, 16]
    assert RunDirectory(run).modules.exists()


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--head", "1"], "--head: goes with --attention"),
        (["--modules", "--checkpoint", "latest"], "--checkpoint: goes with --attention"),
        (["--attention", "--modules"], "one at a time"),
        (["--attention", "--text", "x" * 33], "--text: longer than the 32 tokens"),
        (["--attention", "--layer", "blocks.9"], "no layer 'blocks.9'"),
    ],
)
def test_what_is_refused(run: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        show(run, *arguments)
