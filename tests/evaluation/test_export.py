"""A detector in one file gives what Python gives: logits, score, threshold and verdict."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch
from conftest import noise, write_own

from utils import loaders, snapshots
from utils.evaluation import export, load, network, options, verdicts
from utils.runtime import UserError
from utils.scores import choose

CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12)
        self.head = nn.Linear(12, num_classes)
    def forward(self, x):
        return self.head(self.bn(self.conv(x)).relu().mean((2, 3)))
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A snapshot of a plain network of one's own, and its ID images."""
    monkeypatch.setattr(network, "CACHE", tmp_path / "cache")
    (tmp_path / "exportnet.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    torch.manual_seed(3)
    net = importlib.import_module("exportnet").Net(3)
    about = {"arch": "exportnet:Net", "num_classes": 3, "dataset": "mine", "image_size": 8}
    snapshots.save_snapshot(tmp_path / "mine_net_epoch_0.pt", net, about)
    write_own(tmp_path / "own")
    yield tmp_path / "mine_net_epoch_0.pt"
    sys.modules.pop("exportnet", None)


def arguments(file, *words):
    folder = file.parent
    given = ["--model", str(file), "--arch", "exportnet:Net", "--id", str(folder / "own")]
    given += ["--save", str(folder / "results"), "--data", str(folder / "data")]
    return options.parse([*given, *map(str, words)], "")


def in_python(file, score, pixels):
    """(logits, scores, threshold, inside) of uint8 (N,8,8,3), by the project's own way."""
    args = arguments(file, "--score", score, "--precision", "fp32", "--compile", "off")
    net, about = load.load_network(file, args)
    (one,) = choose(score)
    sets = verdicts.load_sets(file, about, [one], args)
    if "train" in one.needs:
        net.fit(one, sets.train)
    known = np.sort(net.score(one, sets.id))
    images = loaders.make_set(pixels, None, "x")
    values = net.score(one, images)
    return net.outputs(images).logits, values, known[28], values <= known[28]  # 29 of 30: 95 %


SCORES = ("energy:T=2", "msp", "maxlogit", "react", "mahalanobis", "dice", "dice+react")
SCORES += ("vim", "residual")


def check(outputs, expected):
    for got, want in zip(outputs[:3], expected):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(outputs[3], expected[3])


@pytest.mark.parametrize("score", SCORES)
def test_pt2_of_every_score(world, score):
    target = world.parent / "new" / "detector.pt2"
    told = export.export(world, arguments(world, "--score", score, "--export", target))
    assert "differs from Python by" in told
    extra = {"detector.json": ""}
    program = torch.export.load(target, extra_files=extra)
    about = json.loads(extra["detector.json"])
    assert about["score"] == score and about["classes"] == []
    for count in (1, 7):
        pixels = noise(count, 8, count)
        outputs = program.module()(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        check([part.numpy() for part in outputs], in_python(world, score, pixels))


def test_onnx(world):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    for score in ("energy", "msp", "maxlogit", "react", "mahalanobis"):
        target = world.parent / f"{score}.onnx"
        export.export(world, arguments(world, "--score", score, "--export", target))
        session = runtime.InferenceSession(target.read_bytes(), providers=["CPUExecutionProvider"])
        assert [output.name for output in session.get_outputs()] == list(export.OUTPUTS)
        about = session.get_modelmeta().custom_metadata_map
        assert about["score"] == score and float(about["tpr"]) == 0.95
        for count in (1, 7):
            pixels = noise(count, 8, count)
            images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
            check(session.run(None, {"images": images}), in_python(world, score, pixels))


def test_a_file_that_differs_is_not_written(world, monkeypatch):
    target = world.parent / "detector.pt2"
    wrong = {**export.GRAPHS, "energy": lambda *_: lambda f, h: export.energy(f) + 3e-4}
    monkeypatch.setattr(export, "GRAPHS", wrong)
    with pytest.raises(UserError, match="differ from Python's by"):
        export.export(world, arguments(world, "--export", target))
    assert not target.exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (("--export", "x.pt"), "must end in .onnx or .pt2"),
        (("--export", "x.pt2", "--score", "energy,msp"), "one --score"),
        (("--export", "x.pt2", "--score", "knn"), "'knn' cannot be exported. There is: energy"),
        (("--export", "x.pt2", "--score", "odin"), "cannot be exported"),
        (("--export", "x.pt2", "--score", "mahalanobis:eps=0.1"), "with an input step"),
    ],
)
def test_what_cannot_be_exported_is_said_before_the_work(world, words, told, monkeypatch):
    monkeypatch.setattr(verdicts, "load_id_set", None)
    with pytest.raises(UserError, match=told):
        export.export(world, arguments(world, *words))


def test_one_file_is_for_one_snapshot_and_says_what_it_replaces(world):
    assert export.only_one([world], "x.pt2") == world
    with pytest.raises(UserError, match="x.pt2 is one file.* means 2"):
        export.only_one([world, world], "x.pt2")
    target = world.parent / "again.pt2"
    told = [export.export(world, arguments(world, "--export", target)) for _ in range(2)]
    assert ["replaced" in one for one in told] == [False, True]


def test_packages_that_are_missing_are_named(world, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install onnx onnxscript"):
        export.export(world, arguments(world, "--export", "x.onnx"))
