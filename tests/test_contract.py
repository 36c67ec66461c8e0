"""The contract that every method passes, the discovered ones and three sketches of the hardest papers.

A method added to twofold/methods is tested here without a line more.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from sketches import SKETCHES, LabelRelevant, Swapping, Unamortised
from twofold import fit, generate, load
from twofold.arrays import mix
from twofold.errors import InputError, UnsupportedError
from twofold.method import Code, read_tensors
from twofold.methods import CLASSES, names
from twofold.supervision import Groups, Images, Labels, Reference, Triplets

VARIANTS = {
    "MLVAE": [{"evidence": "mixture"}, {"scale": 0.3, "beta": 2.0}],
    "Contrastive": [{"lambda_z": 0.0}, {"likelihood": "laplace", "scale": 0.3}],
    "VAE": [{"likelihood": "bernoulli"}],
}
CASES = [(cls, options) for name, cls in CLASSES.items() for options in ({}, *VARIANTS.get(name, []))]
KINDS = (Images, Labels, Groups, Triplets, Reference)


def called(case) -> str:
    cls, options = case
    return "-".join([cls.name, *(f"{k}={v}" for k, v in options.items())])


def shown(values):
    return pytest.mark.parametrize("case", values, ids=called)


every = shown(CASES)
every_and_sketches = shown(CASES + [(cls, {}) for cls in SKETCHES])


def made(case, shape=(1, 8, 8), **more):
    cls, options = case
    return cls.build(shape, s=3, z=4, **{**options, **more})


def train(method, supervision, steps=3, caller=99, **options):
    torch.manual_seed(caller)
    return fit(method, supervision, **{"steps": steps, "batch_size": 16, "progress": False, **options})


def weights(method) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in method.named_parameters()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def owners(method) -> dict[str, str]:
    """Parameter -> player, as `players` declares it."""
    return {
        name: player
        for player, attributes in method.players.items()
        for attribute in attributes.split()
        for name, _ in method.named_parameters()
        if name == attribute or name.startswith(attribute + ".")
    }


def label(supervision):
    return supervision.y if isinstance(supervision, Labels) else None


# -- training ----------------------------------------------------------------------------------------------------------


@every_and_sketches
def test_each_update_moves_its_players_and_nothing_else(case, anyof):
    method, supervision = made(case), anyof(case[0].supervision)
    body, updates, stepped = method.losses, [], []

    def watched(*draws):
        for update in body(*draws):
            before = weights(method)
            stepped.clear()
            yield update
            updates.append((set(update), Counter(stepped), before, weights(method)))

    def count(optimiser, *_):
        ids = {id(p) for group in optimiser.param_groups for p in group["params"]}
        stepped.append({owner[n] for n, p in method.named_parameters() if id(p) in ids}.pop())

    torch.manual_seed(0)
    method.bind(supervision)
    owner, method.losses = owners(method), watched
    hook = register_optimizer_step_post_hook(count)
    try:
        train(method, supervision, steps=2)
    finally:
        hook.remove()
    per_step = len(updates) // 2
    assert per_step >= 1
    for named, steps, before, after in updates:
        assert steps == Counter(named)  # each of them once, nobody else
        moved = {n for n in before if not torch.equal(before[n], after[n])}
        assert {owner[n] for n in moved} == named
    trainable = {n for n, p in method.named_parameters() if p.requires_grad and p.numel()}
    for i in (0, per_step):
        start, end = updates[i][2], updates[i + per_step - 1][3]
        assert {n for n in start if not torch.equal(start[n], end[n])} == trainable


@every_and_sketches
def test_every_trainable_parameter_has_one_player(case, anyof):
    method = made(case)
    method.bind(anyof(case[0].supervision))
    assert {n for n, p in method.named_parameters() if p.requires_grad} <= set(owners(method))
    assert set(method.players) == set(owners(method).values())


@every_and_sketches
def test_losses_name_players_and_give_finite_scalars(case, anyof):
    """Also: losses at unmoved weights come from iterating without updating."""
    method, supervision = made(case), anyof(case[0].supervision)
    method.bind(supervision)
    draws = [supervision.draw(i, batch_size=16) for i in range(method.draws)]
    before, found = weights(method), []
    for mode in (torch.enable_grad, torch.no_grad):
        torch.manual_seed(0)
        with mode():
            updates = list(method.losses(*draws))
        found.append([{p: {t: v.item() for t, v in ts.items()} for p, ts in u.items()} for u in updates])
        for update in updates:
            assert update.keys() <= method.players.keys()
            for terms in update.values():
                assert all(term.shape == () and term.dtype == torch.float32 for term in terms.values())
    assert found[0] == found[1]
    assert all(math.isfinite(v) for u in found[0] for ts in u.values() for v in ts.values())
    assert same(before, weights(method))
    assert all(p.grad is None for p in method.parameters())


@every_and_sketches
def test_bf16_is_finite_and_close(case, anyof):
    supervision = anyof(case[0].supervision)
    rows = {p: train(made(case), supervision, steps=4, precision=p).metrics for p in ("fp32", "bf16")}
    assert all(math.isfinite(v) for row in rows["bf16"] for v in row.values())
    for term in rows["fp32"][0].keys() - {"seconds"}:
        a, b = rows["fp32"][0][term], rows["bf16"][0][term]
        assert b == pytest.approx(a, rel=0.1, abs=0.05), term


@every_and_sketches
def test_same_seed_same_result(case, anyof):
    def result(seed, caller):
        run = train(made(case), anyof(case[0].supervision), seed=seed, caller=caller)
        return weights(run.method), [{k: v for k, v in row.items() if k != "seconds"} for row in run.metrics]

    (a, rows_a), (b, rows_b), (c, _) = result(5, 1), result(5, 2), result(6, 1)
    assert same(a, b)  # the caller's own generator decides nothing, not even what `bind` makes
    assert rows_a == rows_b
    assert not same(a, c)


@every_and_sketches
def test_resumed_equals_undisturbed(case, anyof, tmp_path):
    supervision = anyof(case[0].supervision)
    settings = {"seed": 3, "checkpoint_every": 0.0}
    train(made(case), supervision, 8, out=tmp_path / "whole", **settings)
    train(made(case), supervision, 5, out=tmp_path / "parts", **settings)
    run = train(made(case), supervision, 8, out=tmp_path / "parts", resume=True, **settings)
    whole, parts = (read_tensors(tmp_path / name / "checkpoint.safetensors")[0] for name in ("whole", "parts"))
    assert any(name.startswith("optim/") for name in whole)
    assert same(whole, parts)
    assert same(read_tensors(tmp_path / "parts" / "method.safetensors")[0], dict(run.method.state_dict()))


@every_and_sketches
def test_bind_is_idempotent(case, anyof):
    method, supervision = made(case), anyof(case[0].supervision)
    method.bind(supervision)
    before, objects = weights(method), list(map(id, method.parameters()))
    method.bind(supervision)
    assert same(before, weights(method))
    assert objects == list(map(id, method.parameters()))


@every
def test_other_supervision_is_refused(case, anyof):
    cls = case[0]
    for kind in KINDS:
        if not issubclass(kind, cls.supervision):
            with pytest.raises(InputError, match=rf"^supervision: {kind.__name__}; {cls.__name__} learns from"):
                train(made(case), anyof(kind))


@every
def test_observations_of_another_shape_are_refused(case, anyof):
    with pytest.raises(InputError, match=r"^shape: \(1, 9, 8\) in the data; .* was built for \(1, 8, 8\)"):
        train(made(case), anyof(case[0].supervision, (1, 9, 8)))


# -- codes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(13,), (1, 8, 8), (1, 28, 28), (3, 33, 40)], ids=str)
@every
def test_shapes(case, shape, anyof):
    method, supervision = made(case, shape), anyof(case[0].supervision, shape, n=40)
    run = train(method, supervision, steps=1)
    assert all(math.isfinite(v) for v in run.metrics[-1].values())
    x, y = supervision.x[:5], label(supervision)
    y = None if y is None else y[:5]
    s, z = method.sizes
    code = Code(torch.randn(5, s), torch.randn(5, z))
    try:
        code = method.encode(x, y)
    except UnsupportedError:
        with pytest.raises(UnsupportedError):
            method.posterior(x, y)
    else:
        assert isinstance(code, Code)
        q_s, q_z = method.posterior(x, y)
        assert torch.equal(code.s, q_s.mean)
        assert torch.equal(code.z, q_z.mean)
        assert torch.allclose(method.encode(x, y, batch_size=2).z, code.z, atol=1e-5)
        if len(shape) == 3:
            pixels = (x * 255).round().to(torch.uint8)
            assert torch.allclose(method.encode(pixels, y).z, method.encode(pixels / 255, y).z, atol=1e-6)
    assert code.s.shape == (5, s)
    assert code.z.shape == (5, z)
    assert code.s.dtype == code.z.dtype == torch.float32
    assert not code.s.requires_grad
    out = method.decode(code)
    assert out.shape == (5, *shape)
    assert out.dtype == torch.float32
    assert not out.requires_grad
    assert out.isfinite().all()
    if len(shape) == 3:
        assert out.min() >= 0
        assert out.max() <= 1


@every
def test_using_leaves_the_mode_as_it_was(case, anyof):
    method, supervision = made(case).train(), anyof(case[0].supervision)
    method.bind(supervision)
    method.decode(Code(*(torch.zeros(2, size) for size in method.sizes)))
    assert method.training
    assert not train(method, supervision, steps=1).method.training


@every
def test_saved_and_loaded_gives_equal_codes(case, anyof, tmp_path):
    method, supervision = made(case), anyof(case[0].supervision)
    train(method, supervision, steps=2, out=tmp_path / "run")
    method.save(tmp_path / "m.safetensors")
    code = Code(*(torch.randn(6, size) for size in method.sizes))
    for path in (tmp_path / "m.safetensors", tmp_path / "run"):
        loaded = load(path)
        assert type(loaded) is type(method)
        assert loaded.config == method.config
        assert not loaded.training
        assert same(dict(method.state_dict()), dict(loaded.state_dict()))
        assert torch.equal(method.decode(code), loaded.decode(code))
        try:
            expected = method.encode(supervision.x, label(supervision))
        except UnsupportedError:
            continue
        assert all(map(torch.equal, expected, loaded.encode(supervision.x, label(supervision))))


@every
def test_prior_and_generation_follow_a_seed(case, anyof):
    method, supervision = made(case), anyof(case[0].supervision)
    train(method, supervision, steps=1)
    how = {"y": {"y": 1}, "examples": {"examples": supervision.x[:2]}, None: {}}[method.needs]
    torch.manual_seed(4)
    state = torch.get_rng_state()
    a, b, c = (generate(method, 3, seed=seed, **how) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert a.shape == (3, 1, 8, 8)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    if method.needs == "examples":
        with pytest.raises(UnsupportedError):
            method.prior(3)
    else:
        code = method.prior(5, *([torch.ones(5, dtype=torch.long)] if method.needs else []))
        assert tuple(half.shape for half in code) == tuple((5, size) for size in method.sizes)


@every
def test_generation_without_a_seed_is_new_each_time(case, anyof):
    method, supervision = made(case), anyof(case[0].supervision)
    train(method, supervision, steps=1)
    how = {"y": {"y": 1}, "examples": {"examples": supervision.x[:2]}, None: {}}[method.needs]
    assert not torch.equal(generate(method, 3, **how), generate(method, 3, **how))


@every
def test_options_are_documented_keywords_with_defaults(case):
    cls = case[0]
    assert set(cls.options()) == set(cls.__init__.__kwdefaults__ or {})
    assert names()[cls.name] is cls
    with pytest.raises(InputError, match=rf"^option of {cls.__name__}: 'betaa' is not known"):
        cls.build((1, 8, 8), betaa=2.0)


# -- the sketches, against their papers' pseudo-code -------------------------------------------------------------------


def moved(groups, lr):
    """Plain gradient descent: [(loss, parameters)], all gradients taken before anything moves."""
    grads = [torch.autograd.grad(loss, ps, retain_graph=True) for loss, ps in groups]
    with torch.no_grad():
        for (_, ps), gs in zip(groups, grads):
            for p, g in zip(ps, gs):
                p -= lr * g


def compared(method, reference, steps, supervision, lr=0.05, seed=2):
    """Train `method` by `fit`, its copy by `reference(copy, step's draws)`, both by plain gradient descent."""
    torch.manual_seed(0)
    method.bind(supervision)
    copy = type(method).build((6,), s=3, z=4)
    copy.bind(supervision)
    copy.load_state_dict(method.state_dict())
    start = weights(copy)
    fit(method, supervision, steps=steps, batch_size=8, seed=seed, optim={"name": "sgd", "lr": lr}, progress=False)
    seen = []
    for step in range(steps):
        torch.manual_seed(mix(seed, 11, step, 0))
        draws = [supervision.draw(step * method.draws + i, seed, batch_size=8) for i in range(method.draws)]
        seen += draws
        reference(copy, lr, *draws)
    for (name, p), q in zip(method.named_parameters(), copy.parameters()):
        assert not torch.equal(p, start[name]), name
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6), name
    return seen


def test_zheng19_algorithm_1(anyof):
    def normal(z, mean, log_var):
        return -0.5 * ((z - mean) ** 2 / log_var.exp() + log_var + math.log(2 * math.pi)).sum(-1)

    def reference(m, lr, *draws):
        lkd, kl, rec = 0.1, 0.5, 2.0
        psi, phi, omega, theta = (list(net.parameters()) for net in (m.enc_s, m.enc_u, m.classifier, m.dec))
        theta_d = [*m.disc.parameters(), *m.embed.parameters()]
        for draw in draws[:2]:  # lines 2-9
            z = m.enc_s.head(m.enc_s.trunk(draw.x))
            loss = 0
            for z_i, y_i in zip(z, draw.y):
                densities = torch.stack([normal(z_i, m.mu[c], m.log_var[c]).exp() for c in range(4)])
                loss = loss - (densities[y_i] / densities.sum()).log() - lkd * densities[y_i].log()
            moved([(loss / len(z), [*psi, m.mu, m.log_var])], lr)
        x, y = draws[2].x, draws[2].y
        mean, log_var = m.enc_u.head(m.enc_u.trunk(x)).chunk(2, 1)
        L_kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1).mean()
        z_u = (0.5 * log_var).exp() * torch.randn(8, 4) + mean  # line 14
        q = m.classifier(z_u).softmax(1)
        L_E = -(0.25 * q.log()).sum(1).mean()
        L_C = -q[torch.arange(8), y].log().mean()
        z_s = m.enc_s.head(m.enc_s.trunk(x))
        L_lkd = -torch.stack([normal(z, m.mu[c], m.log_var[c]) for z, c in zip(z_s, y)]).mean()
        x_f = m.dec(z_s, z_u)
        L_rec = 0.5 * ((x - x_f) ** 2).sum(1).mean()
        x_p = m.dec(m.mu[y] + (0.5 * m.log_var[y]).exp() * torch.randn(8, 3), torch.randn(8, 4))  # lines 21-22

        def D(x):
            f = m.disc.trunk(x)
            return torch.sigmoid(m.disc.linear(f)[:, 0] + (m.embed.weight[y] * f).sum(1))

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

    draws = compared(LabelRelevant.build((6,), s=3, z=4), reference, 2, anyof(Labels, (6,)))
    index = torch.cat([draw.index for draw in draws])
    assert len(index.unique()) == len(index) == 2 * 3 * 8  # line 3 samples a batch anew each time


def test_mathieu16_algorithm_1(anyof):
    def reference(m, lr, draw, fresh):
        gan, kl = 0.5, 0.1
        model, adversary = [*m.enc.parameters(), *m.dec.parameters()], [*m.disc.parameters(), *m.embed.parameters()]

        def enc(x):
            return m.enc.head(m.enc.trunk(x)).split([3, 4, 4], dim=1)  # s, mu, log sigma^2

        def adv(x, identity):
            return torch.sigmoid(m.disc.linear((m.disc.trunk(x) + m.embed.weight[identity]).relu())[:, 0])

        (s_1, mean, log_var), (s_same, *_), (s_2, *_) = enc(draw.x), enc(draw.x_same), enc(draw.x_other)
        z_1 = mean + (0.5 * log_var).exp() * torch.randn(8, 4)
        X_11, X_11_same, X_12 = m.dec(s_1, z_1), m.dec(s_same, z_1), m.dec(s_2, z_1)
        X_2 = m.dec(s_2, torch.randn(8, 4))
        loss = ((X_11 - draw.x) ** 2).sum(1) + ((X_11_same - draw.x) ** 2).sum(1)
        loss = loss - gan * adv(X_12, draw.y_other).log() - gan * adv(X_2, draw.y_other).log()
        loss = loss + kl * 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1)
        moved([(loss.mean(), model)], lr)
        (_, mean, log_var), (s_2, *_) = enc(fresh.x), enc(fresh.x_other)  # by the moved encoder
        X_12 = m.dec(s_2, mean + (0.5 * log_var).exp() * torch.randn(8, 4))
        loss = -(1 - adv(X_12, fresh.y_other)).log() - adv(fresh.x_other, fresh.y_other).log()
        moved([(loss.mean(), adversary)], lr)

    draws = compared(Swapping.build((6,), s=3, z=4), reference, 2, anyof(Triplets, (6,)))
    anchors = torch.cat([draw.x for draw in draws])
    assert len(anchors.unique(dim=0)) == len(anchors)  # the adversary's pair is a fresh one


def test_bouchacourt18_svi(anyof):
    supervision = anyof(Groups, (6,))

    def reference(m, lr, draw):
        G, K = draw.mask.shape
        eps_C, eps_S = torch.randn(K, G, 3), torch.randn(G, K, 4)
        elbo = 0
        for g in range(G):
            mean, log_var = m.C_mean[draw.group[g]], m.C_log_var[draw.group[g]]
            elbo = elbo - 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()
            for k in range(K):
                if draw.mask[g, k]:
                    S_mean, S_log_var = m.S_mean[draw.index[g, k]], m.S_log_var[draw.index[g, k]]
                    c = mean + (0.5 * log_var).exp() * eps_C[k, g]
                    s = S_mean + (0.5 * S_log_var).exp() * eps_S[g, k]
                    x = torch.distributions.Normal(m.dec(c[None], s[None])[0], 0.5)
                    elbo = elbo + x.log_prob(draw.x[g, k]).sum()
                    elbo = elbo - 0.5 * (S_mean**2 + S_log_var.exp() - 1 - S_log_var).sum()
        before = weights(m)
        moved([(-elbo / G, list(m.parameters()))], lr)
        rows = draw.index[draw.mask > 0]
        others = torch.ones(len(m.S_mean), dtype=torch.bool).index_fill(0, rows, False)
        assert torch.equal(m.S_mean[others], before["S_mean"][others])

    method = Unamortised.build((6,), s=3, z=4)
    compared(method, reference, 2, supervision, lr=0.01)
    before = weights(method)
    x, group = torch.rand(5, 6), [0, 0, 1, 1, 1]
    torch.manual_seed(0)
    code = method.infer(x, group)
    assert same(before, weights(method))
    assert [tuple(half.shape) for half in code] == [(2, 3), (5, 4)]

    def error(code):
        return (method.decode(Code(code.s[group], code.z)) - x).square().sum()

    assert error(code) < error(Code(torch.zeros(2, 3), torch.zeros(5, 4)))
    with pytest.raises(UnsupportedError, match="Unamortised has no encoder"):
        method.encode(x)


@shown([(cls, {}) for cls in SKETCHES])
def test_what_bind_made_is_loaded_without_the_data(case, anyof, tmp_path):
    method = made(case)
    train(method, anyof(case[0].supervision), steps=1).method.save(tmp_path / "m")
    loaded = load(tmp_path / "m", method=made(case))
    assert same(weights(method), weights(loaded))
