"""Network: one pass a set, outputs in order, the input step, fitted statistics from the cache,
errors that name the image.
"""

import importlib
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import models
from utils import loaders, runtime
from utils.evaluation import network as network_module
from utils.evaluation.load import take_known_set
from utils.evaluation.network import Network
from utils.evaluation.told import multiply_adds, own_code
from utils.loaders import normalise
from utils.runtime import UserError
from utils.scores import SCORES, Score, as_user_error, choose


class Small(nn.Module):
    """Mean colours of the four quarters, a hidden layer, a head;
    counts its forward passes and images.
    """

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.hidden, self.fc = nn.Linear(12, 20), nn.Linear(20, 3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.images = 0

    def forward(self, x):
        self.images += len(x)
        hidden = torch.relu(self.hidden(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)))
        return self.fc(hidden), hidden


def images_of(count, seed, labelled=True):
    rng = np.random.default_rng(seed)
    return loaders.make_set(
        rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        rng.integers(0, 3, count) if labelled else None,
        f"set{seed}",
    )


def network_in(folder, model=None, sha="a" * 64, batch_size=7):
    return Network(model or Small(), sha, torch.device("cpu"), "fp32", batch_size, cache=folder)


def test_outputs_are_those_of_the_images_in_order(tmp_path):
    images = images_of(23, 1)
    outputs = network_in(tmp_path).outputs(images)
    logits, hidden = Small()(normalise(images.images.permute(0, 2, 3, 1)))
    np.testing.assert_allclose(outputs.logits, logits.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs.features, hidden.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        outputs.features @ outputs.weight.T + outputs.bias, outputs.logits, rtol=1e-4, atol=1e-4
    )
    assert np.array_equal(outputs.labels, images.labels)


def test_one_pass_serves_every_score_and_the_next_run(tmp_path):
    train, test = images_of(60, 1), images_of(23, 2)
    network = network_in(tmp_path)
    plain = [
        score
        for score in choose("all")
        if "gradient" not in score.needs
        and score.label not in ("knn", "vim", "residual", "nnguide")
    ]
    for score in plain:
        if "train" in score.needs:
            network.fit(score, train)
        network.score(score, test)
    assert network.model.images == len(train) + len(test)
    again = network_in(tmp_path)
    for score in plain:
        fresh = SCORES[score.name]()
        if "train" in fresh.needs:
            again.fit(fresh, train)
        np.testing.assert_array_equal(again.score(fresh, test), network.score(score, test))
    assert again.model.images == 0


def test_another_snapshot_other_images_or_a_damaged_file_are_not_read_from_the_cache(tmp_path):
    network_in(tmp_path).outputs(images_of(5, 1))
    other = network_in(tmp_path, sha="b" * 64)
    other.outputs(images_of(5, 1))
    same = network_in(tmp_path)
    same.outputs(images_of(5, 2))
    assert (other.model.images, same.model.images) == (5, 5)
    for file in tmp_path.rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    damaged = network_in(tmp_path)
    damaged.outputs(images_of(5, 1))
    assert damaged.model.images == 5


def test_input_step_is_the_formula_image_by_image(tmp_path):
    images, model = images_of(9, 3, labelled=False), Small()
    odin = choose("odin:T=10,eps=0.05")[0]
    outputs = network_in(tmp_path, batch_size=4).stepped_outputs(images, odin)
    x = normalise(images.images.permute(0, 2, 3, 1))
    std = torch.tensor(loaders.STD).view(3, 1, 1)
    for i in range(len(images)):
        one = x[i : i + 1].clone().requires_grad_(True)
        logits, _ = model(one)
        nn.functional.cross_entropy(logits / 10, logits.argmax(dim=1)).backward()
        moved, _ = model(x[i : i + 1] - 0.05 * one.grad.sign() / std)
        np.testing.assert_allclose(outputs.logits[i], moved[0].detach(), rtol=1e-4, atol=1e-4)


def test_mahalanobis_with_step_moves_towards_a_class_mean(tmp_path):
    train, test = images_of(80, 1), images_of(20, 2)
    network = network_in(tmp_path)
    plain, stepped = choose("mahalanobis,mahalanobis:eps=0.01")
    network.fit(plain, train), network.fit(stepped, train)
    assert network.score(stepped, test).mean() < network.score(plain, test).mean()


