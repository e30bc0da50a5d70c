"""The console, in a real terminal, in a pipe and as JSON."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from trimtab.events import (
    Adjust,
    Advise,
    AlertRaised,
    ArtifactLogged,
    CheckpointSaved,
    DecisionTaken,
    EvaluationEnded,
    FindingsChanged,
    RunEnded,
    RunStarted,
    Save,
    StepsEnded,
    Stop,
)
from trimtab.monitor.sinks import Console
from trimtab.monitor.sinks.console_output import open_output
from trimtab.monitor.sinks.console_progress import Progress, preparing_line
from trimtab.monitor.sinks.console_thinning import ALLOWANCES
from trimtab.runs import event_from_json

FACTS = {
    "source": "Python code",
    "parameters": {"total": 1_544_320, "frozen": 0},
    "training": {"tokens": 5_201_233},
    "validation": {"tokens": 270_100},
    "tokenizer": {"vocabulary_size": 2048},
    "tokens_per_step": 2048,
    "epochs": 0.24,
    "plan": {"device": "cpu", "threads": 2, "precision": "fp32", "compile": {"chosen": True}},
    "yardsticks": {"bigram": 3.214, "zlib": 2.101},
    "run": "runs/demo \x1b[31m",
    "notes": ["look \x1b[2Jout"],
}
HOSTILE = "def f():\n    \x1b]0;owned\x07return '\u202e'\r\x08\n" * 5


def window(first: int, loss: float = 2.0, **per_step: float) -> StepsEnded:
    values = {"train/loss": loss, "learning_rate": 3e-4, "grad_norm": 0.5217, "step_seconds": 0.1} | per_step
    arrays = {name: np.full(10, value) for name, value in values.items()}
    return StepsEnded(first, first + 9, arrays, {"tokens_per_second": 3121.0}, {"layer/a/grad_norm": 1.0})


def evaluation(step: int, loss: float) -> EvaluationEnded:
    metrics = {
        "validation/loss": loss,
        "validation/accuracy": 0.346,
        "validation/bits_per_byte": loss / 2,
        "generalization_gap": 0.0123,
    }
    return EvaluationEnded(step, metrics, 0.5)


def whole_run(console: Console, total_steps: int = 100) -> None:
    """Every kind of event."""
    for fraction in (0.0, 0.5, 1.0):
        console.preparing("tokenizing", fraction)
    console.observe(RunStarted(0, 1, 0, None, total_steps, FACTS))
    best = math.inf
    for first in range(1, total_steps + 1, 10):
        console.observe(window(first, 5.0 / first))
        last = first + 9
        if last % max(total_steps // 100, 20) == 0:
            loss = 3.0 - math.sin(last / total_steps * 2)
            console.observe(evaluation(last, loss))
            console.observe(DecisionTaken(last, last, "save_best", Save("best")))
            console.observe(ArtifactLogged(last, "sample", "sample-0", HOSTILE))
            path = f"checkpoints/step-{last:08d}"
            console.observe(CheckpointSaved(last, path, 18_532_112, 0.1, "best \x1b[31m; scheduled"))
            best = min(best, loss)
    console.observe(DecisionTaken(50, 40, "plateau", Adjust("flat \u202e", "learning_rate", 0.5)))
    finding = {"code": "overfitting", "severity": "warning", "cause": "gap", "remedies": [{"summary": "dropout"}]}
    console.observe(FindingsChanged(50, (finding,)))
    console.observe(window(91, math.nan, skipped=1.0))
    split = {"training": 80.0, "data": 20.0}
    console.observe(RunEnded(total_steps, "finished", "all steps done", 80, best, 80, 222.0, split))
    console.close()


def test_a_pipe_gets_plain_lines() -> None:
    stream = io.StringIO()
    whole_run(Console(stream, 100))
    text = stream.getvalue()
    assert all(character == "\n" or character.isprintable() for character in text)
    lines = text.splitlines()
    first_loss = next(index for index, line in enumerate(lines) if "loss 5.0000" in line)
    assert first_loss <= 25
    assert lines[first_loss].startswith("step  10   10 %   loss 5.0000   lr 3.0e-4   grad 0.522   3.12k tok/s")
    told = [line for line in lines if "tok/s" in line]
    assert "9.0s left" in told[0]  # ninety steps of a tenth of a second, however late and quickly they are told
    assert told[-1].startswith("step 100  100 %")
    assert len(told) == 2
    assert "tokens    5.20M to train on, 270k to validate, 2.05k in the vocabulary" in lines
    assert "machine   cpu, 2 threads, fp32, compiled" in lines
    assert any(
        re.fullmatch(r"step  20  val 2\.6106   1\.31 bits/byte   accuracy 34\.6 %   gap \+0\.0123   .*s   best", line)
        for line in lines
    )
    assert any("plateau: adjust learning_rate (0.5): flat" in line for line in lines)
    assert any("warning overfitting: gap → dropout" in line for line in lines)
    assert not any("save_best" in line for line in lines)
    assert any("10 of steps 91 to 100 skipped" in line for line in lines)
    assert "best      validation/loss 2.0004 at step 80, restored" in lines
    assert lines[-1] == "next: trimtab generate 'runs/demo '"


@pytest.mark.parametrize(("source", "last"), [("config", "generate"), ("python", "report")])
def test_what_follows_can_be_run_whoever_began_it(source: str, last: str) -> None:
    stream = io.StringIO()
    console = Console(stream, 10)
    console.observe(RunStarted(0, 1, 0, None, 10, {"run": "runs/a", "begun_by": source}))
    console.observe(window(1, 5.0))
    console.observe(RunEnded(10, "finished", "all steps done", None, None, None, 1.0))
    console.close()
    assert stream.getvalue().splitlines()[-1] == f"next: trimtab {last} runs/a"


def test_the_last_line_knows_the_evaluation_of_its_step() -> None:
    stream = io.StringIO()
    console = Console(stream, 20)
    console.observe(RunStarted(0, 1, 0, None, 20, FACTS))
    console.observe(window(1, 5.0))
    console.observe(evaluation(10, 4.0))
    console.observe(window(11, 3.0))  # is told before the evaluation of its last step
    console.observe(evaluation(20, 2.5))
    console.observe(RunEnded(20, "finished", "all steps done", 20, 2.5, 20, 2.0, {}))
    told = [line for line in stream.getvalue().splitlines() if "tok/s" in line]
    assert "best 2.5000" in told[-1]


def test_a_long_run_in_a_pipe_stays_short() -> None:
    stream = io.StringIO()
    whole_run(Console(stream, 10_000, every_seconds=0.0), 10_000)
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 300
    assert 70 <= sum("tok/s" in line for line in lines) <= 80


def test_json_lines_are_the_events() -> None:
    stream = io.StringIO()
    whole_run(Console(stream, 100, log_format="json"))
    events = [event_from_json(json.loads(line)) for line in stream.getvalue().splitlines()]
    times = [json.loads(line)["time"] for line in stream.getvalue().splitlines()]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 60
    assert [type(event).__name__ for event in events[:2]] == ["RunStarted", "StepsEnded"]
    assert isinstance(events[1], StepsEnded)
    assert events[1].per_step["train/loss"].tolist() == [5.0] * 10
    assert not events[1].layers
    assert isinstance(events[-1], RunEnded)
    assert stream.getvalue().isascii()


def test_the_loss_is_a_debiased_average_of_what_is_finite() -> None:
    stream = io.StringIO()
    console = Console(stream, 20, every_seconds=0.0)
    console.observe(RunStarted(0, 1, 0, None, 20))
    losses = np.array([4.0, 2.0, math.nan, 1.0])
    console.observe(StepsEnded(1, 4, {"train/loss": losses}, {}))
    weights = 0.95 ** np.array([2, 1, 0])
    expected = (weights * np.array([4.0, 2.0, 1.0])).sum() / weights.sum()
    assert f"loss {expected:.4f}" in stream.getvalue()
    console.observe(StepsEnded(5, 6, {"train/loss": np.array([1.0, math.inf])}, {}))
    assert "loss inf" in stream.getvalue()


def test_a_resumed_run_knows_its_best_and_a_rollback_is_told() -> None:
    stream = io.StringIO()
    console = Console(stream, 100)
    console.observe(RunStarted(40, 2, 1, 40, 100, {"best_value": 1.0}))
    console.observe(evaluation(50, 1.5))
    console.observe(RunStarted(40, 2, 2, 40, 100))
    console.observe(evaluation(60, 0.5))
    lines = stream.getvalue().splitlines()
    assert "resumed   goes on from step 40, attempt 2" in lines
    assert not next(line for line in lines if "val 1.5000" in line).endswith("best")
    assert any("went back to step 40" in line for line in lines)
    assert next(line for line in lines if "val 0.5000" in line).endswith("best")


def test_after_a_resume_progress_goes_on_where_the_run_stood() -> None:
    """The first window ends before the checkpoint's step, and the best evaluation is known."""
    stream = io.StringIO()
    console = Console(stream, 100)
    facts = {"best_value": 1.0, "metrics": {"validation/loss": 1.25}}
    console.observe(RunStarted(45, 2, 1, 45, 100, facts))
    console.observe(window(31))
    line = next(line for line in stream.getvalue().splitlines() if "loss 2.0000" in line)
    assert line.startswith("step  45   45 %   loss 2.0000   best 1.0000")


