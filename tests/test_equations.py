"""Every equation that the methods, the distributions and the divergences cite, against a slow float64 reference.

The references are written from the papers, with loops, numerical integration, SciPy and torch.distributions; a test
names the equations that it covers by `@equation(paper, *numbers)`, and the last test compares with what is cited.
Larger methods have a file of their own, tests/test_METHOD.py.
"""

from __future__ import annotations

import math
import re
from itertools import product as pairs_of
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from scipy.integrate import trapezoid
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import twofold
from citing import covered, equation
from twofold.distributions import Gaussian, Likelihood, Mixture, Point
from twofold.divergences import audible, gathered, group_dependence, group_distance, group_leak, wasserstein2
from twofold.errors import InputError
from twofold.method import Facts
from twofold.methods import MLVAE, VAE, Contrastive


def random_gaussian(*shape, seed=0, spread=1.0) -> Gaussian:
    random = torch.Generator().manual_seed(seed)
    mean, log_var = torch.randn(2, *shape, generator=random, dtype=torch.float64)
    return Gaussian(mean, spread * log_var)


def normal(mean, log_var) -> Independent:
    return Independent(Normal(mean, torch.exp(0.5 * log_var)), 1)


# -- products and mixtures of normals ----------------------------------------------------------------------------------

MASKS = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 1, 0]])  # whole, part, a single member


@equation("Bouchacourt18", "6", "7")
@pytest.mark.parametrize("mask", MASKS, ids=["whole", "part", "single"])
def test_product_of_normals_is_the_renormalised_product_of_densities(mask):
    each = random_gaussian(1, 5, 2)
    found = each.product(dim=1, mask=mask[None])
    grid = np.linspace(-30, 30, 60_001)
    for d in range(2):
        log = np.zeros_like(grid)
        for i in range(5):
            if mask[i]:
                log += scipy.stats.norm.logpdf(grid, each.mean[0, i, d], each.stddev[0, i, d])
        density = np.exp(log - log.max())
        density /= trapezoid(density, grid)
        mean = trapezoid(grid * density, grid)
        assert found.mean[0, d].item() == pytest.approx(mean, abs=1e-9)
        assert found.variance[0, d].item() == pytest.approx(trapezoid((grid - mean) ** 2 * density, grid), rel=1e-8)
        one = Gaussian(found.mean[0, d : d + 1], found.log_var[0, d : d + 1])
        assert np.allclose(one.log_prob(torch.from_numpy(grid)[:, None]).exp().numpy(), density, atol=1e-9)
    if mask.sum() == 1:
        assert torch.allclose(found.mean, each.mean[:, 3])
        assert torch.allclose(found.variance, each.variance[:, 3])
    assert torch.allclose(each.product(dim=1).mean, each.product(1, torch.ones(1, 5)).mean)


@equation("Bouchacourt18", "7")
@pytest.mark.parametrize("low_high", [(-1, 1), (-87, -80), (80, 87), (-87, 87)], ids=str)
@pytest.mark.parametrize("members", [1, 2, 1000])
def test_product_of_normals_in_float32_at_any_scale(members, low_high):
    """1,000 members whose precisions' sum overflows float32, or vanishes."""
    random = np.random.default_rng(members)
    mean, log_var = random.normal(size=(3, members, 4)), random.uniform(*low_high, (3, members, 4))
    mask = (random.random((3, members)) < 0.7).astype(np.float32)
    mask[:, 0] = 1
    found = Gaussian(torch.tensor(mean).float(), torch.tensor(log_var).float()).product(1, torch.from_numpy(mask))
    mean, log_var = mean.astype(np.float32), log_var.astype(np.float32)  # as stored
    precision = np.exp(-log_var.astype(np.longdouble)) * mask[:, :, None]
    total = precision.sum(1)
    assert np.allclose(found.log_var.numpy(), -np.log(total).astype(float), atol=1e-4)
    assert np.allclose(found.mean.numpy(), ((precision * mean).sum(1) / total).astype(float), rtol=1e-4, atol=1e-5)


