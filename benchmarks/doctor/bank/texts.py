"""Real data that packages ship: other packages for each part of the bank. Made once, and kept as files.

tuning: sympy, networkx (text) · digits of scikit-learn (pictures)
test:   pandas, pygments, scipy (text) · letters drawn with the fonts of matplotlib (pictures)
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from bank.scenario import Part

CORPORA: Final[dict[str, tuple[str, str]]] = {"tuning": ("networkx", "sympy"), "test": ("pygments", "pandas")}
"""The text of language models, and other text for what is of another kind."""
LABELLED: Final[dict[str, str]] = {"tuning": "sympy", "test": "scipy"}
"""The package whose docstrings are classified by their subpackage."""
NUM_CLASSES: Final[dict[str, int]] = {"tuning": 5, "test": 7}
ROWS_A_CLASS: Final = 700

Documented = tuple[str, str, str, int]
"""Subpackage, signature, docstring, lines of the body."""


def package_folder(name: str) -> Path:
    """Where a package lies, without importing it. Raises: ModuleNotFoundError when it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the bank reads the texts of the package {name}, which is not installed")
    return Path(spec.origin).parent


def sources(name: str) -> list[Path]:
    """Its Python files, tests left out, in a fixed order."""
    return [file for file in sorted(package_folder(name).rglob("*.py")) if not {"tests", "testing"} & set(file.parts)]


def corpus(name: str, size: int, skip: int = 0) -> str:
    """So many characters of its source code, after the first `skip`, in pieces of some 2,000 that are shuffled: what is
    held out at the end is of the same kind as the rest."""
    parts: list[str] = []
    total = 0
    for file in sources(name):
        parts.append(file.read_text(encoding="utf-8", errors="ignore"))
        total += len(parts[-1])
        if total >= size + skip:
            break
    return shuffled("\n".join(parts)[skip : skip + size])


def shuffled(text: str) -> str:
    """The same in another order of pieces of some 2,000 characters."""
    pieces = [text[at : at + 2_000] for at in range(0, len(text), 2_000)]
    return "".join(pieces[index] for index in np.random.default_rng(13).permutation(len(pieces)))


def documented(files: Iterable[Path], root: Path) -> Iterator[Documented]:
    """Of each documented function of sources below `root`, in folders of it."""
    for file in files:
        inside = file.relative_to(root).parts
        if len(inside) < 2:
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8", errors="ignore"))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                arguments = [arg.arg for arg in node.args.args] if isinstance(node, ast.FunctionDef) else []
                lines = (node.end_lineno or node.lineno) - node.lineno
                yield inside[0], f"{node.name}({', '.join(arguments)})", " ".join(text.split()), lines


def labelled_rows(part: Part) -> list[dict[str, Any]]:
    """Those of a part."""
    name = LABELLED[part]
    return rows_of(documented(sources(name), package_folder(name)), NUM_CLASSES[part])


def rows_of(found: Iterator[Documented], num_classes: int, shortest: int = 40) -> list[dict[str, Any]]:
    """Rows with text, label, target (a second text) and value (a number), about as many of each class."""
    kept = _without_repetition(row for row in found if len(row[2]) > shortest)
    classes = [name for name, _ in Counter(row[0] for row in kept).most_common(num_classes)]
    random = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    for label in classes:
        of_class = [row for row in kept if row[0] == label]
        chosen = random.permutation(len(of_class))[:ROWS_A_CLASS]
        rows += [
            {
                "text": of_class[index][2][:160],
                "label": label,
                "signature": of_class[index][1][:60],
                "target": _words(of_class[index][1])[:40],
                "value": round(float(np.log1p(of_class[index][3])), 4),
            }
            for index in sorted(chosen)
        ]
    return [rows[index] for index in random.permutation(len(rows))]


def _without_repetition(rows: Iterable[Documented]) -> list[Documented]:
    """Those rows of which less than a third of the runs of four words were in others before."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for row in rows:
        words = row[2][:160].lower().split()
        runs = {tuple(words[at : at + 4]) for at in range(max(1, len(words) - 3))}
        if len(runs & seen) < len(runs) / 3:
            kept.append(row)
        seen |= runs
    return kept


def _words(signature: str) -> str:
    """A name as words: what a model that reads the signature has to write."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[_(),]+", " ", signature)
    return " ".join(spaced.lower().split())


def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pictures [N, 8, 8] from 0 to 1 and their classes: handwritten digits of scikit-learn (UCI)."""
    table = np.loadtxt(package_folder("sklearn") / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8).astype(np.float32) / 16.0, table[:, -1].astype(np.int64)


def letters() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pictures [N, 12, 12] from 0 to 1 and their classes: eight letters in the fonts of matplotlib, moved about."""
    from PIL import Image, ImageDraw, ImageFont

    fonts = sorted((package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf").glob("*.ttf"))
    usable = [font for font in fonts if re.match(r"(DejaVuS|STIXGeneral|cm(b|r|ss|ti|tt)10)", font.name)]
    random = np.random.default_rng(11)
    pictures, classes = [], []
    for index in range(1600):
        label = index % 8
        font = ImageFont.truetype(str(usable[int(random.integers(len(usable)))]), int(random.integers(9, 13)))
        image = Image.new("L", (12, 12))
        place = (int(random.integers(0, 4)), int(random.integers(-2, 2)))
        ImageDraw.Draw(image).text(place, "aegkmrsw"[label], fill=255, font=font)
        noisy = np.asarray(image, dtype=np.float32) / 255.0 + random.normal(0, 0.08, (12, 12)).astype(np.float32)
        pictures.append(np.clip(noisy, 0.0, 1.0))
        classes.append(label)
    return np.stack(pictures), np.asarray(classes)


def prepare(part: Part, folder: Path) -> Path:
    """The folder with the data of a part: corpus.txt, other.txt, rows.jsonl, pictures.npz."""
    place = folder / "data" / part
    if (place / "complete").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    own, other = CORPORA[part]
    (place / "corpus.txt").write_text(corpus(own, 1_500_000), encoding="utf-8")
    (place / "other.txt").write_text(corpus(other, 400_000, skip=300_000), encoding="utf-8")
    rows = labelled_rows(part)
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pictures, classes = digits() if part == "tuning" else letters()
    np.savez_compressed(place / "pictures.npz", pictures=pictures, classes=classes)
    (place / "complete").write_text("")
    return place


def read_rows(place: Path) -> list[dict[str, Any]]:
    """The labelled rows of a part."""
    return [json.loads(line) for line in (place / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
