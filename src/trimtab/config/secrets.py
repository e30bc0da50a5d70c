"""What is never written down: tokens, passwords and keys, told by name, by shape, and from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

HIDDEN: Final = "***"
"""What stands in the place of a secret."""
_SHORTEST_KNOWN: Final = 8
"""Characters of a secret in the environment that is looked for in texts: shorter ones are words, too."""
_LONGEST_ASSIGNED: Final = 500

_NAME: Final = re.compile(
    r"(?:(?<![a-z])(?<!pad_)(?<!eos_)(?<!bos_)(?<!unk_)(?<!sep_)(?<!cls_)(?<!mask_)(?<!image_)token"
    r"|(?:auth|access|api|bearer|session|refresh|id)_?token"
    r"|secret|passw(?:or)?d|passphrase|credentials?|authorization|bearer"
    r"|(?:api|access|private|secret|signing|encryption|account|storage)_?key)(?:$|[\W_])",
    re.IGNORECASE,
)
_LOUD_NAME: Final = re.compile(r"[A-Z0-9_]*_KEY|[A-Z0-9_]*_PWD|PGPASSFILE")
"""Names of variables: any *_KEY; of settings in lower case many end so that are none (`sort_key`)."""

_ABOUT: Final = ("_variable", "_id", "_ids", "_file", "_path")
"""Ends of names of what says where a secret is, or numbers it."""

_SHAPES: Final = re.compile(
    r"\b(?:sk|rk|pk)-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, Stripe's older ones
    r"|\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}"
    r"|\bhf_[A-Za-z0-9]{16,}"
    r"|\bgh[opsur]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{35}"
    r"|\bwandb_v1_\w{20,}"
    r"|(?<![\w-])eyJ[\w-]{8,2000}\.[\w-]{8,2000}\.[\w-]*"  # JSON web tokens
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
_AFTER: Final = re.compile(r"\b(bearer|basic)([ \t]+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_IN_ADDRESS: Final = re.compile(r"(\w://)[^/@\s\"']+@")
_ASSIGNED: Final = re.compile(
    r"(?<![\w.])(?P<name>[A-Za-z_][\w.-]{0,100})(?P<sign>[\"']?\s{0,9}[=:]\s{0,9})"
    rf"(?P<value>\"[^\"\n]{{1,{_LONGEST_ASSIGNED}}}\"|'[^'\n]{{1,{_LONGEST_ASSIGNED}}}'"
    rf"|(?![{{\[(])[^\s\"',;)}}\]]{{1,{_LONGEST_ASSIGNED}}})"
)
_NO_SECRET: Final = re.compile(r"(?i:none|null|true|false|[\d._]+)")
"""What stands behind a name like `token` and is none: hiding it would take away what a reader needs."""


def is_secret_name(name: str) -> bool:
    """Whether a setting, variable or option of this name holds a secret: `HF_TOKEN`, `api_key`, not `max_tokens`."""
    if name.endswith(_ABOUT):
        return False
    return bool(_NAME.search(name) or _LOUD_NAME.fullmatch(name))


def hide(text: str, *, assigned: bool = False) -> str:
    """`text` with `***` in place of what has the shape of a secret, and of secrets that the environment holds.

    With `assigned` besides the values in `name = value` and `name: value` under the name of a secret: for code and
    command lines; in a sample of code it would hide what is none.
    """
    for secret in _known():
        text = text.replace(secret, HIDDEN)
    text = _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text)
    text = _AFTER.sub(rf"\1\2{HIDDEN}", _SHAPES.sub(HIDDEN, text))
    return _ASSIGNED.sub(_without_value, text) if assigned else text


def hidden(value: Any, name: str = "") -> Any:
    """The JSON value `value`, which is called `name`, without secrets: by the names in it, and as `hide` says."""
    if isinstance(value, str):
        return HIDDEN if value and is_secret_name(name) and not _NO_SECRET.fullmatch(value) else hide(value)
    if isinstance(value, Mapping):
        return {key: hidden(part, str(key)) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(hidden(part, name) for part in value)
    return value


def hide_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line in which the values of tokens, passwords and keys are `***`.

    It knows `key=value`, `--key=value`, `--key value`, passwords inside of addresses, and all that `hide` knows.
    """
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if hide_next and not argument.startswith("-"):
            shown.append(HIDDEN)
        elif equals and is_secret_name(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(hide(argument, assigned=True))
        hide_next = argument.startswith("-") and not equals and is_secret_name(argument)
    return shown


def is_hidden(value: Any) -> bool:
    """Whether a secret was taken out of `value`, so that it says no longer what it said."""
    if isinstance(value, str):
        return value == HIDDEN or f"://{HIDDEN}@" in value
    if isinstance(value, Mapping):
        return any(map(is_hidden, value.values()))
    return isinstance(value, list | tuple) and any(map(is_hidden, value))


def _known() -> tuple[str, ...]:
    """The secrets in the environment, the longest first: one may be a part of another."""
    return _secrets_among(tuple(os.environ.items()))


@lru_cache(maxsize=4)  # a command asks hundreds of times, of the same environment
def _secrets_among(variables: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    found = {
        value
        for name, value in variables
        if len(value) >= _SHORTEST_KNOWN and is_secret_name(name) and not value.startswith(("/", "."))
    }
    return tuple(sorted(found, key=len, reverse=True))


def _without_value(found: re.Match[str]) -> str:
    value = found["value"]
    if not is_secret_name(found["name"]) or _NO_SECRET.fullmatch(value.strip("\"'")):
        return found[0]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{found['name']}{found['sign']}{quote}{HIDDEN}{quote}"