@equation("Bouchacourt18", "7")
def test_gradients_reach_every_member_of_a_product_and_no_absentee():
    each, mask = random_gaussian(3, 5, 2), MASKS
    mean, log_var = (v.clone().requires_grad_() for v in (each.mean, each.log_var))
    found = Gaussian(mean, log_var).product(1, mask)
    weights = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad((weights[0] * found.mean + weights[1] * found.log_var).sum(), (mean, log_var))
    total = 0
    for g in range(3):
        precision = sum(1 / log_var[g, i].exp() for i in range(5) if mask[g, i])
        mean_g = sum(mean[g, i] / log_var[g, i].exp() for i in range(5) if mask[g, i]) / precision
        total = total + (weights[0, g] * mean_g - weights[1, g] * precision.log()).sum()
    for ours, theirs in zip(grads, torch.autograd.grad(total, (mean, log_var))):
        assert torch.allclose(ours, theirs, rtol=1e-9)
        assert ((ours != 0).all(-1) == (mask == 1)).all()


@equation("Zheng19", "3")
def test_kl_to_a_normal_prior():
    q, p = random_gaussian(4, 3), random_gaussian(4, 3, seed=1)
    to_standard = kl_divergence(normal(q.mean, q.log_var), normal(torch.zeros(4, 3), torch.zeros(4, 3)))
    assert torch.allclose(q.kl(), to_standard, rtol=1e-12)
    assert torch.allclose(q.kl(p), kl_divergence(normal(q.mean, q.log_var), normal(p.mean, p.log_var)), rtol=1e-12)
    assert torch.allclose(q.kl(q), torch.zeros(4, dtype=torch.float64))
    torch.manual_seed(0)
    x = q.sample((200_000,))
    difference = q.log_prob(x) - normal(torch.zeros(4, 3), torch.zeros(4, 3)).log_prob(x)
    assert ((difference.mean(0) - q.kl()).abs() < 5 * difference.std(0) / 200_000**0.5).all()


def test_gaussian_samples_and_log_prob():
    q = random_gaussian(3, 2)
    torch.manual_seed(0)
    x = q.sample((100_000,))
    assert torch.allclose(x.mean(0), q.mean, atol=0.03)
    assert torch.allclose(x.var(0), q.variance, rtol=0.03)
    full = MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    assert torch.allclose(q.log_prob(x[:9]), full.log_prob(x[:9]), rtol=1e-10)
    mean, log_var = (v.clone().requires_grad_() for v in (q.mean, q.log_var))
    torch.manual_seed(1)
    sample = Gaussian(mean, log_var).sample()
    eps = ((sample - mean) / (0.5 * log_var).exp()).detach()
    sample.sum().backward()
    assert torch.allclose(mean.grad, torch.ones_like(mean))
    assert torch.allclose(log_var.grad, 0.5 * (0.5 * q.log_var).exp() * eps)


def test_sixteen_bits_are_widened():
    q = Gaussian(torch.ones(2, 3, dtype=torch.bfloat16), torch.zeros(2, 3, dtype=torch.bfloat16))
    assert q.mean.dtype == q.kl().dtype == torch.float32
    assert Point(torch.ones(2, 3, dtype=torch.bfloat16)).sample().dtype == torch.float32


@equation("Bouchacourt18", "supplement 1")
def test_mixture_density():
    each, mask = random_gaussian(3, 5, 1), MASKS.double()
    found = Mixture(each, mask)
    moments = torch.cat([each.mean, each.stddev], -1).numpy()
    grid = np.linspace(-30, 30, 20_001)
    log = found.log_prob(torch.from_numpy(grid)[:, None, None].expand(-1, 3, 1))
    for g in range(3):
        members = [i for i in range(5) if mask[g, i]]
        density = sum(scipy.stats.norm.pdf(grid, *moments[g, i]) for i in members) / len(members)
        assert np.allclose(log[:, g].exp().numpy(), density, atol=1e-12)
        mean = trapezoid(grid * density, grid)
        assert found.mean[g, 0].item() == pytest.approx(mean, abs=1e-9)
        assert found.variance[g, 0].item() == pytest.approx(trapezoid((grid - mean) ** 2 * density, grid), rel=1e-8)


@equation("Bouchacourt18", "supplement 1")
def test_mixture_samples():
    found = Mixture(random_gaussian(3, 5, 2), MASKS.double())
    torch.manual_seed(0)
    x = found.sample((100_000,))
    assert x.shape == (100_000, 3, 2)
    assert torch.allclose(x.mean(0), found.mean, atol=0.03)
    assert torch.allclose(x.var(0), found.variance, rtol=0.03)
    assert found.sample().shape == (3, 2)
    assert found.sample((2, 4)).shape == (2, 4, 3, 2)


