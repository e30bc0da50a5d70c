"""A run's model for transformers: equal logits, its tokenizer, and back again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_hugging_face import TINY
from typer.testing import CliRunner

from trimtab import Trainer, load_config
from trimtab.cli import app
from trimtab.errors import ConfigError, UsageError
from trimtab.export import export
from trimtab.training.predictor import open_predictor
from trimtab.training.trained import open_trained

transformers = pytest.importorskip("transformers")
AutoModel = transformers.AutoModelForCausalLM


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def trained(run: Path, model: dict[str, Any], **more: Any) -> Path:
    text = Path(json.__file__)
    settings = {
        "model": model,
        "data": {"source": {"name": "text", "path": str(text)}, "tokenizer": {"name": "bytes"}, "sequence_length": 32},
        "training": {"steps": 4, "micro_batch_size": 4},
        "evaluation": {"every": 4, "gap_tokens": 0, "yardsticks": False},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        **more,
    }
    if "path" in model:
        settings["data"] = {key: value for key, value in settings["data"].items() if key != "tokenizer"}  # type: ignore[attr-defined]
    Trainer(load_config(settings, environment={}), run=run).fit()
    return run


DECODER = {"name": "decoder", "num_layers": 2, "hidden_size": 32, "num_heads": 4}


def test_a_decoder_is_written_read_and_trained_on(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", DECODER, averaging={"name": "ema"})
    out = tmp_path / "out"
    found = CliRunner().invoke(app, ["export", str(run), "--to", "hugging-face", "--out", str(out), "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["architecture"] == "Starcoder2ForCausalLM"
    assert told["largest_difference"] <= 1e-5 * told["largest_logit"]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    tokens_1T = tokenizer("import json", return_tensors="pt")["input_ids"]
    ours = open_trained(run)
    assert tokens_1T[0].tolist() == ours.tokenizer.encode("import json")
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens_1T).logits, ours.model(tokens_1T).logits, rtol=1e-5, atol=1e-5)
    assert theirs.config.eos_token_id == ours.tokenizer.end_of_text
    assert theirs.config.use_cache
    other = export(run, "hugging-face", tmp_path / "ema", weights="ema")
    assert other.weights == "ema"
    averaged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ema")
    assert not torch.equal(averaged.lm_head.weight, theirs.lm_head.weight)

    # What was written is a folder as any other: the run goes on from where it was.
    again = trained(tmp_path / "again", {"name": "hugging_face", "path": str(out)})
    assert open_trained(again).tokenizer.encode("import json") == tokens_1T[0].tolist()


def test_updates_of_low_rank_are_merged(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = export(trained(tmp_path / "run", DECODER), "hugging-face", tmp_path / "base")
    lora = {"rank": 2, "targets": "all"}
    run = trained(tmp_path / "lora", {"name": "hugging_face", "path": base.out, "lora": lora})
    told = export(run, "hugging-face", tmp_path / "merged")
    assert told.largest_difference <= 1e-4 * told.largest_logit
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    before = transformers.AutoModelForCausalLM.from_pretrained(base.out)
    assert [name for name, _ in merged.named_parameters()] == [name for name, _ in before.named_parameters()]
    assert not torch.equal(merged.model.layers[0].mlp.c_fc.weight, before.model.layers[0].mlp.c_fc.weight)


@pytest.mark.parametrize(
    "part",
    [{"lora": {"rank": 2, "targets": "all"}}, pytest.param({"freeze": ["*embed_tokens*"]}, marks=pytest.mark.slow)],
)
def test_a_part_of_a_model_is_not_written_as_the_whole(tmp_path: Path, part: dict[str, Any]) -> None:
    """Its frozen weights are in another folder."""
    pytest.importorskip("peft")
    base = export(trained(tmp_path / "run", DECODER), "hugging-face", tmp_path / "base")
    run = trained(tmp_path / "part", {"name": "hugging_face", "path": base.out, **part})
    with pytest.raises(UsageError, match=r"would hold a part of the model") as refused:
        export(run, "safetensors", tmp_path / "part.safetensors")
    assert "--to hugging-face" in str(refused.value)
    assert not list(tmp_path.glob("*part.safetensors*"))
    whole = trained(tmp_path / "whole", {"name": "hugging_face", "path": base.out})
    assert export(whole, "safetensors", tmp_path / "whole.safetensors").largest_difference == 0.0
    # What the hint names does it.
    export(run, "hugging-face", tmp_path / "all")
    names = [set(AutoModel.from_pretrained(folder).state_dict()) for folder in (tmp_path / "all", base.out)]
    assert names[0] == names[1]


def test_a_model_of_transformers_is_saved_as_it_is(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", {"name": "hugging_face", "config": TINY["gpt2"]})
    assert export(run, "hugging-face", tmp_path / "out").largest_difference == 0.0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ours = dict(open_trained(run).model.named_parameters())
    assert all(torch.equal(p, ours[f"module.{name}"]) for name, p in theirs.named_parameters())


ROWS = [{"text": f"{a} {b} {a}", "label": a, "value": b % 5} for a in ("red", "blue", "tan") for b in range(12)]
ENCODER = {"name": "encoder", "num_layers": 1, "hidden_size": 32, "num_heads": 4}


def of_rows(tmp_path: Path, model: dict[str, Any], task: dict[str, Any]) -> Path:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    data = {"source": {"name": "jsonl", "path": str(tmp_path / "rows.jsonl")}, "tokenizer": {"name": "bytes"}}
    kind = "binary_cross_entropy" if task.get("multi_label") else "cross_entropy"
    objective = {"name": "mse" if task["name"] == "regression" else kind}
    return trained(tmp_path / "run", model, task=task, data={**data, "sequence_length": 16}, objective=objective)


@pytest.mark.parametrize(
    ("model", "task", "problem"),
    [
        (ENCODER, {"name": "classification"}, "single_label_classification"),
        (DECODER, {"name": "classification", "multi_label": True}, "multi_label_classification"),
        (ENCODER, {"name": "regression"}, "regression"),
    ],
)
def test_models_of_whole_texts_leave_with_names_padding_and_the_way_texts_are_read(
    tmp_path: Path, model: dict[str, Any], task: dict[str, Any], problem: str
) -> None:
    run = of_rows(tmp_path, model, task)
    told = export(run, "hugging-face", tmp_path / "out")
    assert told.architecture.endswith("ForSequenceClassification")
    assert told.largest_difference <= 1e-5 * told.largest_logit
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    predictor, texts = open_predictor(run), ["blue y blue", "tan", "red x", ""]
    with torch.no_grad():
        logits = theirs(**tokenizer(texts, return_tensors="pt", padding=True)).logits
    config = theirs.config
    assert config.problem_type == problem
    if problem == "regression":
        expected = torch.stack(predictor.answers(texts)).flatten()
        found = logits.flatten() * config.target_deviation + config.target_mean
    else:
        assert tuple(config.id2label.values()) == predictor.targets.classes
        expected = torch.stack(predictor.probabilities(texts))
        found = logits.softmax(-1) if problem.startswith("single") else logits.sigmoid()
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-5, atol=1e-6)


def test_a_masked_language_model_leaves_with_its_mask(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", ENCODER, task={"name": "masked_lm"})
    assert export(run, "hugging-face", tmp_path / "out").architecture == "EuroBertForMaskedLM"
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    tokens_1T = tokenizer("im<|mask|>ort json", return_tensors="pt")["input_ids"]
    ours = open_trained(run)
    assert tokens_1T[0].tolist() == [*b"im", ours.model.vocabulary_size - 1, *b"ort json"]
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens_1T).logits, ours.model(tokens_1T).logits, rtol=1e-5, atol=1e-5)


def test_what_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", {**DECODER, "norm": {"name": "layer_norm", "placement": "post"}})
    with pytest.raises(ConfigError, match=r"model.norm.placement post: transformers has no architecture"):
        export(run, "hugging-face", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))
    with pytest.raises(UsageError, match=r"--to: there is no such target. Received: 'onnx'. Allowed: .*hugging-face"):
        export(run, "onnx", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(UsageError, match=r"--out: .*full is there already"):
        export(run, "hugging-face", tmp_path / "full")
