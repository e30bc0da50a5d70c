"""The number of threads: measured in turn, kept, and never a reason for other weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_step import make_batch, make_step

from trimtab.config import TrainingConfig
from trimtab.signals import Batch
from trimtab.training import Step, threads
from trimtab.training.threads import choose_threads


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()

    def set_threads(asked: int | str) -> int:
        chosen = int(asked) if asked not in (0, "auto") else 4
        torch.set_num_threads(chosen)
        return chosen

    monkeypatch.setattr(threads, "set_threads", set_threads)
    yield
    torch.set_num_threads(before)


def taking(seconds: dict[int, float]) -> tuple[list[int], object]:
    """A clock by which a row takes so long with so many threads, and what it was asked."""
    asked: list[int] = []

    def seconds_of(step: Step, batch: Batch, repeats: int) -> float:
        asked.append(torch.get_num_threads())
        return seconds[torch.get_num_threads()] * batch.tokens_BT.shape[0]

    return asked, seconds_of


@pytest.mark.parametrize(
    "seconds, chosen",
    [
        ({4: 0.1, 2: 0.18, 1: 0.3}, 4),
        ({4: 0.1, 2: 0.095, 1: 0.02}, 4),  # a few percent are noise
        ({4: 0.1, 2: 0.05, 1: 0.06}, 2),
        ({4: 0.9, 2: 0.5, 1: 0.1}, 1),
    ],
)
def test_fewer_threads_are_taken_where_they_are_clearly_quicker(seconds: dict[int, float], chosen: int) -> None:
    _, clock = taking(seconds)
    config = TrainingConfig(steps=1_000)
    choice = choose_threads(config, make_step(), make_batch(4, 0), None, accumulation=1, seconds_of=clock)  # type: ignore[arg-type]
    assert choice["chosen"] == torch.get_num_threads() == chosen
    assert bool(choice.get("fallback")) == (chosen < 4)
    assert ("training.threads=4" in choice["reason"]) == (chosen < 4)
    kept = choose_threads(config, make_step(), make_batch(4, 0), choice, accumulation=1, seconds_of=taking({})[1])  # type: ignore[arg-type]
    assert kept == choice


def test_a_short_run_and_a_given_number_are_not_measured() -> None:
    asked, clock = taking({4: 0.001, 2: 0.0001})
    choice = choose_threads(
        TrainingConfig(steps=9), make_step(), make_batch(4, 0), None, accumulation=1, seconds_of=clock
    )  # type: ignore[arg-type]
    assert choice["chosen"] == 4
    assert set(asked) == {4}
    assert "from 60 s on" in choice["reason"]
    asked.clear()
    for given, expected in ((3, 3), (0, 4)):
        config = TrainingConfig(steps=10**6, threads=given)
        choice = choose_threads(config, make_step(), make_batch(4, 0), None, accumulation=1, seconds_of=clock)  # type: ignore[arg-type]
        assert choice["chosen"] == expected
    assert not asked


def test_measuring_takes_a_part_of_a_long_micro_batch() -> None:
    rows: list[int] = []

    def seconds_of(step: Step, batch: Batch, repeats: int) -> float:
        rows.append(batch.tokens_BT.shape[0])
        return 1.0 * batch.tokens_BT.shape[0]

    choose_threads(TrainingConfig(steps=99), make_step(), make_batch(8, 0), None, accumulation=1, seconds_of=seconds_of)
    assert set(rows) == {1}


def test_a_real_measurement_leaves_the_step_as_it_was() -> None:
    step, plain = make_step(), make_step()
    choose_threads(TrainingConfig(steps=10**9), step, make_batch(2, 0), None, accumulation=1)
    for number in range(1, 4):
        step.run([make_batch(2, number)], number)
        plain.run([make_batch(2, number)], number)
    ours, theirs = step.optimizer.storage.weights, plain.optimizer.storage.weights
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)
