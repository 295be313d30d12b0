"""reproduce.py --table, --sweep and --ablation as a user runs them, on a few small images in the place of CIFAR-10."""
import csv
import json

import numpy as np
import pytest
import torch


from conftest import coloured, noise, stop_at_step, write_own
from utils.paper import methods, studies
from utils.training import run

OOD = ("textures_dtd", "svhn", "places", "scenes_crop", "scenes_resize", "isun")


@pytest.fixture(scope="module")
def ready(make_project):
    """A project whose data folder has 8x8 images under the names of CIFAR-10 and the six sets."""
    project = make_project()
    (project.root / "data" / "cifar10").mkdir()
    (project.root / "data" / "ood").mkdir()
    for split, count, seed in (("train", 60, 1), ("test", 40, 2)):
        images, labels = coloured(count, 10, 8, seed)
        np.savez(project.root / "data" / "cifar10" / f"{split}.npz", images=images, labels=labels)
    for seed, name in enumerate(OOD):
        np.savez(project.root / "data" / "ood" / f"{name}.npz", images=noise(20, 8, seed))
    return project


def test_without_snapshots_it_says_what_to_run(ready):
    result = ready.run("reproduce.py cifar10 --table sr")
    assert result.status == 2 and "--train" in result.err.splitlines()[-1] and "Traceback" not in result.err
    ready.refuse("reproduce.py digits --table sr", "no published table", "cifar100")
    ready.refuse("reproduce.py cifar10 --table srf2", "srf1", "srf3")
    ready.refuse("reproduce.py cifar10 --sweep --ablation", "one at a time")
    ready.refuse("reproduce.py cifar10 --sweep --fresh", "a recipe of its own")
    ready.refuse("reproduce.py cifar10 --train", "--table")
    ready.refuse("reproduce.py cifar10 --table sr --id data", "no --id")
    ready.refuse("reproduce.py cifar10 --table sr --arch allconv", "no row of allconv", "wrn")


def test_the_chain_asks_for_all_images_before_it_trains(ready):
    ready.refuse("reproduce.py cifar10", "300k", "python data/download.py 300k")    # SROE's outliers; the others are there
    ready.refuse("reproduce.py cifar100", "cifar100, 300k")


def test_table_trains_what_is_missing_and_renders_all(ready):
    out = ready.run("reproduce.py cifar10 --table srf4 --train --preset quick")
    assert out.status == 0, out.err
    assert ready.names("pretrained")[1] == "cifar10_wrn_pretrained_best.pt" and ready.names("tune_sr") and not (ready.snapshots / "tune_oe").exists()
    text = (ready.root / "CIFAR" / "RESULTS.md").read_text()
    section = text.split("`--table srf4`")[1].split("\n## ")[0]
    for name in ("pretrained/cifar10_wrn_pretrained_epoch_4", "tune_sr/cifar10_wrn_s1_tune_epoch_1", "| SR | wrn | textures_dtd | 20; 1 x 8 |"[:27]):
        assert name in section
    rows = [row for row in csv.DictReader(open(ready.root / "CIFAR" / "RESULTS.csv")) if row["table"] == "srf4" and row["method"] == "SR"]
    result = json.loads(next(ready.results.glob("cifar10_wrn_s1_tune_sr_*.json")).read_text())
    entry = next(entry for entry in result["scores"] if entry["score"] == "energy")
    printed = {row["ood_set"]: row["measured"] for row in rows if row["metric"] == "fpr95" and row["measured"]}
    assert printed == {**{(s["set"] if s["set"] not in ("svhn", "isun") else s["set"] + " (not the paper's)"): f"{s['fpr95']:.2f}" for s in entry["sets"]},
                       "mean of the sets here": f"{entry['average']['fpr95']:.2f}"}
    assert not any(row["published"] for row in rows if row["measured"])    # none of these images is the paper's
    for figure in ("densities", "bars", "roc", "sparsity", "training_pretrained", "training_sr"):
        for suffix in ("png", "svg"):
            assert (ready.root / "CIFAR" / "figures" / f"cifar10_{figure}.{suffix}").stat().st_size > 1000


def test_second_table_uses_what_is_there(ready):
    before = ready.names("pretrained")
    out = ready.run("reproduce.py cifar10 --table sr")
    assert out.status == 0 and "no snapshot tune_sroe/cifar10_wrn_s1_tune" in out.err
    assert ready.names("pretrained") == before and "$ python baseline.py" not in out.out
    sr = (ready.root / "CIFAR" / "RESULTS.md").read_text().split("`--table sr`")[1].split("\n## ")[0]
    assert "| SROE | wrn | average |  |  | 4.15 |  |  |  |  | not measured |" in sr
    assert "| ODIN | wrn | mean of the sets here |" in sr and "| Mahalanobis | wrn | mean of the sets here |" in sr


def test_sweep_sees_no_ood_set(ready):
    out = ready.run("reproduce.py cifar10 --sweep", prelude="import utils.paper.studies; utils.paper.studies.ALPHAS = (0.0, 0.05)")
    assert out.status == 0, out.err
    record = json.loads((ready.results / "cifar10_sweep_alpha.json").read_text())
    assert [row["alpha"] for row in record["rows"]] == [0.0, 0.05] and record["recommended"] in (0.0, 0.05)
    assert not {ood["name"] for ood in record["ood"]} & set(OOD) and record["id"]["images"] == 6
    assert (ready.root / "CIFAR" / "figures" / "cifar10_sweep_alpha.png").exists()
    assert not list((ready.snapshots / "pretrained").glob("replaced*"))
    assert "sweep" not in ready.run("test.py --model cifar10_wrn_s1_tune --score msp").out    # its snapshots are no one's by name