def flood(console: Console, steps: int, every: int = 10) -> None:
    """A run in which everything that can happen happens every `every` steps."""
    console.preparing("tokenizing", 0.0)
    console.observe(RunStarted(0, 1, 0, None, steps, FACTS))
    finding = {"code": "overfitting", "severity": "warning", "cause": "gap", "remedies": []}
    for first in range(1, steps + 1, every):
        last = first + every - 1
        console.observe(window(first, 5.0, skipped=1.0))
        console.observe(evaluation(last, 3.0 - last / steps))
        console.observe(ArtifactLogged(last, "sample", "sample-0", HOSTILE))
        console.observe(CheckpointSaved(last, "checkpoints/a", 18_532_112, 0.1, "scheduled"))
        console.observe(DecisionTaken(last, last, "plateau", Adjust("flat", "learning_rate", 0.5)))
        console.observe(FindingsChanged(last, (finding,)))
        console.observe(AlertRaised(last, "write_failed", "the disk is full \x1b[2J"))
        console.observe(AlertRaised(last, "outlying_step", f"step {last}: far above those before"))
        console.observe(RunStarted(last, 1, last, last, steps))
    console.observe(RunEnded(steps, "finished", "all steps done", steps, 2.0, None, 222.0, {}))
    for name in ("goodput", "diagnosis"):
        console.observe(ArtifactLogged(steps, "text", name, "healthy: " + "In ten thousand steps it went well. " * 20))
    console.close()


