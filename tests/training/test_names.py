"""What departs from the recipe is in a run's name, and names without it find the run."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from utils import snapshots
from utils.runtime import UserError
from utils.training import files, meant, names, options, recipes


def name(stage, dataset="cifar10", loss=None, parent=None, given=(), preset="paper", **changes):
    loss = loss or ("sr" if stage == "tune" else "ce")
    recipe = recipes.resolve(stage, dataset, loss, preset) | {"preset": preset} | changes
    folder = f"tune_{loss}" if stage == "tune" else "pretrained"
    return names.stem_of(stage, dataset, loss, recipe, {"save": folder, **dict(given)}, parent)


@pytest.mark.parametrize(
    "stage, changes, wanted",
    [
        ("pretrain", {}, "cifar10_wrn_pretrained"),
        ("pretrain", {"test_bs": 7}, "cifar10_wrn_pretrained"),
        ("pretrain", {"seed": 2}, "cifar10_wrn_s2_pretrained"),
        ("pretrain", {"epochs": 3, "seed": 2}, "cifar10_wrn_s2_pretrained_epochs3"),
        ("pretrain", {"learning_rate": 1e-05}, "cifar10_wrn_pretrained_lr1e-05"),
        ("pretrain", {"precision": "bf16"}, "cifar10_wrn_pretrained_bf16"),
        ("pretrain", {"given": {"split": 0.25}}, "cifar10_wrn_pretrained_split0.25"),
        ("pretrain", {"given": {"mean": "0.5,0.5,0.5"}}, "cifar10_wrn_pretrained_mean-0.5-0.5-0.5"),
        (
            "pretrain",
            {"balance": True, "accumulate": 2},
            "cifar10_wrn_pretrained_accumulate2_balance",
        ),
        ("pretrain", {"preset": "quick"}, "cifar10_wrn_pretrained_quick"),
        ("tune", {}, "cifar10_wrn_s1_tune"),
        ("tune", {"seed": 3, "alpha": 0.05, "decay": 0.0}, "cifar10_wrn_s3_tune_alpha0.05_decay0"),
        ("tune", {"layers": 16}, "cifar10_wrn_s1_tune"),  # its parent's
        ("tune", {"loss": "oe", "batch_size": 8, "oe_batch_size": 16}, "cifar10_wrn_s1_tune_b8"),
        ("tune", {"loss": "oe", "oe_batch_size": 16}, "cifar10_wrn_s1_tune_oe16"),
        (
            "tune",
            {"loss": "oe", "given": {"outliers": "svhn"}},
            "cifar10_wrn_s1_tune_outliers-svhn",
        ),
        ("tune", {"loss": "energy", "m_in": -27.0}, "cifar10_wrn_s1_tune_m-in-27"),
        ("tune", {"loss": "sroe", "preset": "code"}, "cifar10_wrn_s1_tune_code"),
        ("tune", {"preset": "code"}, "cifar10_wrn_s1_tune"),  # of SR it is the paper's
        ("tune", {"preset": "quick", "given": {"save": "x/tune_sr_quick"}}, "cifar10_wrn_s1_tune"),
        ("tune", {"given": {"save": "x/tune_sr_quick"}}, "cifar10_wrn_s1_tune_paper"),
        ("tune", {"given": {"save": "mine"}}, "cifar10_wrn_s1_tune"),
        ("tune", {"loss": "energy", "given": {"save": "mine"}}, "cifar10_wrn_s1_tune_energy"),
        ("tune", {"given": {"save": "x/tune_oe"}}, "cifar10_wrn_s1_tune_sr"),
    ],
)
def test_what_departs_is_named(stage, changes, wanted):
    assert name(stage, **changes) == wanted


def test_margins_that_are_to_be_measured_are_not_those_that_were_typed():
    """On images of one's own measuring is the default, and typed margins are a departure."""
    own = {"given": {"id": "x"}, "loss": "energy"}
    assert name("tune", **own, auto_margins=True, m_in=-3.25) == "cifar10_wrn_s1_tune"
    assert name("tune", **own) == "cifar10_wrn_s1_tune_m-in-23_m-out-5"
    assert name("tune", loss="energy", auto_margins=True) == "cifar10_wrn_s1_tune_auto-margins"


