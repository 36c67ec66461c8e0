"""Zheng19: the label relevant VAE against the paper's algorithm, its semi-supervised terms and its class mixture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from citing import equation
from trainings import moved, weights
from twofold import fit, generate, load
from twofold.arrays import mix
from twofold.distributions import Gaussian
from twofold.divergences import group_dependence
from twofold.errors import InputError
from twofold.method import Facts
from twofold.methods import LabelRelevantVAE
from twofold.supervision import Labels, LabelsDraw

PAPER = {"scale": 1.0, "sigma_s": 0.0, "leakage": 0.0, "lambda_lkd": 0.1, "lambda_kl": 0.5, "lambda_rec": 2.0}
PAPER |= {"n_gm": 2, "lambda_rec_s": 1.0, "lambda_gan": 1 / 6, "gan": "log", "spectral": False}  # 6 "pixels"


def made(**options):
    return LabelRelevantVAE.build((6,), s=3, z=4, arch="zheng19-toy", **PAPER | options)


def bound(classes=4, n=48, labelled=48, **options):
    method = made(**options)
    torch.manual_seed(0)
    method.bind(Facts({"n": n, "shape": [6], "classes": classes, "labelled": labelled}))
    with torch.no_grad():
        method.log_var.copy_(torch.randn(classes, 3))
    return method.double()


def normal(z, mean, variance):
    return -0.5 * ((z - mean) ** 2 / variance + variance.log() + math.log(2 * math.pi)).sum(-1)


def linear(encoder, x):
    """What our encoder's layers say, whatever they are then made into."""
    return encoder.encoder.head(encoder.encoder.trunk(x))


@equation("Zheng19", "3", "4", "5", "7", "8", "9", "10", "Algorithm 1")
def test_algorithm_1(anyof):
    """Two steps of `fit` by plain gradient descent, and the pseudo-code written out by hand on a copy."""

    def step(m, lr, *draws):
        lkd, kl, rec = 0.1, 0.5, 2.0
        psi, phi, omega, theta = (list(net.parameters()) for net in (m.enc_s, m.enc_u, m.classifier, m.dec))
        theta_d = list(m.disc.parameters())
        variance = lambda: m.log_var.exp() + 1e-4  # noqa: E731
        for draw in draws[:2]:  # lines 2-9
            loss = 0
            for z_i, y_i in zip(linear(m.enc_s, draw.x), draw.y):
                densities = torch.stack([normal(z_i, m.mu[c], variance()[c]).exp() for c in range(4)])
                loss = loss - (densities[y_i] / densities.sum()).log() - lkd * densities[y_i].log()
            moved([(loss / len(draw.y), [*psi, m.mu, m.log_var])], lr)
        x, y = draws[2].x, draws[2].y
        mean, log_var = linear(m.enc_u, x).chunk(2, 1)
        L_kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1).mean()
        z_u = (0.5 * log_var).exp() * torch.randn(8, 4) + mean  # line 14
        q = m.classifier(z_u).softmax(1)
        L_E = -(0.25 * q.log()).sum(1).mean()
        L_C = -q[torch.arange(8), y].log().mean()
        z_s = linear(m.enc_s, x)
        L_lkd = -torch.stack([normal(z, m.mu[c], variance()[c]) for z, c in zip(z_s, y)]).mean()
        x_f = m.dec(z_s, z_u)
        L_rec = 0.5 * ((x - x_f) ** 2).sum(1).mean()
        x_p = m.dec(m.mu[y] + variance()[y].sqrt() * torch.randn(8, 3), torch.randn(8, 4))  # lines 21-22

        def D(x):
            f = m.disc.trunk(x)
            return torch.sigmoid(m.disc.linear(f)[:, 0] + (m.disc.embed[0].weight[y] * f).sum(1))

        L_D = (-D(x).log() - (1 - D(x_f)).log() - (1 - D(x_p)).log()).mean()
        L_GD = (-D(x_f).log() - D(x_p).log()).mean()
        lines_25_to_29 = [
            (L_rec + lkd * L_lkd, psi),
            (L_E + kl * L_kl + rec * L_rec, phi),
            (L_C, omega),
            (L_rec + L_GD, theta),
            (L_D, theta_d),
        ]
        moved(lines_25_to_29, lr)

    supervision, lr, seed = anyof(Labels, (6,)), 0.05, 2
    method, copy = made(), made()
    torch.manual_seed(0)
    method.bind(supervision)
    method.log_var.data.normal_()
    copy.bind(supervision)
    copy.load_state_dict(method.state_dict())
    start, index = weights(copy), []
    fit(method, supervision, steps=2, batch_size=8, seed=seed, optim={"name": "sgd", "lr": lr}, progress=False)
    for i in range(2):
        torch.manual_seed(mix(seed, 11, i, 0))
        draws = [supervision.draw(i * 3 + j, seed, batch_size=8) for j in range(3)]
        index += [draw.index for draw in draws]
        step(copy, lr, *draws)
    for (name, p), q in zip(method.named_parameters(), copy.parameters()):
        assert not torch.equal(p, start[name]), name
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6), name
    assert len(torch.cat(index).unique()) == 2 * 3 * 8  # line 3 samples a batch anew each time