def test_a_flood_of_all_kinds_in_a_pipe_stays_below_three_hundred_lines() -> None:
    stream = io.StringIO()
    begun = time.monotonic()
    flood(Console(stream, 10_000, every_seconds=0.0), 10_000)
    assert time.monotonic() - begun < 30
    text = stream.getvalue()
    assert all(character == "\n" or character.isprintable() for character in text)
    lines = text.splitlines()
    assert len(lines) <= 300
    judged = [line for line in lines if re.match(r"step +[\d,]+  val ", line)]
    assert ALLOWANCES["evaluation"] - 2 <= len(judged) <= ALLOWANCES["evaluation"] + 1
    # What is left out is said, and adds up; the last evaluation is told whatever came before.
    left_out = sum(int(found[1]) for line in judged if (found := re.search(r"\((\d+) before it not shown\)", line)))
    assert left_out + len(judged) == 1000
    assert judged[-1].startswith("step 10,000  val 2.0000")


def test_what_is_rare_is_all_told_in_a_pipe() -> None:
    stream = io.StringIO()
    console = Console(stream, 10_000)
    console.observe(RunStarted(0, 1, 0, None, 10_000, FACTS))
    for step in range(200, 10_001, 200):
        console.observe(evaluation(step, 3.0))
    assert sum(" val 3.0000" in line for line in stream.getvalue().splitlines()) == 50
    assert "not shown" not in stream.getvalue()


