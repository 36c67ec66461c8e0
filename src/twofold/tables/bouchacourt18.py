"""Multi-level variational autoencoder: learning disentangled representations from grouped observations (2018)."""

from __future__ import annotations

from typing import Any, Literal

from twofold import methods, metrics
from twofold.method import Method
from twofold.tables.cell import Cell
from twofold.tables.table import Column, Row, Table

K = (1, 2, 5, 10, 100)
Rule = Literal["product", "mixture"] | None


def curves(cell: Cell, *, per_class: int = 100, rule: Rule = "product", trials: int = 5) -> dict[str, Any]:
    """Accuracy, and an upper bound of H(class | code) in bits, from codes of k test images put together by `rule`: from
    s; from z as the paper has it, each image its own; and, which is harder, from z put together as s is. Samples, and
    s's means. What has no spread can't be put together."""
    y, ks = cell.test.factors[str(cell.factor)], [k for k in K if k <= per_class]
    found: dict[str, Any] = {}
    extra: dict[str, Any] = {"test images": len(y), "per_class": per_class}
    for half, q in zip("sz", cell.method.posterior(cell.test.x)):
        ways: dict[str, tuple[Rule, Literal["samples", "means"]]] = {
            "s": {"s": (rule, "samples"), "s means": (rule, "means")},
            "z": {"z": (None, "samples"), "z together": (rule, "samples")},
        }[half]
        for name, (how, codes) in ways.items() if q.mean.shape[1] and bool((q.variance > 0).all()) else ():
            made = metrics.evidence(q, y, per_class, k=ks, evidence=how, codes=codes, trials=trials, seed=cell.seed)
            extra[name] = made
            for k, right, bits in zip(ks, made.curve("accuracy")[0], made.curve("bits")[0]):
                found |= {f"{name}, k={k}": float(right), f"{name} bits, k={k}": float(bits)}
    known = {column.name for column in COLUMNS}
    return {name: value for name, value in found.items() if name in known} | {"extra": extra}


def in_two_stages(cell: Cell) -> Method:
    """A `GroupSVI`, then an encoder that learns from what it generates."""
    svi: Any = cell.fit(cell.build("group-svi"))
    two: Any = methods.get("svi-encode")
    return cell.fit(two(svi))


COLUMNS = [
    *(Column(name=f"s, k={k}", better="high", about="accuracy from s, samples") for k in K),
    *(Column(name=f"s bits, k={k}", better="low", format=".2f", about="of H(digit | s), at most") for k in (1, 10)),
    Column(name="z, k=1", better="low", about="accuracy from z, samples, each image its own"),
    Column(name="z bits, k=1", better="high", format=".2f", about="of H(digit | z), at most"),
    *(Column(name=f"z together, k={k}", better="low", about="accuracy from k images' z together") for k in (10, 100)),
    Column(name="s means, k=1", better="high", about="accuracy from the means of s"),
    Column(name="seconds", format=".0f"),
]


def rows(block: str, protocol: dict[str, Any], infer: dict[str, Any], epochs: int) -> list[Row]:
    """`infer`: the measure of GroupSVI, which infers the codes of fewer test images. epochs: at CPU scale."""

    def row(name: str, method: str | None, leakage: bool = True, **more: Any) -> Row:
        options = ({} if leakage else {"leakage": 0.0}) | more.pop("options", {})
        own = protocol | more.pop("protocol", {})
        at = {scale: dict(changes) for scale, changes in more.pop("at", {}).items()}
        at["cpu"] = {"epochs": epochs} | at.get("cpu", {})
        return Row(name=name, method=method, block=block, options=options, protocol=own, at=at, **more)

    svi = {"cpu": {"n_test": 1_000, "measure": infer}, "smoke": {"options": {"inference_steps": 3}}}
    return [
        row("ML-VAE, product", "ml-vae", False),
        row(
            "ML-VAE, mixture",
            "ml-vae",
            False,
            options={"evidence": "mixture"},
            at={scale: {"measure": {"rule": "mixture"}} for scale in ("smoke", "cpu", "paper")},
        ),
        row("regularised (Eq. 18)", "group-klvae", False),
        row("SVI", "group-svi", at=svi, note=f"K of {infer['per_class']} at CPU scale"),
        row("SVI-Encode", "svi-encode", train=in_two_stages),
        row("VAE", "vae", protocol={"z": 20}, note="z of 20 is the whole code"),
        row("ML-VAE (leakage 5)", "ml-vae", note="ours"),
        row("untrained", "ml-vae", control="untrained"),
        row("shuffled groups", "ml-vae", control="shuffled"),
        row("PCA", None, control="pca"),
        row("constant", None, control="constant"),
    ]


TABLES = [
    Table(
        name="fig-6c",
        title="What s and z tell of the digit, against the number of images put together",
        source="Bouchacourt18, Fig. 6c and supplement, Fig. 2 (curves: no printed values)",
        columns=COLUMNS,
        rows=[
            *rows("mnist", {"data": "mnist", "arch": "bouchacourt18-mnist"}, {"per_class": 25}, epochs=20),
            *rows(
                "digits",
                {"data": "digits", "split": (0.8, 0.2), "measure": {"per_class": 10}},
                {"per_class": 10},
                epochs=100,
            ),
        ],
        measure=curves,
        protocol=dict(s=10, z=10, batch_size=128),
        scales={
            "smoke": dict(data="digits", split=(0.8, 0.2), arch="auto", steps=2, n_train=150, n_test=140)
            | {"measure": {"per_class": 4, "trials": 1}},
            "cpu": dict(n_train=50_000),
            "paper": dict(epochs=2_000, n_train=50_000),
        },
        about="""The paper's protocol: a classifier (256 tanh units) learns from codes of K test images of a class put
            together (K = 100; digits 10), and is asked for codes of k other test images, in 5 trials; codes are samples
            of the posterior. "z": each image has its own; "z together": put together as s is, which the paper does for
            the VAE only. Bits: the cross-entropy, an upper bound of what is left to know. 50,000 training images, the
            paper's network (784-500-tanh, 10 + 10); 20 epochs at CPU scale (digits 100), 2,000 in the paper. The pixel
            variance, which the paper does not state, is fitted. SVI infers the codes of test images by 500 steps of
            Adam, at CPU scale of 1,000 images only.""",
    ),
]