@pytest.mark.parametrize("unlabelled", ["known", "unseen"])
@equation("Zheng19", "6", "7", "11")
def test_observations_without_a_label(unlabelled):
    """Sec. 3.6: they follow the mixture, or the normal of its moments; L_GM, both classifier losses and the projection
    are for labelled ones only."""
    m = bound(labelled=30, unlabelled=unlabelled, n_gm=1)
    x = torch.rand(8, 6, dtype=torch.float64)
    y = torch.tensor([3, 0, -1, 1, -1, 2, -1, 3])
    known = [i for i in range(8) if y[i] >= 0]
    drawn = []
    body = m.losses(*[LabelsDraw(x, y, torch.arange(8))] * 2)
    with torch.no_grad():
        gm, joint = list(body)
        z_s = linear(m.enc_s, x)
        sigma2 = m.log_var.exp() + 1e-4
        each = torch.stack([torch.stack([normal(z, m.mu[c], sigma2[c]) for c in range(4)]) for z in z_s])
        cls = -sum(each[i].softmax(0)[y[i]].log() for i in known) / len(known)
        lkd = -sum(each[i, y[i]] for i in known) / len(known)
        components = Independent(Normal(m.mu, sigma2.sqrt()), 1)
        mixture = MixtureSameFamily(Categorical(torch.ones(4)), components)
        spread = Independent(Normal(mixture.mean, mixture.variance.sqrt()), 1)
        free = (mixture if unlabelled == "known" else spread).log_prob(z_s)
        all_lkd = -sum(each[i, y[i]] if i in known else free[i] for i in range(8)) / 8
    assert gm["psi"]["cls"].item() == pytest.approx(cls.item(), rel=1e-9)
    assert gm["mixture"]["lkd"].item() == pytest.approx(0.1 * lkd.item(), rel=1e-9)
    assert joint["psi"]["lkd"].item() == pytest.approx(0.1 * all_lkd.item(), rel=1e-9)
    assert torch.allclose(m.total().variance[0], mixture.variance)

    def hidden(module, args, output):
        drawn.append((args, output))

    hooks = [m.classifier.register_forward_hook(hidden), m.disc.register_forward_hook(hidden)]
    joint = list(m.losses(*[LabelsDraw(x, y, torch.arange(8))] * 2))[1]
    for hook in hooks:
        hook.remove()
    (_, logits), *judged = drawn
    log_q = logits.log_softmax(1)
    assert joint["omega"]["adv"].item() == pytest.approx(-sum(log_q[i, y[i]].item() for i in known) / 5)
    assert joint["phi"]["adv"].item() == pytest.approx(-sum(log_q[i].mean().item() for i in known) / 5)
    for (image, label), logit in judged:  # real, reconstructed, sampled
        f = m.disc.trunk(image)
        plain = m.disc.linear(f)[:, 0]
        assert torch.equal(label, y)
        assert torch.allclose(plain[y < 0].float(), logit[y < 0].float())
        assert not torch.isclose(plain[y >= 0].float(), logit[y >= 0].float()).any()


@equation("Zheng19", "11")
def test_samples_of_s_without_a_label():
    """Line 21 for y = -1: the mixture's samples, or the moment-matched normal's; both have its mean and variance."""
    y = torch.cat([torch.full((40_000,), -1), torch.full((20_000,), 2)])
    for unlabelled in ("known", "unseen"):
        m = bound(labelled=30, unlabelled=unlabelled)
        z = m._sample_s(y).detach()
        sigma2, p = m.log_var.exp().detach() + 1e-4, 0.25
        mu_t = sum(p * m.mu[c] for c in range(4)).detach()
        var_t = sum(p * sigma2[c] + p * m.mu[c] ** 2 for c in range(4)).detach() - mu_t**2
        free, of_2 = z[:40_000], z[40_000:]
        assert torch.allclose(free.mean(0), mu_t, atol=0.05)
        assert torch.allclose(free.var(0), var_t, rtol=0.05)
        assert torch.allclose(of_2.mean(0), m.mu[2].detach(), atol=0.05)
        kurtosis = ((free - mu_t) ** 4).mean(0) / var_t**2
        assert ((kurtosis - 3).abs() < 0.15).all() == (unlabelled == "unseen")  # the mixture is no normal


