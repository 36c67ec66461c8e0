"""Ruiz19: Rb-VAE, sRb-VAE and the symmetric VAE, against the paper's equations, in float64.

Two kinds of references: the losses and each player's gradient, written out from Algorithm 1 for small networks; and a
world where all is normal and linear, in which divergences between the joint distributions have closed forms.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import Laplace, MultivariateNormal, Normal, kl_divergence

from citing import equation
from twofold import discriminators, fit, load, networks, reconstruct
from twofold.distributions import Gaussian
from twofold.errors import InputError
from twofold.method import Code, Facts
from twofold.methods import RbVAE, ReferenceMathieu, SRbVAE, SymmetricVAE
from twofold.supervision import Images, Reference

B = 5
FACTS = Facts({"n": B, "shape": [6], "background": B})


@pytest.fixture
def draw():
    random = torch.Generator().manual_seed(0)
    target, background = torch.rand(2, B, 6, dtype=torch.float64, generator=random)
    return SimpleNamespace(target=target, background=background, x=target)


@pytest.fixture
def noise(monkeypatch):
    """What randn, randn_like and rand gave, in order."""
    drawn = []
    for name in ("randn", "randn_like", "rand"):
        original = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, f=original, **k: drawn.append(f(*a, **k)) or drawn[-1])
    torch.manual_seed(0)
    return drawn


def built(cls, **options):
    method = cls.build((6,), s=2, z=3, arch="zheng19-toy", **({"likelihood": "laplace"} | options))
    method.bind(FACTS)
    if hasattr(method, "e_r"):
        method.e_r.data = torch.tensor([0.3, -0.7])
    return method.double().train()


def compare(loss, reference, parameters, rtol=1e-9):
    """Equal values and equal gradients."""
    assert loss.item() == pytest.approx(reference.item(), rel=rtol)
    pairs = zip(*(torch.autograd.grad(v, parameters, retain_graph=True, allow_unused=True) for v in (loss, reference)))
    for ours, theirs in pairs:
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert torch.allclose(ours, theirs, rtol=rtol, atol=rtol / 100)


def total(terms):
    return sum(terms.values())


def codes(method, x):
    """Means and standard deviations of e and of z: one network each (Sec. 4.2)."""
    e, z = method.enc.head_s(method.enc.trunk_s(x)), method.enc.head(method.enc.trunk(x))
    return [(mean, torch.exp(log_var / 2)) for mean, log_var in (e.chunk(2, 1), z.chunk(2, 1))]


def log_normal(v, q):
    return Normal(*q).log_prob(v).sum()


# -- the losses, written out -------------------------------------------------------------------------------------------


@equation("Ruiz19", "3", "10")
@pytest.mark.parametrize("likelihood", ["laplace", "gaussian"])
def test_rb_vae_objective(likelihood, draw, noise):
    method = built(RbVAE, likelihood=likelihood, scale=0.4)
    (update,) = method.losses(draw)
    eps_zr, eps_e, eps_z = noise
    p = {"laplace": Laplace, "gaussian": Normal}[likelihood]
    objective = 0
    for n in range(B):
        (e, z), (_, z_r) = codes(method, draw.target[[n]]), codes(method, draw.background[[n]])
        prior = [Normal(torch.zeros_like(q[0]), 1.0) for q in (e, z)]
        objective = objective + sum(kl_divergence(Normal(*q), r).sum() for q, r in zip((e, z), prior))
        G = method.dec(e[0] + e[1] * eps_e[n], z[0] + z[1] * eps_z[n])
        objective = objective - p(G, 0.4).log_prob(draw.target[n]).sum()
        objective = objective + kl_divergence(Normal(*z_r), prior[1]).sum()
        G = method.dec(method.e_r[None], z_r[0] + z_r[1] * eps_zr[n])
        objective = objective - p(G, 0.4).log_prob(draw.background[n]).sum()
    compare(total(update["model"]), objective / B, list(method.parameters()))
    assert "e_r" in dict(method.named_parameters())


def test_the_papers_scale_is_half_as_large_on_our_images():
    """0.01 on [-1, 1] is 0.005 on [0, 1]: the same density, but for the change of units."""
    method, x, G = RbVAE.build((1, 8, 8)), *torch.rand(2, 1, 1, 8, 8)
    papers = -Laplace(2 * G - 1, 0.01).log_prob(2 * x - 1).sum()
    assert method.nll(G, x).item() == pytest.approx((papers - 64 * math.log(2)).item(), rel=1e-5)


def test_vectors_have_a_normal_likelihood_unless_told():
    x, G = torch.rand(2, 5, 6)
    expected = -torch.distributions.Normal(G, 0.1).log_prob(x).sum(1)
    assert torch.allclose(RbVAE.build((6,)).nll(G, x), expected, rtol=1e-4)


def judged(d, x, codes, masks):
    """A discriminator's logits [B], features of image and codes masked before its last fully connected layer."""
    of_x, of_codes = d.trunk(x), torch.nn.functional.leaky_relu(d.code[0](torch.cat(codes, 1)), 0.2)
    features = [
        torch.stack([f[n] if m[n] >= 0.3 else 0 * f[n] for n in range(B)]) for f, m in zip((of_x, of_codes), masks)
    ]
    hidden, out = d.last[0], d.last[2]
    return out(torch.nn.functional.leaky_relu(hidden(torch.cat(features, 1)), 0.2))[:, 0]


