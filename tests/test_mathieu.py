"""Mathieu16: the loss and the algorithm against the paper's text, the two-step variant, networks of one's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from citing import equation
from twofold import discriminators, fit, generate, load, swap
from twofold.arrays import mix
from twofold.errors import InputError, UnsupportedError
from twofold.method import Code
from twofold.methods import Mathieu, names
from twofold.methods.mathieu import SpecifiedEncoder
from twofold.supervision import Triplets

WEIGHTS = {"reconstruction": 0.7, "same_class": 0.4, "kl": 0.3, "gan": 0.6, "gan_prior": 0.2, "leakage": 0.0}


def encoded(m, x):
    """Enc(x) = (s, mu, log sigma^2), one image at a time."""
    head = torch.cat([m.enc.head(m.enc.trunk(one[None])) for one in x])
    return head.split([3, 4, 4], dim=1)


def adversary(m, x, ids):
    """log of Adv(x, id) and of 1 - Adv(x, id): the label's three tables are added at the first three layers."""
    logs, layers = [], [layer for layer in m.disc.trunk if isinstance(layer, nn.Linear)]
    assert len(layers) == 3
    for one, name in zip(x, ids):
        h = one
        for layer, table in zip(layers, m.disc.embed):
            h = layer.weight @ h + layer.bias + table.weight[name]
            h = torch.where(h > 0, h, 0.2 * h)
        p = torch.sigmoid(m.disc.linear.weight[0] @ h + m.disc.linear.bias[0])
        logs.append(torch.stack([p.log(), (1 - p).log()]))
    return torch.stack(logs, 1)


def model_terms(m, draw, noise, prior):
    """Eq. 5 with the KL, on the images that Algorithm 1 makes; likelihood N(x; Dec, 0.5^2)."""
    (s_1, mu, log_var), (s_same, *_), (s_2, *_) = (encoded(m, x) for x in (draw.x, draw.x_same, draw.x_other))
    q = Normal(mu, (0.5 * log_var).exp())
    z_1 = q.mean + q.stddev * noise
    n = len(draw.x)

    def nll(X):
        return -Normal(X, 0.5).log_prob(draw.x).sum() / n

    def L_gan(X):
        return -adversary(m, X, draw.y_other)[0].sum() / n

    return {
        "rec": 0.7 * nll(m.dec(s_1, z_1)),
        "rec_same": 0.4 * nll(m.dec(s_same, z_1)),
        "kl_z": 0.3 * kl_divergence(q, Normal(torch.zeros_like(mu), torch.ones_like(mu))).sum() / n,
        "gan": 0.6 * L_gan(m.dec(s_2, z_1)),
        "gan_prior": 0.2 * L_gan(m.dec(s_2, prior)),
    }


def adversary_terms(m, fresh, noise):
    (_, mu, log_var), (s_2, *_) = encoded(m, fresh.x), encoded(m, fresh.x_other)
    X_12 = m.dec(s_2, mu + (0.5 * log_var).exp() * noise)
    n = len(fresh.x)
    return {
        "fake": -adversary(m, X_12, fresh.y_other)[1].sum() / n,
        "real": -adversary(m, fresh.x_other, fresh.y_other)[0].sum() / n,
    }


def made(**options) -> Mathieu:
    return Mathieu.build((6,), s=3, z=4, arch="zheng19-toy", **{"scale": 0.5, **WEIGHTS, **options})


def joint(m: Mathieu) -> Mathieu:
    """The trunk shared, as the paper has it."""
    m.enc = type(m.enc)(m.enc.trunk, m.enc.head.in_features, 3, 4, point=True)
    return m


@pytest.fixture
def triplets(anyof):
    return anyof(Triplets, (6,))


@equation("Mathieu16", "5")
def test_the_terms_of_the_loss(triplets):
    torch.manual_seed(1)
    m = joint(made())
    m.bind(triplets)
    draw, fresh = (triplets.draw(i, batch_size=8) for i in (0, 1))
    torch.manual_seed(5)
    found = list(m.losses(draw, fresh))
    torch.manual_seed(5)
    noise = [torch.randn(8, 4) for _ in range(3)]
    expected = [model_terms(m, draw, *noise[:2]), adversary_terms(m, fresh, noise[2])]
    for (terms,), wanted in zip((u.values() for u in found), expected):
        assert terms.keys() == wanted.keys()
        for name, value in terms.items():
            assert value.item() == pytest.approx(wanted[name].item(), rel=1e-4), name


def descend(terms, parameters, lr):
    grads = torch.autograd.grad(sum(terms.values()), parameters)
    with torch.no_grad():
        for p, g in zip(parameters, grads):
            p -= lr * g


