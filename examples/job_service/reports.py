"""``report``: work for the processor, in a process of its own, which is killed on time-out or cancel."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Annotated

from msgspec import Meta

from windlass import Registry, SyncContext

__all__ = ["tasks"]

tasks = Registry()

_WORD = re.compile(r"\w+")
_SYLLABLES = ("ka", "lo", "mi", "ren", "sa", "tu", "vor", "ya")
_PART = 20_000
Words = Annotated[int, Meta(ge=1, le=50_000_000)]


@tasks.task(run_in="process", timeout="5m", max_attempts=3)
def report(
    ctx: SyncContext, text: str | None = None, words: Words = 500_000, seed: int = 1
) -> dict[str, object]:
    """Word statistics of *text*; without one, of *words* words of nonsense grown from *seed*."""
    counts: Counter[str] = Counter()
    if text is not None:
        counts.update(word.lower() for word in _WORD.findall(text))
    else:
        dice = random.Random(seed)
        for done in range(0, words, _PART):
            counts.update(_nonsense(dice) for _ in range(min(_PART, words - done)))
            ctx.progress(done / words, f"{done:,} of {words:,} words")
    return _summary(counts)


def _nonsense(dice: random.Random) -> str:
    return "".join(dice.choices(_SYLLABLES, k=dice.choice((1, 2, 2, 3))))


def _summary(counts: Counter[str]) -> dict[str, object]:
    total = counts.total()
    letters = sum(len(word) * count for word, count in counts.items())
    return {
        "words": total,
        "distinct": len(counts),
        "mean_length": round(letters / total, 3) if total else 0.0,
        "most_common": counts.most_common(5),
    }