def logistic(real, fake):
    return -(torch.sigmoid(real).log() + (1 - torch.sigmoid(fake)).log()).mean()


@equation("Ruiz19", "6", "7", "Algorithm 1")
def test_srb_vae_plays_algorithm_1(draw, noise):
    """Lines in brackets; Fig. 3 c-f are the explicit terms, the latter two from Eq. 5."""
    weights = {"rec_target": 0.5, "rec_background": 0.7, "latent_target": 1.3, "latent_background": 0.2}
    method = built(SRbVAE, scale=0.4, dropout=0.3, **weights)
    (update,) = method.losses(draw)
    eps_e, eps_z, eps_zr, e_hat, z_hat, z_rhat, *masks = noise
    x, x_r, e_r = draw.target, draw.background, method.e_r.expand(B, -1)
    q_e, q_z = codes(method, x)
    _, q_zr = codes(method, x_r)
    e, z, z_r = (q[0] + q[1] * eps for q, eps in ((q_e, eps_e), (q_z, eps_z), (q_zr, eps_zr)))  # [4-6]
    x_hat, x_rhat = method.dec(e_hat, z_hat), method.dec(e_r, z_rhat)  # [12-13]

    xi, xi_hat = judged(method.d_xi, x, (z, e), masks[:2]), judged(method.d_xi, x_hat, (z_hat, e_hat), masks[2:4])
    gamma, gamma_hat = (
        judged(method.d_gamma, x_r, (z_r,), masks[4:6]),
        judged(method.d_gamma, x_rhat, (z_rhat,), masks[6:]),
    )
    p_e, p_z = codes(method, x_hat)
    _, p_zr = codes(method, x_rhat)
    explicit = (
        -weights["rec_target"] * Laplace(method.dec(e, z), 0.4).log_prob(x).sum()
        - weights["rec_background"] * Laplace(method.dec(e_r, z_r), 0.4).log_prob(x_r).sum()
        - weights["latent_target"] * (log_normal(z_hat, p_z) + log_normal(e_hat, p_e))
        - weights["latent_background"] * log_normal(z_rhat, p_zr)
    ) / B
    psi, theta = list(method.enc.parameters()), [*method.dec.parameters(), method.e_r]
    model, lowered, raised = total(update["model"]), (xi + gamma).mean(), (xi_hat + gamma_hat).mean()
    assert model.item() == pytest.approx((lowered - raised + explicit).item(), rel=1e-9)  # Eq. 6
    for parameters, reference in ((psi, lowered + explicit), (theta, explicit - raised)):  # [7], [14]: theta ascends
        compare(model - model.detach(), reference - reference.detach(), parameters)
    compare(total(update["d_xi"]), logistic(xi, xi_hat), list(method.d_xi.parameters()))  # [16]
    compare(total(update["d_gamma"]), logistic(gamma, gamma_hat), list(method.d_gamma.parameters()))  # [18]


