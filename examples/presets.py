"""Every preset on real text, about half a minute each on one thread, and what it reaches beside guessing.

`python examples/presets.py [--out FILE] [--only PRESET ...] [--set KEY=VALUE ...]` adds each result to FILE
(presets.jsonl) as one line of JSON, leaves out what FILE has already, and prints a table. `--set` tries other values
than the preset's, or another seed.

The recipe is the preset's: objective, optimizer, schedule, regularization, clipping, stopping. What is made small is
the rest: two layers of 128, a vocabulary of 2,048, sequences of 64 tokens, and few steps. A rate that works falls with
the width, so that the narrow model has that much more of it, but for Muon, which scales its updates itself. A preset
that goes on from a pretrained model gets one that is trained here on other text, and the rate of so small a model.

Text: the sources of networkx and mpmath and the docstrings of sympy (torch brings all three), and the names of Hangul
syllables (Python brings them), which say how each is spoken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

from rows import Row, docstring_and_length, docstring_and_subpackage, files, write_rows
from run import most_frequent

from trimtab import Config, Trainer, load_config
from trimtab.config import EncoderDecoderConfig, HuggingFaceConfig, TransformerShape, list_presets
from trimtab.export import export
from trimtab.runs.files import read_json

WIDTH: Final = 128
LENGTH: Final = 64
TIME: Final = {
    "causal_lm": (300, 8),
    "masked_lm": (400, 16),
    "classification": (150, 16),
    "regression": (300, 16),
    "seq2seq": (400, 32),
}
"""Steps and sequences in each, by task."""
TUNED_RATE: Final = 5e-4
"""Of pretrained models that are as narrow as these."""
FIGURES: Final = {"bits_per_byte": "bits per byte", "accuracy": "accuracy", "r2": "R²"}


@final
@dataclass(frozen=True, slots=True)
class Reached:
    """What a preset came to."""

    preset: str
    figure: str
    """Bits per byte, of which fewer are better; else accuracy, or R²."""
    value: float
    guess: float
    """What needs no model: bits per byte by how frequent each token is, or what the pretrained model had before where
    that is less; the accuracy of the most frequent answer; the R² of the mean."""
    bigram: float | None
    """Bits per byte by pairs of tokens, counted on the whole training text, of which so short a run sees a part."""
    steps: int
    parameters: int
    verdict: str
    seconds: float

    @property
    def gain(self) -> float:
        """How much better it is than guessing."""
        return self.guess - self.value if self.figure == "bits_per_byte" else self.value - self.guess


def reached(preset: str, folder: Path, changes: Sequence[str] = ()) -> Reached:
    """Train `preset`, with `changes` as `key=value`, in `folder`, an empty one, and say what it came to."""
    begun = time.perf_counter()
    config = load_config(preset, environment={})
    settings = {**small(config), **text_for(config, folder)}
    before = None
    if isinstance(config.model, HuggingFaceConfig):
        path, before = pretrained(config, settings, folder)
        settings["model.path"] = path
    settings |= dict(one.split("=", 1) for one in changes)
    trainer, metrics, verdict = trained(preset, settings, folder / "run")
    assert trainer.run is not None
    facts = read_json(trainer.run.facts)
    figure = {"causal_lm": "bits_per_byte", "regression": "r2"}.get(config.task.name, "accuracy")
    guess = facts["yardsticks"]["unigram"] if figure == "bits_per_byte" else most_frequent(trainer)
    return Reached(
        " ".join((preset, *changes)),
        figure,
        metrics[f"validation/{figure}"],
        guess if before is None else min(guess, before),
        facts["yardsticks"]["bigram"] if figure == "bits_per_byte" else None,
        trainer.config.training.steps,
        int(facts["parameters"]["total"]),
        verdict,
        time.perf_counter() - begun,
    )


def small(config: Config) -> dict[str, Any]:
    """What makes a run of `config` short on one thread, and leaves its recipe."""
    steps, sequences = TIME[config.task.name]
    parts = 1 if config.training.accumulation == 1 else 2
    settings: dict[str, Any] = {
        "data.sequence_length": LENGTH,
        "training.device": "cpu",
        "training.threads": 1,
        "training.compile": '"off"',
        "training.precision": "{name: auto}",
        "training.steps": steps,
        "training.micro_batch_size": sequences // parts,
        "training.accumulation": parts,
        "evaluation.every": steps // 3,
        "evaluation.gap_tokens": 4_096,
    }
    if config.task.name in ("causal_lm", "seq2seq"):
        settings["evaluation.samples.max_tokens"] = 8
    model = config.model
    if not isinstance(model, TransformerShape):
        return settings | {"optimizer.learning_rate": TUNED_RATE}
    wider = model.hidden_size / WIDTH
    settings |= {"model.num_layers": 2, "model.hidden_size": WIDTH, "model.num_heads": 4}
    if model.num_kv_heads is not None:
        settings["model.num_kv_heads"] = 2
    if model.feed_forward_size is not None:
        settings["model.feed_forward_size"] = 8 * round(model.feed_forward_size / wider / 8)
    if config.optimizer.name == "adamw":
        settings["optimizer.learning_rate"] = config.optimizer.learning_rate * wider
    # Of the syllables each letter is a token.
    settings["data.tokenizer.vocabulary_size"] = 512 if isinstance(model, EncoderDecoderConfig) else 2048
    return settings


def text_for(config: Config, folder: Path) -> dict[str, Any]:
    """The data of a preset, written into `folder` where it is none of the embedded."""
    match config.task.name:
        case "causal_lm" if config.data.source.name == "embedded":
            return {"data.source": "{name: embedded, packages: [networkx]}"}
        case "causal_lm":
            little = config.name == "small-data"
            packages = ("networkx.generators",) if little else ("mpmath",) if tunes(config) else ("networkx",)
            sides = write_texts(folder / "text", *packages)
            return sources("text", sides)
        case "masked_lm":
            return {"data.source": "{name: embedded, packages: [networkx]}"}
        case "regression":
            rows = write_rows(folder / "rows", docstring_and_length, files("sympy", "networkx", "mpmath"))
        case "seq2seq":
            rows = write_rows(folder / "rows", syllable_and_name, [f"{one:x}" for one in range(0xAC00, 0xD7A4)])
        case _ if config.data.source.name == "folder":
            return {"data.source": f"{{name: folder, path: {write_classes(folder / 'classes')}}}"}
        case _:
            rows = write_rows(folder / "rows", docstring_and_subpackage, classified())
    return sources("jsonl", rows)


def tunes(config: Config) -> bool:
    """Whether it goes on from a pretrained model."""
    return isinstance(config.model, HuggingFaceConfig)


def sources(kind: str, sides: tuple[Path, Path]) -> dict[str, str]:
    """Settings for data of a `kind`, for training and validation."""
    names = ("data.source", "data.validation_source")
    return {name: f"{{name: {kind}, path: '{path}'}}" for name, path in zip(names, sides, strict=True)}


def classified() -> list[Path]:
    """Files of three classes."""
    return files("sympy.combinatorics", "sympy.stats", "sympy.geometry")


def write_texts(folder: Path, *packages: str) -> tuple[Path, Path]:
    """The files of `packages`, every tenth in a folder for validation."""
    sides = folder / "train", folder / "validation"
    for side in sides:
        side.mkdir(parents=True)
    for number, file in enumerate(files(*packages)):
        shutil.copyfile(file, sides[number % 10 == 9] / f"{number:04}-{file.name}")
    return sides


def write_classes(folder: Path) -> Path:
    """Docstrings in a folder for each class, one a file."""
    texts: dict[tuple[str, str], None] = {}
    for file in classified():
        texts |= {(row["label"], row["text"].split("\n\n")[0]): None for row in docstring_and_subpackage(file)}
    for number, (label, text) in enumerate(texts):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number:04}.txt").write_text(text, encoding="utf-8")
    return folder


def syllable_and_name(code: str) -> Iterator[Row]:
    """The letters of a Hangul syllable, and how it is written in Latin ones: 각 is ㄱㅏㄱ, GAG."""
    syllable = chr(int(code, 16))
    yield {
        "text": unicodedata.normalize("NFD", syllable),
        "target": unicodedata.name(syllable).removeprefix("HANGUL SYLLABLE "),
    }


def pretrained(config: Config, settings: Mapping[str, Any], folder: Path) -> tuple[Path, float | None]:
    """A model of transformers that was trained on text of its own, and its bits per byte on the text of `config`."""
    writes = config.task.name == "causal_lm"
    shape = (
        f"{{model_type: gpt2, n_layer: 2, n_embd: {WIDTH}, n_head: 4, n_positions: {LENGTH}}}"
        if writes
        else f"{{model_type: bert, hidden_size: {WIDTH}, num_hidden_layers: 2, num_attention_heads: 4, "
        f"intermediate_size: {4 * WIDTH}, max_position_embeddings: {LENGTH}}}"
    )
    own = {name: value for name, value in settings.items() if name.startswith("training.")}
    steps, sequences = TIME["causal_lm" if writes else "masked_lm"]
    own |= {"training.steps": steps, "training.micro_batch_size": sequences, "training.accumulation": 1}
    own |= {"evaluation.every": steps, "evaluation.gap_tokens": 0, "data.sequence_length": LENGTH}
    own |= {"model": f"{{name: hugging_face, config: {shape}}}", "data.tokenizer.vocabulary_size": 2048}
    packages = "networkx" if writes else "sympy"
    own["data.source"] = f"{{name: embedded, packages: [{packages}]}}"
    if writes:
        own |= {
            "evaluation.samples.max_tokens": 0,
            "evaluation.sets": f"{{next: {settings['data.validation_source']}}}",
        }
    trainer, metrics, _ = trained("gpt-1m" if writes else "encoder-1m", own, folder / "pretraining")
    assert trainer.run is not None
    export(trainer.run.path, "hugging-face", folder / "pretrained")
    return folder / "pretrained", metrics["validation/next/bits_per_byte"] if writes else None


def trained(preset: str, settings: Mapping[str, Any], run: Path) -> tuple[Trainer, Mapping[str, float], str]:
    """The trainer after a run of `preset` with `settings`, what it measured at the end, and the verdict."""
    changes = [f"{name}={value}" for name, value in settings.items()]
    trainer = Trainer(load_config(preset, changes, environment={}), run=run)
    result = trainer.fit()
    return trainer, result.metrics, "" if result.diagnosis is None else result.diagnosis.verdict


def table(results: Mapping[str, Reached]) -> str:
    """As Markdown."""
    head = "| preset | figure | reached | guess | pairs of tokens | steps | parameters |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for one in results.values():
        pairs = "" if one.bigram is None else f"{one.bigram:.3f}"
        lines.append(
            f"| `{one.preset}` | {FIGURES[one.figure]} | {one.value:.3f} | {one.guess:.3f} | {pairs} | {one.steps} "
            f"| {one.parameters:,} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing in the file, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("presets.jsonl"))
    parser.add_argument(
        "--only", nargs="*", choices=list(list_presets()), default=list(list_presets()), metavar="PRESET"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    asked = {" ".join((preset, *given.set)): preset for preset in given.only}
    lines = given.out.read_text().splitlines() if given.out.exists() else ()
    done = {one["preset"]: Reached(**one) for one in map(json.loads, lines)}
    for name, preset in asked.items():
        if name in done:
            continue
        print(name, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=preset) as folder:
            done[name] = reached(preset, Path(folder), given.set)
        with given.out.open("a") as file:
            print(json.dumps(asdict(done[name])), file=file, flush=True)
    print(table({name: done[name] for name in asked}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
