"""Where a step's time goes on the GPU: `python benchmarks/speed/kernels.py 124m [setting=value ...]`."""

from __future__ import annotations

import os
from collections import defaultdict

import gate
import ours
import torch

STEPS = 5


class Profiling(gate.Gate):
    """Takes the place of the gate: after the warm-up some steps are profiled, then the process ends."""

    def step(self) -> None:
        """Count, profile, print."""
        self._left -= 1
        if self._left == STEPS:
            torch.cuda.synchronize()
            self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self._profiler.__enter__()
        if self._left == 0:
            torch.cuda.synchronize()
            self._profiler.__exit__(None, None, None)
            times: dict[str, list[float]] = defaultdict(list)
            for event in self._profiler.events():
                times[event.name].append(event.device_time_total)
            total = sum(sum(each) for each in times.values()) / STEPS
            lines = [f"{total / 1e3:.3f} ms a step in kernels"]
            for name, each in sorted(times.items(), key=lambda item: -sum(item[1]))[:45]:
                lines.append(f"{sum(each) / STEPS / 1e3:8.3f} ms {len(each) / STEPS:6.1f} x  {name[:110]}")
            self._answers.write("\n".join(lines) + "\n")
            self._answers.flush()
            os._exit(0)


if __name__ == "__main__":
    ours.Gate = Profiling  # type: ignore[misc]
    ours.main()
