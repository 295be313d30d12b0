"""Bad input of every kind: one line on stderr that says what and where, exit status 2,
and nothing on disk changed.
"""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import coloured, noise, pack, write_images, write_own

import models

QUICK = "--epochs 1 --layers 10 --widen-factor 1 --batch_size 60"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """--id folder of 60 + 30 small images in 3 classes."""
    return write_own(tmp_path_factory.mktemp("own") / "own")


@pytest.fixture(scope="module")
def project(make_project, own):
    """A copy of the project with a pre-trained and an SR-tuned network of one's own images."""
    project = make_project()
    project.do(f"baseline.py own --id {own} {QUICK}")
    project.do(f"tune.py own --id {own} {QUICK}")
    return project


def scripts(own, *names):
    """Command lines of the scripts that work, one a script, to spoil."""
    lines = {
        "baseline": f"baseline.py own --id {own} {QUICK}",
        "tune": f"tune.py own --id {own} {QUICK}",
        "test": f"test.py --model own_wrn_pretrained --id {own} --ood gaussian",
    }
    return [lines[name] for name in names or lines]


def test_the_lines_that_are_spoilt_below_do_work(make_project, own):
    project = make_project()
    for line in scripts(own):
        project.do(line)


# ---- unknown names


@pytest.mark.parametrize(
    "line,words",
    [
        ("baseline.py cifar11", ["cifar11", "cifar10, cifar100, digits", "--id PATH"]),
        ("tune.py svhn", ["unknown data set 'svhn'", "cifar10"]),
        ("reproduce.py cifar11", ["cifar11", "cifar10"]),
        ("baseline.py ../own --id OWN", ["'../own' cannot name"]),
        ("tune.py own --id OWN --loss nosuch", ["nosuch", "sroe"]),
        ("baseline.py own --id OWN --arch nosuch", ["unknown network 'nosuch'", "resnet18"]),
        ("baseline.py own --id OWN --arch nosuch:net", ["nosuch", "cannot be imported"]),
        ("baseline.py own --id OWN --arch json:nosuch", ["json", "no function 'nosuch'"]),
        ("baseline.py own --id OWN --layers 11", ["11", "6n + 4"]),
        (
            "test.py --model nosuch",
            ["snapshot 'nosuch' not found", "own_wrn_pretrained", "python baseline.py"],
        ),
        ("test.py --model own_wrn_pretrained_epoch_9", ["not found", "own_wrn_pretrained"]),
        ("test.py --model nosuch/file.pt", ["nosuch/file.pt", "not found"]),
        ("test.py", ["--model is missing"]),
        ("TEST --score nosuch", ["unknown score 'nosuch'", "energy", "mahalanobis"]),
        ("TEST --score energy,nosuch", ["unknown score 'nosuch'"]),
        ("TEST --score knn:zz=1", ["knn", "zz"]),
        ("TEST --score knn:k=many", ["knn", "many"]),
        ("TEST --score nosuch:function", ["nosuch:function", "cannot be imported"]),
        ("TEST --score ,", ["no score named"]),
        ("TEST --ood nosuch", ["nosuch", "folder:PATH"]),
        ("TEST --ood gaussian,gaussian", ["gaussian", "twice"]),
        ("TEST --arch resnet18", ["another network"]),
        ("tune.py own --id OWN --load nosuch", ["snapshot 'nosuch' not found"]),
        (
            "tune.py own --id OWN --load ./snapshots/nosuch",
            ["own_wrn_pretrained", "not found", "python baseline.py own"],
        ),
        (
            "tune.py digits",
            [
                "digits_wrn_pretrained",
                "not found",
                "own_wrn_pretrained",
                "python baseline.py digits",
            ],
        ),
        ("tune.py own --id OWN --preset nosuch", ["nosuch", "paper"]),
    ],
)
def test_unknown_names(line, words, project, own):
    project.refuse(line.replace("OWN", str(own)).replace("TEST", scripts(own, "test")[0]), *words)


