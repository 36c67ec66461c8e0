"""What is known about the observations: pure draws, every observation once an epoch, what each draw promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.arrays import Rows, factor, gather, mix, observations
from twofold.errors import InputError
from twofold.supervision import Groups, Images, Labels, Reference, Triplets

KINDS = (Images, Labels, Groups, Triplets, Reference)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def numbered(n: int, first: int = 0) -> torch.Tensor:
    """Vectors that tell their own row."""
    return torch.arange(first, first + n, dtype=torch.float32)[:, None]


def rows(x: torch.Tensor) -> list[int]:
    return x.flatten().int().tolist()


def equal(a, b) -> bool:
    return all(map(torch.equal, a, b))


# -- all kinds ---------------------------------------------------------------------------------------------------------


@each_kind
def test_a_draw_is_a_pure_function_of_its_arguments(kind, anyof):
    ours, fresh = anyof(kind), anyof(kind)
    settings = [(7, 0), (0, 0), (40, 0), (7, 1), (6, 0)]
    there = [ours.draw(step, seed, batch_size=12) for step, seed in settings]
    back = [ours.draw(step, seed, batch_size=12) for step, seed in reversed(settings)]
    alone = [anyof(kind).draw(step, seed, batch_size=12) for step, seed in settings]
    for a, b, c in zip(there, reversed(back), alone):
        assert equal(a, b)
        assert equal(a, c)
    assert not any(equal(a, b) for i, a in enumerate(there) for b in there[:i])
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fresh.draw(3, batch_size=12)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002


@each_kind
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_one_global_batch(kind, world, anyof):
    supervision = anyof(kind)
    for step in (0, 3, 11):
        whole = supervision.draw(step, 5, batch_size=16)
        parts = [supervision.draw(step, 5, rank, world, batch_size=16) for rank in range(world)]
        for i, field in enumerate(whole):
            assert torch.equal(field, torch.cat([part[i] for part in parts])), whole._fields[i]


@each_kind
def test_constant_batches_of_float_images_in_the_unit_range(kind, anyof):
    small = anyof(kind)
    pixels = (small.x * 255).byte()
    other = {
        "Images": lambda: Images(pixels),
        "Labels": lambda: Labels(pixels, small.y),
        "Groups": lambda: Groups(pixels, small.group, 4),
        "Triplets": lambda: Triplets(pixels, small.y),
        "Reference": lambda: Reference(pixels, (small.background * 255).byte()),
    }[kind.__name__]()
    for step in range(9):
        draw = other.draw(step, batch_size=16)
        lead = (4, 4) if kind is Groups else (16,)
        for field in draw:
            if field.is_floating_point() and field.ndim > 2:
                assert field.dtype == torch.float32
                assert field.shape == (*lead, 1, 8, 8)
                assert field.min() >= 0
                assert field.max() <= 1
                whole = field * 255
                assert torch.allclose(whole, whole.round(), atol=1e-4)


@each_kind
def test_bad_draws(kind, anyof):
    supervision = anyof(kind)
    for size, world, wanted in ((0, 1, "whole"), (-4, 1, "whole"), (True, 1, "whole"), (9, 2, "positive multiple of")):
        with pytest.raises(InputError, match=rf"^batch_size: {size}; expected a {wanted} "):
            supervision.draw(0, world=world, batch_size=size)
    for step, rank, world in ((-1, 0, 1), (0, 1, 1), (0, -1, 2)):
        with pytest.raises(InputError, match=rf"^step, rank: {step}, {rank}; expected"):
            supervision.draw(step, rank=rank, world=world, batch_size=48)


@each_kind
def test_fingerprints_tell_data_apart(kind, anyof):
    ours = anyof(kind)
    before = ours.fingerprint()
    ours.draw(0, batch_size=8)
    assert ours.fingerprint() == before == anyof(kind).fingerprint()
    assert before != anyof(kind, seed=1).fingerprint()
    assert before != anyof(kind, n=40).fingerprint()


@each_kind
def test_bad_observations(kind, anyof):
    y = np.arange(12) % 3

    def make(x, other=None):
        other = x if other is None else other
        return {
            "Images": lambda: Images(x),
            "Labels": lambda: Labels(x, y),
            "Groups": lambda: Groups(x, y),
            "Triplets": lambda: Triplets(x, y),
            "Reference": lambda: Reference(x, other),
        }[kind.__name__]()

    good = np.random.default_rng(0).random((12, 1, 8, 8))
    make(good)
    name = "target" if kind is Reference else "x"
    holed, infinite = good.copy(), good.copy()
    holed[3, 0, 0, 0], infinite[4:6] = np.nan, np.inf
    bad = [
        (holed, "NaN or Inf in 1 of 12 observations"),
        (infinite, "NaN or Inf in 2 of 12 observations"),
        (good * 255, r"float images range over \[.*\]; expected \[0, 1\] \(divide by 255, or pass uint8\)"),
        (good - 0.5, r"float images range over \[-0\.4"),
        (good[:, 0], r"expected images \[N, C, H, W\] or vectors \[N, D\]; for grey images add the channel axis"),
        (good.transpose(0, 2, 3, 1), "has channels last; put them first"),
        (good[..., :7], "images need at least 8 x 8 pixels"),
        (good[:0], "holds nothing"),
        (good.astype(complex), "images are uint8 in 0..255 or floats"),
        ((good * 9).astype(int), "images are uint8 in 0..255 or floats"),
        ([[1.0, 2.0], [3.0]], "rows differ in length or hold no numbers"),
        ([["a", "b"]], "images are uint8|rows differ"),
        (7, "expected images"),
    ]
    for x, message in bad:
        with pytest.raises(InputError, match=rf"^{name}: .*({message})"):
            make(x)
    if kind is Reference:
        with pytest.raises(InputError, match=r"^background: NaN or Inf in 1 of 12"):
            make(good, holed)
        with pytest.raises(InputError, match=r"^background: observations of shape \(1, 9, 9\); expected \(1, 8, 8\)"):
            make(good, np.zeros((12, 1, 9, 9)))


# -- coverage ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), batch=st.integers(1, 50), world=st.sampled_from([1, 2, 3]), seed=st.integers(0, 9))
def test_each_epoch_sees_each_image_once(n, batch, world, seed):
    """Batches straddle epochs; read end to end, every `n` images are all of them."""
    supervision, seen = Images(numbered(n)), []
    for step in range(math.ceil(3 * n / (batch * world))):
        for rank in range(world):
            draw = supervision.draw(step, seed, rank, world, batch_size=batch * world)
            assert rows(draw.x) == draw.index.tolist()
            seen += draw.index.tolist()
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert supervision.steps_per_epoch(batch) == math.ceil(n / batch)


def test_epochs_and_seeds_differ_in_order():
    supervision = Images(numbered(50))
    orders = [supervision.draw(step, seed, batch_size=50).index.tolist() for step, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(order) for order in orders}) == 3
    assert mix(0, 1) != mix(1, 0)


def test_reference_passes_over_each_set_at_its_own_pace():
    supervision = Reference(numbered(20), numbered(7, first=100))
    draws = [supervision.draw(step, batch_size=5) for step in range(8)]
    target, background = (rows(torch.cat([draw[i] for draw in draws])) for i in (0, 1))
    assert sorted(target[:20]) == sorted(target[20:]) == list(range(20))
    for epoch in range(5):
        assert sorted(background[epoch * 7 : epoch * 7 + 7]) == list(range(100, 107))
    assert len(supervision) == supervision.n == 20
    assert supervision.steps_per_epoch(5) == 4
    assert supervision.facts() == {"n": 20, "shape": [1], "background": 7}


def test_steps_per_epoch_counts_all_draws_of_a_step():
    assert Images(numbered(100)).steps_per_epoch(8, draws=3) == math.ceil(100 / 24)
    groups = Groups(numbered(40), np.repeat(range(8), 5), per_group=5)
    assert groups.steps_per_epoch(10, draws=2) == 2


# -- labels ------------------------------------------------------------------------------------------------------------


def test_labels_come_with_their_images():
    y = np.random.default_rng(0).integers(0, 5, 30)
    supervision = Labels(numbered(30), y)
    seen = []
    for step in range(3):
        draw = supervision.draw(step, batch_size=10)
        assert draw.y.tolist() == [y[i] for i in rows(draw.x)] == [y[i] for i in draw.index]
        seen += draw.index.tolist()
    assert sorted(seen) == list(range(30))
    assert supervision.facts()["classes"] == 5
    assert Labels(numbered(30), y, classes=9).facts()["classes"] == 9


@pytest.mark.parametrize(("batch", "world"), [(8, 1), (8, 2), (9, 1)])
def test_missing_labels_make_half_of_each_batch(batch, world):
    y = np.array([0, 1, 2, 1, 0, *[-1] * 20])
    supervision, labelled, rest = Labels(numbered(25), y), [], []
    assert supervision.facts()["labelled"] == 5
    for step in range(10):
        for rank in range(world):
            draw = supervision.draw(step, 2, rank, world, batch_size=batch)
            assert (draw.y >= 0).sum() == batch // world // 2
            assert draw.y.tolist() == [y[i] for i in rows(draw.x)]
            labelled += [i for i in draw.index.tolist() if y[i] >= 0]
            rest += [i for i in draw.index.tolist() if y[i] < 0]
    for part, everyone in ((labelled, range(5)), (rest, range(5, 25))):
        for epoch in range(len(part) // len(everyone)):
            assert sorted(part[epoch * len(everyone) : (epoch + 1) * len(everyone)]) == list(everyone)


def test_bad_labels():
    x = numbered(6)
    bad = [
        ([0, 1, 1], {}, "y: 3 values for 6 observations; expected as many as there are in x"),
        ([1] * 6, {}, "y: 1 class among 6 labels; expected at least two"),
        ([-1] * 6, {}, "y: 0 class among 0 labels"),
        ([-2, 0, 1, 0, 1, 0], {}, r"y: -2 is out of range; classes are numbered from 0 \(-1 where"),
        ([0, 1, 5, 0, 1, 0], {"classes": 5}, r"y: label 5 is out of range; classes=5 allows 0\.\.4"),
        ([0.5] * 6, {}, "y: .*; expected whole numbers"),
        ([0, 1, np.nan, 0, 1, 0], {}, "y: NaN or Inf in 1 of 6"),
        (np.zeros((6, 2), int), {}, r"y: .*; expected one value an observation, \[6\]"),
    ]
    for y, options, message in bad:
        with pytest.raises(InputError, match=f"^{message}"):
            Labels(x, y, **options)
    assert factor(["b", "a", "b"], 3).tolist() == [1, 0, 1]
    assert factor([0.5, 1], 2).dtype == torch.float32


# -- groups ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 23), min_size=2, max_size=9).filter(lambda sizes: max(sizes) > 1),
    per_group=st.integers(1, 9),
    seed=st.integers(0, 5),
)
def test_chunks_of_unequal_groups(sizes, per_group, seed):
    n = sum(sizes)
    ids = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 10 + 3, sizes))
    supervision = Groups(numbered(n), ids, per_group)
    K = min(per_group, max(sizes))
    pieces = [math.ceil(size / K) for size in sizes]
    epoch = supervision.draw(0, seed, batch_size=K * sum(pieces))  # all chunks in one batch
    assert epoch.x.shape == (sum(pieces), K, 1)
    assert rows(epoch.x) == epoch.index.flatten().tolist()
    seen = []
    for g in range(len(sizes)):
        chunks = [i for i in range(sum(pieces)) if epoch.group[i] == g]
        members = [[int(j) for j, m in zip(epoch.index[i], epoch.mask[i]) if m] for i in chunks]
        counts = [len(m) for m in members]
        assert len(chunks) == pieces[g]
        assert max(counts) - min(counts) <= 1  # even pieces
        assert all(ids[j] == 10 * g + 3 for m in members for j in m)
        seen += [j for m in members for j in m]
        for i, m in zip(chunks, members):  # padding repeats the chunk's own members
            assert set(epoch.index[i].tolist()) == set(m)
    assert sorted(seen) == list(range(n))  # disjoint, complete
    assert set(epoch.mask.unique().tolist()) <= {0.0, 1.0}
    assert supervision.steps_per_epoch(K) == sum(pieces)
    assert supervision.facts() == {"n": n, "shape": [1], "groups": len(sizes), "per_group": K}


def test_chunks_are_cut_anew_each_epoch():
    supervision = Groups(numbered(40), np.repeat([0, 1], 20), per_group=4)
    cuts = []
    for step in range(2):
        draw = supervision.draw(step, batch_size=40)
        cuts.append({frozenset(chunk) for chunk in draw.index.tolist()})
    assert len(cuts[0] & cuts[1]) < 5
    firsts = [supervision.draw(0, seed, batch_size=4).index[0].tolist() for seed in range(9)]
    assert len(set(map(tuple, firsts))) == 9


def test_a_batch_smaller_than_a_chunk_holds_one():
    supervision = Groups(numbered(40), np.repeat([0, 1], 20), per_group=8)
    assert supervision.draw(0, batch_size=3).x.shape[:2] == (1, 8)
    assert supervision.steps_per_epoch(3) == 6


@pytest.mark.parametrize(("batch", "world"), [(24, 2), (40, 4), (8, 2)])
def test_ranks_hold_as_many_chunks_as_one_process_would(batch, world):
    """Also where the ranks' share of a batch is no whole number of chunks: refused, or the same global batch."""
    supervision = Groups(numbered(80), np.repeat(range(4), 20), per_group=8)
    whole = supervision.draw(1, batch_size=batch)
    try:
        parts = [supervision.draw(1, 0, rank, world, batch_size=batch) for rank in range(world)]
    except InputError:
        return
    assert torch.equal(whole.group, torch.cat([part.group for part in parts]))


