"""Options of the training scripts: which loss has which, what --resume takes up again,
and two runs of one name.
"""

import json

import numpy as np
import pytest
import torch
from conftest import noise, stop_at_step, write_own

import tune
from utils.losses import LOSSES, losses_of
from utils.training import settled

SMALL = "--layers 10 --widen-factor 1 --batch_size 16 --device cpu"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = write_own(tmp_path_factory.mktemp("own"))
    np.savez(folder / "outliers.npz", images=noise(50, 8, 3))
    return folder


@pytest.fixture(scope="module")
def ready(make_project, own):
    """A project with a pre-trained network of images of one's own."""
    project = make_project()
    project.do(f"baseline.py own --id {own} --epochs 1 {SMALL}")
    return project


def description(project, folder, stem):
    (file,) = (project.snapshots / folder).glob(f"{stem}*_epoch_*.json")
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    "loss, option",
    [
        ("oe", "--alpha 0.1"),
        ("energy", "--alpha 0.1"),
        ("sr", "--beta 0.1"),
        ("sr", "--m_in -20"),
        ("sroe", "--m-out -5"),
        ("oe", "--l1-on all"),
        ("sr", "--outliers X"),
        ("sr", "--oe_batch_size 8"),
        ("sr", "--outlier-norm imagenet"),
        ("sr", "--outlier-padding 0"),
    ],
)
def test_an_option_that_the_loss_does_not_have_is_refused(loss, option, ready, own):
    name = option.split()[0].replace("-", "_").replace("__", "--")
    words = [
        f"{name} is not an option of --loss {loss}",
        *(f"--{key}" for key in LOSSES[loss].defaults),
    ]
    ready.refuse(f"tune.py own --id {own} --loss {loss} {option} --epochs 1", *words)


@pytest.mark.parametrize(
    "loss, option, words",
    [
        ("sr", "--alpha -1", ["alpha -1"]),
        ("oe", "--beta -0.5", ["beta -0.5"]),
        ("energy", "--m_in inf", ["m_in inf"]),
        ("sroe", "--alpha x", ["alpha", "'x'"]),
    ],
)
def test_a_value_out_of_range_is_refused(loss, option, words, ready, own):
    ready.refuse(f"tune.py own --id {own} --loss {loss} {option} --epochs 1", *words)


def test_only_the_losses_own_options_are_recorded(ready, own):
    common = {
        "arch",
        "layers",
        "widen_factor",
        "droprate",
        "epochs",
        "learning_rate",
        "batch_size",
        "momentum",
        "decay",
        "padding",
        "seed",
        "preset",
        "streams",
        "loss",
    }
    outliers = {"oe_batch_size", "outlier_norm", "outlier_padding"}
    for loss, record in losses_of("tune").items():
        words = f"--outliers {own}/outliers.npz --oe_batch_size 8" if record.outliers else ""
        ready.do(
            f"tune.py own --id {own} --loss {loss} --epochs 1 {words} --batch_size 16 --lr 1e-3"
        )
        made = description(ready, f"tune_{loss}", "own_wrn_s1_tune")["recipe"]
        measured = {"auto_margins"} if "m_in" in record.defaults else set()
        own_keys = set(record.defaults) | (outliers if record.outliers else set()) | measured
        assert set(made) == common | own_keys
        padding = 0 if loss in ("sr", "sroe") else 4
        assert made["padding"] == made.get("outlier_padding", padding) == padding


def test_outliers_follow_the_padding_that_is_typed(ready, own):
    command = (
        f"tune.py own --id {own} --loss oe --epochs 1 --outliers {own}/outliers.npz --batch_size 16"
    )
    ready.do(f"{command} --padding 1 --save ./snapshots/a")
    ready.do(f"{command} --padding 1 --outlier-padding 2 --save ./snapshots/b")
    made = [description(ready, folder, "own_wrn_s1_tune")["recipe"] for folder in "ab"]
    assert [(m["padding"], m["outlier_padding"]) for m in made] == [(1, 1), (1, 2)]


def test_dropout_follows_the_network_that_is_fine_tuned(make_project, own):
    project = make_project()
    project.do(f"baseline.py own --id {own} --arch densenet --epochs 1 --batch_size 30")
    file = project.file("pretrained/own_densenet_pretrained_epoch_0.pt")
    project.do(
        f"tune.py own --id {own} --load {file} --epochs 1 --batch_size 30 --save ./snapshots/x"
    )
    made = description(project, "x", "own_densenet_s1_tune")
    assert made["arch"] == made["recipe"]["arch"] == "densenet"
    assert made["droprate"] == made["recipe"]["droprate"] == 0.0


