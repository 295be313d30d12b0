"""Plain networks: no wrapper, no pair, a head of any name, the classes under any name."""

import copy
import importlib
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models
from utils import snapshots
from utils.evaluation import network
from utils.loaders import make_set
from utils.runtime import UserError
from utils.scores import choose
from utils.training.network import arch_name, check_features

CODE = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, num_classes=10, head="linear"):
        super().__init__()
        self.conv, self.name = nn.Conv2d(3, 5, 3), head
        self.add_module(head, nn.Linear(5, num_classes))

    def hidden(self, x):
        return F.relu(self.conv(x)).mean((2, 3))

    def forward(self, x):
        return getattr(self, self.name)(self.hidden(x))

class Mid(Net):  # a hidden layer called fc, a head called linear: as names they are one
    def __init__(self, num_classes):
        super().__init__()
        del self.linear
        self.fc, self.linear = nn.Linear(5, 5), nn.Linear(5, num_classes)
    def hidden(self, x):
        return self.fc(super().hidden(x)).tanh()

class Sequence(nn.Module):  # .fc is there and is no linear layer
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 12 * 12, num_classes))
    def forward(self, x):
        return self.fc(x)

class Tuple(Net):
    def forward(self, x):
        hidden = self.hidden(x)
        return hidden, self.linear(hidden)

class Soft(Net):
    def forward(self, x):
        return F.log_softmax(super().forward(x), dim=1)

class Scaled(Net):
    def forward(self, x):
        return 3 * super().forward(x)

class Convolutional(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 3)
    def forward(self, x):
        return self.conv(x).mean((2, 3))

