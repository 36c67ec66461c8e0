"""Trainings that several tests share: beside a reference by hand, without sampling noise on one process and on two, and
one to be killed. Spawned processes import this module, so it holds no tests."""

from __future__ import annotations

import os
from unittest import mock

import numpy as np
import torch

from twofold.arrays import mix
from twofold.method import Method
from twofold.methods import CLASSES
from twofold.supervision import Groups, Images, Labels, Triplets
from twofold.training import fit


def weights(method) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in method.named_parameters()}


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
    copy = type(method).build(**method.config)
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


def quiet(name: str) -> type[Method]:
    """A method of twofold whose Gaussians give their means when sampled, in training."""
    cls = CLASSES[name]

    def losses(self, *draws):
        body = cls.losses(self, *draws)
        while True:
            with mock.patch.multiple("torch", randn=torch.zeros, randn_like=torch.zeros_like):
                update = next(body, None)
            if update is None:
                return
            yield update

    return type(f"Quiet{name}", (cls,), {"losses": losses, "__module__": __name__, "__qualname__": f"Quiet{name}"})


QUIET = {name: quiet(name) for name in CLASSES}
globals().update({f"Quiet{name}": cls for name, cls in QUIET.items()})  # spawned processes find them by name


def example(out=None, *, steps: int = 120, seed: int = 0, **options):
    """A small training of MLVAE on unequal groups, the same in every process that calls it."""
    random = np.random.default_rng(0)
    supervision = Groups(random.random((60, 1, 8, 8), np.float32), random.integers(0, 9, 60), per_group=4)
    method = CLASSES["MLVAE"].build((1, 8, 8), s=2, z=3, arch="zheng19-toy")
    return fit(method, supervision, steps=steps, batch_size=16, seed=seed, out=out, progress=False, **options)


RANKED = {  # name: class, options; `scale` None is a statistic of the batch, as W2, total correlation and others are
    "vae": ("VAE", {"scale": 0.3}),
    "vae-scale": ("VAE", {"scale": None}),
    "mlvae": ("MLVAE", {"scale": 0.3, "leakage": 0.0}),
    "mlvae-leakage": ("MLVAE", {"scale": 0.3, "leakage": 5.0}),
    "contrastive": ("Contrastive", {"scale": 0.3, "lambda_z": 2.0, "leakage": 0.0}),
    "contrastive-leakage": ("Contrastive", {"scale": 0.3, "lambda_z": 0.0, "leakage": 5.0}),
    "beta-tcvae": ("BetaTCVAE", {"scale": 0.3}),
    "beta-tcvae-stratified": ("BetaTCVAE", {"scale": 0.3, "estimator": "stratified"}),
    "dip-vae-i": ("DIPVAE", {"scale": 0.3}),
    "dip-vae-ii": ("DIPVAE", {"scale": 0.3, "kind": "ii"}),
    "abid-zou": ("AbidZou", {"scale": 0.3}),
    "rb-vae": ("RbVAE", {"scale": 0.3}),
    "srb-vae": ("SRbVAE", {"scale": 0.3, "dropout": 0.0}),
    "symmetric-vae": ("SymmetricVAE", {"scale": 0.3, "dropout": 0.0}),
    "group-klvae": ("GroupKLVAE", {"scale": 0.3}),
    "conditional-vae": ("ConditionalVAE", {"scale": 0.3}),
    "cvae-gan": ("CVAEGAN", {}),
    "cgan": ("CGAN", {"loss": "log"}),  # a hinge is flat in the offset: Adam makes steps of rounding errors
    "mathieu": ("Mathieu", {"scale": 0.3, "kl": 3.0, "leakage": 5.0}),
    "label-relevant-vae": ("LabelRelevantVAE", {"scale": 0.3}),
}


def ranked(name: str, **options):
    """A training of one of `RANKED`, on as many processes as there are."""
    random = np.random.default_rng(0)
    x, group = random.random((96, 6), np.float32), random.permutation(np.repeat(range(6), [40, 25, 17, 9, 4, 1]))
    cls, how = QUIET[RANKED[name][0]], RANKED[name][1]
    known = {Images: (x,), Labels: (x, group % 3), Groups: (x, group, 4), Triplets: (x, group % 3)}
    supervision = cls.supervision(*known.get(cls.supervision, (x[:50], x[50:])))
    method = cls.build((6,), s=2, z=3, arch="zheng19-toy", **how)
    return fit(method, supervision, steps=6, batch_size=16, device="cpu", progress=False, **options)


def ranked_all(folder: str):
    """What a launcher runs in each of two processes: all of `RANKED`, the weights saved for each rank."""
    for name in RANKED:
        ranked(name, devices=2).method.save(f"{folder}/{name}-{os.environ['RANK']}")
