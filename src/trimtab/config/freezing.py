"""Which parameters of a model are not trained, and from when on they are after all."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trimtab.config.base import Texts
from trimtab.config.schedule import Stretch

Freeze = Annotated[
    Texts,
    Field(description="patterns, as of file names, of parameters that are not trained: ['blocks.0.*', '*embedding*']"),
]


Unfreeze = Annotated[
    dict[str, Stretch],
    Field(
        description="pattern of names in freeze to the part of the run after which these are trained after all; the "
        "optimizer then begins afresh"
    ),
]
