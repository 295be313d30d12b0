"""What a snapshot's description or an interrupted run's state names is neither run, nor written to,
nor larger than its weights.
"""

import json
import os
import shutil

import pytest
import torch
from conftest import coloured, stop_at_step, write_images

from utils import snapshots
from utils.runtime import UserError
from utils.training.files import load_state
from utils.training.network import check_given
from utils.training.settled import choose_statistics

SHAPE = "--device cpu --layers 10 --widen-factor 1 --batch_size 10 --epochs 2"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for split, count in (("train", 30), ("test", 15)):
        write_images(folder / split, *coloured(count, 3, 8, seed=count))
    return folder


@pytest.fixture(scope="module")
def killed(make_project, own):
    """(project, folder) of a run that was killed in its second epoch."""
    project = make_project()
    folder = project.root / "runs"
    command = f"baseline.py own --id {own} {SHAPE} --save {folder}"
    assert project.run(command, prelude=stop_at_step("SIGKILL", 5)).status == -9
    return project, folder


def changed_state(killed, tmp_path, change):
    """A copy of the run's folder whose state is another one: (its folder, the state's file)."""
    folder = tmp_path / "copy"
    shutil.copytree(killed[1], folder)
    (file,) = folder.glob("*.run/*.resume.pt")
    state = torch.load(file, weights_only=True)
    for part, values in change.items():
        state[part] = {**state[part], **values}
    torch.save(state, file)
    return folder, file


