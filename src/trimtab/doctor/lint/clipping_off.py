"""clipping-off: nothing bounds the gradient.

Looks for: no clipping, or a threshold above 10.
Why: a single bad batch may give a gradient a hundred times the usual, and one update of that size can undo
    thousands. Gradients of transformers have norms of about 1 once they train, so a threshold above 10 seldom acts.
Evidence: `gradients.clip`.
Remedy: the norm at 1.0; 0.5 for runs that spike.
False alarms: losses that are sums, not means, whose gradients are large throughout.
Source: Pascanu et al. 2013, arXiv 1211.5063.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, NoClip, NormClip
from trimtab.doctor.lint.finding import LintFinding

_LARGE = 10.0


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of clipping that is off or as good as off."""
    clip = config.gradients.clip
    off = isinstance(clip, NoClip)
    if not off and not (isinstance(clip, NormClip) and clip.threshold > _LARGE):
        return
    yield LintFinding(
        "clipping-off",
        "warning",
        "gradients.clip.name" if off else "gradients.clip.threshold",
        "gradients are not clipped" if off else "the threshold of clipping is so high that it seldom acts",
        "one bad batch may undo thousands of steps",
        "gradients.clip.name=norm" if off else "gradients.clip.threshold=1.0",
        "Pascanu et al. 2013, arXiv 1211.5063",
    )
