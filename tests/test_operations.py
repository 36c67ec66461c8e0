"""What a split code is for: swap, interpolate, generate, retrieve, inpaint, accumulate, reconstruct."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from test_contract import label
from twofold import accumulate, fit, generate, inpaint, interpolate, reconstruct, retrieve, swap
from twofold.distributions import Gaussian
from twofold.errors import InputError, UnsupportedError
from twofold.method import Code
from twofold.methods import CLASSES, MLVAE, VAE, Contrastive, Mathieu
from twofold.supervision import Groups

OPERATIONS = {  # each by its smallest call, for methods without an encoder
    "swap": lambda m, x, y: swap(m, x, x, y, y),
    "interpolate": lambda m, x, y: interpolate(m, x, x, y_a=y, y_b=y),
    "retrieve": lambda m, x, y: retrieve(m, x, x, by="z", y=y, y_gallery=y),
    "inpaint": lambda m, x, y: inpaint(m, x, torch.ones(8, 8), y),
    "accumulate": lambda m, x, y: accumulate(m, x, [0, 1] * (len(x) // 2), y),
    "reconstruct": lambda m, x, y: reconstruct(m, x, y=y),
}


@pytest.fixture(scope="module", params=CLASSES)
def ready(request, anyof):
    """Every discovered method on 8x8 images, one step trained, with observations (and their labels) to use it on."""
    cls = CLASSES[request.param]
    supervision = anyof(cls.supervision)
    fast = {"inference_steps": 4} if "inference_steps" in cls.options() else {}
    method = fit(cls.build((1, 8, 8), s=3, z=4, **fast), supervision, steps=1, batch_size=16, progress=False).method
    x, y = supervision.x[:12], label(supervision)
    y = None if y is None else y[:12]
    try:
        code = method.encode(x, y)
    except UnsupportedError:
        for name, use in OPERATIONS.items():
            with pytest.raises(UnsupportedError, match=cls.__name__):
                use(method, x, y), name
        pytest.skip("no encoder: every operation said so")
    return SimpleNamespace(method=method, x=x, y=y, code=code, gaussian=isinstance(method.posterior(x, y)[0], Gaussian))


def rows(y, which):
    return None if y is None else y[which]


def close(a, b) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-6)


# -- on every method ---------------------------------------------------------------------------------------------------


def test_reconstruct(ready):
    m, (s, z) = ready.method, ready.code
    assert close(reconstruct(m, ready.x, y=ready.y), m.decode(Code(s, z)))
    assert close(reconstruct(m, ready.x, "s", ready.y), m.decode(Code(s, torch.zeros_like(z))))
    assert close(reconstruct(m, ready.x, "z", ready.y), m.decode(Code(m.reference_s(12), z)))
    with pytest.raises(InputError, match=r"^which: 'x' is not known"):
        reconstruct(m, ready.x, "x")  # pyright: ignore


def test_swap(ready):
    m, x, y, code = ready.method, ready.x, ready.y, ready.code
    assert close(swap(m, x, x, y, y), reconstruct(m, x, y=y))
    back = torch.arange(11, -1, -1)
    assert close(swap(m, x, x[back], y, rows(y, back)), m.decode(Code(code.s, code.z[back])))
    with pytest.raises(InputError, match=r"^s_from, z_from: 12 and 5 observations; expected as many"):
        swap(m, x, x[:5])
    with pytest.raises(InputError, match=r"^x: shape \(12, 1, 9, 9\).* made for observations of shape \(1, 8, 8\)"):
        swap(m, torch.zeros(12, 1, 9, 9), x)


def test_interpolate(ready):
    m, x = ready.method, ready.x
    (a, y_a), (b, y_b) = ((x[i : i + 3], rows(ready.y, slice(i, i + 3))) for i in (0, 3))
    y = {"y_a": y_a, "y_b": y_b}
    ends = reconstruct(m, a, y=y_a), reconstruct(m, b, y=y_b)
    crossed = swap(m, b, a, y_b, y_a), swap(m, a, b, y_a, y_b)  # the s of b with the z of a; the s of a with the z of b
    both, only_s, only_z = (interpolate(m, a, b, 5, which, **y) for which in ("both", "s", "z"))
    for line, last in ((both, ends[1]), (only_s, crossed[0]), (only_z, crossed[1])):
        assert line.shape == (3, 5, 1, 8, 8)
        assert close(line[:, 0], ends[0])
        assert close(line[:, -1], last)
    (s_a, z_a), (s_b, z_b) = m.encode(a, y_a), m.encode(b, y_b)
    assert close(both[:, 1], m.decode(Code(0.75 * s_a + 0.25 * s_b, 0.75 * z_a + 0.25 * z_b)))
    grid = interpolate(m, a, b, 3, "grid", **y)
    assert grid.shape == (3, 3, 3, 1, 8, 8)
    for (row, column), corner in {(0, 0): ends[0], (-1, -1): ends[1], (0, -1): crossed[0], (-1, 0): crossed[1]}.items():
        assert close(grid[:, row, column], corner)  # a row has one z, a column one s
    assert close(grid[:, 1, 2], m.decode(Code(s_b, 0.5 * (z_a + z_b))))
    one = {"y_a": rows(y_a, 0), "y_b": rows(y_b, 0)}
    assert close(interpolate(m, a[0], b[0], 5, **one), both[0])  # one observation each
    assert close(interpolate(m, a[0], b[0], 3, "grid", **one), grid[0])
    assert close(interpolate(m, a.numpy(), b.numpy(), 5, **y), both)


def test_interpolate_refuses(ready):
    m, x = ready.method, ready.x
    with pytest.raises(InputError, match=r"^steps: 1; expected a whole number of at least 2"):
        interpolate(m, x, x, 1)
    with pytest.raises(InputError, match=r"^which: 'line' is not known"):
        interpolate(m, x, x, which="line")  # pyright: ignore
    with pytest.raises(InputError, match=r"^a, b: 3 and 2 observations"):
        interpolate(m, x[:3], x[:2], y_a=rows(ready.y, slice(3)), y_b=rows(ready.y, slice(2)))


def test_generate_from_examples(ready):
    m, n = ready.method, 7
    if m.needs == "y":
        with pytest.raises(InputError, match=rf"^y: None; {type(m).__name__} encodes with labels"):
            generate(m, n, examples=ready.x)
        return
    found = generate(m, n, examples=ready.x[:3], seed=5)
    torch.manual_seed(5)
    z = torch.randn(n, m.sizes[1])
    s = m.encode(ready.x[:3]).s
    assert close(found, m.decode(Code(torch.stack([s[i % 3] for i in range(n)]), z)))


def test_generate_from_the_prior(ready):
    m = ready.method
    if m.needs:
        return
    torch.manual_seed(5)
    code = m.prior(4)
    assert close(generate(m, 4, seed=5), m.decode(code))
    many = m.prior(20_000).z
    assert many.mean().abs() < 0.05
    assert many.std() == pytest.approx(1, abs=0.05)


def test_generate_with_the_z_of_others(ready):
    m, y_z = ready.method, rows(ready.y, slice(3))
    if m.needs:
        return
    found = generate(m, 7, z_from=ready.x[:3], y_z=y_z, seed=5)
    torch.manual_seed(5)
    s, z = m.prior(7).s, m.encode(ready.x[:3], y_z).z
    assert close(found, m.decode(Code(s, torch.stack([z[i % 3] for i in range(7)]))))


def test_generate_refuses(ready):
    m = ready.method
    with pytest.raises(InputError, match=r"^n: 0; expected a whole number of at least 1"):
        generate(m, 0)
    with pytest.raises(InputError, match=r"^y, examples: both given"):
        generate(m, 2, y=1, examples=ready.x)
    with pytest.raises(InputError, match=r"^y: 3 classes for n = 2"):
        generate(m, 2, y=[0, 1, 2])


def test_generate_from_a_class_needs_a_method_with_classes(ready):
    if ready.y is None:
        with pytest.raises(UnsupportedError, match=type(ready.method).__name__):
            generate(ready.method, 2, y=1)


@pytest.mark.parametrize("by", ["s", "z"])
def test_retrieve_against_brute_force(ready, by):
    m, x = ready.method, ready.x
    if m.sizes["sz".index(by)] == 0:
        with pytest.raises(InputError, match=rf"^by: '{by}'; this method's {by} has no dimensions"):
            retrieve(m, x, x, by=by)
        return
    gallery = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    gallery[50:] = gallery[3:13]  # twins: ties go to the lower index
    query = torch.cat([x, gallery[8:10]])
    y, y_gallery = None, None
    if ready.y is not None:
        y_gallery = torch.arange(60) % 4
        y_gallery[50:] = y_gallery[3:13]
        y = torch.cat([ready.y, y_gallery[8:10]])
    q, g = (getattr(m.encode(v, told), by).double().numpy() for v, told in ((query, y), (gallery, y_gallery)))
    distance = np.sqrt(((q[:, None] - g[None]) ** 2).sum(-1))
    order = np.argsort(distance, 1, kind="stable")[:, :60]
    for k in (1, 5, 60):
        indices, distances = retrieve(m, query, gallery, k, by, y, y_gallery)
        assert indices.tolist() == order[:, :k].tolist()
        assert np.allclose(distances.numpy(), np.take_along_axis(distance, order[:, :k], 1), atol=1e-6)
    for k in (0, 61):
        with pytest.raises(InputError, match=rf"^k: {k}; expected a whole number from 1 to 60"):
            retrieve(m, query, gallery, k, by)
    with pytest.raises(InputError, match=r"^by: 'c' is not known"):
        retrieve(m, query, gallery, by="c")  # pyright: ignore


@pytest.mark.parametrize("form", [(8, 8), (1, 8, 8), (12, 1, 8, 8)], ids=str)
def test_inpaint(ready, form):
    m, x, y = ready.method, ready.x, ready.y
    mask = torch.zeros(form)
    mask[..., :, 4:] = 1  # the right half
    found = inpaint(m, x, mask, y)
    assert torch.equal(found[..., :4], x[..., :4])  # to the bit
    assert not torch.equal(found[..., 4:], x[..., 4:])
    other = x.clone()
    other[..., 4:] = 1 - other[..., 4:]
    assert torch.equal(found, inpaint(m, other, mask.bool(), y))  # what stands under the mask is not seen
    seen = x.clone()
    seen[..., 4:] = 0
    assert close(found[..., 4:], reconstruct(m, seen, y=y)[..., 4:])
    other[..., 4:] = float("nan")
    assert torch.equal(found, inpaint(m, other.numpy(), mask, y))
    pixels = (x * 255).byte()
    assert torch.equal(inpaint(m, pixels, mask, y)[..., :4], (pixels * (1 / 255))[..., :4])
    assert torch.equal(inpaint(m, x, torch.zeros(8, 8), y), x)


def test_inpaint_refuses(ready):
    for mask, message in (
        (torch.full((8, 8), 0.5), r"^mask: values other than 0 and 1"),
        (torch.ones(7, 8), r"^mask: shape \(7, 8\), float32; expected one that fits \(12, 1, 8, 8\)"),
    ):
        with pytest.raises(InputError, match=message):
            inpaint(ready.method, ready.x, mask)


def test_accumulate_is_a_loop_over_groups(ready):
    m, x = ready.method, ready.x
    names = ["b", "a", "b", "c", "b", "a", "b", "b", "d", "a", "b", "b"]
    if hasattr(m, "infer"):  # the whole group at once, instead
        assert close(accumulate(m, x, names).s, m.infer(x, names, progress=False).s)
        return
    q_s, q_z = m.posterior(x, ready.y)
    expected = []
    for name in sorted(set(names)):
        members = [i for i, other in enumerate(names) if other == name]
        if ready.gaussian:
            precision = sum(1 / q_s.variance[i].double() for i in members)
            expected.append(sum(q_s.mean[i].double() / q_s.variance[i].double() for i in members) / precision)
        else:
            expected.append(sum(q_s.mean[i].double() for i in members) / len(members))
    found = accumulate(m, x, names, ready.y)
    assert close(found.s, torch.stack(expected).float())
    assert torch.equal(found.z, q_z.mean)
    alone = accumulate(m, x, range(12), ready.y)  # strategy 1: each is its own group
    assert close(alone.s, m.encode(x, ready.y).s)
    with pytest.raises(InputError, match=r"^group: 3 values for 12 observations"):
        accumulate(m, x, [0, 1, 1], ready.y)


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_is_disturbed(ready, name):
    """Results on the CPU without gradients; the method's mode and weights, the caller's images and generator stay."""
    m, x = ready.method, ready.x
    kept, state = x.clone(), torch.get_rng_state()
    m.train()
    before = {key: value.clone() for key, value in m.state_dict().items()}
    result = OPERATIONS[name](m, x, ready.y)
    assert m.training
    m.eval()
    for part in result if isinstance(result, tuple) else (result,):
        assert not part.requires_grad
        assert part.device.type == "cpu"
    assert torch.equal(x, kept)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in m.state_dict().items())


# -- on some -----------------------------------------------------------------------------------------------------------


def test_retrieve_in_a_large_gallery():
    """Past 4,096 another way is taken; the result is the same, but for ties at the end of the k."""
    m = VAE.build((6,), z=3, arch="zheng19-toy")
    gallery = 30 * torch.rand(5000, 6, generator=torch.Generator().manual_seed(0))
    gallery[4000:] = gallery[:1000]
    indices, distances = retrieve(m, gallery[:40], gallery, 6, "z")
    z = m.encode(gallery).z.double().numpy()
    distance = np.sqrt(((z[:40, None] - z[None]) ** 2).sum(-1))
    order = np.argsort(distance, 1, kind="stable")[:, :6]
    assert np.allclose(distances.numpy(), np.take_along_axis(distance, order, 1), atol=1e-5)
    assert indices[:, :2].tolist() == [[i, i + 4000] for i in range(40)]
    assert indices[:, :-1].tolist() == order[:, :-1].tolist()


def test_points_are_averaged():
    method = Mathieu.build((6,), s=3, z=4, arch="zheng19-toy")
    x, group = torch.rand(6, 6), [0, 0, 1, 1, 1, 0]
    s = method.encode(x).s
    expected = torch.stack([s[[0, 1, 5]].mean(0), s[[2, 3, 4]].mean(0)])
    assert close(accumulate(method, x, group).s, expected)


def test_a_mixture_of_normals_accumulates_as_the_mean_of_its_members():
    """[Bouchacourt18, supplement Eq. 1]: that method's group posterior is no product."""
    method = MLVAE.build((6,), s=2, z=3, arch="zheng19-toy", evidence="mixture")
    x, group = torch.rand(6, 6), [0, 0, 1, 1, 1, 0]
    s = method.encode(x).s
    expected = torch.stack([s[[0, 1, 5]].mean(0), s[[2, 3, 4]].mean(0)])
    assert close(accumulate(method, x, group).s, expected)