def test_what_a_window_made_itself_is_shown() -> None:
    stream = io.StringIO()
    console = Console(stream, 100)
    console.observe(RunStarted(0, 1, 0, None, 100))
    whole = window(1)
    values = dict(whole.values) | {"mfu": 0.414, "memory_bytes": 1.25e9}
    console.observe(AlertRaised(5, "outlying_step", "step 5 lies far above those before"))
    console.observe(StepsEnded(1, 10, whole.per_step, values))
    assert "3.12k tok/s   MFU 41 %   1.2 GB   9.0s left   1 alert   " in stream.getvalue()


def test_a_skipped_step_is_told_once() -> None:
    stream = io.StringIO()
    console = Console(stream, 100)
    console.observe(RunStarted(0, 1, 0, None, 100))
    for first in (1, 11, 21, 31, 41):
        console.observe(window(first, skipped=0.1))  # of ten steps one
        console.observe(AlertRaised(first + 9, "non_finite_step", f"step {first}: loss nan; skipped"))
    console.observe(RunEnded(50, "stopped", "patience", None, None, None, 1.0))
    lines = stream.getvalue().splitlines()
    assert not any(" of steps " in line for line in lines)
    assert sum("loss nan; skipped" in line for line in lines) == 3
    assert any("loss nan; skipped; further steps that went wrong are counted" in line for line in lines)
    assert any(line.endswith("elapsed") and "5 skipped" in line for line in lines)
    assert not any(" alert" in line for line in lines)  # they are the same five


def test_a_step_that_was_far_out_and_made_counts_as_an_alert() -> None:
    stream = io.StringIO()
    console = Console(stream, 100, every_seconds=0.0)
    console.observe(RunStarted(0, 1, 0, None, 100))
    console.observe(AlertRaised(3, "outlying_step", "step 3: the update was made"))
    console.observe(AlertRaised(4, "write_failed", "the disk is full"))
    console.observe(window(1))
    assert "2 alerts   " in stream.getvalue()


@pytest.mark.parametrize(("width", "said"), [(40, "measuring with how many threads a"), (80, None), (200, None)])
def test_what_is_prepared_is_shortened_once_and_at_a_word(width: int, said: str | None) -> None:
    what = "measuring with how many threads a step is quickest (training.threads sets them)"
    line = preparing_line(what, 0.5, width).plain
    assert len(line) <= width
    shown = line.partition("measuring")[2]
    words = shown.rstrip("…").split()
    assert words == what.removeprefix("measuring").split()[: len(words)]
    assert shown.endswith("…") == (width < 110)
    assert said is None or said in line


def test_in_a_log_what_is_prepared_is_told_whole() -> None:
    stream = io.StringIO()
    Console(stream, 10).preparing("measuring with how many threads a step is quickest (training.threads sets them)", 0)
    assert stream.getvalue().endswith("is quickest (training.threads sets them) ...\n")


def test_one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations and the end count from the same moment, that of the command."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    console = Console(stream, 100)
    console.observe(RunStarted(0, 1, 0, None, 100))
    now += 40
    console.observe(evaluation(100, 1.0))
    console.observe(RunEnded(100, "finished", "all steps done", 100, 1.0, None, 37.0, {}))
    assert "   40s   best" in stream.getvalue()
    assert "finished: all steps done, 40s" in stream.getvalue()


def test_text_in_the_current_folder_is_named_from_there() -> None:
    stream = io.StringIO()
    source = f"3 text files in {os.getcwd()}/my text (left out: 1 empty)"
    Console(stream, 100).observe(RunStarted(0, 1, 0, None, 100, {"source": source}))
    assert "data      3 text files in my text (left out: 1 empty)" in stream.getvalue().splitlines()


