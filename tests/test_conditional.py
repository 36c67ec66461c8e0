"""Methods whose s is the label itself: the conditional VAE, CVAE-GAN and the projection GAN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from citing import equation
from trainings import compared, moved
from twofold import fit, generate, inpaint, load, networks, reconstruct, retrieve, swap
from twofold.distributions import Gaussian
from twofold.errors import InputError, UnsupportedError
from twofold.method import Code
from twofold.methods import CGAN, CVAEGAN, ConditionalVAE
from twofold.methods.cvae_gan import Centres
from twofold.supervision import Labels, LabelsDraw

ALL = [ConditionalVAE, CVAEGAN, CGAN]
ENCODING = [ConditionalVAE, CVAEGAN]
every = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name)
encoding = pytest.mark.parametrize("cls", ENCODING, ids=lambda cls: cls.name)


def one_hot(y, classes: int = 4) -> torch.Tensor:
    return torch.tensor([[float(c == k) for c in range(classes)] for k in y])


def ready(cls, anyof, shape=(6,), **options):
    method = cls.build(shape, z=3, arch="zheng19-toy" if len(shape) == 1 else "auto", **options)
    torch.manual_seed(0)
    method.bind(anyof(Labels, shape))
    return method


# -- networks that are told a label ------------------------------------------------------------------------------------


def test_a_told_layer_is_one_on_the_concatenation():
    """Zheng19, Sec. 4.2: the decoder takes z concatenated with the one-hot class."""
    decoder = networks.labelled("zheng19-toy", (6,), 3, 4)[1]
    first, rest = decoder.body.first[0], decoder.body.rest
    whole = nn.Linear(4 + 3, first.out_features)
    whole.weight.data = torch.cat([decoder.body.table.weight, first.weight], 1).data
    whole.bias.data = first.bias.data
    s, z = one_hot([0, 3, 1]), torch.randn(3, 3)
    assert torch.allclose(decoder(s, z), rest(whole(torch.cat([s, z], 1))), atol=1e-6)


@pytest.mark.parametrize("arch", list(networks.ARCHITECTURES))
def test_every_architecture_can_be_told(arch):
    shape = (1, 12, 9) if not isinstance(networks.ARCHITECTURES[arch], networks.Mlp) else (7,)
    encoder, decoder = networks.labelled(arch, shape, 3)
    x, s = torch.rand(4, *shape), one_hot([0, 1, 2, 2], 3)
    with pytest.raises(InputError, match=r"^s: the network knows no classes yet; call grow\(classes\)"):
        encoder(x, s)
    for net in (encoder, decoder):
        net.grow(3)
        net.eval()
    q = encoder(x, s)
    assert q.mean.shape == q.log_var.shape == (4, 3)
    other = encoder(x, s.roll(1, 0))
    assert [torch.allclose(q.mean[i], other.mean[i]) for i in range(4)] == [False, False, False, True]
    made, z = decoder(s, q.mean), torch.zeros(4, 3)
    assert (made.mean if isinstance(made, Gaussian) else made).shape == (4, *shape)
    blank = decoder(s, z)
    blank = blank.mean if isinstance(blank, Gaussian) else blank
    assert torch.allclose(blank[2], blank[3])
    assert not torch.allclose(blank[0], blank[1])


def test_grow_keeps_what_fits():
    encoder, _ = networks.labelled("mlp", (6,), 3, 4)
    table = encoder.trunk.table
    encoder.grow(4)
    assert encoder.trunk.table is table
    encoder.grow(5)
    assert encoder.trunk.table.in_features == 5


# -- the conditional VAE -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_the_bound_term_by_term(likelihood, anyof, noise):
    method = ready(ConditionalVAE, anyof, beta=2.5, likelihood=likelihood, scale=0.3)
    draw = anyof(Labels, (6,)).draw(0, batch_size=5)
    (terms,) = (update["model"] for update in method.losses(draw))
    q = method.enc(draw.x, one_hot(draw.y))
    mean, stddev = q.mean.double(), q.log_var.double().exp().sqrt()
    decoded = method.dec(one_hot(draw.y), (mean + stddev * noise[5, 3]).float()).double()
    rec = kl = 0
    for i in range(5):
        if likelihood == "gaussian":
            p_x = Normal(decoded[i], 0.3)
        else:
            p_x = Bernoulli(decoded[i].clamp(1e-6, 1 - 1e-6), validate_args=False)
        rec = rec - p_x.log_prob(draw.x[i].double()).sum() / 5
        kl = kl + kl_divergence(Normal(mean[i], stddev[i]), Normal(torch.zeros(3).double(), 1.0)).sum() / 5
    assert terms["rec"].item() == pytest.approx(rec.item(), rel=1e-5)
    assert terms["kl_z"].item() == pytest.approx(2.5 * kl.item(), rel=1e-5)


def test_the_bound_is_one_on_the_likelihood_given_the_class():
    """-log p(x|y) + KL(q(z|x, y) || p(z|x, y)), by integration over a single dimension of z."""
    torch.manual_seed(0)
    method = ConditionalVAE.build((2,), z=1, arch="zheng19-toy", classes=3, scale=0.5)
    x, y, n = torch.tensor([[0.4, -0.3]]), torch.tensor([2]), 40_000
    z = torch.linspace(-8, 8, 4001)[:, None]
    with torch.no_grad():
        terms = next(method.losses(LabelsDraw(x.expand(n, 2), y.expand(n), torch.arange(n))))["model"]
        q = method.enc(x, one_hot(y, 3))
        decoded = method.dec(one_hot([2] * len(z), 3), z).double()
    joint = Normal(decoded, 0.5).log_prob(x).sum(1) + Normal(0.0, 1.0).log_prob(z.double())[:, 0]
    log_q, step = Normal(q.mean, q.stddev).log_prob(z)[:, 0].double(), 16 / 4000
    evidence = (joint.logsumexp(0) + math.log(step)).item()
    bound = (log_q.exp() * (joint - log_q)).sum().item() * step
    assert bound < evidence - 1e-3
    assert sum(terms.values()).item() == pytest.approx(-bound, abs=0.03)


def test_it_learns_what_the_class_does_not_say():
    random = np.random.default_rng(0)
    y, free = random.integers(0, 3, 600), random.normal(size=600)
    x = np.stack([2.0 * y, free], 1) + 0.05 * random.normal(size=(600, 2))
    method = ConditionalVAE.build((2,), z=1, arch="zheng19-toy", scale=0.2)
    fit(method, Labels(x, y), steps=100, batch_size=64, optim={"lr": 2e-2}, progress=False)
    for k in range(3):
        made = generate(method, 500, y=k, seed=0)
        assert made[:, 0].mean().item() == pytest.approx(2 * k, abs=0.25)
        assert made[:, 1].std().item() == pytest.approx(1, abs=0.3)
    z = method.encode(x, y).z[:, 0].numpy()
    assert abs(np.corrcoef(z, free)[0, 1]) > 0.9
    assert abs(np.corrcoef(z, y)[0, 1]) < 0.2


# -- CVAE-GAN ----------------------------------------------------------------------------------------------------------

WEIGHTS = {"kl": 0.3, "pixel": 0.9, "pair_d": 0.7, "pair_c": 0.6, "mean_d": 0.5, "mean_c": 0.4}


def test_moving_means_class_by_class():
    """A class that is not in the batch keeps its mean, one seen for the first time takes the batch's."""
    centres, kept, random = Centres(3, 2, 0.75), {}, np.random.default_rng(0)
    for rows in ([0, 0, 2], [0, 2, 2], [2, 2, 2], [1, 0, 1]):
        f = random.normal(size=(3, 2)).astype(np.float32)
        found = centres(torch.from_numpy(f), torch.tensor(rows))
        for k in set(rows):
            mean = np.mean([f[i] for i in range(3) if rows[i] == k], axis=0)
            kept[k] = 0.75 * kept[k] + 0.25 * mean if k in kept else mean
        assert np.allclose(found, [kept.get(k, np.zeros(2)) for k in range(3)], atol=1e-6)
    before = centres.mean
    centres.eval()(torch.ones(1, 2), torch.tensor([0]))
    assert torch.equal(centres.mean, before)


