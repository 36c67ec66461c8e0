"""`Method`, the one contract that every paper's model fulfils, and `Code`, what it makes of an observation."""

from __future__ import annotations

import inspect
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import safetensors.torch
import torch
from torch import Tensor, nn

from twofold import networks
from twofold.arrays import gather, observations
from twofold.distributions import Gaussian, Point, Posterior, picture, posterior
from twofold.errors import InputError, MissingFileError, UnsupportedError, choose, shown, whole
from twofold.supervision import Labels, Supervision, in_groups

Terms = dict[str, dict[str, Tensor]]
"""`{player: {term: scalar}}`: one simultaneous update."""


class Code(NamedTuple):
    """A code in two halves: `s [N, d_s]`, what the supervision is about, and `z [N, d_z]`, all the rest.

    A half that a method doesn't have has width 0.
    """

    s: Tensor
    z: Tensor


class Facts(dict):
    """What a saved method was bound to, in place of the supervision itself."""

    def facts(self) -> dict:
        return self


class Method(nn.Module, ABC):
    """One paper: how a draw becomes losses, and an observation a code. Knows no optimiser, device, logger or engine.

    A subclass declares `name`, `supervision` and `players`, takes its networks and options in `__init__` (options are
    keywords with defaults: the command line and the documentation read them there), and writes `losses`. It overrides
    `networks` where it needs more than an encoder and a decoder, `_posterior`, `_decode`, `prior` or `reference_s`
    where its model differs from: both codes Gaussian with a standard normal prior, decoded together.
    """

    name: ClassVar[str]
    """On the command line."""
    supervision: ClassVar[type[Supervision]]
    """What `losses` needs: `Images`, `Labels`, `Groups`, `Triplets` or `Reference`."""
    draws: int = 1
    """How many independent batches one step needs."""
    players: dict[str, str] = {"model": "enc dec"}
    """Optimiser -> the attributes (networks or parameters) that it moves. No parameter has two players."""
    optim: ClassVar[dict[str, Any]] = {"name": "adam", "lr": 1e-3}
    """The paper's optimiser, the same for all players or `{player: {...}}`."""
    point_s: ClassVar[bool] = False
    """Whether an s without spread will do."""
    only_z: ClassVar[bool] = False
    """Whether z is the whole code, and s has no dimensions."""
    needs: ClassVar[str | None] = None
    """What `prior` can't do without: "y" (a class), "examples" (images that give s) or nothing."""

    config: dict[str, Any] | None = None  # how `build` was called; None for networks of the user's own
    _facts: dict[str, Any] | None = None

    def __init__(self, encoder: nn.Module | None = None, decoder: nn.Module | None = None):
        super().__init__()
        if encoder is not None:
            self.enc = encoder
        if decoder is not None:
            self.dec = decoder

    # -- making one ------------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        shape,
        s: int = 10,
        z: int = 10,
        classes: int | None = None,
        arch: str = "auto",
        *,
        seed: int = 0,
        **options,
    ) -> Self:
        """The method for observations of `shape` (C, H, W) or (D,), with codes of `s` and `z` dimensions.

        `classes` is how many labels there are, where the method wants to know (else `fit` tells it); `arch` names the
        networks (`twofold.networks.ARCHITECTURES`, or "auto"); `seed` gives the initial weights; `options` are the
        method's own. Raises `InputError` for an unknown option, architecture or size.
        """
        if isinstance(shape, str) or not hasattr(shape, "__iter__") or not all(isinstance(n, Integral) for n in shape):
            raise InputError(f"shape: {shape!r}; expected (channels, height, width) or (dimensions,)")
        shape = tuple(int(side) for side in shape)
        seed, classes = whole("seed", seed, 0), None if classes is None else whole("classes", classes, 1)
        if s == 0 and cls._needs_s():
            raise InputError(f"s: 0; {cls.name} needs at least one dimension of s")
        known = inspect.signature(cls.__init__).parameters
        for option, value in options.items():
            choose(f"option of {cls.__name__}", option, cls.options())
            if "float" in str(known[option].annotation) and value is not None:
                number(f"{option} of {cls.__name__}", value)
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            accepted = inspect.signature(cls.networks).parameters
            extra = {k: options[k] for k in options if k in accepted}
            method = cls(*cls.networks(shape, s, z, classes, arch, **extra), **options)
        method.config = dict(shape=list(shape), s=s, z=z, classes=classes, arch=arch, seed=seed, **options)
        return method

    @classmethod
    def _needs_s(cls) -> bool:
        return not cls.only_z and cls.supervision is not Labels  # with labels, s may be the label itself

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The method's own options, `{name: default}`: the keywords of `__init__`."""
        parameters = inspect.signature(cls.__init__).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @classmethod
    def networks(cls, shape: tuple[int, ...], s: int, z: int, classes: int | None, arch: str) -> tuple[nn.Module, ...]:
        """The networks that `__init__` takes, in its order."""
        return networks.build(arch, shape, s, z)

    def bind(self, supervision: Supervision | Facts) -> None:
        """Take from the data what only the data knows: `supervision.facts()`, here the observations' shape.

        `fit` calls it once before training, `load` with the saved facts. Parameters whose size depends on the data are
        made here (and kept, when bound again to the same sizes).
        """
        facts = supervision.facts()
        if self.config is not None and tuple(facts["shape"]) != self.shape:
            raise InputError(f"shape: {tuple(facts['shape'])} in the data; {self.name} was built for {self.shape}")
        self._facts = dict(facts)
        if self.config is None:
            self._try()

    def _try(self) -> None:
        """Networks of the user's own, tried on two observations before they train. Raises `InputError`."""
        try:
            s, z = self._infer(torch.zeros(2, *self.shape))
            if self.only_z and s.mean.shape[-1]:
                found = f"its s has {s.mean.shape[-1]} dimensions"
                raise InputError(f"encoder: {found}; {type(self).__name__} has no s, z is the whole code")
            if not s.mean.shape[-1] and self._needs_s():
                raise InputError(f"encoder: its s has no dimensions; {type(self).__name__} needs at least one")
            if isinstance(s, Point) and s.mean.shape[-1] and not self.point_s:
                raise InputError(f"encoder: its s is a point; {type(self).__name__} needs a Gaussian")
            if not isinstance(z, Gaussian):
                raise InputError("encoder: its z is a point; expected a Gaussian")
            x = self.decode(Code(s.mean, z.mean))
        except RuntimeError as error:
            raise InputError(f"encoder, decoder: {str(error).splitlines()[0]}, on input {(2, *self.shape)}") from None
        if x.shape[1:] != self.shape:
            raise InputError(f"decoder: gave {tuple(x.shape)} for observations of shape {self.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        known = self.config or self._facts
        if known is None:
            raise InputError("shape: not known yet; it is learned from the data, in fit or bind")
        return tuple(known["shape"])

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def sizes(self) -> tuple[int, int]:
        """Dimensions of s and of z."""
        if not hasattr(self, "_sizes"):
            s, z = self._infer(torch.zeros(2, *self.shape))
            self._sizes = (s.mean.shape[-1], z.mean.shape[-1])
        return self._sizes

    # -- training --------------------------------------------------------------------------------------------------

    @abstractmethod
    def losses(self, *draws: Any, **_: Any) -> Iterator[Terms]:
        """Yield `{player: {term: scalar}}`, once for each simultaneous update of a step.

        Every player named descends the sum of its own terms with its own optimiser, all else stays as it is; then the
        body goes on with the moved weights. Terms are summed over dimensions and pixels, averaged over the batch, in
        nats. Terms are reported by name; a player's terms are what it descends, so weights are in them.
        """
        raise NotImplementedError

    # -- using it: eval mode, no gradient, in batches, results on the CPU ------------------------------------------

    def encode(self, x, y=None, batch_size: int = 1024) -> Code:
        """Codes of observations `x [N, *shape]` (uint8 images, or floats as in training): the posteriors' means.

        `y [N]` where s is the label. Returns `Code(s [N, d_s], z [N, d_z])` on the CPU, float32.
        Raises `InputError` on another shape or range, `UnsupportedError` where the method has no encoder.
        """
        s, z = self.posterior(x, y, batch_size)
        return Code(s.mean, z.mean)

    def posterior(self, x, y=None, batch_size: int = 1024) -> tuple[Posterior, Posterior]:
        """The distributions of s and z given each `x`: `.mean .variance .stddev .log_prob .sample`, on the CPU."""
        x = self._check(x)
        y = None if y is None else torch.as_tensor(y)
        if y is not None and len(y) != len(x):
            raise InputError(f"y: {len(y)} labels for {len(x)} observations; expected as many")
        parts = []
        for i in range(0, len(x), batch_size):
            rows = gather(x, torch.arange(i, min(i + batch_size, len(x))))
            parts.append(self._infer(rows, None if y is None else y[i : i + batch_size]))
        s, z = zip(*parts)
        return _cat(s), _cat(z)

    def accumulate(self, x, group, y=None) -> Code:
        """As `twofold.accumulate`, which calls it."""
        q_s, q_z = self.posterior(x, y)
        _, dense = in_groups(group, len(x))
        return Code(self._accumulate(q_s, torch.from_numpy(dense), int(dense.max()) + 1), q_z.mean)

    def decode(self, code, batch_size: int = 1024) -> Tensor:
        """Observations `[N, *shape]` from a `Code` (or a pair of tensors `s`, `z`); images in [0, 1], on the CPU."""
        s, z = (torch.as_tensor(half, dtype=torch.float32) for half in code)
        sizes = self.sizes
        for name, half, size in (("s", s, sizes[0]), ("z", z, sizes[1])):
            if half.ndim != 2 or half.shape[1] != size:
                raise InputError(f"code.{name}: {shown(half)}; expected [N, {size}]")
        if len(s) != len(z):
            raise InputError(f"code: {len(s)} rows of s and {len(z)} of z; expected as many")
        if len(s) == 0:
            raise InputError("code: no rows; expected at least one")
        with _using(self):
            parts = zip(s.split(batch_size), z.split(batch_size))
            out = [self._decode(a.to(self.device), b.to(self.device)) for a, b in parts]
            return torch.cat([picture(x).float().cpu() for x in out])

    def prior(self, n: int, y=None) -> Code:
        """`n` codes from the model's prior (standard normal unless said), by PyTorch's global generator, on the CPU."""
        if y is not None:
            raise self._lacks("classes to generate from; leave y out")
        return Code(*(torch.randn(n, size) for size in self.sizes))

    def reference_s(self, n: int) -> Tensor:
        """`[n, d_s]`: the value of s that stands for "nothing of what is sought": zero unless said."""
        return torch.zeros(n, self.sizes[0])

    def _posterior(self, x: Tensor, y: Tensor | None = None) -> tuple[Any, Any]:
        """Distributions of s and z for a batch on the method's device; `losses` may use it too."""
        codes = self.enc(x)
        if not isinstance(codes, tuple) or len(codes) != 2:
            raise InputError(f"encoder: gave a {type(codes).__name__}; expected (s, z)")
        return posterior(codes[0]), posterior(codes[1])

    def _accumulate(self, q_s: Posterior, group: Tensor, count: int) -> Tensor:
        """One s a group, `[count, d_s]`, from its members' posteriors: their product, or the mean of points."""
        zeros = torch.zeros(count, q_s.mean.shape[1], dtype=torch.float64)
        if isinstance(q_s, Gaussian):
            precision = (-q_s.log_var.double()).exp()
            total = zeros.index_add(0, group, precision)
            return (zeros.index_add(0, group, precision * q_s.mean) / total).float()
        return (zeros.index_add(0, group, q_s.mean.double()) / group.bincount()[:, None]).float()

    def _decode(self, s: Tensor, z: Tensor) -> Tensor | Gaussian:
        return self.dec(s, z)

    def _infer(self, x: Tensor, y: Tensor | None = None) -> tuple[Posterior, Posterior]:
        with _using(self):
            y = None if y is None else y.to(self.device)
            return tuple(_cpu(q) for q in self._posterior(x.to(self.device), y))  # pyright: ignore

    def _check(self, x):
        x = observations(x)
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"x: {shown(x)}; {self.name} was made for observations of shape {self.shape}")
        return x

    def _lacks(self, part: str) -> UnsupportedError:
        return UnsupportedError(f"{type(self).__name__} has no {part}")

    # -- keeping it --------------------------------------------------------------------------------------------------

    def save(self, path) -> None:
        """Write weights and configuration to the file `path` (safetensors, its header JSON), atomically."""
        about = {"method": type(self).__name__, "config": self.config, "facts": self._facts}
        write_tensors(path, dict(self.state_dict()), about)

    def extra_repr(self) -> str:
        return f"players={list(self.players)}"