def test_names_are_bounded_and_tell_runs_apart(tmp_path):
    many = dict(learning_rate=0.01, batch_size=64, momentum=0.8, droprate=0.125, epochs=3)
    one, other = (name("tune", **many, alpha=alpha) for alpha in (0.1, 0.2))
    assert one != other and one.startswith("cifar10_wrn_s1_tune_6-changes-")
    far = tmp_path / ("a_/ü:" * 30)
    far.mkdir(parents=True)
    long = name("tune", loss="oe", parent=far / f"{'y' * 99}.pt", given={"outliers": str(far)})
    assert len(long) < 120 and not set(long) & set("/ü: ")
    a, b = (name("tune", loss="oe", given={"outliers": f"{place}/out.npz"}) for place in "ab")
    assert a != b  # of one file name, at two places


def test_the_parent_is_named_unless_it_is_the_usual_one(tmp_path):
    for seed, stem, wanted in (
        (1, "pretrained/cifar10_wrn_pretrained", ""),
        (2, "pretrained/cifar10_wrn_s2_pretrained", ""),
        (2, "pretrained/cifar10_wrn_pretrained", "_from-s1"),
        (1, "pretrained/cifar10_wrn_s2_pretrained_epochs3", "_from-s2-epochs3"),
        (1, "pretrained/cifar10_wrn_pretrained_lr0.05", "_from-lr0.05"),
        (1, "pretrained_logitnorm/cifar10_wrn_pretrained", "_from-logitnorm"),
        (1, "else/where", "_from-where-else"),
    ):
        file = tmp_path / f"{stem}_epoch_4.pt"
        assert name("tune", parent=file, seed=seed) == f"cifar10_wrn_s{seed}_tune{wanted}"
    best = tmp_path / "pretrained/cifar10_wrn_pretrained_best.pt"
    assert name("tune", parent=best) == "cifar10_wrn_s1_tune_from-best"
    quick = tmp_path / "pretrained_quick/cifar10_wrn_pretrained_epoch_4.pt"
    given = {"save": "tune_sr_quick"}
    assert name("tune", parent=quick, preset="quick", given=given) == "cifar10_wrn_s1_tune"
    former = tmp_path / "pretrained_s2" / "cifar10_wrn_pretrained_epoch_4.pt"
    former.parent.mkdir()
    former.with_suffix(".json").write_text(json.dumps({"arch": "wrn", "seed": 2}))
    given = {"save": "tune_sr_s2"}
    assert name("tune", parent=former, seed=2, given=given) == "cifar10_wrn_s2_tune"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots.find, "SNAPSHOTS", tmp_path)
    monkeypatch.setattr(snapshots.find, "PROVIDED", tmp_path / "provided")
    monkeypatch.setattr(snapshots.find, "FOLDERS", tmp_path / "folders.txt")
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "provided" / "pretrained").mkdir(parents=True)
    return tmp_path / "pretrained"


def found(text):
    return [file.stem for file in snapshots.find_snapshots(text)]


def test_a_usual_name_finds_one_s_own_runs_that_depart_from_it(place):
    provided = place.parent / "provided" / "pretrained" / "own_wrn_pretrained_epoch_9.pt"
    provided.touch()
    assert found("own_wrn_pretrained") == ["own_wrn_pretrained_epoch_9"]
    for epoch in (3, 4):
        (place / f"own_wrn_pretrained_lr0.05_epoch_{epoch}.pt").touch()
    assert found("own_wrn_pretrained") == ["own_wrn_pretrained_lr0.05_epoch_4"]
    (place / "own_wrn_s2_pretrained_epoch_4.pt").touch()  # another seed is no departure of this
    assert snapshots.find_one(str(place), "own_wrn_pretrained").stem.endswith("lr0.05_epoch_4")
    (place / "own_wrn_pretrained_b8_epoch_4.pt").touch()
    assert len(found("own_wrn_pretrained")) == 2
    for load in ("own_wrn_pretrained", str(place)):
        with pytest.raises(UserError, match=r"several snapshots: .*_b8_.*_lr0\.05_"):
            snapshots.find_one(load, "own_wrn_pretrained")
    (place / "own_wrn_pretrained_epoch_4.pt").touch()
    assert found("own_wrn_pretrained") == ["own_wrn_pretrained_epoch_4"]


