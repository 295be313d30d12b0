"""The chain as a user runs it: the literal commands, in a copy of the project, from data sets of
every kind to result files.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import coloured, noise, write_own
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from utils import metrics
from utils.evaluation.rows import draw_indices
from utils.training import options

TINY = "--layers 10 --widen-factor 1 --epochs 1"
SIX = ["textures_dtd", "svhn", "places", "scenes_crop", "scenes_resize", "isun"]


def write_cifar(data, name, classes):
    """A synthetic CIFAR below a data folder, and with it the six OOD stand-ins and the outliers."""
    for split, count, seed in (("train", 2 * classes + 60, 1), ("test", 100, 2)):
        images, labels = coloured(count, classes, 32, seed)
        (data / name).mkdir(parents=True, exist_ok=True)
        np.savez(data / name / f"{split}.npz", images=images, labels=labels)
    for i, place in enumerate([f"ood/{ood}" for ood in SIX] + ["outliers/tiny_imagenet"]):
        (data / place).parent.mkdir(exist_ok=True)
        np.savez(data / f"{place}.npz", images=noise(30, 32, 10 + i))


def result_of(project, name):
    return json.loads(project.latest_result(name).read_text())


def printed_table(text):
    """{set: [FPR95, sd, AUROC, sd, AUPR, sd]} of the last per-set table in what test.py printed."""
    rows = re.findall(
        r"^(\S+) +([\d.]+) ± *([\d.]+) +([\d.]+) ± *([\d.]+) +([\d.]+) ± *([\d.]+)",
        text,
        re.MULTILINE,
    )
    return {row[0]: [float(value) for value in row[1:]] for row in rows}


# ---- the literal commands


def as_a_user(project, command):
    """Run ``python ...`` for real and return what it printed."""
    done = subprocess.run(
        [sys.executable, *command.split()[1:]],
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def run_chain(project, dataset, run, extra):
    run(f"python baseline.py {dataset} {extra}")
    assert f"{dataset}_wrn_pretrained_epoch_0.pt" in project.names("pretrained")
    run(
        f"python tune.py {dataset} --save ./snapshots/tune_sr "
        f"{extra.replace('--layers 10 --widen-factor 1', '')}"
    )
    run(f"python tune.py {dataset} --loss sroe {extra}")
    for loss in ("sr", "sroe"):
        assert f"{dataset}_wrn_s1_tune_epoch_0.pt" in project.names(f"tune_{loss}")
    text = run(f"python test.py --model {dataset}_wrn_pretrained --score energy")
    assert (
        "pretrained/" in text
        and "FPR95" in text
        and "AUROC" in text
        and "AUPR" in text
        and "ID error" in text
    )
    text = run(f"python test.py --model {dataset}_wrn_s1_tune --score energy")
    assert (
        text.startswith(f"'{dataset}_wrn_s1_tune' is the name of 2 snapshots: tune_sr/")
        and "tune_sroe/" in text.splitlines()[0]
    )
    assert text.count("ID positive") == 2
    return text


@pytest.fixture(scope="module")
def digits(make_project):
    """A project in which the digits' literal commands have been run,
    one of each script begun as a user begins it.
    """
    project, begun = make_project(), set()

    def run(command):
        script = command.split()[1]
        if script in begun:
            return project.do(command.split(" ", 1)[1])
        begun.add(script)
        return as_a_user(project, command)

    run_chain(project, "digits", run, "--epochs 1")
    return project


def by_hand(inner, outer):
    """The metrics in percent with ID as the positive class, by scikit-learn and a loop;
    larger scores mean more OOD.
    """
    is_id = np.r_[np.ones(len(inner)), np.zeros(len(outer))]
    values = np.r_[inner, outer]
    # the threshold whose recall of ID images is closest to 95 percent,
    # of two as close the one with more
    _, _, threshold = min(
        (abs((inner <= t).sum() - 0.95 * len(inner)), -(inner <= t).sum(), t) for t in inner
    )
    return {
        "fpr95": 100 * (outer <= threshold).mean(),
        "auroc": 100 * roc_auc_score(is_id, -values),
        "aupr_in": 100 * average_precision_score(is_id, -values),
        "aupr_out": 100 * average_precision_score(1 - is_id, values),
    }


def check_by_hand(project, name, draws=10, seed=1):
    """A result's rows are what its saved scores give by hand,
    over whole sets and as the mean over the draws.
    """
    record = result_of(project, name)
    with np.load(project.latest_result(name, "_scores.npz")) as scores:
        for entry in record["scores"]:
            inner = scores[f"{entry['score']}/id"]
            assert len(inner) == record["id"]["images"] and inner.dtype == np.float64
            for row in entry["sets"]:
                outer = scores[f"{entry['score']}/{row['set']}"]
                parts = draw_indices(len(outer), len(inner) // 5, draws, seed, row["set"])
                drawn = [by_hand(inner, outer[part]) for part in parts]
                assert (len(outer), row["draws"], row["drawn"]) == (
                    row["n"],
                    len(parts),
                    len(parts[0]),
                )
                for metric, value in by_hand(inner, outer).items():
                    assert row["whole"][metric] == pytest.approx(value, abs=1e-6)
                    assert row[metric] == pytest.approx(
                        np.mean([one[metric] for one in drawn]), abs=1e-6
                    )
                    assert row["sd"][metric] == pytest.approx(
                        np.std([one[metric] for one in drawn], ddof=1), abs=1e-6
                    )
    return record


def test_digits_chain_with_no_further_flag(digits):
    digits.do("test.py --model digits_wrn_pretrained --score energy --save-scores")
    digits.do("test.py --model digits_wrn_s1_tune --score energy --save-scores")
    for name in (
        "digits_wrn_pretrained_energy",
        "digits_wrn_s1_tune_sr_energy",
        "digits_wrn_s1_tune_sroe_energy",
    ):
        sets = check_by_hand(digits, name)["scores"][0]["sets"]
        assert [row["set"] for row in sets] == [
            "digits_6_9",
            "china_patches",
            "flower_patches",
            "gaussian",
            "rademacher",
            "blobs",
        ]


@pytest.mark.parametrize("dataset,classes", [("cifar10", 10), ("cifar100", 100)])
def test_cifar_chain_with_no_further_flag(dataset, classes, make_project):
    project = make_project()
    write_cifar(project.root / "data", dataset, classes)
    text = run_chain(project, dataset, lambda command: project.do(command.split(" ", 1)[1]), TINY)
    assert list(printed_table(text)) == SIX + ["average"]
    description = json.loads(
        project.file(f"pretrained/{dataset}_wrn_pretrained_epoch_0.json").read_text()
    )
    assert description["num_classes"] == classes


def test_every_loss(digits):
    for loss, score in (("oe", "msp"), ("energy", "energy")):
        digits.do(f"tune.py digits --loss {loss} --epochs 1 --batch_size 379 --oe_batch_size 64")
        with digits.file(f"tune_{loss}/digits_wrn_s1_tune_training_results.csv").open() as file:
            assert next(csv.DictReader(file)).keys() >= {"ce", loss}
        assert (
            json.loads(digits.file(f"tune_{loss}/digits_wrn_s1_tune_epoch_0.json").read_text())[
                "score"
            ]
            == score
        )
    text = digits.do("test.py --model digits_wrn_s1_tune --score energy --ood gaussian")
    assert "4 snapshots: " in text and all(
        f"tune_{loss}/" in text for loss in ("sr", "sroe", "oe", "energy")
    )
    assert text.count("ID positive") == 4
    assert "tune_oe" in digits.do(
        "test.py --model tune_oe/digits_wrn_s1_tune --score msp --ood gaussian"
    )


def test_sr_never_opens_outliers(make_project):
    project = make_project()
    write_cifar(project.root / "data", "cifar10", 10)
    shutil.rmtree(project.root / "data" / "outliers")
    project.do(f"baseline.py cifar10 {TINY}")
    project.do(f"tune.py cifar10 {TINY}")
    project.refuse(f"tune.py cifar10 --loss sroe {TINY}", "tiny_imagenet")


# ---- options and names


@pytest.mark.parametrize(
    "name",
    [
        "--model digits_wrn_pretrained",
        "--method_name digits_wrn_pretrained",
        "-m digits_wrn_pretrained",
        "--method-name digits_wrn_pretrained",
        "-m digits_wrn_pretrained_epochs1_best",
        "-m pretrained/digits_wrn_pretrained",
        "-m digits_wrn_pretrained_epochs1",
        "-m digits_wrn_pretrained_epochs1_epoch_0.pt",
        "-m CIFAR/snapshots/pretrained/digits_wrn_pretrained_epochs1_epoch_0.pt",
        "-m ./snapshots/pretrained/digits_wrn_pretrained_epochs1_epoch_0.pt",
    ],
)
def test_every_way_to_name_a_model(name, digits):
    assert "average" in printed_table(digits.do(f"test.py {name} --ood gaussian"))


def test_from_another_working_directory(digits, tmp_path):
    path = digits.file("pretrained/digits_wrn_pretrained_epoch_0.pt")
    for name in ("digits_wrn_pretrained", path):
        assert "average" in printed_table(
            digits.do(f"test.py --model {name} --ood gaussian", cwd=tmp_path)
        )
    digits.do(
        "tune.py digits --epochs 1 --batch_size 379 --save ./snapshots/from_elsewhere", cwd=tmp_path
    )
    assert "digits_wrn_s1_tune_epoch_0.pt" in digits.names("from_elsewhere")
    digits.do("tune.py digits --epochs 1 --batch_size 379 --seed 7 --save mine", cwd=tmp_path)
    (file,) = (tmp_path / "mine").glob("*_epoch_0.pt")
    assert file.stem == "digits_wrn_s7_tune_b379_epochs1_from-s1-epochs1_epoch_0"
    assert "mine/digits_wrn_s7_tune_epoch_0" in digits.do(
        "test.py --model digits_wrn_s7_tune --ood gaussian"
    )
    assert sorted(f.name for f in tmp_path.iterdir()) == ["mine"]
    shutil.rmtree(digits.snapshots / "from_elsewhere")


def load_script(name):
    """A script as a module; test.py's name belongs to the standard library."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(
        f"script_{name}", options.DATA.parent / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", ["baseline", "tune", "test"])
