"""The contract that every method passes.

A method added to twofold/methods is tested here without a line more.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from twofold import fit, generate, load
from twofold.errors import InputError, UnsupportedError
from twofold.method import Code, read_tensors
from twofold.methods import CLASSES, names
from twofold.supervision import Groups, Images, Labels, Reference, Triplets

VARIANTS = {
    "LabelRelevantVAE": [
        {"lambda_gan": 0.0, "lambda_adv": 0.0, "leakage": 0.0},
        {"gan": "log", "spectral": False, "projection": False, "n_gm": 2, "sigma_s": 0.0},
    ],
    "MLVAE": [{"evidence": "mixture"}, {"scale": 0.3, "beta": 2.0}],
    "Contrastive": [{"lambda_z": 0.0}, {"likelihood": "laplace", "scale": 0.3}],
    "VAE": [{"likelihood": "bernoulli"}],
    "BetaTCVAE": [{"estimator": "stratified"}],
    "DIPVAE": [{"kind": "ii"}],
    "ConditionalVAE": [{"likelihood": "bernoulli"}],
    "CVAEGAN": [{"history": 0.0, "kl": 0.1}],
    "CGAN": [{"n_critic": 2, "loss": "log", "spectral": False}],
    "Mathieu": [{"gan": 0.0}, {"gan_prior": 0.5, "spectral": True, "leakage": 0.0}],
    "RbVAE": [{"likelihood": "gaussian"}],
    "GroupSVI": [{"scale": 0.3}],
    "GroupKLVAE": [{"leakage": 0.0, "likelihood": "bernoulli"}],
}
FAST = {"GroupSVI": {"inference_steps": 4}}  # the same promises, in less time
CASES = [(cls, options) for name, cls in CLASSES.items() for options in ({}, *VARIANTS.get(name, []))]
KINDS = (Images, Labels, Groups, Triplets, Reference)


def called(case) -> str:
    cls, options = case
    return "-".join([cls.name, *(f"{k}={v}" for k, v in options.items())])


def shown(values):
    return pytest.mark.parametrize("case", values, ids=called)


every = shown(CASES)


def made(case, shape=(1, 8, 8), **more):
    cls, options = case
    return cls.build(shape, s=3, z=4, **{**FAST.get(cls.__name__, {}), **options, **more})


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


@every
def test_each_update_moves_its_players_and_nothing_else(case, anyof):
    method, supervision = made(case), anyof(case[0].supervision)
    body, updates, stepped, reached = method.losses, [], [], set()

    def watched(*draws):
        for update in body(*draws):
            before = weights(method)
            stepped.clear()
            yield update
            updates.append((set(update), Counter(stepped), before, weights(method)))

    def count(optimiser, *_):
        ids = {id(p) for group in optimiser.param_groups for p in group["params"]}
        stepped.append({owner[n] for n, p in method.named_parameters() if id(p) in ids}.pop())
        reached.update(n for n, p in method.named_parameters() if id(p) in ids and p.grad is not None)

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
        still = trainable - {n for n in start if not torch.equal(start[n], end[n])}
        assert all(start[n].shape == (1,) and n in reached for n in still)  # a hinge's offset: real and fake cancel


@every
def test_every_trainable_parameter_has_one_player(case, anyof):
    method = made(case)
    method.bind(anyof(case[0].supervision))
    assert {n for n, p in method.named_parameters() if p.requires_grad} <= set(owners(method))
    assert set(method.players) == set(owners(method).values())


@every
def test_losses_name_players_and_give_finite_scalars(case, anyof):
    """Also: losses at unmoved weights come from iterating without updating."""
    method, supervision = made(case), anyof(case[0].supervision)
    method.bind(supervision)
    draws = [supervision.draw(i, batch_size=16) for i in range(method.draws)]
    before, found = weights(method), []
    start = {name: value.clone() for name, value in method.state_dict().items()}
    for mode in (torch.enable_grad, torch.no_grad):
        method.load_state_dict(start)  # running statistics and singular vectors move with each pass
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


@every
def test_bf16_is_finite_and_close(case, anyof):
    supervision = anyof(case[0].supervision)
    rows = {p: train(made(case), supervision, steps=4, precision=p).metrics for p in ("fp32", "bf16")}
    assert all(math.isfinite(v) for row in rows["bf16"] for v in row.values())
    for term in rows["fp32"][0].keys() - {"seconds"}:
        a, b = rows["fp32"][0][term], rows["bf16"][0][term]
        assert b == pytest.approx(a, rel=0.1, abs=0.05), term


@every
def test_same_seed_same_result(case, anyof):
    def result(seed, caller):
        run = train(made(case), anyof(case[0].supervision), seed=seed, caller=caller)
        return weights(run.method), [{k: v for k, v in row.items() if k != "seconds"} for row in run.metrics]

    (a, rows_a), (b, rows_b), (c, _) = result(5, 1), result(5, 2), result(6, 1)
    assert same(a, b)  # the caller's own generator decides nothing, not even what `bind` makes
    assert rows_a == rows_b
    assert not same(a, c)


@every
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


@every
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