def test_missing_labels_on_ranks_with_an_odd_share():
    supervision = Labels(numbered(60), np.r_[np.arange(30) % 3, [-1] * 30])
    with pytest.raises(InputError, match=r"^batch_size: 6; expected a positive multiple of 4"):
        supervision.draw(0, 0, 0, 2, batch_size=6)
    whole = supervision.draw(0, batch_size=8)
    parts = [supervision.draw(0, 0, rank, 2, batch_size=8) for rank in range(2)]
    assert sorted(whole.index.tolist()) == sorted(torch.cat([part.index for part in parts]).tolist())


def test_ids_may_be_any_names():
    names = np.array(["ann", "bob", "ann", "bob", "cas"])
    groups, numbers = Groups(numbered(5), names), Groups(numbered(5), [4, 9, 4, 9, 70])
    assert groups.group.tolist() == numbers.group.tolist() == [0, 1, 0, 1, 2]


def test_bad_groups():
    x = numbered(6)
    bad = [
        ([1] * 6, 8, "group: one group only; expected at least two"),
        (range(6), 8, "group: all 6 groups have a single member"),
        ([0, 0, 1], 8, "group: 3 values for 6 observations"),
        ([0, 0, 1, 1, 2, 2], 0, "per_group: 0; expected a whole number of at least 1"),
        ([0.5, 0.5, 1, 1, 2, 2], 8, "group: .*expected whole numbers"),
    ]
    for group, per_group, message in bad:
        with pytest.raises(InputError, match=f"^{message}"):
            Groups(x, list(group), per_group)


