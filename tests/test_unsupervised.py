"""Abid & Zou's contrastive VAE, beta-TCVAE and DIP-VAE against slow float64 references written from the papers."""

from __future__ import annotations

import math
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from citing import equation
from twofold import fit
from twofold.distributions import Gaussian
from twofold.divergences import covariance_penalty, gan_fake, gan_real, kl_decomposition
from twofold.errors import InputError
from twofold.methods import DIPVAE, VAE, AbidZou, BetaTCVAE
from twofold.supervision import Images, Reference


def codes(b: int, d: int, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    mean, log_var, eps = torch.randn(3, b, d, dtype=torch.float64, generator=random)
    return mean + (0.5 * log_var).exp() * eps, mean, log_var


def normal(mean, log_var) -> Independent:
    return Independent(Normal(mean, torch.exp(0.5 * log_var)), 1)


def standard(like) -> Independent:
    return normal(torch.zeros_like(like), torch.zeros_like(like))


def compare(method, loss, reference, rtol=1e-9):
    """Values and all gradients."""
    assert loss.item() == pytest.approx(reference.item(), rel=rtol)
    parameters = [p for p in method.parameters() if p.numel()]
    for a, b in zip(*(torch.autograd.grad(v, parameters, allow_unused=True) for v in (loss, reference))):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=max(10 * rtol, 1e-6), atol=rtol / 10)


# -- beta-TCVAE --------------------------------------------------------------------------------------------------------


def weight(estimator: str, own: int, other: int, b: int, n: int) -> float:
    """Of a batch's posterior `other` in the estimate of q(z), z drawn from `own` (Chen et al. 2018, Sec. 3, App. C)."""
    if estimator == "weighted":
        return 1 / (n * b)
    M = b - 1  # besides z's own
    return {0: 1 / n, 1: (n - M) / (n * M)}.get((other - own) % b, 1 / M)


def decomposed(z, mean, log_var, n: int, estimator: str):
    mi = tc = kl = 0.0
    b, d = z.shape
    for i in range(b):
        each = [[Normal(mean[j, k], (0.5 * log_var[j, k]).exp()).log_prob(z[i, k]) for k in range(d)] for j in range(b)]
        w = [weight(estimator, i, j, b, n) for j in range(b)]
        q = sum(w[j] * sum(each[j]).exp() for j in range(b))
        q_each = [sum(w[j] * each[j][k].exp() for j in range(b)) for k in range(d)]
        product = sum(q_k.log() for q_k in q_each)
        mi += (sum(each[i]) - q.log()) / b
        tc += (q.log() - product) / b
        kl += (product - standard(z[i]).log_prob(z[i])) / b
    return mi, tc, kl


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
@pytest.mark.parametrize(("b", "n"), [(5, 5), (5, 900), (2, 7)])
def test_the_kl_in_three_parts(b, n, estimator):
    z, mean, log_var = codes(b, 3)
    leaves = [v.clone().requires_grad_() for v in (z, mean, log_var)]
    found, expected = kl_decomposition(*leaves, n, estimator), decomposed(*leaves, n, estimator)
    weights = (1.0, 4.0, 2.0)
    for ours, theirs in zip(found, expected):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-10)
    sums = [sum(w * part for w, part in zip(weights, parts)) for parts in (found, expected)]
    for ours, theirs in zip(*(torch.autograd.grad(total, leaves) for total in sums)):
        assert torch.allclose(ours, theirs, rtol=1e-9)
    sampled_kl = normal(mean, log_var).log_prob(z) - standard(z).log_prob(z)
    assert sum(found).item() == pytest.approx(sampled_kl.mean().item(), rel=1e-10)


def test_stratified_weights_are_unbiased_and_even_ones_are_not():
    """Over all batches that hold z's own observation: the mean of the estimate is (1 / n) sum_j q(z | x_j)."""
    n, b = 6, 4
    z, mean, log_var = codes(n, 2)
    for own in range(n):
        density = normal(mean, log_var).log_prob(z[own]).exp()
        estimates = {"weighted": [], "stratified": []}
        for others in combinations([j for j in range(n) if j != own], b - 1):
            for first in range(b - 1):  # which of them is the special one
                batch = [own, *others[first:], *others[:first]]
                for estimator, values in estimates.items():
                    values.append(sum(weight(estimator, 0, j, b, n) * density[batch[j]].item() for j in range(b)))
        assert np.mean(estimates["stratified"]) == pytest.approx(density.mean().item(), rel=1e-10)
        assert np.mean(estimates["weighted"]) < density.mean().item()


