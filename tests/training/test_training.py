"""Training runs: their schedule and files, and that a run that was stopped in any way goes
on as if it never had been.
"""

import csv
import json
import math
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import noise, plain, stop_at_step, write_own

import models
from utils import snapshots, training
from utils.loaders import Batches
from utils.runtime import UserError

# 60 images: 4 steps an epoch; dropout stays 0.3
SMALL = "--layers 10 --widen-factor 1 --batch_size 16 --device cpu"


# ---- schedule, log, evaluation


def test_learning_rate_is_a_cosine_over_all_steps():
    assert training.cosine_lr(0, 100, 0.1) == 0.1
    assert training.cosine_lr(50, 100, 0.1) == pytest.approx((0.1 + 1e-6) / 2)
    assert training.cosine_lr(100, 100, 0.1) == pytest.approx(1e-6)
    rates = [training.cosine_lr(s, 39100, 0.1) for s in range(39100)]  # 100 epochs of CIFAR
    assert rates == sorted(rates, reverse=True) and 1e-6 < rates[-1] < 1.001e-6


def test_the_schedule_runs_through_all_epochs_by_the_step(project, tmp_path):
    rates = tmp_path / "rates"
    own = write_own(tmp_path / "own")
    project.do(
        f"baseline.py rates --id {own} --epochs 2 --lr 0.05 {SMALL}",
        prelude=f"""
import torch
step = torch.optim.SGD.step
def record(self, *a):
    g, = self.param_groups
    values = [repr(g["lr"]), str(g["momentum"]), str(g["weight_decay"]), str(g["nesterov"])]
    open({str(rates)!r}, "a").write(" ".join(values) + "\\n")
    return step(self, *a)
torch.optim.SGD.step = record
""",
    )
    lines = [line.split() for line in rates.read_text().splitlines()]
    assert [float(line[0]) for line in lines] == [training.cosine_lr(s, 8, 0.05) for s in range(8)]
    assert {tuple(line[1:]) for line in lines} == {("0.9", "0.0005", "True")}


def test_step_log_gives_means_and_names_the_first_step_that_is_not_finite(monkeypatch):
    monkeypatch.setattr(training.steps, "CHECK_EVERY", 4)
    log = training.StepLog(first_step=0)
    for i in range(10):
        log.add({"ce": torch.tensor(float(i)), "l1": torch.tensor(1.0)})
    assert log.means() == {"ce": 4.5, "l1": 1.0} and log.seconds > 0
    for bad in (math.nan, math.inf, -math.inf):
        for at in (0, 3, 6, 9):
            log = training.StepLog(first_step=100)
            with pytest.raises(UserError, match=rf"not finite at step {100 + at} \(.*ce {bad}"):
                for i in range(10):
                    log.add({"ce": torch.tensor(bad if i >= at else 1.0), "l1": torch.tensor(1.0)})
                log.means()


def test_evaluation_is_the_mean_over_images_not_over_batches(monkeypatch):
    from utils import loaders

    images = loaders.make_set(noise(10, 8, 0), np.arange(10) % 3, "x")
    weight = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))

    class Linear(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) @ weight, x.mean((2, 3))

    model = Linear()
    whole = training.evaluate(model, Batches(images, 10, "cpu"), torch.device("cpu"), "fp32")
    parts = training.evaluate(model, Batches(images, 3, "cpu"), torch.device("cpu"), "fp32")
    x, y = next(iter(Batches(images, 10, "cpu")))
    logits = model(x)[0]
    assert whole == pytest.approx(parts) and not model.training
    assert whole[0] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, y)))
    assert whole[1] == pytest.approx(100 * float((logits.argmax(1) != y).float().mean()))


# ---- the files of a run


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """--id folder of 3 classes, and outliers beside it."""
    folder = write_own(tmp_path_factory.mktemp("own"))
    np.savez(folder / "outliers.npz", images=noise(50, 8, 3))
    np.savez(folder / "others.npz", images=noise(50, 8, 4))
    return folder


