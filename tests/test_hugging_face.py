"""Hugging Face models through the trainer: every task, their own loss, resuming to the same bits, low-rank updates."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_hugging_face import TINY
from torch.nn import functional as F

from trimtab import Trainer, load_config
from trimtab.cli.models import generate
from trimtab.data import prepare_data
from trimtab.errors import CheckpointError, ConfigError
from trimtab.events import Event, RunStarted, StepsEnded
from trimtab.export import export
from trimtab.runs.files import read_json
from trimtab.signals import IGNORED
from trimtab.training.judging import build_evaluation
from trimtab.training.trained import open_trained

transformers = pytest.importorskip("transformers")

TASKS = {
    "causal_lm": "gpt2",
    "masked_lm": "bert",
    "seq2seq": "t5",
    "classification": "distilbert",
    "token_classification": "bert",
    "regression": "gpt2",
    "contrastive": "bert",
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of the standard library, and what can be said of them."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    with path.open("w") as file:
        for line in sorted({line.strip() for line in Path(json.__file__).read_text().splitlines()}):
            if len(words := line.split()[:12]) > 1:
                row = {
                    "text": " ".join(words),
                    "label": "code" if line[0].isalpha() else "other",
                    "tags": ["name" if word.isidentifier() else "sign" for word in words],
                    "value": float(len(line)),
                    "target": words[0],
                }
                print(json.dumps(row), file=file)
    return path


def settings(task: str, rows: Path, **more: Any) -> dict[str, Any]:
    contrasts = task == "contrastive"
    return {
        "task": {"name": task} | ({"second": "target", "projection": 6} if contrasts else {}),
        "model": {"name": "hugging_face", "config": TINY[TASKS[task]]},
        "objective": {"name": {"regression": "mse", "contrastive": "info_nce"}.get(task, "cross_entropy")},
        "optimizer": {"name": "adamw", "learning_rate": 5e-3},
        "training": {"steps": 12, "micro_batch_size": 4, "accumulation": 2},
        "evaluation": {"every": 4, "gap_tokens": 0, "max_tokens": 1024, "yardsticks": False}
        if task == "causal_lm"
        else {"every": 4, "gap_tokens": 0, "max_tokens": 1024},
        "logging": {"every": 3},
        "data": {
            "source": {"name": "jsonl", "path": str(rows)},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 40,
        },
        **more,
    }


def config_of(task: str, rows: Path, **more: Any) -> Any:
    return load_config(settings(task, rows, **more), environment={})


class Leaves:
    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step >= 6:
            raise KeyboardInterrupt


class Notes:
    def __init__(self) -> None:
        self.found: list[str] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.found += event.facts["notes"]


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.trained()[0].named_parameters()}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_trains_with_dropout_and_resumes_to_the_same_bits(task: str, rows: Path, tmp_path: Path) -> None:
    config, notes = config_of(task, rows), Notes()
    whole = Trainer(config, run=tmp_path / "whole", monitors=[notes])
    result = whole.fit()
    assert result.status == "finished"
    (told,) = [note for note in notes.found if "of transformers:" in note]
    assert "head and loss apart" in told
    assert "not compiled (" in told
    assert "not captured (graphs are for CUDA)" in told
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=tmp_path / "parts", monitors=[Leaves()]).fit()
    again = Trainer(config, run=tmp_path / "parts")
    assert again.fit().metrics == result.metrics
    assert all(torch.equal(p, weights_of(again)[name]) for name, p in weights_of(whole).items())
    trained = open_trained(tmp_path / "whole", "best")
    data = prepare_data(config.data, config.task, seed=config.seed)
    metrics = build_evaluation(config, trained.model, data).metrics()
    assert metrics == pytest.approx({key: result.metrics[key] for key in metrics}, rel=1e-5)


def test_layers_computed_again_leave_the_bits_as_they_are_and_resume(rows: Path, tmp_path: Path) -> None:
    """With dropout and low-rank updates, whose embeddings take no gradient."""
    plain = settings("causal_lm", rows)
    plain["model"] |= {"lora": {"rank": 2}}
    whole = Trainer(load_config(plain, environment={}), run=tmp_path / "whole")
    whole.fit()
    config = load_config(plain, ["training.recompute=full"], environment={})
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=tmp_path / "parts", monitors=[Leaves()]).fit()
    again = Trainer(config, run=tmp_path / "parts")
    again.fit()
    assert read_json(tmp_path / "parts/plan.json")["recompute"]["chosen"] == "full"
    assert all(torch.equal(p, weights_of(again)[name]) for name, p in weights_of(whole).items())
    with pytest.raises(ConfigError, match=r"selective is for trimtab's own transformers.*Fitting: full"):
        load_config(plain, ["training.recompute=selective"], environment={})


def test_the_loss_is_that_of_their_logits(rows: Path, tmp_path: Path) -> None:
    """Plain sums by hand over the validation set, with transformers' own call and its own shift of labels."""
    config = config_of("causal_lm", rows, evaluation={"every": 12, "gap_tokens": 0, "yardsticks": False})
    trainer = Trainer(config, run=tmp_path / "run")
    metrics = trainer.fit().metrics
    model, data = trainer.trained()
    theirs = model.module.eval()
    total = torch.zeros((), dtype=torch.float64)
    right = count = 0
    with torch.no_grad():
        for index in range(len(data.validation)):
            batch = data.validation.batch(torch.tensor([index]).numpy())
            real = int((batch.targets != IGNORED).sum())
            tokens_1T = torch.cat((batch.tokens_BT[:, :real], batch.targets[:, real - 1 : real]), dim=1)
            output = theirs(input_ids=tokens_1T, labels=tokens_1T)
            total += output.loss.double() * real
            right += int((output.logits[0, :-1].argmax(-1) == tokens_1T[0, 1:]).sum())
            count += real
    assert metrics["validation/loss"] == pytest.approx(float(total) / count, rel=1e-5)
    assert metrics["validation/accuracy"] == pytest.approx(right / count, abs=1e-9)