def test_total_correlation_tells_dependence():
    """One posterior, in effect: q(z) is nearly a normal, whose total correlation is known."""
    random = torch.Generator().manual_seed(0)
    r, n = 0.9, 1000
    chol = torch.linalg.cholesky(torch.tensor([[1, r], [r, 1]], dtype=torch.float64))
    mean = torch.randn(n, 2, dtype=torch.float64, generator=random) @ chol.T
    log_var = torch.full_like(mean, math.log(0.05))
    z = mean + 0.05**0.5 * torch.randn(n, 2, dtype=torch.float64, generator=random)
    rho = r / 1.05
    _, tc, _ = kl_decomposition(z, mean, log_var, n, "stratified")
    assert tc.item() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.1)
    _, tc, _ = kl_decomposition(z[:, :1], mean[:, :1], log_var[:, :1], n, "stratified")
    assert tc.item() == pytest.approx(0, abs=1e-12)  # a single dimension has none


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_beta_tcvae_objective(estimator, noise):
    method = BetaTCVAE.build((6,), z=4, scale=0.4, beta=3.0, estimator=estimator).double()
    x = torch.rand(5, 6, dtype=torch.float64)
    method.bind(Images(torch.rand(77, 6)))
    (update,) = method.losses(SimpleNamespace(x=x))
    _, q = method.enc(x)
    z = q.mean + (0.5 * q.log_var).exp() * noise[torch.Size([5, 4])]
    mi, tc, kl = decomposed(z, q.mean, q.log_var, 77, estimator)
    nll = -sum(Normal(method.dec(z[i : i + 1, :0], z[i : i + 1])[0], 0.4).log_prob(x[i]).sum() for i in range(5)) / 5
    compare(method, sum(update["model"].values()), nll + mi + 3 * tc + kl)


def test_beta_tcvae_at_1_is_a_vae_with_a_sampled_kl(noise):
    tc = BetaTCVAE.build((6,), z=4, scale=0.4, beta=1.0, seed=3).double()
    vae = VAE.build((6,), z=4, scale=0.4, seed=3).double()
    tc.bind(Images(torch.rand(50, 6)))
    x = torch.rand(5, 6, dtype=torch.float64)
    (update,) = tc.losses(SimpleNamespace(x=x))
    _, q = vae.enc(x)
    z = q.mean + (0.5 * q.log_var).exp() * noise[torch.Size([5, 4])]
    reference = vae.nll(vae.dec(z[:, :0], z), x) + normal(q.mean, q.log_var).log_prob(z) - standard(z).log_prob(z)
    assert sum(update["model"].values()).item() == pytest.approx(reference.mean().item(), rel=1e-9)


def test_a_batch_beyond_the_data_is_refused_by_the_stratified_estimator():
    z, mean, log_var = codes(5, 2)
    with pytest.raises(InputError, match=r"^batch_size: 5 of 4 observations; the stratified estimator needs 2 to 4"):
        kl_decomposition(z, mean, log_var, 4, "stratified")
    with pytest.raises(InputError, match=r"^estimator: 'strat'"):
        BetaTCVAE.build((6,), estimator="strat")


# -- DIP-VAE -----------------------------------------------------------------------------------------------------------


def dip(mean, variance):
    """Kumar et al. 2018: lambda_od sum_{i != j} Cov_ij^2 + lambda_d sum_i (Cov_ii - 1)^2, in two parts."""
    b, d = mean.shape
    off = diagonal = 0.0
    for i in range(d):
        for j in range(d):
            cov = sum(mean[n, i] * mean[n, j] for n in range(b)) / b
            cov = cov - sum(mean[:, i]) / b * sum(mean[:, j]) / b
            if i == j:
                cov = cov + (sum(variance[:, i]) / b if variance is not None else 0)
                diagonal = diagonal + (cov - 1) ** 2
            else:
                off = off + cov**2
    return off, diagonal


@pytest.mark.parametrize("kind", ["i", "ii"])
def test_covariance_penalty(kind):
    _, mean, log_var = codes(7, 3)
    variance = log_var.exp() if kind == "ii" else None
    for ours, theirs in zip(covariance_penalty(mean, variance), dip(mean, variance)):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-10)
    spread = torch.from_numpy(np.linalg.qr(np.eye(4) - 0.25)[0][:, :3]).double() * 2  # orthogonal, of mean 0
    assert all(part.item() == pytest.approx(0, abs=1e-20) for part in covariance_penalty(spread))


