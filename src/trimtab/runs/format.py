"""Numbers as people read them: `1.46 bits/byte`, `3.12k tok/s`, `1m 23s`, `4.1 MB`."""

from __future__ import annotations

import math


def decimal(value: float) -> str:
    """A loss, norm or ratio in about five digits: `2.3415`, `0.00012`, `12,345`, `1.2e+09`, `nan`."""
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    if size >= 1e6 or 0 < size < 1e-4:
        return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e+")
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{4 if size < 10 else 3 if size < 100 else 2}f}"


def signed(value: float) -> str:
    """A difference with its sign: `+0.0123`."""
    return ("+" if value >= 0 else "") + decimal(value)


def scientific(value: float) -> str:
    """A rate in scientific notation: `3.0e-4`."""
    if not math.isfinite(value):
        return str(value)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def count(value: float) -> str:
    """A whole number with its thousands apart: `1,200`."""
    return f"{value:,.0f}"


def counted(number: float, thing: str) -> str:
    """A number with what it counts: `1 evaluation`, `1,200 evaluations`; of `time`, `once`."""
    if number == 1:
        return "once" if thing == "time" else f"1 {thing}"
    return f"{count(number)} {thing}s"


def short(value: float) -> str:
    """A number in three digits: `950`, `3.12k`, `12.3M`, `1.50B`."""
    if not math.isfinite(value):
        return str(value)
    for unit in ("", "k", "M", "B"):
        if abs(value) < 999.5 or unit == "B":
            break
        value /= 1000
    size = abs(value)
    if not unit and float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}{unit}"


def tokens_per_second(value: float) -> str:
    """A throughput: `3.12k tok/s`."""
    return f"{short(value)} tok/s"


def bits_per_byte(value: float) -> str:
    """A compression rate: `1.46 bits/byte`."""
    return f"{value:.3g} bits/byte" if abs(value) >= 10 else f"{value:.2f} bits/byte"


def percent(fraction: float) -> str:
    """How far something has come: `41 %`; only all of it is `100 %`."""
    if not math.isfinite(fraction):
        return str(fraction)
    return f"{math.floor(100 * fraction + 1e-9)} %" if fraction >= 0.01 or fraction <= 0 else "<1 %"


def share(fraction: float) -> str:
    """A part of a whole beside its other parts, to the nearest percent: `42 %`; what is there is never `0 %`."""
    if not math.isfinite(fraction):
        return str(fraction)
    return "<1 %" if 0 < fraction < 0.005 else f"{round(100 * fraction)} %"


def duration(seconds: float) -> str:
    """A time in its two largest units: `0.8s`, `23s`, `1m 23s`, `2h 05m`, `3d 04h`."""
    if not math.isfinite(seconds):
        return str(seconds)
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600:02d}h"


def step_time(seconds: float) -> str:
    """The time of a step or of a part of one, in three digits: `2.36 ms`, `60.7 ms`, `904 ms`, `2.40 s`, `15m 11s`."""
    milliseconds = 1e3 * seconds
    if milliseconds >= 999.5:
        return duration(seconds) if seconds >= 9.95 else f"{seconds:.2f} s"
    return f"{milliseconds:.{0 if milliseconds >= 99.5 else 1 if milliseconds >= 9.95 else 2}f} ms"


def size(num_bytes: float) -> str:
    """An amount of memory or disk: `512 B`, `4.1 MB` (a MB is 1,000,000 bytes)."""
    if abs(num_bytes) < 1000:
        return f"{num_bytes:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        num_bytes /= 1000
        if abs(num_bytes) < 999.95 or unit == "TB":
            break
    return f"{num_bytes:.1f} {unit}"
