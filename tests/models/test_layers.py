"""The networks without models/kernels: PyTorch's own operators, the same outputs."""

import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

import models
from models import layers
from models.kernels import dropout as cheap
from models.kernels import fused

TRAIN = """
import sys, torch, models
assert not any(name.startswith("models.kernels") for name in sys.modules)
torch.manual_seed(0)
net = models.build(sys.argv[1], 10, layers=10, widen_factor=1, droprate=0.3)
x = torch.randn(4, 3, 32, 32)
with torch.no_grad():
    torch.save([value.clone() for value in (*net.state_dict().values(), *net.eval()(x))], sys.argv[2])
optimizer, before = torch.optim.SGD(net.parameters(), 0.1), net.conv1.weight.clone()
net.train()(x)[0].square().sum().backward()
optimizer.step()
assert net.conv1.weight.isfinite().all() and not torch.equal(net.conv1.weight, before)
"""


@pytest.mark.parametrize("arch", ["wrn", "densenet", "resnet18"])
def test_without_the_kernels_a_network_runs_and_trains(arch, tmp_path):
    shutil.copytree(
        ROOT / "models",
        tmp_path / "models",
        ignore=shutil.ignore_patterns("kernels", "__pycache__"),
    )
    command = [sys.executable, "-c", TRAIN, arch, tmp_path / "outputs.pt"]
    subprocess.run(command, cwd=tmp_path, check=True)
    torch.manual_seed(0)
    net = models.build(arch, 10, layers=10, widen_factor=1, droprate=0.3)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        here = [*net.state_dict().values(), *net.eval()(x)]
    for there, value in zip(torch.load(tmp_path / "outputs.pt"), here, strict=True):
        torch.testing.assert_close(there, value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name, own",
    [
        ("module._orig_mod.module.linear.weight", "fc.weight"),
        ("classifier.bias", "fc.bias"),
        ("block1.module.weight", "block1.module.weight"),
        ("fc.weight", "fc.weight"),
    ],
)
def test_a_parameters_own_name(name, own):
    assert models.clean_name(name) == own


def test_with_the_kernels_the_networks_use_them():
    assert layers.bn_relu_dropout is fused.bn_relu_dropout and layers.dropout is cheap.dropout
