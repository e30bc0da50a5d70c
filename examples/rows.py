"""Rows of real text with something to say of each, from the sources of packages that torch installs (BSD).

Nothing is downloaded and nothing is imported: the `.py` files of sympy, networkx and mpmath are parsed. Every function
here gives rows for the files that it is asked for, so that an example can be short or long, and sets aside whole files
for validation: neighbours in a file resemble each other.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import json
import keyword
import math
import re
import tokenize
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

Row = dict[str, Any]
Source = TypeVar("Source", Path, str)
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")


def files(*packages: str) -> list[Path]:
    """The source files of packages or subpackages such as `sympy.core`, without tests."""
    found = []
    for package in packages:
        name, *inner = package.split(".")
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent.joinpath(*inner)
        found += [file for file in sorted(folder.rglob("*.py")) if not {"tests", "testing"} & set(file.parts)]
    return found


def write_rows(
    folder: Path, rows_of: Callable[[Source], Iterable[Row]], sources: Iterable[Source]
) -> tuple[Path, Path]:
    """`train.jsonl` and `validation.jsonl` in `folder`; every tenth source, by the hash of its name, is for validation.

    A source is a file, or a text of which the first word is its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train.jsonl", folder / "validation.jsonl"
    with paths[0].open("w") as training, paths[1].open("w") as validation:
        for source in sources:
            name = "/".join(source.parts[-4:]) if isinstance(source, Path) else source.split()[0]
            held_out = hashlib.sha256(name.encode()).digest()[0] < 26
            for row in rows_of(source):
                print(json.dumps(row), file=validation if held_out else training)
    return paths


def _definitions(file: Path) -> Iterator[tuple[ast.AST, str]]:
    """Functions and classes with a docstring of at least 20 characters."""
    left: deque[Any] = deque([ast.parse(file.read_text("utf8"))])
    while left:
        node = left.popleft()
        for block in _BLOCKS:  # expressions hold no definition, and are most of the tree
            left.extend(one for one in getattr(node, block, ()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text and len(text) >= 20:
                yield node, text


def docstring_and_subpackage(file: Path) -> Iterator[Row]:
    """What a docstring says, and in which subpackage of its package it stands."""
    parts = file.parts
    package = max(parts.index(name) for name in ("sympy", "networkx", "mpmath") if name in parts)
    if package + 2 < len(parts):
        for _, text in _definitions(file):
            yield {"text": text, "label": parts[package + 1]}


def docstring_and_topics(file: Path) -> Iterator[Row]:
    """What a docstring says of a function or class, and what it has: any of four labels, or none."""
    for node, text in _definitions(file):
        doctest = ">>>" in text
        labels = {
            "class": isinstance(node, ast.ClassDef),
            "example": doctest,
            "parameters": "Parameters" in text or ":param" in text,
            "references": "References" in text or "[1]_" in text,
        }
        plain = text.partition("Parameters\n")[0].partition(">>>")[0].partition("References\n")[0].strip()
        if plain:
            yield {"text": plain, "label": [name for name, has in labels.items() if has]}


def docstring_and_length(file: Path) -> Iterator[Row]:
    """What a docstring says of a function, and the logarithm of the number of lines of its body."""
    for node, text in _definitions(file):
        if isinstance(node, ast.FunctionDef):
            lines = node.body[-1].end_lineno - node.body[0].end_lineno  # type: ignore[operator]
            if lines > 0:
                yield {"text": text, "value": math.log(lines)}


def name_and_docstring(file: Path) -> Iterator[Row]:
    """What a docstring says first of a function or class, without naming it, and the words of its name."""
    for node, text in _definitions(file):
        name = getattr(node, "name", "")
        words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name.strip("_")).replace("_", " ").lower()
        summary = " ".join(text.partition(">>>")[0].split()[:40]).replace(name, "")
        if len(words) >= 4 and len(summary) >= 20:
            yield {"text": summary, "second": words}


def source_and_summary(file: Path) -> Iterator[Row]:
    """The source of a function without its docstring, and the docstring's first line."""
    lines = file.read_text("utf8").splitlines()
    for node, text in _definitions(file):
        if isinstance(node, ast.FunctionDef) and len(node.body) > 1:
            summary = text.strip().splitlines()[0].strip()
            head = f"def {node.name}({', '.join(one.arg for one in node.args.args)}):\n"
            body = "\n".join(lines[node.body[1].lineno - 1 : node.end_lineno])
            if len(summary) >= 10:
                yield {"text": head + body, "target": summary}


def words_and_roles(file: Path) -> Iterator[Row]:
    """The tokens of a logical line of code, and what each is to Python; names by their place in the syntax tree."""
    source = file.read_text("utf8")
    roles: dict[tuple[int, int], str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            kind = {"Load": "read", "Store": "write", "Del": "write"}[type(node.ctx).__name__]
            roles[node.lineno, node.col_offset] = kind
        elif isinstance(node, ast.arg):
            roles[node.lineno, node.col_offset] = "parameter"
    words: list[str] = []
    tags: list[str] = []
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NEWLINE:
            if len(words) > 2:
                yield {"text": words, "tags": tags}
            words, tags = [], []
        elif token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER):
            words.append(token.string)
            tags.append(_role(token, roles, before))
        elif token.type == tokenize.STRING and len(token.string) < 60:
            words.append("''")
            tags.append("text")
        before = token.string


def _role(token: tokenize.TokenInfo, roles: dict[tuple[int, int], str], before: str) -> str:
    if token.type != tokenize.NAME:
        return "operator" if token.type == tokenize.OP else "number"
    if keyword.iskeyword(token.string):
        return "keyword"
    if before in ("def", "class"):
        return "definition"
    # ast counts bytes in a line: on lines with other letters a name is looked up in vain.
    return "attribute" if before == "." else roles.get(token.start, "other")
