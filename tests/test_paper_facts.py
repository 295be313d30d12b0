"""Facts of the papers that the code must agree with: schedules, recipes, protocol,
normalisation, checksums.
"""

import json
import math

import numpy as np
import pytest
import torch
from conftest import ROOT

from utils import loaders
from utils.evaluation.rows import draw_indices
from utils.loaders import Batches
from utils.losses import LOSSES, losses_of
from utils.metrics import detection_metrics
from utils.runtime import UserError
from utils.training import cosine_lr, learning_rate, recipes

SOURCES = json.loads((ROOT / "data" / "sources.json").read_text(encoding="utf-8"))
CIFAR_TRAIN, CIFAR_TEST = 50000, 10000


def pixels(count):
    """An ImageSet of so many images of one pixel."""
    return loaders.make_set(np.zeros((count, 1, 1, 3), np.uint8), np.zeros(count), "facts")


class TestSchedule:
    STEPS = 391

    def test_391_steps_an_epoch(self):
        recipe = recipes.resolve("pretrain", "cifar10")
        assert (
            len(Batches(pixels(CIFAR_TRAIN), recipe["batch_size"], "cpu"))
            == self.STEPS
            == math.ceil(CIFAR_TRAIN / 128)
        )

    def test_100096_outliers_an_epoch_whatever_the_size_of_their_set(self):
        recipe = recipes.resolve("tune", "cifar10", "sroe")
        for count in (16000, 300000):
            batches = Batches(pixels(count), recipe["oe_batch_size"], "cpu", steps=self.STEPS)
            assert (
                sum(len(index) for index in batches.order(torch.Generator().manual_seed(0)))
                == 391 * 256
                == 100096
            )

    @pytest.mark.parametrize("stage, loss", (("pretrain", None), ("tune", "sr"), ("tune", "sroe")))
    def test_cosine_of_the_papers(self, stage, loss):
        """lr * (final + (1 - final) * (1 + cos(pi step / total)) / 2) with final =
        1e-6 / lr, changed every step.
        """
        recipe = recipes.resolve(stage, "cifar10", loss)
        base, total = recipe["learning_rate"], recipe["epochs"] * self.STEPS
        final = 1e-6 / base
        rates = [cosine_lr(step, total, base) for step in range(total)]
        for step in (0, 1, total // 3, total // 2, total - 1):
            factor = final + (1 - final) * 0.5 * (1 + math.cos(step / total * math.pi))
            assert rates[step] == pytest.approx(base * factor, rel=1e-9)
        assert rates[0] == base and all(later < earlier for earlier, later in zip(rates, rates[1:]))
        assert rates[total // 2] == pytest.approx((base + 1e-6) / 2, rel=1e-9)

    def test_first_and_last_learning_rate(self):
        assert cosine_lr(0, 39100, 0.1) == 0.1
        # The last step, 39,099 of 39,100, is still 0.1 * (pi / 39100)^2 / 4
        # above the end of the cosine.
        assert cosine_lr(39099, 39100, 0.1) == pytest.approx(
            1e-6 + 0.1 * (math.pi / 39100) ** 2 / 4, rel=1e-6
        )
        assert cosine_lr(39100, 39100, 0.1) == pytest.approx(1e-6, rel=1e-9)
        assert cosine_lr(3909, 3910, 0.001) == pytest.approx(1.000161e-6, rel=1e-6)


class TestRecipes:
    COMMON = dict(
        momentum=0.9,
        decay=5e-4,
        batch_size=128,
        droprate=0.3,
        layers=40,
        widen_factor=2,
        seed=1,
        arch="wrn",
    )
    OUTLIERS = dict(oe_batch_size=256, outlier_norm="id")
    OF_LOSS = {
        "sr": dict(alpha=0.02, padding=0),
        "sroe": dict(alpha=0.02, beta=0.5, l1_on="id", padding=0, outlier_padding=0, **OUTLIERS),
        "oe": dict(beta=0.5, padding=4, outlier_padding=4, **OUTLIERS),
        "energy": dict(
            beta=0.1, m_out=-5, sampling="random", padding=4, outlier_padding=4, **OUTLIERS
        ),
        "greg": dict(
            beta=0.1,
            m_in=-25,
            m_out=-7,
            grad_weight=1.0,
            grad_scale="paper",
            epochs=20,
            batch_size=64,
            decay=1e-4,
            padding=4,
            outlier_padding=4,
            oe_batch_size=64,
            outlier_norm="id",
        ),
    }
    OF_LOSS["greg+"] = {**OF_LOSS["greg"], "oe_batch_size": 128, "sampling": "clusters"}
    OF_LOSS["dal"] = dict(
        beta=0.5,
        ascent_steps=10,
        strength=1.0,
        rho=10,
        gamma_max=10,
        epochs=50,
        learning_rate=0.07,
        padding=4,
        outlier_padding=4,
        **OUTLIERS,
    )
    M_IN = {"cifar10": -23, "cifar100": -27}

    @pytest.mark.parametrize("dataset", ("cifar10", "cifar100"))
    def test_pretraining(self, dataset):
        recipe = recipes.resolve("pretrain", dataset)
        expected = {**self.COMMON, "epochs": 100, "learning_rate": 0.1, "padding": 4}
        assert recipe == {**expected, "test_bs": 200}

    @pytest.mark.parametrize("dataset", ("cifar10", "cifar100"))
    @pytest.mark.parametrize("loss", losses_of("tune"))
    def test_fine_tuning(self, dataset, loss):
        recipe = recipes.resolve("tune", dataset, loss)
        expected = {**self.COMMON, "epochs": 10, "learning_rate": 1e-3, **self.OF_LOSS[loss]}
        if loss == "energy":
            expected["m_in"] = self.M_IN[dataset]
        if loss == "dal":
            expected["gamma_rate"] = {"cifar10": 0.01, "cifar100": 0.005}[dataset]
        assert recipe == {**expected, "test_bs": 200}

    def test_pretraining_with_another_loss(self):
        own = {
            "greg+": dict(
                epochs=60,
                batch_size=64,
                decay=1e-4,
                oe_batch_size=128,
                m_in=-25,
                m_out=-7,
                sampling="clusters",
            ),
            "logitnorm": dict(epochs=200, tau=0.01, batch_size=128, decay=5e-4),
            "reweightood": dict(epochs=100, tau=0.1, batch_size=512, decay=1e-4),
            "supcon": dict(epochs=100, tau=0.1, batch_size=512, decay=1e-4),
        }
        for loss, expected in own.items():
            recipe = recipes.resolve("pretrain", "cifar10", loss)
            assert {key: recipe[key] for key in expected} == expected and recipe[
                "learning_rate"
            ] == 0.1
        rates = {
            epoch: learning_rate(epoch * 10, 600, 0.1, LOSSES["greg+"]) for epoch in (0, 49, 50, 59)
        }
        assert rates == pytest.approx({0: 0.1, 49: 0.1, 50: 0.01, 59: 0.01})
        rates = [
            learning_rate(epoch, 200, 0.1, LOSSES["logitnorm"])
            for epoch in (0, 79, 80, 139, 140, 199)
        ]
        assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
        # ten warm-up epochs of 100, from 0.001 to the cosine's value there, which ends at 1e-4
        for loss in ("reweightood", "supcon"):
            rates = [learning_rate(epoch, 100, 0.1, LOSSES[loss]) for epoch in (0, 5, 10, 100)]
            assert rates == pytest.approx([0.001, (0.001 + 0.09755) / 2, 0.09755, 1e-4], rel=1e-3)

    def test_every_loss_is_scored_as_in_its_paper(self):
        expected = {
            "sr": "energy",
            "sroe": "energy",
            "oe": "msp",
            "energy": "energy",
            "greg": "energy",
            "greg+": "energy",
            "dal": "msp",
            "logitnorm": "msp",
            "reweightood": "mahalanobis++",
            "supcon": "mahalanobis++",
        }
        assert {name: loss.score for name, loss in LOSSES.items()} == expected
        assert {name for name, loss in LOSSES.items() if not loss.outliers} == {
            "sr",
            "logitnorm",
            "reweightood",
            "supcon",
        }

    def test_the_published_code_as_a_preset(self):
        changed = {
            loss: {
                key: value
                for key, value in recipes.resolve("tune", "cifar10", loss, "code").items()
                if value != recipes.resolve("tune", "cifar10", loss)[key]
            }
            for loss in losses_of("tune")
        }
        assert changed == {
            "sr": {},
            "sroe": {"outlier_padding": 8, "outlier_norm": "imagenet", "l1_on": "all"},
            "oe": {},
            "energy": {},
            "greg": {},
            "greg+": {},
            "dal": {},
        }
        assert recipes.resolve("pretrain", "cifar10", preset="code") == recipes.resolve(
            "pretrain", "cifar10"
        )

    def test_a_missing_recipe_key_departs(self):
        made = recipes.resolve("tune", "cifar10", "sr")
        description = {"dataset": "cifar10", "arch": "wrn", "loss": "sr", "recipe": made}
        assert recipes.departures(description) == {}
        assert (
            recipes.departures(
                {**description, "recipe": {**made, "epochs": 3, "seed": 2, "l1_on": "all"}}
            )
            == {}
        )
        del made["padding"]
        assert recipes.departures({**description, "recipe": made}) == {"padding": (None, 0)}

    def test_one_resolved_recipe_is_printed_with_its_origins(self, capsys):
        recipes.main(["cifar10", "sroe", "--preset", "code"])
        lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
        assert {name: value for name, value, _ in lines} == {
            name: str(value)
            for name, value in recipes.resolve("tune", "cifar10", "sroe", "code").items()
        }
        origins = {name: origin for name, _, origin in lines}
        assert origins["alpha"] == "[SR]" and origins["epochs"] == "[Energy], [SR]"
        assert (
            origins["padding"]
            == origins["l1_on"]
            == origins["outlier_padding"]
            == "published code of [SR]"
        )

    def test_quick_shortens_the_schedule_alone(self):
        for stage, loss in (("pretrain", None), ("tune", "sr")):
            paper, quick = (
                recipes.resolve(stage, "cifar10", loss, preset) for preset in ("paper", "quick")
            )
            assert [key for key in paper if quick[key] != paper[key]] == ["epochs"]
            assert quick["epochs"] < paper["epochs"]

    def test_unknown_preset(self):
        with pytest.raises(UserError, match="unknown preset 'fast'. There is: paper, code, quick"):
            recipes.resolve("tune", "cifar10", "sr", "fast")

    def test_every_default_is_told_with_its_origin(self):
        text = recipes.describe("m_in", "tune")
        assert "-23.0 (energy: [Energy])" in text and "-27.0 (energy cifar100: [Energy])" in text
        assert recipes.describe("learning_rate", "pretrain").startswith(
            "default: 0.1 ([Energy], [SR])"
        )
        assert recipes.describe("no_such_option", "tune") == ""


class TestProtocol:
    def test_six_sets_in_the_papers_order(self):
        first = [line[0] for line in loaders.SIX_SETS]
        assert (
            first
            == ["textures", "svhn", "places365", "lsun_c", "lsun_r", "isun"]
            == SOURCES["groups"]["ood"]
        )

    def test_sizes_of_the_sets(self):
        counts = {
            name: SOURCES["sets"][name]["images"]
            for name in (*SOURCES["groups"]["ood"], "cifar10", "cifar100")
        }
        assert counts == {
            "textures": 5640,
            "svhn": 26032,
            "places365": 10000,
            "lsun_c": 10000,
            "lsun_r": 10000,
            "isun": 8925,
            "cifar10": CIFAR_TRAIN + CIFAR_TEST,
            "cifar100": CIFAR_TRAIN + CIFAR_TEST,
        }

    def test_checksums(self):
        expected = {
            "cifar10": "c58f30108f718f92721af3b95e74349a",
            "cifar100": "eb9058c3a382ffc7106e4002c42a8d85",
            "svhn": "eb5a983be6a315427106f1b164d9cef3",
            "textures": "fff73e5086ae6bdbea199a49dfb8a4c1",
            "places365": "f532f6ad7b582262a2ec8009075e186b",
            "lsun_c": "458a0a0ab8e5f1cb4516d7400568e460",
            "lsun_r": "278b7b31c8cb7e804a1465a8ce03a2dc",
            "isun": "be77b0f2c26fda898afac5f99645ee70",
            "300k": "64ca64357de98351f28454274a112dc3",
        }
        assert {name: SOURCES["sets"][name]["md5"] for name in expected} == expected

    def test_downloads_arrive_where_the_readers_look_first(self):
        for name, entry in loaders.DATASETS.items():
            assert entry.download == (name in SOURCES["sets"])
            if entry.download:
                assert SOURCES["sets"][name]["layout"] == entry.paths[0]

    def test_ten_draws_of_2000(self):
        parts = draw_indices(CIFAR_TEST, CIFAR_TEST // 5, 10, 1, "lsun_c")
        assert [len(part) for part in parts] == [2000] * 10

    def test_chance_aupr_is_0_8333(self):
        found = detection_metrics(np.zeros(CIFAR_TEST), np.zeros(2000))
        assert round(found["aupr_in"], 4) == 0.8333 and found["auroc"] == 0.5

    def test_normalisation(self):
        assert pytest.approx([v / 255 for v in (125.3, 123.0, 113.9)], abs=1e-15) == loaders.MEAN
        assert pytest.approx([v / 255 for v in (63.0, 62.1, 66.7)], abs=1e-15) == loaders.STD
        assert pytest.approx((0.4914, 0.4824, 0.4467), abs=5e-5) == loaders.MEAN

    def test_classes(self):
        classes = {name: loaders.DATASETS[name].num_classes for name in loaders.ID_SETS}
        assert classes == {"cifar10": 10, "cifar100": 100, "digits": 6}