def test_values_that_are_not_finite_name_the_image(tmp_path):
    model = Small()
    broken = images_of(6, 1)
    model.forward = lambda x: (
        torch.zeros(len(x), 3),
        torch.where(torch.arange(len(x)) == 4, torch.nan, 1.0)[:, None].expand(-1, 20),
    )
    with pytest.raises(UserError, match="'set1': features of image 4 are not finite"):
        network_in(tmp_path, model).outputs(broken)


@pytest.mark.parametrize(
    "values, words", [(np.zeros((6, 2)), "shape"), (np.array([0, 0, np.nan, 0, 0, 0]), "image 2")]
)
def test_a_score_of_the_wrong_shape_or_with_nan_is_named(tmp_path, values, words):
    class Wrong(Score):
        name = "wrong"

        def score(self, outputs):
            return values

    with pytest.raises(UserError, match=words):
        network_in(tmp_path).score(Wrong(), images_of(6, 1))


def test_images_the_network_cannot_take_are_named():
    import models

    with pytest.raises(UserError, match="--image-size"):
        loaders.check_fits(models.build("allconv", 10), images_of(2, 1))

    class Large(Small):
        def forward(self, x):
            assert x.shape[-1] == 224

    with pytest.raises(UserError, match="--image-size"):
        loaders.check_fits(Large(), images_of(2, 1))


@pytest.mark.parametrize("what", ["logits", "features", "weight", "bias"])
def test_a_score_cannot_change_what_others_see(tmp_path, what):
    class Greedy(Score):
        name = "greedy"

        def score(self, outputs):
            getattr(outputs, what)[:] = 0
            return np.zeros(len(outputs))

    network, images = network_in(tmp_path), images_of(6, 1)
    weight = network.model.fc.weight.clone()
    with pytest.raises(UserError, match="read-only"), as_user_error(Greedy()):
        network.score(Greedy(), images)
    assert torch.equal(network.model.fc.weight, weight)
    np.testing.assert_array_equal(
        network.outputs(images).logits, network_in(tmp_path / "other").outputs(images).logits
    )