@equation("Bao17", "Algorithm 1")
def test_bao17_algorithm_1(anyof):
    past: dict = {}

    def moving(name, features):
        """The mean of the features, joined with its past; the gradient is the batch's own."""
        mean = sum(features) / len(features)
        if name in past:
            mean = 0.9 * past[name] + 0.1 * mean
        past[name] = mean.detach()
        return mean

    def half_square(a, b):
        return sum(((a[i] - b[i]) ** 2).sum() / 2 for i in range(len(a))) / len(a)

    def reference(m, lr, draw):
        x_r, c_r = draw.x, draw.y
        c = one_hot(c_r)

        def C(x):
            return m.head_C(m.f_C(x)).softmax(1)

        def D(x):
            return torch.sigmoid(m.head_D(m.f_D(x)))[:, 0]

        L_C = -sum(C(x_r)[i, c_r[i]].log() for i in range(8)) / 8
        q = m.enc(x_r, c)
        z = q.mean + (0.5 * q.log_var).exp() * torch.randn(8, 4)
        L_KL = 0.5 * (q.mean**2 + q.log_var.exp() - 1 - q.log_var).sum() / 8
        x_f = m.dec(c, z)
        x_p = m.dec(c, torch.randn(8, 4))
        L_D = -(D(x_r).log() + (1 - D(x_f)).log() + (1 - D(x_p)).log()).mean()
        centres = [moving(name, m.f_D(x)) for name, x in (("real", x_r), ("fake", x_p))]
        L_GD = 0.5 * ((centres[0] - centres[1]) ** 2).sum()
        L_GC = 0
        for k in sorted(set(c_r.tolist()) | {k for k in past if isinstance(k, int)}):
            rows = [i for i in range(8) if c_r[i] == k]
            if rows:
                real, fake = (moving((k, name), m.f_C(x)[rows]) for name, x in (("real", x_r), ("fake", x_p)))
                past[k] = True
            else:
                real, fake = past[k, "real"], past[k, "fake"]
            L_GC = L_GC + 0.5 * ((real - fake) ** 2).sum()
        L_G = 0.9 * half_square(x_r, x_f) + 0.7 * half_square(m.f_D(x_r), m.f_D(x_f))
        L_G = L_G + 0.6 * half_square(m.f_C(x_r), m.f_C(x_f))
        theta_C, theta_D = ([*f.parameters(), *h.parameters()] for f, h in ((m.f_C, m.head_C), (m.f_D, m.head_D)))
        updates = [
            (L_C, theta_C),
            (L_D, theta_D),
            (L_G + 0.5 * L_GD + 0.4 * L_GC, list(m.dec.parameters())),
            (0.3 * L_KL + L_G, list(m.enc.parameters())),
        ]
        moved(updates, lr)

    method = CVAEGAN.build((6,), z=4, **WEIGHTS)
    compared(method, reference, 4, anyof(Labels, (6,)))
    assert len([k for k in past if isinstance(k, int)]) == 4


