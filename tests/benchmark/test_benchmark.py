"""The benchmark's parts on tiny sizes: what they report, that plain is plain, and that both
evaluations agree. Never speed.
"""

import argparse
import builtins
import json
import math

import numpy as np
import pytest
import torch

import models
from models import layers
from models.kernels import fused, mask
from utils import loaders, runtime, scores, snapshots
from utils.benchmark import __main__ as benchmark
from utils.benchmark import accuracy, apart, measure, plain, steps
from utils.benchmark import evaluation as whole
from utils.evaluation import network as network_module
from utils.evaluation.network import Network
from utils.evaluation.rows import measure_set
from utils.loaders import normalise
from utils.losses import LOSSES, losses_of
from utils.metrics import detection_metrics
from utils.paper import results, speed

CPU = torch.device("cpu")
SMALL = argparse.Namespace(arch="wrn", layers=10, widen_factor=1)
FIELDS = {"part", "what", "rate", "ratio", "spread", "rounds", "seconds", "peak_mib"}


@pytest.fixture(autouse=True)
def nothing_left_patched():
    before = dict(layers.wanted)
    yield
    assert layers.wanted == before


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """(folder of the synthetic images, snapshot) as the evaluation makes them."""
    folder = tmp_path_factory.mktemp("evaluation")
    whole.write_images(folder, 100)
    train = loaders.load_id("synthetic", "train", path=folder)
    return folder, whole.make_snapshot(folder, train, SMALL)


def test_every_part_reports_its_alternatives(tmp_path, monkeypatch, capsys):
    # compiling takes a minute
    monkeypatch.setattr(
        runtime, "compile_inference", lambda model, example: torch.nn.Sequential(model)
    )
    monkeypatch.setattr(
        benchmark,
        "RUNTIMES",
        {"another": lambda model, x: ("another fp32", lambda: [a.numpy() for a in model(x)])},
    )
    for part in (benchmark, steps):
        monkeypatch.setattr(part, "random_set", lambda count: measure.random_set(min(count, 24)))
    out = tmp_path / "benchmark.json"
    benchmark.main(
        [
            "--parts",
            "data",
            "metrics",
            "inference",
            "training",
            "tuning",
            "--rounds",
            "2",
            "--batch",
            "3",
            "--train-batch",
            "4",
            "--scores",
            "50",
            "--layers",
            "10",
            "--widen-factor",
            "1",
            "--device",
            "cpu",
            "--precision",
            "bf16",
            "--out",
            str(out),
        ]
    )
    record, printed = json.loads(out.read_text()), capsys.readouterr().out
    parts = {}
    for row in record["rows"]:
        assert (
            set(row) == FIELDS and row["rate"] > 0 and row["ratio"] > 0 and len(row["seconds"]) == 2
        )
        assert row["peak_mib"] is None or row["peak_mib"] >= 0
        assert row["what"].strip() in printed
        parts.setdefault(row["part"], []).append(row)
    assert [len(rows) for rows in parts.values()] == [2, 3, 4, 4, 4]
    assert all(
        rows[0]["ratio"] == 1
        and "project" in rows[-1]["what"]
        or rows[-1]["what"] == "another fp32"
        for rows in parts.values()
    )
    assert {"machine", "arguments", "precision"} <= set(record)
    monkeypatch.setattr(results, "RECORDED", tmp_path)
    page = speed.render_performance()
    assert page.count("\n| ") == 1 + len(record["rows"]) and "FPR95" not in page
    moved = {
        "snapshot": "a/b",
        "id_images": 7,
        "largest": {"fpr95": 0.123, "auroc": 0.045},
        "rows": [{"score": "msp", "set": "svhn"}],
    }
    out.write_text(json.dumps({**record, "accuracy": moved}))
    assert (
        "`a/b` (msp; 7 ID test images, 1 OOD sets) moves by at most 0.12 points of FPR95 and 0.04"
        in speed.render_performance()
    )
    # another machine has one line: its ratio of every part that was measured there
    other = tmp_path / "benchmark_other.json"
    other.write_text(json.dumps({**record, "accuracy": moved}))
    line = speed.render_performance().splitlines()[-1]
    ours = [rows[-1]["ratio"] for rows in parts.values() if "project" in rows[-1]["what"]]
    assert line.startswith("| `benchmark_other.json`") and line.endswith("| 0.12 |")
    assert all(f"| {ratio:.2f} |" in line for ratio in ours) and len(ours) >= 3
    monkeypatch.setattr(results, "RECORDED", tmp_path / "empty")
    assert speed.render_performance() == "Not measured yet."