@pytest.fixture(scope="module")
def baseline(own):
    return f"baseline.py own --id {own} --epochs 3 {SMALL}"


@pytest.fixture(scope="module")
def tune(own):
    return (
        f"tune.py own --id {own} --loss sroe --epochs 3 --outliers {own}/outliers.npz "
        f"--oe_batch_size 24 --lr 0.01 {SMALL}"
    )


@pytest.fixture(scope="module")
def whole(make_project, baseline, tune):
    """A project in which both stages ran without interruption."""
    project = make_project()
    project.do(baseline)
    project.do(tune)
    return project


def weights(project, folder):
    """{name of a .pt file: its state_dict} of a folder of snapshots and of the runs
    in it that have not ended.
    """
    place = project.snapshots / folder
    return {
        plain(file.name): torch.load(file, weights_only=True)
        for file in [*place.glob("*.pt"), *place.glob("*.run/*.pt")]
    }


def in_run(project, folder):
    """Sorted plain file names in the folder of the run that has not ended."""
    return sorted(plain(file.name) for file in (project.snapshots / folder).glob("*.run/*"))


def table(project, folder):
    """Rows of the folder's only CSV."""
    (file,) = (project.snapshots / folder).glob("*.csv")
    return list(csv.DictReader(file.open()))


def assert_same_run(a, b, folder):
    assert a.names(folder) == b.names(folder)
    left, right = weights(a, folder), weights(b, folder)
    for name in left:
        assert all(
            torch.equal(left[name][key], right[name][key]) for key in {*left[name], *right[name]}
        ), name
    rows = [
        [{key: value for key, value in row.items() if key != "time(s)"} for row in table(p, folder)]
        for p in (a, b)
    ]
    assert rows[0] == rows[1]


def test_names_of_files_and_columns(whole):
    assert whole.names("pretrained") == [
        f"own_wrn_pretrained_{end}"
        for end in ("best.json", "best.pt", "epoch_2.json", "epoch_2.pt", "training_results.csv")
    ]
    assert whole.names("tune_sroe") == [
        f"own_wrn_s1_tune_{end}"
        for end in ("best.json", "best.pt", "epoch_2.json", "epoch_2.pt", "training_results.csv")
    ]
    columns = ["epoch", "time(s)", "train_loss", "test_loss", "test_error(%)"]
    rows = table(whole, "pretrained")
    assert list(rows[0]) == columns and [row["epoch"] for row in rows] == ["0", "1", "2"]
    rows = table(whole, "tune_sroe")
    assert list(rows[0]) == columns + ["ce", "l1", "oe"]
    for row in rows:
        assert float(row["train_loss"]) == pytest.approx(
            sum(float(row[t]) for t in ("ce", "l1", "oe")), abs=2e-6
        )


def test_best_is_the_epoch_of_least_test_error(whole):
    for folder in ("pretrained", "tune_sroe"):
        errors = [float(row["test_error(%)"]) for row in table(whole, folder)]
        (file,) = (whole.snapshots / folder).glob("*_best.json")
        best = json.loads(file.read_text())
        assert best["epoch"] == errors.index(min(errors))
        assert best["id_accuracy"] == pytest.approx(100 - min(errors), abs=0.01)


def test_the_description_says_what_made_the_snapshot(whole, own):
    pretrained = json.loads(whole.file("pretrained/own_wrn_pretrained_epoch_2.json").read_text())
    tuned = json.loads(whole.file("tune_sroe/own_wrn_s1_tune_epoch_2.json").read_text())
    for d in (pretrained, tuned):
        assert (d["arch"], d["layers"], d["widen_factor"], d["num_classes"], d["dataset"]) == (
            "wrn",
            10,
            1,
            3,
            "own",
        )
        assert (d["train_images"], d["image_size"], d["epoch"], d["seed"]) == (60, 8, 2, 1)
        assert d["recipe"]["epochs"] == 3 and d["recipe"]["batch_size"] == 16
    assert (
        tuned["parent"] == "own_wrn_pretrained_b16_epochs3_layers10_widen1_epoch_2.pt"
        and tuned["parent_sha256"] == pretrained["sha256"]
    )
    assert tuned["loss"] == "sroe" and tuned["outliers"]["images"] == 50