def test_the_end_says_the_hint_apart_and_what_helps() -> None:
    stream = io.StringIO()
    console = Console(stream, 100)
    console.observe(RunStarted(0, 1, 0, None, 100, {"run": "runs/a"}))
    console.observe(DecisionTaken(10, 10, "recovery", Stop("20 updates in a row were skipped", exit_code=4)))
    reason = "NumericsError: no finite loss\nhint: lower the rate"
    console.observe(RunEnded(10, "failed", reason, None, None, None, 1.0))
    console.close()
    lines = stream.getvalue().splitlines()
    assert any(line.startswith("failed: no finite loss, ") for line in lines)
    assert "hint      lower the rate" in lines
    assert lines[-1] == "next: trimtab doctor runs/a"


class Broken(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("plain", [True, False])
def test_a_broken_stream_is_no_error(plain: bool) -> None:
    whole_run(Console(Broken(), 100, plain=plain))
    closed = io.StringIO()
    closed.close()
    whole_run(Console(closed, 100, plain=plain))


def test_a_stream_without_unicode_gets_what_it_can_hold() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    whole_run(Console(stream, 100))
    assert b"warning overfitting: gap -> dropout" in raw.getvalue()


def test_nothing_is_shown_twice_when_the_pipe_is_read(tmp_path: Path) -> None:
    """Through a real pipe: the first line of progress arrives while the run goes on."""
    script = """
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from test_console import window
        from trimtab.events import RunStarted
        from trimtab.monitor.sinks import Console
        console = Console(sys.stdout, 100)
        console.observe(RunStarted(0, 1, 0, None, 100))
        console.observe(window(1))
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(Path(__file__).parent)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    received = b""
    while b"loss 2.0000" not in received:
        assert select.select([process.stdout], [], [], 20)[0]
        received += os.read(process.stdout.fileno(), 4096)
    process.kill()
    process.wait()
    process.stdout.close()
    assert not any(byte < 32 and byte != 10 for byte in received)


def in_terminal(width: int, **environment: str) -> str:
    """What a terminal of `width` columns receives of a whole run."""
    script = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from test_console import whole_run
        from trimtab.monitor.sinks import Console
        whole_run(Console(sys.stdout, 100))
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    settings = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES", "CI")}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(Path(__file__).parent)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=settings | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment,
    )
    os.close(follower)
    received = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            block = os.read(leader, 65_536)
        except OSError:
            break
        if not block:
            break
        received += block
    assert process.wait() == 0, received.decode()
    os.close(leader)
    return received.decode()


def screen(text: str) -> list[str]:
    """The lines that stay: colours removed, what was drawn over left out."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return [line.split("\x1b[2K")[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]


def test_a_terminal_gets_colours_and_one_line_that_is_redrawn() -> None:
    text = in_terminal(110)
    # The cursor is never hidden: a killed process would leave it so.
    assert set(re.findall(r"\x1b[^m\x1b]*?[A-Za-z]", text)) - set(re.findall(r"\x1b\[[0-9;]*m", text)) == {"\x1b[2K"}
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert re.search(r"10/100  10 %  ━+╸?━*  loss 5\.0000  lr 3\.0e-4  grad 0\.522  3\.12k tok/s  .* left", drawn)
    assert "\x1b]0;owned" not in text
    assert "\u202e" not in text
    assert "\x1b[2J" not in text
    lines = screen(text)
    stays = [line for line in lines if "━" not in line]
    assert any(line.startswith("  step  20   val 2.6106") and line.endswith("★ best") for line in stays)
    assert any("╭─ sample ─" in line for line in stays)
    assert not any("tok/s" in line for line in stays)
    assert any(line.startswith("finished: all steps done") for line in stays)
    assert [line for line in stays if line][-1] == "next: trimtab generate 'runs/demo '"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_the_progress_line_fits_the_terminal(width: int) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", in_terminal(width))
    drawn = [part for part in re.split(r"\r|\n|\x1b\[2K", text) if "/100  " in part]
    assert drawn
    assert all(len(part) < width for part in drawn)


def test_the_least_important_is_left_out_first_and_nothing_is_cut() -> None:
    progress = Progress(100, "validation/loss")
    progress.begin(RunStarted(0, 1, 0, None, 100))
    event = window(1, skipped=1.0)
    progress.take(StepsEnded(1, 10, event.per_step, dict(event.values) | {"mfu": 0.414, "memory_bytes": 1.25e9}))
    progress.best, progress.alerts = 2.6106, 3
    importance = ["left", "3 alerts", "best 2.6106", "10 skipped", "tok/s", "lr 3.0e-4", "grad", "MFU 41 %", "1.2 GB"]
    seen = []
    for width in range(20, 201):
        line = progress.on_a_terminal(width).plain
        assert len(line) <= width
        assert "…" not in line
        shown = [part for part in importance if part in line]
        assert shown == importance[: len(shown)]  # what is shown is always the most important
        seen.append(len(shown))
    assert seen[0] == 0
    assert seen[60] < len(importance)
    assert seen[-1] == len(importance)
    assert "loss 2.0000" in progress.on_a_terminal(40).plain


def test_colours_can_be_switched_off() -> None:
    colours = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    assert colours.search(in_terminal(80))
    assert not colours.search(in_terminal(80, NO_COLOR="1"))
    assert "\x1b" not in in_terminal(80, TERM="dumb")
    assert "\x1b" not in in_terminal(80, CI="true")
    assert "\x1b" not in in_terminal(80, PYTHONIOENCODING="latin-1")


@pytest.mark.parametrize(("environment", "colours"), [({"FORCE_COLOR": "1"}, True), ({}, False)])
def test_colours_can_be_forced_into_a_pipe(
    environment: dict[str, str], colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    whole_run(Console(stream, 100))
    text = stream.getvalue()
    assert bool(re.search(r"\x1b\[[0-9;]*m", text)) == colours
    # Colours alone: nothing is drawn again, and no line is broken.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\x1b" not in plain
    assert "\r" not in plain
    assert any(line.startswith("step  20  val 2.6106") for line in plain.splitlines())
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    whole_run(Console(stream, 100))
    assert "\x1b" not in stream.getvalue()


def test_observing_costs_little() -> None:
    console = Console(io.StringIO(), 100_000)
    console.observe(RunStarted(0, 1, 0, None, 100_000))
    event = window(1)
    begun = time.process_time()
    for _ in range(200):
        console.observe(event)
    assert (time.process_time() - begun) / 200 < 1e-3


@pytest.mark.parametrize(("columns", "width"), [("110", 110), ("", 80), ("wide", 80)])
def test_a_terminal_without_a_size_is_as_wide_as_columns_says(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((0, 0)))
    monkeypatch.setenv("COLUMNS", columns)
    with open(os.devnull, "w") as stream:
        assert open_output(stream, plain=False).width == width


def test_a_finding_is_told_once() -> None:
    stream = io.StringIO()
    console = Console(stream, 100)
    console.observe(RunStarted(0, 1, 0, None, 100, FACTS))
    finding = {"code": "overfitting", "severity": "warning", "cause": "the gap grows", "remedies": []}
    console.observe(DecisionTaken(50, 40, "doctor", Advise("overfitting: the gap grows", finding)))
    console.observe(FindingsChanged(50, (finding,)))
    assert stream.getvalue().count("the gap grows") == 1


def test_of_a_classification_the_speed_is_of_tokens_too() -> None:
    stream = io.StringIO()
    console = Console(stream, 10)
    console.observe(RunStarted(0, 1, 0, None, 10, FACTS | {"task": "classification"}))
    console.observe(window(1))
    console.close()
    assert "3.12k tok/s" in stream.getvalue()
    assert "texts/s" not in stream.getvalue()
