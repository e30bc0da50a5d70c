"""What the doctor does while a run goes on."""

from __future__ import annotations

from pydantic import Field

from trimtab.config.base import Section


class DoctorConfig(Section):
    """After a run there is always a diagnosis; this is about the time before."""

    live: bool = Field(True, description="ask the doctor at every evaluation, and show what is new")
