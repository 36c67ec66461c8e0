"""The class-conditional VAE, and what it shares with the other methods whose s is the label itself."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold import arrays, networks
from twofold.distributions import Gaussian, Likelihood, Point, posterior
from twofold.errors import InputError
from twofold.method import Code, Method
from twofold.supervision import Labels


class Conditional(Method):
    """s is the one-hot label `[N, classes]`: told, never inferred. z is all the rest.

    The data say how many classes there are, unless `build(classes=...)` did; the data may then hold fewer.
    """

    supervision = Labels
    needs = "y"

    @property
    def classes(self) -> int:
        known = (self.config or {}).get("classes") or (self._facts or {}).get("classes")
        if known is None:
            raise InputError("classes: not known yet; fit or bind learns them from the data, or build(classes=...)")
        return known

    @property
    def sizes(self):
        if not hasattr(self, "_z"):
            self._z = self._infer(torch.zeros(2, *self.shape), torch.arange(2))[1].mean.shape[-1]
        return self.classes, self._z

    def bind(self, supervision):
        facts, asked = supervision.facts(), (self.config or {}).get("classes")
        who, missing = type(self).__name__, facts["n"] - facts["labelled"]
        if missing:
            raise InputError(f"y: {missing} of {facts['n']} labels are not known (-1); {who} needs all, drop the rows")
        if asked is not None and facts["classes"] > asked:
            raise InputError(f"classes: {facts['classes']} in the data; {self.name} was built for {asked}")
        known = (self._facts or {}).get("classes", 0)
        super().bind(supervision)
        assert self._facts is not None
        self._facts["classes"] = max(known, facts["classes"])  # what was learned of others stays
        self._grow(self.classes)

    def _grow(self, classes: int) -> None:
        """Makes what depends on the number of classes; keeps what fits."""
        for net in self.children():
            if hasattr(net, "grow"):
                net.grow(classes)  # pyright: ignore[reportCallIssue]

    def _try(self):
        y = torch.arange(2)
        try:
            self._grow(self.classes)
            if hasattr(self, "enc") and not isinstance(self._infer(torch.zeros(2, *self.shape), y)[1], Gaussian):
                raise InputError("encoder: its z is a point; expected a Gaussian")
            x = self.decode(Code(self._one_hot(y), torch.zeros(2, self.sizes[1])))
        except RuntimeError as error:
            what = f"input {(2, *self.shape)} with s [2, {self.classes}]"
            raise InputError(f"networks: {str(error).splitlines()[0]}, on {what}") from None
        if x.shape[1:] != self.shape:
            raise InputError(f"decoder: gave {tuple(x.shape)} for observations of shape {self.shape}")

    def prior(self, n, y=None):
        if y is None:
            raise InputError(f"y: None; {type(self).__name__} generates from a class, give y")
        y = torch.as_tensor(y)
        s = self._one_hot(self._labels(y.expand(n) if y.ndim == 0 else y, n))
        return Code(s, torch.randn(n, self.sizes[1]))

    def reference_s(self, n):
        """All classes evenly: no more of one than of another."""
        return torch.full((n, self.classes), 1 / self.classes)

    def _posterior(self, x, y=None):
        if y is None:
            raise InputError(f"y: None; {type(self).__name__} encodes with labels, give y, one an observation")
        s = self._one_hot(self._labels(y, len(x)).to(x.device))
        return Point(s), self._q(x, s)

    def _q(self, x: Tensor, s: Tensor) -> Any:
        """q(z|x, y), a Gaussian."""
        return posterior(self.enc(x, s))

    def _labels(self, y: Tensor, n: int) -> Tensor:
        """`y [n]`, refused where it holds no class of ours."""
        y = arrays.classes(y, n)
        if int(y.max()) >= self.classes:
            raise InputError(f"y: {int(y.max())} is out of range; there are classes 0..{self.classes - 1}")
        return y

    def _one_hot(self, y: Tensor) -> Tensor:
        return F.one_hot(y, self.classes).float()


class ConditionalVAE(Conditional):
    """VAE whose encoder and decoder are told the label [Sohn et al. 2015; the cVAE of Zheng19, Sec. 4.2].

    -log p(x|y) <= E_q(z|x,y) -log p(x|y,z) + KL(q(z|x,y) || N(0, I)): as Kingma et al. 2014 (their M2) where all labels
    are known, and as Sohn et al. with the prior of z made independent of what it is conditioned on. `beta` weights the
    KL; `likelihood` and `scale` as in `distributions.Likelihood`.

    Networks of your own: `encoder(x, s) -> z` (Gaussian), `decoder(s, z) -> x`, s one-hot `[N, classes]`.
    """

    name = "conditional-vae"

    def __init__(
        self,
        encoder,
        decoder,
        *,
        beta: float = 1.0,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder)
        self.beta, self.nll = beta, Likelihood(likelihood, scale)

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        return networks.labelled(arch, shape, z, classes)

    def losses(self, draw):
        s = self._one_hot(draw.y)
        q_z = self._q(draw.x, s)
        nll = self.nll(self.dec(s, q_z.sample()), draw.x)
        yield {"model": {"rec": nll.mean(), "kl_z": self.beta * q_z.kl().mean()}}