def test_training_learns(make_project, own):
    project = make_project()
    project.do(f"baseline.py own --id {own} --epochs 12 {SMALL}")
    # three classes: chance is 67 %
    assert float(table(project, "pretrained")[-1]["test_error(%)"]) < 20


def test_seeds_change_the_run_and_the_same_seed_repeats_it(whole, make_project, baseline):
    again, other = make_project(), make_project()
    again.do(baseline + " --deterministic")  # which changes nothing on a CPU
    assert_same_run(again, whole, "pretrained")
    other.do(baseline + " --seed 2")
    a, b = weights(other, "pretrained"), weights(whole, "pretrained")
    assert not torch.equal(
        a["own_wrn_s2_pretrained_epoch_2.pt"]["fc.weight"],
        b["own_wrn_pretrained_epoch_2.pt"]["fc.weight"],
    )


# ---- stopped and resumed


def stop_at_write(which):
    """Killed instead of the which-th rename or removal of a file."""
    return f"""
import os, pathlib, signal
count = []
def watch(real):
    def call(*a, **k):
        count.append(1)
        if len(count) == {which}: os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **k)
    return call
os.replace, os.rename, pathlib.Path.unlink = watch(os.replace), watch(os.rename), watch(pathlib.Path.unlink)
"""


@pytest.mark.parametrize("step", [1, 3, 5, 8, 12])
def test_killed_within_an_epoch(step, make_project, whole, baseline):
    project = make_project()
    assert project.run(baseline, prelude=stop_at_step("SIGKILL", step)).status == -9
    assert f"resuming own_wrn_pretrained at epoch {(step - 1) // 4} of 3" in project.do(
        baseline + " --resume"
    )
    assert_same_run(project, whole, "pretrained")


@pytest.fixture(scope="module")
def short(baseline):
    return baseline.replace("--epochs 3", "--epochs 2")


@pytest.fixture(scope="module")
def whole_short(make_project, short):
    project = make_project()
    project.do(short)
    return project


def test_killed_at_any_write(make_project, whole_short, short):
    """Whatever file is being written or removed at that moment:
    all there is stays readable, and the run can go on.
    """
    project, which = make_project(), 1
    # before the first state there is nothing
    assert project.run(short, prelude=stop_at_write(1)).status == -9
    project.refuse(short + " --resume", "nothing to resume")
    while True:  # every third write; hostile/test_kills.py has every one
        shutil.rmtree(project.snapshots)
        which += 3
        status = project.run(short, prelude=stop_at_write(which)).status
        if status == 0:
            break
        assert status == -9 and all(weights(project, "pretrained").values())
        project.do(short + " --resume")
        assert_same_run(project, whole_short, "pretrained")
    assert which > 20


@pytest.mark.parametrize("step", [2, 6])
def test_tuning_with_outliers_killed(step, make_project, whole, tune):
    project = make_project()
    shutil.copytree(whole.snapshots / "pretrained", project.snapshots / "pretrained")
    assert project.run(tune, prelude=stop_at_step("SIGKILL", step)).status == -9
    project.do(tune + " --resume")
    assert_same_run(project, whole, "tune_sroe")


def test_dal_goes_on_with_the_price_of_its_shifts(make_project, whole, tune):
    """The one number of it that goes from step to step is in the state, and in no snapshot."""
    projects = make_project(), make_project()
    for project in projects:
        shutil.copytree(whole.snapshots / "pretrained", project.snapshots / "pretrained")
    command = tune.replace("--loss sroe --epochs 3", "--loss dal --epochs 2")
    command += " --rho 0 --gamma_rate 0.5 --strength 0.1"
    assert "| dal" in projects[0].do(command)
    assert projects[1].run(command, prelude=stop_at_step("SIGKILL", 6)).status == -9
    (file,) = (projects[1].snapshots / "tune_dal").glob("*.run/*.resume.pt")
    state = torch.load(file, weights_only=True)
    assert state["head"]["gamma"] > 0.02  # the start is 0.01
    projects[1].do(command + " --resume")
    assert_same_run(*projects, "tune_dal")
    assert set(table(projects[0], "tune_dal")[0]) >= {"ce", "dal"}
    assert not any("gamma" in key for w in weights(projects[0], "tune_dal").values() for key in w)
    projects[0].refuse(f"{tune} --loss dal --ascent_steps 0", "ascent_steps 0 is not at least 1")


