"""What is written can be read: contrasts by WCAG 2, in light and in dark."""

from __future__ import annotations

import re

import pytest

from trimtab.report.page import packaged


def schemes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", packaged("style.css"), re.DOTALL)[:2]
    return {
        name: dict(re.findall(r"--([\w-]+): (#\w{6})\b", text)) for name, text in (("light", light), ("dark", dark))
    }


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_curves_stand_out(scheme: str) -> None:
    colours = schemes()[scheme]
    for ground in ("page", "card"):
        for name in ("ink", "soft", "accent", "healthy", "attention", "failed"):
            assert contrast(colours[name], colours[ground]) >= 4.5, f"{name} on {ground}"
        for name in ("train", "validation", "gap", "rate", "gradient", "other"):
            assert contrast(colours[name], colours[ground]) >= 3, f"{name} on {ground}"
    for name in ("healthy", "attention", "failed", "info"):
        assert contrast(colours["on-badge"], colours[name]) >= 4.5, name