def test_mixture_variance_far_from_zero():
    """In float32 the second moment minus the squared mean would be nothing but rounding."""
    found = Mixture(Gaussian(torch.full((1, 3, 2), 1e3), torch.full((1, 3, 2), math.log(1e-4))), torch.ones(1, 3))
    assert torch.allclose(found.variance, torch.tensor(1e-4), rtol=1e-3)
    assert found.stddev.isfinite().all()


@equation("Bouchacourt18", "supplement 2", "supplement 3")
def test_mixture_kl_estimate():
    each, mask = random_gaussian(3, 5, 1), MASKS.double()
    found = Mixture(each, mask)
    torch.manual_seed(0)
    samples = found.sample((5,))
    estimate = found.kl(samples, mask.T)
    for g in range(3):
        members = [i for i in range(5) if mask[g, i]]
        total = 0.0
        for l in members:  # L = |G|
            c = samples[l, g, 0].item()
            density = sum(scipy.stats.norm.pdf(c, each.mean[g, i, 0], each.stddev[g, i, 0]) for i in members)
            total += math.log(density / len(members)) - scipy.stats.norm.logpdf(c)
        assert estimate[g].item() == pytest.approx(total / len(members), rel=1e-10)
    many = found.sample((40_000,))  # and with many samples it is the divergence, Eq. 2
    estimate = found.kl(many, torch.ones(40_000, 3, dtype=torch.float64))
    grid = torch.linspace(-30, 30, 20_001, dtype=torch.float64)
    log = found.log_prob(grid[:, None, None].expand(-1, 3, 1))
    for g in range(3):
        integrand = log[:, g].exp() * (log[:, g] + 0.5 * grid**2 + 0.5 * math.log(2 * math.pi))
        assert estimate[g].item() == pytest.approx(trapezoid(integrand.numpy(), grid.numpy()), abs=0.03)


# -- likelihoods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)], ids=str)
def test_likelihoods(shape):
    """Summed over pixels, in nats, one value an observation."""
    random = np.random.default_rng(0)
    x, mean = random.random((2, 5, *shape))
    scale = random.uniform(0.1, 0.9, (5, *shape))

    def summed(log):
        return -log.reshape(5, -1).sum(1)

    X, M = torch.from_numpy(x), torch.from_numpy(mean)
    expected = {
        "gaussian": summed(scipy.stats.norm.logpdf(x, mean, 0.2)),
        "laplace": summed(scipy.stats.laplace.logpdf(x, mean, 0.2)),
        "bernoulli": summed(x * np.log(mean) + (1 - x) * np.log(1 - mean)),
    }
    for kind, nll in expected.items():
        assert np.allclose(Likelihood(kind, 0.2)(M, X).numpy(), nll, rtol=1e-9), kind
    own = Gaussian(M, 2 * torch.from_numpy(np.log(scale)))
    assert np.allclose(Likelihood("gaussian", None)(own, X).numpy(), summed(scipy.stats.norm.logpdf(x, mean, scale)))
    best = Likelihood("gaussian", None)(M, X)
    assert np.allclose(best.numpy(), summed(scipy.stats.norm.logpdf(x, mean, np.sqrt(((x - mean) ** 2).mean()))))
    assert best.mean() <= min(Likelihood("gaussian", s)(M, X).mean() for s in np.linspace(0.05, 2, 100).tolist())


def test_optimal_scale_has_the_gradient_of_the_logarithm():
    """The gradient at the best scale is that of the Gaussian at this scale, held fixed (it is stationary there)."""
    x, mean = torch.rand(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean.requires_grad_()
    ours = torch.autograd.grad(Likelihood("gaussian", None)(mean, x).mean(), mean)[0]
    scale = (mean - x).square().mean().sqrt().item()
    assert torch.allclose(ours, torch.autograd.grad(Likelihood("gaussian", scale)(mean, x).mean(), mean)[0], rtol=1e-9)
    assert Likelihood("gaussian", None)(x, x).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "scale", "message"),
    [("gauss", 1.0, "likelihood: 'gauss'"), ("gaussian", 0.0, "scale: 0"), ("laplace", None, "scale: None")],
)
def test_likelihoods_refuse(kind, scale, message):
    with pytest.raises(InputError, match=message):
        Likelihood(kind, scale)


# -- the objectives, whole ---------------------------------------------------------------------------------------------


def double(method):
    return method.double().train()


