"""Arguments of the wrong kind, from the Python API: one line that names the argument, never a raw traceback."""

import numpy as np
import pytest
import torch
from torch import nn

import twofold
from twofold import methods
from twofold.errors import InputError

X = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
GROUP = np.arange(12) % 3


def vae(**options):
    return methods.VAE.build((6,), z=2, **options)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: vae(beta=-1), "beta of VAE: -1"),
        (lambda: vae(beta="a"), "beta of VAE: 'a'"),
        (lambda: vae(beta=float("nan")), "beta of VAE: nan"),
        (lambda: vae(seed="a"), "seed: 'a'"),
        (lambda: methods.VAE.build(8), "shape: 8"),
        (lambda: methods.VAE.build("abc"), "shape: 'abc'"),
        (lambda: methods.MLVAE.build((6,), classes="a"), "classes: 'a'"),
        (lambda: methods.Contrastive.build((6,), lambda_z=-1), "lambda_z of Contrastive: -1"),
        (lambda: twofold.fit("vae", twofold.Images(X)), "method: 'vae'"),
        (lambda: twofold.fit(vae(), twofold.Images(X), seed=1.5), "seed: 1.5"),
        (lambda: twofold.fit(vae(), twofold.Images(X), steps="3"), "steps: '3'"),
        (lambda: twofold.fit(vae(), twofold.Images(X), steps=float("nan")), "steps: nan"),
        (lambda: twofold.fit(vae(), twofold.Images(X), optim="adam"), "optim: 'adam'"),
        (lambda: twofold.fit(vae(), twofold.Images(X), device="cpu:1"), "device: cpu:1"),
        (lambda: twofold.Groups(X, GROUP, per_group=2.5), "per_group: 2.5"),
        (lambda: twofold.Images(X).draw(0, batch_size=8.0), "batch_size: 8.0"),
        (lambda: twofold.Labels(X, ["a", None] * 6).draw(0), "y: 1 class"),
        (lambda: twofold.load(3), "path: 3"),
        (lambda: twofold.load(None), "path: None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_line_that_names_the_argument(call, names):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(names) or f": {names}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_names_are_unlabelled():
    labels = twofold.Labels(X, ["a", None, "b"] * 4)
    assert labels.y.tolist() == [0, -1, 1] * 4


def test_any_ids_make_groups():
    whole = twofold.Groups(X, GROUP)
    for ids in (GROUP - 7, GROUP * 1.0, [f"p{i}" for i in GROUP]):
        assert torch.equal(twofold.Groups(X, ids).group, whole.group)
    unknown = twofold.Groups(X, np.where(GROUP == 0, -1, GROUP))
    assert unknown.groups == 2 + 4  # nothing is known of the four: a group each


class Halves(nn.Module):
    """An encoder that gives what torch gives."""

    def __init__(self, s, z, width=4):
        super().__init__()
        self.s, self.z, self.body = s, z, nn.Linear(6, width)

    def forward(self, x):
        h = self.body(x)
        return self.s(h[:, :2]), self.z(h[:, 2:])


class Join(nn.Module):
    def __init__(self, out=6):
        super().__init__()
        self.body = nn.Linear(4, out)

    def forward(self, s, z):
        return self.body(torch.cat([s, z], 1))


def normal(h):
    return torch.distributions.Normal(h, torch.ones_like(h))


def independent(h):
    return torch.distributions.Independent(normal(h), 1)


@pytest.mark.parametrize("s", [normal, independent])
def test_encoders_may_give_the_distributions_of_torch(s):
    method = methods.MLVAE(Halves(s, normal), Join())
    run = twofold.fit(method, twofold.Groups(X, GROUP), steps=3, batch_size=12, progress=False)
    assert np.isfinite(run.metrics[-1]["model/rec"])
    assert method.encode(X).s.shape == (12, 2)


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (Halves(lambda h: h, normal), Join(), "encoder: its s is a point"),
        (Halves(normal, lambda h: h), Join(), "encoder: its z is a point"),
        (Halves(normal, lambda h: "z"), Join(), "encoder: gave a str"),
        (Halves(lambda h: normal(h[:, :0]), normal), Join(), "encoder: its s has no dimensions"),
        (Halves(normal, normal), Join(5), "decoder: gave"),
        (nn.Linear(6, 4), Join(), "encoder: gave a Tensor; expected"),
        (nn.Linear(5, 4), Join(), "encoder, decoder: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_networks_of_ones_own_are_tried_first(encoder, decoder, message):
    with pytest.raises(InputError, match=f"^{message}"):
        methods.MLVAE(encoder, decoder).bind(twofold.Groups(X, GROUP))