def test_code_of_every_module_is_in_the_key(tmp_path, monkeypatch):
    """A network of one's own may be made of blocks that lie in other files."""
    keys = []
    for constant in (1, 2):
        for name, text in (
            (
                "blocks_of_mine",
                (
                    "import torch\nclass Block(torch.nn.Identity):\n"
                    f"    def forward(self, x): return {constant} * x\n"
                ),
            ),
            ("net_of_mine", "from blocks_of_mine import Block\n"),
        ):
            (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        for name in ("blocks_of_mine", "net_of_mine"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        model = Small()
        model.block = importlib.import_module("net_of_mine").Block()
        keys.append(network_in(tmp_path, model).key(images_of(2, 1)))
    assert keys[0] != keys[1]


CHANGES = ("sha256", "images", "labels", "precision", "kind", "device", "mean", "FORWARD")


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_outputs_is_in_the_key(tmp_path, monkeypatch, change):
    def key(change):
        images = images_of(2, 2 if change == "images" else 1)
        if change == "labels":
            images = loaders.make_set(
                images.images.permute(0, 2, 3, 1).numpy(), [2, 2], images.name
            )
        network = network_in(tmp_path, sha=("b" if change == "sha256" else "a") * 64)
        other = {
            "precision": "bf16",
            "kind": "compiled",
            "device": torch.device("cuda"),
            "mean": (0.5, 0.5, 0.5),
        }
        vars(network).update({name: value for name, value in other.items() if name == change})
        monkeypatch.setattr(network_module, "FORWARD", 2 if change == "FORWARD" else 1)
        return network.key(images)

    assert key(None) == key(None) != key(change)


def test_no_source_file_of_ours_is_in_the_key():
    """A comment that is edited makes no outputs anew;
    FORWARD and the test of recorded outputs hold the rest.
    """
    import models

    assert own_code(models.build("wrn", 10, 10, 1), "wrn") == []
    assert Path(__file__).read_bytes() in own_code(Small(), "")


def test_the_function_and_the_options_of_ones_own_network_are_in_the_key(tmp_path, monkeypatch):
    """The same weights, file and classes; what differs is the function that is named,
    or an option that has no weights.
    """
    (tmp_path / "nets_of_mine.py").write_text(
        "import torch\nclass Pool(torch.nn.AvgPool2d): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def key(arch, size):
        model = Small()
        model.pool = importlib.import_module("nets_of_mine").Pool(size)
        network = Network(
            model,
            "a" * 64,
            torch.device("cpu"),
            "fp32",
            cache=tmp_path,
            arch=f"nets_of_mine:{arch}",
        )
        return network.key(images_of(2, 1))

    assert len({key("one", 2), key("one", 2), key("other", 2), key("one", 4)}) == 3


def test_what_a_score_has_learnt_and_the_hyper_parameters_are_in_the_key_of_a_step(tmp_path):
    test = images_of(9, 3)

    def passed(specification, train):
        network = network_in(tmp_path)
        network.fit(score := choose(specification)[0], images_of(80, train))
        before = network.model.images
        network.score(score, test)
        return network.model.images - before

    assert [passed("mahalanobis:eps=0.01", 1) > 0, passed("mahalanobis:eps=0.01", 1)] == [True, 0]
    assert passed("mahalanobis:eps=0.02", 1) and passed("mahalanobis:eps=0.01", 2)


def test_multiplications_of_a_wide_resnet():
    import models

    count = multiply_adds(
        models.build("wrn", 10), loaders.make_set(np.zeros((1, 32, 32, 3), np.uint8), None, "x")
    )
    assert 0.32e9 < count < 0.34e9  # WRN-40-2 on 32x32 is known as 0.33 G multiply-adds


@pytest.fixture
def pretended(monkeypatch):
    """Compiling that takes no time and gives a function of the model;
    returns how often it was done.
    """
    made = []

    def compile_inference(model, example):
        made.append(len(example))
        return lambda x: model(x)

    monkeypatch.setattr(network_module, "compile_inference", compile_inference)
    return made


def asked(folder, compile, sets, above=1e18):
    """A network that was asked for the outputs of all sets, planned as test.py does."""
    network = Network(Small(), "a" * 64, torch.device("cpu"), "fp32", 7, cache=folder).compiling(
        compile
    )
    network_module.COMPILE_ABOVE["cpu"] = above
    network.plan(sets)
    for images in sets:
        network.outputs(images)
    return network


@pytest.fixture(autouse=True)
def limit_as_it_was(monkeypatch):
    monkeypatch.setattr(network_module, "COMPILE_ABOVE", dict(network_module.COMPILE_ABOVE))


def test_auto_compiles_if_the_work_is_worth_it(tmp_path, pretended):
    sets = [images_of(23, 1), images_of(9, 2)]
    assert asked(tmp_path / "a", "auto", sets).kind == "eager" and pretended == []
    assert asked(tmp_path / "b", "auto", sets, above=1).kind == "compiled" and pretended == [7]


@pytest.mark.parametrize("kind, compile", [("eager", "off"), ("compiled", "on")])
def test_auto_takes_what_is_cached_and_says_which_it_was(tmp_path, pretended, kind, compile):
    sets = [images_of(23, 1), images_of(9, 2)]
    asked(tmp_path, compile, sets)
    for above in (1, 1e18):
        again = asked(tmp_path, "auto", sets, above)
        assert (again.kind, again.model.images) == (kind, 0)


def test_outputs_of_one_result_are_of_one_kind(tmp_path, pretended):
    few, many = images_of(2, 1), images_of(200, 2)
    work = multiply_adds(Small(), few)
    asked(tmp_path, "on", [many])
    # not worth compiling for, if the others were not there
    network = asked(tmp_path, "auto", [many, few], above=60 * work)
    assert network.kind == "compiled" and len(list(tmp_path.rglob("*-compiled-*.npz"))) == 2
    assert not list(tmp_path.rglob("*-eager-*.npz"))


@pytest.mark.parametrize("first, then", [("on", "off"), ("off", "on")])
def test_who_asks_for_one_kind_gets_no_outputs_of_the_other(tmp_path, pretended, first, then):
    images = images_of(23, 1)
    asked(tmp_path, first, [images])
    assert asked(tmp_path, then, [images]).model.images >= 23


def test_what_cannot_be_compiled_is_kept_as_eager(tmp_path, monkeypatch):
    monkeypatch.setattr(network_module, "compile_inference", lambda model, example: model)
    images = images_of(23, 1)
    assert asked(tmp_path, "on", [images]).kind == "eager"
    again = asked(tmp_path, "off", [images])
    assert (again.kind, again.model.images) == ("eager", 0)


def test_if_compiling_fails_compiled_outputs_of_other_sets_are_not_mixed_in(
    tmp_path, pretended, monkeypatch
):
    sets = [images_of(23, 1), images_of(9, 2)]
    asked(tmp_path, "on", sets[:1])
    monkeypatch.setattr(network_module, "compile_inference", lambda model, example: model)
    network = asked(tmp_path, "on", sets)
    assert network.kind == "eager" and network.model.images >= 23 + 9


@pytest.mark.parametrize("works", [True, False])
def test_compiled_or_fallen_back_the_outputs_are_the_same(tmp_path, monkeypatch, works):
    images = images_of(23, 1)  # three batches of 7 and one of 2

    def refuse(*args, **keywords):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(
        torch, "compile", (lambda model, **keywords: lambda x: model(x)) if works else refuse
    )
    compiled, plain = asked(tmp_path / "a", "on", [images]), asked(tmp_path / "b", "off", [images])
    assert compiled.kind == ("compiled" if works else "eager")
    for name in ("logits", "features"):
        np.testing.assert_allclose(
            getattr(compiled.outputs(images), name),
            getattr(plain.outputs(images), name),
            rtol=1e-5,
            atol=1e-5,
        )


def test_old_outputs_go_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime.cache, "LIMIT", 1)
    for seed in (1, 2, 3):
        network_in(tmp_path).outputs(images_of(5, seed))
    assert len(list(tmp_path.rglob("*.npz"))) == 1


def test_a_known_set_is_taken_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, place in (("cifar10", ("cifar10", None)), ("here", (None, "here"))):
        description, args = {"dataset": None}, Namespace(id=text)
        take_known_set(description, args)
        assert (description["dataset"], args.id) == place
    (tmp_path / "cifar10").mkdir()  # a folder of one's own comes first
    args = Namespace(id="cifar10")
    take_known_set({}, args)
    assert args.id == "cifar10"


def test_openvino_is_a_kind_of_its_own(tmp_path, monkeypatch):
    images, made = images_of(23, 1), []

    def compile_openvino(model, example, precision):
        made.append((len(example), precision))
        return lambda x: [part.numpy() for part in model(torch.from_numpy(x))]

    monkeypatch.setattr(network_module, "compile_openvino", compile_openvino)
    monkeypatch.setattr(network_module.importlib.util, "find_spec", lambda name: name)
    network = asked(tmp_path, "openvino", [images])
    assert network.kind == "openvino" and made == [(7, "fp32")]
    assert len(list(tmp_path.rglob("*-openvino-*.npz"))) == 1
    right = asked(tmp_path / "b", "off", [images]).outputs(images).logits
    np.testing.assert_allclose(network.outputs(images).logits, right, rtol=1e-5)
    # neither is taken for the other's
    assert asked(tmp_path, "auto", [images]).model.images >= 23

    def refuse(*args):
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(network_module, "compile_openvino", refuse)
    with pytest.raises(UserError, match="OpenVINO cannot take this network: no such operator. "):
        asked(tmp_path / "c", "openvino", [images])
    monkeypatch.setattr(network_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install openvino"):
        asked(tmp_path, "openvino", [images])


def test_openvinos_outputs_are_the_networks():
    pytest.importorskip("openvino")
    model = models.build("wrn", 10, 10, 1).eval()
    x = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        right = model(x)
    found = runtime.compile_openvino(model, x, "fp32")(x.numpy())
    for i, part in enumerate(right):
        np.testing.assert_allclose(found[i], part.numpy(), rtol=1e-3, atol=1e-4)