def test_every_long_option_in_both_spellings(script, monkeypatch):
    class Seen(Exception):
        pass

    def stop(parser, argv):
        raise Seen(parser)

    monkeypatch.setattr(options.Parser, "parse_args", stop)
    with pytest.raises(Seen) as seen:
        load_script(script).main([])
    known = set(seen.value.args[0]._option_string_actions)
    for option in (o for o in known if o.startswith("--")):
        for spelling in (option[2:].replace("-", "_"), option[2:].replace("_", "-")):
            assert f"--{spelling}" in known
    asked = {
        "test": (
            "score T noise num_to_avg out_as_pos test_bs ngpu prefetch model method_name seed data "
            "device protocol save arch"
        ),
        "baseline": (
            "epochs learning_rate batch_size momentum decay layers widen-factor droprate save load "
            "seed ngpu prefetch data device arch padding resume preset test_bs"
        ),
    }
    asked["tune"] = (
        asked["baseline"] + " oe_batch_size alpha beta m_in m_out l1-on outlier-norm loss outliers"
    )
    assert {f"--{name}" for name in asked[script].split()} <= known
    assert {"baseline": {"-lr"}, "tune": {"-lr"}, "test": {"-m"}}[script] <= known


@pytest.mark.parametrize("script", ["baseline", "tune", "test"])
def test_help_gives_defaults_with_their_origin(script, digits):
    text = digits.do(f"{script}.py --help")
    assert "default" in text and (script == "test" or "[SR]" in text)


