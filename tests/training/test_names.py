"""What departs from the recipe is in a run's name, and names without it find the run."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

import baseline
from utils import snapshots
from utils.runtime import UserError
from utils.training import files, meant, names, recipes, settled


def name(stage, dataset="cifar10", loss=None, parent=None, given=(), preset="paper", **changes):
    loss = loss or ("sr" if stage == "tune" else "ce")
    recipe = recipes.resolve(stage, dataset, loss, preset) | {"preset": preset} | changes
    folder = f"tune_{loss}" if stage == "tune" else "pretrained"
    given = {"save": folder, **dict(given)}
    return names.stem_of(names.Made(stage, dataset, loss, recipe, given, parent))


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


def test_the_recipe_of_given_weights_departs_from_nothing(tmp_path):
    file = tmp_path / "x_epoch_4.pt"
    for new_head, rate, word in ((False, 1e-3, ""), (True, 1e-2, "_new-head")):
        given = {"given": {"new_head": new_head}, "parent": file}
        stem = name("pretrain", **given, learning_rate=rate, epochs=10)
        assert stem == f"cifar10_wrn_pretrained_load-x{word}"
        assert "lr0.1" in name("pretrain", **given, epochs=10)


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


def test_what_a_hash_in_a_name_stands_for_is_printed(capsys):
    changes = "-e 3 -lr 0.05 -b 32 --momentum 0.8 --decay 0.1 --padding 3"
    told = "b32, decay0.1, epochs3, lr0.05, momentum0.8, padding3"
    for words, wanted in (("-e 3 -lr 0.05", ""), (changes, told)):
        stem = baseline.settle(baseline.parse(["digits", *words.split()]))[0].stem
        out = capsys.readouterr().out
        if wanted:
            short, _, meaning = out.partition(" stands for ")
            assert meaning.strip() == wanted and stem.endswith(short.split()[-1])
        else:
            assert out == "" and stem == "digits_wrn_pretrained_epochs3_lr0.05"


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
    (place / "own_wrn_pretrained_lr0.1_momentum0_epoch_4.pt").touch()  # the beginning is enough
    assert found("own_wrn_pretrained_lr0.1") == ["own_wrn_pretrained_lr0.1_momentum0_epoch_4"]
    for none in ("own_wrn", "own_wrn_pretrained_lr0", "own_wrn_pretrained_momentum0"):
        with pytest.raises(UserError, match="not found"):
            found(none)


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


def test_a_run_from_given_weights_is_not_what_its_own_load_means(place):
    """A loop over seeds of --load cifar10_wrn_pretrained begins with the same weights each time."""
    provided = place.parent / "provided" / "pretrained" / "own_wrn_pretrained_epoch_9.pt"
    (place / "own_wrn_pretrained_load-own_wrn_pretrained_epoch_4.pt").touch()
    for seed in ("", "_s2"):
        name = f"own_wrn{seed}_pretrained"
        (place / f"{name}_load-own_wrn_pretrained_epoch_4.pt").touch()
        assert found(name) == [f"{name}_load-own_wrn_pretrained_epoch_4"]  # nothing else is there
    hashed = place / "own_wrn_pretrained_4-changes-8d3a0b1c_epoch_2.pt"
    hashed.touch()
    about = {"arch": "wrn", "stage": "pretrain", "parent": provided.name}
    hashed.with_suffix(".json").write_text(json.dumps(about))
    provided.touch()
    assert found("own_wrn_pretrained") == [provided.stem]
    (place / "own_wrn_pretrained_epochs3_epoch_2.pt").touch()
    assert found("own_wrn_pretrained") == ["own_wrn_pretrained_epochs3_epoch_2"]
    args = Namespace(dataset="own", arch=None, seed=None, load=str(place))
    assert meant.find_given(args, {}).stem == "own_wrn_pretrained_epochs3_epoch_2"


def test_what_an_interrupted_run_began_with_is_known_by_its_weights(place):
    """Its name may mean another run by now."""
    for stem, letter in (("own_wrn_pretrained_b8", "a"), ("own_wrn_pretrained", "b")):
        file = place / f"{stem}_epoch_4.pt"
        file.touch()
        file.with_suffix(".json").write_text(json.dumps({"arch": "wrn", "sha256": letter * 64}))
    args = Namespace(dataset="own", arch=None, seed=None, load="own_wrn_pretrained")
    for find in (meant.find_given, meant.find_parent):
        assert find(args, {}).stem == "own_wrn_pretrained_epoch_4"
        state = {"parent": "a" * 64, "given": {"load": args.load}}
        assert find(args, state).stem == "own_wrn_pretrained_b8_epoch_4"
        assert find(args, state | {"parent": "c" * 64}).stem == "own_wrn_pretrained_epoch_4"
        # another one was typed than the run had, which then says so
        assert find(args, state | {"given": {"load": "x"}}).stem == "own_wrn_pretrained_epoch_4"
        untyped = Namespace(**vars(args) | {"load": None})
        assert find(untyped, state).stem == "own_wrn_pretrained_b8_epoch_4"
    args.load = None
    assert meant.find_given(args, {"recipe": {}}) is None


def test_advice_says_where_images_of_ones_own_are(place):
    for stem, wanted in (
        ("cifar100_wrn_pretrained", "python baseline.py cifar100"),
        ("mine_wrn_s2_pretrained_lr0.05", "python baseline.py mine --id PATH"),
        ("my_own-flowers_resnet18_pretrained", "python baseline.py my_own-flowers --id PATH"),
    ):
        with pytest.raises(UserError) as error:
            snapshots.find_snapshots(stem)
        assert str(error.value).endswith(f"Run: {wanted}")
    with pytest.raises(
        UserError, match="'nosuch' not found.* Run: python baseline.py own --id PATH"
    ):
        meant.find_parent(Namespace(dataset="own", arch=None, seed=None, load="nosuch"), {})
    assert (
        snapshots.training_command("x.py", "cifar10", own=True) == "python x.py cifar10 --id PATH"
    )


def write_state(folder: Path, stem: str, given: dict | None = None, **recipe) -> None:
    state = {
        "given": given or {},
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


@pytest.mark.parametrize("stage", ["pretrain", "tune"])
def test_resume_finds_a_run_whose_network_came_with_the_given_weights(tmp_path, stage):
    loss, ending = ("sr", "tune") if stage == "tune" else ("ce", "pretrained")

    def resumed(**typed):
        given = {"dataset": "own", "arch": None, "seed": None, "loss": loss, "save": str(tmp_path)}
        return meant.find_interrupted(Namespace(**given | typed), stage)[1]

    recipe = recipes.resolve(stage, "own", loss) | {"loss": loss}
    stem = f"own_resnet18_s2_{ending}_load-x"
    write_state(tmp_path, f"own_set_wrn_s1_{ending}", **recipe)  # another data set's
    with pytest.raises(UserError, match="nothing to resume"):
        resumed()
    write_state(tmp_path, stem, {"load": "x"}, **recipe | {"arch": "resnet18", "seed": 2})
    assert resumed() == resumed(load="x") == resumed(load="x", seed=2) == stem
    write_state(tmp_path, f"own_wrn_s1_{ending}", **recipe)
    assert resumed(load="x") == resumed(arch="resnet18") == stem
    assert resumed() == resumed(arch="wrn") == f"own_wrn_s1_{ending}"
    other = f"own_allconv_s1_{ending}"  # the network was typed
    write_state(tmp_path, other, **recipe | {"arch": "allconv"})
    assert resumed() == f"own_wrn_s1_{ending}" and resumed(arch="allconv") == other


def test_every_option_of_a_training_is_in_its_name_or_said_to_change_nothing():
    """An option that is new is in a recipe, or one of those that names know."""
    known = {*meant.BESIDE, *meant.NOT_COMPARED, "id", "skip_bad", "precision", "preset"}
    assert set(settled.OF_A_RUN) <= known
