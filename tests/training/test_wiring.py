"""What the training scripts give the network and what the optimiser does with it, recorded while
they run as a user runs them.

The images tell where they come from: each pixel holds its image, its row and its column. So what a
network receives is compared with the source to the last pixel: which image it is, flipped or not,
cropped where, normalised how.
"""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import write_images
from PIL import Image

from utils import training

# images: three steps an epoch, the last of 44; the outliers are used up within each epoch
ID, OUTLIERS = 300, 70
SIZES = (128, 128, 44)
ID_STATISTICS = ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

PROBE = """
import torch

calls, steps = [], []


class Probe(torch.nn.Module):
    feature_dim = 8

    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 8, 3, stride=4, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(8)
        self.fc = torch.nn.Linear(8, num_classes)

    def forward(self, x):
        h = torch.relu(self.bn1(self.conv1(x))).mean((2, 3))
        h = torch.nn.functional.dropout(h, 0.1, self.training)
        logits, features = self.fc(h), h * 1  # apart, so that a loss's gradient by each can be seen
        call = dict(x=x.detach().clone(), logits=logits.detach(), features=h.detach(),
                    seed=torch.initial_seed(),
                    training=self.training, learns=torch.is_grad_enabled(), before_step=len(steps))
        calls.append(call)
        if call["learns"]:
            logits.register_hook(lambda g: call.update(by_logits=g.clone()))
            features.register_hook(lambda g: call.update(by_features=g.clone()))
        return logits, features


def make(num_classes):
    make.model = Probe(num_classes)
    return make.model


def record(path):
    step = torch.optim.SGD.step

    def recorded(self, *a, **k):
        keys = ("lr", "weight_decay", "momentum", "nesterov")
        groups = [{key: g[key] for key in keys} for g in self.param_groups]
        held = [id(p) for g in self.param_groups for p in g["params"]]
        weight = make.model.fc.weight
        steps.append(dict(groups=groups, all_held=sorted(held) == sorted(map(id, make.model.parameters())),
                          weight_gradient=weight.grad.clone()))
        result = step(self, *a, **k)
        torch.save((calls, steps), path) if len(steps) % 3 == 0 else None
        return result
    torch.optim.SGD.step = recorded


def record_evaluation(path):
    import atexit, os
    leave = os._exit
    def left(status):
        torch.save((calls, steps), path)
        leave(status)
    os._exit = left
"""


