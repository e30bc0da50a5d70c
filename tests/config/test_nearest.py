from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.config import Section, load_config
from trimtab.config.keys import keys
from trimtab.config.nearest import (
    SYNONYMS,
    VALUE_SYNONYMS,
    did_you_mean,
    edit_distance,
    likeness,
    nearest_names,
)
from trimtab.config.run import Config
from trimtab.errors import ConfigError

NUM_MUTATED = 200
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def real_keys(section: type[Section], prefix: str, names: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key, with the names of variants that must be given for it to exist."""
    for name in section.model_fields:
        path = prefix + name
        yield path, names
        (key,) = (one for one in keys()[path] if one.owner is section)
        for tag, variant in key.sections.items():
            chosen = names | ({f"{path}.name": tag} if len(key.sections) > 1 else {})
            yield from real_keys(variant, f"{path}.", chosen)


def misspell(name: str, random: random.Random) -> str:
    """One slip of the fingers or of the convention."""
    at = random.randrange(len(name))
    letter = random.choice(LETTERS)
    words = name.split("_")
    slips = [
        name[:at] + name[at + 1 :],
        name[:at] + name[at] + name[at:],
        name[:at] + letter + name[at + 1 :],
        name[:at] + letter + name[at:],
        name[:at] + name[at + 1 : at + 2] + name[at : at + 1] + name[at + 2 :],
        name.replace("_", "-"),
        name.replace("_", ""),
        words[0] + "".join(map(str.title, words[1:])),
        name.upper(),
        name.title(),
    ]
    return random.choice(slips)


def mutated_keys() -> list[tuple[str, str, dict[str, Any]]]:
    """(wrong path, right path, names to give), the same in every run."""
    chance = random.Random(20)
    found = list(real_keys(Config, "", {}))
    # In a section that is not there by itself its missing name is told first.
    sections = [name for name in Config.model_fields if isinstance(keys()[name][0].default, Section)]
    mutated: dict[str, tuple[str, str, dict[str, Any]]] = {}
    while len(mutated) < NUM_MUTATED:
        path, names = chance.choice(found)
        section, _, name = path.rpartition(".")
        is_tag = any(key.is_tag for key in keys()[path])
        # What decay_schedule has stands in schedule, too, which is then meant first; so with the second optimizer.
        if not is_tag and not path.startswith(("decay_schedule.", "optimizer_switch.to.")) and chance.random() < 0.2:
            wrong = f"{chance.choice(sections)}.{name}"
        else:
            wrong = f"{section}.{misspell(name, chance)}".lstrip(".")
        if wrong not in keys() and not wrong.endswith(".") and wrong != section:
            mutated[wrong] = (wrong, path, names)
    return list(mutated.values())


def suggestions(message: str, key: str) -> list[str]:
    """The paths that the problem of `key` suggests."""
    section = key.rpartition(".")[0]
    after = message[message.index(f"{key}: there is no such key") :]
    question = re.search(r"\n\s*hint: did you mean ([^\n?]*)\?( It stands at the top)?|\n\S", after)
    if question is None or question[1] is None:
        return []
    named = re.findall("'([^']*)'", question[1])
    whole = [one if "." in one or not section or question[2] else f"{section}.{one}" for one in named]
    assert all(one in keys() for one in whole), f"suggests what is not there: {whole}"
    return whole


def refusal(path: str, names: dict[str, Any], value: Any = 1) -> str:
    tree: dict[str, Any] = {}
    for dotted, given_value in {**names, path: value}.items():
        node = tree
        *above, last = dotted.split(".")
        for part in above:
            node = node.setdefault(part, {})
        node[last] = given_value
    with pytest.raises(ConfigError) as caught:
        load_config(tree, environment={})
    return str(caught.value)


def test_mutated_keys_are_all_refused_and_nearly_all_understood() -> None:
    missed, first = [], 0
    for wrong, right, names in mutated_keys():
        found = suggestions(refusal(wrong, names), wrong)
        # A key of the right name in the wrong section may mean any that is called so.
        first += [one.rpartition(".")[2] for one in found[:1]] == [right.rpartition(".")[2]]
        if right not in found:
            missed.append((wrong, right, found))
    assert len(missed) <= 0.05 * NUM_MUTATED, missed
    assert first >= 0.95 * NUM_MUTATED


@pytest.mark.parametrize(
    "wrong, right",
    [
        ("lr", "optimizer.learning_rate"),
        ("optimizer.lr", "optimizer.learning_rate"),
        ("training.lr", "optimizer.learning_rate"),
        ("training.learning_rate", "optimizer.learning_rate"),
        ("optimizer.learn_rate", "optimizer.learning_rate"),
        ("optimizer_learning_rate", "optimizer.learning_rate"),
        ("optimizer.wd", "optimizer.weight_decay"),
        ("optimizer.eps", "optimizer.epsilon"),
        ("training.bs", "training.micro_batch_size"),
        ("data.batch_size", "training.micro_batch_size"),
        ("per_device_train_batch_size", "training.micro_batch_size"),
        ("training.grad_accum", "training.accumulation"),
        ("training.gradient_accumulation_steps", "training.accumulation"),
        ("training.max_steps", "training.steps"),
        ("training.num_steps", "training.steps"),
        ("training.num_train_epochs", "training.steps"),
        ("training.max_grad_norm", "gradients.clip.threshold"),
        ("gradients.max_grad_norm", "gradients.clip.threshold"),
        ("optimizer.grad_clip", "gradients.clip.threshold"),
        ("schedule.warmup_steps", "schedule.warmup"),
        ("training.warmup_steps", "schedule.warmup"),
        ("schedule.min_lr", "schedule.floor"),
        ("model.n_layer", "model.num_layers"),
        ("model.n_head", "model.num_heads"),
        ("model.n_embd", "model.hidden_size"),
        ("model.d_model", "model.hidden_size"),
        ("model.num_key_value_heads", "model.num_kv_heads"),
        ("model.intermediate_size", "model.feed_forward_size"),
        ("model.attn_pdrop", "model.dropout.attention"),
        ("training.dropout", "model.dropout"),
        ("model.rope_theta", "model.positions.base"),
        ("model.block_size", "data.sequence_length"),
        ("model.seq_len", "data.sequence_length"),
        ("model.vocab_size", "data.tokenizer.vocabulary_size"),
        ("data.tokenizer.vocab_size", "data.tokenizer.vocabulary_size"),
        ("tokenizer", "data.tokenizer"),
        ("evaluation.eval_steps", "evaluation.every"),
        ("logging.log_interval", "logging.every"),
        ("training.seed", "seed"),
        ("model.optimizer", "optimizer"),
        ("optim", "optimizer"),
        ("lr_scheduler", "schedule"),
        ("train", "training"),
        ("eval", "evaluation"),
        ("early_stopping", "stopping"),
        ("loss", "objective"),
    ],
)
def test_names_of_other_trainers(wrong: str, right: str) -> None:
    assert suggestions(refusal(wrong, {}), wrong)[0] == right


def test_nothing_near_suggests_nothing() -> None:
    assert suggestions(refusal("training.xylophone", {}), "training.xylophone") == []


def test_tables_of_synonyms_name_what_exists() -> None:
    assert {path for paths in SYNONYMS.values() for path in paths} <= set(keys())
    choices = {choice for several in keys().values() for key in several for choice in key.choices}
    assert {choice for several in VALUE_SYNONYMS.values() for choice in several} <= choices


@pytest.mark.parametrize(
    "override, meant",
    [
        ("optimizer.name=adamw_torch", "adamw"),
        ("optimizer.name=schedule_free", "schedule_free_adamw"),
        ("optimizer.name=nesterov", "sgd"),
        ("optimizer.name=AdamW", "adamw"),
        ("training.device=gpu", "cuda"),
        ("training.compile=true", "on"),
        ("training.compile=false", "off"),
        ("training.precision.name=bfloat16", "bf16"),
        ("model.norm.name=rmsnorm", "rms_norm"),
        ("model.positions.name=rope", "rotary"),
        ("model.activation=relu2", "relu_squared"),
        ("schedule.name=warmup_stable_decay", "wsd"),
        ("data.source.name=json", "jsonl"),
    ],
)
def test_nearest_choice(override: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'") as caught:
        load_config(None, [override], environment={})
    assert "one of: " in str(caught.value)


@given(st.text(max_size=12), st.text(max_size=12))
def test_edit_distance_is_symmetric_and_bounded(a: str, b: str) -> None:
    distance = edit_distance(a, b)
    assert distance == edit_distance(b, a)
    assert abs(len(a) - len(b)) <= distance <= max(len(a), len(b))
    assert (distance == 0) == (a == b)


@given(st.text(max_size=12), st.text(max_size=12))
def test_likeness_is_a_part_of_one(a: str, b: str) -> None:
    assert 0.0 <= likeness(a, b) <= 1.0
    assert likeness(a, a) == 1.0


def test_edit_distance_counts_a_swap_once() -> None:
    assert edit_distance("learning", "leanring") == 1
    assert edit_distance("kitten", "sitting") == 3


def test_question() -> None:
    assert did_you_mean([]) is None
    assert did_you_mean(["a"]) == "did you mean 'a'?"
    assert did_you_mean(["a", "b", "c"]) == "did you mean 'a', 'b' or 'c'?"
    assert nearest_names("gtp2", ["gpt2", "demo"]) == ["gpt2"]