@pytest.mark.parametrize("step", [1, 7])
def test_ctrl_c_says_how_to_go_on(step, make_project, whole, baseline):
    project = make_project()
    result = project.run(baseline, prelude=stop_at_step("SIGINT", step))
    assert result.status == 130 and "Traceback" not in result.err
    (message,) = result.err.strip().splitlines()
    assert (
        message.startswith("baseline.py: interrupted.")
        and f"after epoch {(step - 1) // 4}" in message
    )
    command = shlex.split(re.search(r"Go on with: python (.*)", message).group(1))
    assert command[-1] == "--resume"
    project.do([command[0].rsplit("/", 1)[-1], *command[1:]])
    assert_same_run(project, whole, "pretrained")


@pytest.mark.skipif(not models.has_kernels(), reason="no C++ compiler here")
def test_resuming_by_other_means_says_so(make_project, baseline):
    project = make_project()
    project.run(baseline, prelude=stop_at_step("SIGKILL", 6))
    other = "import torch; torch.set_num_threads(2)"
    result = project.run(baseline + " --resume --compile off", prelude=other)
    fused, threads = result.err.splitlines()
    assert result.status == 0
    assert fused.startswith("note: the interrupted run had fused True, this one has False")
    assert threads.startswith("note: the interrupted run had threads 1, this one has 2")
    made = json.loads(project.file("pretrained/own_wrn_pretrained_epoch_2.json").read_text())
    assert (
        made["computed"]["device"] == "cpu"
        and made["computed"]["precision"] in ("fp32", "bf16")
        and made["computed"]["fused"] is False
        and made["computed"]["threads"] == 2
    )


def test_interrupted_twice(make_project, whole, baseline):
    project = make_project()
    project.run(baseline, prelude=stop_at_step("SIGKILL", 6))
    project.run(baseline + " --resume", prelude=stop_at_step("SIGINT", 2))
    project.do(baseline + " --resume")
    assert_same_run(project, whole, "pretrained")


def test_a_finished_run_has_nothing_to_resume(whole, baseline, tune):
    whole.refuse(baseline + " --resume", "nothing to resume", "epoch_2 is of a run that has ended")
    whole.refuse(tune + " --resume", "nothing to resume")


@pytest.fixture(scope="module")
def stopped(make_project, baseline, tune):
    """A project with both stages stopped in their second epoch;
    the pre-training in a folder called again.
    """
    project = make_project()
    project.do(baseline)
    project.run(tune, prelude=stop_at_step("SIGKILL", 6))
    project.run(baseline + " --save ./snapshots/again", prelude=stop_at_step("SIGKILL", 6))
    return project


OTHER = [
    "--epochs 4",
    "--lr 0.2",
    "--batch_size 32",
    "--momentum 0.8",
    "--decay 0",
    "--seed 2",
    "--droprate 0",
    "--layers 16",
    "--widen-factor 2",
    "--padding 1",
    "--precision bf16",
    "--arch resnet18",
]


@pytest.mark.parametrize("option", OTHER)
def test_resuming_with_other_options_is_refused(option, stopped, baseline):
    stopped.refuse(
        f"{baseline} {option} --save ./snapshots/again --resume",
        "the interrupted run" if "arch" not in option else "nothing to resume",
    )


def test_resuming_with_other_images_is_refused(stopped, baseline, own, tmp_path):
    other = write_own(tmp_path / "other", train=63)
    stopped.refuse(
        baseline.replace(str(own), str(other)) + " --save ./snapshots/again --resume",
        "other images",
    )