def compare(method, loss, reference):
    """Equal values and equal gradients at every parameter."""
    parameters = [p for p in method.parameters() if p.numel()]
    assert loss.item() == pytest.approx(reference.item(), rel=1e-10)
    for ours, theirs in zip(*(torch.autograd.grad(value, parameters) for value in (loss, reference))):
        assert ours.abs().sum() > 0
        assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-9)


@equation("Mathieu16", "1")
def test_vae_objective(noise):
    method = double(VAE.build((6,), z=3, scale=0.4, beta=1.5))
    x = torch.rand(5, 6, dtype=torch.float64)
    (update,) = method.losses(SimpleNamespace(x=x))
    q_z, eps, reference = method.enc(x)[1], noise[torch.Size([5, 3])], 0
    for i in range(5):
        mean, log_var = q_z.mean[i], q_z.log_var[i]
        z = mean + (0.5 * log_var).exp() * eps[i]
        decoded = method.dec(torch.empty(1, 0, dtype=torch.float64), z[None])[0]
        reference = reference - Normal(decoded, 0.4).log_prob(x[i]).sum()
        reference = reference + 1.5 * kl_divergence(normal(mean, log_var), normal(0 * mean, 0 * mean))
    compare(method, sum(update["model"].values()), reference / 5)


@pytest.fixture
def groups():
    """Four chunks of up to three, as doubles: two members, three, one, three."""
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1]], dtype=torch.float64)
    x = torch.rand(4, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    group = torch.tensor([3, 1, 0, 1])
    of = group[:, None, None].expand(4, 3, 1)
    return SimpleNamespace(x=x, mask=mask, group=group, groups=of, index=torch.arange(12).view(4, 3))


@equation("Bouchacourt18", "3", "5", "6", "7", "Algorithm 1")
def test_group_elbo_with_a_product(groups, noise):
    method = double(MLVAE.build((6,), s=2, z=4, scale=0.4, leakage=0.0))
    (update,) = method.losses(groups)
    q_C, q_S = (q.unflatten((4, 3)) for q in method.enc(groups.x.flatten(0, 1)))
    eps_C, eps_S = noise[torch.Size([3, 4, 2])], noise[torch.Size([12, 4])].view(4, 3, 4)
    average = 0
    for g in range(4):
        members = [i for i in range(3) if groups.mask[g, i]]
        precision = sum(1 / q_C.log_var[g, i].exp() for i in members)
        mean = sum(q_C.mean[g, i] / q_C.log_var[g, i].exp() for i in members) / precision
        elbo = -kl_divergence(normal(mean, -precision.log()), normal(0 * mean, 0 * mean))  # once a group
        for i in members:
            c = mean + precision.rsqrt() * eps_C[i, g]  # a c_{G,i} for each X_i
            S_mean, S_log_var = q_S.mean[g, i], q_S.log_var[g, i]
            s = S_mean + (0.5 * S_log_var).exp() * eps_S[g, i]
            elbo = elbo + Normal(method.dec(c[None], s[None])[0], 0.4).log_prob(groups.x[g, i]).sum()
            elbo = elbo - kl_divergence(normal(S_mean, S_log_var), normal(0 * S_mean, 0 * S_mean))
        average = average + elbo / 4
    compare(method, sum(update["model"].values()), -average)


@equation("Bouchacourt18", "3", "5", "supplement 1", "supplement 2", "supplement 3")
def test_group_elbo_with_a_mixture(groups, noise):
    method = double(MLVAE.build((6,), s=2, z=5, scale=0.4, leakage=0.0, evidence="mixture"))
    (update,) = method.losses(groups)
    q_C, q_S = (q.unflatten((4, 3)) for q in method.enc(groups.x.flatten(0, 1)))
    eps_C, eps_S = noise[torch.Size([4, 3, 2])], noise[torch.Size([12, 5])].view(4, 3, 5)
    chosen = noise[torch.Size([4, 3])]
    average = 0
    for g in range(4):
        members = [i for i in range(3) if groups.mask[g, i]]
        elbo = 0
        for i in members:
            assert chosen[g, i] in members
            c = q_C.mean[g, chosen[g, i]] + (0.5 * q_C.log_var[g, chosen[g, i]]).exp() * eps_C[g, i]
            density = sum(normal(q_C.mean[g, j], q_C.log_var[g, j]).log_prob(c).exp() for j in members) / len(members)
            elbo = elbo - (density.log() - normal(0 * c, 0 * c).log_prob(c)) / len(members)  # L = |G|
            S_mean, S_log_var = q_S.mean[g, i], q_S.log_var[g, i]
            s = S_mean + (0.5 * S_log_var).exp() * eps_S[g, i]
            elbo = elbo + Normal(method.dec(c[None], s[None])[0], 0.4).log_prob(groups.x[g, i]).sum()
            elbo = elbo - kl_divergence(normal(S_mean, S_log_var), normal(0 * S_mean, 0 * S_mean))
        average = average + elbo / 4
    compare(method, sum(update["model"].values()), -average)


@pytest.mark.parametrize("evidence", ["product", "mixture"])
@pytest.mark.parametrize("scale", [0.4, None])
def test_padding_has_no_say(groups, evidence, scale):
    method = MLVAE.build((6,), s=2, z=4, scale=scale, evidence=evidence, leakage=0.7)
    method.bind(Facts(shape=[6], groups=4, per_group=3))
    double(method)
    found = []
    for pad in (0.0, 1.0):
        x = torch.where(groups.mask[..., None] == 1, groups.x, pad)
        torch.manual_seed(0)
        adversary, model = method.losses(SimpleNamespace(**{**vars(groups), "x": x}))
        found.append({term: value.item() for term, value in (adversary["adversary"] | model["model"]).items()})
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def contrastive_reference(method, draw, noise, with_w2):
    """Contrast21 Eq. 3 with beta on the KLs, plus Eq. 7's quadratic form, plus Eq. 8's term."""
    B, beta, lambda_s, lambda_z = 5, 2.0, 30.0, 3.0
    (s_x, z_x), (s_y, z_y) = method.enc(draw.target), method.enc(draw.background)
    eps_x, eps_y, eps_s = noise
    Z_x = torch.stack([z_x.mean[i] + (0.5 * z_x.log_var[i]).exp() * eps_x[i] for i in range(B)])
    Z_y = torch.stack([z_y.mean[i] + (0.5 * z_y.log_var[i]).exp() * eps_y[i] for i in range(B)])
    total = 0
    for i in range(B):
        s = s_x.mean[i] + (0.5 * s_x.log_var[i]).exp() * eps_s[i]
        total = total - Normal(method.dec(s[None], Z_x[i : i + 1])[0], 0.4).log_prob(draw.target[i]).sum()
        nothing = torch.zeros(1, 2, dtype=torch.float64)
        total = total - Normal(method.dec(nothing, Z_y[i : i + 1])[0], 0.4).log_prob(draw.background[i]).sum()
        for q in (s_x, z_x, z_y):
            prior = normal(torch.zeros_like(q.mean[i]), torch.zeros_like(q.mean[i]))
            total = total + beta * kl_divergence(normal(q.mean[i], q.log_var[i]), prior)
        total = total + lambda_s * (s_y.mean[i].square().sum() + s_y.log_var[i].exp().sum())  # sigma: a std
    total = total / B
    if with_w2:
        cost = torch.stack([torch.stack([(a - b).square().sum() for b in Z_y]) for a in Z_x])
        rows, columns = scipy.optimize.linear_sum_assignment(cost.detach().numpy())
        total = total + lambda_z * sum(cost[i, j] for i, j in zip(rows, columns)) / B
    return total


@equation("Contrast21", "3", "7", "8", "9")
@pytest.mark.parametrize("lambda_z", [0.0, 3.0], ids=["Eq. 7", "Eq. 8"])
def test_contrastive_objective(lambda_z, monkeypatch):
    drawn, original = [], torch.randn
    monkeypatch.setattr(torch, "randn", lambda *a, **k: drawn.append(original(*a, **k)) or drawn[-1])
    method = double(
        Contrastive.build((6,), s=2, z=4, scale=0.4, beta=2.0, lambda_s=30.0, lambda_z=lambda_z, leakage=0.0)
    )
    random = torch.Generator().manual_seed(0)
    target, background = torch.rand(2, 5, 6, dtype=torch.float64, generator=random)
    torch.manual_seed(0)
    draw = SimpleNamespace(target=target, background=background)
    (update,) = method.losses(draw)
    by_width = sorted(drawn, key=lambda eps: eps.shape[1] == 2)  # z of the target, z of the background, s
    loss, reference = sum(update["model"].values()), contrastive_reference(method, draw, by_width, lambda_z > 0)
    if lambda_z == 0:
        assert "w2" not in update["model"]
        compare(method, loss, reference)
    else:  # the transport is computed in float32
        assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
        parameters = list(method.parameters())
        for ours, theirs in zip(*(torch.autograd.grad(value, parameters) for value in (loss, reference))):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_contrastive_price_of_the_leak_knows_a_control_that_stands_twice():
    """Two controls fill a batch of eight: that they lie upon each other tells nothing of z."""
    method = double(Contrastive.build((6,), s=2, z=4, lambda_z=0.0, leakage=3.0))
    random = torch.Generator().manual_seed(0)
    target, controls = (torch.rand(n, 6, dtype=torch.float64, generator=random) for n in (8, 2))
    background = controls[[0, 1, 0, 1, 1, 0, 0, 1]]
    x = torch.cat([target, background])
    row = torch.tensor([next(i for i in range(16) if torch.equal(x[i], x[j])) for j in range(16)])
    z, group = method.enc(x)[1], torch.tensor([1] * 8 + [0] * 8)
    told, blind = group_dependence(z.mean, group, row=row), group_dependence(z.mean, group)
    (update,) = method.losses(SimpleNamespace(target=target, background=background))
    share, kl = heard(z.mean.tolist(), z.variance.tolist()), z.kl().mean().item()
    assert 0 < share < 1  # as built
    assert update["model"]["leakage"].item() == pytest.approx(3 * share * kl * max(0, told.item()), rel=1e-5)
    assert blind > told + 0.5


def heard(mean, variance) -> float:
    """A hundred times the means' variance over the noise's, dimensions added up; at most 1."""
    columns = list(zip(*mean))
    centres = [sum(column) / len(column) for column in columns]
    spread = sum(sum((v - c) ** 2 for v in column) / len(column) for column, c in zip(columns, centres))
    noise = sum(sum(row) for row in variance) / len(variance)
    return min(1.0, 100 * spread / noise)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.03, 0.2, 1.0])