def test_symmetric_vae_is_that_game_without_a_reference(draw, noise):
    method = built(SymmetricVAE, scale=0.4, dropout=0.3, rec=0.5, latent=1.3)
    (update,) = method.losses(draw)
    _, eps, z_hat, *masks = noise
    nothing = torch.zeros(B, 0)
    mean, log_var = method.enc.head(method.enc.trunk(draw.x)).chunk(2, 1)
    z, x_hat = mean + torch.exp(log_var / 2) * eps, method.dec(nothing, z_hat)
    real, fake = judged(method.d, draw.x, (z,), masks[:2]), judged(method.d, x_hat, (z_hat,), masks[2:])
    mean, log_var = method.enc.head(method.enc.trunk(x_hat)).chunk(2, 1)
    rec = -0.5 * Laplace(method.dec(nothing, z), 0.4).log_prob(draw.x).sum() / B
    latent = -1.3 * log_normal(z_hat, (mean, torch.exp(log_var / 2))) / B
    model = [*method.enc.parameters(), *method.dec.parameters()]
    compare(total(update["model"]), (real - fake).mean() + rec + latent, model)
    compare(total(update["d"]), logistic(real, fake), list(method.d.parameters()))


def test_mathieu_of_reference_pairs(draw, noise):
    """Sec. 5.2: pairs among the reference images alone; classes are the two sets, 0 unlabelled and 1 reference."""
    method = built(ReferenceMathieu, scale=0.4, rec=0.5, same=0.7, kl=0.3, gan=2.0)
    fresh = SimpleNamespace(target=draw.background, background=draw.target.flip(0))
    first, second = method.losses(draw, fresh)
    eps, eps_fresh = noise

    def codes(x, eps):
        s = method.enc.head_s(method.enc.trunk_s(x))
        mean, log_var = method.enc.head(method.enc.trunk(x)).chunk(2, 1)
        std = torch.exp(log_var / 2)
        return s, mean + std * eps, kl_divergence(Normal(mean, std), Normal(torch.zeros_like(mean), 1.0)).sum()

    def adv(x, which):
        for layer in method.disc.trunk:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                x = x + next(tables).weight[which]
        return torch.sigmoid(method.disc.linear(x)).sum()

    total_model, total_adversary = 0, 0
    (s, z, kl), (s_r, z_r, kl_r) = codes(draw.target, eps[:B]), codes(draw.background, eps[B:])
    for n in range(B):
        one, x, x_r = slice(n, n + 1), draw.target[n], draw.background[n]
        for target, a, b in ((x, s[one], z[one]), (x_r, s_r[one], z_r[one])):
            total_model = total_model - 0.5 * Laplace(method.dec(a, b)[0], 0.4).log_prob(target).sum()
        other = slice((n - 1) % B, (n - 1) % B + 1)
        total_model = total_model - 0.7 * Laplace(method.dec(s_r[other], z_r[one])[0], 0.4).log_prob(x_r).sum()
        for a, b, which in ((s_r[one], z[one], 1), (s[one], z_r[one], 0)):
            tables = iter(method.disc.embed)
            total_model = total_model - 2.0 * adv(method.dec(a, b), which).log()
    total_model = (total_model + 0.3 * (kl + kl_r)) / B
    compare(total(first["model"]), total_model, [*method.enc.parameters(), *method.dec.parameters()], 1e-5)
    (s, z, _), (s_r, z_r, _) = codes(fresh.target, eps_fresh[:B]), codes(fresh.background, eps_fresh[B:])
    for n in range(B):
        one = slice(n, n + 1)
        for a, b, which in ((s_r[one], z[one], 1), (s[one], z_r[one], 0)):
            tables = iter(method.disc.embed)
            total_adversary = total_adversary - (1 - adv(method.dec(a, b), which)).log()
        for x, which in ((fresh.target[one], 0), (fresh.background[one], 1)):
            tables = iter(method.disc.embed)
            total_adversary = total_adversary - adv(x, which).log()
    compare(total(second["adversary"]), total_adversary / (2 * B), list(method.disc.parameters()), 1e-5)


