"""--outputs: the same rows from files as from a network, whatever made them, and bad files in one
line.
"""

import csv
import importlib.util
import json
import re
from argparse import Namespace

import numpy as np
import pytest

from utils.evaluation import saving
from utils.evaluation.case import Case, Sets
from utils.evaluation.rows import measure_set
from utils.metrics import METRICS, openood_metrics
from utils.runtime import ROOT, UserError
from utils.scores import SCORES, Outputs, choose

CLASSES, WIDTH = 3, 8


def script():
    """test.py by its path: the name belongs to a package of the standard library."""
    spec = importlib.util.spec_from_file_location("test_script_of_outputs", ROOT / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAIN = script().main


def arrays_of(count, seed, shift=0.0):
    """Outputs of a head on features around the class means."""
    rng, head = np.random.default_rng(seed), np.random.default_rng(0)
    weight = head.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    bias = head.normal(size=CLASSES).astype(np.float32)
    labels = np.arange(count) % CLASSES
    features = np.maximum(weight[labels] * 2 + rng.normal(shift, 1, (count, WIDTH)), 0)
    features = features.astype(np.float32)
    logits = features @ weight.T + bias
    return dict(logits=logits, features=features, labels=labels, weight=weight, bias=bias)


@pytest.fixture
def files(tmp_path):
    """{name: arrays} of train, id, near and far, which ``score`` writes and scores."""
    return {
        "train": arrays_of(300, 1),
        "id": arrays_of(100, 2),
        "near": arrays_of(60, 3, shift=0.3),
        "far": arrays_of(50, 4, shift=1.0),
    }


@pytest.fixture
def score(files, tmp_path):
    def run(words="--score energy", order=("train", "id", "near", "far")):
        for name, arrays in files.items():
            np.savez(tmp_path / f"{name}.npz", **arrays)
        places = [name if name == "-" else str(tmp_path / f"{name}.npz") for name in order]
        results = tmp_path / f"results{len(list(tmp_path.glob('results*')))}"
        MAIN(["--outputs", *places, "--save", str(results), *words.split()])
        (file,) = results.glob("*.json")
        return json.loads(file.read_text()), file

    return run


def outputs_of(arrays):
    return Outputs(
        **{key: arrays[key] for key in ("logits", "features", "labels", "weight", "bias")}
    )


def test_every_score_of_one_pass_is_that_of_the_arrays(files, score, capsys):
    record, _ = score("--score all --num_to_avg 3")
    printed = capsys.readouterr()
    made = {entry["score"]: entry for entry in record["scores"]}
    wanted = [one for one in choose("all") if "gradient" not in one.needs]
    for one in wanted:
        one.fit(outputs_of(files["train"]))
        values = {name: one.score(outputs_of(files[name])) for name in ("id", "near", "far")}
        for row in made[one.label]["sets"]:
            whole = measure_set(values["id"], values[row["set"]], row["set"])["whole"]
            assert row["whole"] == {metric: pytest.approx(whole[metric]) for metric in METRICS}
    left_out = [line for line in printed.err.splitlines() if "left out" in line]
    assert len(left_out) == 2 and all("gradient" in line for line in left_out)  # odin, mahalanobis
    error = 100 * np.mean(files["id"]["logits"].argmax(axis=1) != files["id"]["labels"])
    assert record["id"]["error"] == pytest.approx(error)


def test_the_files_of_a_result_are_the_usual_ones(files, score):
    record, file = score("--score energy,msp --save-scores")
    assert [images["name"] for images in record["ood"]] == ["near", "far"]
    assert record["arguments"]["outputs"] and record["precision"] == "given"
    lines = list(csv.DictReader(file.with_suffix(".csv").open()))
    assert [line["set"] for line in lines] == ["near", "far", "average"] * 2
    kept = np.load(file.with_name(file.stem + "_scores.npz"))
    energy = SCORES["energy"]().score(outputs_of(files["near"]))
    assert np.array_equal(kept["energy/near"], energy)
    assert np.array_equal(kept["labels/id"], files["id"]["labels"])


def test_logits_alone_are_enough_for_scores_of_logits(files, score, capsys):
    for name in files:
        files[name] = {"logits": files[name]["logits"]}
    record, _ = score("--score energy,msp,gen,klmatching")
    assert "ID error unknown" in capsys.readouterr().out
    assert record["id"]["error"] is record["id"]["accuracy"] is None
    with pytest.raises(
        UserError, match="'knn' needs features.* no 'features' in .*train.npz.*energy"
    ):
        score("--score knn")
    with pytest.raises(UserError, match="'knn' is fitted.*TRAIN.npz in the place of '-'"):
        score("--score knn", order=("-", "id", "far"))


def test_features_alone_are_enough_for_scores_of_features(files, score):
    for name in files:
        files[name] = {key: files[name][key] for key in ("features", "labels")}
    assert len(score("--score knn,mahalanobis")[0]["scores"]) == 2
    with pytest.raises(UserError, match="'energy' needs logits.* no 'logits' in"):
        score("--score energy")


def test_the_head_stands_in_one_file_and_its_bias_may_be_missing(files, score):
    whole, _ = score("--score ash-s,vim")
    for name in ("train", "near", "far"):
        del files[name]["weight"], files[name]["bias"]
    assert score("--score ash-s,vim")[0]["scores"] == whole["scores"]
    del files["id"]["weight"]
    with pytest.raises(UserError, match="id.npz has the head's 'bias', no file its 'weight'"):
        score()
    del files["id"]["bias"]
    with pytest.raises(
        UserError, match="'ash-s' needs features, head; .*'weight' and 'bias' in any"
    ):
        score("--score ash-s")
    for arrays in files.values():
        arrays["logits"] = arrays["features"] @ arrays_of(1, 0)["weight"].T
    files["far"]["weight"] = arrays_of(1, 0)["weight"]
    assert score("--score ash-s")[0]["scores"]


def test_a_head_of_another_network_is_told(files, score, capsys):
    files["id"]["weight"] = files["id"]["weight"][:, ::-1]
    for name in ("train", "near", "far"):
        del files[name]["weight"]
    score()
    assert "not features @ weight.T + bias" in capsys.readouterr().err


def test_a_name_is_given_as_elsewhere(files, score, tmp_path):
    np.savez(tmp_path / "other.npz", **files["far"])
    record, _ = score(order=("train", "id", "near"))
    assert [row["set"] for row in record["scores"][0]["sets"]] == ["near"]
    MAIN(
        ["--save", str(tmp_path / "named"), "--outputs", "-", str(tmp_path / "id.npz")]
        + [f"svhn={tmp_path}/other.npz", f"isun={tmp_path}/near.npz"]
    )
    (file,) = (tmp_path / "named").glob("*.json")
    assert [images["name"] for images in json.loads(file.read_text())["ood"]] == ["svhn", "isun"]


@pytest.mark.parametrize(
    "name, change, words",
    [
        (
            "id",
            {"logits": None, "features": None},
            "id.npz holds labels, .*'logits' .N,C. are needed",
        ),
        (
            "far",
            {"logits": np.ones((50, 4))},
            "far.npz: 'logits' is of 4 classes, .*train.npz of 3",
        ),
        ("id", {"features": np.ones((100, 9))}, "id.npz: 'features' is of 9 features"),
        ("id", {"features": np.ones((99, 8))}, "id.npz: 'features' is of 99 images"),
        ("id", {"labels": np.zeros(99, int)}, "id.npz: 'labels' is of 99 images"),
        ("id", {"labels": np.full(100, 3)}, "id.npz: labels go from .* 3, outside 0 to 2"),
        ("train", {"labels": np.full(300, -1)}, "train.npz: labels go from -1"),
        ("id", {"labels": np.zeros(100)}, "labels are float64"),
        ("far", {"weight": np.ones((3, 7))}, "far.npz: 'weight' is of 7 features"),
        ("far", {"weight": np.ones((3, 8))}, "far.npz: 'weight' is not that of .*train.npz"),
        ("far", {"bias": np.ones((3, 1))}, r"'bias' has shape \(3, 1\), not \(C\)"),
        ("far", {"logits": np.ones(50)}, r"'logits' has shape \(50,\), not \(N,C\)"),
        ("far", {"logits": np.ones((0, 3))}, r"'logits' has shape \(0, 3\)"),
        ("far", {"logits": np.full((50, 3), "a")}, "'logits' is <U1, not floating"),
        ("far", {"logits": np.ones((50, 3), int)}, "'logits' is int64, not floating"),
        ("far", {"logits": np.full((50, 3), None)}, "cannot be read as an .npz.*pickle"),
        ("far", {"features": np.full((50, 8), np.inf)}, "row 0 of 'features' is not finite"),
        ("far", {"logits": np.full((50, 3), 1e300)}, "row 0 of 'logits' is not finite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(files, score, name, change, words):
    files[name] = {k: a for k, a in {**files[name], **change}.items() if a is not None}
    with pytest.raises(UserError, match=words) as error:
        score()
    assert "\n" not in str(error.value)


def test_what_is_no_file_of_outputs_is_refused(files, score, tmp_path):
    score()
    for name, content in (("a.npz", b"PK\3\4"), ("b.npz", b""), ("c.npz", b"\x80\x04.")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            score(order=("train", "id", name.removesuffix(".npz")))
    np.save(tmp_path / "one.npy", np.ones((3, 3)))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    np.savez(tmp_path / "copy.npz", logits=files["id"]["logits"], features=files["id"]["features"])
    for order, words in (
        (("train", "id", "one"), "one.npz is one array"),
        (("train", "id", "nosuch"), "nosuch.npz does not exist"),
        (("train", "id"), "TRAIN.npz ID.npz OOD.npz .* are needed"),
        (("train", "-", "far"), "are needed"),
        (("id", "id", "far"), "holds the same outputs as .*id.npz"),
        (("train", "id", "copy"), "copy.npz holds the same outputs as .*id.npz"),
        (("train", "id", "id"), "names 'id'"),
        (("train", "id", "far", "far"), "names 'far' twice"),
    ):
        with pytest.raises(UserError, match=words):
            score(order=order)


@pytest.mark.parametrize("words", ["--model x", "--ood svhn", "--id .", "--harmonise 90"])
def test_options_of_network_and_images_are_not_taken(score, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        score(words)
    assert stopped.value.code == 2 and words.split()[0] in capsys.readouterr().err


def test_a_score_that_steps_needs_the_network(score):
    with pytest.raises(UserError, match="'odin' needs the gradient.*--model.*odin:eps=0"):
        score("--score odin")
    assert score("--score odin:eps=0")[0]["scores"]


def test_the_groups_of_a_protocol_are_found_by_name(files, score):
    files["ninco"] = files.pop("near")
    record, _ = score("--protocol imagenet200", order=("train", "id", "ninco", "far"))
    (group,) = record["scores"][0]["groups"]
    assert group["sets"] == ["ninco"] and group["lacks"] == ["ssb_hard"]
    assert "textures" in record["missing"]


def test_named_id_outputs_have_the_groups_of_their_data_set(files, tmp_path):
    files |= {"tin": files.pop("near"), "svhn": files.pop("far")}
    for name, arrays in files.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    train, inner, tin, svhn = (f"{tmp_path}/{name}.npz" for name in ("train", "id", "tin", "svhn"))

    def run(item, protocol):
        words = ["--save", str(tmp_path / "results"), "--protocol", protocol]
        MAIN(["--outputs", train, item, tin, svhn, *words])
        newest = max((tmp_path / "results").glob("*.json"), key=lambda f: f.stat().st_mtime_ns)
        return json.loads(newest.read_text())["scores"][0]

    near, far = run(f"cifar10={inner}", "openood")["groups"]
    assert (near["sets"], near["lacks"]) == (["tin"], ["cifar100"]) and far["sets"] == ["svhn"]
    plain, named = run(inner, "paper"), run(f"cifar10={inner}", "paper")
    assert plain == named and "groups" not in plain
    with pytest.raises(UserError, match="cifar10 and cifar100. Say .* cifar10=.*id.npz"):
        run(inner, "openood")
    with pytest.raises(UserError, match="not of svhn"):
        run(f"svhn={inner}", "openood")


def test_shifted_id_images_are_those_called_so(files, score, capsys):
    files |= {"imagenet_r": arrays_of(30, 5, shift=0.1), "ninco": files.pop("near")}
    order = ("train", "id", "ninco", "imagenet_r", "far")
    record, file = score("--protocol fsood --score knn:k=5 --save-scores", order)
    knn = SCORES["knn"](k=5).fit(outputs_of(files["train"]))
    inner, shifted, ninco = (
        knn.score(outputs_of(files[name])) for name in ("id", "imagenet_r", "ninco")
    )
    wanted = openood_metrics(np.concatenate([inner, shifted]), ninco)
    (row, _) = record["scores"][0]["sets"]
    assert [row[key] for key in METRICS] == pytest.approx([100 * wanted[key] for key in METRICS])
    assert [part["name"] for part in record["shifted"]] == ["imagenet_r"]
    assert record["id"]["images"] == 100 and "imagenet_c" in record["missing"]
    with np.load(file.with_name(file.stem + "_scores.npz")) as kept:
        assert np.array_equal(kept["knn:k=5/imagenet_r"], shifted)
        assert len(kept["predictions/imagenet_r"]) == 30
    record, _ = score("--protocol imagenet200", order)  # which has no shifted ones
    assert "shifted" not in record and len(record["scores"][0]["sets"]) == 3
    with pytest.raises(UserError, match="imagenet_r.* are ID images here; an OOD.npz is needed"):
        score("--protocol fsood", ("train", "id", "imagenet_r"))


def test_saved_outputs_replace_no_others(tmp_path, capsys):
    def save(ids, far, shifted=()):
        made = {"id": ids, "far": far, **dict(shifted)}
        sets = {
            name: Namespace(name=name, arrays=arrays_of(5, seed)) for name, seed in made.items()
        }
        network = Namespace(outputs=lambda images: Outputs(**images.arrays))
        extra = [sets[name] for name in made if name not in ("id", "far")]
        found = Sets(sets["id"], [sets["far"]], sets["id"], tuple(extra))
        args = Namespace(save_outputs=str(tmp_path), protocol="fsood" if shifted else "paper")
        file = tmp_path / "tune_sr" / "x_epoch_1.pt"
        saving.save(Case(file, {}, network, found, [], args))
        return capsys.readouterr().out

    assert "note" not in save(1, 2)
    first = {file: file.read_bytes() for file in tmp_path.rglob("*.npz")}
    assert "note" not in save(1, 2)  # the same again
    told = save(1, 3)  # of other OOD images
    assert "holds other outputs (ood/far.npz) and stays" in told
    assert all(file.read_bytes() == content for file, content in first.items())
    assert len(list(tmp_path.iterdir())) == 2 and save(1, 3).count("note") == 1
    assert len(list(tmp_path.iterdir())) == 2
    told = save(1, 2, {"imagenet_r": 4})  # beside what is there already
    assert "/id.npz" in told and "shifted/*.npz --protocol fsood" in told and "note" not in told
    (file,) = tmp_path.rglob("shifted/imagenet_r.npz")
    assert np.array_equal(np.load(file)["logits"], arrays_of(5, 4)["logits"])


def test_the_lines_for_a_notebook_run_as_they_stand_in_the_page(files, capsys):
    page = (ROOT / "utils" / "scores" / "README.md").read_text(encoding="utf-8")
    (lines,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", page, re.S)
        if "detection_metrics" in block
    )
    assert len([line for line in lines.splitlines() if line]) <= 10
    given = {"weight": files["id"]["weight"], "bias": files["id"]["bias"]}
    for name, of in (("train", "train"), ("id", "id"), ("ood", "far")):
        given |= {f"{name}_{key}": files[of][key] for key in ("logits", "features", "labels")}
    exec(lines, given)
    printed = capsys.readouterr().out.splitlines()
    for line, name in zip(printed, ("energy", "knn", "vim")):
        score = SCORES[name]().fit(outputs_of(files["train"]))
        row = measure_set(*(score.score(outputs_of(files[one])) for one in ("id", "far")), "far")
        fpr95, auroc = (row["whole"][metric] for metric in ("fpr95", "auroc"))
        assert line == f"{name}: FPR95 {fpr95:.2f}%, AUROC {auroc:.2f}%"
    assert len(printed) == 3


def test_outputs_of_logits_alone(files):
    logits = files["id"]["logits"]
    alone, whole = Outputs(logits), outputs_of(files["id"])
    assert alone.take(slice(3)).features.shape == (3, 0)
    assert np.array_equal(SCORES["msp"]().score(alone), SCORES["msp"]().score(whole))


def test_hyper_parameters_are_chosen_on_given_validation_outputs(files, score, tmp_path, capsys):
    np.savez(tmp_path / "own.npz", **arrays_of(40, 9, shift=0.5))
    record, _ = score(f"--score knn --tune-scores --validation-ood {tmp_path}/own.npz")
    assert record["tuned"]["knn"] and record["validation_ood"][0]["images"] == 40
    assert "against validation OOD images (own)" in capsys.readouterr().out
    shared = {
        key: np.concatenate([files[one][key][:5] for one in ("far", "near")])
        for key in ("logits", "features")
    }
    np.savez(tmp_path / "own.npz", **shared)
    with pytest.raises(UserError, match="'own' .*5 of its 10 images in common .*'near'"):
        score(f"--tune-scores --validation-ood {tmp_path}/own.npz", order=("train", "id", "near"))
    with pytest.raises(UserError, match="noise would need the network"):
        score("--tune-scores")
    with pytest.raises(SystemExit):
        score(f"--validation-ood {tmp_path}/own.npz")
    assert "--tune-scores" in capsys.readouterr().err
