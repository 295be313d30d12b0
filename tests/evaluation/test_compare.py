"""--compare: metrics of all resamples at once by a slow loop, intervals by DeLong's variance, files
of a comparison, and what is refused.
"""

import csv
import json
from argparse import Namespace

import numpy as np
import pytest
from test_given import MAIN, arrays_of

from utils.evaluation import compare
from utils.evaluation.compare import Measured, Ranked, Side, resample
from utils.evaluation.protocol import Protocol
from utils.metrics import detection_metrics, openood_metrics
from utils.runtime import UserError


def sides(inner, outer, names=("svhn",), labels=("a", "b"), **record):
    """A and B of (N,2) ID scores and [(M,2)] scores of OOD sets."""
    made = []
    for i, label in enumerate(labels):
        vectors = {f"{label}/id": inner[:, i]}
        vectors |= {f"{label}/{name}": values[:, i] for name, values in zip(names, outer)}
        sets = [{"set": name, "n": len(values)} for name, values in zip(names, outer)]
        entry = {"score": label, "hyper": {}, "sets": sets, **record}
        ood = [{"name": name, "fingerprint": name} for name in names]
        made.append(Side(Measured(None, {"scores": [entry], "ood": ood}, vectors), label))
    return made


def pairs(n, sizes, seed=0, decimals=9):
    """Scores of two detectors whose noise is partly the same."""
    rng = np.random.default_rng(seed)

    def some(count, shift):
        shared = rng.normal(shift, 1, (count, 1))
        return (shared + rng.normal(0, 0.5, (count, 2))).round(decimals)

    return some(n, 0), [some(size, 1 + i / 2) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("out_as_pos", [False, True])
@pytest.mark.parametrize("rule", [detection_metrics, openood_metrics])
@pytest.mark.parametrize("decimals", [9, 1, 0])  # 1 and 0: light and heavy ties
def test_metrics_of_resamples_are_those_of_the_repeated_scores(decimals, rule, out_as_pos):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n, m = rng.integers(1, 60, 2)
        inner, outer = rng.normal(size=n).round(decimals), rng.normal(1, size=m).round(decimals)
        times, other = resample(rng, n, 5), resample(rng, m, 5)
        closest = rule is detection_metrics
        if out_as_pos:
            found = Ranked(-outer, -inner).metrics(other, times, closest)
        else:
            found = Ranked(inner, outer).metrics(times, other, closest)
        for i in range(5):
            slow = rule(np.repeat(inner, times[i]), np.repeat(outer, other[i]))
            assert found[0, i] == slow["fpr95_out" if out_as_pos else "fpr95"]
            assert found[1, i] == pytest.approx(slow["auroc"], abs=1e-15)


def test_a_resample_has_as_many_images_as_there_are():
    times = resample(np.random.default_rng(3), 50, 400)
    assert (times.sum(axis=1) == 50).all() and times.shape == (400, 50)
    assert abs(times.mean(axis=0) - 1).max() < 0.3  # six standard deviations
    assert times.var() == pytest.approx(1 - 1 / 50, abs=0.06)


@pytest.mark.parametrize("block", [1, 10**9])
@pytest.mark.parametrize("protocol", ["full", "openood"])
def test_differences_by_a_slow_loop(monkeypatch, block, protocol):
    monkeypatch.setattr(compare, "RESAMPLES", 25)
    monkeypatch.setattr(compare, "NUMBERS", block)
    inner, outer = pairs(40, (30, 55))
    names = ("svhn", "isun")
    rows = compare.compare(*sides(inner, outer, names), Protocol(seed=7, protocol=protocol), False)
    measure = openood_metrics if protocol == "openood" else detection_metrics
    streams = [
        np.random.default_rng([7, compare.zlib.crc32(name.encode())]) for name in ("id", *names)
    ]
    slow = {"svhn": [], "isun": [], "average": []}
    for _ in range(25):
        drawn = inner[streams[0].integers(0, 40, 40)]  # one draw of ID images for all sets
        both = []
        for name, values, rng in zip(names, outer, streams[1:]):
            part = values[rng.integers(0, len(values), len(values))]
            a, b = (measure(drawn[:, i], part[:, i]) for i in (0, 1))
            both.append([100 * (b[key] - a[key]) for key in ("fpr95", "auroc")])
            slow[name].append(both[-1])
        slow["average"].append(np.mean(both, axis=0))
    assert [row["set"] for row in rows] == list(slow)
    for row in rows:
        for i, key in enumerate(("fpr95", "auroc")):
            ends = np.quantile(np.array(slow[row["set"]])[:, i], [0.025, 0.975])
            assert (row[key]["low"], row[key]["high"]) == pytest.approx(tuple(ends), abs=1e-9)
    one, whole = rows[0], [measure(inner[:, i], outer[0][:, i]) for i in (0, 1)]
    for key in ("fpr95", "auroc"):
        assert [one[key]["a"], one[key]["b"]] == pytest.approx([100 * w[key] for w in whole])
        assert one[key]["difference"] == pytest.approx(one[key]["b"] - one[key]["a"])


def delong(inner, outer):
    """Variance of the difference of two AUROCs on the same images (DeLong et al. 1988)."""
    wins = (outer[:, None] > inner[None]).astype(float)  # (M,N,2)
    variance = 0
    for axis, count in ((0, len(inner)), (1, len(outer))):
        part = wins.mean(axis=axis)
        variance += np.var(part[:, 1] - part[:, 0], ddof=1) / count
    return variance


def test_the_interval_of_auroc_is_as_wide_as_delongs():
    inner, outer = pairs(400, (300,), seed=4)
    (row, _) = compare.compare(*sides(inner, outer), Protocol(), False)
    wide = 2 * 1.96 * 100 * delong(inner, outer[0]) ** 0.5
    assert row["auroc"]["high"] - row["auroc"]["low"] == pytest.approx(wide, rel=0.12)
    assert row["auroc"]["low"] < row["auroc"]["difference"] < row["auroc"]["high"]


def test_a_score_does_not_differ_from_itself():
    inner, outer = pairs(60, (40, 50))
    (a, _) = sides(inner, outer, ("svhn", "isun"))
    for row in compare.compare(a, a, Protocol(), False):
        for key in ("fpr95", "auroc"):
            assert [row[key][end] for end in ("difference", "low", "high")] == [0, 0, 0]


def test_seed_decides_and_b_less_a_is_minus_a_less_b():
    a, b = sides(*pairs(60, (40,)))
    (one, _), (again, _), (other, _), (turned, _) = (
        compare.compare(*pair, Protocol(seed=seed), False)
        for pair, seed in (((a, b), 1), ((a, b), 1), ((a, b), 2), ((b, a), 1))
    )
    assert one == again != other
    for key in ("fpr95", "auroc"):
        assert turned[key]["low"] == pytest.approx(-one[key]["high"])
        assert turned[key]["difference"] == -one[key]["difference"]


def test_the_groups_of_a_protocol_have_means():
    inner, outer = pairs(60, (40, 50))
    near = {"set": "near", "sets": ["svhn", "isun"]}
    rows = compare.compare(*sides(inner, outer, ("svhn", "isun"), groups=[near]), Protocol(), False)
    assert [row["set"] for row in rows] == ["svhn", "isun", "near"]
    mean = np.mean([row["auroc"]["difference"] for row in rows[:2]])
    assert rows[2]["auroc"]["difference"] == pytest.approx(mean)


@pytest.fixture
def files(tmp_path):
    """Paths of train, id, near and far; small files of outputs."""
    made = []
    for i, (name, count) in enumerate((("train", 90), ("id", 60), ("near", 40), ("far", 50))):
        made.append(str(tmp_path / f"{name}.npz"))
        np.savez(made[-1], **arrays_of(count, i, shift=i / 3))
    return made


def run(tmp_path, files, words):
    MAIN(["--outputs", *files, "--save", str(tmp_path / "results"), *words.split()])
    (file,) = (tmp_path / "results").glob("compare_*.json")
    return json.loads(file.read_text()), file


def test_two_scores_of_one_network(tmp_path, files, capsys):
    found, file = run(tmp_path, files, "--compare energy,knn:k=5")
    (pair,) = found["pairs"]
    assert (pair["a"]["score"], pair["b"]["score"]) == ("energy", "knn:k=5")
    assert (found["resamples"], found["level"], found["positive"]) == (1000, 0.95, "ID")
    usual = next(f for f in (tmp_path / "results").glob("*.json") if f != file)
    for letter, entry in zip("ab", json.loads(usual.read_text())["scores"]):
        whole = [row["whole"] for row in (*entry["sets"], entry["average"])]
        for key in ("fpr95", "auroc"):
            here = [row[key][letter] for row in pair["rows"]]
            assert here == pytest.approx([row[key] for row in whole])
    lines = list(csv.DictReader(file.with_suffix(".csv").open()))
    printed = capsys.readouterr().out
    for line, row in zip(lines, pair["rows"]):
        assert line["set"] == row["set"]
        assert float(line["auroc_low"]) == pytest.approx(row["auroc"]["low"], abs=1e-4)
        assert f"[{row['fpr95']['low']:+.2f}, {row['fpr95']['high']:+.2f}]" in printed
    assert [line["set"] for line in lines] == ["near", "far", "average"]


def test_a_score_beside_itself_and_ood_as_positive(tmp_path, files):
    found, _ = run(tmp_path, files, "--compare energy,energy --out_as_pos")
    (pair,) = found["pairs"]
    assert found["positive"] == "OOD"
    MAIN(["--outputs", *files, "--save", str(tmp_path / "results"), "--compare", "energy,energy"])
    kept = {json.loads(f.read_text())["positive"] for f in (tmp_path / "results").glob("c*.json")}
    assert kept == {"ID", "OOD"}  # one takes no place of the other
    for row in pair["rows"]:
        assert [row["fpr95"][end] for end in ("difference", "low", "high")] == [0, 0, 0]


@pytest.mark.parametrize(
    "words, told",
    [
        ("--outputs FILES --compare energy", "names 1; it takes two scores"),
        ("--outputs FILES --compare energy,msp,knn", "names 3"),
        ("--outputs FILES --compare energy,msp --score knn", "leave --score knn out"),
        ("--outputs FILES --compare energy,nosuch", "unknown score 'nosuch'"),
        ("--compare energy,msp", "'energy' is a score. Of which snapshot"),
        ("--compare zscore(energy+msp),a.pt", "is a score. Of which snapshot"),
        ("--compare a.pt,b.pt", "'a.pt' not found"),
        ("--compare a.pt,b.pt --images x", "leave --images"),
        ("--compare a.pt", "two folders of outputs"),
    ],
)
def test_what_are_no_two_is_refused(words, told, files, tmp_path):
    words = words.replace("FILES", " ".join(files)).split()
    with pytest.raises(UserError, match=told):
        MAIN([*words, "--save", str(tmp_path / "results")])


def write_outputs(folder, seed, sizes=(60, 40), labels=None):
    """A folder of outputs of id.npz and ood/near.npz; their arrays."""
    (folder / "ood").mkdir(parents=True)
    made = [arrays_of(size, seed + i, i / 2) for i, size in enumerate(sizes)]
    if labels is not None:
        made[0]["labels"] = labels
    for name, arrays in zip(("id", "ood/near"), made):
        np.savez(folder / f"{name}.npz", **arrays)
    return made


def test_two_folders_of_outputs(tmp_path, capsys):
    sides = {name: write_outputs(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 5))}
    words = ["--compare", f"{tmp_path}/a/,{tmp_path}/b", "--score", "energy,msp"]
    MAIN([*words, "--save", str(tmp_path / "results")])
    (file,) = (tmp_path / "results").glob("compare_*.json")
    pairs = json.loads(file.read_text())["pairs"]
    assert [pair["a"]["score"] for pair in pairs] == ["energy", "msp"]
    for letter, (inner, near) in sides.items():
        energy = [
            -np.logaddexp.reduce(one["logits"].astype(float), axis=1) for one in (inner, near)
        ]
        expected = detection_metrics(*energy)
        row = pairs[0]["rows"][0]
        for key in ("fpr95", "auroc"):
            assert row[key][letter] == pytest.approx(100 * expected[key])
    assert "B - A" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, told",
    [
        (dict(sizes=(60, 41)), r"near \(40\), near \(41\)"),
        (dict(sizes=(50, 40)), r"id \(50\), id \(60\)"),
        (dict(labels=np.zeros(60, np.int64)), "labels of ID images"),
    ],
)
def test_folders_of_other_images_are_not_paired(change, told, tmp_path):
    write_outputs(tmp_path / "a", 1)
    write_outputs(tmp_path / "b", 5, **change)
    with pytest.raises(UserError, match=f"same images: in one of them only, {told}"):
        MAIN(["--compare", f"{tmp_path}/a,{tmp_path}/b", "--save", str(tmp_path / "results")])


def record_of(name, near="1", **more):
    entry = {"score": "energy", "hyper": {}, "sets": [], "average": {}}
    images = {"id": {"name": "x", "fingerprint": "0"}}
    images["ood"] = [{"name": "near", "fingerprint": near}]
    return {"snapshot": {"name": name, "sha256": name}, "scores": [entry], **images, **more}


def test_two_snapshots_are_paired_on_the_same_images_only():
    args = Namespace(model=None, outputs=None)
    a, b, other = (Measured(None, record_of(n, near), {}) for n, near in ("a1", "b1", "c2"))
    ((first, second),) = compare.pair_up([a, b], args)
    assert (first.measured, second.measured, first.label) == (a, b, "energy")
    ((first, second),) = compare.pair_up([a], args)  # a snapshot beside itself
    assert first == second
    with pytest.raises(UserError, match="a and c are not scored on the same images .near"):
        compare.pair_up([a, other], args)
