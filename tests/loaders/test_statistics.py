"""--mean and --std: what images are normalised with, kept beside the weights."""

import argparse
import json

import numpy as np
import pytest
import torch
from conftest import noise, write_own

from utils import loaders
from utils.evaluation import load
from utils.loaders import STATISTICS, channels, typed_statistics
from utils.runtime import UserError
from utils.training.settled import choose_statistics

HALF = STATISTICS["half"]


@pytest.mark.parametrize(
    "mean, std, expected",
    [
        (None, None, None),
        ("imagenet", None, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        (None, "half", HALF),
        ("cifar10", "cifar10", ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))),
        ("0.1,0.2,0.3", "1,1,2", ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))),
        ("0,0,0", "half", ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))),
        ("0.5,0.5,0.5", "0.5,0.5,0.5", HALF),
        ("0.5", "0.5", HALF),
        ("0.1307", "0.3081", ((0.1307,) * 3, (0.3081,) * 3)),
        ("0.1,0.2,0.3", None, "Give each"),
        (None, "0.5", "Give each"),
        ("half", "0,1,1", "divides by 0"),
        ("127.5", "51", "--mean 0.5000,0.5000,0.5000 --std 0.2000,0.2000,0.2000"),
        ("0.5,2,0.5", "1", "0 to 255"),
        ("1", "1", ((1.0,) * 3, (1.0,) * 3)),
    ],
)
def test_what_was_typed(mean, std, expected):
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            typed_statistics(mean, std)
    else:
        assert typed_statistics(mean, std) == expected


@pytest.mark.parametrize("text", ["mnist", "0.5,0.5", "a,b,c", "-1,0,0", "nan,0,0", ""])
def test_neither_a_name_nor_three_numbers(text):
    with pytest.raises(argparse.ArgumentTypeError, match="three numbers"):
        channels(text)


def test_a_network_is_fine_tuned_with_the_statistics_it_was_trained_with(capsys):
    parent = {"mean": list(HALF[0]), "std": list(HALF[1])}
    assert choose_statistics({}, {}) == STATISTICS["cifar"]
    assert choose_statistics({}, {"arch": "wrn", "recipe": {}}) == STATISTICS["cifar"]
    assert capsys.readouterr().out == ""
    assert choose_statistics({}, {"arch": "wrn"}) == STATISTICS["cifar"]
    assert choose_statistics({}, {"arch": "timm:vit"}) == STATISTICS["imagenet"]
    assert capsys.readouterr().out.count("assumed: the given network's file does not say") == 2
    assert choose_statistics({}, parent) == choose_statistics({"mean": "half"}, parent) == HALF
    with pytest.raises(UserError, match="trained with mean 0.5,0.5,0.5.*not with mean 0.485"):
        choose_statistics({"mean": "imagenet"}, parent)


def test_what_test_py_takes_and_says(capsys):
    mine, half = {"arch": "wrn", "recipe": {}}, {"mean": [0.5] * 3, "std": [0.5] * 3}
    given, nothing = argparse.Namespace(mean="imagenet", std=None), argparse.Namespace()
    assert load.choose_statistics({**mine, **half}, nothing) == HALF
    assert load.choose_statistics(mine, nothing) == STATISTICS["cifar"]  # of a former version
    assert capsys.readouterr() == ("", "")
    assert load.choose_statistics({"arch": "wrn"}, nothing) == STATISTICS["cifar"]
    assert "assumed: the file does not say" in capsys.readouterr().out
    assert load.choose_statistics({**mine, **half}, given) == STATISTICS["imagenet"]
    assert "was trained with mean 0.5,0.5,0.5" in capsys.readouterr().err


def test_batches_are_normalised_with_them():
    images = loaders.make_set(noise(4, 8, 0), np.arange(4), "some")
    ((x, _),) = loaders.Batches(images, 4, torch.device("cpu"), statistics=HALF)
    np.testing.assert_allclose(x.numpy(), images.images.numpy() / 255 * 2 - 1, atol=1e-6)


def test_training_keeps_them_and_testing_takes_them(make_project, tmp_path):
    project, own = make_project(), write_own(tmp_path / "own")
    small = "--layers 10 --widen-factor 1 --batch_size 16 --device cpu"
    out = project.do(f"baseline.py own --id {own} --epochs 1 --mean half {small}")
    error = float(out.split("ID error ")[1].split(" %")[0])
    (file,) = (project.snapshots / "pretrained").glob("*_epoch_0.json")
    made = json.loads(file.read_text())
    assert (made["mean"], made["std"]) == ([0.5] * 3, [0.5] * 3)
    scored = project.do(f"test.py -m own_wrn_pretrained --id {own} --ood gaussian --score msp")
    assert f"ID error {error:.2f} %" in scored
    project.refuse(
        f"tune.py own --id {own} --mean imagenet --epochs 1", "was trained with mean 0.5"
    )