def test_the_weight_of_the_kl_follows_the_number_of_pixels(anyof):
    draw = anyof(Labels, (6,)).draw(0, batch_size=8)

    def kl(**options):
        method = ready(CVAEGAN, anyof, **options)
        torch.manual_seed(1)
        return next(method.losses(draw))["E"]["kl_z"].item()

    assert kl() == pytest.approx(kl(kl=3.0) * math.sqrt(6 / (3 * 128 * 128)))


def test_every_weight_is_that_of_its_term(anyof):
    draw = anyof(Labels, (6,)).draw(0, batch_size=8)

    def terms(**options):
        method = ready(CVAEGAN, anyof, **(dict.fromkeys(WEIGHTS, 1.0) | options))
        torch.manual_seed(1)
        update = next(method.losses(draw))
        return {name: term.item() for terms in update.values() for name, term in terms.items()}

    plain = terms()
    for option, term in zip(WEIGHTS, ("kl_z", "rec", "pair_D", "pair_C", "mean_D", "mean_C")):
        found = terms(**{option: 3.0})
        assert {t: found[t] / plain[t] for t in plain} == pytest.approx({t: 3.0 if t == term else 1.0 for t in plain})


# -- the projection GAN ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["hinge", "log"])
def test_two_steps_of_the_discriminator_then_one_of_the_generator(loss, anyof):
    def reference(m, lr, *draws):
        def logit(x, y):
            f, v = m.disc.trunk(x), m.disc.embed[0].weight
            scores = [m.disc.linear.weight[0] @ f[i] + m.disc.linear.bias[0] + v[y[i]] @ f[i] for i in range(8)]
            return torch.stack(scores)

        def mean(terms):
            return sum(terms) / 8

        for draw in draws:
            fake = logit(m.dec(one_hot(draw.y), torch.randn(8, 4)).detach(), draw.y)
            real = logit(draw.x, draw.y)
            if loss == "hinge":
                L_D = mean([max(1 - r, 0 * r) + max(1 + f, 0 * f) for r, f in zip(real, fake)])
            else:
                L_D = mean([-torch.sigmoid(r).log() - (1 - torch.sigmoid(f)).log() for r, f in zip(real, fake)])
            moved([(L_D, list(m.disc.parameters()))], lr)
        y = draws[-1].y
        fake = logit(m.dec(one_hot(y), torch.randn(8, 4)), y)
        L_G = mean([-f if loss == "hinge" else -torch.sigmoid(f).log() for f in fake])
        moved([(L_G, list(m.dec.parameters()))], lr)

    method, supervision = CGAN.build((6,), z=4, n_critic=2, loss=loss, spectral=False), anyof(Labels, (6,))
    torch.manual_seed(0)
    method.bind(supervision)
    with torch.no_grad():
        method.disc.linear.weight.mul_(20)  # some logits beyond the hinges, or its offset would stand still
    method.optim = {}  # plain gradient descent has no betas
    draws = compared(method, reference, 3, supervision, lr=0.02)
    index = torch.cat([draw.index for draw in draws])
    assert len(index.unique()) == len(index)  # each of its steps sees other observations


