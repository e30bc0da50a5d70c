"""Whether counting finds any relation of labels and inputs, by runs of tokens, by words, or by rows near each other."""

from __future__ import annotations

from typing import Final

from trimtab.doctor.reading.evaluations import error_of_share

BY_ROWS: Final = "the nearest rows"
"""What `counting.labels` was told by, where rows of one length are near each other."""
FEWEST_TAGS: Final = 1_000
"""Independent ones: of fewer, words that are rare tell nothing."""
MUCH: Final = 0.2
"""Of accuracy, above the most frequent class: labels that are told so have to do with their inputs."""
LUCKY, LUCKIER = 3.5, 5.0
"""Standard errors of a share: the best of several evaluations has luck; and a model may find a little by heart where
neither runs of tokens nor rows near by do."""


def tells_nothing(counting: object) -> bool | None:
    """Whether counting finds no relation of text and label; None where nothing was counted, or too few tags."""
    if not isinstance(counting, dict) or counting.get("answers", FEWEST_TAGS) < FEWEST_TAGS:
        return None
    of_tags, majority = "answers" in counting, float(counting["majority"])
    texts, judged = (float(counting[of + ("answers" if of_tags else "texts")]) for of in ("", "validation_"))
    surest, quarter = float(counting["sure_errors"][0]), max(texts // 4, 1.0)
    accuracy, elsewhere = float(counting["accuracy"]), float(counting["validation_accuracy"])
    chance = 3.0 * error_of_share(majority, max(judged, 1.0))
    if _by_rows(counting) and majority < 0.5 and elsewhere + chance < accuracy < majority + MUCH:
        surest, accuracy = 1.0, majority  # rows that were drawn together may tell each other, and nothing elsewhere
    return (
        accuracy < majority + 3.0 * error_of_share(majority, texts)
        and elsewhere < majority + chance
        # Where one class is most of all, being sure of it at the right places is all that can be told.
        and surest > 1.0 - majority - 3.0 * error_of_share(majority, quarter)
    )


def tells_much(counting: object) -> bool:
    """Whether counting tells far more of the training labels than the share of the most frequent class."""
    return isinstance(counting, dict) and float(counting["accuracy"]) > float(counting["majority"]) + MUCH


def lucky(counting: object) -> float:
    """The standard errors by which the best of several evaluations may be above what always saying one class gives."""
    return LUCKIER if isinstance(counting, dict) and _by_rows(counting) and tells_nothing(counting) else LUCKY


def _by_rows(counting: dict[str, object]) -> bool:
    return counting.get("by") == BY_ROWS