# ---- results


def test_the_printed_table_the_json_and_the_csv_agree(digits):
    text = digits.do("test.py --model digits_wrn_pretrained --score energy --save-scores")
    # nothing unusual: no hash
    assert (digits.results / "digits_wrn_pretrained_epochs1_energy.json").exists()
    record, table = result_of(digits, "digits_wrn_pretrained_energy"), printed_table(text)
    lines = list(
        csv.DictReader(digits.latest_result("digits_wrn_pretrained_energy", ".csv").open())
    )
    (score,) = record["scores"]
    for row, line in zip([*score["sets"], score["average"]], lines, strict=True):
        for i, metric in enumerate(("fpr95", "auroc", "aupr_in")):
            assert table[row["set"]][2 * i : 2 * i + 2] == pytest.approx(
                [row[metric], row["sd"][metric]], abs=0.00501
            )
            assert float(line[metric]) == pytest.approx(row[metric], abs=1e-4)
        assert line["set"] == row["set"] and float(line["aupr_out"]) == pytest.approx(
            row["aupr_out"], abs=1e-4
        )
    for metric in metrics.METRICS:
        assert score["average"][metric] == pytest.approx(
            np.mean([row[metric] for row in score["sets"]])
        )
    header = text.index("ID error")  # the sets have been named above it too, as they were loaded
    places = [text.index(name, header) for name in ("digits_6_9", "blobs", "average")]
    assert places == sorted(places)
    assert (
        record["snapshot"]["sha256"]
        and record["command"]
        and record["id"]["accuracy"] == 100 - record["id"]["error"]
    )


