"""Discriminators and the losses of their games."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from twofold import discriminators
from twofold.divergences import gan_fake, gan_generator, gan_real
from twofold.errors import InputError


@pytest.mark.parametrize("arch", ["auto", "mathieu16", "conv", "mlp"])
@pytest.mark.parametrize("condition", [None, "projection", "embedding"])
@pytest.mark.parametrize("spectral", [False, True])
def test_logits(arch, condition, spectral):
    torch.manual_seed(0)
    net = discriminators.build(arch, (3, 20, 17), condition, spectral)
    net.grow(5)
    x, y = torch.rand(4, 3, 20, 17), torch.tensor([0, 4, -1, 2])
    net.eval()
    with torch.no_grad():
        plain, told = net(x), net(x, y)
    assert plain.shape == told.shape == (4,)
    differs = (plain - told).abs() > 1e-7
    assert differs.tolist() == ([False] * 4 if condition is None else [True, True, False, True])


def test_projection_is_an_inner_product():
    net = discriminators.build("zheng19-toy", (2,), "projection")
    net.grow(3)
    x, y = torch.randn(5, 2), torch.tensor([0, 1, 2, -1, 0])
    features = net.trunk(x)
    for i in range(5):
        expected = (net.linear.weight[0] @ features[i] + net.linear.bias[0]).item()
        if y[i] >= 0:
            expected += sum(a * b for a, b in zip(net.embed[0].weight[y[i]].tolist(), features[i].tolist()))
        assert net(x, y)[i].item() == pytest.approx(expected, abs=1e-5)


def test_embeddings_join_the_first_three_layers():
    """Mathieu16, supplement: the label goes through three tables, added at the first three layers."""
    net = discriminators.build("mathieu16", (1, 16, 16), "embedding").eval()
    net.grow(3)
    assert [table.embedding_dim for table in net.embed] == [64, 128, 256]
    x, y = torch.randn(2, 1, 16, 16), torch.tensor([2, 0])
    conv, norm = (torch.nn.Conv2d, torch.nn.BatchNorm2d)
    h, level = x, 0
    for layer in net.trunk:
        h = layer(h)
        if isinstance(layer, conv):
            h = torch.stack([h[i] + net.embed[level].weight[y[i]][:, None, None] for i in range(2)])
            level += 1
        assert not isinstance(layer, norm) or level
    assert torch.allclose(net.linear(h)[:, 0], net(x, y), atol=1e-5)


def test_grow_keeps_what_fits():
    net = discriminators.build("mlp", (6,), "projection")
    with pytest.raises(InputError, match="knows no classes yet"):
        net(torch.zeros(1, 6), torch.zeros(1, dtype=torch.long))
    net.grow(3)
    before = net.embed[0]
    net.grow(3)
    assert net.embed[0] is before
    net.grow(4)
    assert net.embed[0].num_embeddings == 4
    assert torch.equal(net.embed[0].weight[:3], before.weight)


def test_grow_keeps_what_was_learned_under_spectral_norm():
    net = discriminators.build("mlp", (6,), "embedding", spectral=True)
    net.grow(3)
    before = [table.parametrizations.weight.original.clone() for table in net.embed]
    net.grow(5)
    for table, old in zip(net.embed, before, strict=True):
        assert torch.equal(table.parametrizations.weight.original[:3], old)


def test_spectral_norm_bounds_every_layer():
    net = discriminators.build("mlp", (6,), "projection", spectral=True)
    net.grow(3)
    for _ in range(30):
        net(torch.randn(4, 6), torch.zeros(4, dtype=torch.long))
    for layer in [m for m in net.modules() if hasattr(m, "parametrizations")]:
        assert np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)[0] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("logit", [-3.0, -0.4, 0.0, 2.5])
def test_games(logit):
    D, t = 1 / (1 + math.exp(-logit)), torch.tensor([logit])
    assert gan_real(t).item() == pytest.approx(-math.log(D), rel=1e-5)
    assert gan_fake(t).item() == pytest.approx(-math.log(1 - D), rel=1e-5)
    assert gan_generator(t).item() == pytest.approx(-math.log(D), rel=1e-5)
    assert gan_real(t, "hinge").item() == pytest.approx(max(0, 1 - logit))
    assert gan_fake(t, "hinge").item() == pytest.approx(max(0, 1 + logit))
    assert gan_generator(t, "hinge").item() == pytest.approx(-logit)


def test_refusals():
    with pytest.raises(InputError, match=r"^arch: conv needs images"):
        discriminators.build("conv", (6,))
    with pytest.raises(InputError, match="condition"):
        discriminators.build("mlp", (6,), "projections")