def test_vectors():
    m, x = VAE.build((6,), z=3, arch="zheng19-toy"), torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([0, 1, 0, 0, 1, 0])
    found = inpaint(m, x, mask)
    assert torch.equal(found[:, mask == 0], x[:, mask == 0])
    assert torch.equal(found, inpaint(m, torch.where(mask == 1, 99.0, x), mask))
    assert torch.equal(found, inpaint(m, x, mask.expand(4, 6)))
    assert interpolate(m, x[0], x[1], 4).shape == (4, 6)


def test_accumulated_evidence_in_training_is_that_at_test_time():
    """One chunk holds the whole group: `accumulate` gives the mean of the posterior that `losses` samples from."""
    x, group = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)), [0, 0, 0, 0, 0, 1, 1, 1]
    method = MLVAE.build((6,), s=2, z=3, arch="zheng19-toy")
    draw = Groups(x, group, per_group=8).draw(0, batch_size=10)
    q = method.enc(draw.x.flatten(0, 1))[0].unflatten(tuple(draw.mask.shape)).product(1, draw.mask)
    assert close(accumulate(method, x, group).s, q.mean[draw.group.argsort()].detach())


def test_salient_and_background_decodes():
    """[Contrast21, Fig. 5]: the background alone is the decode of [z, 0]."""
    method = Contrastive.build((6,), s=2, z=3, arch="zheng19-toy")
    x = torch.rand(4, 6)
    code = method.encode(x)
    assert close(reconstruct(method, x, "z"), method.decode((torch.zeros(4, 2), code.z)))
    assert close(reconstruct(method, x, "s"), method.decode((code.s, torch.zeros(4, 3))))


