"""What of a model's inside is written down as it is."""

from __future__ import annotations

from pydantic import Field

from trimtab.config.base import Count, Section, Texts


class CaptureConfig(Section):
    """What modules give for the probe batch, at each examination, in artifacts/captures/."""

    layers: Texts = Field((), description="names of modules, or patterns as of file names: blocks.*.attention")
    values: Count = Field(65_536, description="the most values of a module that are kept, in whole positions")
    megabytes: Count = Field(256, description="the most that all captures take; from then on none is written")