def test_covariance_of_z_is_that_of_its_samples():
    """DIP-VAE-II by sampling: Cov[z] = E Cov[z|x] + Cov E[z|x]."""
    _, mean, log_var = codes(6, 2)
    random = np.random.default_rng(0)
    rows = random.integers(0, 6, 400_000)
    z = mean.numpy()[rows] + np.exp(0.5 * log_var.numpy())[rows] * random.standard_normal((len(rows), 2))
    cov = np.cov(z.T)
    off, diagonal = covariance_penalty(mean, log_var.exp())
    assert off.item() == pytest.approx(2 * cov[0, 1] ** 2, abs=0.03)
    assert diagonal.item() == pytest.approx(((np.diag(cov) - 1) ** 2).sum(), rel=0.03)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"kind": "i", "lambda_od": 3.0}, (3, 30)),  # Kumar18: ten times that
        ({"kind": "ii", "lambda_od": 3.0}, (3, 3)),
        ({"kind": "ii", "lambda_od": 3.0, "lambda_d": 0.0}, (3, 0)),
    ],
)
def test_dip_vae_objective(options, weights, noise):
    method = DIPVAE.build((6,), z=4, scale=0.4, **options).double()
    x = torch.rand(5, 6, dtype=torch.float64)
    (update,) = method.losses(SimpleNamespace(x=x))
    _, q = method.enc(x)
    z = q.mean + (0.5 * q.log_var).exp() * noise[torch.Size([5, 4])]
    reference = 0
    for i in range(5):
        reference = reference - Normal(method.dec(z[i : i + 1, :0], z[i : i + 1])[0], 0.4).log_prob(x[i]).sum() / 5
        reference = reference + kl_divergence(normal(q.mean[i], q.log_var[i]), standard(z[i])) / 5
    off, diagonal = dip(q.mean, q.log_var.exp() if options["kind"] == "ii" else None)
    compare(method, sum(update["model"].values()), reference + weights[0] * off + weights[1] * diagonal)


# -- Abid & Zou --------------------------------------------------------------------------------------------------------