@equation("Mathieu16", "Algorithm 1")
def test_the_algorithm(triplets):
    """Plain gradient descent: the model, then the adversary on a fresh pair that the moved model encodes."""
    torch.manual_seed(1)
    m = joint(made())
    m.bind(triplets)
    copy = joint(made())
    copy.bind(triplets)
    copy.load_state_dict(m.state_dict())
    lr, before = 0.01, {k: v.clone() for k, v in m.named_parameters()}
    fit(m, triplets, steps=2, batch_size=8, seed=3, optim={"name": "sgd", "lr": lr}, progress=False)
    model, critic = [*copy.enc.parameters(), *copy.dec.parameters()], [*copy.disc.parameters()]
    anchors = []
    for step in range(2):
        torch.manual_seed(mix(3, 11, step, 0))
        noise = [torch.randn(8, 4) for _ in range(3)]
        draw, fresh = (triplets.draw(2 * step + i, 3, batch_size=8) for i in (0, 1))
        anchors += [draw.x, fresh.x]
        descend(model_terms(copy, draw, *noise[:2]), model, lr)
        descend(adversary_terms(copy, fresh, noise[2]), critic, lr)
    assert len(torch.cat(anchors).unique(dim=0)) == 4 * 8  # the adversary's pair is a fresh one
    for (name, p), q in zip(m.named_parameters(), copy.parameters()):
        assert not torch.equal(p, before[name]), name
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6), name


def test_no_gradient_passes_between_the_players(triplets):
    m = made()
    m.bind(triplets)
    updates = m.losses(*(triplets.draw(i, batch_size=8) for i in (0, 1)))
    next(updates)
    terms = next(updates)["adversary"]
    sum(terms.values()).backward()
    assert all(p.grad is None for p in [*m.enc.parameters(), *m.dec.parameters()])
    assert all(p.grad is not None for p in m.disc.parameters())


def test_leakage_is_priced_by_what_z_holds(triplets):
    from twofold.divergences import group_dependence

    m = made(leakage=2.0)
    m.bind(triplets)
    draws = [triplets.draw(i, batch_size=8) for i in (0, 1)]
    terms = next(m.losses(*draws))["model"]
    z = torch.cat([m.enc(x)[1].mean for x in draws[0][:3]])
    x = torch.cat(draws[0][:3])
    row = torch.tensor([next(i for i in range(24) if torch.equal(x[i], x[j])) for j in range(24)])
    told = group_dependence(z, torch.cat([draws[0].y, draws[0].y, draws[0].y_other]), row=row)
    assert terms["leakage"].item() == pytest.approx(2.0 * terms["kl_z"].item() / 0.3 * max(0, told.item()), rel=1e-4)
    assert told > 0


def test_without_its_gan_terms_there_is_no_adversary(triplets, tmp_path):
    m = made(gan=0.0, gan_prior=0.0)
    assert (m.players, m.draws, m.disc) == ({"model": "enc dec"}, 1, None)
    fit(m, triplets, steps=2, batch_size=8, progress=False, out=tmp_path / "run")
    assert load(tmp_path / "run").players == m.players
    both = made(gan=0.0)
    both.bind(triplets)
    terms = next(both.losses(*(triplets.draw(i, batch_size=8) for i in (0, 1))))["model"]
    assert terms.keys() == {"rec", "rec_same", "kl_z", "gan_prior"}


def test_the_adversary_s_default_weight_grows_as_the_root_of_the_pixels(triplets):
    m, told = made(gan=None), []
    m.bind(triplets)
    draws = [triplets.draw(i, batch_size=8) for i in (0, 1)]
    for weight in (None, 1.0):
        m.gan = weight
        torch.manual_seed(0)
        told.append(next(m.losses(*draws))["model"]["gan"].item())
    assert told[0] == pytest.approx(math.sqrt(6) * told[1], rel=1e-5)


def test_identities_need_no_names(anyof):
    x = torch.rand(12, 6)
    m = made()
    fit(m, Triplets(x, ["ada", "bo", "cy"] * 4), steps=1, batch_size=8, progress=False)
    assert m.disc.classes == 3
    new = torch.rand(5, 6)  # of nobody in the training set
    assert swap(m, new, new.flip(0)).shape == (5, 6)
    assert generate(m, 4, examples=new[:2], seed=0).shape == (4, 6)
    with pytest.raises(UnsupportedError, match="examples"):
        generate(m, 4)


@pytest.mark.parametrize(("arch", "first"), [("mathieu16-small", (64, 5, 2)), ("mathieu16-large", (64, 3, 1))])
def test_the_papers_networks(arch, first):
    """Supplement: three 5 x 5 convolutions of stride 2, or six of 3 x 3, stride 2 every other layer; BN and ReLU."""
    m = Mathieu.build((3, 16, 16), s=5, z=7, arch=arch)
    convs = [layer for layer in m.enc.trunk if isinstance(layer, nn.Conv2d)]
    assert (convs[0].out_channels, convs[0].kernel_size[0], convs[0].stride[0]) == first
    assert [c.stride[0] for c in convs] == ([2, 2, 2] if arch == "mathieu16-small" else [1, 2] * 3)
    kinds = [type(layer) for layer in m.enc.trunk]
    assert kinds.count(nn.BatchNorm2d) == kinds.count(nn.ReLU) == len(convs)
    assert m.enc.head.out_features == 5 + 2 * 7  # s is a point, one linear layer on the shared trunk for both
    disc = [layer for layer in m.disc.trunk if isinstance(layer, nn.Conv2d)]
    assert [(c.kernel_size[0], c.stride[0]) for c in disc] == [(5, 2)] * 3
    s, s_, z, z_ = (torch.randn(1, d) for d in (5, 5, 7, 7))
    into = m.dec.body[0][0]  # both codes through a linear layer, and added
    added = into(torch.cat([s, z], 1)) + into(torch.cat([s_, z_], 1)) - into.bias
    assert torch.allclose(into(torch.cat([s + s_, z + z_], 1)), added, atol=1e-5)


