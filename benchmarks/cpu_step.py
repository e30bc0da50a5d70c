"""What the choices of a step cost or gain on this CPU, as ratios, interleaved in one process.

    python benchmarks/cpu_step.py [--pairs 30]

The model and batch are those of the demo. Each comparison alternates its two sides; printed is the median of
the ratios of neighbours with its quartiles. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from trimtab.config import Config, load_config
from trimtab.data import PackedSequences
from trimtab.model import Decoder, build_model
from trimtab.monitor.probes import ActivationScale, GradientNorms, WeightNorms
from trimtab.objective import build_objective, build_task
from trimtab.optimizer import build_optimizer, build_transforms
from trimtab.signals import InlineProbe, Ring
from trimtab.training import Precision, Step, columns_of_step
from trimtab.training.execution import keep_freed_memory


def build(config: Config, *, layers: bool) -> Callable[[], None]:
    """One whole step, ready to be called."""
    vocabulary = config.data.tokenizer.vocabulary_size
    length, rows = config.data.sequence_length, config.training.micro_batch_size
    tokens = np.random.default_rng(0).integers(0, vocabulary, rows * length + 1).astype(np.uint16)
    batch = PackedSequences(tokens, np.array([0]), length, num_bytes=len(tokens)).batch(np.arange(rows))
    model = build_model(config.model, vocabulary_size=vocabulary, sequence_length=length, seed=0).train()
    assert isinstance(model, Decoder)
    optimizer = build_optimizer(config.optimizer, model)
    names = list(optimizer.storage.weights)
    probes: list[InlineProbe] = []
    if layers:
        model.measure_activations = True
        probes = [GradientNorms(names), WeightNorms(names), ActivationScale(model.signal_names)]
    device = torch.device("cpu")
    task = build_task(config.task, build_objective(config.objective))
    columns = [*columns_of_step(task.term_names, scaled=False), *(name for probe in probes for name in probe.columns)]
    step = Step(
        model=model,
        task=task,
        optimizer=optimizer,
        transforms=build_transforms(config.gradients),
        probes=probes,
        precision=Precision(config.training.precision, device),
        ring=Ring(columns, 1, device),
        device=device,
        seed=0,
    )
    step.set(learning_rate=1e-4, weight_decay=1.0, clip_threshold=1.0)

    every = config.logging.every
    count = itertools.count(1)

    def once() -> None:
        number = next(count)
        step.run([batch], number, ends_window=number % every == 0)
        step.ring.take()

    return once


def give_freed_memory_back() -> None:
    """The C library's defaults again."""
    library = ctypes.CDLL(None)
    library.mallopt(-4, 65_536)
    library.mallopt(-1, 128 * 1024)
    library.malloc_trim(0)


def compare(name: str, a: Callable[[], None], b: Callable[[], None], pairs: int) -> None:
    """Print how long `a` takes as a part of `b`."""
    ratios, seconds = [], []
    for _ in range(3):
        a()
        b()
    for number in range(pairs):
        took = {}
        for side in ((a, b), (b, a))[number % 2]:
            begun = time.perf_counter()
            side()
            took[side] = time.perf_counter() - begun
        ratios.append(took[a] / took[b])
        seconds.append(took[a])
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{name:<44} {middle:6.3f}  ({low:.3f} to {high:.3f})   {1e3 * statistics.median(seconds):6.1f} ms")


def main() -> None:
    """All comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    demo = load_config("demo")
    observed, blind = build(demo, layers=True), build(demo, layers=False)
    fp32 = build(load_config("demo", ["training.precision.name=fp32"]), layers=True)
    bf16 = build(load_config("demo", ["training.precision.name=bf16"]), layers=True)

    def keeping() -> None:
        observed()

    def giving_back() -> None:
        give_freed_memory_back()
        observed()
        keep_freed_memory()

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {pairs} pairs")
    print(f"{'time of a step: this, as a part of that':<44} median  (quartiles)        a step")
    give_freed_memory_back()
    compare("every layer observed / nothing observed", observed, blind, pairs)
    keep_freed_memory()
    compare("the same, freed memory kept", observed, blind, pairs)
    compare("freed memory kept / given back", keeping, giving_back, pairs)
    compare("bf16 / fp32", bf16, fp32, max(5, pairs // 3))


if __name__ == "__main__":
    main()
