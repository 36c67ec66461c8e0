"""What codes tell when several observations of one group are put together, and of groups that training never saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold import metrics
from twofold.distributions import Gaussian, Point
from twofold.errors import InputError
from twofold.metrics import Evidence, FewShot

K = (1, 2, 5, 10, 20)
SHOTS = (1, 2, 5, 10)
TRIALS = 3
GROUPS = 20  # put together, at most


def accumulated(
    posteriors: dict[str, Any], y: Tensor, rule: str | None, unseen: bool, seed: int
) -> tuple[dict[str, Evidence], dict[str, FewShot], dict[str, str]]:
    """Evidence of each half, few-shot identification where groups are `unseen`, and why what is missing is.

    posteriors: half -> its posterior of held-out observations. y: their classes, -1 where not known. rule: how the
    method makes one posterior of a group's, "product" or "mixture"; None where it infers groups together, for which
    posteriors of single observations will not do. "single z" is z with no rule: each its own. At most 20 classes.
    """
    found: dict[str, Evidence] = {}
    known: dict[str, FewShot] = {}
    skipped: dict[str, str] = {}
    rows = (y >= 0).nonzero()[:, 0]
    classes = y[rows].unique()
    rows = rows[torch.isin(y[rows], classes[:GROUPS])]
    smallest = int(y[rows].bincount()[classes[:GROUPS]].min()) if len(rows) else 0
    ks = [k for k in K if k <= smallest // 3]
    for half, q in posteriors.items():
        if not q.mean.shape[1]:
            continue
        if isinstance(q, Gaussian):
            for name, how in {"s": {"s": rule}, "z": {"z": rule, "single z": None}}[half].items():
                if rule is None and name != "single z":
                    skipped[f"evidence of {name}"] = "this method infers the members of a group together"
                    continue
                try:
                    if not ks:
                        raise InputError(f"a class has {smallest} held-out observations; three times two are needed")
                    found[name] = metrics.evidence(
                        q[rows],
                        y[rows],
                        ks[-1],
                        k=ks,
                        evidence=how,
                        trials=TRIALS,
                        seed=seed,
                    )
                except InputError as error:
                    skipped[f"evidence of {name}"] = str(error)
        if unseen:
            known |= _identified(half, q if rule == "product" else Point(q.mean), y, seed, skipped)
    return found, known, skipped


def _identified(half: str, q: Any, y: Tensor, seed: int, skipped: dict[str, str]) -> dict[str, FewShot]:
    rows = (y >= 0).nonzero()[:, 0]
    most = int(np.median(y[rows].bincount()[y[rows].unique()])) - 1 if len(rows) else 0
    ks = [k for k in SHOTS if k <= most] or [1]
    try:
        return {half: metrics.few_shot(q[rows], y[rows], ks, seed=seed)}
    except InputError as error:
        skipped[f"few-shot identification by {half}"] = str(error)
        return {}
