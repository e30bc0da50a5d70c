"""The data of the part `spread`: several grounds that neither of the other parts has, one drawn for each run.

library  the standard library's sources; its docstrings, by package
torch    torch's sources; its docstrings, by package
names    the names of Unicode's characters, by kind
prose    what packages say of themselves; their paragraphs, by package

Pictures are the same on each: shapes that are drawn.
"""

from __future__ import annotations

import json
import re
import sysconfig
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from bank.scenario import Scenario
from bank.texts import (
    Documented,
    documented,
    package_folder,
    prepare,
    rows_of,
    shuffled,
    sources,
)

OF_OTHER_PARTS: Final = ("pandas", "pygments", "scipy", "matplotlib", "sympy", "networkx")
CHARACTERS: Final = 900_000


def data_of(scenario: Scenario, folder: Path) -> Path:
    """Where the data of a run lie; they are made if they are not there."""
    if scenario.part != "spread":
        return prepare(scenario.part, folder)
    ground = ground_of(scenario)
    place = folder / "data" / "spread" / ground
    if (place / "complete").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    others = sorted(GROUNDS)
    other = others[(others.index(ground) + 1) % len(others)]
    (place / "corpus.txt").write_text(shuffled(_cut(GROUNDS[ground].texts(), CHARACTERS)), encoding="utf-8")
    (place / "other.txt").write_text(shuffled(_cut(GROUNDS[other].texts(), CHARACTERS // 2)), encoding="utf-8")
    rows = GROUNDS[ground].rows()
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pictures, classes = shapes()
    np.savez_compressed(place / "pictures.npz", pictures=pictures, classes=classes)
    (place / "complete").write_text("")
    return place


def ground_of(scenario: Scenario) -> str:
    """Which of them a run is on."""
    return scenario.draw("ground").choice(sorted(GROUNDS))


def _cut(texts: Iterable[str], size: int) -> str:
    found: list[str] = []
    total = 0
    for text in texts:
        found.append(text)
        total += len(text)
        if total >= size:
            break
    return "\n".join(found)[:size]


def _library() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(root.rglob("*.py"))
    return [file for file in files if not {"site-packages", "test", "tests", "encodings"} & set(file.parts)]


def _read(files: Iterable[Path]) -> Iterator[str]:
    return (file.read_text(encoding="utf-8", errors="ignore") for file in files)


def _library_rows() -> list[dict[str, Any]]:
    return rows_of(documented(_library(), Path(sysconfig.get_paths()["stdlib"])), num_classes=6)


def _torch_rows() -> list[dict[str, Any]]:
    return rows_of(documented(sources("torch"), package_folder("torch")), num_classes=8)


def _names() -> list[tuple[str, str]]:
    """Names and kinds of characters, those that differ in their last word alone left out but some."""
    found = []
    for number in range(0x20, 0x20000):
        name = unicodedata.name(chr(number), "")
        if name and not re.search(r"CJK|HANGUL SYLLABLE|TANGUT|CUNEIFORM|HIEROGLYPH|YI SYLLABLE|[0-9]", name):
            found.append((name, unicodedata.category(chr(number))))
    return found


def _name_rows() -> list[dict[str, Any]]:
    names = _names()
    kinds = [kind for kind, _ in Counter(kind for _, kind in names).most_common(5)]
    documented_names: Iterator[Documented] = (
        (kind, name.title().replace(" ", ""), name, len(name)) for name, kind in names if kind in kinds
    )
    return rows_of(documented_names, num_classes=5, shortest=8)


def _prose() -> list[tuple[str, str]]:
    """Packages and what they say of themselves."""
    root = package_folder("torch").parent
    found = []
    for file in sorted(root.glob("*.dist-info/METADATA")):
        name = file.parent.name.partition("-")[0]
        if name not in OF_OTHER_PARTS:
            found.append((name, file.read_text(encoding="utf-8", errors="ignore").partition("\n\n")[2]))
    return found


def _prose_rows() -> list[dict[str, Any]]:
    rows = []
    for name, text in _prose():
        for paragraph in re.split(r"\n\s*\n", text):
            every = re.sub(r"[^\w ]+", " ", " ".join(paragraph.split())).split()
            for at in range(0, len(every), 14):
                words = every[at : at + 14]
                if len(words) > 6:
                    rows.append((name, "".join(word.title() for word in words[:6]), " ".join(words), len(words)))
    return rows_of(iter(rows), num_classes=6)


def shapes() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pictures [N, 10, 10] from 0 to 1 and their classes: six shapes of any size and place, under noise."""
    from PIL import Image, ImageDraw

    random = np.random.default_rng(23)
    pictures, classes = [], []
    for index in range(1_800):
        image = Image.new("L", (10, 10))
        pen, (width, height) = ImageDraw.Draw(image), random.integers(4, 8, 2)
        left, top = int(random.integers(0, 10 - width)), int(random.integers(0, 10 - height))
        right, bottom = left + int(width), top + int(height)
        middle = (left + right) // 2
        match index % 6:
            case 0:
                pen.ellipse((left, top, right, bottom), outline=255)
            case 1:
                pen.rectangle((left, top, right, bottom), outline=255)
            case 2:
                pen.polygon([(middle, top), (right, bottom), (left, bottom)], outline=255)
            case 3:
                pen.line((left, top, right, bottom), fill=255)
                pen.line((left, bottom, right, top), fill=255)
            case 4:
                pen.line((left, bottom, right, top), fill=255, width=2)
            case _:
                pen.line((middle, top, middle, bottom), fill=255)
                pen.line((left, top, right, top), fill=255)
        noisy = np.asarray(image, dtype=np.float32) / 255.0 + random.normal(0, 0.15, (10, 10)).astype(np.float32)
        pictures.append(np.clip(noisy, 0.0, 1.0))
        classes.append(index % 6)
    return np.stack(pictures), np.asarray(classes)


class Ground:
    """Texts to model, and labelled rows."""

    def __init__(self, texts: Callable[[], Iterable[str]], rows: Callable[[], list[dict[str, Any]]]) -> None:
        self.texts, self.rows = texts, rows


def _mixed(names: list[str]) -> Iterator[str]:
    random = np.random.default_rng(17)
    return (names[index] for index in random.permutation(len(names)))


GROUNDS: Final[dict[str, Ground]] = {
    "library": Ground(lambda: _read(_library()), _library_rows),
    "torch": Ground(lambda: _read(sources("torch")), _torch_rows),
    "names": Ground(lambda: _mixed([name.lower() for name, _ in _names()]), _name_rows),
    "prose": Ground(lambda: (text for _, text in _prose()), _prose_rows),
}