def number(name: str, value) -> None:
    """Refuse what is no finite number of at least 0."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise InputError(f"{name}: {value!r}; expected a number of at least 0")


def restore(cls_of: dict[str, type[Method]], path, method: Method | None = None) -> Method:
    """The method saved at `path`: of a class in `cls_of` by its saved name, or into `method`, with networks given."""
    tensors, about = read_tensors(path)
    if method is None:
        name = about["method"]
        if name not in cls_of:
            raise InputError(f"{path}: holds a {name}, which is no method of twofold; pass method= to load into")
        if about["config"] is None:
            raise InputError(f"{path}: a {name} with networks of its own; pass method={name}(encoder, decoder)")
        config = dict(about["config"])
        method = cls_of[name].build(config.pop("shape"), **config)
    elif type(method).__name__ != about["method"]:
        raise InputError(f"{path}: holds a {about['method']}, not a {type(method).__name__}")
    if about["facts"]:
        with torch.random.fork_rng(devices=[]):  # what is made here is filled at once; the caller's draws stay
            method.bind(Facts(about["facts"]))
    fill(method, tensors, path)
    return method.eval()


def fill(method: Method, tensors: dict[str, Tensor], path) -> None:
    """Give `method` the weights that were read from `path`. Raises `InputError` where they don't fit."""
    try:
        method.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("optim/")})
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: does not fit this {type(method).__name__}: {why}") from None


