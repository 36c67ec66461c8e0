"""Bouchacourt18 beyond one product of normals: the other methods, several groupings, evidence and few shots."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

import twofold
from citing import equation
from twofold import curves, fit, metrics
from twofold.data import Dataset
from twofold.distributions import Gaussian, Point
from twofold.divergences import group_dependence, group_leak, mates
from twofold.errors import InputError
from twofold.method import Code
from twofold.methods import MLVAE, VAE, GroupKLVAE, GroupSVI, SVIEncode
from twofold.methods.grouped import Guess
from twofold.optimisers import LazyAdam
from twofold.supervision import Groups, Images


def normal(mean, log_var):
    return torch.distributions.Independent(Normal(mean, torch.exp(0.5 * log_var)), 1)


def standard(like):
    return normal(torch.zeros_like(like), torch.zeros_like(like))


def compare(method, loss, reference):
    parameters = [p for p in method.parameters() if p.numel() and p.requires_grad]
    assert loss.item() == pytest.approx(reference.item(), rel=1e-10)
    for ours, theirs in zip(*(torch.autograd.grad(v, parameters, allow_unused=True) for v in (loss, reference))):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.allclose(ours, theirs, rtol=1e-7, atol=1e-9)


def weights(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


@pytest.fixture
def groups():
    """Four chunks of up to four: two members, four, one, three."""
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.float64)
    x = torch.rand(4, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    group = torch.tensor([3, 1, 0, 1])
    of = group[:, None, None].expand(4, 4, 1)
    return SimpleNamespace(x=x, mask=mask, group=group, groups=of, index=torch.arange(16).view(4, 4))


# -- the regularised objective -----------------------------------------------------------------------------------------


@equation("Bouchacourt18", "supplement 18")
def test_regularised_objective(groups, noise):
    method = GroupKLVAE.build((6,), s=2, z=3, scale=0.4, lambda_s=0.7, beta=1.5, leakage=0.0).double()
    (update,) = method.losses(groups)
    q_C, q_S = method.enc(groups.x.flatten(0, 1))
    eps_C, eps_S = noise[torch.Size([16, 2])], noise[torch.Size([16, 3])]
    members = [i for i in range(16) if groups.mask.flatten()[i]]
    elbo = 0
    for i in members:
        c = q_C.mean[i] + q_C.stddev[i] * eps_C[i]
        s = q_S.mean[i] + q_S.stddev[i] * eps_S[i]
        elbo = elbo + Normal(method.dec(c[None], s[None])[0], 0.4).log_prob(groups.x.flatten(0, 1)[i]).sum()
        for q in (q_C, q_S):
            elbo = elbo - 1.5 * kl_divergence(normal(q.mean[i], q.log_var[i]), standard(q.mean[i]))
    penalty = 0
    for pairs in ([(0, 1)], [(4, 5), (6, 7)], [], [(12, 13)]):  # (X_2i, X_2i+1) of each group
        for i, j in pairs:
            a, b = (normal(q_C.mean[k], q_C.log_var[k]) for k in (i, j))
            penalty = penalty + (kl_divergence(a, b) + kl_divergence(b, a)) / 2 / len(pairs)
    compare(method, sum(update["model"].values()), -elbo / len(members) + 0.7 * penalty / 4)


@pytest.mark.parametrize("kind", [MLVAE, GroupKLVAE])
def test_a_group_is_more_than_one(kind, anyof):
    supervision = anyof(Groups, (6,))
    with pytest.raises(InputError, match=rf"^per_group: 1; {kind.name} learns from what members of a group share"):
        kind.build((6,), leakage=0.0).bind(Groups(supervision.x, supervision.group, per_group=1))
    with pytest.raises(InputError, match=rf"^s: 0; {kind.name} needs at least one dimension of s"):
        kind.build((6,), s=0)


# -- the price of a leak -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MLVAE, GroupKLVAE])
@pytest.mark.parametrize("twice", [False, True])
def test_price_of_a_leak(groups, kind, twice):
    """An image that stands in a batch twice is no pair with itself."""
    method = kind.build((6,), s=2, z=3, scale=0.4, leakage=2.0)
    known = Groups(torch.rand(20, 6), [0] * 5 + [1] * 9 + [2] + [3] * 5)
    method.bind(known)
    method.double()
    if twice:
        groups.index[1, 3], groups.x[1, 3] = groups.index[3, 0], groups.x[3, 0]
    adversary, model = method.losses(groups)
    z = method.enc(groups.x.flatten(0, 1))[1].mean
    rows = [i for i in range(16) if groups.mask.flatten()[i]]
    ids, group = groups.index.flatten().tolist(), groups.group.repeat_interleave(4).tolist()
    mean = sum(z[i] for i in rows) / len(rows)
    deviation = (sum((z[i] - mean).square() for i in rows) / len(rows)).sqrt()
    share = {0: 5 / 19, 1: 9 / 19, 2: 0, 3: 5 / 19}  # a group of one has nothing to hide
    pairs = [(i, j) for i in rows for j in rows if group[i] == group[j] and ids[i] != ids[j]]
    nats = []
    for i in sorted({i for i, _ in pairs}):
        logits = method.adversary[0].layers(((z[i] - mean) / (deviation + 1e-4))[None])[0]
        nats.append(logits[group[i]] - logits.exp().sum().log() - math.log(share[group[i]]))
    guess = sum(nats) / len(nats)
    assert adversary["adversary"]["guess"].item() == pytest.approx(-guess.item(), rel=1e-6)
    (moved,) = torch.autograd.grad(adversary["adversary"]["guess"], [next(method.enc.parameters())], allow_unused=True)
    assert moved is None
    within = group_leak(z, *(each.flatten() for each in (torch.tensor(group), groups.mask, groups.index)))
    trust = min(1, len(pairs) / 64)
    kl = model["model"]["kl_z"].item()
    wanted = 2 * kl * (within.item() + trust * max(0, guess.item()))
    assert model["model"]["leakage"].item() == pytest.approx(wanted, rel=1e-6)


def test_an_adversary_finds_a_group_that_z_shows_and_none_that_it_hides():
    """Up to the group's entropy, in nats; and no more than nothing."""
    random = torch.Generator().manual_seed(0)
    group = torch.repeat_interleave(torch.arange(3), torch.tensor([128, 64, 64]))
    pairs = mates(group)
    noise = torch.randn(256, 2, generator=random)
    for z, told in ((noise + 9 * group[:, None], 1.5 * math.log(2)), (noise, 0.0)):
        torch.manual_seed(0)
        guess = Guess(2, 3)
        guess.expect(group)
        optimiser = torch.optim.Adam(guess.parameters(), 1e-2)
        for _ in range(60):
            z_new = z if told else torch.randn(256, 2, generator=random)
            optimiser.zero_grad()
            (-guess(z_new, group, pairs)).backward()
            optimiser.step()
        assert guess(z if told else noise, group, pairs).item() == pytest.approx(told, abs=0.05)


