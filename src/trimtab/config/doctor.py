"""What the doctor does while a run goes on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trimtab.config.base import Count, Section


class Advising(Section):
    """It tells what it finds, and changes nothing."""

    name: Literal["advise"] = "advise"


class Acting(Section):
    """It goes back before a loss that leaves for good, lowers a rate that is too high, and stops what overfits."""

    name: Literal["act"] = "act"
    budget: Count = Field(3, description="decisions a run at most; one that cannot be taken costs none")
    confidence: float = Field(0.8, ge=0.0, le=1.0, description="least confidence of a finding that is acted upon")
    factor: float = Field(0.3, gt=0.0, lt=1.0, description="on the learning rate, each time that it is lowered")


DoctorPolicy = Annotated[Advising | Acting, Field(discriminator="name")]


class DoctorConfig(Section):
    """After a run there is always a diagnosis; this is about the time before."""

    live: bool = Field(
        True, description="ask the doctor at evaluations, for a thousandth of the run's time, and show what is new"
    )
    watch: bool = Field(True, description="ask it between evaluations, too, when the loss goes astray")
    policy: DoctorPolicy = Field(default_factory=Advising.model_construct, description="what follows from a finding")

    @model_validator(mode="after")
    def _is_asked(self) -> Self:
        if not self.live and isinstance(self.policy, Acting):
            raise ValueError("policy.name act goes by what the doctor says during a run, and doctor.live is false")
        return self
