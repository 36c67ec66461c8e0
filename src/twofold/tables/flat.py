"""Flat tables with controls: does s find the target's hidden classes better than PCA and a plain VAE?

Nobody printed these numbers; the question is what users with a table ask.
"""

from __future__ import annotations

from typing import Any

from twofold import metrics
from twofold.method import Method
from twofold.tables import controls
from twofold.tables.cell import Cell
from twofold.tables.table import Column, Row, Table


def hidden(cell: Cell, *, seeds: int = 5) -> dict[str, Any]:
    """k-means on the codes of the target's rows, matched with the classes that nobody was told."""
    target, back = cell.test.contrast(cell.protocol.background)
    code, of_back = cell.encode(target), cell.encode(back)
    y = target.factors[str(cell.factor)]
    whole = code.s if code.s.shape[1] else code.z  # a code in one piece is z
    found = metrics.clustering(whole, y, tsne=False, seeds=seeds, seed=cell.seed)
    out = {"accuracy": found, "silhouette": found.silhouette, "chance": found.chance}
    if min(cell.method.sizes) and cell.row.control is None:
        out["accuracy, z"] = metrics.clustering(code.z, y, tsne=False, seeds=seeds, seed=cell.seed)
        still = cell.method.reference_s(1)
        of_back, of_target = ((half - still).square().sum(1).mean() for half in (of_back.s, code.s))
        out["background's s"] = float(of_back / of_target)
    return out


def pca_of_target(cell: Cell) -> Method:
    """What one would do without controls."""
    return controls.pca(cell.train.contrast(cell.protocol.background)[0], 0, cell.protocol.z, cell.seed)


FREE = {"scale": None}
GAUSSIAN = {"likelihood": "gaussian", "scale": None}
METHODS: list[dict[str, Any]] = [
    dict(name="PCA", control="pca"),
    dict(name="PCA of the target", control="pca", train=pca_of_target, protocol={"s": 0}),
    dict(name="VAE", method="vae"),
    dict(name="beta-TCVAE", method="beta-tcvae"),
    dict(name="DIP-VAE-II", method="dip-vae", options={"kind": "ii"}),
    dict(name="Eq. 7", method="contrastive", options=FREE | {"lambda_z": 0.0, "leakage": 0.0}),
    dict(name="Eq. 8", method="contrastive", options=FREE | {"leakage": 0.0}),
    dict(name="Contrastive, leakage of 10", method="contrastive", options=FREE, note="ours", version=2),
    dict(name="Contrastive, leakage of 10, scale 0.1", method="contrastive", note="ours", version=2),
    dict(name="Abid & Zou", method="abid-zou", options=FREE, version=2),  # 2: rows that a batch repeats
    dict(name="Abid & Zou, scale 0.1", method="abid-zou", version=2),
    dict(name="Rb-VAE", method="rb-vae", options=GAUSSIAN),
    dict(name="Rb-VAE, scale 0.1", method="rb-vae"),
    dict(name="sRb-VAE", method="srb-vae", options=GAUSSIAN),
    dict(name="sRb-VAE, scale 0.1", method="srb-vae"),
    dict(name="Mathieu, reference pairs", method="mathieu-reference"),
    dict(name="untrained", method="contrastive", options=FREE, control="untrained"),
    dict(name="shuffled controls", method="contrastive", options=FREE, control="shuffled"),
    dict(name="supervised", control="supervised"),
]


def _rows(block: str, columns: int, **more: Any) -> list[Row]:
    """The methods on one table, beside its columns as they are."""
    whole: dict[str, Any] = dict(
        name="the columns", control="pca", protocol={"s": columns}, note="as they are, standardised"
    )
    return [
        Row(**{**row, **more, "protocol": {**more["protocol"], **row.get("protocol", {})}, "block": block})
        for row in (whole, *METHODS)
    ]


def digits(k: int) -> list[Row]:
    long = {"cpu": {"steps": 1500}}
    protocol = {"data": "digits-table", "background": f"digit={k}", "s": 8, "z": 8}
    return _rows(f"digits, {k} as controls", 64, protocol=protocol, at=long)


def grassy() -> list[Row]:
    """Where something that both sets share hides the classes."""
    protocol = {"data": "grassy-digits", "split": "official", "s": 8, "z": 8}
    rows = _rows("digits on grass, grass as controls", 64, protocol=protocol, at={"cpu": {"steps": 1500}})
    return [row for row in rows if row.name != "PCA"]  # a background set of its own: that is "PCA of the target"


TABLES = [
    Table(
        name="clusters",
        title="Hidden classes of the target, found in the code",
        source="twofold",
        columns=[
            Column(name="accuracy", better="high", about="k-means on s (for a code in one piece, on it), matched"),
            Column(name="silhouette", better="high", about="of the true classes in the same code"),
            Column(name="accuracy, z", about="the same on z"),
            Column(name="background's s", format=".2f", about="its mean square from the reference, over the target's"),
            Column(name="chance", about="clusters of the same sizes, members at random"),
        ],
        rows=[
            *(
                row
                for k in range(3)
                for row in _rows(f"wine, cultivar {k} as controls", 13, protocol={"background": f"cultivar={k}"})
            ),
            *digits(0),
            *digits(1),
            *grassy(),
        ],
        measure=hidden,
        protocol={"data": "wine", "split": (1.0,), "s": 4, "z": 4, "batch_size": 64, "optim": {"lr": 1e-3}},
        scales={"smoke": {"steps": 3, "measure": {"seeds": 1}}, "cpu": {"steps": 500}, "paper": {"steps": 10_000}},
        about="""scikit-learn's wine, one cultivar as the background: two are hidden in the target; codes of 4 + 4
            dimensions. And its digits as a table of 64 columns, one digit as the background: nine are hidden; codes of
            8 + 8, at CPU scale 1,500 steps (wine 500). And its digits on grass, with grass alone as the background: ten
            are hidden; measured on the held-out part. Codes in one piece have as many dimensions as z. MLPs, Adam 1e-3,
            Gaussian likelihood, whose scale is the best for each batch unless said. Of wine and digits all rows are
            trained on and measured: nobody sees the classes, and no setting was chosen by them.""",
    )
]