def write_tensors(path, tensors: dict[str, Tensor], about: dict) -> None:
    """Tensors and JSON-able facts in one safetensors file, complete or not there at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    try:
        with open(part, "wb") as file:
            file.write(safetensors.torch.save(tensors, {"twofold": json.dumps(about)}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_tensors(path) -> tuple[dict[str, Tensor], dict]:
    """What `write_tensors` wrote; runs no code. A run's folder stands for its finished method, or its checkpoint."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path: {path!r}; expected a file or a run's folder")
    path = Path(path)
    if path.is_dir():
        whole, begun = path / "method.safetensors", path / "checkpoint.safetensors"
        path = begun if begun.is_file() and not whole.is_file() else whole
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected one written by save() or a run's folder")
    try:
        with safetensors.safe_open(path, "pt") as file:  # pyright: ignore[reportPrivateImportUsage]
            about = json.loads((file.metadata() or {})["twofold"])
            if not isinstance(about, dict):
                raise KeyError("twofold")
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
    except KeyError:
        raise InputError(f"{path}: a safetensors file, but not one of twofold's") from None
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
        raise InputError(f"{path}: truncated, or not a safetensors file ({error})") from None


class _using:
    """Eval mode and no gradient for a while; the caller's mode comes back."""

    def __init__(self, method: nn.Module):
        self.method, self.no_grad = method, torch.no_grad()

    def __enter__(self):
        self.modes = [(module, module.training) for module in self.method.modules()]
        self.method.eval()
        self.no_grad.__enter__()

    def __exit__(self, *error):
        self.no_grad.__exit__(*error)
        for module, training in self.modes:
            module.training = training


def _cpu(q: Posterior) -> Posterior:
    if isinstance(q, Gaussian):
        return Gaussian(q.mean.cpu(), q.log_var.cpu())
    return Point(q.mean.cpu())


def _cat(parts) -> Posterior:
    if isinstance(parts[0], Gaussian):
        return Gaussian(torch.cat([q.mean for q in parts]), torch.cat([q.log_var for q in parts]))
    return Point(torch.cat([q.mean for q in parts]))