@equation("Contrast21", "3", "4")
def test_abid_zou_objective(monkeypatch):
    drawn, original = [], torch.randn
    monkeypatch.setattr(torch, "randn", lambda *a, **k: drawn.append(original(*a, **k)) or drawn[-1])
    B = 5
    method = AbidZou.build((6,), s=2, z=4, scale=0.4, tc=3.0, beta=2.0)
    method.bind(Reference(torch.rand(9, 6), torch.rand(9, 6)))
    method.double()
    x, y = torch.rand(2, B, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn.clear()
    (update,) = method.losses(SimpleNamespace(target=x, background=y))
    eps_s, eps_zx, eps_zy = sorted(drawn, key=lambda eps: eps.shape[1] != 2)
    (s_x, z_x), (_, z_y) = method.enc(x), method.enc(y)
    S = s_x.mean + (0.5 * s_x.log_var).exp() * eps_s
    Z, Z_y = (q.mean + (0.5 * q.log_var).exp() * eps for q, eps in ((z_x, eps_zx), (z_y, eps_zy)))

    def D(s, z):
        return torch.sigmoid(method.disc(torch.cat([s, z])[None])[0].double())

    model = adversary = 0
    for i in range(B):
        model = model - Normal(method.dec(S[i : i + 1], Z[i : i + 1])[0], 0.4).log_prob(x[i]).sum() / B
        nothing = torch.zeros(1, 2, dtype=torch.float64)
        model = model - Normal(method.dec(nothing, Z_y[i : i + 1])[0], 0.4).log_prob(y[i]).sum() / B
        for q in (s_x, z_x, z_y):  # s of the background is inferred by nobody
            model = model + 2 * kl_divergence(normal(q.mean[i], q.log_var[i]), standard(q.mean[i])) / B
        d = D(S[i], Z[i])
        model = model + 3 * (d / (1 - d)).log() / B
        adversary = adversary - D(S[i].detach(), Z[i].detach()).log() / B
        adversary = adversary - (1 - D(S[i - 1].detach(), Z[i].detach())).log() / B
    compare(method, sum(update["model"].values()), model, rtol=1e-6)  # logits are float32
    compare(method, sum(update["discriminator"].values()), adversary, rtol=1e-6)


@equation("Contrast21", "4")
def test_no_observation_is_paired_with_itself():
    """A target of three fills a batch of six: neighbours that are the same row are no pair of different ones."""
    method = AbidZou.build((6,), s=2, z=4)
    method.bind(Reference(torch.rand(3, 6), torch.rand(9, 6)))
    rows, seen = [0, 0, 1, 2, 2, 0], []
    method.disc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    torch.manual_seed(0)
    (update,) = method.losses(SimpleNamespace(target=torch.rand(3, 6)[rows], background=torch.rand(6, 6)))
    joint, _, apart = seen
    pairs = [(i - 1, i) for i in range(6) if rows[i - 1] != rows[i]]
    assert len(pairs) == 3
    assert torch.equal(apart, torch.stack([torch.cat([joint[i, :2], joint[j, 2:]]) for i, j in pairs]))
    (update,) = method.losses(SimpleNamespace(target=torch.ones(2, 6), background=torch.rand(2, 6)))
    assert update["discriminator"]["apart"] == 0  # two epochs met, and no two rows differ
    with pytest.raises(InputError, match="batch_size: 1; pairs of different observations take at least 2"):
        next(method.losses(SimpleNamespace(target=torch.rand(1, 6), background=torch.rand(1, 6))))
    with pytest.raises(InputError, match="target: 1 observation"):
        method.bind(Reference(torch.rand(1, 6), torch.rand(9, 6)))


class Optimal(nn.Module):
    """The logit log q(s, z) - log q(s) q(z) of a normal pair of correlation r: w (s^2 + z^2) + v s z + c."""

    def __init__(self, r: float):
        super().__init__()
        w, v, c = -0.5 * r**2 / (1 - r**2), r / (1 - r**2), -0.5 * math.log(1 - r**2)
        self.w, self.v, self.c = (nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in (w, v, c))

    def forward(self, x):
        s, z = x.T
        return self.w * (s**2 + z**2) + self.v * s * z + self.c


@equation("Contrast21", "4")
@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_the_density_ratio_is_the_total_correlation(r):
    """With the optimal discriminator; and it is the optimum of what the discriminator descends."""
    n = 200_000
    joint = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    joint[:, 1] = r * joint[:, 0] + (1 - r**2) ** 0.5 * joint[:, 1]
    apart = torch.stack([joint[:, 0].roll(1, 0), joint[:, 1]], 1)
    disc = Optimal(r)
    density = MultivariateNormal(torch.zeros(2).double(), torch.tensor([[1, r], [r, 1]]).double())
    assert torch.allclose(disc(joint), density.log_prob(joint) - Normal(0, 1).log_prob(joint).sum(1), atol=1e-5)
    assert disc(joint).mean().item() == pytest.approx(-0.5 * math.log(1 - r**2), abs=0.01)
    loss = gan_real(disc(joint)) + gan_fake(disc(apart))
    for grad in torch.autograd.grad(loss, list(disc.parameters())):
        assert grad.item() == pytest.approx(0, abs=0.01)
    worse = Optimal((r + 0.3) / 1.3)
    assert gan_real(worse(joint)) + gan_fake(worse(apart)) > loss


@equation("Contrast21", "4")
def test_each_player_reaches_its_own_networks_only(anyof):
    method, supervision = AbidZou.build((6,), s=2, z=3), anyof(Reference, (6,))
    method.bind(supervision)
    (update,) = method.losses(supervision.draw(0, batch_size=16))
    own, model = list(method.disc.parameters()), [*method.enc.parameters(), *method.dec.parameters()]
    adversary = sum(update["discriminator"].values())
    assert all(g is None for g in torch.autograd.grad(adversary, model, allow_unused=True, retain_graph=True))
    assert all(g is not None for g in torch.autograd.grad(adversary, own, retain_graph=True))
    heads = torch.autograd.grad(update["model"]["tc"], list(method.enc.parameters()), retain_graph=True)
    assert all((g != 0).any() for g in heads)


def test_a_discriminator_of_ones_own(anyof):
    supervision = anyof(Reference, (6,))
    parts = AbidZou.networks((6,), 2, 3, None, "mlp")
    own = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))
    method = AbidZou(*parts, own)
    before = own[0].weight.detach().clone()
    fit(method, supervision, steps=2, batch_size=16, progress=False)
    assert method.disc is own
    assert not torch.equal(before, own[0].weight)


class AsItIs(nn.Module):
    """x [N, 2] is its own code: s its first entry, z its second."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return tuple(Gaussian(half, torch.full_like(half, -14)) for half in (self.one * x).split(1, 1))


class Joined(nn.Linear):
    def forward(self, s, z):
        return super().forward(torch.cat([s, z], 1))


@equation("Contrast21", "4")
def test_the_discriminator_learns_the_total_correlation():
    r = 0.8
    x = torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))
    x[:, 1] = r * x[:, 0] + (1 - r**2) ** 0.5 * x[:, 1]
    method, still = AbidZou(AsItIs(), Joined(2, 2)), {"name": "sgd", "lr": 0.0}
    run = fit(
        method, Reference(x, x), steps=200, batch_size=512, optim={"model": still, "discriminator": {"lr": 3e-3}},
        progress=False,
    )  # fmt: skip
    assert run.metrics[0]["model/tc"] == pytest.approx(0, abs=0.2)
    assert method.disc(x).mean().item() == pytest.approx(-0.5 * math.log(1 - r**2), rel=0.15)
