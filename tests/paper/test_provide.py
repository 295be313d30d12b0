"""Provided snapshots: written with what a check needs, found where there is no run of one's own,
and whole in this clone.
"""

import json
import shutil

import numpy as np
import pytest
import torch

import models
from utils import loaders, runtime, scores, snapshots
from utils.evaluation import network as network_module
from utils.evaluation import report
from utils.evaluation.network import Network
from utils.paper import provide, results
from utils.runtime import UserError

ENTRIES = json.loads(provide.MANIFEST.read_text())["snapshots"] if provide.MANIFEST.exists() else []


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name, path in (
        ("SNAPSHOTS", tmp_path),
        ("FOLDERS", tmp_path / "folders.txt"),
        ("PROVIDED", tmp_path / "provided"),
    ):
        for module in (snapshots, snapshots.find):
            monkeypatch.setattr(module, name, path)
    monkeypatch.setattr(provide, "MANIFEST", tmp_path / "manifest.json")
    monkeypatch.setattr(network_module, "CACHE", tmp_path / "cache")
    return tmp_path


def put(path, seed=0, **description):
    torch.manual_seed(seed)
    model = models.build("wrn", 6, layers=10, widen_factor=1)
    snapshots.save_snapshot(
        path,
        model,
        {
            "arch": "wrn",
            "num_classes": 6,
            "layers": 10,
            "widen_factor": 1,
            "dataset": "digits",
            "seed": 1,
            "train_images": 758,
            "image_size": 32,
            "epoch": 2,
            "recipe": {"epochs": 3},
            **description,
        },
    )
    return path


@pytest.fixture
def measured(monkeypatch):
    """As if the pass over the ID test images had been made: every second answer is right."""
    right = loaders.load_id("digits", "test").labels.numpy()
    logits = np.eye(6, dtype=np.float32)[
        np.where(np.arange(len(right)) % 2, right, (right + 1) % 6)
    ]
    made = provide.outputs_of

    def outputs_of(model, images, key):
        return {"logits": logits} if len(images) == len(right) else made(model, images, key)

    monkeypatch.setattr(provide, "outputs_of", outputs_of)


