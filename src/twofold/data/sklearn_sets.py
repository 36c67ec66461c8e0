"""Small flat tables of real measurements that come with scikit-learn."""

from __future__ import annotations

import torch

from twofold.data.dataset import Dataset
from twofold.data.registry import builtin
from twofold.data.table import standardised


@builtin(
    "wine",
    shape=(13,),
    n=178,
    factors=("cultivar",),
    default="cultivar",
    source="scikit-learn, from Aeberhard & Forina 1992 (UCI)",
    licence="CC BY 4.0",
)
def wine() -> Dataset:
    """Thirteen chemical measurements of 178 wines from three cultivars (0, 1, 2), each standardised over all wines."""
    from sklearn.datasets import load_wine

    return _flat(load_wine(), "cultivar", None)


@builtin(
    "breast-cancer",
    shape=(30,),
    n=569,
    factors=("diagnosis",),
    default="diagnosis",
    source="scikit-learn, from Wolberg, Mangasarian, Street & Street 1993 (UCI)",
    licence="CC BY 4.0",
)
def breast_cancer() -> Dataset:
    """Thirty measurements of cell nuclei in 569 biopsies, malignant or benign, each standardised over all of them."""
    from sklearn.datasets import load_breast_cancer

    return _flat(load_breast_cancer(), "diagnosis", ("malignant", "benign"))


@builtin(
    "digits-table",
    shape=(64,),
    n=1797,
    factors=("digit",),
    default="digit",
    source="scikit-learn, from Alpaydin & Kaynak 1998 (UCI)",
    licence="CC BY 4.0",
)
def digits_table() -> Dataset:
    """The pixels of `digits` as 64 columns of a table, each standardised over all rows (three are constant)."""
    from sklearn.datasets import load_digits

    return _flat(load_digits(), "digit", None)


def _flat(source, factor: str, names: tuple[str, ...] | None) -> Dataset:
    values = torch.from_numpy(source.data)
    scaling = standardised([str(name) for name in source.feature_names], values)
    known = {factor: names} if names else None
    return Dataset(scaling.apply(values), {factor: source.target}, names=known, scaling=scaling)