def test_spectral_normalisation_is_on_unless_asked_otherwise():
    assert CGAN.build((6,), classes=3).disc.spectral
    assert not CGAN.build((6,), classes=3, spectral=False).disc.spectral


def test_it_generates_and_that_is_all(anyof):
    method, x = ready(CGAN, anyof, (1, 8, 8)), torch.rand(2, 1, 8, 8)
    for use in (lambda: method.encode(x, [0, 1]), lambda: swap(method, x, x), lambda: reconstruct(method, x)):
        with pytest.raises(UnsupportedError, match=r"^CGAN has no encoder; it generates only$"):
            use()


def test_its_options_are_checked():
    for options, message in (
        ({"n_critic": 0}, r"^n_critic: 0; expected a whole number of at least 1"),
        ({"loss": "hinges"}, r"^loss: 'hinges' is not known \(did you mean 'hinge'\?\)"),
    ):
        with pytest.raises(InputError, match=message):
            CGAN.build((6,), **options)
    with pytest.raises(InputError, match=r"^history: 1.0; expected a share from 0 to below 1"):
        CVAEGAN.build((6,), history=1.0)


# -- the label is s ----------------------------------------------------------------------------------------------------


@every
def test_s_is_the_one_hot_label(cls, anyof):
    method = ready(cls, anyof, (1, 8, 8))
    assert method.sizes == (4, 3)
    code = method.prior(3, [2, 0, 2])
    assert torch.equal(code.s, one_hot([2, 0, 2]))
    assert torch.equal(method.prior(2, 3).s, one_hot([3, 3]))
    assert torch.equal(method.reference_s(2), torch.full((2, 4), 0.25))
    a, b = (generate(method, 5, y=k, seed=1) for k in (0, 1))
    assert not torch.equal(a, b)


@encoding
def test_a_swap_changes_the_class_and_keeps_z(cls, anyof):
    method, x, y = ready(cls, anyof, (1, 8, 8)), torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 0])
    code, wanted = method.encode(x, y), torch.tensor([3, 3, 0, 1, 2])
    assert torch.equal(code.s, one_hot(y))
    found = swap(method, x.roll(1, 0), x, wanted, y)
    assert torch.allclose(found, method.decode(Code(one_hot(wanted), code.z)), atol=1e-6)
    assert torch.allclose(found, swap(method, torch.rand(5, 1, 8, 8), x, wanted, y))  # of s_from, its label is all
    assert torch.allclose(reconstruct(method, x, "s", y), method.decode(Code(one_hot(y), torch.zeros(5, 3))), atol=1e-6)


@encoding
def test_encoding_without_labels_says_so(cls, anyof):
    method, x = ready(cls, anyof, (1, 8, 8)), torch.rand(2, 1, 8, 8)
    needs = rf"^y: None; {cls.__name__} encodes with labels, give y, one an observation$"
    for use in (
        lambda: method.encode(x),
        lambda: reconstruct(method, x),
        lambda: inpaint(method, x, torch.ones(8, 8)),
        lambda: swap(method, x, x, [0, 1]),
        lambda: retrieve(method, x, x, 1, y=[0, 1]),
    ):
        with pytest.raises(InputError, match=needs):
            use()
    for y, message in (
        ([0, 4], r"^y: 4 is out of range; there are classes 0\.\.3"),
        ([0, -1], r"^y: -1 is out of range"),
        ([0.5, 1], r"^y: .*; expected whole numbers"),
        ([0], r"^y: 1 labels for 2 observations"),
    ):
        with pytest.raises(InputError, match=message):
            method.encode(x, y)


@every
def test_generating_needs_a_class_that_is_there(cls, anyof):
    method = ready(cls, anyof)
    with pytest.raises(InputError, match=rf"^y: None; {cls.__name__} generates from a class, give y$"):
        generate(method, 2)
    with pytest.raises(InputError, match=r"^y: 4 is out of range; there are classes 0\.\.3"):
        generate(method, 2, y=4)


