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
FEWEST = 6  # observations of a class, to put together: two each to train, validate and test a classifier


def accumulated(
    posteriors: dict[str, Any], y: Tensor, rule: str | None, seen: Tensor, seed: int
) -> tuple[dict[str, Evidence], dict[str, FewShot], dict[str, str]]:
    """Evidence of each half, few-shot identification of the classes that are not among `seen`, and why what is missing
    is.

    posteriors: half -> its posterior of held-out observations. y: their classes, -1 where not known. rule: how the
    method makes one posterior of a group's s, "product" or "mixture"; None where it infers groups together, for which
    posteriors of single observations will not do. z is multiplied, which shows the most; "single z" is z with no rule:
    each its own. seen: the classes that training had. The 20 largest classes are put together, of those with 6
    observations or more.
    """
    found: dict[str, Evidence] = {}
    known: dict[str, FewShot] = {}
    skipped: dict[str, str] = {}
    counts = y[y >= 0].bincount()
    present, large = int((counts > 0).sum()), (counts >= FEWEST).nonzero()[:, 0]
    chosen = large[counts[large].argsort(descending=True, stable=True)][:GROUPS]
    rows = torch.isin(y, chosen).nonzero()[:, 0]
    if len(chosen) < 2:
        skipped["evidence"] = f"{len(chosen)} of {present} classes have {FEWEST} held-out observations, expected two"
    elif len(large) < present:
        few = present - len(large)
        skipped[f"evidence of {few} classes" if few > 1 else "evidence of a class"] = (
            f"fewer than {FEWEST} held-out observations"
        )
    unknown = ((y >= 0) & ~torch.isin(y, seen)).nonzero()[:, 0]
    ks = _shots(y[unknown].bincount(), skipped) if len(unknown) else []
    for half, q in posteriors.items():
        if not q.mean.shape[1]:
            continue
        if isinstance(q, Gaussian) and len(chosen) > 1:
            most = int(counts[chosen].min()) // 3
            for name, how in {"s": {"s": rule}, "z": {"z": rule and "product", "single z": None}}[half].items():
                if rule is None and name != "single z":
                    skipped[f"evidence of {name}"] = "this method infers the members of a group together"
                    continue
                k = [k for k in K if k <= most]
                try:
                    found[name] = metrics.evidence(q[rows], y[rows], k[-1], k=k, evidence=how, trials=TRIALS, seed=seed)
                except InputError as error:
                    skipped[f"evidence of {name}"] = str(error)
        if ks:
            q = q if rule == "product" else Point(q.mean)
            try:
                known[half] = metrics.few_shot(q[unknown], y[unknown], ks, seed=seed)
            except InputError as error:
                skipped[f"few-shot identification by {half}"] = str(error)
    return found, known, skipped


def _shots(counts: Tensor, skipped: dict[str, str]) -> list[int]:
    """How many examples to identify classes of these sizes from: so many that half of them, and two, have more."""
    able = np.sort(counts[counts > 1].numpy())
    if len(able) < 2:
        skipped["few-shot identification"] = (
            f"{len(able)} of the {int((counts > 0).sum())} classes that training never saw have two held-out "
            "observations, expected two"
        )
        return []
    most = min(int(np.median(able)), int(able[-2])) - 1
    return [k for k in SHOTS if k <= most]