@pytest.mark.parametrize(
    "option,word",
    [
        ("--alpha 1", "alpha"),
        ("--beta 1", "beta"),
        ("--oe_batch_size 8", "oe_batch_size"),
        ("--l1-on all", "l1_on"),
        ("--outlier-norm imagenet", "outlier_norm"),
        ("--outlier-padding 1", "outlier_padding"),
        ("--preset code", "the interrupted run"),
        ("--outliers OWN/others.npz", "other outliers"),
        ("--load", "other pre-trained weights"),
    ],
)
def test_resuming_tuning_with_other_options_is_refused(option, word, stopped, tune, own):
    option = option.replace("OWN", str(own))
    if "load" in option:  # another file, though of the same network
        # the same predictions, so that nothing is said of its error
        best = weights(stopped, "pretrained")["own_wrn_pretrained_best.pt"]
        state = {n: 2 * v if n.startswith("fc.") else v for n, v in best.items()}
        torch.save(state, own / "own_wrn_pretrained_epoch_0.pt")
        option = f"--load {own}/own_wrn_pretrained_epoch_0.pt"
    stopped.refuse(f"{tune} {option} --resume", word)


def test_a_broken_state_is_refused(make_project, baseline):
    project = make_project()
    project.run(baseline, prelude=stop_at_step("SIGKILL", 6))
    (state,) = (project.snapshots / "pretrained").glob("*.run/*.resume.pt")
    whole = state.read_bytes()
    for content in (whole[:-100], b"", b"x"):
        state.write_bytes(content)
        project.refuse(baseline + " --resume", plain(state.name))


# ---- twice in a row


def test_running_twice_loses_nothing(make_project, baseline):
    project = make_project()
    folder = project.snapshots / "pretrained"
    project.do(baseline)
    first = {file.name: file.read_bytes() for file in folder.glob("*") if file.is_file()}
    for other in (baseline.replace("--epochs 3", "--epochs 2"), baseline + " --seed 2"):
        assert "replaced" not in project.do(other)  # it has a name of its own
        assert (
            first.items()
            <= {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}.items()
        )
    assert "own_wrn_s2_pretrained_epoch_2.pt" in project.names("pretrained")
    assert "replaced" in project.do(baseline)
    (kept,) = (folder / "replaced").iterdir()
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == first


def test_until_the_new_run_has_a_snapshot_the_former_stays(make_project, baseline, own):
    project = make_project()
    project.do(baseline)
    before = project.names("pretrained")
    project.run(baseline, prelude=stop_at_step("SIGKILL", 3))
    assert project.names("pretrained") == before and in_run(project, "pretrained") == [
        "own_wrn_pretrained.resume.pt"
    ]
    assert "own_wrn_pretrained_epoch_2" in project.do(
        f"test.py -m own_wrn_pretrained --ood gaussian --id {own}"
    )
    project.do(baseline + " --resume")
    assert project.names("pretrained") == before


def test_a_new_run_in_the_place_of_an_interrupted_one(make_project, whole, baseline):
    project = make_project()
    project.run(baseline, prelude=stop_at_step("SIGKILL", 10))
    before = project.files()
    result = project.run(baseline, prelude=stop_at_step("SIGINT", 2))  # --resume was forgotten
    assert (
        result.status == 130
        and "is as it was; --resume goes on with it" in result.err
        and "an interrupted run of own_wrn_pretrained was there" in result.out
    )
    assert project.files() == before
    result = project.run(
        baseline,
        prelude="import torch\ndef fail(*a): raise RuntimeError('what nobody thought of')\n"
        "torch.optim.SGD.step = fail",
    )
    assert result.status != 0 and project.files() == before
    project.do(baseline + " --resume")
    assert_same_run(project, whole, "pretrained")


