"""Models of transformers as ours: what they give, what padding changes, what is refused, what is kept of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_hugging_face import TINY
from torch import Tensor
from torch.nn import functional as F

from trimtab.config import HuggingFaceConfig, load_config
from trimtab.config.paths import model_folder
from trimtab.errors import CheckpointError, ConfigError, DataError
from trimtab.model import HuggingFaceModel, build_model, freeze, wrap_model
from trimtab.model.lora import merge_lora
from trimtab.objective import CrossEntropy
from trimtab.signals import IGNORED, ModelOutput, Outputs, SpecialTokens
from trimtab.training.checkpoint.model_state import load_model, model_tensors

transformers = pytest.importorskip("transformers")

VOCABULARY = 257
SPECIAL = SpecialTokens(256, 256, 256)
OUTPUTS = {
    "classification": Outputs(3, pooled=True, task="classification", classes=("a", "b", "c")),
    "token_classification": Outputs(3, task="token_classification", classes=("a", "b", "c")),
    "regression": Outputs(1, pooled=True, task="regression"),
    **{name: Outputs(VOCABULARY, of_tokens=True, task=name) for name in ("causal_lm", "masked_lm", "seq2seq")},
}
MODELS = [
    ("gpt2", "causal_lm"),
    ("llama", "causal_lm"),
    ("gemma2", "causal_lm"),
    ("bert", "masked_lm"),
    ("roberta", "masked_lm"),
    ("t5", "seq2seq"),
    ("bart", "seq2seq"),
    ("gpt2", "classification"),
    ("bert", "classification"),
    ("distilbert", "regression"),
    ("roberta", "token_classification"),
]


def build(name: str, task: str = "causal_lm", *, length: int = 32, seed: int = 0, **settings: Any) -> HuggingFaceModel:
    section = HuggingFaceConfig(**{"config": TINY[name], **settings})
    model = build_model(
        section,
        vocabulary_size=VOCABULARY,
        sequence_length=length,
        seed=seed,
        outputs=OUTPUTS[task],
        special=SPECIAL,
    )
    assert isinstance(model, HuggingFaceModel)
    return model


def saved(tmp_path: Path, name: str, task: str = "causal_lm", **settings: Any) -> Path:
    build(name, task, **settings).module.save_pretrained(tmp_path / name)  # type: ignore[operator]
    return tmp_path / name


def padded() -> tuple[Tensor, Tensor]:
    """Three texts of 7, 4 and no tokens."""
    tokens_BT = torch.randint(0, 256, (3, 7), generator=torch.Generator().manual_seed(1))
    documents_BT = torch.tensor([[0] * 7, [1] * 4 + [-1] * 3, [-1] * 7], dtype=torch.int32)
    return torch.where(documents_BT >= 0, tokens_BT, 0), documents_BT


def logits_of(output: ModelOutput | Tensor) -> Tensor:
    return output.logits if isinstance(output, ModelOutput) else output


def call(model: HuggingFaceModel, tokens_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
    second = {"second_BS": torch.arange(5).expand(len(tokens_BT), 5)} if model.task == "seq2seq" else {}
    return logits_of(model(tokens_BT, None, documents_BT, **second))


@pytest.mark.parametrize(("name", "task"), MODELS)
def test_it_gives_the_models_own_logits_and_padding_changes_nothing(name: str, task: str) -> None:
    model = build(name, task).eval()
    tokens_BT, documents_BT = padded()
    # Weights so large that every position counts.
    for parameter in model.parameters():
        parameter.data *= 3.0 if parameter.ndim > 1 else 1.0
    with torch.no_grad():
        found = call(model, tokens_BT, documents_BT)
        assert torch.isfinite(found).all()
        for row, length in ((0, 7), (1, 4)):
            alone = call(model, tokens_BT[row : row + 1, :length], documents_BT[row : row + 1, :length])
            own: dict[str, Any] = {"input_ids": tokens_BT[row : row + 1, :length]}
            if task == "seq2seq":
                own["decoder_input_ids"] = torch.arange(5)[None]
            theirs = model.module(**own).logits
            of_tokens = task not in ("classification", "regression", "seq2seq")
            ours = found[row : row + 1, :length] if of_tokens else found[row : row + 1]
            torch.testing.assert_close(alone, theirs, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "task", "scale", "why"),
    [
        ("gpt2", "causal_lm", 1.0, ""),
        ("llama", "causal_lm", 1.0, ""),
        ("t5", "seq2seq", 32**-0.5, ""),
        ("bart", "seq2seq", 1.0, ""),
        # Its logits are bounded, which small ones hardly show.
        ("gemma2", "causal_lm", None, "its logits are not its features times its head"),
        ("bert", "masked_lm", None, "its head has a bias"),
        ("bert", "classification", None, "it has no plain head that says tokens"),
    ],
)
def test_which_head_can_be_one_with_the_loss(name: str, task: str, scale: float | None, why: str) -> None:
    model = build(name, task)
    assert (model.scale, model.why_whole) == (scale, why)
    again = build(name, task)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    assert all(one.training for one in model.modules())


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_loss_and_gradients_through_the_head_are_those_of_the_models_own_logits(name: str) -> None:
    task = "seq2seq" if name == "t5" else "causal_lm"
    model = build(name, task).eval()
    tokens_BT, documents_BT = padded()
    targets = torch.arange(15).view(3, 5) if task == "seq2seq" else tokens_BT.roll(-1, 1)
    targets = targets.clone()
    targets[:, -1] = IGNORED
    targets[2] = IGNORED
    if task == "causal_lm":
        targets[documents_BT < 0] = IGNORED
    second = {"second_BS": torch.arange(5).expand(3, 5)} if task == "seq2seq" else {}
    output = model(tokens_BT, None, documents_BT, **second)
    assert isinstance(output, ModelOutput)
    fused = CrossEntropy(fused="on")
    assert fused.fuses(output)
    terms = fused.of_features(output.features, output.head.weight, targets)
    terms.terms[0].sum.backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    inputs: dict[str, Any] = {"input_ids": tokens_BT}
    if task == "seq2seq":
        inputs |= {"decoder_input_ids": second["second_BS"], "attention_mask": (documents_BT >= 0).long()}
    logits = model.module(**inputs).logits
    plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    plain.backward()
    assert float(terms.terms[0].sum) == pytest.approx(float(plain), rel=1e-6)
    for n, p in model.named_parameters():
        torch.testing.assert_close(ours[n], p.grad, rtol=1e-4, atol=1e-5)


def test_what_is_not_said_follows_the_tokenizer() -> None:
    described = build("gpt2").config
    assert (described.vocab_size, described.eos_token_id, described.use_cache) == (VOCABULARY, 256, False)
    assert build("bert", "classification").config.id2label == {0: "a", 1: "b", 2: "c"}
    assert build("gpt2", config={**TINY["gpt2"], "vocab_size": 300}).config.vocab_size == 300
    # A token that texts have, too, must be trained.
    assert build("llama").module.get_input_embeddings().padding_idx is None  # type: ignore[operator]


def test_seeds() -> None:
    one, same, other = build("gpt2", seed=1), build("gpt2", seed=1), build("gpt2", seed=2)
    assert torch.equal(next(one.parameters()), next(same.parameters()))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


@pytest.mark.parametrize(
    ("name", "task", "settings", "message"),
    [
        ("gpt2", "causal_lm", {"config": {"model_type": "gpt5000"}}, r"model.config.model_type: .*Received: 'gpt5000'"),
        ("gpt2", "causal_lm", {"config": {**TINY["gpt2"], "n_layers": 3}}, r"n_layers: .*gpt2 has no such key"),
        ("gpt2", "causal_lm", {"config": {**TINY["gpt2"], "n_head": 3}}, "model.config: gpt2 cannot be built"),
        ("gpt2", "causal_lm", {"config": {**TINY["gpt2"], "vocab_size": 99}}, "knows 99 tokens, and the data has 257"),
        ("gpt2", "causal_lm", {"length": 65}, r"data.sequence_length: GPT2LMHeadModel has 64 positions. Received: 65"),
        # Two of 66 positions stand before the first.
        ("roberta", "masked_lm", {"length": 65}, "has 64 positions"),
        ("gpt2", "masked_lm", {}, "transformers has no gpt2 for task masked_lm"),
        ("t5", "classification", {}, "does not take two texts of six tokens"),
        ("gpt2", "causal_lm", {"freeze": ("wte*",)}, "model.freeze: no parameter has such a name"),
        ("gpt2", "causal_lm", {"freeze": ("*",)}, "nothing to train"),
    ],
)
def test_what_does_not_go_together_is_refused(name: str, task: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, task, **settings)


def test_a_folder_gives_its_weights(tmp_path: Path) -> None:
    folder = saved(tmp_path, "gpt2", seed=3)
    model, from_seed = build("gpt2", config={}, path=str(folder)), build("gpt2", seed=3)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), from_seed.parameters(), strict=True))
    assert model.new == ()
    changed = build("gpt2", config={"resid_pdrop": 0.3}, path=str(folder))
    assert changed.config.resid_pdrop == 0.3
    classifier = build("gpt2", "classification", config={}, path=str(folder))
    assert classifier.new == ("score.weight",)
    assert torch.equal(classifier.module.transformer.wte.weight, model.module.transformer.wte.weight)  # type: ignore[union-attr]


def test_weights_of_an_old_file_run_no_code(tmp_path: Path) -> None:
    folder = saved(tmp_path, "gpt2")
    model = build("gpt2", config={}, path=str(folder))
    (folder / "model.safetensors").unlink()
    torch.save(model.module.state_dict(), folder / "pytorch_model.bin")
    assert torch.equal(next(build("gpt2", config={}, path=str(folder)).parameters()), next(model.parameters()))

    class Runs:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "was-run",)

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"transformer.wte.weight": Runs()}))
    with pytest.raises(ConfigError, match=r"model.path: gpt2 cannot be built"):
        build("gpt2", config={}, path=str(folder))
    assert not (tmp_path / "was-run").exists()


def test_code_in_a_folder_does_not_run(tmp_path: Path) -> None:
    folder = saved(tmp_path, "gpt2")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    described = json.loads((folder / "config.json").read_text())
    mapped = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (folder / "config.json").write_text(json.dumps(described | {"model_type": "own", "auto_map": mapped}))
    with pytest.raises(ConfigError, match=r"model.path: transformers has no such model"):
        build("gpt2", config={}, path=str(folder))
    assert not (tmp_path / "was-run").exists()


def test_folders_without_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder 'gpt2'\nhint: .*local folders"):
        model_folder("gpt2")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no config.json"):
        model_folder(str(tmp_path / "empty"))
    (tmp_path / "empty/config.json").write_text("{}")
    with pytest.raises(DataError, match=r"holds none of model.safetensors"):
        model_folder(str(tmp_path / "empty"))
    headless = saved(tmp_path, "bert", "classification")
    with pytest.raises(ConfigError, match=r"has no weights for cls.predictions"):
        build("bert", "masked_lm", config={}, path=str(headless))
    two = Outputs(2, pooled=True, task="classification")
    with pytest.raises(ConfigError, match="a head for other classes is in the folder"):
        build_model(
            HuggingFaceConfig(path=str(headless)),
            vocabulary_size=VOCABULARY,
            sequence_length=8,
            seed=0,
            outputs=two,
            special=SPECIAL,
        )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "hugging_face"}, "give path, a folder, or a config with model_type"),
        ({"name": "hugging_face", "path": "x", "lora": {}, "freeze": ["*"]}, "freeze has no effect beside lora"),
    ],
)
def test_settings_that_say_nothing(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config({"model": model}, environment={})


def test_a_folder_brings_its_tokenizer() -> None:
    path = {"name": "hugging_face", "path": "folder"}
    assert load_config({"model": path}, environment={}).data.tokenizer.model_dump() == path
    given = load_config({"model": path, "data": {"tokenizer": {"name": "file", "path": "t"}}}, environment={})
    assert given.data.tokenizer.name == "file"
    with pytest.raises(ConfigError, match=r"data.tokenizer.name bytes makes other tokens"):
        load_config({"model": path, "data": {"tokenizer": {"name": "bytes"}}}, environment={})
    with pytest.raises(ConfigError, match=r"data.tokenizer.path is not set"):
        load_config({"data": {"tokenizer": {"name": "hugging_face"}}}, environment={})


def test_a_model_given_as_an_object() -> None:
    module = transformers.AutoModelForSequenceClassification.from_config(
        transformers.AutoConfig.for_model(**TINY["bert"], vocab_size=VOCABULARY, num_labels=3)
    )
    options: dict[str, Any] = {"longest_sequence": 8, "special": SPECIAL}
    model = wrap_model(module, VOCABULARY, OUTPUTS["classification"], **options)
    assert isinstance(model, HuggingFaceModel)
    assert model.module is module
    with pytest.raises(ConfigError, match=r"BertForSequenceClassification does not fit task token_classification"):
        wrap_model(module, VOCABULARY, OUTPUTS["token_classification"], **options)


def test_frozen_parameters_take_no_gradient() -> None:
    model = build("gpt2", freeze=("module.transformer.wte.*", "*.h.0.*"))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if ".wte." in n or ".h.0." in n}
    logits_of(model(padded()[0])).sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == frozen
    assert freeze(model, ()) == []


@pytest.mark.parametrize(
    ("name", "task", "targets"),
    [("gpt2", "causal_lm", "auto"), ("llama", "causal_lm", "all"), ("bert", "classification", ("query", "value"))],
)
def test_low_rank_updates(name: str, task: str, targets: Any) -> None:
    pytest.importorskip("peft")
    plain = build(name, task).eval()
    model = build(name, task, lora={"rank": 2, "alpha": 6.0, "targets": targets}).eval()
    tokens_BT, documents_BT = padded()
    torch.testing.assert_close(call(model, tokens_BT, documents_BT), call(plain, tokens_BT, documents_BT))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    heads = {n for n in trained if "lora_" not in n}
    assert heads == ({"module.classifier.weight", "module.classifier.bias"} if task == "classification" else set())
    assert all(2 in p.shape for n, p in trained.items() if n not in heads)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) / 8)
        # By hand: W + alpha / rank · B A.
        adapted = call(model, tokens_BT, documents_BT)
        weights = dict(model.named_parameters())
        for down, a_RI in weights.items():
            if "lora_A" in down:
                stem = down.removesuffix(".lora_A.default.weight")
                update = 3.0 * weights[f"{stem}.lora_B.default.weight"] @ a_RI
                own = plain.get_parameter(f"{stem}.weight")
                own += update if own.shape == update.shape and name != "gpt2" else update.T
        for n in heads:
            plain.get_parameter(n).copy_(weights[n])
        expected = call(plain, tokens_BT, documents_BT)
        assert not torch.allclose(
            adapted,
            build(name, task).eval()(tokens_BT, None, documents_BT).logits
            if task != "classification"
            else torch.zeros(()),
        )
        torch.testing.assert_close(adapted, expected, rtol=1e-4, atol=1e-5)
        merge_lora(model.module)
        torch.testing.assert_close(call(model, tokens_BT, documents_BT), expected, rtol=1e-4, atol=1e-5)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]


def test_an_architecture_that_peft_has_no_list_for_gets_updates_everywhere_but_at_the_head() -> None:
    pytest.importorskip("peft")
    model = build("starcoder2", lora={"rank": 2})
    adapted = {n.rpartition(".")[2] for n, one in model.named_modules() if hasattr(one, "lora_A")}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"}
    assert (
        model.adapted == "low-rank updates beside every matrix but the head: peft has no list for Starcoder2ForCausalLM"
    )
    assert build("gpt2", lora={"rank": 2}).adapted == ""


def test_targets_that_are_not_there() -> None:
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match=r"model.lora.targets: .*\nhint: .*; the model's are called c_attn"):
        build("gpt2", lora={"targets": ("q_proj",)})


def test_a_checkpoint_leaves_out_what_is_frozen_and_in_the_folder(tmp_path: Path) -> None:
    folder = saved(tmp_path, "gpt2", seed=1)
    options: dict[str, Any] = {"config": {}, "path": str(folder), "freeze": ("*.wte.*", "*.h.0.*")}
    model = build("gpt2", **options)
    tensors = {f"model/{name}": tensor.clone() for name, tensor in model_tensors(model).items()}
    trained = {f"model/{n}" for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n in tensors if "_extra_state" not in n}
    load_model(build("gpt2", **options), tensors)
    saved(tmp_path, "gpt2", seed=2)
    with pytest.raises(CheckpointError, match=r"other weights than those in model.path"):
        load_model(build("gpt2", **options), tensors)
    # Without a folder there is nothing to take them from.
    whole = model_tensors(build("gpt2", freeze=("*.wte.*",)))
    assert "module.transformer.wte.weight" in whole


@pytest.mark.parametrize(
    ("name", "task"), [("gpt2", "causal_lm"), ("llama", "causal_lm"), ("bert", "masked_lm"), ("roberta", "masked_lm")]
)
def test_packed_documents_that_do_not_see_each_other_answer_as_each_alone(name: str, task: str) -> None:
    """Logits, and gradients of their sum, of a row with three documents and padding; without the mask they differ."""
    model = build(name, task, document_mask=True).eval()
    with torch.no_grad():  # weights at the beginning are so small that neighbours hardly say anything
        for parameter in model.parameters():
            parameter.mul_(3.0)
    lengths = (7, 1, 12)
    documents = torch.randint(2, 256, (20,), generator=torch.Generator().manual_seed(0)).split(lengths)
    tokens_BT = F.pad(torch.cat(documents), (0, 4))[None].repeat(2, 1)
    ids_BT, positions_BT = torch.full((2, 24), -1), torch.zeros(2, 24, dtype=torch.int32)
    ids_BT[:, :20] = torch.repeat_interleave(torch.tensor([5, 6, 9]), torch.tensor(lengths))
    positions_BT[:, :20] = torch.cat([torch.arange(length) for length in lengths])

    def passed(*rows: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        found = [logits_of(model(*row))[: len(row[2])].flatten(0, 1)[row[2].flatten() >= 0] for row in rows]
        logits = torch.cat(found)
        logits.pow(2).mean().backward()
        return logits.detach(), [one.grad.clone() for one in model.parameters() if one.grad is not None]

    packed, gradients = passed((tokens_BT[:1], positions_BT[:1], ids_BT[:1]))
    alone = [
        (one[None], torch.arange(len(one))[None], torch.zeros(1, len(one), dtype=torch.int64)) for one in documents
    ]
    wanted, wanted_gradients = passed(*alone)
    assert float((packed - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
    for one, other in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()) + 1e-9)
    model.apart = False
    assert not torch.allclose(passed((tokens_BT[:1], positions_BT[:1], ids_BT[:1]))[0], wanted, rtol=1e-2, atol=1e-3)


def test_models_that_cannot_keep_documents_apart_say_why() -> None:
    with pytest.raises(ConfigError, match=r"model.document_mask: Gemma2.* cannot keep packed documents apart: "):
        build("gemma2", document_mask=True)
    window = {"config": TINY["starcoder2"] | {"sliding_window": 8}}
    with pytest.raises(ConfigError, match="its sliding_window of 8 positions would be lost"):
        build("starcoder2", document_mask=True, **window)
    assert build("starcoder2", length=8, document_mask=True, **window).apart
    with pytest.raises(ConfigError, match=r"model.document_mask: has no effect: each row of this task.name is"):
        load_config(
            {
                "model": {"name": "hugging_face", "config": TINY["gpt2"], "document_mask": True},
                "task": {"name": "classification"},
                "data": {"source": {"name": "jsonl", "path": "rows.jsonl"}},
            },
            environment={},
        )
