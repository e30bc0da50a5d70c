"""The documentation: generated pages are current, what it shows works, and its stand-alone scripts do their job."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command

from trimtab import cli
from trimtab.config import load_config
from trimtab.errors import ConfigError
from trimtab.events import CheckpointSaved, EvaluationEnded, RunStarted
from trimtab.runs import RecordWriter, StatisticsWriter
from trimtab.runs.record import decode_line, event_from_json, lines_of
from trimtab.training.checkpoint import Snapshot, write_snapshot

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHEAP = ("check", "config show", "config explain")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The name that its first line gives a configuration."""
        found = re.match(r"# (\S+\.(?:yaml|toml))", self.text)
        return found and found[1]

    @property
    def is_valid(self) -> bool:
        return "(not valid)" not in self.text.partition("\n")[0]


def _blocks() -> Iterator[Block]:
    for path in sorted(DOCS.rglob("*.md")):
        lines = path.read_text(encoding="utf-8").splitlines()
        begin = None
        for number, line in enumerate(lines, start=1):
            if line.startswith("```") and begin is None:
                begin = number
            elif line == "```" and begin is not None:
                text = "\n".join(lines[begin : number - 1]) + "\n"
                yield Block(str(path.relative_to(DOCS)), begin, lines[begin - 1][3:], text)
                begin = None
        assert begin is None, f"{path}:{begin}: the block has no end"


BLOCKS = list(_blocks())
CONFIGURATIONS = [block for block in BLOCKS if block.language in ("yaml", "toml")]
PYTHON = [block for block in BLOCKS if block.language == "python" and not block.page.endswith("python-api.md")]


@dataclass(frozen=True)
class Command:
    """A command of trimtab, as a page shows it."""

    block: Block
    variables: dict[str, str]
    arguments: list[str]
    shown: str | None
    """The output below it; None when none is shown."""

    def __str__(self) -> str:
        return f"{self.block}:{' '.join(self.arguments)}"


def _commands() -> Iterator[Command]:
    for block in BLOCKS:
        if block.language == "console":
            for part in re.split(r"(?m)^\$ ", block.text)[1:]:
                line, _, output = part.partition("\n")
                yield from _command(block, line, output or None)
        elif block.language == "sh":
            for line in block.text.splitlines():
                yield from _command(block, line, None)


def _command(block: Block, line: str, shown: str | None) -> Iterator[Command]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    words = list(lexer)
    for index, word in enumerate(words):
        if word == "trimtab" and (index == 0 or words[index - 1] == "until" or "=" in words[index - 1]):
            before = [one.split("=", 1) for one in words[:index] if "=" in one]
            after = words[index + 1 :]
            end = next((at for at, one in enumerate(after) if set(one) <= set(";|&<>")), len(after))
            yield Command(block, dict(before), after[:end], shown)