def test_fine_tuning_starts_from_the_network_of_its_seed(place):
    for stem in ("own_wrn_pretrained", "own_wrn_s2_pretrained", "own_wrn_s4_pretrained_epochs1"):
        (place / f"{stem}_epoch_4.pt").touch()
    for seed, wanted in ((None, ""), (2, "_s2"), (3, ""), (4, "_s4")):
        args = Namespace(dataset="own", arch=None, seed=seed, load=str(place))
        assert meant.find_parent(args, {}).name.startswith(f"own_wrn{wanted}_pretrained_")
    file = place / "own_wrn_s2_pretrained_epoch_4"
    file.with_suffix(".json").write_text(json.dumps({"arch": "wrn", "sha256": "f" * 64}))
    args = Namespace(dataset="own", arch=None, seed=None, load=str(place))
    assert meant.find_parent(args, {"parent": "f" * 64}).stem == file.name  # an interrupted run's


def write_state(folder: Path, stem: str, **recipe) -> None:
    state = {
        "epoch": -1,
        "optimizer": {"param_groups": [], "state": {}},
        "best": 0,
        "model": {},
        "rows": [],
    }
    (folder / f"{stem}.run").mkdir()
    torch.save(
        {**state, "data": "a", "recipe": recipes.resolve("pretrain", "own") | recipe},
        folder / f"{stem}.run" / f"{stem}.resume.pt",
    )


def test_resume_finds_a_former_versions_run_and_the_one_with_what_was_typed(tmp_path):
    def resumed(**typed):
        given = {"dataset": "own", "arch": None, "seed": None, "loss": "ce", "save": str(tmp_path)}
        return meant.find_interrupted(Namespace(**given | typed), "pretrain")[1]

    with pytest.raises(UserError, match="nothing to resume"):
        resumed()
    write_state(tmp_path, "own_wrn_pretrained", seed=5)  # a former version's
    assert resumed() == resumed(seed=5) == "own_wrn_pretrained"
    write_state(tmp_path, "own_wrn_s2_pretrained", seed=2)
    write_state(tmp_path, "own_wrn_pretrained_lr0.05", learning_rate=0.05)
    write_state(tmp_path, "own_wrn_pretrained_b8_lr0.05", learning_rate=0.05, batch_size=8)
    assert resumed(seed=2) == "own_wrn_s2_pretrained"
    assert resumed(seed=5) == "own_wrn_pretrained"
    assert resumed(learning_rate=0.05) == "own_wrn_pretrained_lr0.05"
    assert resumed(learning_rate=0.05, batch_size=8) == "own_wrn_pretrained_b8_lr0.05"
    assert resumed(batch_size=8) == "own_wrn_pretrained_b8_lr0.05"  # the only one
    with pytest.raises(UserError, match="Type the options of one of them"):
        resumed()
    (tmp_path / "own_wrn_s2_pretrained.run" / "own_wrn_s2_pretrained.resume.pt").write_bytes(b"x")
    assert resumed(seed=5) == "own_wrn_pretrained"
    assert len(files.find_states(tmp_path)) == 4


def test_every_option_of_a_training_is_in_its_name_or_said_to_change_nothing():
    """An option that is new is in a recipe, or one of those that names know."""
    known = {*meant.BESIDE, *meant.NOT_COMPARED, "id", "skip_bad", "precision", "preset"}
    assert set(options.OF_A_RUN) <= known