# -- two steps ---------------------------------------------------------------------------------------------------------


def test_the_first_step_is_a_classifier_on_s(triplets):
    first = SpecifiedEncoder.build((6,), s=3, arch="zheng19-toy", hidden=8)
    first.bind(triplets)
    draw = triplets.draw(0, batch_size=8)
    (terms,) = next(first.losses(draw)).values()
    total = 0.0
    for x, y in ((draw.x, draw.y), (draw.x_same, draw.y), (draw.x_other, draw.y_other)):
        for one, name in zip(x, y):
            s = first.enc(one[None])[0].mean[0]
            h = (first.classifier[0].weight @ s + first.classifier[0].bias).clamp(min=0)
            out = first.classifier[2].weight @ h + first.classifier[2].bias
            total -= (out[name].exp() / out.exp().sum()).log().item()
    assert terms["class"].item() == pytest.approx(total / 24, rel=1e-4)
    assert "specified-encoder" not in names()  # it can't decode
    with pytest.raises(UnsupportedError, match="no decoder"):
        first.decode(Code(torch.zeros(1, 3), torch.zeros(1, 0)))


def test_two_steps(anyof, tmp_path):
    triplets = anyof(Triplets, (1, 12, 12), n=32)
    first = SpecifiedEncoder.build((1, 12, 12), s=3, arch="mathieu16-small")
    run = fit(first, triplets, steps=3, batch_size=8, progress=False, out=tmp_path / "first")
    assert math.isfinite(run.metrics[-1]["model/class"])
    again = load(tmp_path / "first", method=SpecifiedEncoder.build((1, 12, 12), s=3, arch="mathieu16-small"))
    code = first.encode(triplets.x)
    assert torch.equal(code.s, again.encode(triplets.x).s)
    assert code.z.shape == (32, 0)

    m = Mathieu.build((1, 12, 12), s=3, z=4, s_encoder=first)
    before = {k: v.clone() for k, v in m.enc_s.state_dict().items()}  # running statistics, too
    fit(m, triplets, steps=2, batch_size=8, progress=False, out=tmp_path / "second")
    assert torch.equal(m.encode(triplets.x).s, code.s)
    assert all(torch.equal(v, before[k]) for k, v in m.enc_s.state_dict().items())
    assert not any(p.requires_grad for p in m.enc_s.parameters())
    assert all(p.requires_grad for p in first.parameters())  # its own encoder may go on
    loaded = load(tmp_path / "second")
    assert loaded.config == m.config
    assert all(map(torch.equal, loaded.encode(triplets.x), m.encode(triplets.x)))
    assert all(torch.equal(v, before[k]) for k, v in loaded.enc_s.state_dict().items())


@pytest.mark.parametrize("wrong", [{"s": 4}, {"shape": (7,)}])
def test_a_first_step_of_another_size_is_refused(wrong):
    first = SpecifiedEncoder.build((6,), s=3)
    with pytest.raises(InputError, match=r"^s_encoder: gives 3 dimensions for observations of shape \(6,\); expected"):
        Mathieu.build(**{"shape": (6,), "s": 3, "z": 4, **wrong}, s_encoder=first)
    with pytest.raises(InputError, match=r"^s_encoder: Linear; expected a SpecifiedEncoder; networks of your own"):
        Mathieu.build((6,), s=3, s_encoder=nn.Linear(6, 3))


class Halves(nn.Module):
    """x -> (s, z), or z alone: tensors and torch's own normals."""

    def __init__(self, s: int):
        super().__init__()
        self.s, self.net = s, nn.Linear(6, s + 4)

    def forward(self, x):
        out = self.net(x)
        z = Normal(out[:, self.s :], torch.ones(()))
        return (out[:, : self.s], z) if self.s else z


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(7, 6)

    def forward(self, s, z):
        return self.net(torch.cat([s, z], 1))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_networks_of_ones_own(triplets, frozen, own, tmp_path):
    def new():
        encoder = Halves(0 if frozen else 3)
        critic = [discriminators.build("zheng19-toy", (6,), "embedding")] if own else []
        return Mathieu(encoder, Joined(), *critic, s_encoder=s_encoder)

    s_encoder = nn.Linear(6, 3) if frozen else None
    m = new()
    fit(m, triplets, steps=2, batch_size=8, progress=False)
    assert m.sizes == (3, 4)
    assert m.disc.classes == 4
    if frozen:
        assert torch.allclose(m.encode(triplets.x).s, s_encoder(triplets.x), atol=1e-6)
    m.save(tmp_path / "m")
    loaded = load(tmp_path / "m", method=new())
    assert all(map(torch.equal, loaded.encode(triplets.x), m.encode(triplets.x)))