def test_what_of_z_is_heard(scale):
    random = torch.Generator().manual_seed(0)
    mean = 3 + scale * torch.randn(20, 4, dtype=torch.float64, generator=random)  # an offset is not heard
    variance = 0.2 + torch.rand(20, 4, dtype=torch.float64, generator=random)
    mean.requires_grad_()
    found = audible(mean, variance)
    assert found.item() == pytest.approx(heard(mean.tolist(), variance.tolist()), abs=1e-12)
    assert not found.requires_grad
    assert (found.item() == 1) == (scale >= 0.2)


def test_the_price_of_the_leak_leaves_a_silent_z_alone():
    """The price's gradient vanishes with z, that of the measure alone grows."""
    random = torch.Generator().manual_seed(0)
    group = torch.arange(16) % 2
    shape = torch.randn(16, 4, dtype=torch.float64, generator=random) + group[:, None]

    def gradients(scale: float) -> list[float]:
        mean = (scale * shape).requires_grad_()
        told = group_dependence(mean, group)
        prices = (told, audible(mean, torch.ones_like(mean)) * told)
        return [torch.autograd.grad(p, mean, retain_graph=True)[0].norm().item() for p in prices]

    (measure, price), (measure_silent, price_silent) = gradients(0.05), gradients(0.005)
    assert measure_silent > 5 * measure
    assert price_silent < price / 5