@every
def test_missing_labels_are_refused_before_training(cls):
    x, y = np.random.default_rng(0).random((8, 6), np.float32), [0, 1, -1, 1, 0, -1, 0, 1]
    with pytest.raises(InputError, match=rf"^y: 2 of 8 labels are not known \(-1\); {cls.__name__} needs all"):
        fit(cls.build((6,)), Labels(x, y), steps=1, progress=False)


@every
def test_classes_come_with_the_data_or_from_build(cls, anyof, tmp_path):
    with pytest.raises(InputError, match=r"^classes: not known yet; fit or bind learns them"):
        cls.build((6,)).prior(2, 1)
    method = cls.build((6,), z=3, classes=7)
    assert generate(method, 2, y=6).shape == (2, 6)
    fit(method, anyof(Labels, (6,)), steps=1, progress=False)
    assert method.sizes == (7, 3)
    method.save(tmp_path / "m")
    assert torch.equal(generate(method, 2, y=6, seed=0), generate(load(tmp_path / "m"), 2, y=6, seed=0))
    with pytest.raises(InputError, match=rf"^classes: 4 in the data; {cls.name} was built for 3"):
        cls.build((6,), classes=3).bind(anyof(Labels, (6,)))
    bound = ready(cls, anyof)
    x = np.random.default_rng(0).random((8, 6), np.float32)
    bound.bind(Labels(x, [0, 1, 2, 3, 4, 5, 0, 1]))  # other data, other classes
    assert bound.sizes == (6, 3)
    assert generate(bound, 1, y=5).shape == (1, 6)


# -- networks of one's own ---------------------------------------------------------------------------------------------


class Enc(nn.Module):
    def __init__(self, z=2, point=False, classes=4):
        super().__init__()
        self.layer, self.point = nn.Linear(6 + classes, z if point else 2 * z), point

    def forward(self, x, s):
        h = self.layer(torch.cat([x, s], 1))
        return h if self.point else Independent(Normal(*_spread(*h.chunk(2, 1))), 1)


def _spread(mean, log_scale):
    return mean, log_scale.exp()


class Dec(nn.Module):
    def __init__(self, z=2, classes=4, out=6):
        super().__init__()
        self.layer = nn.Linear(classes + z, out)

    def forward(self, s, z):
        return self.layer(torch.cat([s, z], 1))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6 + 4, 1)

    def forward(self, x, y):
        return self.layer(torch.cat([x, nn.functional.one_hot(y, 4).float()], 1))[:, 0]


OWN = {
    "conditional-vae": lambda: ConditionalVAE(Enc(), Dec()),
    "cvae-gan": lambda: CVAEGAN(Enc(), Dec()),
    "cvae-gan, all own": lambda: CVAEGAN(Enc(), Dec(), nn.Linear(6, 5), nn.Sequential(nn.Linear(6, 3), nn.ReLU())),
    "cgan": lambda: CGAN(Dec(), z=2),
    "cgan, all own": lambda: CGAN(Dec(), Critic(), 2),
}


@pytest.mark.parametrize("name", OWN)
def test_own_networks(name, anyof, tmp_path):
    torch.manual_seed(0)
    method, supervision = OWN[name](), anyof(Labels, (6,))
    run = fit(method, supervision, steps=2, batch_size=16, progress=False)
    assert all(math.isfinite(v) for v in run.metrics[-1].values())
    assert method.sizes == (4, 2)
    method.save(tmp_path / "m")
    again = load(tmp_path / "m", method=OWN[name]())
    assert torch.equal(generate(method, 3, y=1, seed=0), generate(again, 3, y=1, seed=0))
    if hasattr(method, "enc"):
        x, y = supervision.x[:5], supervision.y[:5]
        assert torch.equal(method.encode(x, y).z, again.encode(x, y).z)


def test_own_networks_are_tried(anyof):
    for make, message in (
        (lambda: ConditionalVAE(Enc(point=True), Dec()), "^encoder: its z is a point; expected a Gaussian"),
        (lambda: ConditionalVAE(Enc(), Dec(out=5)), r"^decoder: gave \(2, 5\) for observations of shape \(6,\)"),
        (lambda: CVAEGAN(Enc(), Dec(z=3)), r"^networks: mat1 and mat2 .* on input \(2, 6\) with s \[2, 4\]"),
        (lambda: CGAN(Dec(classes=3), z=2), r"^networks: mat1 and mat2 .* on input \(2, 6\) with s \[2, 4\]"),
        (lambda: CGAN(Dec(), z=7), r"^networks: mat1 and mat2"),
    ):
        with pytest.raises(InputError, match=message):
            fit(make(), anyof(Labels, (6,)), steps=1, progress=False)
