"""Sprites: characters of a video game in motion, each in many poses [Reed et al. 2015; Mathieu16]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from twofold.data.dataset import Dataset
from twofold.data.npz import archive
from twofold.data.pixels import resized
from twofold.data.registry import Files, builtin
from twofold.errors import InputError, choose, whole

ANIMATIONS = ("walk", "thrust", "spellcast", "slash", "shoot")
ATTRIBUTES = ("gender", "body", "armor", "hair", "arm", "greaves", "weapon")


class Palettes:
    """Images as indices into their character's palette: 3.6 kB an image, not 10.8."""

    def __init__(self, indices: np.ndarray, character: np.ndarray, palette: np.ndarray, size: int):
        packed = np.zeros((*palette.shape[:2], 4), np.uint8)  # a colour a word: one look-up, not three
        packed[..., :3] = palette
        self.colours = torch.from_numpy(packed.view(np.int32).ravel())
        self.first = torch.from_numpy((character * palette.shape[1]).astype(np.int32))[:, None, None]
        self.indices, self.size = torch.from_numpy(indices), size
        self.shape = (len(indices), 3, size, size)

    def decode(self, rows: np.ndarray) -> Tensor:
        """uint8 `[n, 3, size, size]`."""
        chosen = torch.from_numpy(rows)
        place = self.indices[chosen] + self.first[chosen]
        colours = self.colours.index_select(0, place.flatten()).view(torch.uint8).view(*place.shape, 4)
        return resized(colours[..., :3].permute(0, 3, 1, 2), self.size)


@builtin(
    "sprites",
    shape=(3, 60, 60),
    n=115_584,
    factors=(*ATTRIBUTES, "character", "animation", "direction", "frame"),
    default="character",
    source="Liberated Pixel Cup, rendered by Reed et al. 2015",
    licence="art CC BY-SA 3.0 / GPL 3",
    files=("sprites/sprites.npz",),
)
def sprites(
    files: Files,
    *,
    animations: Sequence[str] = ANIMATIONS,
    frames: str | int | Sequence[int] = "all",
    size: int = 60,
) -> Dataset:
    """672 characters of 7 attributes in 20 animations; official split: 500, 72, 100 characters, none in two parts.

    `sprites.npz` holds, for each animation, `[672, directions, frames, 60, 60]` indices into `palette [672, 140, 3]`,
    further `labels [672, 7]`, `label_names`, `directions`, `train_idx`, `val_idx` and `test_idx`. So are the images
    kept here, and decoded when the `.x` of the whole (1.2 GB) or of a part is asked for.

    Options:
        animations: Mathieu16's are walk, thrust, spellcast, slash and shoot in four directions; `hurt` exists in
            one, and its lowest five rows are white.
        frames: "all", or the number of a frame (from 0), or several.
        size: images of size x size, 8 to 60, by area averages.
    """
    animations = [animations] if isinstance(animations, str) else list(animations)
    if not animations or len(set(animations)) != len(animations):
        raise InputError(f"animations: {animations}; expected one or more, each once")
    for animation in animations:
        choose("animations", animation, (*ANIMATIONS, "hurt"))
    if isinstance(frames, str):
        choose("frames", frames, ("all",))
    path = files.need("sprites", "sprites/sprites.npz", "sprites.npz")
    rest = ("palette", "labels", "label_names", "directions", "train_idx", "val_idx", "test_idx")
    held = archive(path, (*animations, *rest))
    palette, labels = held["palette"], held["labels"]
    if palette.ndim != 3 or labels.shape != (len(palette), len(held["label_names"])):
        raise InputError(f"{path}: palette {palette.shape}, labels {labels.shape}; expected one of each a character")
    characters, directions = len(palette), [str(name) for name in held["directions"]]
    blocks, columns = [], []
    for number, animation in enumerate(animations):
        images = held.pop(animation)
        shaped = images.ndim == 5 and len(images) == characters and images.dtype == np.uint8
        if not shaped or images.max() >= palette.shape[1]:
            raise InputError(f"{path}: {animation} has shape {images.shape}; expected palette indices of 5 axes")
        kept = np.arange(images.shape[2]) if isinstance(frames, str) else np.atleast_1d(np.asarray(frames))
        for frame in kept.tolist():
            whole(f"frames ({animation})", frame, 0, images.shape[2] - 1)
        grid = np.indices((characters, images.shape[1], len(kept))).reshape(3, -1)
        # `hurt` faces the viewer
        direction = grid[1] if images.shape[1] > 1 else np.full_like(grid[1], directions.index("down"))
        columns.append(np.stack([grid[0], np.full_like(grid[0], number), direction, kept[grid[2]]]))
        blocks.append(images[:, :, kept].reshape(-1, *images.shape[3:]))
    character, animation, direction, frame = np.concatenate(columns, 1)
    official = tuple(np.flatnonzero(np.isin(character, held[f"{part}_idx"])) for part in ("train", "val", "test"))
    store = Palettes(np.concatenate(blocks), character, palette, whole("size", size, 8, 60))
    factors = {str(name): labels[character, i] for i, name in enumerate(held["label_names"])}
    factors |= {"character": character, "animation": animation, "direction": direction, "frame": frame}
    names = {"animation": animations, "direction": directions}
    return Dataset(store, factors, default="character", names=names, splits={"official": official})
