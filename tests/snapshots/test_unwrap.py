"""Checkpoints of other people load, or are refused by the right name."""

import argparse
import copy
import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import models
from utils import snapshots
from utils.runtime import UserError
from utils.snapshots import unwrap


class Whole(nn.Linear):
    """A whole model, pickled."""


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return models.build("wrn", 6, layers=10, widen_factor=1)


def prefixed(state, prefix):
    return OrderedDict((prefix + name, value) for name, value in state.items())


def renamed(state, head):
    return {n.replace("fc.", head): v for n, v in state.items()}


WRAPPED = {
    "plain": lambda s: s,
    "net": lambda s: {"net": s, "acc": 93.1, "epoch": 4},
    "model": lambda s: {"model": s, "optimizer": {"state": {0: s["fc.bias"]}}},
    "model_state_dict": lambda s: {"epoch": 1, "model_state_dict": s},
    "other key": lambda s: {"epoch": 1, "the_network": s, "rng": torch.zeros(5)},
    "deep": lambda s: {"checkpoint": {"model": prefixed(s, "module.")}},
    "model.": lambda s: prefixed(s, "model."),
    "net.": lambda s: {"state_dict": prefixed(s, "net.")},
    "backbone.module.": lambda s: prefixed(s, "backbone.module."),
    "averaged": lambda s: {"n_averaged": torch.tensor(3), **prefixed(s, "module.")},
    "numpy": lambda s: {"net": s, "acc": np.float64(93.1), "best": np.float32(1), "h": np.ones(3)},
    "namespace": lambda s: {"args": argparse.Namespace(lr=0.1, n=[1]), "state_dict": s},
    "profiled": lambda s: {**s, "conv1.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    "beside": lambda s: {**s, "epoch": 7},
    "a counter": lambda s: {**s, "steps": torch.tensor(7)},
    "one number": lambda s: {**s, "temperature": torch.ones(1)},
    "head": lambda s: renamed(s, "head."),
    "head below a prefix": lambda s: prefixed(renamed(s, "last_linear.1."), "model."),
    "encoder and classifier": lambda s: {
        (n if n.startswith("fc.") else f"encoder.{n}").replace("fc.", "classifier."): v
        for n, v in s.items()
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found(kind, net, tmp_path, capsys):
    torch.save(WRAPPED[kind](net.state_dict()), tmp_path / "theirs.pt")
    loaded, about = snapshots.load_model(tmp_path / "theirs.pt")
    assert (about["arch"], about["num_classes"], about["layers"]) == ("wrn", 6, 10)
    for name, value in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    told = {"averaged": "n_averaged", "profiled": "total_ops", "beside": "epoch"}
    told |= {"a counter": "steps", "one number": "temperature"}
    err = capsys.readouterr().err
    assert told[kind] in err if kind in told else err == ""


def test_a_cifar_resnet_with_its_own_names(tmp_path):
    with torch.device("meta"):
        state = models.build("resnet18", 10).state_dict()
    state = {n.replace("fc.", "linear."): torch.zeros(v.shape) for n, v in state.items()}
    torch.save({"net": prefixed(state, "module."), "acc": np.float64(95.0)}, tmp_path / "ckpt.pth")
    _, about = snapshots.load_model(tmp_path / "ckpt.pth")
    assert about["arch"] == "resnet18"


class Grey(nn.Module):
    """A convolution of one channel, on images of three that are made grey before it."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x):
        grey = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
        return nn.functional.conv2d(grey, self.weight, padding=1)


@pytest.mark.parametrize("prefix", ("", "module.", "model."))
def test_a_network_of_one_channel_sees_grey(prefix, net, tmp_path, capsys):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(16, 1, 3, 3, generator=generator)
    state = {**net.state_dict(), "conv1.weight": weight}
    torch.save(prefixed(state, prefix), tmp_path / "theirs.pt")
    loaded, about = snapshots.load_model(tmp_path / "theirs.pt")
    assert about["num_classes"] == 6 and "sees images as grey" in capsys.readouterr().err
    reference = copy.deepcopy(net).eval()
    reference.conv1 = Grey(weight)
    x = torch.randn(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), reference(x), atol=1e-4, rtol=1e-4)


def test_a_densenet_of_one_channel_is_built(tmp_path):
    with torch.device("meta"):
        shapes = models.build("densenet", 8).state_dict()
    state = {name: torch.zeros(value.shape) for name, value in shapes.items()}
    assert state["conv1.weight"].shape == (24, 3, 3, 3)
    torch.save({**state, "conv1.weight": torch.ones(24, 1, 3, 3)}, tmp_path / "theirs.pt")
    loaded, about = snapshots.load_model(tmp_path / "theirs.pt")
    assert (about["arch"], about["num_classes"]) == ("densenet", 8)
    torch.testing.assert_close(loaded.conv1.weight.sum(1), torch.ones(24, 3, 3))


def test_a_depthwise_convolution_is_not_taken_for_grey():
    state = {"conv1.weight": torch.ones(3, 1, 3, 3), "fc.weight": torch.ones(2, 3)}
    assert unwrap.as_known(state, "x")["conv1.weight"].shape == (3, 1, 3, 3)


@pytest.mark.parametrize(
    "content, words",
    [
        (Whole(2, 3), ("test_unwrap.Whole", "state_dict()")),
        ({"model": Whole(2, 3)}, ("test_unwrap.Whole", "whole pickled model")),
        ([torch.zeros(2)], ("a list", "state_dict()")),
        ({"epoch": 3, "loss": 0.5}, ("a dict of epoch, loss",)),
        ({}, ("a dict of nothing",)),
        ({"a.weight": torch.zeros(2, 2)}, ("no network known here", "a.weight", "--arch")),
    ],
)
def test_what_is_refused_is_named(content, words, tmp_path):
    torch.save(content, tmp_path / "theirs.pt")
    with pytest.raises(UserError) as told:
        snapshots.load_model(tmp_path / "theirs.pt")
    assert all(word in str(told.value) for word in words), told.value
    assert "\x1b" not in str(told.value)


class Evil:
    def __reduce__(self):
        return (open, ("should_not_be_there", "w"))


def test_code_in_a_file_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "args": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="open"):
        snapshots.load_model(tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(UserError):
        snapshots.load_model(tmp_path / "plain.pt")
    assert not (tmp_path / "should_not_be_there").exists()


def test_names_of_ones_own_network_stay(tmp_path, monkeypatch):
    """A network of the user's own that differs from one known here by its head's name alone, or by
    the one channel that it takes.
    """
    (tmp_path / "ownheads.py").write_text(
        "import models\nfrom torch import nn\n"
        "def out(n):\n    net = models.build('wrn', n, layers=10, widen_factor=1)\n"
        "    net.out, forward = net.fc, net.forward\n    del net.fc\n"
        "    def logits(x):\n        net._modules['fc'] = net.out\n"
        "        try:\n            return forward(x)[0]\n"
        "        finally:\n            del net._modules['fc']\n"
        "    net.forward = logits\n    return net\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = models.build("ownheads:out", 4)
    assert "out.weight" in net.state_dict()
    torch.save(net.state_dict(), tmp_path / "theirs.pt")
    loaded, _ = snapshots.load_model(tmp_path / "theirs.pt", "ownheads:out")
    assert torch.equal(loaded.state_dict()["out.weight"], net.state_dict()["out.weight"])


def test_a_shared_prefix_that_is_the_networks_own_stays(tmp_path, monkeypatch):
    (tmp_path / "prefixnet.py").write_text(
        "from torch import nn\n"
        "def make(n): return nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(192, n)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = models.build("prefixnet:make", 4, image_size=8)
    snapshots.save_snapshot(
        tmp_path / "a.pt", net, {"arch": "x", "num_classes": 4, "image_size": 8}
    )
    loaded, _ = snapshots.load_model(tmp_path / "a.pt", "prefixnet:make")
    assert torch.equal(loaded.state_dict()["0.1.weight"], net.state_dict()["0.1.weight"])


def test_safetensors(net, tmp_path, monkeypatch):
    save = pytest.importorskip("safetensors.torch").save_file
    state = {name: value.contiguous() for name, value in net.state_dict().items()}
    save(state, tmp_path / "theirs.safetensors")
    assert snapshots.load_model(tmp_path / "theirs.safetensors")[1]["arch"] == "wrn"
    save(state, tmp_path / "by_content.bin")
    assert snapshots.load_model(tmp_path / "by_content.bin")[1]["arch"] == "wrn"
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a readable .safetensors"):
        snapshots.load_model(tmp_path / "bad.safetensors")
    monkeypatch.setattr(snapshots.unwrap.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install safetensors"):
        snapshots.load_model(tmp_path / "theirs.safetensors")


@pytest.mark.parametrize("arch", ("wrn", "resnet18"))
@pytest.mark.parametrize("body", ("backbone.", "encoder.module.", ""))
def test_contrastive_files_load_without_a_classifier(arch, body, tmp_path, capsys):
    net = models.build(arch, 10, layers=10, widen_factor=1)
    state = {n: v for n, v in net.state_dict().items() if not n.startswith("fc.")}
    state = prefixed(state, body)
    if body:
        state |= {"head.0.weight": torch.zeros(9, 9), "head.2.bias": torch.zeros(128)}
    torch.save({"model": state, "epoch": 3}, tmp_path / "cifar100_simclr.pt")
    loaded, about = snapshots.load_model(tmp_path / "cifar100_simclr.pt")
    assert (about["arch"], about["classifier"], about["dataset"]) == (arch, False, "cifar100")
    assert about["num_classes"] == 100 and "no classifier" in capsys.readouterr().err
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x)[1], net.eval()(x)[1])


NORMALISING = {
    "buffers (1,3,1,1)": lambda s, m, d: {
        **s,
        "normalize.mean": m.view(1, 3, 1, 1),
        "normalize.std": d.view(1, 3, 1, 1),
    },
    "of the whole": lambda s, m, d: {**prefixed(s, "model."), "mu": m, "sigma": d},
    "a sequence": lambda s, m, d: {**prefixed(s, "1."), "0.mean": m, "0.std": d},
    "of 0 to 255": lambda s, m, d: {"net": {**s, "norm.std": 255 * d, "norm.mean": 255 * m}},
}


@pytest.mark.parametrize("kind", NORMALISING)
def test_a_network_that_normalises_images_itself(kind, net, tmp_path, capsys):
    mean, std = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.25, 0.5, 0.75])
    torch.save(NORMALISING[kind](net.state_dict(), mean, std), tmp_path / "theirs.pt")
    loaded, about = snapshots.load_model(tmp_path / "theirs.pt")
    assert about["arch"] == "wrn" and "normalises images itself" in capsys.readouterr().err
    assert (about["mean"], about["std"]) == ([0.5, 0.25, 0.125], [0.25, 0.5, 0.75])
    assert torch.equal(loaded.fc.weight, net.fc.weight)


def test_one_mean_for_all_channels(net, tmp_path):
    numbers = {"mean": torch.tensor([0.5]), "std": torch.tensor(0.25)}
    torch.save({**net.state_dict(), **numbers}, tmp_path / "theirs.pt")
    about = snapshots.load_model(tmp_path / "theirs.pt")[1]
    assert (about["mean"], about["std"]) == ([0.5] * 3, [0.25] * 3)


def test_an_own_network_that_normalises_is_said_to(tmp_path, monkeypatch, capsys):
    (tmp_path / "normnet.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, n):\n"
        "        super().__init__()\n"
        "        self.register_buffer('mean', torch.zeros(3, 1, 1))\n"
        "        self.register_buffer('std', torch.ones(3, 1, 1))\n"
        "        self.fc = nn.Linear(3, n)\n"
        "    def forward(self, x):\n"
        "        return self.fc(((x - self.mean) / self.std).mean((2, 3)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = models.build("normnet:Net", 4)
    torch.save(net.state_dict(), tmp_path / "theirs.pt")
    loaded, about = snapshots.load_model(tmp_path / "theirs.pt", "normnet:Net")
    assert "--mean 0 --std 1" in capsys.readouterr().err and "mean" not in about
    assert set(loaded.state_dict()) == set(net.state_dict())


def npz_bytes():
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "an empty file"),
        (b"12345\n", "a text, which begins with '12345'"),
        (b"Weights are\nelsewhere\n", "'Weights are'"),
        (" Größe\n".encode() * 40, "a text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "an image"),
        (npz_bytes(), "an archive of weight.npy"),
        (npz_bytes()[:-30], "its end is missing"),
    ],
)
def test_a_file_that_is_not_of_torch_is_called_what_it_is(content, words, tmp_path):
    (tmp_path / "theirs.pt").write_bytes(content)
    with pytest.raises(UserError) as told:
        snapshots.load_model(tmp_path / "theirs.pt")
    assert words in str(told.value) and "Weights only" not in str(told.value)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s.pop("bn1.bias"), "most like wrn, but lacks bn1.bias."),
        (lambda s: s.update({"extra.weight": torch.zeros(2, 2)}), "has extra.weight besides"),
        (
            lambda s: s.update({"conv1.weight": torch.zeros(16, 3, 5, 5)}),
            "conv1.weight of shape (16, 3, 5, 5) instead of (16, 3, 3, 3)",
        ),
    ],
)
def test_where_a_file_differs_from_a_network_known_here(change, words, net, tmp_path):
    state = OrderedDict(net.state_dict())
    change(state)
    torch.save({"net": prefixed(state, "module.")}, tmp_path / "theirs.pt")
    with pytest.raises(UserError) as told:
        snapshots.load_model(tmp_path / "theirs.pt")
    assert words in str(told.value) and "--arch" in str(told.value)