# -- a world where all is normal and linear ----------------------------------------------------------------------------

MU, V = {"u": 0.5, "r": 0.2}, {"u": 1.7, "r": 0.8}  # p^u(x), p^r(x)
G_E, G_Z, BIAS, NOISE, E_R = 0.7, 0.9, 0.1, 0.6, 0.4  # p(x|z, e) = N(0.7 e + 0.9 z + 0.1, 0.6^2)
Q = {"e": (0.5, -0.2, 0.8), "z": (0.6, 0.1, 0.7)}  # q(e|x) = N(0.5 x - 0.2, 0.8^2)
N = 100_000


class Encodes(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return tuple(Gaussian(self.one * a * x + b, torch.full_like(x, 2 * math.log(std))) for a, b, std in Q.values())


class Decodes(nn.Module):
    """The mean of p(x|z, e), or samples of it."""

    def __init__(self, noise: float = 0.0):
        super().__init__()
        self.noise = noise

    def forward(self, e, z):
        return G_E * e + G_Z * z + BIAS + self.noise * torch.randn_like(z)


class Ratio(nn.Module):
    """log q(x, codes) / p(x, codes), plus `off` times something else."""

    def __init__(self, which):
        super().__init__()
        self.q, self.p = joint("q", which), joint("p", which)
        self.sign, self.off = 1.0, torch.zeros((), dtype=torch.float64, requires_grad=True)

    def forward(self, x, *codes):
        v = torch.cat([x, *codes], 1)
        return self.sign * (self.q.log_prob(v) - self.p.log_prob(v)) + self.off * (v.square().sum(1) + v.prod(1))


def joint(side, which):
    """q or p of (x, z, e) for the unlabelled set, of (x, z) for the reference, as one normal distribution."""
    names = "ze" if which == "u" else "z"
    A = torch.eye(1 + len(names), dtype=torch.float64)  # [x, z, e] = A [noises] + b
    if side == "q":
        b = [MU[which]] + [Q[k][0] * MU[which] + Q[k][1] for k in names]
        for i, k in enumerate(names):
            A[1 + i, 0], A[1 + i, 1 + i] = Q[k][0], Q[k][2]
        A[:, 0] *= math.sqrt(V[which])
    else:
        b = [BIAS + (0 if which == "u" else G_E * E_R)] + [0.0] * len(names)
        A[0] = torch.tensor([NOISE, G_Z, G_E][: 1 + len(names)])
    return MultivariateNormal(torch.tensor(b, dtype=torch.float64), A @ A.T)


def normal_world(cls, *more, noise=0.0, **options):
    method = cls(Encodes(), Decodes(noise), *more, likelihood="gaussian", scale=NOISE, **options)
    method.bind(Facts({"n": N, "shape": [1], "background": N}))
    method.e_r.data = torch.tensor([E_R], dtype=torch.float64)
    random = torch.Generator().manual_seed(1)
    eps = torch.randn(2, N, 1, dtype=torch.float64, generator=random)
    torch.manual_seed(2)
    (update,) = method.losses(
        SimpleNamespace(**{k: MU[w] + math.sqrt(V[w]) * e for (k, w), e in zip(SETS, eps)}),
    )
    return update


SETS = (("target", "u"), ("background", "r"))


def divergence(a, b, which):
    return kl_divergence(joint(a, which), joint(b, which)).item()


def entropy(variance):
    return 0.5 * math.log(2 * math.pi * math.e * variance)


@equation("Ruiz19", "1", "2", "3")
def test_eq_3_is_the_divergence_of_the_joints():
    """Twice KL(q || p), with p(y) = 1/2, plus the two sets' entropies, which don't move."""
    found = total(normal_world(RbVAE)["model"]).item()
    expected = sum(divergence("q", "p", w) + entropy(V[w]) for w in "ur")
    assert found == pytest.approx(expected, rel=0.01)


@equation("Ruiz19", "4", "5", "6")
def test_the_optimal_game_is_the_symmetric_divergence():
    ratios = Ratio("u"), Ratio("r")
    update = normal_world(SRbVAE, *ratios, noise=NOISE)["model"]
    for name, which in SETS:
        both = divergence("q", "p", which) + divergence("p", "q", which)
        assert update[f"adv_{name}"].item() == pytest.approx(both, rel=0.02)  # Eq. 6 of Eq. 4
        spread = G_Z**2 + (G_E**2 if which == "u" else 0) + (BIAS + (G_E * E_R if which == "r" else 0) - MU[which]) ** 2
        to_data = 0.5 * (math.log(V[which] / NOISE**2) + (NOISE**2 + spread) / V[which] - 1)  # E KL(p(x|z, e) || p(x))
        reverse = to_data + update[f"latent_{name}"].item() - (2 if which == "u" else 1) * entropy(1)
        assert reverse == pytest.approx(divergence("p", "q", which), rel=0.02)  # Eq. 5


@equation("Ruiz19", "7")
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["Algorithm 1", "as printed"])
def test_the_ratio_is_the_discriminators_optimum(sign):
    """Stationary at log q/p; at log p/q, which Eq. 7 as printed learns, Algorithm 1's discriminator is not."""
    ratios = Ratio("u"), Ratio("r")
    for ratio in ratios:
        ratio.sign = sign
    update = normal_world(SRbVAE, *ratios, noise=NOISE)
    for player, ratio in zip(("d_xi", "d_gamma"), ratios):
        (slope,) = torch.autograd.grad(total(update[player]), ratio.off)
        assert abs(slope.item()) < 0.02 if sign > 0 else abs(slope.item()) > 0.5