COMMANDS = list(_commands())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the configurations that the pages name, and no settings in the environment."""
    for block in CONFIGURATIONS:
        if block.file_name is not None:
            (tmp_path / block.file_name).write_text(block.text, encoding="utf-8")
    for name in ("text", "my-text"):  # the text that the pages speak of
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TRIMTAB_") and name != "TRIMTAB_CACHE"]:
        monkeypatch.delenv(name)
    return tmp_path


def test_generated_pages_are_up_to_date_and_need_no_torch() -> None:
    code = "import sys, generate; stale = generate.main(['--check']); sys.exit(stale or 2 * ('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=DOCS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_that_is_out_of_date_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    generate = importlib.import_module("generate")
    monkeypatch.setattr(generate, "REFERENCE", tmp_path / "reference")
    monkeypatch.setattr(generate, "pages", lambda: {"a.md": "new", "b.md": "same"})
    assert generate.main(["--check"]) == 1
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "reference" / "a.md").write_text("old")
    capsys.readouterr()
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "docs/reference/a.md is out of date\nnext: python docs/generate.py\n"


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config as load_site

    build(load_site(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    assert (tmp_path / "index.html").is_file()


def linked(page: str) -> set[str]:
    """The files that a page links to."""
    return set(re.findall(r"\]\(([^)#:]+)", (DOCS / page).read_text(encoding="utf-8")))


def pages(*folders: str) -> set[str]:
    return {f"{folder}/{file.name}" for folder in folders for file in (DOCS / folder).glob("*.md")}


def test_llms_txt_names_every_page_and_no_other() -> None:
    links = linked("llms.txt")
    assert pages("tutorial", "how-to", "reference", "explanation") - links == set()
    assert [link for link in links if not (DOCS / link).is_file()] == []
    assert pages("tutorial", "how-to") - linked("index.md") == set()


def test_llms_txt_has_every_command_and_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    generate = importlib.import_module("generate")
    text = " ".join((DOCS / "llms.txt").read_text(encoding="utf-8").split())
    told = re.findall(r"[^, ][^,]*", re.findall(r"Commands: ([^.]+)\.", text)[0].replace("config ", ""))
    told = [one for part in told for one in part.split("|")]
    names = [
        name.removeprefix("trimtab ").removeprefix("config ") for name, _ in generate._commands(cli.app, "trimtab")
    ]
    assert sorted(told) == sorted(names)
    codes = re.findall(r"Exit codes: ([^.]+)\.", text)[0]
    assert [int(one) for one in re.findall(r"(?:^|, )(\d+) ", codes)] == list(generate.EXIT_CODES)


def codes_of(cell: str) -> list[str]:
    """What a cell of a table has between backticks, commands left out."""
    return [code for code in re.findall(r"`([^`]+)`", cell) if not code.startswith("trimtab ")]


def test_every_python_name_of_the_techniques_is_there() -> None:
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    pairs = re.findall(r"^\s*(?:def|class) (\w+)|^(\w+)(?:: [^=\n]+)? = ", source, re.MULTILINE)
    defined = {name for pair in pairs for name in pair} | {file.stem for file in (ROOT / "src").rglob("*")}
    said: set[str] = set()
    column = None
    for line in (DOCS / "techniques.md").read_text(encoding="utf-8").splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if not line.startswith("|"):
            column = None
        elif column is None:
            column = next((index for index, cell in enumerate(cells) if cell.strip() in ("Python", "name")), 0)
        elif column:
            said |= {re.split(r"\W", code.partition("(")[0].rpartition(".")[2])[0] for code in codes_of(cells[column])}
    assert len(said) > 100
    assert said - defined == set()


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=str)
def test_configurations_load(block: Block, folder: Path) -> None:
    path = folder / f"page.{block.language}"
    path.write_text(block.text, encoding="utf-8")
    if block.is_valid:
        load_config(path)
    else:
        with pytest.raises(ConfigError):
            load_config(path)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_commands_are_understood(command: Command, folder: Path) -> None:
    parser: Any = get_command(cli.app)
    words = list(command.arguments)
    while hasattr(parser, "commands"):
        parser = parser.commands[words.pop(0)]
    context = parser.make_context("trimtab", words)
    if command.shown is None and "source" in context.params:
        load_config(context.params["source"], context.params["overrides"] or [])


@pytest.mark.parametrize(
    "command",
    [one for one in COMMANDS if one.shown is not None and " ".join(one.arguments).startswith(CHEAP)],
    ids=str,
)
def test_output_is_as_shown(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in command.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["trimtab", *command.arguments])
    with pytest.raises(SystemExit):
        cli.main()
    written = capsys.readouterr()
    pattern = re.escape(str(command.shown)).replace(r"\.\.\." + "\\\n", r"(?:.*\n)*")
    assert re.fullmatch(pattern, written.out + written.err), written.out + written.err


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", [block for block in PYTHON if "trimtab.events" in block.text], ids=str)
def test_parts_pass_their_conformance_tests(block: Block) -> None:
    exec(compile(block.text, str(block), "exec"), {"__name__": "page"})


@pytest.fixture
def run(folder: Path) -> Path:
    """The run that the reference pages speak of, small: a record of two branches, statistics, a checkpoint."""
    run = folder / "runs" / "topics"
    run.mkdir(parents=True)
    writer = RecordWriter(run / "record.jsonl")
    events = [
        RunStarted(0, 1, 0, None, 40),
        EvaluationEnded(10, {"validation/loss": 3.5}, 0.1),
        CheckpointSaved(10, "checkpoints/step-00000010", 100, 0.1, "scheduled"),
        EvaluationEnded(20, {"validation/loss": float("nan")}, 0.1),
    ]
    for event in events:
        writer.append(*lines_of(event))
    writer.branch = 1
    for event in [RunStarted(10, 2, 1, 10, 40), EvaluationEnded(20, {"validation/loss": 3.25}, 0.1)]:
        writer.append(*lines_of(event))
    writer.close()
    statistics = StatisticsWriter(run / "statistics")
    statistics.append(10, {"layer/a/grad_norm": 1.0, "layer/b/grad_norm": 2.0})
    statistics.close()
    checkpoints = run / "checkpoints"
    tensors = {"model/weight": torch.ones(3, 2), "optimizer/weight/exp_avg": torch.zeros(3, 2)}
    description = {"step": 300, "branch": 1, "reason": "scheduled", "metrics": {"validation/loss": 3.25}}
    write_snapshot(Snapshot(tensors, {}), checkpoints / ".tmp-1", checkpoints / "step-00000300", description)
    return run


def test_the_line_that_is_shown_is_one_of_a_record() -> None:
    (block,) = [block for block in BLOCKS if block.language == "json" and "crc32" in block.text]
    line = decode_line(block.text.encode())
    assert line is not None
    assert isinstance(event_from_json(line), CheckpointSaved)


def _script(page: str, containing: str, folder: Path) -> Path:
    """The block of a page, as a file."""
    (block,) = [block for block in PYTHON if block.page == page and containing in block.text]
    path = folder / "script.py"
    path.write_text(block.text, encoding="utf-8")
    return path


def _run(script: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    # Isolated and without site-packages: what stands alone needs nothing but Python.
    return subprocess.run([sys.executable, "-I", "-S", script, *arguments], capture_output=True, text=True, check=False)


def test_the_reader_of_records_stands_alone(run: Path, folder: Path) -> None:
    record = run / "record.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    damaged = lines[1].replace(b"3.5", b"3.6")
    record.write_bytes(b"".join([lines[0], damaged, *lines[1:], lines[-1][:40]]))
    done = _run(_script("reference/run-directory.md", "rpartition", folder), record)
    assert done.stderr == ""
    assert done.stdout == "10 3.5\n20 nan\n20 3.25\n"


def test_the_verifier_of_checkpoints_stands_alone(run: Path, folder: Path) -> None:
    script, checkpoint = _script("reference/checkpoint.md", "hashlib", folder), run / "checkpoints/step-00000300"
    whole = _run(script, checkpoint)
    assert (whole.returncode, whole.stdout) == (0, "intact\n"), whole.stderr
    tensors = checkpoint / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    assert _run(script, checkpoint).stdout == "damaged: tensors.safetensors\n"
    tensors.unlink()
    assert _run(script, checkpoint).returncode == 1
    manifest = checkpoint / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"bytes":', b'"bytes":1', 1))
    assert "manifest.json" in _run(script, checkpoint).stdout


@pytest.mark.parametrize(
    ("page", "containing", "expected"),
    [
        ("reference/run-directory.md", "read_record", ["1 20 EvaluationEnded"]),
        ("reference/run-directory.md", "read_statistics", ["(1, 2)"]),
        ("reference/checkpoint.md", "load_file", ["1 6"]),
    ],
)
def test_what_reads_a_run_with_libraries(
    page: str, containing: str, expected: list[str], run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = _script(page, containing, folder)
    exec(compile(script.read_text(), page, "exec"), {"__name__": "page"})
    written = capsys.readouterr().out
    assert all(text in written for text in expected), written