def test_memory_that_is_not_enough(make_project, baseline):
    project = make_project()
    for error in (
        "MemoryError()",
        "torch.OutOfMemoryError('CUDA out of memory. Tried to allocate')",
        'RuntimeError("DefaultCPUAllocator: can\'t allocate memory")',
    ):
        prelude = f"import torch\ndef fail(self, *a): raise {error}\ntorch.optim.SGD.step = fail"
        project.refuse(baseline, "out of memory", "--batch_size", prelude=prelude)
    assert (
        "Traceback"
        in project.run(
            baseline,
            prelude="import torch\ndef fail(self, *a): raise RuntimeError('a bug')\n"
            "torch.optim.SGD.step = fail",
        ).err
    )


def test_a_batch_of_one_image_that_batch_norm_cannot_train_on(make_project, own):
    make_project().refuse(
        f"baseline.py own --id {own} --epochs 1 --arch resnet18 --batch_size 59",
        "one image",
        "--batch_size",
    )


# ---- not finite


def test_a_loss_that_is_not_finite_stops_with_its_step_and_harms_nothing(make_project, baseline):
    project = make_project()
    project.refuse(baseline + " --lr 1e30", "not finite at step", "--learning_rate")
    assert not list(project.snapshots.rglob("*.pt"))
    project.do(baseline)
    project.refuse(baseline + " --lr 1e30", "not finite at step", "kept")
    project.run(baseline + " --seed 3", prelude=stop_at_step("SIGKILL", 3))
    # and the interrupted run is still there
    project.refuse(baseline + " --lr 1e30", "not finite at step")
    project.do(baseline + " --seed 3 --resume")


def test_weights_that_the_last_step_spoilt_are_not_saved(make_project, baseline):
    project = make_project()
    project.refuse(
        baseline.replace("--batch_size 16", "--batch_size 60") + " --lr 1e38",
        "not finite",
        "step 1",
    )


def test_the_last_good_snapshot_is_kept(make_project, baseline):
    project = make_project()
    result = project.run(
        baseline,
        prelude="""
import torch
real, count = torch.nn.functional.cross_entropy, []
def broken(logits, y, **k):
    count.append(logits.requires_grad)
    return real(logits, y, **k) * (float("nan") if sum(count) == 7 else 1)
torch.nn.functional.cross_entropy = broken
""",
    )
    assert (
        result.status == 2
        and len(result.err.splitlines()) == 1
        and "not finite at step 6" in result.err
    )
    assert {"own_wrn_pretrained_epoch_0.pt", "own_wrn_pretrained_best_epoch_0.pt"} <= set(
        in_run(project, "pretrained")
    )
    project.do(baseline + " --resume")


# ---- a full disk


def full_at(which):
    return f"""
import errno, os
real, count = os.fsync, []
def full(handle):
    count.append(1)
    if len(count) >= {which}: raise OSError(errno.ENOSPC, "No space left on device")
    return real(handle)
os.fsync = full
"""


def test_a_full_disk_at_any_write_leaves_a_run_that_can_go_on(make_project, whole_short, short):
    project, which = make_project(), 0
    while True:
        which += 1
        result = project.run(short, prelude=full_at(which))
        if result.status == 0:
            break
        assert (
            result.status == 2
            and len(result.err.splitlines()) == 1
            and "disk is full" in result.err
        )
        assert not [f for f in project.snapshots.rglob(".*") if f.is_file()], (
            "a temporary file was left"
        )
        for file in project.snapshots.rglob("*_*.pt"):
            assert "resume" in file.name or snapshots.load_model(file)
        state = "own_wrn_pretrained.resume.pt" in in_run(project, "pretrained")
        project.do(short + " --resume" * state)
        assert_same_run(project, whole_short, "pretrained")
        shutil.rmtree(project.snapshots)
    assert which > 9


