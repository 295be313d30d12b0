"""Training on one's own: given weights, a new head, small devices, imbalanced sets, --dry-run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import coloured, noise, write_own

import models
from utils import loaders, snapshots, training
from utils.loaders.batches import balanced_order
from utils.losses import Batch, losses_of
from utils.runtime import UserError
from utils.training import files, recipes

SMALL = "--layers 10 --widen-factor 1 --batch_size 16 --device cpu"


# ---- --accumulate


@pytest.mark.parametrize("name", ["sr", "sroe", "oe", "energy", "greg"])
def test_the_gradients_of_the_parts_add_up_to_the_whole_steps(name):
    torch.manual_seed(1)
    loss = losses_of("tune")[name]()
    if "m_in" in loss.hyper:  # both sides of the margins at work
        loss.m_in, loss.m_out = -3.0, 3.0
    model = models.build("wrn", 3, 10, 1, 0.0).double().eval()  # BatchNorm's statistics stand still
    x, y = torch.randn(6, 3, 8, 8).double(), torch.arange(6) % 3
    x_out = torch.randn(9 if loss.outliers else 0, 3, 8, 8).double()

    def gradients(count):
        model.zero_grad()
        shares = []
        for a, b, c, share in training.parts(x.clone(), y, x_out.clone(), count):
            a.requires_grad_(loss.gradient), c.requires_grad_(loss.gradient)
            logits, features = model(torch.cat([a, c]))
            (share * sum(loss(Batch(a, c, b, logits, features)).values())).backward()
            shares.append(share)
        assert sum(shares) == pytest.approx(1) and len(shares) == count
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    assert torch.allclose(gradients(1), gradients(3), rtol=1e-9, atol=1e-12)


def test_there_are_no_more_parts_than_images_and_none_without_outliers():
    x, y = torch.zeros(5, 3, 2, 2), torch.zeros(5)
    assert len(list(training.parts(x, y, x[:0], 9))) == 5
    seen = list(training.parts(x, y, x[:2], 4))
    assert [len(part[2]) for part in seen] == [1, 1]
    assert [part[3] for part in seen] == [3 / 5, 2 / 5]


def test_the_log_counts_steps_and_not_passes():
    log = training.StepLog(first_step=10)
    for value in (1.0, 2.0, 4.0):
        for share in (0.25, 0.75):
            log.add({"ce": torch.tensor(value * share)}, share)
    # 1/4 of 1/4 and 3/4 of 3/4 of each value
    assert log.means() == {"ce": pytest.approx((1 + 2 + 4) * 10 / 16 / 3)} and log.steps == 3
    log.add({"ce": torch.tensor(1.0)}, 1 / 3)
    log.add({"ce": torch.tensor(float("nan"))}, 2 / 3)
    with pytest.raises(UserError, match="not finite at step 13 "):
        log.check()


def test_a_run_in_parts_is_that_run_where_nothing_depends_on_the_batch(project, tmp_path):
    own = write_own(tmp_path / "own")
    (project.root / "nonorm.py").write_text(
        "import torch\n"
        "def make(classes):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8),"
        " torch.nn.ReLU(), torch.nn.Linear(8, classes))\n"
    )
    command = f"baseline.py parts --id {own} --epochs 2 --arch nonorm:make --batch_size 16 --precision fp32"
    weights = []
    for words in ("", "--accumulate 3"):
        project.do(f"{command} {words} --device cpu --save ./snapshots/x{len(words)}")
        (file,) = (project.root / f"CIFAR/snapshots/x{len(words)}").glob("parts_*_epoch_1.pt")
        weights.append(torch.load(file, weights_only=True))
        recipe = json.loads(file.with_suffix(".json").read_text())["recipe"]
        assert recipe.get("accumulate") == (3 if words else None)
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-6), name
    assert not all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    project.refuse(f"{command} --loss supcon --accumulate 2", "pairs", "--batch_size")


# ---- --balance


def test_a_balanced_epoch_has_every_class_equally_often():
    labels = torch.tensor([0] * 50 + [1] * 7 + [4] * 3)
    order = balanced_order(labels, torch.Generator().manual_seed(1))
    counts = torch.bincount(labels[order])
    assert len(order) == 60 and counts.tolist() == [20, 20, 0, 0, 20]
    drawn = [torch.bincount(order[labels[order] == c], minlength=60) for c in (0, 1, 4)]
    assert drawn[0].max() == 1  # no image of the large class twice
    assert set(drawn[1][50:57].tolist()) == {2, 3} and set(drawn[2][57:].tolist()) == {6, 7}
    again = balanced_order(labels, torch.Generator().manual_seed(2))
    assert order.tolist() != again.tolist()
    assert (labels[order][:-1] != labels[order][1:]).sum() > 20  # not class by class


def test_balance_reaches_the_network(project, tmp_path):
    own = tmp_path / "skewed"
    own.mkdir()
    images, _ = coloured(64, 2, 8, 1)
    labels = np.array([0] * 60 + [1] * 4)
    images[..., 0] = np.where(labels, 255, 0)[:, None, None]
    np.savez(own / "train.npz", images=images, labels=labels)
    np.savez(own / "test.npz", images=255 - images, labels=labels)
    seen = tmp_path / "seen"
    prelude = f"""
