"""How much a written text has in common with the one that was wanted: ROUGE, and BLEU and chrF through sacrebleu."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

_NO_WORD = re.compile(r"[^a-z0-9]+")


def rouge_words(text: str) -> list[str]:
    """Lower-case runs of ASCII letters and digits; as Google's rouge-score takes them, without stemming."""
    return _NO_WORD.sub(" ", text.lower()).split()


def rouge_n(written: Sequence[str], wanted: Sequence[str], n: int) -> float:
    """F1 of the n-grams that both word lists have, each as often as in the one that has it less often; 0 without any.

    Source: Lin 2004, ROUGE, section 2.
    """
    ours, theirs = (
        Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1)) for words in (written, wanted)
    )
    return _f1(sum((ours & theirs).values()), ours.total(), theirs.total())


def rouge_l(written: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 of the longest words that both lists have in the same order, not necessarily next to each other.

    Source: Lin 2004, ROUGE, section 3.1 (of whole texts).
    """
    row = [0] * (len(wanted) + 1)
    for word in written:
        before = 0
        for at, other in enumerate(wanted, start=1):
            before, row[at] = row[at], before + 1 if word == other else max(row[at], row[at - 1])
    return _f1(row[-1], len(written), len(wanted))


def _f1(common: int, written: int, wanted: int) -> float:
    return 2.0 * common / (written + wanted) if common else 0.0


@final
@dataclass(slots=True)
class Overlap:
    """Adds up over pairs of texts. ROUGE is the mean over pairs; BLEU and chrF are of the whole corpus."""

    count: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    _written: list[str] = field(default_factory=list)
    _wanted: list[str] = field(default_factory=list)

    def add(self, written: str, wanted: str) -> None:
        """One more pair."""
        ours, theirs = rouge_words(written), rouge_words(wanted)
        found = {
            "rouge_1": rouge_n(ours, theirs, 1),
            "rouge_2": rouge_n(ours, theirs, 2),
            "rouge_l": rouge_l(ours, theirs),
        }
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in found.items()}
        self.count += 1
        self._written.append(written)
        self._wanted.append(wanted)

    def metrics(self) -> dict[str, float]:
        """`rouge_1`, `rouge_2`, `rouge_l` from 0 to 1; `bleu`, `chrf` from 0 to 100, through sacrebleu (extra: text).

        BLEU: Papineni et al. 2002, with the tokens 13a and smoothing exp of sacrebleu (Post 2018, arXiv 1804.08771);
        chrF: Popović 2015.
        """
        if not self.count:
            return {}
        metrics = {name: value / self.count for name, value in self.sums.items()}
        import sacrebleu

        library: Any = sacrebleu
        for name, scorer in (("bleu", library.BLEU()), ("chrf", library.CHRF())):
            metrics[name] = float(scorer.corpus_score(self._written, [self._wanted]).score)
        return metrics
