"""Points in the plane, one axis of which tells the class [Zheng19, Sec. 4.1]."""

from __future__ import annotations

import numpy as np

from twofold.arrays import generator
from twofold.data.dataset import Dataset
from twofold.data.registry import builtin
from twofold.errors import whole


@builtin(
    "toy",
    shape=(2,),
    n=3000,
    factors=("label", "irrelevant"),
    default="label",
    source="made, after [Zheng19, Sec. 4.1]",
    licence="Apache-2.0",
)
def toy(*, n: int = 3000, seed: int = 0) -> Dataset:
    """Points (x, y): x is normal about its class (-2, 0, 2; deviation 0.3), y is uniform on [-2, 2] whatever the class.

    The paper gives three classes, green, red and blue, and says that x is label relevant and y is not; the distribution
    itself is ours. The factor `irrelevant` is y.
    """
    random = generator(whole("seed", seed, 0), 13)
    label = random.permutation(np.arange(whole("n", n, 6)) % 3)
    relevant = 2.0 * (label - 1) + 0.3 * random.standard_normal(n)
    irrelevant = random.uniform(-2, 2, n)
    factors = {"label": label, "irrelevant": irrelevant}
    return Dataset(np.stack([relevant, irrelevant], 1), factors, names={"label": ("green", "red", "blue")})
