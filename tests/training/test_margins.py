"""Energy margins measured on the network that is fine-tuned."""

import argparse
import json
import re

import numpy as np
import pytest
import torch
from conftest import noise, stop_at_step, write_own
from scipy.special import logsumexp

from utils import loaders
from utils.runtime import UserError
from utils.training import margins

SMALL = "--layers 10 --widen-factor 1 --batch_size 16 --device cpu"


def test_margins_are_the_mean_energies_or_their_middle():
    assert margins.margins_of(-9.0, -4.0) == (-9.0, -4.0)
    assert margins.margins_of(-4.0, -9.0) == (-6.5, -6.5)


@pytest.mark.parametrize(
    "typed, recipe, own, expected",
    [
        ({}, {"m_in": -23}, False, False),  # a known set: the recipe's
        ({}, {"m_in": -23}, True, True),
        ({"m_out": -5}, {"m_in": -23}, True, False),
        ({}, {"alpha": 0.02}, True, False),
        ({"auto_margins": True}, {"m_in": -23}, False, True),
        ({"auto_margins": True}, {"alpha": 0.02}, True, "--loss sr, which has no margins"),
        ({"auto_margins": True, "m_in": -1}, {"m_in": -23}, True, "what --m_in gives"),
    ],
)
def test_when_they_are_measured(typed, recipe, own, expected):
    if isinstance(expected, bool):
        assert margins.wants_margins(typed, recipe, "sr", own) is expected
    else:
        with pytest.raises(UserError, match=expected):
            margins.wants_margins(typed, recipe, "sr", own)


def test_the_mean_energy_is_that_of_all_images_in_evaluation_mode():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.fc = torch.nn.Dropout(0.9), torch.nn.Linear(3, 4)

        def forward(self, x):
            features = self.drop(x.mean(dim=(2, 3)))
            return self.fc(features), features

    images, net = loaders.make_set(noise(23, 8, 0), None, "some"), Net().train()
    args = argparse.Namespace(test_bs=5, statistics=(loaders.MEAN, loaders.STD))
    found = margins.mean_energy(net, images, args, torch.device("cpu"), "fp32")
    x = loaders.batches.normalise(images.images.permute(0, 2, 3, 1)).mean(dim=(2, 3)).numpy()
    logits = x @ net.fc.weight.detach().numpy().T + net.fc.bias.detach().numpy()
    assert found == pytest.approx(-logsumexp(logits.astype(float), axis=1).mean(), rel=1e-5)


def test_own_images_get_margins_of_their_own(make_project, tmp_path):
    project, own = make_project(), tmp_path / "own"
    write_own(own)
    np.savez(tmp_path / "outliers.npz", images=noise(40, 8, 9))
    project.do(f"baseline.py own --id {own} --epochs 1 {SMALL}")
    command = (
        f"tune.py own --id {own} --loss energy --outliers {tmp_path}/outliers.npz --epochs 2 "
        "--oe_batch_size 8 --batch_size 16 --device cpu"
    )
    project.run(command, prelude=stop_at_step("SIGKILL", 6))
    out = project.do(command + " --resume")
    assert "margins from" not in out  # those of the interrupted run
    (file,) = (project.snapshots / "tune_energy").glob("*_epoch_1.json")
    recipe = json.loads(file.read_text())["recipe"]
    assert recipe["auto_margins"] is True and recipe["m_in"] != -23.0
    out = project.do(command)
    found = re.search(r"energies, (\S+) of ID images and (\S+) of .*m_in (\S+), m_out (\S+)", out)
    e_in, e_out, m_in, m_out = map(float, found.groups())
    assert (m_in, m_out) == pytest.approx(margins.margins_of(e_in, e_out), abs=0.01)
    assert m_in == recipe["m_in"] and "ID error before fine-tuning" in out
    out = project.do(command + " --m_in -9 --m_out -3")
    assert "margins from" not in out
    sr = f"tune.py own --id {own} --loss sr --epochs 1 --auto-margins"
    project.refuse(sr, "--auto-margins is not an option of --loss sr")