def test_a_package_of_the_current_folder_is_not_imported(killed, own, tmp_path):
    project, folder = killed
    (file,) = folder.glob("*.run/*pretrained*_best_epoch_0.pt")
    copy = tmp_path / "a.pt"
    shutil.copy(file, copy)
    description = json.loads(file.with_suffix(".json").read_text())
    for package in ("timm", "torchvision"):
        (tmp_path / package).mkdir()
        for module in ("__init__", "models"):
            (tmp_path / package / f"{module}.py").write_text("open('ran', 'w')\n")
        copy.with_suffix(".json").write_text(
            json.dumps({**description, "arch": f"{package}:resnet18"})
        )
        project.refuse(f"test.py --model {copy} --id {own} --device cpu", package, cwd=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_state_does_not_say_where_to_write(killed, tmp_path):
    project, _ = killed
    wide, _ = changed_state(killed, tmp_path / "wide", {"recipe": {"widen_factor": 1000}})
    project.refuse(f"baseline.py own --save {wide} --resume --device cpu", "another network")
    other = tmp_path / "other"
    (other / "cache").mkdir(parents=True)
    with open(other / "cache" / "years-of-work.npz", "wb") as file:
        file.truncate(5 << 30)  # above the size of a cache, of which the oldest files go
    before = sorted(other.rglob("*"))
    given = {"save": str(other), "resume": False, "dry_run": True, "data": str(other)}
    folder, _ = changed_state(killed, tmp_path, {"given": given})
    result = project.run(f"baseline.py own --save {folder} --resume --device cpu")
    assert result.status == 0, result.err
    assert sorted(other.rglob("*")) == before
    assert len(list(folder.glob("*_epoch_1.pt"))) == 1


def test_a_state_does_not_say_how_weights_are_moved(killed, tmp_path):
    """Settings of its optimiser are those of the recipe, whatever types the state has for them."""
    project, _ = killed
    for name in ("as it is", "changed"):
        folder, file = changed_state(killed, tmp_path / name, {})
        if name == "changed":
            state = torch.load(file, weights_only=True)
            odd = {"nesterov": "a", "dampening": None, "maximize": True, "foreach": [1]}
            state["optimizer"]["param_groups"][0].update(odd)
            torch.save(state, file)
        command = ["baseline.py", "own", "--save", folder, "--resume", "--device", "cpu"]
        result = project.run(command)
        assert result.status == 0, result.err
    one, other = (
        torch.load(next(place.glob("copy/*_epoch_1.pt")), weights_only=True)
        for place in tmp_path.iterdir()
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    folder, file = changed_state(killed, tmp_path / "more", {})
    state = torch.load(file, weights_only=True)
    state["optimizer"]["state"]["weight"] = {"momentum_buffer": torch.zeros(1)}
    torch.save(state, file)
    project.refuse(["baseline.py", "own", "--save", folder, "--resume"], "optimiser")


@pytest.mark.parametrize("key", ("mean", "std", "data"))
def test_a_description_without_a_value(killed, own, tmp_path, key):
    project, folder = killed
    (file,) = folder.glob("*.run/*_best_epoch_0.pt")
    shutil.copy(file, tmp_path / "a.pt")
    description = json.loads(file.with_suffix(".json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**description, key: None}))
    project.refuse(f"test.py --model {tmp_path / 'a.pt'} --ood {own / 'test'} --device cpu", "--id")


def test_files_of_others_in_a_cache_stay(killed, own, tmp_path):
    project, _ = killed
    (tmp_path / "cache").mkdir()
    with open(tmp_path / "cache" / "years-of-work.npz", "wb") as file:
        file.truncate(5 << 30)
    os.utime(tmp_path / "cache" / "years-of-work.npz", (1, 1))
    command = f"baseline.py own --id {own} {SHAPE} --data {tmp_path} --dry-run"
    assert project.run(command).status == 0
    assert (tmp_path / "cache" / "years-of-work.npz").exists()
    assert len(list((tmp_path / "cache").glob("*.npz"))) > 1


@pytest.mark.parametrize(
    "recipe",
    (
        {"layers": 1498, "widen_factor": 100},
        {"widen_factor": 1000},
        {"arch": "densenet"},
        {"arch": "torchvision:vit_h_14"},
        {"arch": 5},
    ),
)
def test_a_state_of_another_network(killed, tmp_path, recipe):
    pytest.importorskip("torchvision")
    folder, file = changed_state(killed, tmp_path, {"recipe": recipe})
    with pytest.raises(UserError, match="network|'arch'"):
        snapshots.check_shape(load_state(folder, file.name.removesuffix(".resume.pt")), file)


@pytest.mark.parametrize(
    "given",
    (
        *({"device": "x"}, {"mean": "1,2"}, {"mean": "x"}, {"compile": "x"}, {"stream": 5}),
        *({"precision": "x"}, {"split": "x"}, {"accumulate": 0}, {"balance": "x"}),
    ),
)
def test_a_state_of_other_options(killed, tmp_path, given):
    folder, file = changed_state(killed, tmp_path, {"given": given})
    with pytest.raises(UserError, match=next(iter(given))):
        stem = file.name.removesuffix(".resume.pt")
        choose_statistics({**load_state(folder, stem)["given"], "std": "1"}, {})


@pytest.mark.parametrize("mean", (5, [1, 2], "abc", [float("nan")] * 3, [1, 2, "x"], {}))
def test_statistics_in_a_description(tmp_path, mean):
    (tmp_path / "a.json").write_text(json.dumps({"arch": "wrn", "mean": mean, "std": [1, 1, 1]}))
    with pytest.raises(UserError, match="mean"):
        snapshots.read_description(tmp_path / "a.pt")


def test_a_large_network_of_a_package(tmp_path):
    """2.5 GB of a description of forty bytes."""
    pytest.importorskip("torchvision")
    torch.save({"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2)}, tmp_path / "a.pt")
    (tmp_path / "a.json").write_text(json.dumps({"arch": "torchvision:vit_h_14"}))
    with pytest.raises(UserError, match="numbers"):
        snapshots.load_model(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "made", ({"arch": "torchvision:vit_h_14"}, {"arch": "wrn", "layers": 100, "widen_factor": 100})
)
def test_weights_to_begin_with_are_held_against_their_description(killed, tmp_path, made):
    """Before the network is made of which the description tells."""
    pytest.importorskip("torchvision")
    (file,) = killed[1].glob("*.run/*_best_epoch_0.pt")
    shutil.copy(file, tmp_path / "a.pt")
    description = json.loads(file.with_suffix(".json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**description, **made}))
    with pytest.raises(UserError, match="another network"):
        check_given(tmp_path / "a.pt", made["arch"])


def test_a_log_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a_training_results.csv")
    with pytest.raises(UserError, match="not a file"):
        snapshots.read_training_log(tmp_path / "a_epoch_0.pt")
    assert snapshots.read_training_log(tmp_path / "b_epoch_0.pt") == []
