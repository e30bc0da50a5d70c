"""The uncommitted changes of the code that a run was begun with, as far as they may be kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from trimtab.config.privacy import Disclosure
from trimtab.config.secrets import hide

MOST_BYTES: Final = 256 * 1024
"""Of a longer diff the beginning is kept."""
_SECONDS: Final = 5.0


def git_diff(folder: Path, how: Disclosure) -> tuple[dict[str, Any], str]:
    """What is said of the diff of tracked files in `folder` against the commit, and the text that is kept of it.

    Secrets are taken out before anything else. ({}, "") where nothing is to be said: no git, no changes, or "off".
    """
    if how == "off":
        return {}, ""
    arguments = ["--stat=120", "--stat-count=200"] if how == "redacted" else []
    raw = _asked(folder, *arguments)
    if not raw:
        return {}, ""
    text = hide(raw.decode("utf-8", errors="replace"), assigned=True)
    if how == "hashed":
        return {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}, ""
    kept = text.encode()[:MOST_BYTES].decode(errors="ignore")
    said: dict[str, Any] = {"bytes": len(text.encode())}
    if len(kept) < len(text):
        said["kept_bytes"] = len(kept.encode())
        kept += f"\n… cut after {MOST_BYTES:,} bytes\n"
    return said, kept


def _asked(folder: Path, *arguments: str) -> bytes:
    """`git diff HEAD`, without programs and drivers that a repository's configuration names."""
    plain = ["--no-ext-diff", "--no-textconv", "--no-color"]
    command = ["git", "-C", str(folder), "diff", *plain, *arguments, "HEAD", "--"]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return b""