def test_what_was_not_typed_is_resumed_as_it_was(make_project, own, tmp_path):
    """Options of either kind: the recipe's, and places."""
    whole, project = make_project(), make_project()
    given = f"own --id {own} --epochs 2 {SMALL} --lr 0.05 --droprate 0 --decay 0 --padding 1"
    tuned = (
        f"own --loss sroe --outliers {own}/outliers.npz --oe_batch_size 8 --padding 0 --alpha 0 "
        "--epochs 2 --batch_size 16"
    )
    for of, stop in ((whole, None), (project, 6)):
        for script, words in (("baseline.py", given), ("tune.py", f"{tuned} --id {own}")):
            prelude = stop_at_step("SIGKILL", stop) if stop else ""
            assert of.run(f"{script} {words}", prelude=prelude).status == (-9 if stop else 0)
            if stop:
                of.do(
                    f"{script} own --resume" + " --loss sroe" * (script == "tune.py"), cwd=tmp_path
                )
    for folder in ("pretrained", "tune_sroe"):
        assert whole.names(folder) == project.names(folder)
        for name in [n for n in whole.names(folder) if n.endswith(".pt")]:
            a, b = (
                torch.load(of.file(f"{folder}/{name}"), weights_only=True)
                for of in (whole, project)
            )
            assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_same_run_twice_ends_with_its_snapshot(make_project):
    """Identical bytes of the former run must not make the new one's go."""
    project = make_project()
    first = project.do("baseline.py digits --epochs 1 --layers 10")
    second = project.do("baseline.py digits --epochs 1 --layers 10")
    path = second.split("Snapshot: ")[1].strip()
    assert path == first.split("Snapshot: ")[1].strip()
    for name in (
        "digits_wrn_pretrained_epoch_0.pt",
        "digits_wrn_pretrained_epoch_0.json",
        "digits_wrn_pretrained_training_results.csv",
    ):
        assert project.file(f"pretrained/{name}").is_file()
    assert (
        "replaced" in second
        and len(list((project.snapshots / "pretrained" / "replaced").iterdir())) == 1
    )


def test_a_read_only_list_of_folders_stops_nothing(make_project, own, tmp_path):
    project = make_project()
    project.snapshots.mkdir(parents=True)
    (project.snapshots / "folders.txt").mkdir()  # root may write anything but a file over a folder
    project.do(f"baseline.py own --id {own} --epochs 1 {SMALL} --save {tmp_path}/out")
    assert len(list((tmp_path / "out").glob("own_wrn_pretrained_*_epoch_0.pt"))) == 1


def test_greg_is_trained_as_a_user_does(make_project, own):
    """Its epochs' terms are in the log, and its scale and margins are options."""
    project = make_project()
    project.do(f"baseline.py own --id {own} --epochs 1 {SMALL}")
    tune = (
        f"tune.py own --id {own} --loss greg --epochs 2 --outliers {own}/outliers.npz "
        "--oe_batch_size 16 --batch_size 16"
    )
    out = project.do(f"{tune} --m_in -1 --m_out -1")
    assert "| gradient" in out and "| energy" in out
    made = description(project, "tune_greg", "own_wrn_s1_tune")["recipe"]
    assert (made["decay"], made["grad_scale"], made["grad_weight"], made["padding"]) == (
        1e-4,
        "paper",
        1.0,
        4,
    )
    project.do(f"{tune} --grad-scale code --save ./snapshots/x")
    project.refuse(f"{tune} --m_in -5 --m_out -23", "m_in -5 is above m_out -23")
    project.refuse(f"{tune} --alpha 1", "--alpha is not an option of --loss greg")


@pytest.mark.parametrize("loss, option", [("greg+", ""), ("energy", "--sampling clusters")])
def test_outliers_chosen_by_clusters(loss, option, make_project, own):
    project = make_project()
    project.do(f"baseline.py own --id {own} --epochs 1 {SMALL}")
    words = f"--outliers {own}/outliers.npz --batch_size 15 --epochs 1"
    project.do(f"tune.py own --id {own} --loss {loss} {option} --oe_batch_size 16 {words}")
    assert (
        description(project, f"tune_{loss}", "own_wrn_s1_tune")["recipe"]["sampling"] == "clusters"
    )
    project.refuse(
        f"tune.py own --id {own} --loss {loss} {option} --oe_batch_size 4 {words}",
        "12 candidates are fewer than 15",
    )
    project.refuse(
        f"tune.py own --id {own} --loss {loss} {option} {words} --batch_size 60",
        "outliers.npz holds 50 images, fewer than the 60 clusters",
    )


def test_pretraining_with_other_losses(make_project, own):
    project = make_project()
    project.do(f"baseline.py own --id {own} --loss logitnorm --epochs 2 {SMALL}")
    made = description(project, "pretrained_logitnorm", "own_wrn_pretrained")
    assert (made["loss"], made["score"], made["stage"], made["recipe"]["tau"]) == (
        "logitnorm",
        "msp",
        "pretrain",
        0.01,
    )
    greg = (
        f"baseline.py own --id {own} --loss greg+ --epochs 1 {SMALL} "
        f"--outliers {own}/outliers.npz --oe_batch_size 8"
    )
    result = project.run(greg)
    assert result.status == 0 and "| gradient" in result.out
    assert "m_in -25 and m_out -7: margins of CIFAR's" in result.err  # nothing to measure them on
    assert (
        description(project, "pretrained_greg+", "own_wrn_pretrained")["outliers"]["images"] == 50
    )
    project.refuse(f"baseline.py own --id {own} --tau 1", "--tau is not an option of --loss ce")
    project.refuse(
        f"baseline.py own --id {own} --outliers {own}/outliers.npz",
        "--outliers is not an option of --loss ce",
    )
    project.refuse(f"baseline.py own --id {own} --loss logitnorm --tau 0", "tau 0")


@pytest.mark.parametrize(
    "words, outliers", [("", 256), ("-b 8", 16), ("-b 8 --oe_batch_size 256", 256)]
)
def test_outliers_keep_their_ratio_to_id_images_unless_typed(words, outliers, monkeypatch):
    monkeypatch.setattr("utils.loaders.is_there", lambda *given: True)
    args = tune.parse(["cifar10", "--loss", "oe", *words.split()])
    assert settled.settle(args, "tune").recipe["oe_batch_size"] == outliers