# ---- numbers and flags


@pytest.mark.parametrize(
    "option",
    [
        "epochs",
        "batch_size",
        "learning_rate",
        "lr",
        "test_bs",
        "layers",
        "widen-factor",
        "image-size",
    ],
)
@pytest.mark.parametrize("value", ["0", "-1", "nan", "many", ""])
def test_numbers_that_must_be_positive(option, value, project, own):
    for line in scripts(own, "baseline", "tune"):
        project.refuse([*line.split(), f"--{option}={value}"], option)


@pytest.mark.parametrize(
    "script,option,value",
    [
        *(
            ("baseline", o, v)
            for o, v in (
                ("epochs", "1.5"),
                ("learning_rate", "inf"),
                ("momentum", "1"),
                ("momentum", "-0.1"),
                ("decay", "-1"),
                ("decay", "nan"),
                ("droprate", "1"),
                ("droprate", "-0.1"),
                ("seed", "-1"),
                ("padding", "-1"),
                ("ngpu", "-1"),
                ("prefetch", "-1"),
                ("device", "tpu"),
                ("precision", "fp8"),
            )
        ),
        *(
            ("tune", o, v)
            for o, v in (
                ("oe_batch_size", "0"),
                ("oe_batch_size", "-5"),
                ("alpha", "-1"),
                ("beta", "nan"),
                ("m_in", "inf"),
                ("m_out", "nan"),
                ("l1-on", "none"),
                ("outlier-norm", "none"),
                ("outlier-padding", "-1"),
            )
        ),
        *(
            ("test", o, v)
            for o, v in (
                ("T", "0"),
                ("T", "-1"),
                ("T", "nan"),
                ("noise", "-0.1"),
                ("num_to_avg", "0"),
                ("num_to_avg", "-1"),
                ("test_bs", "0"),
                ("seed", "-1"),
                ("protocol", "openood"),
            )
        ),
    ],
)
def test_other_numbers_out_of_range(script, option, value, project, own):
    project.refuse([*scripts(own, script)[0].split(), f"--{option}={value}"], option)


@pytest.mark.parametrize(
    "line",
    [
        "baseline.py",
        "tune.py",
        "baseline.py own --nosuch 1",
        "baseline.py own more",
        "tune.py own --epoch 3",
        "test.py --model",
        "test.py --models x",
        "baseline.py own --epochs",
        "tune.py own -lr",
    ],
)
def test_wrong_flags(line, project):
    project.refuse(line, "--help")


def test_a_device_that_is_not_there(project, own):
    missing = [
        name
        for name, there in (
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
        )
        if not there
    ]
    for line in scripts(own):
        project.refuse(f"{line} --device {missing[0]}", missing[0], "not available")


# ---- missing data


def test_missing_data_and_outliers(project, own, tmp_path):
    for script in ("baseline.py", "tune.py"):
        project.refuse(
            f"{script} cifar10", "cifar10", "cifar-10-batches-py", "python data/download.py cifar10"
        )
        project.refuse(
            f"{script} cifar100 --data {tmp_path}",
            "cifar100",
            str(tmp_path),
            "python data/download.py cifar100",
        )
    tune, test = scripts(own, "tune", "test")
    project.refuse(tune + " --loss sroe", "tiny_imagenet", "not found")
    project.refuse(
        tune + " --loss sroe --outliers nosuch", "unknown data set 'nosuch'", "folder:PATH"
    )
    project.refuse(tune + " --loss sroe --outliers 300k", "300k", "python data/download.py 300k")
    project.refuse(tune + f" --loss oe --outliers {tmp_path}/nosuch.npz", "nosuch.npz")
    project.refuse(
        test.replace("gaussian", "svhn"), "svhn", "test_32x32.mat", "python data/download.py svhn"
    )
    project.refuse(
        test.replace("--ood gaussian", ""), "textures", "svhn", "python data/download.py"
    )
    project.refuse(test.replace("gaussian", "folder:nosuch"), "nosuch", "does not exist")
    project.refuse(test + " --id-train nosuch --score knn", "nosuch")
    for line in scripts(own):
        project.refuse(line.replace(str(own), str(tmp_path / "nosuch")), "nosuch", "does not exist")