# -- discriminators ----------------------------------------------------------------------------------------------------


def test_features_are_dropped_whole_and_apart():
    torch.manual_seed(0)
    n = 4000
    d = discriminators.JointDiscriminator(nn.Identity(), 3, codes=2)
    d.code, d.last = nn.Identity(), nn.Identity()
    kept = []
    d.last.register_forward_hook(lambda _, seen, __: kept.append(seen[0]) or torch.zeros(n, 1))
    d(torch.ones(n, 3), torch.ones(n, 1), torch.ones(n, 1))
    rows, counts = kept[0].unique(dim=0, return_counts=True)
    expected = {(0, 0): 0.0625, (0, 1): 0.1875, (1, 0): 0.1875, (1, 1): 0.5625}
    assert len(rows) == 4
    for row, count in zip(rows.tolist(), counts.tolist()):
        assert len({*row[:3]}) == len({*row[3:]}) == 1
        assert count / n == pytest.approx(expected[row[0], row[3]], abs=0.02)
    d.eval()
    d(torch.ones(n, 3), torch.ones(n, 2))
    assert kept[1].min() == 1


def test_logits_of_image_and_codes_depend_on_both_together():
    torch.manual_seed(0)
    d = discriminators.joint("ruiz19", (3, 17, 12), codes=5).double().eval()
    x, x_2 = torch.rand(2, 1, 3, 17, 12, dtype=torch.float64)
    c, c_2 = torch.randn(2, 1, 5, dtype=torch.float64)
    assert d(x, c[:, :2], c[:, 2:]).shape == (1,)
    assert abs((d(x, c) - d(x_2, c) - d(x, c_2) + d(x_2, c_2)).item()) > 1e-6  # not a sum of one for each
    assert d.float()(x.float(), c.float()).dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 64, 64), (2, 33, 40)])