def test_steps_of_losses_are_timed_against_energys(tmp_path, monkeypatch, capsys):
    out = tmp_path / "benchmark.json"
    words = "--parts losses views --rounds 1 --train-batch 4 --layers 10 --widen-factor 1"
    benchmark.main([*words.split(), "--device", "cpu", "--precision", "fp32", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert [(row["part"], row["what"]) for row in rows] == [
        ("step, batch 2 + 2", "Energy fine-tuning"),
        ("step, batch 2 + 2", "GReg"),
        ("step, batch 2 + 4", "Energy fine-tuning"),
        ("step, batch 2 + 4", "GReg+, its sampling in it"),
        ("step, batch 2 + 4", "the sampling alone"),
        ("step of two views, batch 16", "SupCon"),
        ("step of two views, batch 16", "ReweightOOD"),
        ("step of two views, batch 16", "the views alone"),
    ]
    assert all(row["rate"] > 0 for row in rows)
    monkeypatch.setattr(results, "RECORDED", tmp_path)
    page = speed.render_losses()
    assert page.count("\n| `benchmark.json` | step") == len(rows)
    assert "1 thread" in page or "threads" in page
    record = json.loads(out.read_text())
    record["arguments"]["arch"] = "resnet18"
    out.write_text(json.dumps(record))
    assert "| step of two views, batch 16, resnet18 | SupCon |" in speed.render_losses()
    monkeypatch.setattr(results, "RECORDED", tmp_path / "empty")
    assert speed.render_losses() == "Not measured yet."


def test_a_timed_step_trains(monkeypatch):
    network = models.build("wrn", 10, 10, 1, 0.0)
    images = benchmark.random_set(8)
    for name in ("greg+", "supcon"):
        made = steps.Steps(network, images, LOSSES[name](), (4, 4), torch.device("cpu"), "fp32")
        before = {key: value.clone() for key, value in made.network.state_dict().items()}
        made.draw()
        if name == "greg+":
            made.sample()
        after = made.network.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items())
        made.run()
        assert not torch.equal(before["conv1.weight"], made.network.conv1.weight)
        assert made.network.bn1.num_batches_tracked == 2  # one forward a step, no trace of others


def test_ratio_is_of_the_same_round(monkeypatch):
    # the machine slows down; the first calls warm up
    seconds = {"plain": iter([9, 9, 2, 4, 6]), "ours": iter([9, 9, 1, 1, 2])}
    monkeypatch.setattr(
        measure, "timed", lambda function, device, calls=1: float(next(seconds[function()]))
    )
    plain, ours = measure.compare(
        "part", {"plain": lambda: "plain", "ours": lambda: "ours"}, 8, 3, CPU
    )
    assert (plain["rate"], plain["ratio"], plain["spread"]) == (2, 1, 0.5)
    assert (ours["rate"], ours["ratio"], ours["spread"]) == (8, 3, 0.5)


def test_a_quick_function_is_called_several_times(monkeypatch):
    clock = [0.0]

    def quick():
        clock[0] += 1 / 128

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    (row,) = measure.compare("part", {"quick": quick}, 8, 2, CPU)
    assert clock[0] * 128 == 2 + 2 * math.ceil(measure.SHORTEST * 128) and row["rate"] == 8 * 128


def test_peak_memory_is_what_a_call_adds():
    peak = measure.peak_memory(lambda: np.ones(50 * 2**17), CPU)
    assert peak is None or 49 < peak < 60
    assert peak is None or measure.peak_memory(lambda: None, CPU) < 5


def test_peak_memory_is_none_where_it_cannot_be_read(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("no /proc here")

    monkeypatch.setattr(measure.Path, "write_text", refuse)
    called = []
    assert measure.peak_memory(lambda: called.append(1), CPU) is None and called


class NewNetwork(torch.nn.Module):
    """A network that nobody knew of: BatchNorm, ReLU and dropout, together and apart."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)
        self.fc, self.feature_dim = torch.nn.Linear(8, 10), 8

    def forward(self, x):
        x = layers.bn_relu(self.conv(x), self.bn, 0.3 * self.training)
        return layers.pool_and_classify(layers.dropout(x, 0.3, self.training), self.fc)


@pytest.mark.parametrize("make", [lambda: models.build("wrn", 10, 10, 1), NewNetwork])
def test_plain_steps_use_stock_operators_only(make, monkeypatch):
    def fail(*_, **__):
        pytest.fail("an operator of this project")

    network, images = make(), benchmark.random_set(8)
    loader = plain.pil_loader(images, 4, augment=True)
    ours = steps.Steps(network, images, losses_of("pretrain")["ce"](), (4, 0), CPU, "fp32").run
    monkeypatch.setattr(mask, "keep_mask", fail)
    for operator in ("kernels", "bn_relu_dropout"):
        monkeypatch.setattr(fused, operator, fail)
        for precision in ("fp32", "bf16"):
            for outliers in (0, 2):
                for layout in (torch.contiguous_format, torch.channels_last):
                    loss = (
                        losses_of("tune")["sroe"]() if outliers else losses_of("pretrain")["ce"]()
                    )
                    steps.plain_steps(network, loader, loss, CPU, precision, outliers, layout)()
        with pytest.raises(pytest.fail.Exception):
            ours()
        monkeypatch.setattr(fused, "takes", lambda x, bn: True)


def test_operators_are_put_back_after_an_error():
    for before in (True, False):
        models.use_kernels(fused=before)
        with pytest.raises(KeyError), plain.operators(stock=True):
            assert layers.wanted == {"fused": False, "mask": False}
            # a plain user's GPU has cuDNN
            assert torch.backends.cudnn.enabled and torch.backends.cudnn.allow_tf32
            raise KeyError
        assert layers.wanted == {"fused": before, "mask": True}
    models.use_kernels(fused=True)


def test_plain_loader_gives_the_projects_pixels():
    images = benchmark.random_set(7)
    x, y = zip(*plain.pil_loader(images, 3))
    torch.testing.assert_close(
        torch.cat(x),
        normalise(images.images.permute(0, 2, 3, 1)).contiguous(),
        rtol=1e-5,
        atol=1e-5,
    )
    assert torch.equal(torch.cat(y), images.labels)


def test_plain_metrics_are_the_projects():
    rng = np.random.default_rng(0)
    inner, outer = rng.normal(size=400), rng.normal(1, 1, size=300)
    ours = detection_metrics(inner, outer)
    for name, value in plain.sklearn_metrics(inner, outer).items():
        assert value == pytest.approx(ours[name], abs=1e-9), name


@pytest.fixture
def network_and_images():
    return models.build("wrn", 10, 10, 1).eval().requires_grad_(False), torch.randn(2, 3, 32, 32)


def test_other_runtimes_give_the_networks_outputs(network_and_images):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert plain.that_work(plain.RUNTIMES, *network_and_images), "installed, but none of them works"


def test_other_runtimes_are_optional(monkeypatch, network_and_images):
    def without(name, *rest, real=builtins.__import__):
        if name.split(".")[0] in ("onnxruntime", "onnxscript", "openvino"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert plain.that_work(plain.RUNTIMES, *network_and_images) == {}


BROKEN = {
    "nothing": lambda outputs: [],
    "logits alone": lambda outputs: outputs[:1],
    "empty logits": lambda outputs: [outputs[0][:, :0], outputs[1]],
    "None": lambda outputs: None,
    "numbers": lambda outputs: [1.0, 2.0],
    "other logits": lambda outputs: [0.99 * outputs[0], outputs[1]],
    "other features": lambda outputs: [outputs[0], outputs[1] + 1],
    "not a number": lambda outputs: [np.nan * outputs[0], outputs[1]],
    "an error": lambda outputs: exec("raise RuntimeError('no such instruction')"),
    "a silent error": lambda outputs: exec("raise RuntimeError"),
}


@pytest.mark.parametrize("breaks", BROKEN)
@pytest.mark.parametrize("when", ["converted", "called"])
def test_a_runtime_that_does_not_work_is_left_out_with_a_note(
    breaks, when, network_and_images, capsys
):
    def make(model, x):
        outputs = [part.numpy() for part in model(x)]
        function = BROKEN[breaks]
        if when == "called":
            return "broken fp32", lambda: function(outputs)
        return "broken fp32", (lambda given: lambda: given)(function(outputs))

    def good(model, x):
        return "good fp32", lambda: [part.numpy() for part in model(x)]

    found = plain.that_work({"broken": make, "good": good}, *network_and_images)
    assert list(found) == ["good fp32"]
    assert capsys.readouterr().out.startswith("broken is left out: ")


def test_how_far_outputs_may_be_apart_is_the_precisions(network_and_images):
    model, x = network_and_images
    exact = [part.numpy() for part in model(x)]
    apart = [0.99 * exact[0], torch.from_numpy(exact[1])]
    plain.check_outputs("b bf16", apart, exact, x)
    with pytest.raises(ValueError, match=r"its outputs differ by 0\.01"):
        plain.check_outputs("a fp32", apart, exact, x)
    with pytest.raises(ValueError, match="differ by nan"):
        plain.check_outputs("c bf16", [np.nan * exact[0], exact[1]], exact, x)


@pytest.mark.parametrize("specification", ["energy", "mahalanobis:eps=0.0014", "knn"])
def test_plain_evaluation_agrees_with_the_project(evaluation, specification, tmp_path):
    folder, snapshot = evaluation
    plain = whole.evaluate_plain(specification, snapshot, folder, "cpu")
    (score,) = scores.choose(specification, "synthetic")
    network = Network(snapshots.load_model(snapshot)[0], "a" * 64, CPU, "fp32", cache=tmp_path)
    if "train" in score.needs:
        network.fit(score, loaders.load_id("synthetic", "train", path=folder))
    inner = network.score(score, loaders.load_id("synthetic", "test", path=folder))
    sets = loaders.parse_ood(whole.ood_names(folder), "synthetic")
    assert len(sets) == len(plain["fpr95"]) == 6
    for ood in sets:
        row = measure_set(inner, network.score(score, ood), ood.name)
        assert plain["fpr95"][ood.name] == pytest.approx(row["fpr95"], abs=1) and row["draws"] == 10
        assert plain["auroc"][ood.name] == pytest.approx(row["auroc"], abs=0.1)
    assert min(plain["auroc"].values()) < max(plain["auroc"].values())


def test_no_score_refuses_the_synthetic_images(evaluation, tmp_path):
    folder, snapshot = evaluation
    network = Network(snapshots.load_model(snapshot)[0], "a" * 64, CPU, "fp32", cache=tmp_path)
    train, test = (loaders.load_id("synthetic", split, path=folder) for split in ("train", "test"))
    for score in scores.choose("all", "synthetic"):
        if "train" in score.needs:
            network.fit(score, train)
        assert np.ptp(network.score(score, test)) > 0, score.label


def test_whole_evaluation_in_processes(monkeypatch, capsys):
    there = network_module.CACHE.exists()
    before = sorted(network_module.CACHE.glob("*"))
    args = argparse.Namespace(**vars(SMALL), evaluation_scores="energy", evaluation_images=60)
    plain, ours = whole.part_evaluation(args, CPU, "fp32")
    assert sorted(network_module.CACHE.glob("*")) == before and (
        there or not network_module.CACHE.exists()
    )
    for row in (plain, ours):
        assert set(row) - {"apart", "start_s", "ratio_after_start"} == FIELDS | {"images"} and row[
            "images"
        ] == {"train": 300, "test": 60, "ood": 108}
        assert row["peak_mib"] > 50 and row["spread"] is None and row["rounds"] == 1
    assert ours["apart"]["fpr95"]["largest"] < 1 and ours["apart"]["auroc"]["largest"] < 0.1
    assert "-" in benchmark.format_row(ours)
    assert "energy/" in capsys.readouterr().out and 0 < ours["start_s"] < plain["seconds"][0]


def test_a_child_that_fails_is_one_line():
    with pytest.raises(runtime.UserError, match="no such"):
        apart.run_apart(["-c", "import sys; sys.exit('no such thing')"])
    with pytest.raises(runtime.UserError, match="'5' is not of the form"):
        apart.call_apart("scores:parse_size", "5")


def test_a_function_answers_from_a_process_of_its_own():
    found, seconds, peak = apart.call_apart("scores:parse_size", "50x20")
    assert found == [50, 20] and seconds > 0 and peak > 50


def test_peak_of_a_process_is_its_own():
    """Not that of the one that started it, which is larger by all of torch."""
    _, _, peak = apart.run_apart(["-S", "-c", "pass"])
    assert 1 < peak < 100


def test_metrics_that_are_missing_are_apart():
    plain = {"energy": {"auroc": {"a": 50.0, "b": 60.0}}, "knn": {"auroc": {"a": 1.0}}}
    ours = {"energy": {"auroc": {"a": 51.0, "b": 59.5}}}
    found = whole.largest_difference(plain, ours, "auroc")
    assert found == {"largest": np.inf, "where": "knn/a"}
    ours["knn"] = {"auroc": {"a": 1.5}}
    assert whole.largest_difference(plain, ours, "auroc") == {"largest": 1.0, "where": "energy/a"}


def test_both_precisions(evaluation, monkeypatch):
    folder, snapshot = evaluation
    sets = {
        "load_id": lambda name, split, data: loaders.load(name, split, path=folder),
        "ood_names": lambda name, data: ["x"],
        "is_there": lambda name, data: True,
        "parse_ood": lambda text, name, data: [
            loaders.load("noise_2", path=folder / "noise_2.npz")
        ],
    }
    monkeypatch.setattr(network_module, "CACHE", folder / "cache")
    monkeypatch.setattr(accuracy, "loaders", argparse.Namespace(**sets))
    monkeypatch.setattr(accuracy.snapshots, "find_snapshots", lambda name: [snapshot])
    found = accuracy.measure_accuracy(None, CPU)
    assert [(row["score"], row["set"]) for row in found["rows"]] == [
        ("msp", "noise_2"),
        ("energy", "noise_2"),
    ]
    for metric in ("fpr95", "auroc"):
        assert found["largest"][metric] == max(
            abs(row["bf16"][metric] - row["fp32"][metric]) for row in found["rows"]
        )
    assert 0 < found["largest"]["auroc"] < 2
    assert "largest difference: FPR95" in accuracy.format_accuracy(found)


def test_accuracy_is_left_out_without_images(tmp_path, capsys):
    out = tmp_path / "benchmark.json"
    benchmark.main(["--parts", "accuracy", "--data", str(tmp_path), "--out", str(out)])
    assert (
        "accuracy is left out" in capsys.readouterr().out
        and json.loads(out.read_text())["accuracy"] is None
    )
