"""Encoders and decoders: every architecture at every size, and the papers' own, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from twofold.distributions import Gaussian, Point
from twofold.errors import InputError
from twofold.networks import ARCHITECTURES, ChannelNorm, CReLU, Mlp, PixelNorm, UpConv, build

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 33, 40), (2, 9, 21)]
VECTORS = [name for name, spec in ARCHITECTURES.items() if isinstance(spec, Mlp)]


def layers(module: nn.Module, *kinds) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, kinds)]


@pytest.mark.parametrize("shape", [*SHAPES, (13,), (1,)], ids=str)
@pytest.mark.parametrize("arch", ["auto", *ARCHITECTURES])
def test_shapes_and_ranges(arch, shape):
    if len(shape) == 1 and arch not in ("auto", *VECTORS):
        with pytest.raises(InputError, match=rf"^arch: {arch} needs images, the observations are vectors of"):
            build(arch, shape, 3, 4)
        return
    torch.manual_seed(0)
    encoder, decoder = build(arch, shape, 3, 4)
    x = torch.rand(2, *shape)
    q_s, q_z = encoder(x)
    assert isinstance(q_s, Gaussian)
    assert isinstance(q_z, Gaussian)
    assert q_s.mean.shape == q_s.log_var.shape == (2, 3)
    assert q_z.mean.shape == q_z.log_var.shape == (2, 4)
    decoded = decoder(10 * q_s.mean, 10 * q_z.mean)
    mean = decoded.mean if isinstance(decoded, Gaussian) else decoded
    assert mean.shape == (2, *shape)
    if len(shape) == 3:
        assert mean.min() >= 0
        assert mean.max() <= 1
    (mean.sum() + q_s.kl().sum() + q_z.kl().sum()).backward()
    assert all(p.grad is not None for net in (encoder, decoder) for p in net.parameters() if p.numel())


@pytest.mark.parametrize("side", [*range(8, 20), 31, 64])
def test_any_side(side):
    for arch in ("conv", "contrast21-narrow", "mathieu16-small"):
        encoder, decoder = build(arch, (1, side, side + 3), 2, 2)
        s, z = encoder(torch.rand(2, 1, side, side + 3))
        assert decoder(s.mean, z.mean).shape == (2, 1, side, side + 3)


@pytest.mark.parametrize(("s", "z"), [(0, 3), (3, 0)])
@pytest.mark.parametrize("separate", [True, False])
def test_an_absent_half_has_width_zero(s, z, separate):
    encoder, decoder = build("mlp", (6,), s, z, separate=separate)
    q_s, q_z = encoder(torch.rand(2, 6))
    assert q_s.mean.shape == (2, s)
    assert q_z.mean.shape == (2, z)
    assert (q_s if s == 0 else q_z).kl().tolist() == [0, 0]
    assert decoder(q_s.sample(), q_z.sample()).shape == (2, 6)


def test_points_and_separate_encoders():
    encoder, _ = build("mlp", (6,), 3, 4, point=True)
    s, z = encoder(torch.rand(2, 6))
    assert isinstance(s, Point)
    assert isinstance(z, Gaussian)
    assert torch.equal(s.sample((5,)), s.mean.expand(5, 2, 3))
    encoder, _ = build("mlp", (6,), 3, 4, separate=True)
    encoder(torch.rand(2, 6))[0].kl().sum().backward()
    assert all((p.grad is not None) == ("_s." in name) for name, p in encoder.named_parameters())
    assert build("ruiz19", (1, 8, 8), 3, 4)[0].trunk_s is not None
    assert build("ruiz19", (1, 8, 8), 3, 4, separate=False)[0].trunk_s is None


def test_a_stray_batch_does_not_overflow():
    encoder, _ = build("mlp", (6,), 3, 4)
    s, z = encoder(1e6 * torch.randn(2, 6))
    assert s.log_var.abs().max() <= 14
    assert z.kl().isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mpl", (6,), 3, 4), r"arch: 'mpl' is not known \(did you mean 'mlp'\?\)"),
        (("mlp", (6,), -1, 4), "s: -1; expected a whole number"),
        (("mlp", (6,), 3, 2.5), "z: 2.5; expected a whole number"),
        (("mlp", (6,), 0, 0), "s, z: both are 0"),
        (("mlp", (6, 7), 3, 4), r"shape: \(6, 7\); expected \(channels, height, width\) or \(dimensions,\)"),
        (("mlp", (0,), 3, 4), r"shape: \(0,\)"),
    ],
    ids=str,
)
def test_bad_networks(arguments, message):
    with pytest.raises(InputError, match=f"^{message}"):
        build(*arguments)


# -- layers ------------------------------------------------------------------------------------------------------------


def test_norms_against_loops():
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    pixel, channel = PixelNorm()(x), ChannelNorm(5).double()(x)
    for n in range(2):
        for i in range(3):
            for j in range(4):
                v = x[n, :, i, j]
                assert torch.allclose(pixel[n, :, i, j], v / (v.square().mean() + 1e-8).sqrt())
                unit = (v - v.mean()) / (v.var(correction=0) + 1e-5).sqrt()
                assert torch.allclose(channel[n, :, i, j], unit, atol=1e-6)
    assert CReLU()(torch.tensor([[1.0, -2.0]])).tolist() == [[1, 0, 0, 2]]


def test_transposed_convolution_lands_on_the_side():
    """It is the adjoint's shape: up from what a strided convolution came down to, whatever the parity."""
    for side in ((7, 8), (8, 7), (5, 12)):
        down = [-(-value // 2) for value in side]
        assert UpConv(2, 3, 4, 2, side)(torch.rand(1, 2, *down)).shape == (1, 3, *side)
    up = UpConv(1, 1, 4, 2, (8, 8))
    usual = nn.ConvTranspose2d(1, 1, 4, 2, padding=1)
    usual.load_state_dict(up.conv.state_dict())
    x = torch.rand(1, 1, 4, 4)
    assert torch.allclose(up(x), usual(x), atol=1e-6)


# -- the papers' own ---------------------------------------------------------------------------------------------------


def test_bouchacourt18_mnist():
    """784-500-tanh, four heads of d = 10, mirrored (supplement 2.1)."""
    encoder, decoder = build("bouchacourt18-mnist", (1, 28, 28), 10, 10)
    sizes = [[(m.in_features, m.out_features) for m in layers(net, nn.Linear)] for net in (encoder, decoder)]
    assert sizes == [[(784, 500), (500, 40)], [(20, 500), (500, 784)]]
    assert len(layers(encoder, nn.Tanh)) == len(layers(decoder, nn.Tanh)) == 1


def test_bouchacourt18_faces():
    """Four 4x4 convolutions of stride 2 with batch norm and ReLU, two linear layers of 256 with CReLU; a mean and a
    log-variance of each pixel, the latter 5 tanh (supplement 2.1)."""
    encoder, decoder = build("bouchacourt18-faces", (3, 64, 64), 50, 50)
    convolutions = layers(encoder, nn.Conv2d)
    assert [m.out_channels for m in convolutions] == [64, 128, 256, 512]
    assert all(m.kernel_size == (4, 4) and m.stride == (2, 2) for m in convolutions)
    assert [m.num_features for m in layers(encoder, nn.BatchNorm2d)] == [64, 128, 256, 512]
    assert [m.out_features for m in layers(encoder, nn.Linear)] == [256, 256, 200]
    assert [m.num_features for m in layers(encoder, nn.BatchNorm1d)] == [256, 256]
    assert len(layers(encoder, CReLU)) == 2
    transposed = layers(decoder, nn.ConvTranspose2d)
    assert [m.out_channels for m in transposed] == [256, 128, 64]
    assert all(m.kernel_size == (4, 4) and m.stride == (2, 2) for m in transposed)
    assert [m.num_features for m in layers(decoder, nn.BatchNorm2d)] == [256, 128, 64]
    (last,) = layers(decoder, nn.Conv2d)  # a mean and a log-variance of each of three channels
    assert (last.out_channels, last.kernel_size, last.stride) == (6, (3, 3), (1, 1))
    (first,) = layers(decoder, nn.Linear)  # ours: the supplement says nothing between the codes and 256 filters
    assert first.out_features == 512 * 8 * 8
    x = decoder(100 * torch.randn(2, 50), 100 * torch.randn(2, 50))
    assert isinstance(x, Gaussian)
    assert x.log_var.abs().max() <= 5
    assert 0 <= x.mean.min() <= x.mean.max() <= 1


def test_contrast21():
    """Five convolutions and one fully connected layer, leaky ReLU, channel norm; mirrored, sigmoid (A.3)."""
    encoder, decoder = build("contrast21", (1, 28, 28), 8, 16)
    assert [len(layers(encoder, kind)) for kind in (nn.Conv2d, ChannelNorm, nn.LeakyReLU)] == [5, 5, 5]
    assert [m.out_features for m in layers(encoder, nn.Linear)] == [2 * (8 + 16)]
    assert len(layers(decoder, nn.ConvTranspose2d)) == 5
    assert len(layers(decoder, nn.Linear)) == len(layers(decoder, nn.Sigmoid)) == 1


def test_mathieu16():
    """MNIST and Sprites: three 5x5 of stride 2; NORB and Yale-B: six 3x3, stride 2 every other layer."""
    for name, kernel, strides in (("mathieu16-small", 5, [2] * 3), ("mathieu16-large", 3, [1, 2] * 3)):
        convolutions = layers(build(name, (1, 28, 28), 16, 16, point=True)[0], nn.Conv2d)
        assert [m.kernel_size for m in convolutions] == [(kernel, kernel)] * len(strides)
        assert [m.stride[0] for m in convolutions] == strides


def test_zheng19_toy():
    """Two MLP encoders of 32, 64 and 64 units (Sec. 4.1)."""
    encoder, _ = build("zheng19-toy", (2,), 2, 2)
    for trunk in (encoder.trunk, encoder.trunk_s):
        assert [m.out_features for m in layers(trunk, nn.Linear)] == [32, 64, 64]


def test_ruiz19():
    """3x3 convolutions, leaky ReLU of slope 0.2, pixel norm, average pooling, nearest up-sampling, an encoder each."""
    encoder, decoder = build("ruiz19", (3, 64, 64), 16, 16)
    assert all(m.kernel_size == (3, 3) and m.stride == (1, 1) for m in layers(encoder, nn.Conv2d))
    assert len(layers(encoder, nn.AdaptiveAvgPool2d)) == 8  # four in each encoder
    assert {m.negative_slope for m in layers(encoder, nn.LeakyReLU)} == {0.2}
    assert len(layers(decoder, PixelNorm)) > 0
    assert all(m.mode == "nearest" for m in layers(decoder, nn.Upsample))
