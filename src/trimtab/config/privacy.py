"""What of texts and code a run writes down, and tells to others."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.config.base import Section

Disclosure = Literal["on", "redacted", "hashed", "off"]


class PrivacyConfig(Section):
    """How much of texts and code stands in the record, on the screen and in every sink; secrets never do."""

    samples: Disclosure = Field(
        "on",
        description="texts that the model wrote or read: whole, without what looks like personal data, "
        "as a hash and a length, or not at all",
    )
    git_diff: Disclosure = Field(
        "on",
        description="uncommitted changes of the working directory: the diff in artifacts/changes.diff, "
        "names of files and counts of lines, a hash, or nothing",
    )