@pytest.mark.parametrize("ending", ["", ".zip", ".tar", ".tar.gz"])
def test_nothing_in_a_folder_or_archive(ending, project, own, tmp_path):
    empty = tmp_path / "empty"
    (empty / "train").mkdir(parents=True)
    if ending:
        (empty / "train" / "readme.txt").write_text("no image")
        empty = pack(tmp_path / "empty", tmp_path / f"empty{ending}")
    baseline, tune, test = scripts(own)
    for line in (
        baseline.replace(str(own), str(empty)),
        test.replace("gaussian", f"folder:{empty}"),
        tune + f" --loss sroe --outliers {empty}",
    ):
        project.refuse(line, "empty", "no image")


# ---- images that cannot be read


def spoil(folder, name="001.png"):
    """Truncate an image of a folder; returns its path below the folder."""
    (file,) = folder.rglob(name)
    file.write_bytes(file.read_bytes()[:60])
    return file.relative_to(folder).as_posix()


@pytest.mark.parametrize("ending", ["", ".zip", ".tar.gz"])
def test_a_truncated_image_is_named_or_skipped_and_counted(ending, project, own, tmp_path):
    folder = write_images(tmp_path / "stones", noise(12, 8, 1))
    name = spoil(folder)
    path = pack(folder, tmp_path / f"stones{ending}") if ending else folder
    tune, test = scripts(own, "tune", "test")
    project.refuse(test.replace("gaussian", f"folder:{path}"), name, "--skip-bad")
    project.refuse(tune + f" --loss sroe --outliers {path}", name, "--skip-bad")
    result = project.run(test.replace("gaussian", f"folder:{path} --skip-bad"))
    assert (
        result.status == 0
        and "1 of 12" in result.err
        and name in result.err
        and "of 11 images" in result.out
    )
    record = json.loads(project.latest_result("own_wrn_pretrained_energy").read_text())
    assert (record["ood"][0]["images"], record["ood"][0]["skipped"]) == (11, 1)
    # skipping once is not a licence
    project.refuse(test.replace("gaussian", f"folder:{path}"), name)
    assert (
        project.run(
            tune + f" --loss sroe --outliers {path} --skip-bad --save ./snapshots/skip{ending}"
        ).status
        == 0
    )


def test_a_truncated_image_among_ones_own(project, own, tmp_path):
    for split, count in (("train", 12), ("test", 6)):
        images, labels = coloured(count, 3, 32, count)
        write_images(tmp_path / "mine" / split, images, labels)
    name = spoil(tmp_path / "mine" / "train")
    project.refuse(f"baseline.py mine --id {tmp_path}/mine {QUICK}", name, "--skip-bad")
    result = project.run(f"baseline.py mine --id {tmp_path}/mine {QUICK} --skip-bad")
    assert result.status == 0 and "1 of 12" in result.err
    whole = pack(tmp_path / "mine", tmp_path / "whole.zip")
    whole.write_bytes(whole.read_bytes()[:-500])
    project.refuse(scripts(own, "test")[0].replace("gaussian", f"folder:{whole}"), "whole.zip")
    whole = pack(tmp_path / "mine", tmp_path / "whole.tar.gz")
    whole.write_bytes(whole.read_bytes()[:-500])
    project.refuse(scripts(own, "test")[0].replace("gaussian", f"folder:{whole}"), "whole.tar.gz")


# ---- arrays of a wrong shape or type