def test_the_loss_of_classes_is_that_of_their_logits(rows: Path, tmp_path: Path) -> None:
    config = config_of("classification", rows, evaluation={"every": 12, "gap_tokens": 0})
    trainer = Trainer(config, run=tmp_path / "run")
    metrics = trainer.fit().metrics
    model, data = trainer.trained()
    losses, right = [], []
    with torch.no_grad():
        for index in range(len(data.validation)):
            batch = data.validation.batch(torch.tensor([index]).numpy())
            real = int((batch.document_ids_BT >= 0).sum())
            logits_1V = model.module.eval()(input_ids=batch.tokens_BT[:, :real]).logits
            losses.append(float(F.cross_entropy(logits_1V.double(), batch.targets)))
            right.append(bool(logits_1V.argmax(-1) == batch.targets))
    assert metrics["validation/loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert metrics["validation/accuracy"] == pytest.approx(sum(right) / len(right))
    assert [int(answer) for answer in trainer.predict(["x = 1", "# y"])] == [
        int(model.module(input_ids=torch.tensor([[256, *text.encode()]])).logits.argmax()) for text in ("x = 1", "# y")
    ]


def test_fused_and_plain_are_one_training(rows: Path, tmp_path: Path) -> None:
    losses = []
    for fused in ("on", "off"):
        objective = {"name": "cross_entropy", "fused": fused, "label_smoothing": 0.1}
        trainer = Trainer(config_of("causal_lm", rows, objective=objective), run=tmp_path / fused)
        losses.append(trainer.fit().metrics["validation/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    objective = {"name": "cross_entropy", "fused": "on"}
    with pytest.raises(ConfigError, match=r"objective.fused: head and loss of BertForMaskedLM .*: its head has a bias"):
        Trainer(config_of("masked_lm", rows, objective=objective), run=tmp_path / "bert").fit()


def test_seeds_decide_over_dropout(rows: Path, tmp_path: Path) -> None:
    """Two runs of one seed are the same, whatever the generators were before; other rates are other runs."""
    ends = []
    for index, rate in enumerate((0.1, 0.1, 0.5)):
        torch.manual_seed(index)
        model = {"name": "hugging_face", "config": TINY["gpt2"] | {"resid_pdrop": rate}}
        trainer = Trainer(config_of("causal_lm", rows, model=model), run=tmp_path / str(index))
        trainer.fit()
        ends.append(weights_of(trainer))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not all(torch.equal(ends[0][name], ends[2][name]) for name in ends[0])


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Folders of models with tokenizers of their own, as they come from the Hub."""

    def make(name: str, kind: str) -> Path:
        import tokenizers as library

        path = tmp_path_factory.mktemp("models") / name
        text = Path(json.__file__).read_text().split()
        tokenizer: Any = library.Tokenizer(library.models.WordLevel(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
        special = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "</s>"]
        tokenizer.train_from_iterator(text, library.trainers.WordLevelTrainer(special_tokens=special, vocab_size=200))
        template = {"bert": "[CLS] $A [SEP]", "t5": "$A </s>", "gpt2": None}[name]
        if template is not None:
            used = [(token, tokenizer.token_to_id(token)) for token in special if token in template]
            tokenizer.post_processor = library.processors.TemplateProcessing(single=template, special_tokens=used)
        named = {
            "bert": {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "pad_token": "[PAD]"},
            "t5": {"eos_token": "</s>", "pad_token": "[PAD]"},
            "gpt2": {"eos_token": "</s>"},
        }[name]
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(path)
        size = tokenizer.get_vocab_size()
        pad = None if name == "gpt2" else tokenizer.token_to_id("[PAD]")
        extra = {"decoder_start_token_id": pad} if name == "t5" else {}
        described = transformers.AutoConfig.for_model(**TINY[name], vocab_size=size, pad_token_id=pad, **extra)
        torch.manual_seed(0)
        getattr(transformers, kind).from_config(described).save_pretrained(path)
        return path

    return make


def from_folder(task: str, rows: Path, path: Path, **more: Any) -> Any:
    given = settings(task, rows, model={"name": "hugging_face", "path": str(path)} | more.pop("model", {}), **more)
    given["data"].pop("tokenizer")
    return load_config(given, environment={})


def test_texts_stand_in_the_folders_own_frame(rows: Path, folder: Callable[[str, str], Path], tmp_path: Path) -> None:
    bert = folder("bert", "AutoModelForMaskedLM")
    theirs = transformers.AutoTokenizer.from_pretrained(bert)
    config = from_folder("classification", rows, bert)
    data = prepare_data(config.data, config.task, seed=0)
    batch = data.training.batch(torch.arange(8).numpy())
    for row in range(8):
        real = batch.tokens_BT[row][batch.document_ids_BT[row] >= 0].tolist()
        assert real == theirs(data.tokenizer.decode(data.training.row(row).tolist()))["input_ids"]
    tags = prepare_data(config.data, config_of("token_classification", rows).task, seed=0).training
    tagged = tags.batch(torch.arange(8).numpy())
    for row in range(8):
        length = int((tagged.document_ids_BT[row] >= 0).sum())
        asked = (tagged.targets[row] != IGNORED).tolist()
        assert asked[:length] == [False, *[True] * (length - 2), False]
    trainer = Trainer(config, run=tmp_path / "run")
    trainer.fit()
    assert open_trained(tmp_path / "run").tokenizer.fingerprint == data.tokenizer.fingerprint
    ids = theirs("import json", return_tensors="pt")["input_ids"]
    assert int(trainer.predict(["import json"])[0]) == int(trainer.trained()[0].module(input_ids=ids).logits.argmax())


def test_hidden_tokens_are_the_folders_own(rows: Path, folder: Callable[[str, str], Path]) -> None:
    config = from_folder("masked_lm", rows, folder("bert", "AutoModelForMaskedLM"))
    data = prepare_data(config.data, config.task, seed=0)
    assert data.tokenizer.mask == 4
    assert data.vocabulary_size == data.tokenizer.vocabulary_size
    batch = data.training.batch(torch.arange(4).numpy())
    asked = batch.targets != IGNORED
    assert (batch.tokens_BT[asked] == 4).float().mean() > 0.5


def test_a_pair_is_read_and_written_as_in_the_folder(
    rows: Path, folder: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = from_folder("seq2seq", rows, folder("t5", "AutoModelForSeq2SeqLM"))
    data = prepare_data(config.data, config.task, seed=0)
    end, pad = data.tokenizer.end_of_text, data.tokenizer.padding
    batch = data.training.batch(torch.arange(3).numpy())
    lengths = (batch.document_ids_BT >= 0).sum(1)
    assert all(batch.tokens_BT[row, lengths[row] - 1] == end for row in range(3))
    assert batch.second_BS is not None
    assert (batch.second_BS[:, 0] == pad).all()
    Trainer(config, run=tmp_path / "run").fit()
    options: dict[str, Any] = {"max_tokens": 3, "temperature": 0.0, "top_k": 0, "seed": 0, "checkpoint": "best"}
    partial(generate, tmp_path / "run", **options)(prompt="import json", as_json=True)
    written = json.loads(capsys.readouterr().out)["text"]
    model = open_trained(tmp_path / "run").model.module
    theirs = transformers.AutoTokenizer.from_pretrained(config.model.path)
    answer = model.generate(
        **theirs("import json", return_tensors="pt"), max_new_tokens=3, do_sample=False, num_beams=1
    )
    tokens = list(answer[0, 1:].tolist())
    tokens = tokens[: tokens.index(end)] if end in tokens else tokens
    assert written == data.tokenizer.decode(tokens)


@pytest.mark.parametrize("steps", [12])
def test_low_rank_updates_train_resume_and_are_all_that_is_kept(
    rows: Path, folder: Callable[[str, str], Path], tmp_path: Path, steps: int
) -> None:
    pytest.importorskip("peft")
    path = folder("gpt2", "AutoModelForCausalLM")
    lora = {"rank": 2, "dropout": 0.1}
    config = from_folder("causal_lm", rows, path, model={"lora": lora}, averaging={"name": "ema"})
    whole = Trainer(config, run=tmp_path / "whole")
    result = whole.fit()
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=tmp_path / "parts", monitors=[Leaves()]).fit()
    again = Trainer(config, run=tmp_path / "parts")
    assert again.fit().metrics == result.metrics
    ours, theirs = weights_of(whole), weights_of(again)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    before = transformers.AutoModelForCausalLM.from_pretrained(path).transformer.wte.weight
    assert torch.equal(ours["module.transformer.wte.weight"], before)
    # The optimizer has the updates alone, and so has the checkpoint.
    facts = read_json(tmp_path / "whole/facts.json")
    trained = sum(p.numel() for name, p in ours.items() if "lora_" in name)
    assert sum(group["parameters"] for group in facts["parameter_groups"]) == trained
    assert facts["parameters"]["total"] - facts["parameters"]["frozen"] == trained
    kept = read_json(open_trained(tmp_path / "whole").checkpoint.path / "checkpoint.json")["tensors"]
    assert {name for name in kept if name.startswith("model/") and "lora_" not in name} == {"model/_extra_state.json"}
    assert open_trained(tmp_path / "whole", weights="ema").weights == "ema"
    # Another base under the same updates would be another model.
    torch.manual_seed(7)
    transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(path)).save_pretrained(path)
    with pytest.raises(CheckpointError, match=r"other weights than those in model.path"):
        open_trained(tmp_path / "whole")


def test_what_begins_at_random_beside_updates_of_low_rank_is_kept(
    rows: Path, folder: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """A model of hidden words has no pooler: the one for classes is random, frozen, and in no folder."""
    pytest.importorskip("peft")
    path = folder("bert", "AutoModelForMaskedLM")
    config = from_folder("classification", rows, path, model={"lora": {"rank": 2, "targets": "all"}}, seed=5)
    trainer = Trainer(config, run=tmp_path / "run")
    trainer.fit()
    assert any("pooler" in name for name in trainer.model.new)  # type: ignore[union-attr,operator]
    opened = open_trained(tmp_path / "run", "best")
    ours, theirs = weights_of(trainer), dict(opened.model.named_parameters())
    assert any("pooler" in name and "base_layer.weight" in name for name in ours)
    assert all(torch.equal(ours[name], theirs[name].cpu()) for name in ours)
    kept = read_json(opened.checkpoint.path / "checkpoint.json")["tensors"]
    assert "model/module.bert.pooler.dense.base_layer.weight" in kept
    assert not any("encoder" in name and "base_layer" in name for name in kept)
    judged = build_evaluation(opened.config, opened.model, trainer.data).metrics()  # type: ignore[arg-type]
    assert judged["validation/loss"] == pytest.approx(trainer.evaluate()["validation/loss"])
    told = export(tmp_path / "run", "hugging-face", tmp_path / "merged", checkpoint="latest")
    assert told.largest_difference <= 1e-4 * told.largest_logit


def test_frozen_layers_of_our_own_models(rows: Path, tmp_path: Path) -> None:
    model = {
        "name": "decoder",
        "num_layers": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "freeze": ["embedding.*", "blocks.0.*"],
    }
    trainer = Trainer(config_of("causal_lm", rows, model=model), run=tmp_path / "run")
    _data, parts = trainer.assemble()
    before = {name: p.detach().clone() for name, p in parts.model.named_parameters()}
    trainer.fit()
    for name, p in weights_of(trainer).items():
        assert torch.equal(p, before[name]) == name.startswith(("embedding.", "blocks.0.")), name
    bad = config_of("causal_lm", rows, model=model | {"freeze": ["block.0.*"]})
    with pytest.raises(ConfigError, match=r"model.freeze: no parameter has such a name. Received: 'block.0.\*'"):
        Trainer(bad, run=tmp_path / "bad").fit()


def test_a_model_given_from_python(rows: Path, tmp_path: Path) -> None:
    described = transformers.AutoConfig.for_model(**TINY["bert"], vocab_size=257, num_labels=2)
    module = transformers.AutoModelForSequenceClassification.from_config(described)
    config = config_of("classification", rows, model={"name": "encoder", "hidden_size": 32, "num_heads": 2})
    trainer = Trainer(config, run=tmp_path / "run", model=module)
    assert trainer.fit().status == "finished"
    assert trainer.trained()[0].module is module
