"""What is not the same in two runs: settings, data, machine, versions, choices; and what each of these acts on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from trimtab.doctor.acts_on import Acts, acts_on
from trimtab.doctor.case import Case
from trimtab.doctor.compare.comparison import Change, Side

_FACTS: Final[tuple[tuple[tuple[str, ...], Acts], ...]] = (
    (("source",), "data"),
    (("training", "sha256"), "data"),
    (("training", "tokens"), "data"),
    (("tokenizer", "fingerprint"), "data"),
    (("tokenizer", "vocabulary_size"), "data"),
    (("validation", "sha256"), "judgement"),
    (("parameters", "total"), "weights"),
    (("parameters", "frozen"), "weights"),
    (("tokens_per_step",), "weights"),
    (("identity", "controllers"), "weights"),
    (("given",), "weights"),
    (("device",), "machine"),
)
"""Facts that say what settings do not, or in other words."""
_FOLLOWS: Final = {
    "facts.parameters.total": ("model.", "data.tokenizer."),
    "facts.parameters.frozen": ("model.", "freeze", "unfreez"),
    "facts.tokens_per_step": ("training.", "data.sequence_length"),
    "facts.training.tokens": ("data.",),
    "facts.training.sha256": ("data.",),
    "facts.tokenizer.fingerprint": ("data.",),
    "facts.tokenizer.vocabulary_size": ("data.",),
    "facts.validation.sha256": ("data.", "seed"),
    "facts.source": ("data.",),
    "facts.device": ("training.device",),
}
"""Facts that are not told where a setting that they follow from differs, too."""
_ORDER: Final[tuple[Acts, ...]] = (
    "data",
    "weights",
    "length",
    "chance",
    "numerics",
    "judgement",
    "machine",
    "nothing",
)


def changes_between(a: Side, b: Side) -> tuple[Change, ...]:
    """All that differs and is known of both, what acts on the weights first."""
    settings = list(_settings(a.case, b.case))
    found = [*settings, *_facts(a.case, b.case, settings), *_surroundings(a, b)]
    return tuple(sorted(found, key=lambda one: _ORDER.index(one.kind)))


def _settings(a: Case, b: Case) -> Iterator[Change]:
    if not a.config or not b.config:
        return
    for key in dict.fromkeys([*a.config, *b.config]):
        was, now = _plain(a.config.get(key)), _plain(b.config.get(key))
        if key in a.config and key in b.config:
            differs = was != now
        else:  # of another variant of its section, which its name tells, or of a version that did not know it
            section = key.rpartition(".")[0]
            other_variant = a.config.get(f"{section}.name") != b.config.get(f"{section}.name")
            differs = not other_variant and not _is_default(key, was if key in a.config else now)
        if differs:
            yield Change(key, acts_on(key), was, now)


def _is_default(key: str, value: Any) -> bool:
    """Whether a setting that one of two versions did not know has the value that it has by default."""
    from trimtab.config.keys import keys
    from trimtab.runs.files import json_value

    return any(json_value(one.default) == json_value(value) for one in keys().get(key, ()))


def _facts(a: Case, b: Case, settings: list[Change]) -> Iterator[Change]:
    changed = [one.what for one in settings]
    for path, kind in _FACTS:
        was, now = a.fact(*path), b.fact(*path)
        what = ".".join(("facts", *path))
        follows = _FOLLOWS.get(what, ())
        if was is None or now is None or _plain(was) == _plain(now):
            continue
        if not any(key == follow or key.startswith(follow) for key in changed for follow in follows):
            yield Change(what, kind, _plain(was), _plain(now))


def _surroundings(a: Side, b: Side) -> Iterator[Change]:
    """Versions, code and hardware, and what was chosen by measuring."""
    for name, kind in (("versions", "machine"), ("git", "machine"), ("hardware", "machine")):
        was, now = (_flat(side.environment.get(name)) for side in (a, b))
        for key in [key for key in was if key in now and was[key] != now[key]]:
            yield Change(f"{name}.{key}" if key else name, kind, was[key], now[key])  # type: ignore[arg-type]
    was, now = _flat(dict(a.plan)), _flat(dict(b.plan))
    for key in [key for key in was if key in now and was[key] != now[key]]:
        if key.rpartition(".")[2] in ("reason", "why"):
            continue  # what is said of a choice is no choice
        if isinstance(was[key], str | bool) or key.endswith(("threads", "micro_batch_size")):
            yield Change(f"plan.{key}", "numerics", was[key], now[key])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name to every value that is no mapping."""
    if not isinstance(value, Mapping):
        return {} if value is None else {prefix: _plain(value)}
    result: dict[str, Any] = {}
    for key, part in value.items():
        result |= _flat(part, f"{prefix}.{key}" if prefix else str(key))
    return result


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