# -- codes, by hand ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 3)), r"code.s: shape \(2, 3\), float32; expected \[N, 2\]"),
        ((torch.zeros(2, 2), torch.zeros(2)), r"code.z: shape \(2,\), float32; expected \[N, 3\]"),
        ((torch.zeros(2, 2), torch.zeros(4, 3)), "code: 2 rows of s and 4 of z"),
        ((torch.zeros(0, 2), torch.zeros(0, 3)), "code: no rows"),
    ],
)
def test_bad_codes(code, message):
    with pytest.raises(InputError, match=f"^{message}"):
        MLVAE.build((6,), s=2, z=3, arch="zheng19-toy").decode(code)


def test_bad_queries():
    method = MLVAE.build((6,), s=2, z=3, arch="zheng19-toy")
    with pytest.raises(InputError, match=r"^x: shape \(2, 5\).*; ml-vae was made for observations of shape \(6,\)"):
        method.encode(torch.zeros(2, 5))
    with pytest.raises(InputError, match=r"^y: 3 labels for 2 observations"):
        method.encode(torch.zeros(2, 6), y=[0, 1, 2])
    with pytest.raises(InputError, match=r"^x: NaN or Inf in 1 of 2"):
        method.encode(torch.tensor([[0.0] * 6, [float("nan")] * 6]))
    rows = method.encode(np.zeros((3, 6)))
    assert all(map(torch.equal, rows, method.encode([[0] * 6] * 3)))