def test_a_disk_that_is_really_full(make_project, baseline, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    ).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        project = make_project()
        # a snapshot of 317 KB, a best and a state of 0.6 MB
        result = project.run(f"{baseline} --save {disk}")
        assert (
            result.status == 2
            and len(result.err.splitlines()) == 1
            and "the disk is full" in result.err
        )
        assert result.err.count(str(disk)) and not [f for f in disk.rglob(".*") if f.is_file()]
        for file in disk.rglob("*.pt"):
            assert torch.load(file, weights_only=True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- where fine-tuning starts


def test_the_parents_shape_is_believed_over_the_defaults_but_not_over_what_was_asked(whole, own):
    tune = f"tune.py own --id {own} --epochs 1 --batch_size 16"  # the default would be a WRN-40-2
    assert "Snapshot" in whole.do(tune + " --save ./snapshots/x")
    whole.refuse(tune + " --layers 16", "another network", "layers is 10, not 16")
    whole.refuse(tune + " --widen-factor 3", "another network", "widen_factor")
    whole.refuse(
        tune + " --arch resnet18 --load own_wrn_pretrained", "another network", "arch is wrn"
    )
    whole.refuse(tune + " --arch resnet18", "own_resnet18_pretrained", "not found")


def test_baseline_from_given_weights(make_project, whole, baseline):
    project = make_project()
    shutil.copytree(whole.snapshots / "pretrained", project.snapshots / "pretrained")
    project.do(
        f"{baseline} --load pretrained/own_wrn_pretrained --lr 1e-12 --momentum 0 --save ./snapshots/x"
    )
    a = weights(project, "x")["own_wrn_pretrained_epoch_2.pt"]
    b = weights(whole, "pretrained")["own_wrn_pretrained_epoch_2.pt"]
    assert torch.allclose(a["fc.weight"], b["fc.weight"], atol=1e-4)
    project.refuse(
        f"{baseline.replace('--layers 10', '--layers 16')} --load x/own_wrn_pretrained",
        "another network",
    )
    # what began with given weights is not meant where there is another
    told = project.do(f"{baseline} --load own_wrn_pretrained --seed 2 --save ./snapshots/x")
    assert "from pretrained/own_wrn_pretrained_epoch_2" in told
    project.refuse(f"{baseline} --load nosuch", "snapshot 'nosuch' not found")


def test_a_loss_of_pairs_is_trained_resumed_and_scored_by_its_features(make_project, own):
    """Its head lies in the state alone; energy and fine-tuning have nothing to work with."""
    project, other = make_project(), make_project()
    command = f"baseline.py own --id {own} --loss reweightood {SMALL} --epochs 2"
    project.do(command)
    other.run(command, prelude=stop_at_step("SIGKILL", 6))
    other.do(command + " --resume")
    assert_same_run(project, other, "pretrained_reweightood")
    (weights_file,) = (project.snapshots / "pretrained_reweightood").glob("*_epoch_1.pt")
    made = json.loads(weights_file.with_suffix(".json").read_text())
    assert made["classifier"] is False and made["score"] == "mahalanobis++"
    state = torch.load(weights_file, weights_only=True)
    assert not any("projection" in name or name[0].isdigit() for name in state)
    rows = state["fc.weight"].norm(dim=1)
    torch.testing.assert_close(rows, torch.ones_like(rows))  # class means of length 1
    test = f"test.py --model {weights_file} --id {own} --ood gaussian"
    project.refuse(f"{test} --score energy", "needs a classifier", "knn, mahalanobis++")
    assert "mahalanobis++" in project.do(f"{test} --score knn:k=2,mahalanobis++")
    project.refuse(f"tune.py own --id {own} --load {weights_file}", "without a classifier")
    project.do(f"baseline.py own --id {own} {SMALL} --epochs 1 --load {weights_file}")


def test_fine_tuning_begins_with_the_parents_weights(make_project, own):
    """With next to no learning rate the network is still the parent's, not a new one."""
    project = make_project()
    project.do(f"baseline.py own --id {own} {SMALL} --epochs 1")
    project.do(f"tune.py own --id {own} --epochs 1 --learning_rate 1e-9 --batch_size 16")
    before, after = (
        torch.load(next((project.snapshots / folder).glob("*_epoch_0.pt")), weights_only=True)
        for folder in ("pretrained", "tune_sr")
    )
    for name, value in before.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(after[name], value, atol=1e-3, rtol=0)
