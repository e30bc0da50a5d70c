"""How things are called in a report: metrics, verdicts, settings and the command that makes a change."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from trimtab.doctor import CODES, Diagnosis, Finding, Remedy
from trimtab.doctor.codes import UNJUDGED
from trimtab.runs import format
from trimtab.runs.described import describe_verdict
from trimtab.runs.metrics import METRICS

LEAST_TOLD: Final = 0.05
"""Of a guess: what is less likely is noise to a reader."""
SEVERITIES: Final = {"info": "remark", "warning": "warning", "error": "error"}
TARGETS: Final = {
    "trimtab": "trimtab",
    "huggingface": "Hugging Face TrainingArguments",
    "lightning": "Lightning",
    "nanogpt": "nanoGPT",
    "megatron": "Megatron",
    "fairseq": "fairseq",
    "mmengine": "mmengine",
    "ultralytics": "Ultralytics",
    "keras": "Keras",
    "text": "torch's names, yours may differ",
}

_METRICS: Final = {
    "train/loss": "training loss",
    "train/accuracy": "training accuracy",
    "validation/loss": "validation loss",
    "training_slice/loss": "loss on a slice of the training data",
    "generalization_gap": "generalization gap",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "grad_cosine": "cosine of successive gradients",
    "step_seconds": "seconds a step",
    "data_seconds": "waiting for data",
    "tokens_per_second": "throughput",
    "memory_bytes": "memory",
    "loss_scale": "loss scale",
    "skipped": "skipped updates",
    "mfu": "utilization (MFU)",
    "memory_bytes_per_second": "memory traffic (counted)",
}
_UNITS: Final = {
    "norm": "",
    "rate": "",
    "ratio": "",
    "flag": "",
    "factor": "",
    "user's": "",
    "as the metric": "",
    "rms": "",
}


def metric_name(name: str) -> str:
    """A metric as a reader says it; one that nobody has named stays as it is."""
    plain, _, kind = name.partition("@")
    told = _METRICS.get(plain) or plain.removeprefix("user/").replace("_", " ").replace("/", " ")
    return f"{told} of the {kind} weights" if kind else told


def verdict_of(diagnosis: Diagnosis) -> str:
    """The verdict as a reader's word: a log in which no loss is known needs no attention but a name.

    Nor is a run healthy that came to no step, so that even whether it diverged is withheld.
    """
    findings = diagnosis.findings
    if not findings and diagnosis.verdict == "healthy" and any(one.code == "divergence" for one in diagnosis.withheld):
        return "Not judged"
    if diagnosis.verdict == "attention" and findings[0].code == UNJUDGED:
        return "Not judged"
    told = describe_verdict(diagnosis.verdict, diagnosis.beaten_by)
    return told[0].upper() + told[1:]


def metric_unit(name: str) -> str:
    """The unit of a metric, "" where it has none."""
    metric = METRICS.get(name.split("@")[0])
    if metric is None and name.startswith("hardware/"):
        metric = METRICS.get(f"hardware/<gpu>/{name.rsplit('/', 1)[-1]}")
    if metric is None and name.startswith("validation/"):
        metric = METRICS.get(f"validation/{name.split('@')[0].rsplit('/', 1)[-1]}")
    return "" if metric is None else _UNITS.get(metric.unit, metric.unit)


def metric_value(name: str, value: float) -> str:
    """A metric's value as a reader writes it."""
    match METRICS[name].unit if name in METRICS else metric_unit(name):
        case "bytes":
            return format.size(value)
        case "fraction":
            return f"{100 * value:.1f} %"
        case "rate":
            return format.scientific(value)
        case "flag" | "tokens":
            return format.count(value)
    return format.signed(value) if name.partition("@")[0] == "generalization_gap" else format.decimal(value)


def sentences(summary: str) -> tuple[str, str, str] | None:
    """The summary's three parts: how the run went, what leads, what to do next; None when it has no such parts."""
    first = re.match(r".+?[.!?](?= [A-Z])", summary, re.DOTALL)
    last = r" (?:Next: |To judge |No change is |The validation loss was )"
    begins = [found.start() for found in re.finditer(last, summary)]
    if first is None or not begins or begins[-1] <= first.end():
        return None
    return first[0], summary[first.end() : begins[-1]].strip(), summary[begins[-1] :].strip()


def confidence(value: float) -> str:
    """How sure the doctor is, in words and in a number."""
    word = "almost sure" if value >= 0.9 else "probable" if value >= 0.6 else "possible"
    return f"{word}, {100 * value:.0f} %"


def overrides(remedy: Remedy) -> list[str]:
    """A remedy's changes as `section.key=value`, as a command line takes them."""
    return [shlex.quote(f"{key}={value_text(value)}") for key, value in remedy.config.items()]


def value_text(value: Any) -> str:
    """A setting's value as it is written in a configuration."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return repr(value)
    if isinstance(value, str) and value.isascii() and value.isalpha() and len(value) > 5:
        return value
    from trimtab.config.dump import yaml_value  # half a second of models, and numbers and plain words do not need it

    return yaml_value(value)


def changes(remedy: Remedy, settings: Mapping[str, Any]) -> list[tuple[str, str | None, str]]:
    """Setting, what it is (None where that is not known) and what is proposed."""
    return [
        (key, value_text(settings[key]) if key in settings else None, value_text(value))
        for key, value in remedy.config.items()
    ]


def command_with(config: str, remedy: Remedy) -> str:
    """The command that trains anew with a remedy's changes."""
    return " ".join(["trimtab train", shlex.quote(config), *overrides(remedy)])


def onset(finding: Finding, unit: str = "step") -> str:
    """Where a finding begins to show."""
    return f"from {unit} {finding.onset_step:,}" if finding.onset_step > 0 else "from the start"


def count_of(findings: Sequence[Finding]) -> str:
    """How many findings of each severity: "1 error, 2 warnings"; "no findings"."""
    parts = []
    for severity in ("error", "warning", "info"):
        num = sum(finding.severity == severity for finding in findings)
        if num:
            parts.append(f"{num} {SEVERITIES[severity]}{'s' if num > 1 else ''}")
    return ", ".join(parts) or "no findings"


def guesses_head(diagnosis: Diagnosis) -> str:
    """What stands above the guesses."""
    if diagnosis.verdict == "healthy":
        return "should it disappoint nevertheless, look first for"
    return "what else it could be, by its curves alone"


def worth_telling(diagnosis: Diagnosis) -> tuple[Finding, ...]:
    """Guesses that a reader has use for; `--json` has the others, too."""
    return tuple(guess for guess in diagnosis.guesses if guess.confidence >= LEAST_TOLD)


def told_guess(guess: Finding) -> str:
    """A guess in a line: how likely it is, what it means, and what speaks for it."""
    reasons = [item.text.partition(": ")[2] for item in guess.evidence if item.text.startswith("for ")]
    return f"{chance_of(guess)}: {meaning(guess.code)}" + "".join(f". For it: {one}" for one in reasons[:1])


def chance_of(guess: Finding) -> str:
    """Its code and how likely it is."""
    return f"{guess.code} ({guess.confidence:.0%})"


def title_of(diagnosis: Diagnosis) -> str:
    """The run's name, or that it has none."""
    return diagnosis.run or "a run without a name"


def meaning(code: str) -> str:
    """What a code says, in a sentence."""
    known = CODES.get(code)
    return known.sentence if known is not None else ""


def quoted(text: str) -> str:
    """A word of a command line."""
    return shlex.quote(text)