def test_noise_and_price_of_leakage():
    """Ours: z_s is decoded and judged with noise of a fixed size; z pays for what its means tell of the label."""
    m = bound(n_gm=1, sigma_s=0.5, leakage=3.0, lambda_rec_s=0.25, lambda_gan=0.0, lambda_adv=2.0)
    x, y = torch.rand(8, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, -1, 1, 2, 3])
    torch.manual_seed(1)
    gm, joint = list(m.losses(*[LabelsDraw(x, y, torch.arange(8))] * 2))
    torch.manual_seed(1)
    eps, eps_u, eps_s = (torch.randn(8, d, dtype=torch.float64) for d in (3, 4, 3))
    code, (mean, log_var) = linear(m.enc_s, x), linear(m.enc_u, x).chunk(2, 1)
    known = y >= 0
    lkd = -normal((code + 0.5 * eps)[known], m.mu[y[known]], m.log_var[y[known]].exp() + 1e-4).mean()
    assert gm["psi"]["lkd"].item() == pytest.approx(0.1 * lkd.item(), rel=1e-9)
    x_f = m.dec(code + 0.5 * eps_s, mean + (0.5 * log_var).exp() * eps_u)
    rec = 0.5 * (x - x_f).square().sum(1).mean() + 3 * math.log(2 * math.pi)
    assert joint["theta"]["rec"].item() == pytest.approx(rec.item(), rel=1e-9)
    assert joint["phi"]["rec"].item() == pytest.approx(2 * rec.item(), rel=1e-9)
    assert joint["psi"]["rec"].item() == pytest.approx(0.25 * rec.item(), rel=1e-9)
    kl = Gaussian(mean, log_var).kl().mean()
    price = 3 * kl * min(kl, 1)
    told = group_dependence(mean[known], y[known])
    assert joint["phi"]["leakage"].item() == pytest.approx((price * told).item(), rel=1e-9)
    guess = -m.classifier(mean + (0.5 * log_var).exp() * eps_u).log_softmax(1)[known].mean()
    assert joint["phi"]["adv"].item() == pytest.approx(2 * guess.item(), rel=1e-9)
    assert set(joint) == {"psi", "phi", "theta", "omega"}
    assert set(made(lambda_adv=0.0, lambda_gan=0.0).players) == {"psi", "mixture", "phi", "theta"}


def test_games():
    """Hinge in place of the logarithm; a discriminator that isn't told the class; one of bounded slope."""
    x, y = torch.rand(8, 6, dtype=torch.float64), torch.arange(8) % 4
    m = bound(gan="hinge", projection=False, spectral=True, n_gm=1)
    judged = []
    hook = m.disc.register_forward_hook(lambda *call: judged.append(call[-1]))
    joint = list(m.losses(*[LabelsDraw(x, y, torch.arange(8))] * 2))[1]
    hook.remove()
    real, f, p = judged
    assert joint["theta_d"]["real"].item() == pytest.approx((1 - real).relu().mean().item())
    assert joint["theta_d"]["prior"].item() == pytest.approx((1 + p).relu().mean().item())
    assert joint["theta"]["adv"].item() == pytest.approx(-(f + p).mean().item())
    m.eval()  # in training, each pass refines the largest singular value
    assert torch.equal(m.disc(x, y), m.disc(x, y.flip(0)))
    assert any("parametrizations" in name for name, _ in m.disc.named_parameters())


def test_likelihood_has_a_bound():
    """Without noise, mixture and code may shrink together; the variances stop at their floor."""
    m = bound()
    with torch.no_grad():
        m.mu.zero_()
        m.log_var.fill_(-1e3)
    highest = m.mixture.log_prob(torch.zeros(1, 1, 3, dtype=torch.float64)).max().item()
    assert highest == pytest.approx(-1.5 * (math.log(1e-4) + math.log(2 * math.pi)))
    q = bound(sigma_s=0.4).mixture  # with noise the best variance for a class at one point is the noise's
    at = torch.tensor(0.16).log()
    losses = [(0.16 / v.exp() + v) for v in (at - 0.1, at, at + 0.1)]  # 2 E[-log N(mu + 0.4 eps; mu, e^v)] a dimension
    assert losses[1] < min(losses[0], losses[2])
    assert q.variance.min() > 1e-4


def test_second_fit_without_labels(anyof, tmp_path):
    """Sec. 4.4: trained on labelled observations, then fine-tuned on others of unseen classes."""
    supervision = anyof(Labels, (6,))
    m = made(unlabelled="unseen")
    with pytest.raises(InputError, match=r"^y: no labels; train on labelled observations"):
        fit(m, Labels(supervision.x, [-1] * 48, classes=4), steps=1, progress=False)
    fit(m, supervision, steps=2, batch_size=16, progress=False)
    before = weights(m)
    run = fit(m, Labels(supervision.x, [-1] * 48, classes=4), steps=2, batch_size=16, progress=False)
    assert "psi/cls" not in run.metrics[-1]
    assert run.metrics[-1]["omega/adv"] == run.metrics[-1]["phi/adv"] == 0
    same = {name.split(".")[0] for name, p in m.named_parameters() if torch.equal(p, before[name])}
    assert same - {"disc"} == {"mu", "log_var", "classifier"}
    assert torch.equal(m.p_c, torch.full((4,), 0.25))
    m.save(tmp_path / "m")
    assert torch.equal(load(tmp_path / "m").prior(3, y=torch.tensor([0, 1, 2])).s.isfinite(), torch.ones(3, 3).bool())


