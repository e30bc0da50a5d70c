"""What is done about text that is there twice, or on both sides."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.config.base import Section


class DuplicatesConfig(Section):
    """Documents, or rows, that are there again, or nearly; and those of the validation set that are trained on."""

    exact: Literal["report", "drop"] = Field(
        "report",
        description="equal texts; drop: of the training set those that an earlier one, or the validation set, has",
    )
    near: Literal["off", "report", "drop"] = Field(
        "report", description="the same for nearly equal texts, found by MinHash over runs of 5 words"
    )
    threshold: float = Field(
        0.8, ge=0.3, le=1.0, description="nearly equal: runs of words in common, as a part of those of both"
    )

    @property
    def drops(self) -> bool:
        """Whether any are left out."""
        return "drop" in (self.exact, self.near)