import torch
forward = torch.nn.functional.cross_entropy
def record(logits, y, **k):
    if torch.is_grad_enabled(): open({str(seen)!r}, "a").write(" ".join(map(str, y.tolist())) + " ")
    return forward(logits, y, **k)
torch.nn.functional.cross_entropy = record
"""
    for words in ("", "--balance"):
        seen.write_text("")
        project.do(f"baseline.py skewed --id {own} --epochs 1 {SMALL} {words}", prelude=prelude)
        assert seen.read_text().split().count("1") == (32 if words else 4)


# ---- --load and --new-head


def test_given_weights_train_at_a_hundredth_of_the_rate_for_a_tenth_of_the_epochs():
    plain, given = (recipes.resolve("pretrain", "cifar10"),
                    recipes.origins("pretrain", "cifar10", divisors=recipes.divisors_of("x")))  # fmt: skip
    assert given["learning_rate"].value == pytest.approx(plain["learning_rate"] / 100)
    assert given["epochs"].value == 10 and "given weights" in given["epochs"].origin
    rest = {key: entry.value for key, entry in given.items()}
    assert {key for key in plain if plain[key] != rest[key]} == {"learning_rate", "epochs"}
    head = recipes.origins("pretrain", "cifar10", divisors=recipes.divisors_of("x", True))
    assert head["learning_rate"].value == pytest.approx(plain["learning_rate"] / 10)
    assert head["epochs"].value == 10 and "with a new head" in head["learning_rate"].origin
    assert recipes.divisors_of(None, True) == {} != recipes.divisors_of("x")
    tuned = recipes.origins("tune", "cifar10", "sr", divisors=recipes.divisors_of("x"))
    assert tuned["learning_rate"].value == 1e-3


def test_a_new_head_keeps_the_rest_of_the_given_weights(project, tmp_path):
    three, five = write_own(tmp_path / "three"), write_own(tmp_path / "five", classes=5)
    project.do(f"baseline.py three --id {three} --epochs 1 {SMALL}")
    command = (
        f"baseline.py five --id {five} --load three_wrn_pretrained --batch_size 16 --device cpu"
    )
    project.refuse(command, "for 3 classes, not for the 5 of five", "--new-head")
    project.refuse(f"baseline.py five --id {five} --new-head", "--load")
    # the network's shape comes from the snapshot; at this rate next to nothing is learnt
    project.do(f"{command} --new-head --epochs 1 --lr 1e-12 --momentum 0")
    folder = project.root / "CIFAR/snapshots/pretrained"
    (old,), (new,) = folder.glob("three_*_epoch_0.pt"), folder.glob("five_*_epoch_0.pt")
    described = json.loads(new.with_suffix(".json").read_text())
    assert described["layers"] == 10 and described["parent"] == old.name
    assert "id_accuracy_before" not in described  # of a new head it says nothing
    told = project.do(
        f"{command} --id {three} --lr 1e-12 --epochs 1 --momentum 0 --dry-run".replace(
            "five", "three", 1
        )
    )
    error = 100 - json.loads(old.with_suffix(".json").read_text())["id_accuracy"]
    assert f"from {snapshots.short_name(old)}" in told or "from pretrained/three" in told
    assert f"ID error before fine-tuning {error:.2f} %" in told
    old, new = snapshots.read_weights(old), snapshots.read_weights(new)
    assert new["fc.weight"].shape == (5, 64)
    same = [name for name in old if "fc." not in name and "running" not in name]
    same = [name for name in same if "num_batches" not in name]
    assert same and all(torch.allclose(old[name], new[name], atol=1e-4) for name in same)


def test_classes_of_other_names_are_noted(capsys, tmp_path):
    path = tmp_path / "given_epoch_0.pt"
    model = models.build("wrn", 2, 10, 1)
    description = {"arch": "wrn", "layers": 10, "widen_factor": 1, "num_classes": 2,
                   "dataset": "pets", "classes": ["cat", "dog"]}  # fmt: skip
    snapshots.save_snapshot(path, model, description)
    for classes, noted in ((["cat", "dog"], False), (["ant", "bee"], True), ([], False)):
        training.load_given(model, path, {**description, "classes": classes}, new_head=False)
        assert ("other classes (cat, dog" in capsys.readouterr().err) == noted
    training.load_given(model, path, {**description, "classes": ["ant", "bee"]}, new_head=True)
    assert not capsys.readouterr().err


def test_a_finished_run_of_another_network_or_images_is_told_at_the_start(tmp_path):
    """Of one name: functions of two modules, --id at two places."""
    run = files.RunFiles(tmp_path, "own_net_pretrained")
    made = {"arch": "a:net", "data": "/a", "data_fingerprint": "1"}
    assert run.finished_otherwise(made) == ""
    written = tmp_path / "own_net_pretrained_epoch_4.json"
    written.write_text(json.dumps(made))
    assert run.finished_otherwise(made) == ""
    assert run.finished_otherwise({**made, "arch": "b:net"}) == "another network (a:net)"
    other = run.finished_otherwise({**made, "arch": "b:net", "data_fingerprint": "2"})
    assert other == "another network (a:net) and other images (/a)"
    written.write_text("{}")  # a former version's
    assert run.finished_otherwise(made) == ""
    written.write_text("[")
    assert run.finished_otherwise(made) == ""


# ---- --dry-run


def test_a_dry_run_says_what_would_be_and_writes_nothing(project, tmp_path):
    own = write_own(tmp_path / "own")
    command = f"baseline.py dry --id {own} {SMALL} --epochs 50 --lr 0.05"
    before = sorted(project.root.rglob("*"))
    told = project.do(f"{command} --dry-run")
    assert sorted(project.root.rglob("*")) == before
    lines = {line.split()[0]: line for line in told.splitlines() if line.strip()}
    assert lines["learning_rate"].split() == ["learning_rate", "0.05", "typed"]
    assert "[Energy], [SR]" in lines["momentum"]
    assert "4 an epoch, 200 in 50 epochs; 16 of 60 images" in lines["steps"]
    assert "the median of 10 " in lines["time"]  # of three epochs' steps
    assert "GiB" in lines["memory"] and "estimate" in lines
    project.do(f"{command.replace('50', '1')}")
    told = project.do(f"tune.py dry --id {own} --batch_size 16 --device cpu --dry-run --balance")
    assert "balance         True        typed" in told
    assert "the network that was given" in told  # its shape
    assert not (project.root / "CIFAR/snapshots/tune_sr").exists()


def test_the_estimate_is_of_the_timed_steps_and_the_epochs_left(monkeypatch, capsys):
    from utils.training import rehearsal

    clock = iter([0, 50, 60, 70, *range(80, 108, 2), 100, 1000])
    args = SimpleNamespace(
        epochs=20, resume=False, recipe={"batch_size": 4, "epochs": 20}, origins={"epochs": "typed"}
    )
    model = torch.nn.Linear(1, 1)
    run = rehearsal.Rehearsal("there", "x", model, None, args, {"train_images": 4000})
    monkeypatch.setattr(rehearsal.Rehearsal, "now", lambda self: float(next(clock)))

    class Thousand:
        def __len__(self):
            return 1000

        def epoch(self, epoch):
            yield from range(1000)

    assert len(list(run.steps(Thousand(), 0))) == rehearsal.WARM + rehearsal.TIMED
    run.times[-1] = 98.0
    run.end_epoch(0, training.StepLog(0), 1.0, 1.0)
    run.finish(None)
    told = capsys.readouterr().out
    # ten steps of 2 s: 2,000 s an epoch, and what testing took
    assert "2 s a step, the median of 10" in told and "20,000 in 20 epochs" in told
    assert f"{20 * (2000 + run.tested) / 3600:.1f} hours" in told


def test_a_given_network_that_is_near_chance_is_warned_of(tmp_path, capsys):
    images = loaders.make_set(noise(60, 8, 0), None, "x")
    for error, described, told in ((66, None, 1), (20, None, 0), (66, 90, 1), (66, 35, 0)):
        if described:
            (tmp_path / "a.json").write_text(json.dumps({"id_accuracy": described}))
        training.note_chance(error, images, 3, tmp_path / "a.pt")
        assert capsys.readouterr().err.count("a.pt is near chance") == told


def test_id_takes_the_name_of_a_set_in_the_data_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_own(data / "mine")
    assert loaders.id_place("mine", data) == str(data / "mine")
    np.savez(data / "other.npz", images=noise(2, 8, 0), labels=[0, 1])
    assert loaders.id_place("other", data) == str(data / "other.npz")
    assert loaders.id_place("nothing", data) == "nothing"
    for name, words in (("svhn", "python data/download.py svhn"), ("digits", "baseline.py digits")):
        with pytest.raises(UserError, match=words):
            loaders.id_place(name, data)
    (tmp_path / "mine").mkdir()
    assert loaders.id_place("mine", data) == "mine"  # what is there is what is meant
