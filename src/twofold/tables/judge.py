"""An independent judge of what rows make, shared by the cells of a process."""

from __future__ import annotations

from twofold import metrics
from twofold.data import Dataset

_judges: dict[tuple[str, str, int | None], metrics.Classifier] = {}


def judge(part: Dataset, factor: str, steps: int | None) -> metrics.Classifier:
    """The same for every row and seed on a data set, made once in a process: it saw real observations only."""
    key = (part.hash, factor, steps)
    if key not in _judges:
        _judges.clear()
        _judges[key] = metrics.classifier(part.x, part.factors[factor], steps=steps)
    return _judges[key]
