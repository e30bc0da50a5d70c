"""The healthy twin of a faulty run of trimtab: the same settings and seed, and nothing planted.

What goes with a fault and is none stays, so that the losses of both can be held against each other: the length of the
run, its data, SGD where the fault needs it, a constant rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bank.ours_faults import PLANT, labelled_apart, pieces_apart
from bank.ours_healthy import regularize
from bank.setup import Setup, begin


def become_twin(setup: Setup) -> None:
    """Make of a sound setup the twin of its scenario's faulty run."""
    sound = begin(setup.scenario, setup.folder, setup.data)
    PLANT[setup.scenario.variant](setup)
    setup.patches, setup.resumed_patches, setup.killed_at, setup.model = [], [], None, sound.model
    if setup.scenario.variant in MEND:
        MEND[setup.scenario.variant](setup, sound)


def _as_begun(setup: Setup, sound: Setup) -> None:
    setup.settings = sound.settings


def _usual_rate(setup: Setup, sound: Setup) -> None:
    setup.rate = sound.rate


def _stopped_in_time(setup: Setup, sound: Setup) -> None:
    """The same little data, trained as the sound run `patience` is."""
    regularize(setup)
    setup.settings.pop("optimizer.weight_decay", None)


def _large_enough(setup: Setup, sound: Setup) -> None:
    steps = setup.steps
    _as_begun(setup, sound)
    setup.steps = steps


def _large_batch(setup: Setup, sound: Setup) -> None:
    setup.settings["training"]["micro_batch_size"] = sound.batch
    setup.settings["schedule"] = sound.settings["schedule"]
    setup.rate = sound.rate


def _warmed_up(setup: Setup, sound: Setup) -> None:
    setup.settings["schedule"]["warmup"] = 0.15
    setup.settings.pop("gradients.clip")


def _well_initialized(setup: Setup, sound: Setup) -> None:
    setup.settings["model"].pop("initialization", None)


def _shuffled(setup: Setup, sound: Setup) -> None:
    setup.settings["data.shuffle"] = True


def _true_labels(setup: Setup, sound: Setup) -> None:
    setup.use_rows(*labelled_apart(setup))


def _no_copies(setup: Setup, sound: Setup) -> None:
    if setup.is_rows:
        _as_begun(setup, sound)
        return
    training, held_out, copies = pieces_apart(setup)
    setup.use_rows([one for one in training if one not in copies], copies + held_out)


def _judged_on_all(setup: Setup, sound: Setup) -> None:
    _as_begun(setup, sound)
    if not setup.is_rows:
        setup.settings["evaluation"] |= {"max_tokens": None, "gap_tokens": 0}


def _own_threads(setup: Setup, sound: Setup) -> None:
    setup.settings["training"]["threads"] = 1


MEND: Final[dict[str, Callable[[Setup, Setup], None]]] = {
    "learning-rate-too-high": _usual_rate,
    "learning-rate-too-low": _usual_rate,
    "overfitting": _stopped_in_time,
    "overconfident": _stopped_in_time,
    "underfitting": _large_enough,
    "noisy-loss": _large_batch,
    "stopped-too-early": _as_begun,
    "missing-warmup": _warmed_up,
    "decayed-too-early": _as_begun,
    "bad-initialization": _well_initialized,
    "outlier-dominated-loss": _as_begun,
    "over-regularised": _as_begun,
    "label-noise": _true_labels,
    "random-labels": _as_begun,
    "class-collapse": _as_begun,
    "unshuffled-data": _shuffled,
    "leakage": _no_copies,
    "target-leak": _as_begun,
    "validation-shift": _as_begun,
    "validation-too-small": _judged_on_all,
    "thread-oversubscription": _own_threads,
}
"""How settings and data that are planted are made sound again; what is planted as a bug is left out of every twin."""
