"""Images in other forms: resized, from PIL."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


def resized(images: Tensor, size: int) -> Tensor:
    """uint8 `[n, C, H, W]` as `[n, C, size, size]`: area averages when smaller, bilinear when larger."""
    if images.shape[2:] == (size, size):
        return images
    down, across = (_weights(n, size) for n in images.shape[2:])
    out = torch.empty((*images.shape[:2], size, size), dtype=torch.uint8)
    for i in range(0, len(images), 256):
        part = images[i : i + 256].contiguous().float()
        out[i : i + 256] = (down @ part @ across.T).round_().to(torch.uint8)
    return out


def _weights(n: int, size: int) -> Tensor:
    """`[size, n]`: resizing is linear, rows and columns apart, so that of a unit matrix does for all images."""
    unit = torch.eye(n)
    if size > n:
        return interpolate(unit[None], size, mode="linear")[0].T
    from skimage.transform import resize_local_mean

    return torch.from_numpy(resize_local_mean(unit.numpy(), (size, n)))


def channels_first(image: object) -> np.ndarray:
    """A PIL image as uint8 `[C, H, W]`; anything else as an array, as it is."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        return np.asarray(image)
    pixels = np.asarray(as_mode(image, "L" if is_grey(image.mode) else "RGB"))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def is_grey(mode: str) -> bool:
    """Whether a PIL image of this mode has no colour."""
    return mode in ("1", "L", "LA", "La", "F") or mode.startswith("I")


def as_mode(image, mode: str):
    """A PIL image in `mode` "L" or "RGB", 16-bit greys scaled to 8 (PIL itself would clip them)."""
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)