def test_a_z_without_dimensions_has_no_price():
    z, group = torch.zeros(8, 0, requires_grad=True), torch.arange(8) % 2
    for price in (group_dependence, group_distance, group_leak):
        assert price(z, group) == 0
    method = Contrastive.build((6,), s=2, z=0)
    (update,) = method.losses(SimpleNamespace(target=torch.rand(5, 6), background=torch.rand(5, 6)))
    assert update["model"]["leakage"] == update["model"]["w2"] == 0
    gradients = torch.autograd.grad(sum(update["model"].values()), list(method.parameters()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)


def test_contrastive_has_no_merit_in_pushing_a_set_apart():
    method = double(Contrastive.build((6,), s=2, z=4, lambda_z=0.0, leakage=3.0))
    x = torch.eye(6, dtype=torch.float64)  # each set's rows lie at the other's, and far from their own
    draw = SimpleNamespace(target=x, background=x + 1e-3)
    z = torch.cat([method.enc(part)[1].mean for part in (draw.target, draw.background)])
    assert group_dependence(z, torch.tensor([1] * 6 + [0] * 6)) < 0
    (update,) = method.losses(draw)
    assert update["model"]["leakage"] == 0


# -- distances between batches -----------------------------------------------------------------------------------------


def transport(a: np.ndarray, b: np.ndarray) -> float:
    """The linear programme of Contrast21, Eq. 9, by SciPy's solver."""
    n, m = len(a), len(b)
    cost = [sum((a[i] - b[j]) ** 2) for i, j in pairs_of(range(n), range(m))]
    marginals = np.zeros((n + m, n * m))
    for k, (i, j) in enumerate(pairs_of(range(n), range(m))):
        marginals[i, k] = marginals[n + j, k] = 1
    return scipy.optimize.linprog(cost, A_eq=marginals, b_eq=[1 / n] * n + [1 / m] * m).fun


@equation("Contrast21", "9")
@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 7), (1, 5), (8, 3)])
def test_wasserstein(n, m):
    random = np.random.default_rng(n)
    a, b = random.normal(size=(n, 3)), 0.5 + random.normal(size=(m, 3))
    found = wasserstein2(torch.from_numpy(a), torch.from_numpy(b)).item()
    assert found == pytest.approx(transport(a, b), rel=1e-5)
    if n == m:
        cost = ((a[:, None] - b[None]) ** 2).sum(-1)
        rows, columns = scipy.optimize.linear_sum_assignment(cost)
        assert found == pytest.approx(cost[rows, columns].mean(), rel=1e-5)