class Taught(MLVAE):
    """With a player of its own."""

    players = {"model": "enc dec", "teacher": "head"}

    def __init__(self, encoder, decoder, **options):
        super().__init__(encoder, decoder, **options)
        self.head = torch.nn.Linear(2, 2)


@pytest.mark.parametrize(("leakage", "wanted"), [(0.0, ["model", "teacher"]), (1.0, ["model", "teacher", "adversary"])])
def test_an_adversary_joins_the_players(leakage, wanted):
    assert list(Taught(*MLVAE.networks((6,), 2, 2, None, "auto"), leakage=leakage).players) == wanted


def test_a_row_of_two_sets_is_no_pair():
    """Where both sets hold the same observations, they tell nothing of the set."""
    z, row = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20)
    group = torch.tensor([0, 1]).repeat_interleave(20)
    assert abs(group_dependence(torch.cat([z, z]), group, row=torch.cat([row, row])).item()) < 1e-5


def test_adversaries_follow_the_groupings_and_are_kept(tmp_path):
    x, who = torch.rand(24, 6), torch.arange(24) % 4
    both = Groups(x, {"who": who, "session": torch.arange(24) // 3})
    method = MLVAE.build((6,), s=4, z=2)
    fit(method, both, steps=2, batch_size=16, progress=False)
    assert [each.groups for each in method.adversary] == [4, 8]
    method.save(tmp_path / "m.safetensors")
    again = twofold.methods.load(tmp_path / "m.safetensors")
    assert weights(again).keys() == weights(method).keys()
    assert all(torch.equal(a, b) for a, b in zip(weights(again).values(), weights(method).values()))
    kept = [method.adversary[0]]
    method.bind(both)
    assert method.adversary[0] is kept[0]
    empty = MLVAE.build((6,), s=4, z=0)  # nothing to guess from
    for _ in range(2):
        fit(empty, Groups(x, who), steps=1, batch_size=16, progress=False)
    with pytest.raises(InputError, match=r"^bind: was not called"):
        list(MLVAE.build((6,)).losses(Groups(x, who).draw(0, batch_size=16)))
    many = Guess(2, 5000)  # folders of two images
    many.expect(torch.arange(10_000) // 2)
    assert many.share.shape == (1024,)
    assert many.share.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("kind", [MLVAE, GroupKLVAE])
def test_a_price_on_the_leak_needs_two_groups_in_a_batch(kind, anyof):
    supervision = anyof(Groups, (6,))
    whole = Groups(supervision.x, supervision.group, per_group=5)
    with pytest.raises(InputError, match=r"^per_group: 5 leaves one group in a batch"):
        fit(kind.build((6,)), whole, steps=1, batch_size=8, progress=False)
    fit(kind.build((6,), leakage=0.0), whole, steps=1, batch_size=8, progress=False)


@pytest.mark.parametrize("kind", [MLVAE, GroupKLVAE])
def test_codes_have_encoders_of_their_own_unless_the_paper_shares_them(kind):
    def alone(**more) -> bool:
        return kind.build((1, 8, 8), **more).enc.trunk_s is not None

    assert alone()
    assert not alone(arch="bouchacourt18-mnist")
    assert not alone(separate=False)
    assert alone(arch="bouchacourt18-mnist", separate=True)


# -- inference without an encoder --------------------------------------------------------------------------------------


@equation("Bouchacourt18", "3", "5", "Algorithm 1", "supplement 14")
def test_svi_objective(anyof, noise):
    supervision = anyof(Groups, (6,))
    method = GroupSVI.build((6,), s=2, z=3, scale=0.4, beta=1.5)
    method.bind(supervision)
    method.double()
    with torch.no_grad():
        for p in (method.C_log_var, method.S_log_var):
            p.uniform_(-1, 1)
    noise.clear()
    draw = supervision.draw(0, batch_size=16)
    draw = draw._replace(x=draw.x.double(), mask=draw.mask.double())
    (update,) = method.losses(draw)
    assert update["model"] is update["posterior"]
    G, K = draw.mask.shape
    eps_C, eps_S = noise[torch.Size([K, G, 2])], noise[torch.Size([G * K, 3])].view(G, K, 3)
    average = 0
    for g in range(G):
        C_mean, C_log_var = method.C_mean[draw.group[g]], method.C_log_var[draw.group[g]]
        share = draw.mask[g].sum() / (supervision.group == draw.group[g]).sum()  # of the group, in this chunk
        elbo = -1.5 * share * kl_divergence(normal(C_mean, C_log_var), standard(C_mean))
        for k in range(K):
            if draw.mask[g, k]:
                S_mean, S_log_var = method.S_mean[draw.index[g, k]], method.S_log_var[draw.index[g, k]]
                c = C_mean + (0.5 * C_log_var).exp() * eps_C[k, g]
                s = S_mean + (0.5 * S_log_var).exp() * eps_S[g, k]
                elbo = elbo + Normal(method.dec(c[None], s[None])[0], 0.4).log_prob(draw.x[g, k]).sum()
                elbo = elbo - 1.5 * kl_divergence(normal(S_mean, S_log_var), standard(S_mean))
        average = average + elbo / G
    compare(method, sum(update["model"].values()), -average)


def test_chunks_of_a_group_count_its_kl_once_together(anyof):
    supervision = anyof(Groups, (6,))
    method = GroupSVI.build((6,), s=2, z=3, scale=0.4)
    method.bind(supervision)
    draw = supervision.draw(0, batch_size=64)  # an epoch: 16 chunks of 7 groups
    assert draw.mask.sum() == 48
    (update,) = method.losses(draw)
    each = Gaussian(method.C_mean, method.C_log_var).kl()
    assert 16 * update["model"]["kl_s"].item() == pytest.approx(each.sum().item(), rel=1e-5)


class Linear(torch.nn.Module):
    """A decoder for which the best factorised Gaussian is known: x = A s + B z + noise."""

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(3)
        self.A, self.B = (torch.nn.Parameter(torch.randn(d, 7, generator=random)) for d in (2, 3))

    def forward(self, s, z):
        return s @ self.A + z @ self.B


def best(x, group, A, B, noise):
    """Means and variances of the factorised Gaussian nearest to the exact posterior p(C, S_1..n | x_1..n)."""
    found = []
    for g in np.unique(group):
        rows = x[group == g].astype(np.float64)
        n, (c, d) = len(rows), A.shape
        z = len(B)
        W = np.zeros((c + n * z, n * d))
        W[:c] = np.tile(A, n)
        for i in range(n):
            W[c + i * z : c + (i + 1) * z, i * d : (i + 1) * d] = B
        precision = np.eye(c + n * z) + W @ W.T / noise**2
        mean = np.linalg.solve(precision, W @ rows.ravel() / noise**2)
        variance = 1 / np.diag(precision)
        found.append((mean[:c], variance[:c], mean[c:].reshape(n, z), variance[c:].reshape(n, z)))
    return [np.stack(v) for v in list(zip(*found))[:2]] + [np.concatenate(v) for v in list(zip(*found))[2:]]


def test_inference_finds_the_known_posterior():
    random = np.random.default_rng(0)
    x, group = random.normal(size=(9, 7)).astype(np.float32), np.array([0, 0, 0, 0, 1, 1, 2, 5, 5])
    method = GroupSVI(Linear(), 2, 3, scale=0.8)
    method.bind(Groups(x, group))
    before = weights(method)
    A, B = method.dec.A.detach().numpy(), method.dec.B.detach().numpy()
    for grouped, size in ((group, 6), (np.arange(9), 9)):  # in two blocks, in one
        q_C, q_S = method._descend(x, grouped, 400, 0.1, False, size, 0)
        C_mean, C_variance, S_mean, S_variance = best(x, grouped, A, B, 0.8)
        assert np.allclose(q_C.mean, C_mean, atol=0.05)
        assert np.allclose(q_S.mean, S_mean, atol=0.05)
        assert np.allclose(q_C.variance, C_variance, rtol=0.4)
        assert np.allclose(q_S.variance, S_variance, rtol=0.4)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    assert all(p.grad is None for p in method.parameters())
    code = method.infer(x, group, steps=30, progress=False)
    assert [tuple(half.shape) for half in code] == [(4, 2), (9, 3)]
    method.inference_steps = 20
    accumulated = twofold.accumulate(method, x, group)
    assert torch.equal(accumulated.s, method.infer(x, group, progress=False).s)
    assert torch.equal(method.infer(x, steps=30, progress=False).s, method.infer(x, np.arange(9), 30, progress=False).s)


def test_inference_shows_progress_and_names_what_is_wrong(capsys):
    method = GroupSVI(Linear(), 2, 3, scale=0.8)
    x = np.zeros((4, 7), np.float32)
    method.bind(Groups(x, [0, 0, 1, 1]))
    method.infer(x, steps=3)
    assert "inference 3/3" in capsys.readouterr().err
    method.inference_steps = 3
    for silent in (method.encode, method.posterior):
        silent(x)
        assert not capsys.readouterr().err
    for steps in (0, 1.5):
        with pytest.raises(InputError, match=rf"^steps: {steps}; expected a whole number of at least 1"):
            method.infer(x, steps=steps)
    wrong = {"steps": (True,), "batch_size": (0, -3, 2.5, True), "seed": (1.5, -1), "lr": (0, -1, "a")}
    for name, value in ((name, value) for name, values in wrong.items() for value in values):
        with pytest.raises(InputError, match=rf"^{name}: {value!r}; expected a (whole |positive )?number"):
            method.infer(x, **{name: value})
    for silent in (method.encode, method.posterior):
        with pytest.raises(InputError, match=r"^batch_size: 0; expected a whole number of at least 1"):
            silent(x, batch_size=0)
    with pytest.raises(InputError, match=r"^inference_steps: 0; expected"):
        GroupSVI.build((7,), inference_steps=0)
    with pytest.raises(InputError, match=r"^group: 3 values for 4 observations"):
        method.infer(x, [0, 1, 1])
    ids = np.array([4, 4, 2, 2])
    for several in ({"who": ids, "session": ids}, np.stack([ids, ids], 1)):
        with pytest.raises(InputError, match=r"^group: 2 groupings; group-svi takes one, ml-vae several"):
            method.infer(x, several)
        with pytest.raises(InputError, match=r"^group: 2 groupings; group-svi takes one"):
            twofold.accumulate(method, x, several)
    for one in ({"who": ids}, ids[:, None]):
        assert torch.equal(method.infer(x, one, progress=False).s, method.infer(x, ids, progress=False).s)
    with pytest.raises(InputError, match=r"^decoder: mat1 and mat2 shapes"):
        GroupSVI(Linear(), 2, 4).bind(Groups(x, [0, 0, 1, 1]))
    with pytest.raises(InputError, match=r"^learned: nothing yet"):
        GroupSVI.build((7,)).learned()


def test_evaluation_shows_the_progress_of_inference(capsys):
    x, y = np.random.default_rng(0).random((60, 7), np.float32), np.arange(60) % 4
    data = Dataset(x, {"class": y})
    method = GroupSVI.build((7,), s=2, z=2, inference_steps=3)
    method.bind(data.groups())
    light = {"probes": ("knn",), "clustering": False, "classifier": False}
    evaluation = twofold.evaluate(method, *data.split((0.6, 0.4), seed=0), progress=True, **light)
    assert capsys.readouterr().err.count("inference 3/3") == 3  # of both parts, and of swaps
    assert evaluation.reconstruction


def test_parameters_belong_to_the_observations_that_they_were_trained_on(anyof, tmp_path):
    ours, other = anyof(Groups, (6,)), anyof(Groups, (6,), seed=1)
    method = fit(GroupSVI.build((6,), s=2, z=3, scale=0.3), ours, steps=3, batch_size=16, progress=False).method
    learned = method.learned()
    assert [tuple(half.shape) for half in learned] == [(7, 2), (48, 3)]
    method.save(tmp_path / "m")
    loaded = twofold.load(tmp_path / "m")
    loaded.bind(ours)
    assert torch.equal(loaded.learned().z, learned.z)
    loaded.bind(other)  # as many observations and groups, but not the same
    assert loaded.learned().z.shape == learned.z.shape
    assert not torch.equal(loaded.learned().z, learned.z)


def test_pixel_variance_is_kept_for_inference(anyof):
    supervision = anyof(Groups, (6,))
    method = GroupSVI.build((6,), s=2, z=3)
    fit(method, supervision, steps=120, batch_size=16, progress=False)
    code = method.learned()
    rows = supervision.group
    error = (method.decode(Code(code.s[rows], code.z)) - supervision.x).square().mean()
    assert 0.3 * error < method.variance < 3 * error
    x = supervision.x[:4]
    alone = torch.cat([method.infer(x[i : i + 1], steps=20, progress=False).z for i in range(4)])
    assert torch.allclose(alone, method.infer(x, steps=20, progress=False).z, atol=1e-4)


def test_lazy_adam_is_adam_on_the_rows_of_a_batch():
    random = torch.Generator().manual_seed(0)
    table = torch.nn.Parameter(torch.randn(5, 3, generator=random))
    rows = [table.detach()[i : i + 1].clone().requires_grad_() for i in range(5)]
    lazy, alone = LazyAdam([table], lr=0.1), [torch.optim.Adam([row], lr=0.1) for row in rows]
    for step in range(12):
        batch = [[0, 1], [1], [3, 0]][step % 3]
        targets = torch.randn(5, 3, generator=random)
        before = table.detach().clone()
        lazy.zero_grad()
        (table[batch] - targets[batch]).square().sum().backward()
        lazy.step()
        for i in batch:
            alone[i].zero_grad()
            (rows[i] - targets[i]).square().sum().backward()
            alone[i].step()
        still = [i for i in range(5) if i not in batch]
        assert torch.equal(table[still], before[still])
    assert torch.allclose(table, torch.cat(rows), atol=1e-6)
    with pytest.raises(ValueError, match="lr -1"):
        LazyAdam([table], lr=-1)


@equation("Bouchacourt18", "supplement 17")
def test_svi_encode_objective(anyof):
    svi = GroupSVI.build((6,), s=2, z=4, scale=0.4)
    svi.bind(anyof(Groups, (6,)))
    method = SVIEncode(svi).double()
    torch.manual_seed(1)
    drawn, original = [], torch.randn
    draw = SimpleNamespace(x=torch.zeros(2, 3, 6, dtype=torch.float64), mask=torch.ones(2, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", lambda *a, **k: drawn.append(original(*a, **k).double()) or drawn[-1])
        (update,) = method.losses(draw)
    C, S, eps_C, eps_S = drawn
    reference = 0
    for i in range(6):
        x = method.svi.dec(C[i : i + 1], S[i : i + 1]).detach()
        q_C, q_S = method.enc(x)
        c, s = q_C.mean + q_C.stddev * eps_C[i], q_S.mean + q_S.stddev * eps_S[i]
        reference = reference - Normal(method.svi.dec(c, s), 0.4).log_prob(x).sum() / 6
    assert list(update) == ["encoder"]
    compare(method, sum(update["encoder"].values()), reference)


def test_svi_encode_in_two_stages(anyof, tmp_path):
    supervision = anyof(Groups)
    svi = GroupSVI.build(supervision.shape, s=2, z=3, scale=0.3, inference_steps=3)
    fit(svi, supervision, steps=3, batch_size=16, progress=False)
    before = weights(svi)
    other = anyof(Groups, n=40, seed=2)  # the images matter no more
    method = fit(SVIEncode(svi), other, steps=3, batch_size=16, progress=False, out=tmp_path / "run").method
    assert all(torch.equal(before[name], value) for name, value in method.svi.state_dict().items())
    assert all(torch.equal(before[name], value) for name, value in svi.state_dict().items())
    assert all(p.requires_grad for p in svi.parameters())
    assert list(method.players) == ["encoder"]
    loaded = twofold.load(tmp_path / "run")
    assert list(loaded.players) == ["encoder"]
    assert loaded.svi.nll.scale == 0.3
    assert torch.equal(loaded.encode(other.x).s, method.encode(other.x).s)
    assert torch.equal(loaded.decode(loaded.encode(other.x)), svi.decode(method.encode(other.x)))
    assert list(SVIEncode.build(supervision.shape).players) == ["svi_model", "svi_posterior", "encoder"]
    with pytest.raises(InputError, match=r"^svi: MLVAE; expected a GroupSVI"):
        SVIEncode(MLVAE.build((6,)))
    with pytest.raises(InputError, match=r"^encoder: none given"):
        SVIEncode(GroupSVI(Linear(), 2, 3))


# -- several groupings -------------------------------------------------------------------------------------------------


@pytest.fixture
def crossed():
    """30 vectors: who (6, unequal, one alone) and which session (4)."""
    random = np.random.default_rng(0)
    x = random.random((30, 6), np.float32)
    who = random.permutation(np.repeat(range(6), [10, 8, 5, 4, 2, 1]))
    return x, who, random.permutation(np.arange(30) % 4)


def test_draws_of_several_groupings(crossed):
    x, who, session = crossed
    supervision = Groups(x, {"who": who, "session": session}, per_group=4)
    ids = np.stack([who, session], 1)
    assert supervision.facts()["groupings"] == {"who": 6, "session": 4}
    assert torch.equal(supervision.group, Groups(x, ids).group)
    one = Groups(x, {"who": who}, per_group=4)
    assert "groupings" not in one.facts()
    assert all(map(torch.equal, one.draw(3, batch_size=12), Groups(x, who, per_group=4).draw(3, batch_size=12)))
    steps = supervision.steps_per_epoch(12)
    assert steps == math.ceil((3 + 2 + 2 + 1 + 1 + 1 + 4 * 2) / 3)
    seen, made_by = np.zeros(30, int), set()
    for step in range(steps):
        draw = supervision.draw(step, batch_size=12)
        assert torch.equal(draw.x, torch.from_numpy(x)[draw.index])
        assert np.array_equal(draw.groups, ids[draw.index])
        for i in range(3):
            rows = draw.index[i][draw.mask[i] > 0]
            alike = [p for p in (0, 1) if (draw.groups[i, :, p] == draw.group[i]).all()]
            assert alike
            made_by.update(alike)
            if step < steps - 1:
                np.add.at(seen, rows.numpy(), 1)
    assert made_by == {0, 1}
    assert seen.max() <= 2  # once for each grouping
    whole = supervision.draw(2, batch_size=16)
    parts = [supervision.draw(2, 0, rank, 2, batch_size=16) for rank in (0, 1)]
    assert all(torch.equal(field, torch.cat(both)) for field, both in zip(whole, zip(*parts)))
    single = Groups(x, who, per_group=4).draw(0, batch_size=12)
    assert torch.equal(single.groups, single.group[:, None, None].expand(3, 4, 1))


@equation("Bouchacourt18", "3", "5", "6", "7", "Algorithm 1", "supplement 1", "supplement 2", "supplement 3")
@pytest.mark.parametrize("evidence", ["product", "mixture"])
def test_group_elbo_of_several_groupings(crossed, evidence, monkeypatch):
    x, who, session = crossed
    supervision = Groups(x, {"who": who, "session": session}, per_group=3)
    method = MLVAE.build((6,), s=5, z=4, scale=0.4, leakage=0.0, beta=1.5, evidence=evidence, parts=(2, 3))
    method.bind(supervision)
    method.double()
    draw = supervision.draw(1, batch_size=21)
    draw = draw._replace(x=draw.x.double(), mask=draw.mask.double())
    assert len(draw.index[draw.mask > 0].unique()) < draw.mask.sum()  # an image stands for two chunks
    drawn = {"randn": [], "multinomial": []}
    for name, values in drawn.items():
        original = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, o=original, v=values, **k: v.append(o(*a, **k)) or v[-1])
    (update,) = method.losses(draw)
    G, K = draw.mask.shape
    flat, mask, index = draw.x.flatten(0, 1), draw.mask.flatten(), draw.index.flatten().tolist()
    rows = [b for b in range(G * K) if mask[b] and not any(mask[a] and index[a] == index[b] for a in range(b))]
    q_C, q_S = method.enc(flat)
    eps_S, total, content = drawn["randn"][0], 0, {b: [] for b in rows}
    for p, cut in enumerate((slice(0, 2), slice(2, 5))):
        ids = [[who, session][p][index[b]] for b in rows]
        for u, g in enumerate(sorted(set(ids))):
            present = [b for b, i in zip(rows, ids) if i == g]
            means, log_vars = q_C.mean[present, cut], q_C.log_var[present, cut]
            if evidence == "product":
                precision = sum(1 / v.exp() for v in log_vars)
                mean = sum(m / v.exp() for m, v in zip(means, log_vars)) / precision
                total = total + 1.5 * kl_divergence(normal(mean, -precision.log()), standard(mean))
            for slot, b in enumerate(present):
                eps = drawn["randn"][1 + p]
                if evidence == "product":
                    content[b].append(mean + precision.rsqrt() * eps[slot, u])
                    continue
                member = drawn["multinomial"][p][u, slot]
                c = means[member] + (0.5 * log_vars[member]).exp() * eps[u, slot]
                density = sum(normal(m, v).log_prob(c).exp() for m, v in zip(means, log_vars)) / len(present)
                total = total + 1.5 * (density.log() - standard(c).log_prob(c)) / len(present)
                content[b].append(c)
    for b in rows:
        s = q_S.mean[b] + q_S.stddev[b] * eps_S[b]
        total = total - Normal(method.dec(torch.cat(content[b])[None], s[None])[0], 0.4).log_prob(flat[b]).sum()
        total = total + 1.5 * kl_divergence(normal(q_S.mean[b], q_S.log_var[b]), standard(q_S.mean[b]))
    compare(method, sum(update["model"].values()), total / G)


@equation("Bouchacourt18", "7", "supplement 1")
@pytest.mark.parametrize("evidence", ["product", "mixture"])
def test_accumulated_evidence_of_several_groupings(crossed, evidence, tmp_path):
    x, who, session = crossed
    supervision = Groups(x, {"who": who, "session": session}, per_group=4)
    method = MLVAE.build((6,), s=5, z=3, evidence=evidence)
    run = fit(method, supervision, steps=4, batch_size=16, progress=False)
    assert all(math.isfinite(v) for row in run.metrics for v in row.values())
    q_s, q_z = method.posterior(x)
    code = twofold.accumulate(method, x, {"who": who, "session": session})
    assert torch.equal(code.z, q_z.mean)
    for i in range(30):
        for ids, cut in ((who, slice(0, 3)), (session, slice(3, 5))):  # evenly, the rest to the first
            members = np.flatnonzero(ids == ids[i])
            weight = 1 / q_s.variance[members, cut] if evidence == "product" else torch.ones(len(members), 1)
            mean = (weight * q_s.mean[members, cut]).sum(0) / weight.sum(0)
            assert torch.allclose(code.s[i, cut], mean, atol=1e-5)
    method.save(tmp_path / "m")
    again = twofold.accumulate(twofold.load(tmp_path / "m"), x, np.stack([who, session], 1))
    assert torch.equal(again.s, code.s)
    with pytest.raises(InputError, match=r"^group: 1 groupings; trained on 2, expected as many"):
        twofold.accumulate(method, x, who)
    turned = twofold.accumulate(method, x, {"session": session, "who": who})
    assert torch.equal(turned.s, code.s)  # by name, where there are names
    with pytest.raises(InputError, match=r"^group: foo, who; expected the groupings trained on: who, session"):
        twofold.accumulate(method, x, {"foo": session, "who": who})
    with pytest.raises(InputError, match=r"^group: session, who; s was divided for who, session, in that order"):
        fit(method, Groups(x, {"session": session, "who": who}, per_group=4), steps=1, progress=False)
    assert method.parts_of_s == {"who": slice(0, 3), "session": slice(3, 5)}


def test_wrong_groupings(crossed):
    x, who, session = crossed
    wrong = [
        ({}, "group: no groupings"),
        ({"who": who, "all": np.zeros(30)}, "group all: one group only"),
        ({"who": who, "each": np.arange(30)}, "group each: all 30 groups have a single member"),
        ({"who": who, "short": who[:5]}, "group short: 5 values for 30"),
    ]
    for group, message in wrong:
        with pytest.raises(InputError, match=rf"^{message}"):
            Groups(x, group)
    both = Groups(x, {"who": who, "session": session})
    for parts in ((2, 2), (5,), (1, 1, 3)):
        with pytest.raises(
            InputError, match=r"^parts: .*expected 2 \(of who, session\), each at least 1, of sum s = 5"
        ):
            MLVAE.build((6,), s=5, z=2, parts=parts).bind(both)
    for parts in (2, "ab", (2.0, 3.0), (True, True), (5, 0)):
        with pytest.raises(InputError, match=r"^parts: .*; expected (how many|a whole number of at least 1)"):
            MLVAE.build((6,), s=5, z=2, parts=parts)
    MLVAE.build((6,), s=5, z=2, parts=np.array([3, 2])).bind(both)
    single = MLVAE.build((6,), s=5, z=2)
    single.bind(Groups(x, who))
    with pytest.raises(InputError, match=r"^group: who, session; s was divided for group, in that order"):
        single.bind(both)
    unnamed = MLVAE.build((6,), s=5, z=2)
    unnamed.bind(Groups(x, np.stack([who, session], 1)))
    named = twofold.accumulate(unnamed, x, {"who": who, "session": session})
    assert torch.equal(named.s, twofold.accumulate(unnamed, x, np.stack([who, session], 1)).s)
    with pytest.raises(InputError, match=r"^group: 2 groupings; group-svi takes one"):
        GroupSVI.build((6,)).bind(both)
    with pytest.raises(InputError, match=r"^group: 2 groupings; group-klvae takes one"):
        GroupKLVAE.build((6,)).bind(both)


def test_groupings_from_a_data_set(crossed):
    x, who, session = crossed
    data = Dataset(x, {"who": who, "session": session, "age": np.linspace(0, 1, 30)})
    assert data.groups(["who", "session"], 4).facts()["groupings"] == {"who": 6, "session": 4}
    assert data.groups(["who"]).facts() == data.groups("who").facts()
    with pytest.raises(InputError, match=r"^factor: 'age' holds real numbers"):
        data.groups(["who", "age"])


def test_groupings_on_the_command_line(crossed, tmp_path, capsys):
    from twofold.__main__ import main

    x, who, session = crossed
    lines = ["a,b,c,d,e,f,who,session"]
    lines += [",".join(map(str, [*row, f"p{w}", f"s{t}"])) for row, w, t in zip(x, who, session)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    words = [
        "train",
        "ml-vae",
        f"{tmp_path}/t.csv",
        "--factor",
        "who,session",
        "--s",
        "4",
        "--parts",
        "3",
        "--parts",
        "1",
    ]
    assert main([*words, "--steps", "2", "--out", f"{tmp_path}/run"]) in (0, None)
    method = twofold.load(tmp_path / "run")
    assert list(method._facts["groupings"]) == ["who", "session"]
    assert [cut.stop - cut.start for cut in method._cuts] == [3, 1]
    capsys.readouterr()


# -- the faces' network ------------------------------------------------------------------------------------------------


def test_faces_with_learned_pixel_variance(anyof):
    supervision = anyof(Groups, (3, 8, 8))
    method = MLVAE.build((3, 8, 8), s=4, z=4, arch="bouchacourt18-faces")
    method.bind(supervision)
    draw = supervision.draw(0, batch_size=16)
    update = [*method.losses(draw)][-1]
    q_C, q_S = method._posterior(draw.x.flatten(0, 1))
    decoded = method.dec(q_C.mean, q_S.mean)
    assert decoded.mean.shape == decoded.log_var.shape == (16, 3, 8, 8)
    assert q_C.log_var.abs().max() <= 5
    assert decoded.log_var.abs().max() <= 5
    last = [m for m in method.dec.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    (grad,) = torch.autograd.grad(update["model"]["rec"], last.weight)
    assert (grad[3:].flatten(1).abs().sum(1) > 0).all()  # the log-variances learn
    metrics_ = fit(method, supervision, steps=12, batch_size=16, progress=False).metrics
    assert metrics_[-1]["model/rec"] < metrics_[0]["model/rec"]
    x = method.decode(method.encode(supervision.x[:3]))
    assert 0 <= x.min() <= x.max() <= 1


@pytest.mark.parametrize("kind", [MLVAE, GroupKLVAE, GroupSVI, SVIEncode])
def test_a_decoder_with_its_own_variance_takes_no_other(anyof, kind):
    supervision = anyof(Groups, (3, 8, 8))
    wrong = {"likelihood": "bernoulli"}, {"likelihood": "laplace", "scale": 0.1}, {"scale": 0.3}
    for options in ({}, {"likelihood": "gaussian", "scale": None}, *wrong):
        method = kind.build((3, 8, 8), s=2, z=2, arch="bouchacourt18-faces", **options)
        method.bind(supervision)
        if options not in wrong:
            update = [*method.losses(supervision.draw(0, batch_size=16))][-1]
            assert update.popitem()[1]["rec"].isfinite()
            continue
        name = next(iter(options))
        told = rf"^{name}: {options[name]!r}; the decoder gives each pixel's variance itself, leave likelihood and"
        with pytest.raises(InputError, match=told):
            [*method.losses(supervision.draw(0, batch_size=16))]


def test_strategies_1_and_2_agree_on_single_images(anyof):
    """Sec. 4: a test image without its group is a group of its own."""
    supervision = anyof(Groups, (6,))
    for evidence in ("product", "mixture"):
        method = MLVAE.build((6,), s=2, z=3, evidence=evidence)
        one, two = method.encode(supervision.x), twofold.accumulate(method, supervision.x, np.arange(48))
        assert torch.allclose(one.s, two.s, atol=1e-6)
        assert torch.equal(one.z, two.z)


# -- evidence that accumulates -----------------------------------------------------------------------------------------


def cloud(per=36, classes=4, noise=1.5, seed=0):
    """Observations of classes on a circle, each as its Gaussian: a mean that is off by what its variance says."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), per)
    centre = 2 * np.stack([np.cos(2 * np.pi * y / classes), np.sin(2 * np.pi * y / classes)], 1)
    stddev = noise * random.uniform(0.5, 1.5, (len(y), 1)) * np.ones((1, 2))
    mean = centre + stddev * random.normal(size=centre.shape)
    return Gaussian(torch.tensor(mean), torch.tensor(2 * np.log(stddev))), y


@equation("Bouchacourt18", "7", "supplement 4", "supplement 5", "supplement 6")
def test_evidence_accumulates(monkeypatch):
    monkeypatch.setattr(sys.modules["twofold.metrics.evidence"], "EPOCHS", 150)
    q, y = cloud()
    found = metrics.evidence(q, y, 12, trials=2)
    accuracy, spread = found.curve("accuracy")
    assert found.k == tuple(range(1, 13))
    assert np.array(found.accuracy).shape == np.array(found.bits).shape == (2, 12)
    assert accuracy[0] < 0.8
    assert accuracy[-1] > 0.95
    assert accuracy[-1] > accuracy[3] > accuracy[0]
    assert found.curve("bits")[0][-1] < 0.3
    assert (spread >= 0).all()
    assert found.chance == 0.25
    assert found.entropy == 2
    assert str(found).startswith("k = 1: 0.")
    assert metrics.evidence(q, y, 12, trials=1, k=[5]).accuracy == ((found.accuracy[0][4],),)
    assert metrics.evidence(q, y, 12, trials=1, seed=1).accuracy != found.accuracy[:1]
    means = metrics.evidence(q, y, 12, trials=1, codes="means").curve("accuracy")[0]
    assert means[0] > accuracy[0]
    alone = metrics.evidence(q, y, 12, trials=1, evidence=None).curve("accuracy")[0]
    assert np.ptp(alone) < 0.15
    mixed = metrics.evidence(q, y, 12, trials=1, evidence="mixture", codes="means").curve("accuracy")[0]
    assert mixed[-1] > mixed[0]
    guess = metrics.evidence(q, np.arange(len(y)) % 4, 12, trials=1)
    assert guess.curve("accuracy")[0].mean() == pytest.approx(0.25, abs=0.1)
    assert guess.curve("bits")[0][0] > 1.8


def test_evidence_takes_disjoint_groups_of_the_given_size():
    from twofold.metrics.evidence import _codes

    q, _ = cloud(per=6)
    rows = torch.from_numpy(np.arange(24).reshape(4, 6))
    noise = torch.Generator().manual_seed(0)
    for size in (1, 2, 4, 6):
        code, label = _codes(q, rows, size, "product", "means", noise)
        reference, classes = [], []
        for c in range(4):
            for first in range(0, 6 - size + 1, size):
                members = rows[c, first : first + size]
                precision = 1 / q.variance[members]
                mean = (precision * q.mean[members]).sum(0) / precision.sum(0)
                reference += [mean] * size  # a code for each image of the group
                classes += [c] * size
        assert torch.allclose(code, torch.stack(reference).float(), atol=1e-6)
        assert label.tolist() == classes
    samples = torch.stack([_codes(q, rows, 6, "product", "samples", noise)[0].double() for _ in range(500)])
    whole = q[rows].product(dim=1)
    assert torch.allclose(samples[:, ::6].var(0), whole.variance, rtol=0.3)
    samples = torch.stack([_codes(q, rows, 6, "mixture", "samples", noise)[0].double() for _ in range(500)])
    assert torch.allclose(samples[:, ::6].mean(0), q.mean[rows].mean(1), atol=0.35)


def test_evidence_refuses():
    q, y = cloud(per=9)
    with pytest.raises(InputError, match=r"^per_class: 4; class 0 has 9 observations, .* at most 3"):
        metrics.evidence(q, y, 4)
    with pytest.raises(InputError, match=r"^k: .*expected a whole number from 1 to per_class = 3"):
        metrics.evidence(q, y, 3, k=[4])
    with pytest.raises(InputError, match=r"^y: one class only"):
        metrics.evidence(q, np.zeros(36, int), 3)
    with pytest.raises(InputError, match=r"^posterior: .*expected Gaussians"):
        metrics.evidence(q.mean, y, 3)
    with pytest.raises(InputError, match=r"^posterior: variances of 0"):
        metrics.evidence(Point(q.mean), y, 3)
    with pytest.raises(InputError, match=r"^posterior: codes without width"):
        metrics.evidence(Gaussian(q.mean[:, :0], q.mean[:, :0]), y, 3)
    for k in (0, 4, 2.0, True, "12", (), (1, 2.7), (1.5,), (True,), np.array([1.5]), torch.tensor([4])):
        with pytest.raises(InputError, match=r"^k: .*; expected a whole number from 1 to per_class = 3, or several"):
            metrics.evidence(q, y, 3, k=k)
    with pytest.raises(InputError, match=r"^k: \(1, 2\.7\); expected"):  # not cut to (1, 2)
        metrics.evidence(q, y, 3, k=(1, 2.7))
    for name, value in (("trials", 0), ("trials", True), ("trials", 1.0), ("per_class", True), ("seed", 1.5)):
        with pytest.raises(InputError, match=rf"^{name}: {value}; expected a whole number of at least [01]"):
            metrics.evidence(q, y, **{"per_class": 3, name: value})


def test_a_single_number_of_observations(monkeypatch):
    monkeypatch.setattr(sys.modules["twofold.metrics.evidence"], "EPOCHS", 2)
    q, y = cloud(per=9)
    listed = metrics.evidence(q, y, 3, k=[2], trials=1)
    for k in (2, np.int64(2), np.array(2), torch.tensor([2])):
        assert metrics.evidence(q, y, np.int64(3), k=k, trials=1) == listed
    assert metrics.few_shot(q, y, k=2, trials=2) == metrics.few_shot(q, y, k=(2,), trials=np.int64(2))


def test_evidence_of_a_plain_vae():
    x = np.random.default_rng(0).random((60, 6), np.float32)
    method = VAE.build((6,), z=3)
    fit(method, Images(x), steps=2, batch_size=16, progress=False)
    found = metrics.evidence(method.posterior(x)[1], np.arange(60) % 2, 5, trials=2)
    assert np.isfinite(found.bits).all()


# -- few shots ---------------------------------------------------------------------------------------------------------


def test_few_shots():
    q, y = cloud(per=30, classes=5, noise=1.2)
    found = metrics.few_shot(q, y, k=(1, 5, 20))
    centroid, probe = found.curve("centroid")[0], found.curve("probe")[0]
    assert (np.diff(centroid) > 0).all()
    assert centroid[-1] > 0.6
    assert probe[-1] > 0.6
    assert (found.ways, found.queries, found.left_out, found.chance) == (5, 10, 0, 0.2)
    assert found == metrics.few_shot(q, y, k=(1, 5, 20))
    averaged = metrics.few_shot(q.mean, y, k=(1, 5, 20)).curve("centroid")[0]
    assert averaged[0] == centroid[0]  # one example: nothing to weigh
    assert averaged[1] < centroid[1] + 0.05
    names = np.array(list("abcde"))[y]
    assert metrics.few_shot(q, names, k=(1,)).centroid == metrics.few_shot(q, y, k=(1,)).centroid
    guess = metrics.few_shot(q, np.random.default_rng(1).permutation(y), k=(5,), ways=4)
    assert guess.curve("centroid")[0][0] == pytest.approx(0.25, abs=0.12)
    assert guess.ways == 4
    assert "4 ways, chance 0.250" in str(guess)


def test_few_shots_of_many_identities():
    """As many classes as examples: scikit-learn would warn, and warnings are errors here."""
    q, y = cloud(per=3, classes=30)
    assert metrics.few_shot(q, y, k=(1,), trials=2).ways == 30


def test_few_shots_weigh_the_examples():
    """An example that the encoder is unsure of has no say in the product, but in an average."""
    mean = torch.tensor([[0.0], [0.1], [9.0], [0.2], [4.0], [4.1], [4.2], [3.9]] * 4)
    variance = torch.ones_like(mean)
    variance[2::8] = 1e6
    y = np.tile([0, 0, 0, 0, 1, 1, 1, 1], 4)
    rows = np.flatnonzero(np.arange(32) % 8 != 2)
    found = metrics.few_shot(Gaussian(mean, variance.log()), y, k=(8,), queries=5)
    plain = metrics.few_shot(mean, y, k=(8,), queries=5)
    assert found.curve("centroid")[0][0] > plain.curve("centroid")[0][0]
    assert metrics.few_shot(mean[rows], y[rows], k=(5,)).curve("centroid")[0][0] == 1


def test_few_shots_refuse():
    q, y = cloud(per=6)
    y = np.r_[y, 9, 9]
    q = Gaussian(torch.cat([q.mean, q.mean[:2]]), torch.cat([q.log_var, q.log_var[:2]]))
    assert metrics.few_shot(q, y, k=(5,)).left_out == 1
    for k, message in (((6,), "k: 6; 0 of 5 identities"), ((), "k: "), ((0,), "k: ")):
        with pytest.raises(InputError, match=rf"^{message}"):
            metrics.few_shot(q, y, k=k)
    for k in (0, 1.5, False, None, "12", (1, 2.7), (0, 1)):
        with pytest.raises(InputError, match=r"^k: .*; expected a whole number of at least 1, or several"):
            metrics.few_shot(q, y, k=k)
    for name, value in (("trials", 0), ("queries", True), ("queries", 2.5), ("ways", 1), ("ways", True), ("seed", "a")):
        with pytest.raises(InputError, match=rf"^{name}: {value!r}; expected a whole number of at least [012]"):
            metrics.few_shot(q, y, k=1, **{name: value})
    with pytest.raises(InputError, match=r"^ways: 5; 4 identities have more than 5"):
        metrics.few_shot(q, y, k=(5,), ways=5)
    with pytest.raises(InputError, match=r"^ways: 1; expected a whole number of at least 2"):
        metrics.few_shot(q, y, ways=1)


def test_curves():
    q, y = cloud(per=12)
    found = metrics.evidence(q, y, 4, trials=2)
    few = metrics.few_shot(q, y, trials=2)
    figure = curves.evidence_curves({"ML-VAE s": found, "ML-VAE z": found, "VAE": found})
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy", "H(class | code), bits"]
    line = figure.axes[0].get_lines()[0]
    assert np.allclose(line.get_ydata(), found.curve("accuracy")[0])
    assert line.get_color() == twofold.figures.S
    assert twofold.figures.png(figure).startswith(b"\x89PNG")
    assert len(curves.few_shot_curves({"s": few}).axes) == 2
    with pytest.raises(InputError, match=r"^results: none"):
        curves.evidence_curves({})