# -- triplets ----------------------------------------------------------------------------------------------------------


def test_triplets_are_what_they_say():
    random = np.random.default_rng(0)
    y = random.permutation([2] * 2 + [5] * 3 + [7] * 20 + [9] * 5)
    supervision = Triplets(numbered(30), y)
    dense = np.unique(y, return_inverse=True)[1]
    anchors, partners, others = [], [], []
    for step in range(300):
        draw = supervision.draw(step, batch_size=10)
        a, s, o = (rows(field) for field in draw[:3])
        assert draw.y.tolist() == [dense[i] for i in a]
        assert draw.y_other.tolist() == [dense[i] for i in o]
        assert all(y[i] == y[j] and i != j for i, j in zip(a, s))
        assert all(y[i] != y[j] for i, j in zip(a, o))
        anchors, partners, others = anchors + a, partners + s, others + o
    for epoch in range(100):
        assert sorted(anchors[epoch * 30 : epoch * 30 + 30]) == list(range(30))
    few = np.flatnonzero(y == 5)
    for i in few:  # every partner and every other observation comes up, evenly
        mates = [s for a, s in zip(anchors, partners) if a == i]
        assert {int(m) for m in mates} == set(few.tolist()) - {int(i)}
        assert min(mates.count(m) for m in set(mates)) > 25
    far = [o for a, o in zip(anchors, others) if y[a] == 7]
    counts = np.bincount(far, minlength=30)[y != 7]
    assert counts.min() > 0.7 * counts.mean()
    assert counts.max() < 1.3 * counts.mean()


