"""Which refusals of the lint are lifted."""

from __future__ import annotations

from pydantic import Field

from trimtab.config.base import Section, Texts


class LintConfig(Section):
    """A configuration is looked over before it costs compute."""

    allow: Texts = Field((), description="codes of refusals to lift")
