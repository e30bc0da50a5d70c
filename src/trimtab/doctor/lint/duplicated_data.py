"""duplicated-data: a good part of the training texts is there more than once.

Looks for: one in ten training documents that repeats an earlier one, equal or nearly.
Why: what is there many times is learnt by heart first, takes the steps of other text, and makes epochs shorter than
    they look.
Evidence: the fact `duplicates`; without it nothing is said.
Remedy: leave them out.
False alarms: repetition on purpose, such as of a small and good source; weights of a mixture do that without copies.
Source: Lee et al. 2022, arXiv 2107.06499, section 6; Hernandez et al. 2022, arXiv 2205.10487.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding

_MANY = 0.1


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of one in ten."""
    duplicates = facts.get("duplicates")
    documents = facts.get("training", {}).get("documents", 0)
    if not duplicates or not documents or config.data.duplicates.near == "drop":
        return
    exact = 0 if config.data.duplicates.exact == "drop" else _repeated(duplicates["exact"])
    near = _repeated(duplicates.get("near", {}))
    if exact + near >= _MANY * documents:
        kind = "near" if near else "exact"
        yield LintFinding(
            "duplicated-data",
            "warning",
            f"data.duplicates.{kind}",
            f"{exact:,} of {documents:,} training texts repeat an earlier one, and {near:,} nearly do",
            "what is there many times is learnt by heart, and takes the steps of other text",
            f"data.duplicates.{kind}=drop",
            "Lee et al. 2022, arXiv 2107.06499, section 6",
        )


def _repeated(counts: Mapping[str, int]) -> int:
    """Training texts that repeat another, on whichever side."""
    return counts.get("training", 0) + counts.get("leaking", 0)