def test_saved_scores_give_the_metrics_again(digits):
    digits.do(
        "test.py --model digits_wrn_pretrained --score energy,msp --save-scores "
        "--num_to_avg 3 --seed 5"
    )
    record = check_by_hand(digits, "digits_wrn_pretrained_energy+msp", 3, 5)
    assert [entry["score"] for entry in record["scores"]] == ["energy", "msp"] and record["scores"][
        0
    ]["sets"][0]["draws"] == 3


def test_saved_outputs_give_the_same_digits_without_the_network(digits, tmp_path):
    names = "energy,odin:eps=0,klmatching,knn,vim,mahalanobis,fdbd,dice+react,she,weiper"
    words = f"--score {names} --seed 4 --num_to_avg 3"
    digits.run(
        f"test.py --model digits_wrn_pretrained {words} --ood blobs,gaussian "
        f"--save-outputs {tmp_path}/kept --save {tmp_path}/network"
    )
    (folder,) = (tmp_path / "kept").iterdir()
    ood = " ".join(f"{folder}/ood/{name}.npz" for name in ("blobs", "gaussian"))
    result = digits.run(
        f"test.py --outputs {folder}/train.npz {folder}/id.npz {ood} {words} "
        f"--save {tmp_path}/files"
    )
    assert result.status == 0
    of_network, of_files = (
        json.loads(next((tmp_path / name).glob("*.json")).read_text())
        for name in ("network", "files")
    )
    assert of_files["scores"] == of_network["scores"] and len(of_files["scores"]) == 10
    assert of_files["id"]["error"] == of_network["id"]["error"]


def test_two_snapshots_are_compared(digits, tmp_path):
    command = "test.py --compare tune_sr/digits_wrn_s1_tune,digits_wrn_pretrained --num_to_avg 2"
    result = digits.run(f"{command} --ood gaussian,blobs --save {tmp_path}")
    assert result.status == 0, result.err
    (file,) = tmp_path.glob("compare_*.json")
    (pair,) = json.loads(file.read_text())["pairs"]
    usual = [json.loads(f.read_text()) for f in sorted(tmp_path.glob("digits*.json"))]
    by_name = {record["snapshot"]["sha256"]: record for record in usual}
    assert len(by_name) == 2 and pair["a"]["snapshot"].startswith("tune_sr/")
    for letter in "ab":
        (entry,) = by_name[pair[letter]["sha256"]]["scores"]
        row = pair["rows"][-1]
        assert row["auroc"][letter] == pytest.approx(entry["average"]["whole"]["auroc"])
        assert row["auroc"]["low"] <= row["auroc"]["difference"] <= row["auroc"]["high"]