def test_bad_triplets():
    with pytest.raises(InputError, match=r"^y: one class only"):
        Triplets(numbered(4), [1] * 4)
    with pytest.raises(InputError, match=r"^y: 2 of 3 classes have a single member"):
        Triplets(numbered(4), [0, 0, 1, 2])
    with pytest.raises(InputError, match=r"^y: -1 \(not known\) for 2 of 4"):
        Triplets(numbered(4), [0, 0, -1, -1])


# -- what is larger than memory ----------------------------------------------------------------------------------------


@pytest.fixture
def on_disk(tmp_path) -> np.memmap:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    return np.load(tmp_path / "x.npy", mmap_mode="r", allow_pickle=False)


def test_memory_maps_stay_on_disk(on_disk):
    for x in (on_disk, Rows(on_disk, np.arange(29, -1, -1))):
        supervision = Images(x)
        assert supervision.x is x
        draw = supervision.draw(0, batch_size=7)
        where = draw.index if isinstance(x, np.memmap) else 29 - draw.index
        assert torch.equal(draw.x, torch.from_numpy(on_disk[where.numpy()]) * (1 / 255))
        assert draw.x.dtype == torch.float32
        grouped = Groups(x, np.arange(30) % 5, per_group=3).draw(0, batch_size=6)
        assert grouped.x.shape == (2, 3, 1, 8, 8)
    fifth, in_memory = torch.tensor([4]), torch.from_numpy(np.array(on_disk))
    assert torch.equal(gather(on_disk, fifth), gather(in_memory, fifth))


def test_fingerprints_tell_memory_maps_apart(on_disk):
    found = {Images(Rows(on_disk, index)).fingerprint() for index in (np.arange(20), np.arange(10, 30))}
    assert len(found | {Images(on_disk).fingerprint()}) == 3


def test_memory_maps_are_checked(tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (20, 1, 8, 8))
    array[7, 0, 3, 3] = np.nan
    with pytest.raises(InputError, match=r"^x: NaN or Inf in 1 of 20"):
        observations(array)
    array[7, 0, 3, 3] = 2
    with pytest.raises(InputError, match=r"^x: float images range over"):
        observations(array)
    wide = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float64, (20, 4))
    with pytest.raises(InputError, match=r"^x: .* on disk; a memory map must hold uint8 images or float32"):
        observations(wide)


def test_the_caller_keeps_his_arrays():
    x, y = np.random.default_rng(0).random((12, 4)), np.arange(12) % 3
    kept = x.copy(), y.copy()
    supervision = Groups(x, y, 2)
    before = supervision.draw(0, batch_size=4).x
    x[:], y[:] = 7, 0
    assert torch.equal(before, Groups(*kept, 2).draw(0, batch_size=4).x)
    assert torch.equal(before, supervision.draw(0, batch_size=4).x)
