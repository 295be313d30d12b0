"""Snapshots: written whole or not at all, found by every name a user gives them,
loaded only when they are what they say.
"""

import errno
import json
import os
import pickle
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import baseline
import models
from utils import runtime, snapshots
from utils.runtime import UserError
from utils.training import network, settled
from utils.training.files import RunFiles, load_state


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty snapshots folder of its own."""
    for module in (snapshots, snapshots.find):
        monkeypatch.setattr(module, "SNAPSHOTS", tmp_path / "snapshots")
        monkeypatch.setattr(module, "FOLDERS", tmp_path / "snapshots" / "folders.txt")
    return tmp_path / "snapshots"


def net(classes=3, layers=10, seed=0, arch="wrn"):
    torch.manual_seed(seed)
    return models.build(arch, classes, layers, 1)


def put(path, seed=0, **description):
    path.parent.mkdir(parents=True, exist_ok=True)
    snapshots.save_snapshot(
        path,
        net(seed=seed),
        {"arch": "wrn", "num_classes": 3, "layers": 10, "widen_factor": 1, **description},
    )
    return path


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# ---- round trip, published files


def test_a_snapshot_is_a_plain_state_dict_with_a_description(place):
    path = put(place / "pretrained" / "cifar10_wrn_pretrained_epoch_3.pt", dataset="cifar10")
    assert equal(torch.load(path, weights_only=True), net().state_dict())
    description = json.loads(path.with_suffix(".json").read_text())
    assert (
        description["sha256"] == runtime.sha256_file(path) and description["dataset"] == "cifar10"
    )
    model, again = snapshots.load_model(path)
    assert (
        equal(model.state_dict(), net().state_dict())
        and not model.training
        and again == description
    )


STYLES = {
    "plain": lambda s: s,
    "DataParallel": lambda s: {f"module.{n}": v for n, v in s.items()},
    "compiled": lambda s: {f"_orig_mod.{n}": v for n, v in s.items()},
    "both": lambda s: {f"module._orig_mod.{n}": v for n, v in s.items()},
    "under a key": lambda s: {
        "state_dict": {f"module.{n}": v for n, v in s.items()},
        "epoch": 99,
        "best_acc": 94.8,
    },
    "old": lambda s: {n: v for n, v in s.items() if not n.endswith("num_batches_tracked")},
    "shuffled": lambda s: dict(reversed(s.items())),
}


@pytest.mark.parametrize("style", STYLES)
def test_published_files_load_without_a_description(style, tmp_path):
    path = tmp_path / "cifar100_wrn_pretrained_epoch_99.pt"
    torch.save(STYLES[style](net().state_dict()), path)
    model, description = snapshots.load_model(path)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(x)[0], net().eval()(x)[0])
    assert (description["arch"], description["layers"], description["widen_factor"]) == (
        "wrn",
        10,
        1,
    )
    assert (description["num_classes"], description["dataset"]) == (3, "cifar100")


def test_half_precision_files_load_as_float32(tmp_path):
    path = tmp_path / "digits_wrn_pretrained_epoch_0.pt"
    half = {n: v.half() if v.is_floating_point() else v for n, v in net().state_dict().items()}
    torch.save(half, path)
    state = snapshots.load_model(path)[0].state_dict()
    assert all(
        torch.equal(state[n], v.float()) and state[n].dtype != torch.float16
        for n, v in half.items()
    )


@pytest.mark.parametrize("arch,head", [("resnet18", "linear."), ("allconv", "classifier.")])
def test_other_names_of_the_head(arch, head, tmp_path):
    state = net(arch=arch).state_dict()
    torch.save({n.replace("fc.", head): v for n, v in state.items()}, tmp_path / "x.pt")
    model, description = snapshots.load_model(tmp_path / "x.pt")
    assert description["arch"] == arch and equal(model.state_dict(), state)


def test_the_data_set_of_a_file_without_description_is_read_off_its_name(tmp_path):
    for name, dataset in (
        ("cifar10_x", "cifar10"),
        ("cifar100_x", "cifar100"),
        ("digits", "digits"),
        ("other", None),
    ):
        torch.save(net().state_dict(), tmp_path / f"{name}.pt")
        assert snapshots.load_model(tmp_path / f"{name}.pt")[1]["dataset"] == dataset


# ---- what is refused


class Code:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_is_not_run(tmp_path):
    trap = tmp_path / "it_ran"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Code(trap)))
    torch.save({"state_dict": net().state_dict(), "x": Code(trap)}, tmp_path / "zip.pt")
    torch.save({"x": Code(trap)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(net(), tmp_path / "module.pt")
    for name in ("plain", "zip", "old", "module"):
        with pytest.raises(UserError, match="not a readable snapshot"):
            snapshots.load_model(tmp_path / f"{name}.pt")
    assert not trap.exists()


CONTENTS = {
    "empty dict": {},
    "list": [torch.zeros(2)],
    "numbers": {"fc.weight": 3},
    "number names": {0: torch.zeros(2)},
    "tensor": torch.zeros(3),
    "text": "hello",
    "empty state_dict": {"state_dict": {}},
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_without_a_state_dict_is_refused(content, tmp_path):
    torch.save(CONTENTS[content], tmp_path / "x.pt")
    with pytest.raises(UserError, match="holds no state_dict"):
        snapshots.load_model(tmp_path / "x.pt")


def test_corrupted_files_are_refused(place):
    path = put(place / "a_epoch_0.pt")
    whole = path.read_bytes()
    for content in (b"", b"not a snapshot", whole[:1000], whole[:-200], whole[200:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="a_epoch_0.pt is not a readable snapshot"):
            snapshots.load_model(path)


def test_a_flipped_bit_in_the_weights_is_noticed(place):
    path = put(place / "a_epoch_0.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged|not a readable"):
        snapshots.load_model(path)


@pytest.mark.parametrize("text", ["{", "[]", "3", ""])
def test_a_broken_description_is_refused(text, place):
    path = put(place / "a_epoch_0.pt")
    path.with_suffix(".json").write_text(text)
    with pytest.raises(UserError, match="a_epoch_0.json"):
        snapshots.load_model(path)


@pytest.mark.parametrize(
    "other", [dict(classes=4), dict(layers=16), dict(arch="resnet18"), dict(arch="densenet")]
)
def test_a_snapshot_of_another_network_is_refused(other, tmp_path):
    model, before = net(), net().state_dict()
    with pytest.raises(UserError, match="another network or number of classes"):
        snapshots.load_weights(model, net(**other).state_dict(), tmp_path / "x.pt")
    assert equal(model.state_dict(), before)


def test_what_another_number_of_classes_has_is_told_in_a_sentence(tmp_path):
    torch.save(net(classes=10).state_dict(), tmp_path / "ten.pt")
    width = net().fc.weight.shape[1]
    with pytest.raises(
        UserError, match=rf"it has fc.weight of shape \(10, {width}\) instead of \(3, {width}\)$"
    ):
        snapshots.load_weights(net(), snapshots.read_weights(tmp_path / "ten.pt"), "ten.pt")


def test_a_missing_parameter_is_refused_though_a_missing_counter_is_not():
    for name in net().state_dict():
        state = net().state_dict()
        del state[name]
        if name.endswith("num_batches_tracked"):
            snapshots.load_weights(net(), state, "x.pt")
        else:
            with pytest.raises(UserError, match=re.escape(name)):
                snapshots.load_weights(net(), state, "x.pt")


def test_an_unknown_network_without_description_asks_for_its_name(tmp_path):
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="--arch module:function"):
        snapshots.load_model(tmp_path / "x.pt")
    with pytest.raises(UserError, match="unknown network 'nosuch'"):
        snapshots.load_model(tmp_path / "x.pt", arch="nosuch")


# ---- finding


def test_snapshots_folder_is_the_projects_from_wherever_one_is(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in (
        "./snapshots/tune_sr",
        "snapshots/tune_sr",
        "./snapshots/tune_sr/",
        "./snapshots/x/../tune_sr",
        place / "tune_sr",
    ):
        assert snapshots.resolve_folder(text) == place / "tune_sr"
    assert snapshots.resolve_folder("./snapshots/") == place
    assert snapshots.resolve_folder("mine/snapshots") == tmp_path / "mine" / "snapshots"
    assert snapshots.resolve_folder("./snapshots/../elsewhere") == place.parent / "elsewhere"


def test_a_stem_means_its_newest_epoch_and_never_its_best(place):
    for name in ("epoch_9", "epoch_10", "epoch_2", "best"):
        put(place / "pretrained" / f"cifar10_wrn_pretrained_{name}.pt")
    put(place / "pretrained" / "cifar10_wrn_pretrained_x_epoch_99.pt")
    (place / "pretrained" / "cifar10_wrn_pretrained.resume.pt").write_bytes(b"x")

    def found(name):
        return [file.name for file in snapshots.find_snapshots(name)]

    newest = ["cifar10_wrn_pretrained_epoch_10.pt"]
    for name in (
        "cifar10_wrn_pretrained",
        "pretrained/cifar10_wrn_pretrained",
        "./snapshots/pretrained/cifar10_wrn_pretrained",
        "cifar10_wrn_pretrained_epoch_10",
        "cifar10_wrn_pretrained_epoch_10.pt",
        "pretrained/cifar10_wrn_pretrained_epoch_10.pt",
        "snapshots/pretrained/cifar10_wrn_pretrained_epoch_10.pt",
        str(place / "pretrained" / newest[0]),
    ):
        assert found(name) == newest, name
    assert found("cifar10_wrn_pretrained_best") == ["cifar10_wrn_pretrained_best.pt"]
    assert found("cifar10_wrn_pretrained_epoch_2") == ["cifar10_wrn_pretrained_epoch_2.pt"]
    for name in (
        "cifar10_wrn",
        "cifar10_wrn_pretrained_epoch_3",
        "tune_sr/cifar10_wrn_pretrained",
        "cifar10_wrn_pretrained.resume",
    ):
        with pytest.raises(
            UserError, match="There is: cifar10_wrn_pretrained, cifar10_wrn_pretrained_x"
        ):
            snapshots.find_snapshots(name)


def test_a_path_relative_to_the_working_directory(tmp_path, monkeypatch):
    path = put(tmp_path / "mine" / "a.pt")
    monkeypatch.chdir(tmp_path / "mine")
    assert snapshots.find_snapshots("a.pt") == snapshots.find_snapshots("./a.pt") == [path]


def test_one_name_in_several_folders(place):
    for folder in ("tune_sr", "tune_sroe"):
        for epoch in (1, 2):
            put(place / folder / f"digits_wrn_s1_tune_epoch_{epoch}.pt")
    files = snapshots.find_snapshots("digits_wrn_s1_tune")
    assert [snapshots.short_name(f) for f in files] == [
        f"{f}/digits_wrn_s1_tune_epoch_2" for f in ("tune_sr", "tune_sroe")
    ]
    with pytest.raises(
        UserError, match="several snapshots: tune_sr/digits_wrn_s1_tune_epoch_2, tune_sroe/"
    ):
        snapshots.find_one("digits_wrn_s1_tune")
    assert snapshots.find_one("tune_sroe/digits_wrn_s1_tune").parent.name == "tune_sroe"


def test_folders_runs_have_written_to_are_searched_once_each(place, tmp_path):
    for folder in (place / "deep" / "er", tmp_path / "elsewhere", tmp_path / "elsewhere"):
        with suppress(UserError):  # the second time it is being trained there
            RunFiles(folder, "a_wrn_pretrained").start()
    put(place / "deep" / "er" / "a_wrn_pretrained_epoch_0.pt")
    put(tmp_path / "elsewhere" / "b_wrn_pretrained_epoch_0.pt")
    (place / "link").symlink_to(tmp_path / "elsewhere")
    assert [f.parent.name for f in snapshots.find_snapshots("a_wrn_pretrained")] == ["er"]
    assert len(snapshots.find_snapshots("b_wrn_pretrained")) == 1
    assert snapshots.FOLDERS.read_text().splitlines() == [str(tmp_path / "elsewhere")]


def test_what_is_missing_names_the_next_command(place):
    for name, command in (
        ("cifar100_wrn_pretrained", "python baseline.py cifar100"),
        ("digits_wrn_s1_tune", "python tune.py digits"),
        ("tune_sr/digits_wrn_s1_tune", "python tune.py digits"),
        ("what", "python baseline.py cifar10"),
    ):
        with pytest.raises(
            UserError, match=f"not found in {re.escape(str(place))}.*no snapshot.*Run: {command}$"
        ):
            snapshots.find_snapshots(name)
    put(place / "pretrained" / "digits_allconv_pretrained_epoch_0.pt")
    with pytest.raises(
        UserError, match="There is: digits_allconv_pretrained. Run: python baseline.py digits"
    ):
        snapshots.find_one("./snapshots/pretrained", "digits_wrn_pretrained")


# ---- runs of the same name


def tree(folder):
    return {
        str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()
    }


def finished(folder, stem, seed=0):
    """What a finished run leaves."""
    put(folder / f"{stem}_epoch_7.pt", seed)
    put(folder / f"{stem}_best.pt", seed)
    (folder / f"{stem}_training_results.csv").write_text(f"epoch {seed}\n")


def test_withdrawing_a_run_leaves_no_trace(place):
    folder, stem = place / "pretrained", "a_wrn_pretrained"
    finished(folder, stem)
    before = tree(place)
    files = RunFiles(folder, stem)
    assert not files.start()
    files.save_state(epoch=-1)
    put(files.snapshot(0))
    # the one that has ended
    assert snapshots.find_snapshots(stem) == [folder / f"{stem}_epoch_7.pt"]
    files.withdraw()
    assert tree(place) == before


def test_an_interrupted_run_is_set_aside_by_a_new_one_and_given_back(place):
    folder, stem = place / "pretrained", "a_wrn_pretrained"
    first = RunFiles(folder, stem)
    first.start()
    first.save_state(epoch=0)
    put(first.snapshot(0), seed=1)
    first.release()
    before = tree(place)
    second = RunFiles(folder, stem)
    assert second.start() and tree(second.aside / f"{stem}.run") == tree(folder / f"{stem}.run") | {
        str(Path(name).relative_to(f"pretrained/{stem}.run")): content
        for name, content in before.items()
    }
    second.save_state(epoch=-1)
    second.withdraw()
    assert tree(place) == before and not (folder / "replaced").exists()


def test_what_a_run_replaces_is_kept_and_nothing_else_is_touched(place):
    folder, stem = place / "pretrained", "a_wrn_pretrained"
    finished(folder, stem)
    put(folder / f"{stem}_of_another_epoch_7.pt")
    (folder / "notes.txt").write_text("mine")
    before = tree(folder)
    files = RunFiles(folder, stem)
    files.start()
    put(files.snapshot(2), seed=3)
    put(files.snapshot(1, best=True), seed=3)
    files.save_state(epoch=2)
    (files.place / "notes.txt").write_text("mine too")
    kept = files.install()
    now = tree(folder)
    assert tree(kept) == {
        name: content
        for name, content in before.items()
        if re.match(rf"{stem}_(epoch|best|training)", name)
    }
    assert {name for name in now if "replaced" not in name} == {
        f"{stem}_epoch_2.pt",
        f"{stem}_epoch_2.json",
        f"{stem}_best.pt",
        f"{stem}_best.json",
        f"{stem}_of_another_epoch_7.pt",
        f"{stem}_of_another_epoch_7.json",
        "notes.txt",
        f"{stem}.run/notes.txt",
    }


def test_two_processes_do_not_train_in_one_folder(place):
    first, second = RunFiles(place / "x", "a"), RunFiles(place / "x", "a")
    first.start()
    first.save_state(
        epoch=-1,
        model={},
        optimizer={"state": {}, "param_groups": []},
        recipe={},
        rows=[],
        best=1.0,
        data="",
    )
    for attempt in (second.start, second.go_on):
        with pytest.raises(UserError, match="another process is training a in .*--save"):
            attempt()
    first.release()  # as when the process has gone
    second.go_on()


def test_a_folder_that_cannot_be_noted_stops_nothing(place, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots.find, "FOLDERS", tmp_path / "a file" / "folders.txt")
    (tmp_path / "a file").write_text("")
    snapshots.remember_folder(tmp_path / "elsewhere")
    assert snapshots.all_snapshots() == []


def test_a_description_is_read_without_the_weights(place):
    path = put(place / "pretrained" / "a_epoch_0.pt")
    path.write_bytes(b"no weights")
    assert snapshots.read_description(path)["arch"] == "wrn"
    assert snapshots.read_description(place / "none.pt") is None


def test_a_parent_is_described_by_its_json_alone(place, monkeypatch):
    """Weights of any size, or none: what is wrong with them is said when they are loaded."""
    path = put(place / "pretrained" / "cifar10_wrn_pretrained_epoch_0.pt", dataset="cifar10")
    made = json.loads(path.with_suffix(".json").read_text())
    path.write_bytes(b"no weights")
    with monkeypatch.context() as patched:
        patched.setattr(snapshots.files, "sha256_file", None)
        patched.setattr(snapshots, "read_weights", None)
        assert network.describe_parent(path, None) == network.describe_parent(path, "wrn") == made
        assert network.describe_parent(path, "own:net") == {**made, "arch": "own:net"}
    with pytest.raises(UserError, match="not a readable"):
        network.load_parent(path, made)
    put(path, dataset="cifar10")
    made.pop("num_classes")  # which the weights tell
    path.with_suffix(".json").write_text(json.dumps({**made, "sha256": None}))
    assert network.describe_parent(path, None)["num_classes"] == 3


def test_only_the_state_of_a_run_is_resumed(place):
    folder = place / "pretrained"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="nothing to resume.*no interrupted run"):
        load_state(folder, "a")
    torch.save({"x": torch.zeros(2)}, folder / "a.resume.pt")
    with pytest.raises(UserError, match="not the state of an interrupted run"):
        load_state(folder, "a")
    (folder / "a.resume.pt").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="not a readable"):
        load_state(folder, "a")
    with pytest.raises(UserError, match="There is: a.resume.pt"):
        load_state(folder, "b")


# ---- a full disk


@pytest.mark.parametrize("call", [1, 2])
def test_a_full_disk_leaves_snapshot_and_description_as_they_were(call, place, monkeypatch):
    path = put(place / "a_best.pt", seed=1)
    before, calls = tree(place), []

    def fsync(handle):
        calls.append(handle)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="the disk is full: .*a_best"):
        put(path, seed=2)
    assert tree(place) == before
    snapshots.load_model(path)


@pytest.mark.parametrize("arch", ["evil:net", "os:_exit", "time:sleep", 5, ["wrn"], {}])
def test_a_file_does_not_name_code_to_run(arch, tmp_path, monkeypatch):
    """Neither a description nor the state of an interrupted run makes a module be imported."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\ndef net(n): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "cifar10_wrn_pretrained_epoch_0.pt"
    torch.save({"fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}, path)
    path.with_suffix(".json").write_text(json.dumps({"arch": arch, "num_classes": 10}))
    for read in (snapshots.load_model, lambda path: network.describe_parent(path, None)):
        with pytest.raises(UserError, match=re.escape(path.stem)) as error:
            read(path)
        assert "--arch" in str(error.value)
    args = baseline.parse(["cifar10", "--resume"])
    with pytest.raises(UserError, match="interrupted run"):
        settled.settle(args, "pretrain", state={"recipe": {"arch": arch}})
    assert "evil" not in sys.modules


def test_an_unknown_network_is_said_to_be_so_with_and_without_a_description(tmp_path):
    path, state = tmp_path / "odd.pt", {"layer.weight": torch.zeros(2, 3)}
    with pytest.raises(UserError, match="there is no odd.json beside it. Name its network"):
        snapshots.describe(path, state)
    path.with_suffix(".json").write_text(json.dumps({"dataset": "cifar10"}))
    torch.save(state, path)
    with pytest.raises(UserError, match="and odd.json names none. Name its network"):
        snapshots.describe(path, state)


def test_a_path_that_is_no_snapshot_is_said_to_be_none(tmp_path):
    for name in ("a.pt", "b.ckpt", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    for text in (tmp_path / "c.pth", tmp_path):
        with pytest.raises(UserError) as told:
            snapshots.find_snapshots(str(text))
        assert "there is: a.pt, b.ckpt" in str(told.value) and "notes" not in str(told.value)