def zero(): return Net()
def keyword(*, n_classes): return Net(n_classes, "classifier")
def later(width=64, num_classes=1000): assert width == 64; return Net(num_classes, "head")
def switch(pretrained=False, **options): assert pretrained is False; return Net(**options)
def positional(k, /): return Net(k, "out")
def counted(k=1000): return Net(k)
def wants_depth(depth, num_classes): return Net(num_classes)
"""


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    (tmp_path / "plainnets.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(network, "CACHE", tmp_path / "cache")
    importlib.invalidate_caches()
    yield
    sys.modules.pop("plainnets", None)


def pixels(count=4, side=12):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


HEADS = {"zero": "linear", "keyword": "classifier", "later": "head", "switch": "linear"}
HEADS |= {"positional": "out", "counted": "linear", "Net": "linear", "Mid": "linear"}


@pytest.mark.parametrize("function", HEADS)
def test_logits_are_the_networks_own_and_features_what_its_head_gets(function):
    torch.manual_seed(0)
    net = models.build(f"plainnets:{function}", 10).eval()
    head, x = getattr(net, HEADS[function]), pixels()
    logits, features = net(x)
    torch.testing.assert_close(logits, F.linear(net.hidden(x), head.weight, head.bias))
    torch.testing.assert_close(features, net.hidden(x))
    assert models.linear_head(net) is head and models.feature_width(net) == net.feature_dim == 5
    assert sum(name.endswith("weight") for name in net.state_dict()) == 3 - (function != "Mid")
    twin = copy.deepcopy(net)
    twin.conv.weight.data.zero_()
    assert models.linear_head(twin) is getattr(twin, HEADS[function])
    torch.testing.assert_close(twin(x)[1], twin.hidden(x))
    torch.testing.assert_close(net(x)[1], features)


@pytest.mark.parametrize("function", ("Tuple", "Soft"))
def test_what_else_forward_returns_does_not_matter(function):
    net = models.build(f"plainnets:{function}", 10).eval()
    logits, features = net(pixels())
    torch.testing.assert_close(logits, net.linear(net.hidden(pixels())))
    torch.testing.assert_close(features, net.hidden(pixels()))


def test_a_head_inside_a_sequence_and_its_dropout():
    net = models.build("plainnets:Sequence", 4, image_size=12)
    x = pixels()
    torch.testing.assert_close(net.eval()(x)[1], x.flatten(1))
    assert (net.train()(x)[1] == 0).any()  # dropout stands before the head


def test_a_scaled_head_is_no_head():
    net = models.build("plainnets:Scaled", 10).eval()
    logits, features = net(pixels())
    torch.testing.assert_close(logits, 3 * net.linear(net.hidden(pixels())))
    torch.testing.assert_close(features, net.hidden(pixels()))
    assert models.linear_head(net) is None
    images = make_set(np.zeros((3, 12, 12, 3), np.uint8), None, "x")
    runs = network.Network(net, "a" * 64, torch.device("cpu"), "fp32", arch="plainnets:Scaled")
    runs.fit(choose("knn:k=1")[0], images)
    with pytest.raises(UserError, match="head.*no linear layer whose output"):
        runs.fit(choose("vim")[0], images)


def test_without_a_linear_layer_it_is_scored_by_its_logits_alone():
    net = models.build("plainnets:Convolutional", 6)
    assert models.linear_head(net) is None and models.feature_width(net) == 0
    images = make_set(np.random.default_rng(0).integers(0, 256, (5, 9, 9, 3), np.uint8), None, "x")
    runs = network.Network(net, "b" * 64, torch.device("cpu"), "fp32", arch="plainnets:x")
    energies = runs.score(choose("energy")[0], images)
    expected = -runs.model(network_input(images))[0].logsumexp(1)
    np.testing.assert_allclose(energies, expected, rtol=1e-5)
    for name in ("knn", "react", "mahalanobis", "ash-s"):
        with pytest.raises(UserError, match=f"'{name}' needs features.*energy"):
            runs.score(choose(name)[0], images)
    with pytest.raises(UserError, match="no linear layer"):
        check_features(net, "sr", "tune", {})
    check_features(net, "oe", "tune", {})


def network_input(images):
    from utils.loaders import normalise

    return normalise(images.images.permute(0, 2, 3, 1))


@pytest.mark.parametrize("function", ("Net", "keyword", "Mid"))
def test_snapshots_keep_the_networks_own_names_and_load(function, tmp_path):
    net = models.build(f"plainnets:{function}", 7)
    snapshots.save_snapshot(tmp_path / "a.pt", net, {"arch": "x", "num_classes": 7})
    kept = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(kept) == list(net.state_dict())
    # published as others do: a prefix, the weights alone
    torch.save({f"module.{n}": v for n, v in kept.items()}, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        loaded, about = snapshots.load_model(tmp_path / name, f"plainnets:{function}")
        assert about["num_classes"] == 7
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, kept[key])


def test_a_builder_that_needs_more_says_so():
    with pytest.raises(ValueError, match="depth"):
        models.build("plainnets:wants_depth", 10)
    with pytest.raises(ValueError, match="10 classes, asked for 3"):
        models.build("plainnets:zero", 3)


def test_networks_of_torchvision():
    net = models.build("torchvision:squeezenet1_1", 5).eval()
    assert net(pixels(2, 64))[0].shape == (2, 5) and models.linear_head(net) is None
    net = models.build("torchvision:resnet18", 5, image_size=40).eval()
    logits, features = net(pixels(2, 40))
    torch.testing.assert_close(logits, F.linear(features, net.fc.weight, net.fc.bias))
    assert list(net.state_dict())[:1] == ["conv1.weight"] and isinstance(net.fc, nn.Linear)
    with pytest.raises(ValueError, match="torchvision has no network 'resnet19'.*resnet18"):
        models.build("torchvision:resnet19", 5)
    with pytest.raises(ValueError, match="no network '0000'. It has alexnet, "):
        models.build("torchvision:0000", 5)
    assert arch_name("torchvision:resnet18") == "torchvision_resnet18" and arch_name("a:b") == "b"
    snapshots.check_arch("torchvision:resnet18", "a file")
    with pytest.raises(UserError):
        snapshots.check_arch("os:system", "a file")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models", None)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        models.build("timm:resnet18", 5)


def test_networks_of_timm():
    pytest.importorskip("timm")
    net = models.build("timm:mobilenetv3_small_050", 5, image_size=32).eval()
    logits, features = net(pixels(2, 32))
    torch.testing.assert_close(
        logits, F.linear(features, net.classifier.weight, net.classifier.bias)
    )
