"""The report in a real browser: opened from the disk, on a phone and on a screen, in light and in dark."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from example_runs import CASES, write_run

from trimtab.report import render_html, write_report
from trimtab.report.gather import gather

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="needs Chromium: apt-get install chromium")

HOSTILE = 'a <b>"x"</b> </script><script>document.title = "taken"</script> ' + "verylong" * 40
# A page that opens the report in frames of both widths, moves a pointer over it, and writes down what it sees.
PROBE = """<!DOCTYPE html><title>waiting</title><body><script>
const seen = {}, names = %s;
let open = 2 * names.length;
for (const name of names) for (const width of [390, 1200]) {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 900; frame.src = name + ".html";
  frame.onload = () => {
    const page = frame.contentDocument, root = page.documentElement;
    for (const part of page.querySelectorAll("details")) part.open = true;
    const field = page.querySelector(".stack .field"), stack = page.querySelector(".stack");
    const box = field.getBoundingClientRect();
    stack.dispatchEvent(new frame.contentWindow.PointerEvent(
      "pointermove", {clientX: box.left + box.width / 2, clientY: box.top + 5}));
    seen[name + " " + width] = {
      title: page.title, overflow: root.scrollWidth - root.clientWidth, height: root.scrollHeight,
      svgs: page.querySelectorAll("svg").length, drawn: box.width, scripts: page.scripts.length,
      readout: page.querySelector(".stack .readout").textContent,
      background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      resources: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
    };
    if (!--open) { document.title = "done"; document.body.textContent = JSON.stringify(seen); }
  };
  document.body.append(frame);
}
</script></body>"""


@dataclass(frozen=True)
class Seen:
    """What the browser told of the pages."""

    pages: Mapping[str, Mapping[str, Any]]
    console: str


def browse(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the browser without a window, with a profile of its own."""
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", *options,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def look(folder: Path, *options: str) -> Seen:
    probe = (folder / "probe.html").as_uri()
    done = browse(folder, "--allow-file-access-from-files", "--virtual-time-budget=8000", *options, "--dump-dom", probe)
    body = re.search(r"<body>(\{.*\})", done.stdout, re.DOTALL)
    assert body, done.stdout[-2000:] + done.stderr[-2000:]
    return Seen(json.loads(html.unescape(body[1])), done.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    names = ["overfitting", "not_a_number", "loss_alone"]
    for name in names:
        (folder / f"{name}.html").write_text(render_html(gather(None, *CASES[name]())))
    run = write_run(folder / "run", text=HOSTILE)
    write_report(run)
    shutil.copy(run.report, folder / "hostile.html")
    (folder / "probe.html").write_text(PROBE % json.dumps([*names, "hostile"]))
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> Seen:
    return look(folder)


def test_curves_are_drawn_and_read_out(seen: Seen) -> None:
    assert len(seen.pages) == 8
    for name, page in seen.pages.items():
        assert page["svgs"] > 4, name
        assert page["drawn"] > (200 if "390" in name else 700), name
        assert " at " in page["readout"] or "not_a_number" in name, name
    assert seen.pages["overfitting 1200"]["readout"].startswith("training ")


def test_no_page_scrolls_sideways(seen: Seen) -> None:
    assert {name: page["overflow"] for name, page in seen.pages.items() if page["overflow"] > 0} == {}


def test_nothing_is_fetched_and_the_console_is_silent(seen: Seen) -> None:
    assert {url for page in seen.pages.values() for url in page["resources"] if not url.startswith("data:")} == set()
    assert "CONSOLE" not in seen.console, seen.console


def test_text_does_not_become_a_script(seen: Seen) -> None:
    for name, page in seen.pages.items():
        assert page["scripts"] == 1, name
        assert page["title"] != "taken"


def test_it_is_dark_where_the_reader_wants_it_dark(folder: Path, seen: Seen) -> None:
    def lightness(page: Mapping[str, Any]) -> int:
        return sum(map(int, re.findall(r"\d+", page["background"])[:3]))

    dark = look(folder, "--force-dark-mode")
    for name, page in seen.pages.items():
        assert lightness(page) > 700, name
        assert lightness(dark.pages[name]) < 120, name


def test_a_picture_can_be_taken(folder: Path) -> None:
    picture = folder / "picture.png"
    browse(folder, "--window-size=1200,1600", f"--screenshot={picture}", (folder / "overfitting.html").as_uri())
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 40_000, "an empty page is far smaller"
