"""What a split code is for. Every function takes a `Method` and works on whatever has the parts that it needs; images
come back in [0, 1], on the CPU."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from twofold.arrays import gather, observations
from twofold.errors import InputError, choose, shown, whole
from twofold.method import Code, Method

Which = Literal["both", "s", "z"]


def swap(method: Method, s_from, z_from, y=None, y_z=None) -> Tensor:
    """`x [N, *shape]` with the s of `s_from` and the z of `z_from`, one to one: attribute transfer.

    `y [N]`, `y_z [N]`: labels of `s_from` and of `z_from`, for methods that encode with them.
    """
    if len(s_from) != len(z_from):
        raise InputError(f"s_from, z_from: {len(s_from)} and {len(z_from)} observations; expected as many of both")
    return method.decode(Code(method.encode(s_from, y).s, method.encode(z_from, y_z).z))


def interpolate(
    method: Method,
    a,
    b,
    steps: int = 8,
    which: Literal["both", "s", "z", "grid"] = "both",
    y_a=None,
    y_b=None,
) -> Tensor:
    """Straight lines in code space from `a` to `b` (one observation `[*shape]` each, or several `[N, *shape]`).

    "both" moves s and z together, "s" or "z" that half only (the other stays a's): `[steps, *shape]`. "grid" is
    `[steps, steps, *shape]`: rows of one z, columns of one s, a at the top left, b at the bottom right [Mathieu16,
    Fig. 2b]. Several observations put `N` in front. `y_a`, `y_b`: their labels (one each, or `[N]`), for methods that
    encode with them.
    """
    choose("which", which, ("both", "s", "z", "grid"))
    whole("steps", steps, 2)
    single = len(_shape(a)) == len(method.shape)
    y_a, y_b = (None if y is None else torch.as_tensor(y).reshape(-1) for y in (y_a, y_b))
    a, b = (method.encode(v[None] if single else v, y) for v, y in ((_array(a), y_a), (_array(b), y_b)))
    if len(a.s) != len(b.s):
        raise InputError(f"a, b: {len(a.s)} and {len(b.s)} observations; expected as many of both")
    t = torch.linspace(0, 1, steps)
    s = torch.lerp(a.s[:, None], b.s[:, None], t[None, :, None])  # [N, steps, d]
    z = torch.lerp(a.z[:, None], b.z[:, None], t[None, :, None])
    if which == "s":
        z = a.z[:, None].expand_as(z)
    if which == "z":
        s = a.s[:, None].expand_as(s)
    if which == "grid":
        s = s[:, None].expand(-1, steps, -1, -1)
        z = z[:, :, None].expand(-1, -1, steps, -1)
    lead = s.shape[:-1]
    x = method.decode(Code(s.flatten(0, -2), z.flatten(0, -2))).unflatten(0, lead)
    return x[0] if single else x


def generate(
    method: Method, n: int, *, y=None, examples=None, z_from=None, y_z=None, seed: int | None = None
) -> Tensor:
    """`n` new observations `[n, *shape]`.

    s comes from `examples` (observations; their s, repeated in turn), from the class `y` (one, or `[n]`), or from the
    prior. z comes from the prior, or from `z_from` (observations; their z, repeated in turn): the same observations,
    with another s [conditional synthesis: Ruiz19, Sec. 5.4]. `y_z [N]`: labels of `z_from`, for methods that encode
    with them. `seed` makes it reproducible; with or without, PyTorch's own generator is left alone.
    Raises `UnsupportedError` where the method has no such source of s.
    """
    whole("n", n, 1)
    if seed is not None:
        whole("seed", seed, 0)
    if y is not None and examples is not None:
        raise InputError("y, examples: both given; s comes from one of the two")
    if y is not None:
        y = torch.as_tensor(y)
        y = y.expand(n) if y.ndim == 0 else y
        if len(y) != n:
            raise InputError(f"y: {len(y)} classes for n = {n}; expected one, or one each")
    with torch.random.fork_rng(devices=[]):
        if seed is None:
            torch.default_generator.seed()
        else:
            torch.default_generator.manual_seed(seed)
        if examples is None:
            s, z = method.prior(n, y)
        else:
            s, z = method.encode(examples).s, torch.randn(n, method.sizes[1])
    z = z if z_from is None else method.encode(z_from, y_z).z
    turn = torch.arange(n)
    return method.decode(Code(s[turn % len(s)], z[turn % len(z)]))


def retrieve(
    method: Method, query, gallery, k: int = 5, by: Literal["s", "z"] = "s", y=None, y_gallery=None
) -> tuple[Tensor, Tensor]:
    """The `k` observations of `gallery` whose `by` is nearest to each of `query`: indices and Euclidean distances,
    both `[N, k]`, nearest first. Ties go to the lower index (past 4,096 in the gallery: of those that were found).

    `y`, `y_gallery`: labels of `query` and of `gallery`, for methods that encode with them.
    """
    choose("by", by, ("s", "z"))
    k = whole("k", k, 1, len(gallery))
    if method.sizes["sz".index(by)] == 0:
        raise InputError(f"by: {by!r}; this method's {by} has no dimensions")
    q, g = (getattr(method.encode(x, labels), by) for x, labels in ((query, y), (gallery, y_gallery)))
    found = []
    for rows in q.split(max(1, (1 << 25) // len(g))):  # 128 MiB of distances at a time
        distance = torch.cdist(rows, g, compute_mode="donot_use_mm_for_euclid_dist")  # exact for near neighbours
        if len(g) <= 4096:
            order = distance.argsort(dim=1, stable=True)[:, :k]
        else:
            near = distance.topk(k, largest=False)[1].sort(1)[0]
            order = near.gather(1, distance.gather(1, near).argsort(dim=1, stable=True))
        found.append((order, distance.gather(1, order)))
    indices, distances = zip(*found)
    return torch.cat(indices), torch.cat(distances)


def inpaint(method: Method, x, mask, y=None) -> Tensor:
    """`x [N, C, H, W]` with its corrupted part filled in: M x' + (1 - M) x, x' the reconstruction [Zheng19, Sec. 4.5].

    `mask` is 1 where corrupted, `[H, W]`, `[C, H, W]` or `[N, C, H, W]` (for vectors `[D]` or `[N, D]`). What it covers
    is set to 0 before encoding, whatever stands there.
    """
    x = x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    mask = torch.as_tensor(mask, dtype=torch.float32)
    try:
        mask = mask.expand(x.shape)
    except RuntimeError:
        raise InputError(f"mask: {shown(mask)}; expected one that fits {tuple(x.shape)}") from None
    if not ((mask == 0) | (mask == 1)).all():
        raise InputError("mask: values other than 0 and 1; expected 1 where corrupted, 0 elsewhere")
    seen = _unit(torch.where(mask == 1, torch.zeros_like(x), x))  # before the check: NaN may mark what is missing
    return mask * method.decode(method.encode(seen, y)) + seen


def accumulate(method: Method, x, group, y=None) -> Code:
    """Codes that use the grouping: `s [G, d_s]`, one a group (sorted ids); `z [N, d_z]`, one an image.

    Gaussian codes are multiplied [Bouchacourt18, Eqs. 6-7], or mixed where the method was trained so; points are
    averaged. Strategy 2 of Sec. 4; strategy 1 is `encode`. `y [N]`: labels, for methods that encode with them.

    An `MLVAE` trained on several groupings takes as many, `{name: ids}` or `[N, P]`, and gives `s [N, d_s]`: each part
    from all images of the row's group in that grouping.
    """
    return method.accumulate(x, group, y)


def reconstruct(method: Method, x, which: Which = "both", y=None) -> Tensor:
    """`x` through the code and back. "z" keeps z and sets s to its reference value (background only); "s" keeps s and
    sets z to 0 (salient only) [Contrast21, Fig. 5]."""
    choose("which", which, ("both", "s", "z"))
    code = method.encode(x, y)
    if which == "z":
        code = Code(method.reference_s(len(code.s)), code.z)
    if which == "s":
        code = Code(code.s, torch.zeros_like(code.z))
    return method.decode(code)


def _array(x):
    return x if hasattr(x, "shape") else torch.as_tensor(x)


def _shape(x) -> tuple[int, ...]:
    return tuple(_array(x).shape)


def _unit(x) -> Tensor:
    x = observations(x)
    return gather(x, torch.arange(len(x)))