def test_classes_without_a_label(anyof):
    x, y = anyof(Labels, (6,)).x, anyof(Labels, (6,)).y.clone()
    y[y == 1] = -1
    supervision = Labels(x, y, classes=6)
    assert supervision.facts()["never"] == [1, 4, 5]
    m = made(unlabelled="unseen")
    fit(m, supervision, steps=2, batch_size=16, progress=False)
    third = torch.tensor([1, 0, 1, 1, 0, 0]) / 3
    assert torch.allclose(m.p_c, third)
    assert torch.allclose(m.reference_s(2)[1], m.mu[[0, 2, 3]].mean(0), atol=1e-6)
    near = torch.cdist(m.prior(200).s, m.mu).argmin(1).unique()
    assert not set(near.tolist()) & {4, 5} or m.mixture.stddev.max() > 0.3
    for strange in (1, 4, 7, -1):
        with pytest.raises(InputError, match=rf"^y: class {strange}; the labelled classes are \[0, 2, 3\]"):
            generate(m, 2, y=strange)
    with pytest.raises(InputError, match=r"^classes: 6 in the data; label-relevant-vae was built for 3"):
        made(classes=3).bind(supervision)
    ten = made(classes=10)
    ten.bind(Labels(x, anyof(Labels, (6,)).y))
    assert len(ten.mu) == 10
    assert torch.allclose(ten.p_c, (torch.arange(10) < 4) / 4)
    with pytest.raises(InputError, match="knows no classes before it is trained"):
        made().prior(3)


def test_class_codes(anyof):
    """Sec. 4.3: z_s = z * sigma_c + mu_c; the same noise in two classes."""
    m = bound().float()
    noise, y = torch.randn(5, 3), torch.tensor([0, 3, 3, 1, 2])
    expected = torch.stack([e * (m.log_var[c].exp() + 1e-4).sqrt() + m.mu[c] for e, c in zip(noise, y)])
    assert torch.allclose(m.class_s(noise, y), expected, atol=1e-5)
    assert not m.class_s(noise, y).requires_grad
    with pytest.raises(InputError, match="y: class 9; the labelled classes are"):
        m.class_s(noise, y + 9)


def test_own_networks(anyof):
    """The paper's two encoders as a pair, or one that gives both codes and is one player."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 2 + 3 + 3)

        def forward(self, x):
            s, mean, log_var = self.layer(x).split([2, 3, 3], 1)
            return s, Gaussian(mean, log_var)

    class Irrelevant(Both):
        def forward(self, x):
            return super().forward(x)[1]

    class Decoder(nn.Linear):
        def forward(self, s, z):
            return super().forward(torch.cat([s, z], 1))

    supervision = anyof(Labels, (6,))
    pair = LabelRelevantVAE((nn.Linear(6, 2), Irrelevant()), Decoder(5, 6))
    fit(pair, supervision, steps=2, batch_size=16, progress=False)
    assert set(pair.players) == {"psi", "mixture", "phi", "theta", "omega", "theta_d"}
    assert pair.disc is not None  # none was given, the pixel GAN has one all the same
    one = LabelRelevantVAE(Both(), Decoder(5, 6), leakage=0.0, lambda_gan=0.0)
    run = fit(one, supervision, steps=2, batch_size=16, progress=False)
    assert set(one.players) == {"psi", "mixture", "theta", "omega"}
    assert {"psi/lkd", "psi/kl", "psi/adv", "psi/rec"} <= set(run.metrics[-1])
    for m in (pair, one):
        assert m.sizes == (2, 3)
        assert m.prior(4, y=torch.tensor([0, 1, 2, 3])).s.shape == (4, 2)


def test_refusals():
    with pytest.raises(InputError, match=r"^s, z: 0 and 4; label-relevant-vae needs"):
        LabelRelevantVAE.build((6,), s=0, z=4)
    with pytest.raises(InputError, match=r"^n_gm: 0"):
        made(n_gm=0)
    with pytest.raises(InputError, match="unlabelled"):
        made(unlabelled="unknown")
    with pytest.raises(InputError, match=r"^y: 1 class among 3 labels"):
        Labels(torch.rand(4, 6), [2, 2, 2, -1], classes=4)
