"""A run that was interrupted before a run had a folder of its own goes on: former layout, former
keys, former random numbers.
"""

import json

import numpy as np
import pytest
import torch
from conftest import noise, stop_at_step, write_own

FORMER_STREAMS = "import utils.runtime\nutils.runtime.STREAMS = 1\n"
SHAPE = "--layers 10 --widen-factor 1"
# Recorded by every stage and loss, whether it had them or not; SR and SROE were padded by 4 then.
FORMER_RECIPE = {
    "outlier_padding": 4,
    "outlier_norm": "id",
    "padding": 4,
    "oe_batch_size": 256,
    "l1_on": "id",
}
STAGES = ("pretrained", "sr", "sroe", "energy")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = write_own(tmp_path_factory.mktemp("own"))
    np.savez(folder / "outliers.npz", images=noise(50, 8, 3))
    return folder


@pytest.fixture(scope="module")
def commands(own):
    """{stage or loss: (the command, what --resume needs of it to find images and state)}."""
    few = f"own --id {own} --device cpu"
    options = "--epochs 3 --batch_size 16 --padding 4"
    found = {"pretrained": (f"baseline.py {few} {options} {SHAPE}", f"baseline.py {few}")}
    for loss in STAGES[1:]:
        outliers = "" if loss == "sr" else f" --outliers {own}/outliers.npz"
        size = "" if loss == "sr" else " --oe_batch_size 24"
        command = f"tune.py {few} --loss {loss}{outliers}"
        found[loss] = (f"{command} {options} --lr 0.01{size}", command)
    return found


@pytest.fixture(scope="module")
def whole(make_project, commands):
    """A project in which everything ran without interruption with the former random numbers."""
    project = make_project()
    for stage in STAGES:
        project.do(commands[stage][0], prelude=FORMER_STREAMS)
    return project


def place_of(project, stage):
    """(folder, stem) of a stage's or loss's run."""
    if stage == "pretrained":
        return project.snapshots / "pretrained", "own_wrn_pretrained"
    return project.snapshots / f"tune_{stage}", "own_wrn_s1_tune"


def make_former(folder, stem, former):
    """Bring an interrupted run's files to the former layout and name, and its state to the former
    keys.
    """
    (place,) = folder.glob("*.run")
    name = place.name.removesuffix(".run")  # has what departs from the recipe
    state = torch.load(place / f"{name}.resume.pt", weights_only=True)
    recipe = {**FORMER_RECIPE, **{key: v for key, v in state["recipe"].items() if key != "streams"}}
    keys = ("epoch", "model", "optimizer", "rows", "best", "data", "parent", "outliers")
    computed = {key: state["computed"][key] for key in ("device", "precision", "fused")}
    torch.save(
        {
            **{key: state[key] for key in keys},
            "recipe": recipe,
            "computed": computed,
            "former": former,
        },
        folder / f"{stem}.resume.pt",
    )
    (place / f"{name}.resume.pt").unlink()
    for file in list(place.iterdir()):
        file.rename(folder / file.name.replace("_best_epoch_0.", "_best.").replace(name, stem))
    place.rmdir()
    for file in folder.glob("*.json"):
        description = json.loads(file.read_text())
        file.write_text(json.dumps({**description, "recipe": recipe}))


@pytest.mark.parametrize("stage", STAGES)
def test_a_former_state_goes_on_as_if_it_had_never_stopped(
    stage, make_project, whole, commands, tmp_path
):
    project = make_project()
    if stage != "pretrained":
        stem = "own_wrn_pretrained"
        (project.snapshots / "pretrained").mkdir(parents=True)
        for ending in ("pt", "json"):
            name = f"{stem}_epoch_2.{ending}"
            source = whole.file(f"pretrained/{name}")
            (project.snapshots / "pretrained" / name).write_bytes(source.read_bytes())
    command, resumed = commands[stage]
    assert project.run(command, prelude=FORMER_STREAMS + stop_at_step("SIGKILL", 6)).status == -9
    folder, stem = place_of(project, stage)
    elsewhere = tmp_path / "elsewhere"
    kept = folder / "replaced" / "20200101-000000-x"
    names = [f"{stem}_epoch_{epoch}.pt" for epoch in (0, 1, 2)]
    for other in (elsewhere, kept):
        other.mkdir(parents=True)
        for name in names:
            (other / name).write_bytes(b"of a former run")
    make_former(folder, stem, {"folder": str(elsewhere), "names": names})
    (folder / "others_epoch_0.pt").write_bytes(b"of someone else")

    extra = f" {SHAPE}" if stage == "pretrained" else ""
    assert f"resuming {stem} at epoch 1 of 3" in project.do(f"{resumed}{extra} --resume")

    assert project.names(folder.name) == sorted([*whole.names(folder.name), "others_epoch_0.pt"])
    for other in (elsewhere, kept):
        assert {file.name: file.read_bytes() for file in other.iterdir()} == dict.fromkeys(
            names, b"of a former run"
        )
    assert (folder / "others_epoch_0.pt").read_bytes() == b"of someone else"
    for name in (f"{stem}_epoch_2", f"{stem}_best"):
        pair = folder / f"{name}.pt", whole.file(f"{folder.name}/{name}.pt")
        a, b = (torch.load(file, weights_only=True) for file in pair)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    recipe = json.loads((folder / f"{stem}_epoch_2.json").read_text())["recipe"]
    assert recipe["padding"] == 4 and recipe["streams"] == 1 and recipe["epochs"] == 3
    of_outliers = {"outlier_padding", "outlier_norm", "oe_batch_size"}
    assert of_outliers & set(recipe) == (of_outliers if stage in ("sroe", "energy") else set())
    assert ("l1_on" in recipe) == (stage == "sroe")


def test_a_typed_option_other_than_the_former_states_is_refused(make_project, commands):
    project = make_project()
    command, resumed = commands["pretrained"]
    project.run(command, prelude=FORMER_STREAMS + stop_at_step("SIGKILL", 6))
    make_former(*place_of(project, "pretrained"), {})
    project.refuse(
        f"{resumed} {SHAPE} --padding 2 --resume", "the interrupted run had padding 4, not 2"
    )
