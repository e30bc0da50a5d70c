"""Every example, one after another, and a table of what they reach.

`python examples/all.py [--long] [--out FILE]` adds each result to FILE (results.jsonl) as one line of JSON as soon as
it is there. Run again, it leaves out what FILE has already, for the same form and the same sources; the table has all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
EXAMPLES = (
    "sort_docstrings",
    "label_docstrings",
    "tag_code",
    "guess_length",
    "summarize_source",
    "pronounce",
    "embed_docstrings",
    "fill_holes",
    "fine_tune",
    "fine_tune_minilm",
)
NAMES = {"accuracy": "accuracy", "exact": "whole words", "r2": "R²"}


def sources_of(name: str) -> str:
    """What a result depends on in this folder, as a digest."""
    parts = [(FOLDER / f"{one}.py").read_bytes() for one in (name, "run", "rows", "baselines")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def read(out: Path) -> list[dict[str, Any]]:
    """The results in `out`; a line that was cut off by a kill is left out."""
    found = []
    for line in out.read_text().splitlines() if out.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def carried_out(name: str, form: str) -> dict[str, Any]:
    """The result of one example in a process of its own: what it says, or why there is none."""
    words = [sys.executable, str(FOLDER / f"{name}.py"), "--json", *(["--short"] if form == "short" else [])]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    key = {"example": name, "form": form, "sources": sources_of(name)}
    if done.returncode:
        return key | {"failed": f"exit code {done.returncode}"}
    return key | json.loads(done.stdout.splitlines()[-1])


def table(results: list[dict[str, Any]], form: str) -> str:
    """The newest result of each example of one form, as Markdown."""
    newest = {one["example"]: one for one in results if one["form"] == form}
    lines = ["| example | figure | reached | guess | TF-IDF | seconds | device |", "|---|---|---|---|---|---|---|"]
    for name in EXAMPLES:
        one = newest.get(name)
        if one is None or "value" not in one:
            why = "not run" if one is None else one.get("skipped") or one["failed"]
            lines.append(f"| `{name}.py` | {why} | | | | | |")
            continue
        words = one["tf_idf_note"] if one["tf_idf"] is None else f"{one['tf_idf']:.3f}"
        guess = "" if one["figure"] == "exact" else f"{one['guess']:.3f}"
        lines.append(
            f"| `{name}.py` | {NAMES[one['figure']]} | {one['value']:.3f} | {guess} | {words} "
            f"| {one['seconds']:.0f} | {one['device']} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print the table; 1 where an example failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long forms, best on a GPU")
    parser.add_argument("--out", type=Path, default=Path("results.jsonl"))
    parser.add_argument("--only", nargs="*", choices=EXAMPLES, default=EXAMPLES, metavar="EXAMPLE")
    given = parser.parse_args(arguments)
    form = "long" if given.long else "short"
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if given.out.exists() and not given.out.read_text().endswith("\n"):
        given.out.write_text("".join(json.dumps(one) + "\n" for one in read(given.out)))
    done = {(one["example"], one["form"], one["sources"]) for one in read(given.out) if "value" in one}
    for name in given.only:
        if (name, form, sources_of(name)) in done:
            continue
        print(f"{name}, {form} form", file=sys.stderr, flush=True)
        result = carried_out(name, form)
        with given.out.open("a") as file:
            print(json.dumps(result), file=file, flush=True)
    results = read(given.out)
    print(table(results, form))
    newest = {one["example"]: one for one in results if one["form"] == form}
    return int(any("failed" in newest.get(name, {}) for name in given.only))


if __name__ == "__main__":
    sys.exit(main())
