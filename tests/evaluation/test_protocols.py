"""Protocols with groups of sets: OpenOOD's metric definitions, what is there, lists, several
snapshots."""

from argparse import Namespace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from utils import loaders
from utils.evaluation import printed, protocol, several
from utils.evaluation.case import Case, Rows, Sets
from utils.evaluation.protocol import PROTOCOLS, Protocol
from utils.evaluation.rows import measure_set
from utils.metrics import METRICS, openood_metrics
from utils.runtime import UserError


def openood(inner, outer):
    """OpenOOD's definitions from scikit-learn's curves, every threshold kept."""
    label = np.r_[np.zeros(len(inner)), np.ones(len(outer))]
    value = np.r_[inner, outer]
    made = {"auroc": roc_auc_score(label, value)}
    for fpr, aupr, positive, high in (
        ("fpr95", "aupr_in", 1 - label, -value),
        ("fpr95_out", "aupr_out", label, value),
    ):
        false, true, _ = roc_curve(positive, high, drop_intermediate=False)
        precision, recall, _ = precision_recall_curve(positive, high)
        made[fpr], made[aupr] = false[np.argmax(true >= 0.95)], auc(recall, precision)
    return made


@pytest.mark.parametrize("decimals", (9, 1, 0))  # 1 and 0: light and heavy ties
@pytest.mark.parametrize("seed", range(8))
def test_metrics_are_openoods(decimals, seed):
    rng = np.random.default_rng(seed)
    inner = rng.normal(size=rng.integers(1, 200)).round(decimals)
    outer = rng.normal(1, size=rng.integers(1, 200)).round(decimals)
    found, wanted = openood_metrics(inner, outer), openood(inner, outer)
    assert set(found) == set(METRICS)
    assert found == {name: pytest.approx(wanted[name], abs=1e-12) for name in METRICS}


def test_the_first_threshold_is_not_the_closest():
    """20 OOD images, 19 of them caught at the first threshold of recall 0.95; with 30, 28.5 are
    asked for: the closest recalls are 28 and 29 of 30, the first one of at least 0.95 is 29."""
    outer = np.arange(30.0)
    inner = np.array([0.5, 1.5, 2.5])
    assert openood_metrics(inner, outer)["fpr95_out"] == pytest.approx(2 / 3)
    assert openood_metrics(inner, np.arange(20.0))["fpr95_out"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="NaN"):
        openood_metrics([0.0, np.nan], [1.0])


class Network:
    """Scores by set name instead of a network's."""

    def __init__(self, scores):
        self.scores = scores

    def score(self, score, images):
        return self.scores[images.name]


def images(name, n=4):
    return loaders.make_set(np.zeros((n, 8, 8, 3), np.uint8), np.zeros(n, int), name)


def case(name, dataset, sets, scores):
    args = Namespace(protocol=name, out_as_pos=False)
    return Case(None, {"dataset": dataset}, Network(scores), sets, [], args)


def test_groups_are_means_of_what_is_there():
    rng = np.random.default_rng(0)
    names = ("cifar10", "cifar100", "mnist", "svhn")
    values = {name: rng.normal(i, size=50) for i, name in enumerate(names)}
    sets = Sets(images("cifar10"), [images(name) for name in names[1:]], None)
    rows, vectors = case("openood", "cifar10", sets, values).measure(None)
    assert [row["set"] for row in rows] == [*names[1:], "near", "far", "average"]
    near, far = rows[3:5]
    assert (near["lacks"], far["lacks"]) == (["tin"], ["textures", "places365"])
    wanted = [openood(values["cifar10"], values[name]) for name in names[1:]]
    for metric in METRICS:
        assert near[metric] == pytest.approx(100 * wanted[0][metric])
        assert far[metric] == pytest.approx(50 * (wanted[1][metric] + wanted[2][metric]))
    assert set(vectors) == {"id", *names[1:]}
    found = Rows([], {}, {})
    found.add(Namespace(label="energy", hyper={}), rows, vectors)
    (entry,) = found.measured
    assert [row["set"] for row in printed.shown_rows(entry)] == [*names[1:], "near", "far"]
    text = printed.format_set_table("energy", rows, 5.0, True, both=True)
    assert "average" not in text and "AUPR-IN" in text and "lacks tin" in text