def test_the_family_of_architectures_fits_any_size(shape):
    """A.4: 3x3 convolutions, leaky ReLU of 0.2, pooling by averages; pixel norm in encoder and decoder."""
    encoder, decoder = networks.build("ruiz19", shape, 4, 5)
    d = discriminators.joint("ruiz19", shape, codes=9)
    for net, pooled, norms in ((encoder, 8, 8), (decoder, 0, 3), (d, 4, 0)):
        convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        assert {(m.kernel_size, m.stride) for m in convolutions} == {((3, 3), (1, 1))}
        assert {m.negative_slope for m in net.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
        assert sum(isinstance(m, nn.AdaptiveAvgPool2d) for m in net.modules()) == pooled
        assert sum(isinstance(m, networks.PixelNorm) for m in net.modules()) == norms
    kinds = [type(m).__name__ for m in encoder.trunk][:4]
    assert kinds == ["Conv2d", "LeakyReLU", "PixelNorm", "AdaptiveAvgPool2d"]
    (s, z), x = encoder(torch.rand(2, *shape)), torch.rand(2, *shape)
    assert decoder(s.mean, z.mean).shape == x.shape
    assert d(x, s.mean, z.mean).shape == (2,)


# -- in use ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [RbVAE, SRbVAE])
def test_the_reference_value_is_learned_and_used(cls, anyof):
    supervision = anyof(Reference, (6,))
    method = cls.build((6,), s=2, z=3)
    assert torch.equal(method.reference_s(4), torch.zeros(4, 2))  # untrained
    fit(method, supervision, steps=3, batch_size=8, progress=False)
    e_r = method.reference_s(4)
    assert e_r.abs().min() > 0
    assert torch.equal(e_r[0], e_r[3])
    x = supervision.x[:4]
    assert torch.equal(reconstruct(method, x, "z"), method.decode(Code(e_r, method.encode(x).z)))
    settings = method.optim
    assert (settings["lr"], settings["betas"], settings["eps"]) == (1e-4, (0.5, 0.99), 1e-8)  # A.4


def test_the_reference_value_of_mathieu_is_the_mean_s_of_the_reference(anyof, tmp_path):
    method = built(ReferenceMathieu)
    assert torch.equal(method.reference_s(3), torch.zeros(3, 2))
    means = torch.zeros(0, 2)
    for i in range(12):
        x, x_r = torch.rand(2, 8, 6, dtype=torch.float64)
        next(method.losses(SimpleNamespace(target=x, background=x_r), None))
        means = torch.cat([means, method._posterior(x_r)[0].mean.detach().float().mean(0, keepdim=True)])
        expected = means.mean(0) if i < 10 else 0.9 * expected + 0.1 * means[-1]
        assert torch.allclose(method.reference_s(1)[0], expected, atol=1e-6)
    method.eval()
    next(method.losses(SimpleNamespace(target=x, background=x_r), None))
    assert torch.allclose(method.reference_s(1)[0], expected, atol=1e-6)  # it learns in training only

    supervision, settings = anyof(Reference, (6,)), {"batch_size": 8, "progress": False}
    for out, steps in (("whole", 6), ("parts", 3)):
        method = ReferenceMathieu.build((6,), s=2, z=3)
        fit(method, supervision, steps=steps, out=tmp_path / out, **settings)
    parts = ReferenceMathieu.build((6,), s=2, z=3)
    fit(parts, supervision, steps=6, out=tmp_path / "parts", resume=True, **settings)
    whole = load(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values()))
    assert torch.equal(whole.reference_s(2), parts.reference_s(2))
    assert whole.reference_s(1).abs().min() > 0


@pytest.mark.parametrize("cls", [SRbVAE, SymmetricVAE])
@pytest.mark.parametrize("dropout", [1.0, 1.5])
def test_a_dropout_that_leaves_nothing_is_refused(cls, dropout):
    with pytest.raises(InputError, match=r"^dropout: 1\.\d; expected a probability"):
        cls.build((6,), dropout=dropout)


class Wide(nn.Module):
    """A decoder that gives each pixel's variance, too."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, s, z):
        x = self.decoder(s, z)
        return Gaussian(x, torch.zeros_like(x))


@pytest.mark.parametrize("cls", [SRbVAE, SymmetricVAE])
def test_networks_of_ones_own_may_give_variances(cls, anyof):
    """The game is played with the decoder's means."""
    encoder, decoder, *ds = cls.networks((6,), 2, 3, None, "zheng19-toy")
    method = cls(encoder, Wide(decoder), *ds)
    fit(method, anyof(Images if cls is SymmetricVAE else Reference, (6,)), steps=1, batch_size=4, progress=False)
    assert method.encode(torch.rand(2, 6)).z.shape == (2, 3)