def test_a_copy_has_the_weights_and_what_tells_that_it_is_this_network(place, measured):
    file = put(place / "pretrained" / "digits_wrn_pretrained_epoch_2.pt")
    (file.parent / "digits_wrn_pretrained_training_results.csv").write_text("epoch\n0\n")
    copy = provide.provide(file, runtime.DATA)
    provide.write_manifest()
    state, own = torch.load(copy, weights_only=True), torch.load(file, weights_only=True)
    assert state.keys() == own.keys() and all(torch.equal(state[key], own[key]) for key in own)
    description = json.loads(copy.with_suffix(".json").read_text())
    assert description["sha256"] == runtime.sha256_file(copy)
    count = len(loaders.load_id("digits", "test"))
    assert description["id_accuracy"] == pytest.approx(100 * (count // 2) / count, abs=1e-4)
    assert (description["part"]["images"], description["part"]["correct"]) == (count, count // 2)
    (entry,) = json.loads(provide.MANIFEST.read_text())["snapshots"]
    assert (
        entry["file"] == "provided/pretrained/digits_wrn_pretrained_epoch_2.pt"
        and entry["sha256"] == description["sha256"]
    )
    assert entry["bytes"] == copy.stat().st_size and entry["epochs"] == 3
    assert (copy.parent / "digits_wrn_pretrained_training_results.csv").exists()
    model, _ = snapshots.load_model(copy)
    assert description["reference"] == provide.reference(model)
    assert model.fc.weight.dtype == torch.float32


def test_one_s_own_run_takes_the_place_of_a_provided_one(place):
    put(place / "provided" / "pretrained" / "digits_wrn_pretrained_epoch_9.pt")
    assert snapshots.find_one("digits_wrn_pretrained").parent.parent == place / "provided"
    assert (
        snapshots.find_one("./snapshots/pretrained", "digits_wrn_pretrained").name
        == "digits_wrn_pretrained_epoch_9.pt"
    )
    own = put(place / "pretrained" / "digits_wrn_pretrained_epoch_2.pt", seed=1)
    assert snapshots.find_one("digits_wrn_pretrained") == own
    assert snapshots.find_one("./snapshots/pretrained", "digits_wrn_pretrained") == own
    put(place / "provided" / "tune_sr" / "digits_wrn_s1_tune_epoch_9.pt")
    assert snapshots.find_one("tune_sr/digits_wrn_s1_tune").parent == place / "provided" / "tune_sr"
    with pytest.raises(UserError, match="not found"):
        snapshots.find_one("./snapshots/elsewhere", "digits_wrn_pretrained")


def test_outputs_are_the_models(place):
    file = put(place / "pretrained" / "digits_wrn_pretrained_epoch_2.pt")
    model, _ = snapshots.load_model(file)
    id_set = loaders.load_id("digits", "test")
    with torch.no_grad():
        expected = model(loaders.normalise(id_set.images.permute(0, 2, 3, 1)))[0].numpy()
    found = provide.outputs_of(model, id_set, "key")["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_copy_names_the_copy_of_its_parent(place, measured):
    parent = put(place / "pretrained" / "digits_wrn_pretrained_epoch_2.pt")
    child = put(
        place / "tune_sr" / "digits_wrn_s1_tune_epoch_2.pt",
        loss="sr",
        parent_sha256=runtime.sha256_file(parent),
    )
    with pytest.raises(UserError, match="Provide that one first"):
        provide.provide(child, runtime.DATA)
    copy = provide.provide(parent, runtime.DATA)
    assert json.loads(provide.provide(child, runtime.DATA).with_suffix(".json").read_text())[
        "parent_sha256"
    ] == runtime.sha256_file(copy)


def test_a_run_of_another_length_takes_the_place_of_the_former(place, measured):
    file = put(place / "pretrained" / "digits_wrn_pretrained_epoch_2.pt")
    longer = put(
        place / "longer" / "digits_wrn_pretrained_epoch_4.pt", epoch=4, recipe={"epochs": 5}
    )
    longer = longer.rename(place / "pretrained" / longer.name)
    longer.with_suffix(".json").write_text(
        (place / "longer" / "digits_wrn_pretrained_epoch_4.json").read_text()
    )
    provide.provide(longer, runtime.DATA)
    copy = provide.provide(file, runtime.DATA)
    assert [path.name for path in copy.parent.glob("*.pt")] == [
        "digits_wrn_pretrained_epoch_2.pt"
    ] and len(list(copy.parent.glob("*.json"))) == 1
    with pytest.raises(UserError, match="provided snapshot already"):
        provide.provide(copy, runtime.DATA)


def test_an_unfinished_run_is_not_provided(place):
    file = put(place / "pretrained" / "digits_wrn_pretrained_epoch_1.pt", epoch=1)
    with pytest.raises(UserError, match="not the last snapshot"):
        provide.provide(file, runtime.DATA)
    assert not (place / "provided").exists()


def test_part_is_spread_over_the_set():
    part = provide.part(10000)
    assert len(part) == 1000 and part[0] == 0 and part[-1] == 9990 and len(provide.part(300)) == 300


# ---- what lies in this clone


def test_manifest_lists_exactly_what_is_there():
    there = {
        path.relative_to(snapshots.SNAPSHOTS).as_posix()
        for path in snapshots.PROVIDED.rglob("*.pt")
    }
    assert {entry["file"] for entry in ENTRIES} == there


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
def test_a_provided_snapshot_is_whole_and_right_on_a_part_of_the_images(entry):
    path = snapshots.SNAPSHOTS / entry["file"]
    assert runtime.sha256_file(path) == entry["sha256"] and path.stat().st_size == entry["bytes"]
    model, description = snapshots.load_model(path)
    assert (
        description["id_accuracy"] == entry["id_accuracy"]
        and description["recipe"]["epochs"] == entry["epochs"]
    )
    if description.get("parent_sha256"):
        assert description["parent_sha256"] in {other["sha256"] for other in ENTRIES}
    reference = provide.reference(model)
    assert reference["fingerprint"] == description["reference"]["fingerprint"]
    np.testing.assert_allclose(reference["energy"], description["reference"]["energy"], atol=2e-3)
    if not loaders.is_there(entry["dataset"]):
        pytest.skip(f"no images of {entry['dataset']} in data/")
    id_set = loaders.load_id(entry["dataset"], "test")
    if id_set.fingerprint != entry["part"]["fingerprint"]:
        pytest.skip("other images than those the recorded number is of")
    some = id_set.subset(provide.part(len(id_set)))
    network = Network(
        model, "unused", torch.device("cpu"), "fp32", cache=snapshots.SNAPSHOTS / "no-cache"
    )
    outputs = network.gather(len(some), network.run(some, network.forward))
    assert (
        abs(
            int((np.asarray(outputs["logits"]).argmax(1) == some.labels.numpy()).sum())
            - entry["part"]["correct"]
        )
        <= 1
    )


def test_recorded_results_are_of_the_provided_snapshots():
    known = {entry["sha256"] for entry in ENTRIES}
    found = [report.read_result(path) for path in (report.RESULTS / "recorded").glob("cifar*.json")]
    assert {result["snapshot"]["sha256"] for result in found if "snapshot" in result} >= known
    assert {result["snapshot"]["sha256"] for result in found if results.enters(result)} <= known
    assert all(result["parent"] in known for result in found if "parent" in result)


@pytest.mark.skipif(not (snapshots.PROVIDED / "pretrained").exists(), reason="no provided snapshot")
def test_a_clone_s_first_command_gives_the_recorded_scores(make_project, tmp_path):
    """test.py --score all finds the provided network by its name; its energies of a few
    photographs' patches are the recorded ones.
    """
    project = make_project()
    shutil.copytree(
        snapshots.PROVIDED / "pretrained", project.snapshots / "provided" / "pretrained"
    )
    recorded = json.loads(
        next(
            (snapshots.PROVIDED / "pretrained").glob("cifar10_wrn_pretrained*_epoch_*.json")
        ).read_text()
    )["reference"]
    patches, others = (
        loaders.load(name, "test").images.permute(0, 2, 3, 1).numpy()
        for name in ("china_patches", "flower_patches")
    )
    parts = {
        "test": patches[: provide.REFERENCE],
        "train": patches[provide.REFERENCE : provide.REFERENCE + 60],
        "flowers": others[:20],
    }
    for name, images in parts.items():
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(len(images)) % 10)
    result = project.run(
        f"test.py --model cifar10_wrn_pretrained --id {tmp_path} "
        f"--ood folder:{tmp_path}/flowers.npz --score all --noise 0 --precision fp32 --save-scores"
    )
    assert result.status == 0 and len(result.err.splitlines()) == 1
    assert "is near chance" in result.err  # patches of a photograph are of no class
    out = result.out
    vectors = np.load(next(project.results.glob("*_scores.npz")))
    np.testing.assert_allclose(vectors["energy/id"], recorded["energy"], atol=2e-3)
    assert {name.split("/")[0] for name in vectors.files} >= set(scores.SCORES) - {
        "odin",
        "mahalanobis",
    } and "AUROC" in out
