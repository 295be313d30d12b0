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


@pytest.mark.parametrize(
    "typed, stage, own, told",
    [
        (
            {},
            "pretrain",
            True,
            "m_in -25 and m_out -7: margins of CIFAR's.*type --m_in and --m_out",
        ),
        ({"m_out": -3}, "tune", True, "m_in -25: margins of CIFAR's.*leave both out"),
        ({"m_in": -9, "m_out": -3}, "tune", True, ""),
        ({}, "pretrain", False, ""),
    ],
)
def test_margins_of_cifar_on_images_of_ones_own_are_told(typed, stage, own, told, capsys):
    margins.note_borrowed(typed, {"m_in": -25.0, "m_out": -7.0}, stage, own)
    err = capsys.readouterr().err
    assert re.search(told, err) and bool(err) == bool(told) and err.count("\n") == bool(told)
    margins.note_borrowed(typed, {"alpha": 0.02}, stage, own)
    assert not capsys.readouterr().err


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


class MeanColour(torch.nn.Module):
    """Logits of the mean colour."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 4)

    def forward(self, x):
        features = x.mean(dim=(2, 3))
        return self.fc(features), features


@pytest.mark.parametrize("given", [None, "some,others"])
def test_margins_are_of_all_images_of_several_sets(given, capsys):
    train, *others = (loaders.make_set(noise(n, 8, n), None, "x") for n in (9, 4, 16))
    args = argparse.Namespace(
        test_bs=5, statistics=(loaders.MEAN, loaders.STD), validation_ood=given, recipe={"seed": 1}
    )
    net, where = MeanColour(), (torch.device("cpu"), "fp32")
    found = margins.with_margins(args, net, (train, others), *where)
    together = loaders.make_set(np.concatenate([noise(4, 8, 4), noise(16, 8, 16)]), None, "x")
    wanted = [margins.mean_energy(net, images, args, *where) for images in (train, together)]
    assert (found.m_in, found.m_out) == pytest.approx(margins.margins_of(*wanted), abs=1e-4)
    assert found.recipe == {"seed": 1, "m_in": found.m_in, "m_out": found.m_out}
    assert found.origins == {"m_in": "measured", "m_out": "measured"}
    what = "validation OOD images" if given else "outliers"
    assert f" of {what}: m_in" in capsys.readouterr().out


def test_validation_ood_images_are_in_no_test_set(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(loaders.OOD_SETS, "digits", (("gaussian",), ("blobs",)))
    test_set = loaders.load("digits", "test")
    np.savez(tmp_path / "own.npz", images=noise(6, 8, 1))
    args = argparse.Namespace(
        dataset="digits", data="data", skip_bad=False, validation_ood=f"{tmp_path}/own.npz"
    )
    (found,) = margins.load_validation(args, test_set)
    assert found.name == "own" and found.images.shape[1:] == test_set.images.shape[1:]
    assert "no image is in a test set (digits, gaussian, blobs)" in capsys.readouterr().out
    args.validation_ood = "gaussian"
    with pytest.raises(UserError, match="in common with the test set 'gaussian'"):
        margins.load_validation(args, test_set)
    pixels = test_set.images[3:5].permute(0, 2, 3, 1).contiguous().numpy()
    np.savez(tmp_path / "two.npz", images=pixels)
    args.validation_ood = f"{tmp_path}/two.npz"
    with pytest.raises(UserError, match="2 of its 2 images in common with the test set 'digits'"):
        margins.load_validation(args, test_set)
    args.validation_ood = None
    assert margins.load_validation(args, test_set) == []


def test_own_images_get_margins_of_their_own(make_project, tmp_path):
    project, own = make_project(), tmp_path / "own"
    write_own(own)
    np.savez(tmp_path / "outliers.npz", images=noise(40, 8, 9))
    np.savez(tmp_path / "mine.npz", images=noise(30, 8, 3) // 2)
    project.do(f"baseline.py own --id {own} --epochs 1 {SMALL}")
    command = (
        f"tune.py own --id {own} --loss energy --outliers {tmp_path}/outliers.npz --epochs 2 "
        "--oe_batch_size 8 --batch_size 16 --device cpu"
    )
    chosen = f"{command} --validation-ood {tmp_path}/mine.npz"
    project.run(chosen, prelude=stop_at_step("SIGKILL", 6))
    out = project.do(command + " --resume")
    assert "margins from" not in out  # those of the interrupted run
    (file,) = (project.snapshots / "tune_energy").glob("*_epoch_1.json")
    made = json.loads(file.read_text())
    recipe, (described,) = made["recipe"], made["validation_ood"]  # not typed again
    assert recipe["auto_margins"] is True and recipe["m_in"] != -23.0
    assert (described["name"], described["images"]) == ("mine", 30)
    project.refuse(
        f"test.py --model {file.with_suffix('.pt')} --id {own} --ood {tmp_path}/mine.npz",
        "30 of the 30 images of 'mine' are in the validation OOD set 'mine' of",
    )
    np.savez(
        tmp_path / "part.npz", images=np.concatenate([noise(9, 8, 4), noise(30, 8, 3)[5:7] // 2])
    )
    project.refuse(
        f"test.py --model {file.with_suffix('.pt')} --id {own} --ood {tmp_path}/part.npz",
        "2 of the 11 images of 'part' are in the validation OOD set 'mine' of",
    )
    out = project.do(command)
    found = re.search(r"energies, (\S+) of ID images and (\S+) of .*m_in (\S+), m_out (\S+)", out)
    e_in, e_out, m_in, m_out = map(float, found.groups())
    assert (m_in, m_out) == pytest.approx(margins.margins_of(e_in, e_out), abs=0.01)
    assert recipe["m_in"] in (recipe["m_out"], pytest.approx(e_in, abs=0.01))
    assert recipe["m_out"] != m_out and "ID error before fine-tuning" in out
    out = project.do(command + " --m_in -9 --m_out -3")
    assert "margins from" not in out
    sr = f"tune.py own --id {own} --loss sr --epochs 1"
    project.refuse(f"{sr} --auto-margins", "--auto-margins is not an option of --loss sr")
    project.refuse(f"{sr} --validation-ood {tmp_path}/mine.npz", "--loss sr has none")