@equation("Contrast21", "9")
@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 7)])
def test_wasserstein_has_the_envelope_gradient(n, m):
    random = np.random.default_rng(n)
    a, b = random.normal(size=(n, 2)), 0.5 + random.normal(size=(m, 2))
    A, B = (torch.from_numpy(v).requires_grad_() for v in (a, b))
    grads = torch.autograd.grad(wasserstein2(A, B), (A, B))
    for which, grad in enumerate(grads):
        for i, d in np.ndindex(*grad.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = [a.copy(), b.copy()]
                moved[which][i, d] += step
                values.append(transport(*moved))
            assert grad[i, d].item() == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-4)


def test_wasserstein_of_a_batch_with_itself_is_zero():
    a = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert wasserstein2(a, a[torch.randperm(50)]).item() == pytest.approx(0, abs=1e-6)
    shift = torch.tensor([3.0, 0, 0, 4])
    assert wasserstein2(a, a + shift).item() == pytest.approx(25, rel=1e-5)


def test_one_process_gathers_nothing():
    x = torch.ones(2, 3)
    assert gathered(x) is x


def test_group_dependence_compares_kernels_of_pairs():
    random = np.random.default_rng(0)
    z, group = 3 + 5 * random.normal(size=(9, 2)), np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    mask = np.array([1, 1, 1, 1, 1, 1, 1, 0, 1])
    real = z[mask == 1]
    unit = (z - real.mean(0)) / (real.std(0) + 1e-4)
    total = 0.0
    for width in (0.05, 0.1, 0.2, 0.4):
        kernels = {True: [], False: []}
        for i, j in pairs_of(range(9), range(9)):
            if i != j and mask[i] and mask[j]:
                distance = ((unit[i] - unit[j]) ** 2).sum() / 2
                kernels[group[i] == group[j]].append(math.exp(-distance / (2 * width)))
        total += math.log(np.mean(kernels[True]) + 1e-6) - math.log(np.mean(kernels[False]) + 1e-6)
    found = group_dependence(torch.from_numpy(z), torch.from_numpy(group), torch.from_numpy(mask))
    assert found.item() == pytest.approx(total / 4, rel=1e-9)


def test_group_distance_is_the_energy_distance_of_each_group_from_the_others():
    random = np.random.default_rng(0)
    z, group = 3 + 5 * random.normal(size=(12, 2)), np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 1, 0])
    mask = np.array([1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1])  # group 3 has one member: no pair of its own
    row = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 4, 11])  # 10 is 4 once more
    real = z[mask == 1]
    unit = (z - real.mean(0)) / (real.std(0) + 1e-4)
    counted = [(i, j) for i, j in pairs_of(range(12), range(12)) if mask[i] and mask[j] and row[i] != row[j]]
    far = {pair: float(np.linalg.norm(unit[pair[0]] - unit[pair[1]])) for pair in counted}
    each = []
    for g in (0, 1, 2):
        within = np.mean([d for (i, j), d in far.items() if group[i] == g and group[j] == g])
        between = np.mean([d for (i, j), d in far.items() if group[i] == g and group[j] != g])
        others = np.mean([d for (i, j), d in far.items() if group[i] != g and group[j] != g])
        each.append(2 * between - within - others)
    expected = np.mean(each) / np.mean(list(far.values()))
    found = group_distance(*map(torch.from_numpy, (z, group, mask, row)))
    assert found.item() == pytest.approx(expected, rel=1e-9)
    z = torch.from_numpy(z).requires_grad_()
    (grad,) = torch.autograd.grad(group_distance(z, torch.from_numpy(group), row=torch.from_numpy(row)), z)
    assert grad.isfinite().all()
    assert group_distance(z, torch.arange(12)) == 0  # nothing to compare
    assert group_distance(z, torch.zeros(12)) == 0