def test_shifted_sets_count_as_id():
    values = {"own": np.zeros(4), "imagenet_r": np.full(4, 2.0), "ninco": np.ones(6)}
    sets = Sets(images("own"), [images("ninco")], None, (images("imagenet_r"),))
    rows, _ = case("fsood", "own", sets, values).measure(None)
    assert rows[0]["auroc"] == 50.0


def test_protocols_are_apart():
    assert Protocol() == protocol.USUAL and PROTOCOLS["paper"].draws
    assert not any(rules.draws for name, rules in PROTOCOLS.items() if name != "paper")
    assert all(Protocol(protocol=name) != Protocol() for name in PROTOCOLS if name != "paper")
    with pytest.raises(UserError, match="cifar10, cifar100"):
        PROTOCOLS["openood"].groups_of("digits")


def test_whole_sets_and_first_threshold():
    ids, oods = np.arange(30.0), np.arange(100.0)
    row = measure_set(ids, oods, "x", Protocol(protocol="openood"))
    assert (row["draws"], row["n"]) == (1, 100)
    assert row["fpr95_out"] == pytest.approx(100 * openood(ids, oods)["fpr95_out"])


def write_list(data):
    """OpenOOD's folders with two listed images of CIFAR-100, and one that is in no list."""
    folder = data / "images_classic" / "cifar100" / "test"
    folder.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((32, 32, 3), 10 * i, np.uint8)).save(folder / f"{i}.png")
    lists = data / "benchmark_imglist" / "cifar10"
    lists.mkdir(parents=True)
    file = lists / "test_cifar100.txt"
    file.write_text("cifar100/test/2.png -1\ncifar100/test/0.png -1\n")
    return file


def test_lists_say_which_images(tmp_path):
    write_list(tmp_path)
    (found,), missing = loaders.load_named(("cifar100", "tin"), "cifar10", tmp_path)
    assert found.images[:, 0, 0, 0].tolist() == [20, 0] and found.labels is None
    assert missing == ["tin"] and "download.py tin" in loaders.where_to_get("tin")
    assert "zenodo" in loaders.where_to_get("ninco")


def test_a_list_that_is_none(tmp_path):
    file = write_list(tmp_path)
    for text, word in (
        ("a.png\n", "'a.png'"),
        ("nowhere/a.png 0\n", "nowhere/a.png"),
        ("", "none"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=word):
            loaders.load("x", path=file)


def test_resize_and_crop_are_torchvisions():
    from torchvision.transforms import functional

    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    wanted = functional.center_crop(functional.resize(image, 64), 56)
    found = loaders.readers.fit_image(image, (64, 56))
    assert np.array_equal(np.asarray(found), np.asarray(wanted))


def record(name, values, error, **arguments):
    row = measure_set(np.arange(20.0), np.asarray(values), "svhn", Protocol(protocol="full"))
    entry = {"score": "energy", "sets": [row], "average": row}
    return {
        "snapshot": {"name": name, "sha256": name},
        "id": {"error": error},
        "ood": [{"fingerprint": "f"}],
        "arguments": {"protocol": "full", **arguments},
        "protocol": "full",
        "scores": [entry],
    }


def test_several_snapshots(tmp_path, capsys):
    records = [record(n, [5.0 * i, 30, 40], i) for i, n in enumerate("abc", 1)]
    found = several.combine(records)
    values = [r["scores"][0]["average"]["auroc"] for r in records]
    row = found["scores"][0]["rows"][0]
    assert row["auroc"] == pytest.approx(np.mean(values))
    assert row["sd"]["auroc"] == pytest.approx(np.std(values, ddof=1))
    assert found["id_error"] == {"mean": 2.0, "sd": 1.0}
    assert several.report(records, str(tmp_path)).exists()
    assert "over 3 snapshots" in capsys.readouterr().out
    with pytest.raises(UserError, match="two or more"):
        several.combine(records[:1])
    with pytest.raises(UserError, match="other images"):
        several.combine([records[0], record("d", [1.0], 1, id="PATH")])