def coded(count, outliers=False):
    """uint8 (count,32,32,3): red and the hundreds in green name the image,
    green the row, blue the column.
    """
    i, y, x = np.ogrid[:count, :32, :32]
    red = 1 + i % 100 + 120 * outliers + 0 * y + 0 * x
    return np.stack(np.broadcast_arrays(red, 60 + y + 40 * (i // 100), 100 + x), axis=3).astype(
        np.uint8
    )


def pixels(x, statistics):
    """int (N,32,32,3) in 0..255 of a normalised batch;
    fails where these statistics do not give whole numbers.
    """
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in statistics)
    values = (x.double() * std + mean) * 255
    assert (values - values.round()).abs().max() < 0.02, "normalised with other statistics"
    return values.round().long().permute(0, 2, 3, 1).numpy()


def locate(images, outliers=False):
    """(image, flipped, down, right) arrays of what was cropped, after a comparison of every pixel,
    black borders included.
    """
    centre, beside = images[:, 16, 16], images[:, 16, 17]
    index = centre[:, 0] - 1 - 120 * outliers + 100 * ((centre[:, 1] - 60) // 40)
    flip = beside[:, 2] < centre[:, 2]
    down = (centre[:, 1] - 60) % 40 - 16
    right = centre[:, 2] - 100 - np.where(flip, 15, 16)
    side = np.arange(32)
    rows = side[None] + down[:, None]
    columns = np.where(flip[:, None], side[::-1], side) + right[:, None]
    source = np.pad(
        coded(OUTLIERS if outliers else ID, outliers), ((0, 0), (32, 32), (32, 32), (0, 0))
    )
    assert index.min() >= 0 and index.max() < len(source), "images of another set"
    assert np.array_equal(
        images, source[index[:, None, None], rows[:, :, None] + 32, columns[:, None] + 32]
    )
    return SimpleNamespace(image=index, flip=flip, down=down, right=right)


def assert_crops(seen, padding):
    """Offsets as far as the padding in all four directions and no farther,
    and about half of the images flipped.
    """
    for offset in (seen.down, seen.right):
        assert offset.min() == -padding and offset.max() == padding
    assert 0.4 < seen.flip.mean() < 0.6
    if padding:  # neither one offset for a batch, nor one for both directions
        assert len(set(zip(seen.down, seen.right, seen.flip))) > 2 * (2 * padding + 1) ** 2 * 0.7


class Record:
    """What one training command did: its training calls and steps,
    and where the images of each epoch came from.
    """

    def __init__(self, project, command, outlier_statistics=None):
        path = project.root / "record.pt"
        project.do(
            f"{command} --arch probe:make --device cpu --precision fp32",
            prelude=f"import probe\nprobe.record({str(path)!r})",
            PYTHONPATH=str(project.root / "own"),
        )
        every, self.steps = torch.load(path, weights_only=True)
        path.unlink()
        self.calls = [call for call in every if call["learns"]]
        self.outlier_statistics = outlier_statistics
        self.labels = torch.arange(ID) % 10

    @functools.cache  # noqa: B019  (a few records a module)
    def parts(self, epoch):
        """(ID, outliers) of an epoch, each from all of its steps;
        outliers None where there are none.
        """
        calls = self.calls[3 * epoch : 3 * epoch + 3]
        first = pixels(torch.cat([c["x"][:n] for c, n in zip(calls, SIZES)]), ID_STATISTICS)
        if self.outlier_statistics is None:
            return locate(first), None
        second = pixels(
            torch.cat([c["x"][n:] for c, n in zip(calls, SIZES)]), self.outlier_statistics
        )
        return locate(first), locate(second, outliers=True)

    def labels_of(self, step):
        """Labels of the ID images of a step, counted from 0."""
        n = SIZES[step % 3]
        return self.labels[locate(pixels(self.calls[step]["x"][:n], ID_STATISTICS)).image]


@pytest.fixture(scope="module")
def wired(make_project):
    """A project with a CIFAR-10 and outliers whose pixels tell where they come from,
    and a network that records.
    """
    project = make_project()
    own = project.root / "own"
    own.mkdir()
    (own / "probe.py").write_text(PROBE)
    data = project.root / "data"
    for folder in ("cifar10", "outliers"):
        (data / folder).mkdir()
    np.savez(data / "cifar10/train.npz", images=coded(ID), labels=np.arange(ID) % 10)
    np.savez(data / "cifar10/test.npz", images=coded(20)[:, ::-1], labels=np.arange(20) % 10)
    np.savez(
        data / "outliers/tiny_imagenet.npz",
        images=coded(OUTLIERS, True),
        labels=np.arange(OUTLIERS) % 10,
    )
    return project


@pytest.fixture(scope="module")
def pretraining(wired):
    return Record(wired, "baseline.py cifar10 --epochs 2")


# By the papers: SR's and SROE's published code does not crop ID images; with preset "code" SROE's
# outliers are its own way.
#          loss, preset -> padding of ID, of outliers, outliers' statistics, their L1 norm counts
RUNS = {
    ("sr", "paper"): (0, None, None, False),
    ("sr", "code"): (0, None, None, False),
    ("sroe", "paper"): (0, 0, ID_STATISTICS, False),
    ("sroe", "code"): (0, 8, IMAGENET, True),
    ("oe", "paper"): (4, 4, ID_STATISTICS, False),
    ("oe", "code"): (4, 4, ID_STATISTICS, False),
    ("energy", "paper"): (4, 4, ID_STATISTICS, False),
}


@pytest.fixture(scope="module", params=list(RUNS), ids="-".join)
def tuning(request, wired, pretraining):
    loss, preset = request.param
    padding, outlier_padding, statistics, l1_on_all = RUNS[request.param]
    record = Record(
        wired,
        (
            f"tune.py cifar10 --loss {loss} --preset {preset} --epochs 2 "
            f"--save ./snapshots/{loss}_{preset}"
        ),
        statistics,
    )
    return SimpleNamespace(
        loss=loss,
        record=record,
        padding=padding,
        outlier_padding=outlier_padding,
        l1_on_all=l1_on_all,
    )


def assert_steps(record, rate, per_step):
    """One training call a step, the rate of every step, every parameter with its decay,
    the step's own gradient.
    """
    assert len(record.calls) == len(record.steps) == 6
    assert [call["before_step"] for call in record.calls] == list(range(6))
    assert [len(call["x"]) for call in record.calls] == [n + per_step for n in SIZES] * 2
    assert all(call["training"] for call in record.calls)
    for number, (call, step) in enumerate(zip(record.calls, record.steps)):
        lr = training.cosine_lr(number, 6, rate)
        assert step["groups"] == [dict(lr=lr, weight_decay=5e-4, momentum=0.9, nesterov=True)]
        assert step["all_held"]
        assert torch.allclose(
            step["weight_gradient"], call["by_logits"].T @ call["features"], atol=1e-5, rtol=1e-4
        )


def assert_gradient(call, total, logits, features):
    """The gradient that reached logits and features is that of this total."""
    by_logits, by_features = torch.autograd.grad(total, (logits, features), allow_unused=True)
    assert torch.allclose(call["by_logits"], by_logits, atol=1e-6, rtol=1e-4)
    seen = call.get("by_features")
    seen = torch.zeros_like(features) if seen is None else seen
    wanted = torch.zeros_like(features) if by_features is None else by_features
    assert torch.allclose(seen, wanted, atol=1e-7, rtol=1e-4)


def outputs(call):
    return call["logits"].clone().requires_grad_(), call["features"].clone().requires_grad_()


def assert_order_and_crops_are_new(a, b):
    """Another order, and for one and the same image another crop or flip."""
    assert not np.array_equal(a.image, b.image)
    same = [
        (a.flip[i], a.down[i], a.right[i]) == (b.flip[j], b.down[j], b.right[j])
        for i, j in zip(a.image.argsort(kind="stable"), b.image.argsort(kind="stable"))
    ]
    assert np.mean(same) < 0.7  # 0.5 where there is but the flip
    assert not np.array_equal(a.flip, b.flip)


# ---- both stages


def test_steps_of_pretraining(pretraining):
    assert_steps(pretraining, 0.1, 0)


def test_steps_of_tuning(tuning):
    assert_steps(tuning.record, 1e-3, 0 if tuning.outlier_padding is None else 256)


def test_pretraining_sees_each_image_once_an_epoch_flipped_and_cropped(pretraining):
    for epoch in (0, 1):
        seen, _ = pretraining.parts(epoch)
        assert sorted(seen.image) == list(range(ID)) and not np.array_equal(
            seen.image, np.arange(ID)
        )
        assert_crops(seen, 4)


def test_tuning_crops_and_normalises_each_part_by_its_recipe(tuning):
    for epoch in (0, 1):
        seen, outliers = tuning.record.parts(epoch)
        assert sorted(seen.image) == list(range(ID)) and not np.array_equal(
            seen.image, np.arange(ID)
        )
        assert_crops(seen, tuning.padding)
        if outliers is not None:
            assert_crops(outliers, tuning.outlier_padding)


def test_outliers_are_shuffled_anew_each_time_they_are_used_up(tuning):
    if tuning.outlier_padding is None:
        return
    for epoch in (0, 1):
        image = tuning.record.parts(epoch)[1].image
        rounds = [
            image[start : start + OUTLIERS] for start in range(0, len(image) - OUTLIERS, OUTLIERS)
        ]
        assert len(rounds) == 10 and all(sorted(part) == list(range(OUTLIERS)) for part in rounds)
        assert len({tuple(part) for part in [*rounds, range(OUTLIERS)]}) == 11


def test_another_epoch_has_another_order_and_other_crops(pretraining, tuning):
    assert_order_and_crops_are_new(pretraining.parts(0)[0], pretraining.parts(1)[0])
    first, second = tuning.record.parts(0), tuning.record.parts(1)
    assert_order_and_crops_are_new(first[0], second[0])
    if first[1] is not None:
        assert not np.array_equal(first[1].image, second[1].image) and not np.array_equal(
            first[1].flip, second[1].flip
        )


def test_tuning_does_not_replay_the_pretraining(pretraining, tuning):
    before = [pretraining.parts(epoch)[0] for epoch in (0, 1)]
    for epoch in (0, 1):
        seen = tuning.record.parts(epoch)[0]
        assert all(not np.array_equal(seen.image, other.image) for other in before)
        assert all(not np.array_equal(seen.flip, other.flip) for other in before)


def test_dropout_has_random_numbers_of_its_own(pretraining, tuning):
    """The network's seed would give another order than the images',
    and is another one in each epoch and stage.
    """
    seeds = []
    for record in (pretraining, tuning.record):
        for epoch in (0, 1):
            calls = record.calls[3 * epoch : 3 * epoch + 3]
            (seed,) = {call["seed"] for call in calls}
            order = torch.randperm(ID, generator=torch.Generator().manual_seed(seed))
            assert not np.array_equal(record.parts(epoch)[0].image, order.numpy())
            seeds.append(seed)
    assert len(set(seeds)) == 4


def test_pretraining_optimises_cross_entropy(pretraining):
    for number, call in enumerate(pretraining.calls):
        logits, features = outputs(call)
        assert_gradient(
            call, F.cross_entropy(logits, pretraining.labels_of(number)), logits, features
        )


def test_tuning_optimises_the_whole_sum_of_its_formula(tuning):
    for number, call in enumerate(tuning.record.calls):
        n = SIZES[number % 3]
        logits, features = outputs(call)
        total = F.cross_entropy(logits[:n], tuning.record.labels_of(number))
        energy = -torch.logsumexp(logits, dim=1)
        if tuning.loss in ("sr", "sroe"):
            total = (
                total + 0.02 * (features if tuning.l1_on_all else features[:n]).abs().sum(1).mean()
            )
        if tuning.loss in ("sroe", "oe"):
            total = total + 0.5 * (-energy[n:] - logits[n:].mean(1)).mean()
        if tuning.loss == "energy":
            total = (
                total
                + 0.1 * (F.relu(energy[:n] + 23) ** 2).mean()
                + 0.1 * (F.relu(-5 - energy[n:]) ** 2).mean()
            )
        assert_gradient(call, total, logits, features)


# ---- sets of larger images


def larger(count, seed):
    """Smooth uint8 images of 80 x 64 pixels, no two alike,
    whose centre looks otherwise than the whole.
    """
    rng = np.random.default_rng(seed)
    return [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(
                (80, 64), Image.BICUBIC
            )
        )
        for _ in range(count)
    ]


def resized(images):
    """Resize(32) of the shorter side and CenterCrop(32): uint8 (N,32,32,3)."""
    return np.stack(
        [np.asarray(Image.fromarray(i).resize((40, 32), Image.BILINEAR))[:, 4:36] for i in images]
    )


def as_set(images):
    """The images as a set of bytes, to compare whatever their order."""
    return {np.ascontiguousarray(image.astype(np.uint8)).tobytes() for image in images}


def test_larger_outliers_are_resized(wired, pretraining):
    images = larger(12, 0)
    folder = write_images(wired.root / "larger", images)
    record = Record(
        wired,
        (
            f"tune.py cifar10 --loss sroe --outliers {folder} --epochs 1 --oe_batch_size 12 "
            "--save ./snapshots/x"
        ),
    )
    first = pixels(record.calls[0]["x"][SIZES[0] :], ID_STATISTICS)
    wanted = resized(images)
    assert len(record.calls) == 3 and as_set(first) <= as_set([*wanted, *wanted[:, :, ::-1]])
    as_unflipped = {
        min(image.tobytes(), image[:, ::-1].tobytes()) for image in first.astype(np.uint8)
    }
    assert len(as_unflipped) == 12


def test_larger_ood_images_are_resized_and_lsun_is_cropped(wired, pretraining):
    images = {"places365": larger(15, 1), "lsun_c": larger(15, 2)}
    for name, place in (("places365", "places365/test_subset"), ("lsun_c", "LSUN")):
        write_images(wired.root / "data" / place, images[name])
    path = wired.root / "evaluated.pt"
    wired.do(
        (
            "test.py --model cifar10_make_pretrained --ood places365,lsun_c --score msp "
            "--arch probe:make --device cpu --precision fp32"
        ),
        prelude=f"import probe\nprobe.record_evaluation({str(path)!r})",
        PYTHONPATH=str(wired.root / "own"),
    )
    calls, _ = torch.load(path, weights_only=True)
    # without the zeros that only try the network out
    given = torch.cat([call["x"] for call in calls if call["x"].any()])
    seen = as_set(pixels(given, ID_STATISTICS))
    assert as_set(resized(images["places365"])) <= seen
    assert as_set([image[16:48, 24:56] for image in images["lsun_c"]]) <= seen


def test_every_parameter_of_a_real_network_is_trained(wired, tmp_path):
    """After one step no parameter of a WRN is as it was, BatchNorm's and biases among them."""
    path = tmp_path / "parameters.pt"
    wired.do(
        "baseline.py cifar10 --layers 10 --widen-factor 1 --epochs 1 --batch_size 300 --device cpu",
        prelude=f"""
import torch
step = torch.optim.SGD.step
def recorded(self, *a):
    count = sum(p.numel() for g in self.param_groups for p in g["params"])
    torch.save((count, {{g["weight_decay"] for g in self.param_groups}}), {str(path)!r})
    return step(self, *a)
torch.optim.SGD.step = recorded
""",
    )
    count, decays = torch.load(path, weights_only=True)
    state = torch.load(
        wired.file("pretrained/cifar10_wrn_pretrained_epoch_0.pt"), weights_only=True
    )
    learned = sum(
        v.numel()
        for k, v in state.items()
        if not k.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    assert count == learned and decays == {5e-4}
