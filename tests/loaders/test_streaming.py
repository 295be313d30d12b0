"""Images that stay on disk give what resident ones give, batch by batch; outputs go on where a pass
was interrupted."""

import os
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import pack
from PIL import Image

from utils import loaders, scores
from utils.evaluation import shards
from utils.evaluation.network import Network
from utils.loaders import splits, streaming
from utils.loaders.batches import Batches, TrainingBatches
from utils.runtime import Streams, UserError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_before():
    before = streaming.use_streaming("on", 2)
    yield
    streaming.use_streaming(**before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """23 photographs' parts of several sizes in three class folders."""
    from sklearn.datasets import load_sample_images

    path, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(23):
        photo = load_sample_images().images[i % 2]
        top, left, side = rng.integers(0, 300), rng.integers(0, 500), 40 + i
        place = path / "abc"[i % 3]
        place.mkdir(exist_ok=True)
        Image.fromarray(photo[top : top + side, left : left + side + 9]).save(place / f"{i:02}.png")
    return path


def both(path, **keywords):
    """The streamed and the resident set of a path."""
    streamed = loaders.load("x", path=path, data=path.parent, **keywords)
    before = streaming.use_streaming("off")
    resident = loaders.load("x", path=path, data=path.parent, **keywords)
    streaming.use_streaming(**before)
    assert streamed.streamed and not resident.streamed
    return streamed, resident


@pytest.mark.parametrize("size", (16, (20, 16)))
@pytest.mark.parametrize("zipped", (False, True))
def test_a_streamed_set_is_the_resident_one(folder, tmp_path, zipped, size):
    path = folder
    if zipped:
        path = tmp_path / "photos.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, file.relative_to(folder))
    streamed, resident = both(path, size=size)
    assert (streamed.classes, streamed.names) == (resident.classes, resident.names)
    assert streamed.images.shape == tuple(resident.images.shape)
    assert torch.equal(streamed.images[3:9], resident.images[3:9])
    assert torch.equal(streamed.images[5], resident.images[5])
    for first in (0, 10):
        one, other = (list(Batches(s, 5, CPU).from_image(first)) for s in (streamed, resident))
        for (x, y), (x_, y_) in zip(one, other, strict=True):
            assert torch.equal(x, x_) and torch.equal(y, y_)


def test_training_batches_are_the_resident_ones_bit_for_bit(folder):
    args = SimpleNamespace(
        batch_size=6, oe_batch_size=4, padding=2, outlier_padding=1, outlier_norm="id"
    )
    made = []
    for images in both(folder, size=16):
        batches = TrainingBatches(images, images, args, CPU, Streams(1, "tune"))
        made.append([part for batch in batches.epoch(0) for part in batch])
    assert len(made[0]) == 12 and all(torch.equal(a, b) for a, b in zip(*made, strict=True))


def test_a_streamed_folder_is_listed_once(folder, monkeypatch):
    listed, open_source = [], streaming.readers.open_source
    record = lambda *given: listed.append(given) or open_source(*given)  # noqa: E731
    monkeypatch.setattr(streaming.readers, "open_source", record)
    assert loaders.load("x", path=folder, size=16).streamed and len(listed) == 1


def test_auto_asks_the_memory(folder, monkeypatch):
    streaming.use_streaming("auto")
    assert not loaders.load("x", path=folder, data=folder.parent, size=16).streamed
    monkeypatch.setattr(streaming, "free_memory", lambda: 3 * 23 * 16 * 16 / streaming.SHARE - 1)
    assert loaders.load("x", path=folder, data=folder.parent, size=16).streamed


def test_an_unreadable_image(folder, tmp_path, capsys):
    path = tmp_path / "photos"
    shutil.copytree(folder, path)
    (path / "a" / "zz.png").write_bytes(b"none")
    images = loaders.load("x", path=path, size=16)
    with pytest.raises(UserError, match=r"zz\.png.*--skip-bad"):
        list(Batches(images, 5, CPU))
    images = loaders.load("x", path=path, size=16, skip_bad=True)
    assert (len(images), images.skipped) == (23, ("a/zz.png",))
    assert sum(len(x) for x, _ in Batches(images, 5, CPU)) == 23
    assert "1 of 24 images" in capsys.readouterr().err
    with pytest.raises(UserError, match="compressed tar"):
        streaming.source_to_stream(splits.Place(path.with_name("x.tar.gz")), 16)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = torch.nn.Conv2d(3, 6, 3), torch.nn.Linear(6, 3)

    def forward(self, x):
        features = self.conv(x).relu().mean((2, 3))
        return self.fc(features), features


def network(cache):
    return Network(Net(), "0" * 64, CPU, "fp32", 4, cache, arch="wrn")


def test_outputs_go_on_with_the_next_shard(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 8)
    streamed, resident = both(folder, size=16)
    seen = []

    class Interrupted(Exception):
        pass

    def stops(x):
        if sum(seen) == 12:
            raise Interrupted
        seen.append(len(x))
        return net(x)

    first = network(tmp_path)
    net, forward = first.model, first.forward
    monkeypatch.setattr(first, "forward", stops)
    with pytest.raises(Interrupted):
        first.outputs(streamed)
    again = network(tmp_path)
    counted = []
    net, forward = again.model, again.forward
    monkeypatch.setattr(again, "forward", lambda x: counted.append(len(x)) or forward(x))
    outputs = again.outputs(streamed)
    assert sum(counted) == 23 - 8  # the first shard was there, the second had been begun
    wanted = network(tmp_path / "other").outputs(resident)
    for name in ("logits", "features"):
        assert np.array_equal(getattr(outputs, name), getattr(wanted, name))
    assert isinstance(outputs.features, np.memmap)
    for name in ("knn:k=2", "mahalanobis", "react"):  # fitted scores read the maps
        made = []
        for out in (outputs, wanted):
            (score,) = scores.choose(name, "x")
            made.append(score.fit(out).score(out))
        assert np.array_equal(*made)
    assert network(tmp_path).has(again.key(streamed, "eager"), streamed)
    file = again.shards(again.key(streamed), streamed).folder / "logits.npy"
    file.write_bytes(file.read_bytes()[:-4] + np.float32("nan").tobytes())
    assert np.array_equal(network(tmp_path).outputs(streamed).logits, wanted.logits)


@pytest.mark.parametrize("ending", ("", ".zip", ".tar"))
def test_what_has_come_since_the_listing_changes_no_image(folder, tmp_path, ending):
    """A worker that listed anew would take other images for those that the labels are of."""
    place = shutil.copytree(folder, tmp_path / "x")
    place = pack(place, tmp_path / f"x{ending}") if ending else place
    before = streaming.use_streaming("on", 1)
    images = loaders.load("x", path=place, size=16)
    (wanted,) = images.images.read([np.arange(5)])
    if not ending:
        shutil.copy(place / images.names[3], place / "a" / "000_new.png")
        assert torch.equal(next(images.images.read([np.arange(5)])), wanted)
    else:
        os.utime(place, (1e9, 1e9))
        with pytest.raises(UserError, match="changed since it was listed"):
            next(images.images.read([np.arange(5)]))
    streaming.use_streaming(**before)