def test_tuned_scores_and_their_grid(digits):
    text = digits.do(
        "test.py --model digits_wrn_pretrained --score knn,msp --ood gaussian --tune-scores"
    )
    record = json.loads(
        max(digits.results.glob("*.json"), key=lambda path: path.stat().st_mtime_ns).read_text()
    )
    grid, (chosen, _) = record["tuned"]["knn"], record["scores"]
    best = next(row["fpr95"] for row in grid if row["hyper"]["k"] == chosen["hyper"]["k"])
    assert (
        len(grid) > 3 and best == min(row["fpr95"] for row in grid) and record["tuned"]["msp"] == []
    )
    assert text.count("<- chosen") == 1
    words = "test.py --model digits_wrn_pretrained --score knn --tune-scores --validation-ood"
    digits.run(f"{words} blobs --ood gaussian")
    newest = max(digits.results.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    record = json.loads(newest.read_text())
    assert [part["name"] for part in record["validation_ood"]] == ["blobs"]
    assert record["arguments"]["validation_ood"] == "blobs"
    newest.unlink()  # else every later table of this network says that blobs were chosen on
    digits.refuse(f"{words} blobs --ood gaussian,blobs", "'blobs'", "in common with the test set")


def test_another_epoch_and_another_run_keep_the_former_s_result(digits, tmp_path):
    """Two epochs of a run have names of their own; what a new run of the
    same name replaces is kept.
    """
    source = digits.file("pretrained/digits_wrn_pretrained_epoch_0.pt")
    place = digits.snapshots / "long"
    place.mkdir()
    for epoch in (3, 4):
        (place / f"digits_wrn_pretrained_epoch_{epoch}.pt").write_bytes(
            source.with_suffix(".pt").read_bytes()
        )
        description = json.loads(source.with_suffix(".json").read_text())
        description["recipe"]["epochs"], description["epoch"] = 5, epoch
        (place / f"digits_wrn_pretrained_epoch_{epoch}.json").write_text(json.dumps(description))
        digits.do(
            f"test.py --model long/digits_wrn_pretrained_epoch_{epoch} --ood gaussian --seed 1"
        )
    found = {
        path.stem: json.loads(path.read_text())["snapshot"]["epoch"]
        for path in digits.results.glob("*_long_*.json")
    }
    assert sorted(found.values()) == [3, 4]
    (last,) = (name for name, epoch in found.items() if epoch == 4)
    assert last.startswith("digits_wrn_pretrained_long_energy_")
    state = torch.load(source.with_suffix(".pt"), weights_only=True)
    torch.save(
        {name: value + 1e-3 if name == "fc.bias" else value for name, value in state.items()},
        place / "digits_wrn_pretrained_epoch_4.pt",
    )
    description.pop("sha256")
    (place / "digits_wrn_pretrained_epoch_4.json").write_text(json.dumps(description))
    former = (digits.results / f"{last}.json").read_bytes()
    text = digits.do("test.py --model long/digits_wrn_pretrained_epoch_4 --ood gaussian")
    (aside,) = digits.results.glob(f"{last}_*.json")
    assert (
        aside.read_bytes() == former != (digits.results / f"{last}.json").read_bytes()
        and aside.name in text
    )
    shutil.rmtree(place)


def test_load_is_the_folder_to_look_in(digits):
    best = digits.file("tune_sr/digits_wrn_s1_tune_best.pt")
    for model in ("digits_wrn_s1_tune", best.stem, best.name):
        text = digits.do(
            f"test.py --load ./snapshots/tune_sr --model {model} --score msp --ood gaussian "
            "--layers 40 --widen_factor 2"
        )
        assert "tune_sr/digits_wrn_s1_tune" in text and "tune_sroe" not in text
    digits.refuse(
        "test.py --load ./snapshots/tune_sr --model digits_wrn_pretrained --ood gaussian",
        "tune_sr",
        "digits_wrn_s1_tune",
    )


def test_full_protocol_and_ood_as_positive(digits):
    digits.do("test.py --model digits_wrn_pretrained --score energy")
    paper = result_of(digits, "digits_wrn_pretrained_energy")["scores"][0]
    table = printed_table(
        digits.do(
            "test.py --model digits_wrn_pretrained --score energy --protocol full --out-as-pos"
        )
    )
    record = result_of(digits, "digits_wrn_pretrained_energy_full")["scores"][0]
    for row, before in zip(record["sets"], paper["sets"], strict=True):
        assert row["draws"] == 1 and row["drawn"] == row["n"] and set(row["sd"].values()) == {0.0}
        assert (
            before["draws"] == 10
            and before["drawn"]
            == result_of(digits, "digits_wrn_pretrained_energy")["id"]["images"] // 5
        )
        for i, metric in enumerate(("fpr95_out", "auroc", "aupr_out")):
            assert row[metric] == pytest.approx(before["whole"][metric])
            assert table[row["set"]][2 * i] == pytest.approx(row[metric], abs=0.00501)


def test_several_scores_and_all(digits):
    text = digits.do(
        "test.py --model digits_wrn_pretrained "
        "--score msp,maxlogit,energy,odin,mahalanobis,mahalanobis:eps=0.001 --ood gaussian"
    )
    record = result_of(
        digits, "digits_wrn_pretrained_msp+maxlogit+energy+odin+mahalanobis+mahalanobis-eps-0.001"
    )
    assert [entry["score"] for entry in record["scores"]] == [
        "msp",
        "maxlogit",
        "energy",
        "odin",
        "mahalanobis",
        "mahalanobis:eps=0.001",
    ]
    assert "FPR95, percent" in text
    digits.do("test.py --model digits_wrn_pretrained --score all --ood gaussian")
    names = [entry["score"] for entry in result_of(digits, "digits_wrn_pretrained_all")["scores"]]
    assert {"msp", "maxlogit", "energy", "odin", "mahalanobis", "mahalanobis:eps=0.0014"} <= set(
        names
    )


def test_temperature_and_noise_reach_the_scores(digits):
    digits.do(
        "test.py --model digits_wrn_pretrained --score energy,odin,msp --T 10 "
        "--noise 0 --ood gaussian"
    )
    entries = next(
        result_of(digits, file.stem)["scores"] for file in digits.results.glob("*energy-T-10*.json")
    )
    assert [entry["hyper"] for entry in entries[:2]] == [{"T": 10.0}, {"T": 10.0, "eps": 0.0}]


# ---- the cache

NO_PASS = """
import models.wrn
real = models.wrn.WideResNet.forward
def forward(self, x):
    assert len(x) == 1, "a forward pass"   # one image is tried, to see that its size fits
    return real(self, x)
models.wrn.WideResNet.forward = forward
"""


def test_a_second_run_needs_no_forward_pass(digits):
    command = (
        "test.py --model tune_sr/digits_wrn_s1_tune --score energy,odin,mahalanobis "
        "--ood gaussian,blobs"
    )
    first, second = digits.do(command), digits.do(command, prelude=NO_PASS)
    assert first == second
    # other scores of the same outputs
    other = command.replace("energy,odin,mahalanobis", "msp,knn,vim")
    digits.do(other, prelude=NO_PASS)


DRAW = """
import argparse, json, sys
from utils.paper import figures
result = json.load(open(sys.argv[1]))
args = argparse.Namespace(data=sys.argv[2], id=None, image_size=None, skip_bad=False, device="auto",
                          ngpu=1, compile="auto", precision="auto", arch="wrn", seed=1)
print(figures.id_features(result, args).mean(), result["id"]["mean_l1"], result["compiled"])
"""
# as on a machine whose bf16 is no faster: there a network is eager until compiling is worth it
UNFOLDED = """
import models
models.fold = lambda model, size: None
"""
PRETEND = f"""{UNFOLDED}
import utils.evaluation.network as network
network.COMPILE_ABOVE["cpu"] = 0
network.compile_inference = lambda model, example: lambda x: model(x)
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_figures_and_later_runs_find_what_test_py_left_and_say_what_it_was(digits, compiled):
    command = "test.py --model digits_wrn_pretrained --score msp"
    shutil.rmtree(digits.root / "CIFAR" / "cache", ignore_errors=True)
    digits.do(command, prelude=PRETEND if compiled else UNFOLDED)
    digits.do(command, prelude=NO_PASS)
    assert result_of(digits, "digits_wrn_pretrained_msp")["compiled"] is compiled
    (digits.root / "draw.py").write_text(DRAW)
    path = digits.latest_result("digits_wrn_pretrained_msp")
    drawn = digits.do(["draw.py", path, digits.root / "data"], prelude=NO_PASS)
    mean, mean_l1, _ = drawn.splitlines()[-1].split()  # after the line that tells of the images
    # 64 features, none negative
    assert float(mean) * 8 * 8 == pytest.approx(float(mean_l1), rel=1e-4)
    assert (
        digits.run(command + " --compile " + ("off" if compiled else "on"), prelude=NO_PASS).status
        != 0
    )


def test_the_cache_is_not_another_snapshots_or_another_sets(digits, tmp_path):
    command = "test.py --model tune_sr/digits_wrn_s1_tune --score energy --ood gaussian"
    digits.do(command)
    for other in (
        command.replace("tune_sr/digits_wrn_s1_tune", str(tmp_path / "digits_x.pt")),
        command.replace("gaussian", f"folder:{tmp_path}/gaussian.npz"),
        command.replace("energy", "odin:eps=0.003"),
    ):
        state = torch.load(digits.file("tune_sr/digits_wrn_s1_tune_epoch_0.pt"), weights_only=True)
        torch.save(
            {name: value + 1e-3 if name == "fc.bias" else value for name, value in state.items()},
            tmp_path / "digits_x.pt",
        )
        np.savez(tmp_path / "gaussian.npz", images=noise(30, 32, 5))
        result = digits.run(other, prelude=NO_PASS)
        assert result.status == 1 and "a forward pass" in result.err, other


def test_a_damaged_cache_is_made_again(digits):
    command = "test.py --model tune_sroe/digits_wrn_s1_tune --score energy --ood gaussian"
    first = digits.do(command)
    for file in (digits.root / "CIFAR" / "cache").rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    assert digits.do(command) == first


# ---- images, networks and scores of one's own

NETWORK = """
import torch
class Net(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.fc = torch.nn.Linear(8, classes)
    def forward(self, x):
        h = torch.relu(self.conv(x)).mean((2, 3))
        return self.fc(h), h
def small(num_classes):
    return Net(num_classes)
def brightness(outputs):
    return outputs.features.sum(axis=1)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A user's own folder: images in three class folders, outliers,
    OOD images, a network and a score.
    """
    home = tmp_path_factory.mktemp("home")
    for split, count in (("train", 30), ("test", 15)):
        images, labels = coloured(count, 3, 20, count)
        for i, (image, label) in enumerate(zip(images, labels)):
            file = home / "flowers" / split / ("aster", "lily", "rose")[label] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    for name, seed in (("stones", 1), ("outliers", 2)):
        (home / name).mkdir()
        for i, image in enumerate(noise(12, 20, seed)):
            Image.fromarray(image).save(home / name / f"{i}.png")
    (home / "mine.py").write_text(NETWORK)
    return home


def test_own_images_through_all_three_scripts(make_project, home):
    project = make_project()
    project.do(f"baseline.py flowers --id {home}/flowers {TINY}")
    description = json.loads(
        project.file("pretrained/flowers_wrn_pretrained_epoch_0.json").read_text()
    )
    assert description["classes"] == ["aster", "lily", "rose"] and description["image_size"] == 32
    project.do(
        f"tune.py flowers --id {home}/flowers --loss sroe --outliers {home}/outliers --epochs 1"
    )
    for name in ("flowers_wrn_pretrained", "flowers_wrn_s1_tune"):
        table = printed_table(
            project.do(
                f"test.py -m {name} --id {home}/flowers --score energy,knn:k=5 --ood folder:stones",
                cwd=home,
            )
        )
        assert list(table) == ["stones", "average"]
    project.refuse("test.py -m flowers_wrn_pretrained --ood gaussian", "--id PATH")


def test_own_images_that_are_called_as_a_known_set(make_project, tmp_path):
    """They have classes of their own, twelve here, and are scored only where they are given."""
    project, own = make_project(), write_own(tmp_path / "own", classes=12, train=60, test=36)
    project.do(f"baseline.py cifar10 --id {own} {TINY}")
    project.do(f"tune.py cifar10 --id {own} --epochs 1 --batch_size 30")
    for name in ("cifar10_wrn_pretrained", "cifar10_wrn_s1_tune"):
        project.do(f"test.py -m {name} --id {own} --score energy,she --ood gaussian")
        project.refuse(
            f"test.py -m {name} --ood gaussian", "images of your own", str(own), "--id PATH"
        )


def test_own_images_at_another_size(make_project, home):
    project = make_project()
    common = f"flowers --id {home}/flowers --image-size 20"
    project.do(f"baseline.py {common} {TINY}")
    project.do(f"tune.py {common} --loss sroe --outliers {home}/outliers --epochs 1")
    project.do(
        f"test.py -m flowers_wrn_s1_tune --id {home}/flowers --image-size 20 "
        f"--ood folder:{home}/stones,gaussian"
    )
    # outliers are brought to the ID images' size, whatever they are
    np.savez(home / "large.npz", images=noise(12, 32, 1))
    project.do(
        f"tune.py flowers --id {home}/flowers --loss sroe --outliers {home}/large.npz --epochs 1"
    )
    (file,) = (project.snapshots / "tune_sroe").glob("*_outliers-large-*_epoch_0.json")
    tuned = json.loads(file.read_text())
    assert tuned["image_size"] == 20  # the network's, not the usual one


def test_own_network_and_own_score_through_all_three_scripts(make_project, home):
    project = make_project()
    project.do(f"baseline.py flowers --id {home}/flowers --arch mine:small --epochs 1", cwd=home)
    assert "flowers_small_pretrained_epoch_0.pt" in project.names("pretrained")
    project.do(
        f"tune.py flowers --id {home}/flowers --arch mine:small --epochs 1", PYTHONPATH=str(home)
    )
    command = (
        f"test.py -m flowers_small_s1_tune --id {home}/flowers --ood folder:{home}/stones "
        "--score energy,mine:brightness"
    )
    project.refuse(command, "mine:small", "type: --arch mine:small", cwd=home)  # no file may
    command += " --arch mine:small"
    assert "mine:brightness" in project.do(command, cwd=home)
    project.refuse(command, "mine", "cannot be imported")  # from elsewhere
    project.file(
        "pretrained/flowers_small_pretrained_epoch_0.json"
    ).unlink()  # a file without description: the option names its network
    project.refuse(
        f"tune.py flowers --id {home}/flowers --epochs 1 --load flowers_small_pretrained",
        "--arch module:function",
        cwd=home,
    )
    project.do(
        f"tune.py flowers --id {home}/flowers --arch mine:small --epochs 1 --save ./snapshots/x",
        cwd=home,
    )


def test_a_published_file_is_tested_and_tuned(make_project, digits, tmp_path):
    project = make_project()
    state = torch.load(
        digits.file("pretrained/digits_wrn_pretrained_epoch_0.pt"), weights_only=True
    )
    old = {
        f"module.{name}": value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    (project.snapshots / "pretrained").mkdir(parents=True)
    torch.save(old, project.snapshots / "pretrained" / "digits_wrn_pretrained_epoch_99.pt")
    # an epoch's network hardly beats guessing; of a file that says nothing of itself that is doubted
    result = project.run("test.py --model digits_wrn_pretrained --ood gaussian")
    assert result.status == 0 and len(result.err.splitlines()) == 1
    assert result.err.startswith("warning: the ID error of digits_wrn_pretrained_epoch_99.pt")
    assumed, *a = result.out.splitlines()[2:]
    assert assumed.startswith("images are normalised with mean 0.4914")
    b = digits.do("test.py --model digits_wrn_pretrained --ood gaussian").splitlines()[2:]
    assert a == b
    result = project.run("tune.py digits --epochs 1 --batch_size 379")
    assert result.status == 0 and len(result.err.splitlines()) == 1
    assert "digits_wrn_pretrained_epoch_99.pt is near chance on these images" in result.err
    assert "assumed: the given network's file does not say" in result.out
    assert "digits_wrn_pretrained_epoch_99.pt" in project.names("pretrained")
