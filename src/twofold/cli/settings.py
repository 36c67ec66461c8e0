"""What a training is told, as flags, and as its run's record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

MODEL, TRAINING, DATA, RUN = (Group(name, sort_key=i) for i, name in enumerate(("Model", "Training", "Data", "Run"), 1))


def whole(_: Any, tokens: Any) -> int | None:
    """A whole number; cyclopts alone would round 1.5."""
    text = tokens[0].value
    if text.lower() in ("none", "null"):
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r}; expected a whole number") from None


def flag(group: Group, text: str) -> Parameter:
    return Parameter(group=group, help=text, negative="")


def count(group: Group, text: str) -> Parameter:
    return Parameter(group=group, help=text, converter=whole)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a training's result follows from. The defaults of `fit` and `Method.build` hold where None stands."""

    method: Annotated[str, Parameter(parse=False)] = ""
    data: Annotated[str, Parameter(parse=False)] = ""
    own: Annotated[dict[str, Any], Parameter(parse=False)] = field(default_factory=dict)

    s: Annotated[int, count(MODEL, "Dimensions of s.")] = 10
    z: Annotated[int, count(MODEL, "Dimensions of z.")] = 10
    arch: Annotated[str, flag(MODEL, "The networks: one of those that `twofold list` shows.")] = "auto"

    steps: Annotated[int | None, count(TRAINING, "Updates of the weights; 3,000 without --epochs.")] = None
    epochs: Annotated[float | None, flag(TRAINING, "Passes over the data, in place of --steps.")] = None
    batch_size: Annotated[int | None, count(TRAINING, "Images in a batch; 128 unless given.")] = None
    lr: Annotated[float | None, flag(TRAINING, "Learning rate of every optimiser, in place of the paper's.")] = None
    precision: Annotated[Literal["auto", "fp32", "bf16"], flag(TRAINING, "Of the arithmetic.")] = "auto"
    seed: Annotated[int, count(TRAINING, "Decides all that is random: the split, the weights, the draws.")] = 0

    factor: Annotated[
        str | None, flag(DATA, "What s is to be about: the labels, groups or pairs; A,B: several groupings (ml-vae).")
    ] = None
    hold_out: Annotated[
        str | None,
        flag(DATA, "FACTOR: keep a fifth of its classes (people, say) apart, in place of rows."),
    ] = None
    background: Annotated[str | None, flag(DATA, "FACTOR=VALUE: the rows that are the reference set.")] = None
    per_group: Annotated[int | None, count(DATA, "Members of a group in a draw, at most; 8 unless given.")] = None
    data_dir: Annotated[
        Path | None, flag(DATA, "Where the built-in sets' files lie; TWOFOLD_DATA in the environment unless given.")
    ] = None
    download: Annotated[bool, flag(DATA, "Fetch missing files (mnist only), verified by their hashes.")] = False
    data_option: Annotated[
        list[str] | None,
        flag(DATA, "NAME=VALUE: an option of the data set, size=32 say. May be repeated, for one name (a list) too."),
    ] = None

    def record(self) -> dict[str, Any]:
        """As JSON-able values; what is None or a switch left off is left out."""
        told = {k: v for k, v in asdict(self).items() if v is not None and v is not False}
        return told | {k: str(v) for k, v in told.items() if isinstance(v, Path)}