def test_an_interrupted_sweep_goes_on_where_it_stopped(ready):
    place = next((ready.snapshots / "sweep").glob("*_alpha_0.05"))
    whole = (place / "cifar10_wrn_s1_tune_epoch_1.pt").read_bytes()
    folder = ready.root / "data" / "cache" / place.name.removesuffix("_alpha_0.05")
    tune = f"tune.py cifar10 --id {folder} --alpha 0.05 --epochs 2 --save {place}"
    assert ready.run(tune, prelude=stop_at_step("SIGKILL", 2)).status == -9    # one step an epoch
    (place / "cifar10_wrn_s1_tune_epoch_1.pt").unlink(missing_ok=True)
    out = ready.run("reproduce.py cifar10 --sweep", prelude="import utils.paper.studies; utils.paper.studies.ALPHAS = (0.0, 0.05)")
    assert out.status == 0, out.err
    assert out.out.count("$ python tune.py") == 1 and "resuming cifar10_wrn_s1_tune at epoch 1 of 2" in out.out
    assert (place / "cifar10_wrn_s1_tune_epoch_1.pt").read_bytes() == whole


def test_recommended_alpha_is_accurate_and_of_alphas_that_noise_cannot_tell_apart_the_one_with_the_highest_auroc():
    rows = [{"alpha": alpha, "accuracy": accuracy, "fpr95": fpr95, "auroc": auroc} for alpha, accuracy, fpr95, auroc in
            ((0.0, 90.0, 50.0, 80.0), (0.01, 89.6, 49.0, 81.0), (0.02, 89.6, 49.4, 82.0), (0.05, 89.8, 49.6, 90.0), (0.1, 89.4, 30.0, 95.0))]
    assert studies.recommend(rows) == 0.02


def test_ablation_changes_one_thing_at_a_time_and_shows_whole_runs(ready):
    assert ready.run("tune.py cifar10 --preset code --epochs 1 --save ./snapshots/tune_sr_code").status == 0
    out = ready.run("reproduce.py cifar10 --ablation", prelude="""import utils.paper.ablation as a
a.VARIANTS = {"SR": {"alpha": 0.05}, "without dropout": {"droprate": 0.0}}""")
    assert out.status == 0, out.err
    before, sr, still, *whole = json.loads((ready.results / "cifar10_ablation.json").read_text())["rows"]
    assert [before["name"], sr["name"], still["name"]] == ["before", "SR", "without dropout"] and still["changes"] == {"droprate": 0.0}
    assert whole[-1]["name"].startswith("whole run of SR, 1 epochs of 60 images, padding 0") and whole[-1]["changes"] == {"padding": 0}
    assert {row["set"] for row in before["sets"]} == set(OOD) and len({row["snapshot"] for row in (before, sr, still, whole[-1])}) == 4


def test_an_unfinished_run_is_not_measured(ready):
    path = ready.snapshots / "tune_sr" / "cifar10_wrn_s1_tune_epoch_1.json"
    text = path.read_text()
    path.write_text(text.replace('"epoch": 1,', '"epoch": 0,'))
    out = ready.run("reproduce.py cifar10 --table srf4")
    path.write_text(text)
    assert out.status == 0 and "tune_sr/cifar10_wrn_s1_tune_epoch_1 is not of a whole run; its rows are not measured" in out.err
    assert "$ python test.py --model tune_sr" not in out.out


def test_what_was_made_of_other_images_or_outliers_is_made_again(make_project, tmp_path):
    project, own = make_project(), write_own(tmp_path / "own")
    np.savez(own / "outliers.npz", images=noise(50, 8, 3))
    tune = f"tune.py own --id {own} --loss sroe --outliers {own}/outliers.npz --epochs 2 --batch_size 24 --oe_batch_size 24"
    project.do(f"baseline.py own --id {own} --epochs 1 --layers 10 --widen-factor 1")
    project.run(tune, prelude=stop_at_step("SIGKILL", 4))
    state = torch.load(project.snapshots / "tune_sroe" / "own_wrn_s1_tune.resume.pt", weights_only=True)
    sources = {name: state[name] for name in ("data", "parent", "outliers")}
    assert run.goes_on(project.snapshots / "tune_sroe", "own_wrn_s1_tune", {"epochs": 2}, sources)
    project.do(tune + " --resume")
    file = project.snapshots / "tune_sroe" / "own_wrn_s1_tune_epoch_1.pt"
    assert methods.is_of(file, {"epochs": 2, "loss": "sroe"}, sources) and not methods.is_of(file, {"epochs": 3}, sources)
    project.run(tune, prelude=stop_at_step("SIGKILL", 4))
    for name in sources:
        assert not methods.is_of(file, {"epochs": 2}, {**sources, name: "another"}), name
        assert not run.goes_on(project.snapshots / "tune_sroe", "own_wrn_s1_tune", {"epochs": 2}, {**sources, name: "another"}), name