GOOD = noise(12, 8, 1)
ARRAYS = {
    "float images": (dict(images=GOOD / 255.0), "float64"),
    "signed images": (dict(images=GOOD.astype(np.int64)), "int64"),
    "one colour image": (dict(images=np.zeros((8, 8, 3), np.uint8)), "one colour image"),
    "four channels": (dict(images=np.zeros((12, 8, 8, 4), np.uint8)), "(12, 8, 8, 4)"),
    "a vector": (dict(images=np.zeros(12, np.uint8)), "(12,)"),
    "a scalar": (dict(images=np.uint8(3)), "()"),
    "five dimensions": (dict(images=np.zeros((2, 2, 8, 8, 3), np.uint8)), "(2, 2, 8, 8, 3)"),
    "no images": (dict(images=np.zeros((0, 8, 8, 3), np.uint8)), "no image"),
    "no pixels": (dict(images=np.zeros((12, 0, 8, 3), np.uint8)), ""),
    "another name": (dict(pictures=GOOD), "pictures"),
    "nothing": (dict(), "nothing"),
    "objects": (dict(images=np.array([{}] * 12, dtype=object)), ""),
    "text": (dict(images=np.array(["x"] * 12)), "<U1"),
    "too few labels": (dict(images=GOOD, labels=np.zeros(11, int)), "labels"),
    "labels of a kind": (dict(images=GOOD, labels=np.zeros(12)), "float64"),
    "labels in two columns": (dict(images=GOOD, labels=np.zeros((12, 2), int)), "(12, 2)"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_an_array_of_a_wrong_shape_or_type(case, project, own, tmp_path):
    arrays, word = ARRAYS[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    baseline, tune, test = scripts(own)
    for line in (
        baseline.replace(str(own), f"{tmp_path}/bad.npz"),
        test.replace("gaussian", f"folder:{tmp_path}/bad.npz"),
        tune + f" --loss sroe --outliers {tmp_path}/bad.npz",
    ):
        project.refuse(line, "bad.npz", word)


def test_files_that_are_no_arrays(project, own, tmp_path):
    (test,) = scripts(own, "test")
    good = (own / "test.npz").read_bytes()
    for name, content in (
        ("empty.npz", b""),
        ("text.npy", b"hello"),
        ("half.npz", good[: len(good) // 2]),
        ("short.npy", good[:50]),
        ("pickle.npy", pickle.dumps([1, 2])),
        ("pickle.npz", pickle.dumps([1, 2])),
    ):
        (tmp_path / name).write_bytes(content)
        project.refuse(test.replace("gaussian", f"folder:{tmp_path / name}"), name)


@pytest.mark.parametrize(
    "split,labels,words",
    [
        ("train", [-1, 0, 1, 2], ["-1"]),
        ("test", [0, 1, 2, 3], ["3"]),
        ("test", [-2, 0, 1, 2], ["-2"]),
        ("train", None, ["no labels"]),
        ("test", None, ["no labels"]),
        ("train", [0, 1, 2, 10**12], ["10000000000"]),
    ],
)
def test_labels_out_of_range_or_missing(split, labels, words, project, own, tmp_path):
    mine = shutil.copytree(own, tmp_path / "own")
    images, _ = coloured(40, 4, 8, 9)
    np.savez(
        mine / f"{split}.npz",
        images=images,
        **({} if labels is None else {"labels": np.tile(labels, 10)}),
    )
    for line in scripts(mine, "baseline", "tune"):
        project.refuse(line, *words)
    if split == "test":
        project.refuse(*scripts(mine, "test"), "test.npz", *words)


def test_training_and_test_images_that_do_not_belong_together(project, own, tmp_path):
    project.refuse(
        f"baseline.py own --id {own}/train.npz {QUICK}", "training and test images are the same"
    )
    mine = shutil.copytree(own, tmp_path / "own")
    images, labels = coloured(30, 3, 12, 9)
    np.savez(mine / "test.npz", images=images, labels=labels)
    project.refuse(f"baseline.py own --id {mine} {QUICK}", "test.npz", "12")
    project.refuse(
        scripts(own, "test")[0] + f" --score knn --id-train {own}/test.npz", "--id-train"
    )


def test_classes_that_are_not_the_snapshots(make_project, tmp_path):
    project, images = make_project(), coloured(24, 3, 8, 1)
    names = np.array(["aster", "lily", "rose"])
    for folder, classes in (
        ("own", names),
        ("other", np.array(["aster", "rose", "tulip"])),
        ("numbers", np.array(["0", "1", "2"])),
    ):
        (tmp_path / folder).mkdir()
        for split, seed in (("train", 1), ("test", 2)):
            images, labels = coloured(24, 3, 8, seed)
            np.savez(
                tmp_path / folder / f"{split}.npz", images=images, labels=labels, classes=classes
            )
    project.do(f"baseline.py flowers --id {tmp_path}/own {QUICK}")
    test = "test.py -m flowers_wrn_pretrained --ood gaussian --score"
    project.refuse(
        f"{test} msp --id {tmp_path}/other", "number 1 is 'rose', not 'lily'", "aster, lily, rose"
    )
    project.refuse(
        f"{test} knn --id {tmp_path}/own --id-train {tmp_path}/other", "'rose', not 'lily'"
    )
    project.refuse(f"tune.py flowers --id {tmp_path}/other --epochs 1", "'rose', not 'lily'")
    # no name in common: the same classes by other names
    result = project.run(f"{test} msp --id {tmp_path}/numbers")
    assert result.status == 0 and "each is taken for the one in its place" in result.err


def test_images_that_are_too_small_for_the_network(project, tmp_path):
    mine = write_own(tmp_path / "own", size=2)
    project.refuse(f"baseline.py own --id {mine} --arch densenet --epochs 1", "2x2")
    project.refuse(f"baseline.py own --id {mine} --arch allconv --epochs 1", "2x2")


# ---- snapshots


class Code:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_snapshot_that_is_none(project, own, tmp_path):
    good = project.file("pretrained/own_wrn_pretrained_epoch_0.pt").read_bytes()
    trap = tmp_path / "it_ran"
    torch.save({"fc.weight": Code(trap)}, tmp_path / "code.pt")
    for name, content in (
        ("empty.pt", b""),
        ("text.pt", b"hello"),
        ("half.pt", good[: len(good) // 2]),
        ("code.pt", None),
        ("pickle.pt", pickle.dumps(Code(trap))),
        ("old.pt", pickle.dumps(Code(trap), protocol=2)),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        project.refuse(
            f"test.py --model {tmp_path / name} --id {own} --ood gaussian",
            name,
            "not a readable snapshot",
        )
        project.refuse(
            f"{scripts(own, 'tune')[0]} --load {tmp_path / name}", name, "not a readable snapshot"
        )
        project.refuse(
            f"{scripts(own, 'baseline')[0]} --load {tmp_path / name}",
            name,
            "not a readable snapshot",
        )
    assert not trap.exists()


def test_a_snapshot_of_another_network_or_class_count(project, own, tmp_path):
    def save(name, *network):
        torch.save(models.build(*network).state_dict(), tmp_path / name)
        return tmp_path / name

    wrn, resnet = save("own_a.pt", "wrn", 5, 10, 1), save("own_b.pt", "resnet18", 3)
    (tune,) = scripts(own, "tune")
    project.refuse(f"{tune} --load {wrn}", "5 classes", "3")
    project.refuse(f"{tune} --arch wrn --load {resnet}", "another network", "resnet18")
    (baseline,) = scripts(own, "baseline")
    project.refuse(f"{baseline} --load {wrn}", wrn.name, "5 classes")
    project.refuse(f"{baseline} --arch wrn --load {resnet}", resnet.name, "another network")
    for name, classes in (("digits_wrn_x.pt", 10), ("digits_wrn_y.pt", 3)):
        project.refuse(
            f"test.py --model {save(name, 'wrn', classes, 10, 1)} --ood gaussian",
            "digits",
            f"{classes}",
        )
        project.refuse(
            f"tune.py digits --epochs 1 --load {tmp_path / name}", name, f"{classes} classes", "6"
        )
    state = models.build("wrn", 3, 10, 1).state_dict()
    for name, spoilt in (
        ("own_less.pt", {n: v for n, v in state.items() if n != "bn1.bias"}),
        ("own_more.pt", {**state, "x": state["bn1.bias"]}),
        ("own_empty.pt", {}),
    ):
        torch.save(spoilt, tmp_path / name)
        project.refuse(f"test.py --model {tmp_path / name} --id {own} --ood gaussian", name)


def test_a_snapshot_that_differs_from_its_description(project, own, tmp_path):
    for ending in ("pt", "json"):
        shutil.copy(
            project.file(f"pretrained/own_wrn_pretrained_epoch_0.{ending}"),
            tmp_path / f"own_x.{ending}",
        )
    content = bytearray((tmp_path / "own_x.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "own_x.pt").write_bytes(content)
    project.refuse(f"test.py --model {tmp_path}/own_x.pt --id {own} --ood gaussian", "own_x.pt")
    (tmp_path / "own_x.json").write_text("{")
    project.refuse(f"test.py --model {tmp_path}/own_x.pt --id {own} --ood gaussian", "own_x.json")


def test_a_snapshot_that_is_not_finite(project, own, tmp_path):
    state = torch.load(project.file("pretrained/own_wrn_pretrained_epoch_0.pt"), weights_only=True)
    state["fc.bias"][1] = float("nan")
    torch.save(state, tmp_path / "own_x.pt")
    project.refuse(f"test.py --model {tmp_path}/own_x.pt --id {own} --ood gaussian", "not finite")


# ---- the disk


def test_a_place_that_cannot_be_written(project, own, tmp_path):
    (tmp_path / "file").write_text("a file")
    for line in scripts(own):
        project.refuse(f"{line} --save {tmp_path}/file", "file", "--save")
        project.refuse(f"{line} --save {tmp_path}/file/below", "file", "--save")
    assert (tmp_path / "file").read_text() == "a file"


@pytest.mark.parametrize("which", [1, 2, 3, 4])
def test_a_disk_that_is_full_when_results_are_written(which, project, own):
    test = scripts(own, "test")[0] + " --save-scores"
    project.do(test)
    before = project.files()
    result = project.run(
        test,
        prelude=f"""
import errno, os
real, count = os.fsync, []
def full(handle):
    count.append(1)
    if len(count) >= {which}: raise OSError(errno.ENOSPC, "No space left on device")
    return real(handle)
os.fsync = full
""",
    )
    if result.status:  # fewer files are written than which
        assert (
            result.status == 2
            and len(result.err.splitlines()) == 1
            and "disk is full" in result.err
        )
        assert "Traceback" not in result.err and set(project.files()) == set(before)
        assert json.loads(project.latest_result("own_wrn_pretrained_energy").read_text())["scores"]
    else:
        assert which == 4


def test_what_an_error_says_of_the_disk_is_true(project, own):
    """A script that fails after it has written something does not claim
    that nothing was changed.
    """
    baseline = (
        f"baseline.py own --id {own} --epochs 1 --layers 10 --widen-factor 1 "
        "--save ./snapshots/denied"
    )
    result = project.run(
        baseline,
        prelude="""
import os
real = os.rename
def denied(source, target):
    if str(target).endswith(".csv"): raise PermissionError(13, "Permission denied", str(target))
    return real(source, target)
os.rename = denied
""",
    )
    assert result.status == 2 and "Permission denied" in result.err and ".csv" in result.err
    assert "nothing" not in result.err and len(result.err.splitlines()) == 1
    project.do(baseline + " --resume")  # the run had ended: its files are moved into place
    assert "own_wrn_pretrained_epoch_0.pt" in project.names("denied")
