"""The networks without models/kernels: PyTorch's own operators, the same outputs."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

import models

STEP = """
import sys, torch, models
found = {}
for arch in ("wrn", "resnet18", "densenet", "allconv"):
    torch.manual_seed(0)
    net = models.build(arch, 10, layers=10, widen_factor=1, droprate=0.3)
    net = net.to(memory_format=torch.channels_last)
    x = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        found[arch] = net.eval()(x)[0]
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.SGD(net.train().parameters(), 0.1)
    net(x)[0].logsumexp(1).sum().backward()
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in net.parameters())
    assert sum(not torch.equal(p, q) for p, q in zip(net.parameters(), before)) > len(before) / 2
torch.save((found, models.has_kernels(), "models.kernels.mask" in sys.modules), "found.pt")
"""


def test_without_the_folder_of_kernels_networks_run_and_train_the_same(tmp_path):
    """Delete the folder, and relu(bn(x)) is what remains."""
    results = []
    for name, ignore in (("with", "*.pyc"), ("without", "kernels")):
        shutil.copytree(
            ROOT / "models", tmp_path / name / "models", ignore=shutil.ignore_patterns(ignore)
        )
        subprocess.run([sys.executable, "-c", STEP], cwd=tmp_path / name, check=True)
        results.append(torch.load(tmp_path / name / "found.pt"))
    (found, _, mask), (expected, kernels, no_mask) = results
    assert mask and not no_mask and not kernels
    assert all(torch.equal(value, expected[arch]) for arch, value in found.items())


def test_without_the_folder_of_kernels_the_scripts_run(make_project):
    project = make_project()
    shutil.rmtree(project.root / "models" / "kernels")
    project.do("baseline.py digits --epochs 1")
    described = json.loads(
        project.file("pretrained/digits_wrn_pretrained_epoch_0.json").read_text()
    )
    assert described["computed"]["fused"] is False


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