def test_group_leak_is_both_and_less_where_few_pairs_show_it():
    z = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    row, mask = torch.arange(40), torch.arange(40) < 39
    for group, pairs in ((torch.arange(40) % 4, 4 * 45 - 9), (torch.arange(40) // 2, 19)):
        rest = group, mask, row
        whole = group_dependence(z, *rest) + 15 * group_distance(z, *rest)
        assert group_leak(z, *rest).item() == pytest.approx(min(1, pairs / 32) * whole.item(), rel=1e-6)


@pytest.mark.parametrize("told_by", [group_dependence, group_distance, group_leak])
def test_what_has_no_spread_has_a_gradient(told_by):
    """A dimension that is constant, and a batch with one real row: its group has one member."""
    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    constant = z * torch.tensor([1.0, 1.0, 0.0])
    for code, mask in ((constant, None), (z, torch.arange(8) < 1), (0 * z, None)):
        (grad,) = torch.autograd.grad(told_by(code, torch.arange(8) // 4, mask), z)
        assert grad.isfinite().all()


@pytest.mark.parametrize(("told_by", "little", "much"), [(group_dependence, 0.3, 1), (group_distance, 0.02, 0.2)])
def test_dependent_codes_are_told_from_independent_ones(told_by, little, much):
    random = torch.Generator().manual_seed(0)
    group = torch.arange(16).repeat_interleave(8)
    z = torch.randn(128, 4, generator=random)
    told = torch.randn(16, 4, generator=random)[group]
    free, bound = (told_by(code, group).item() for code in (z, z + 2 * told))
    assert abs(free) < little
    assert bound > much
    assert told_by(1000 * (z + 2 * told) + 7, group).item() == pytest.approx(bound, rel=1e-2)  # no scale


# -- is every cited equation tested? -----------------------------------------------------------------------------------

PAPERS = "Ruiz19|Mathieu16|Contrast21|Zheng19|Bouchacourt18|Bao17"
CITATION = re.compile(
    rf"(?P<paper>{PAPERS})"
    r"|(?P<where>supplement )?Eqs?\. \(?(?P<list>\d+\)?(?:(?:-|, | and )\(?\d+\)?)*)"
    r"|(?P<whole>Algorithm \d+)"
)


def citations(text: str) -> set[tuple[str, str]]:
    """What a module cites: an equation belongs to the paper that was named last before it."""
    text, paper, found = re.sub(r"\s*\n\s*#?\s*", " ", text), "", set()
    for match in CITATION.finditer(text):
        if match["paper"]:
            paper = match["paper"]
        elif match["whole"]:
            found.add((paper, match["whole"]))
        else:
            for part in re.split(r", | and ", re.sub(r"[()]", "", match["list"])):
                first, _, last = part.partition("-")
                found |= {(paper, (match["where"] or "") + str(n)) for n in range(int(first), int(last or first) + 1)}
    return found


def test_citations_are_read():
    text = """[Zheng19, Eqs. 4, 6-8 and 11]
        [Bouchacourt18,
        supplement Eqs. 1-2]  # Eq. (3); Algorithm 1"""
    zheng = {("Zheng19", str(n)) for n in (4, 6, 7, 8, 11)}
    ours = {("Bouchacourt18", n) for n in ("supplement 1", "supplement 2", "3", "Algorithm 1")}
    assert citations(text) == zheng | ours


def test_every_cited_equation_has_a_test():
    here = Path(twofold.__file__).parent
    modules = [
        *sorted((here / "methods").glob("*.py")),
        *(here / f"{name}.py" for name in ("distributions", "divergences", "discriminators")),
    ]
    cited = {(*cite, path.name) for path in modules for cite in citations(path.read_text())}
    assert cited
    known = covered()
    assert all(paper for paper, *_ in cited), "an equation is cited before any paper is named"
    assert sorted(cite for cite in cited if cite[:2] not in known) == []
