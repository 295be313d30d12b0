"""Every term of the fine-tuning losses against a slow loop, and what each loss looks at."""

import math

import pytest
import torch

from utils.losses import LOSSES, Batch, CrossEntropy, losses_of
from utils.losses.base import energy_hinges, l1_sparsity, uniformity

HYPER = dict(alpha=0.02, beta=0.5, m_in=-3.0, m_out=-1.5, l1_on="id")
IN, OUT, CLASSES, WIDTH = 5, 8, 4, 6


def batch(seed=0, scale=2.0):
    """Logits (13,4), features (13,6) of either sign and labels of the first five, in float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(IN + OUT, CLASSES, generator=generator, dtype=torch.float64)
    features = torch.randn(IN + OUT, WIDTH, generator=generator, dtype=torch.float64)
    return logits, features, torch.randint(0, CLASSES, (IN,), generator=generator)


def terms(name, logits, features, labels, **changed):
    """What a loss returns for a batch's outputs, with those of HYPER that it has."""
    chosen = {
        key: value for key, value in {**HYPER, **changed}.items() if key in LOSSES[name].defaults
    }
    head = torch.nn.Linear(WIDTH, CLASSES, dtype=features.dtype)
    return LOSSES[name](**chosen)(Batch(None, None, labels, logits, features, head))


def logsumexp(row):
    return math.log(sum(math.exp(v) for v in row))


def slow_ce(logits, labels):
    return sum(logsumexp(row) - row[y] for row, y in zip(logits.tolist(), labels.tolist())) / len(
        labels
    )


def slow_l1(features):
    return sum(abs(v) for row in features.tolist() for v in row) / len(features)


def slow_oe(logits):
    return sum(logsumexp(row) - sum(row) / len(row) for row in logits.tolist()) / len(logits)


def slow_hinges(logits_in, logits_out, m_in, m_out):
    inner = sum(max(0.0, -logsumexp(row) - m_in) ** 2 for row in logits_in.tolist()) / len(
        logits_in
    )
    outer = sum(max(0.0, m_out + logsumexp(row)) ** 2 for row in logits_out.tolist()) / len(
        logits_out
    )
    return inner + outer


def same(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].shape == ()
        assert found[name].item() == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("seed", range(3))
class TestSlowLoops:
    def test_sr(self, seed):
        logits, features, labels = batch(seed)
        same(
            terms("sr", logits[:IN], features[:IN], labels),
            {"ce": slow_ce(logits[:IN], labels), "l1": 0.02 * slow_l1(features[:IN])},
        )

    @pytest.mark.parametrize("l1_on, count", (("id", IN), ("all", IN + OUT)))
    def test_sroe(self, seed, l1_on, count):
        logits, features, labels = batch(seed)
        same(
            terms("sroe", logits, features, labels, l1_on=l1_on),
            {
                "ce": slow_ce(logits[:IN], labels),
                "l1": 0.02 * slow_l1(features[:count]),
                "oe": 0.5 * slow_oe(logits[IN:]),
            },
        )

    def test_oe(self, seed):
        logits, features, labels = batch(seed)
        same(
            terms("oe", logits, features, labels),
            {"ce": slow_ce(logits[:IN], labels), "oe": 0.5 * slow_oe(logits[IN:])},
        )

    def test_energy(self, seed):
        logits, features, labels = batch(seed)
        expected = slow_hinges(logits[:IN], logits[IN:], -3.0, -1.5)
        assert expected > 0
        same(
            terms("energy", logits, features, labels, beta=0.1),
            {"ce": slow_ce(logits[:IN], labels), "energy": 0.1 * expected},
        )


class TestTerms:
    def test_l1_by_hand(self):
        assert l1_sparsity(torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.0, 0.5]])).item() == 2.0

    def test_uniformity_is_log_c_at_the_uniform_and_more_elsewhere(self):
        for classes in (2, 10, 100):
            level = torch.linspace(-30, 30, 7).view(7, 1).double()
            assert uniformity(level.expand(7, classes)).item() == pytest.approx(
                math.log(classes), abs=1e-12
            )
            logits = torch.randn(
                500, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(classes)
            )
            assert all(uniformity(row[None]).item() > math.log(classes) for row in logits)
            nudged = torch.zeros(1, classes, dtype=torch.float64)
            nudged[0, 0] = 1e-3
            assert uniformity(nudged).item() > math.log(classes)

    def test_uniformity_is_the_cross_entropy_from_the_uniform(self):
        logits = batch()[0]
        assert uniformity(logits).item() == pytest.approx(
            -logits.log_softmax(dim=1).mean().item(), abs=1e-12
        )

    def test_uniformity_does_not_see_a_shift_of_the_logits(self):
        logits = batch()[0]
        assert uniformity(logits + 7).item() == pytest.approx(uniformity(logits).item(), abs=1e-12)

    @pytest.mark.parametrize(
        "energy_in, energy_out, expected",
        (
            (-24.0, -4.0, 0.0),
            (-23.0, -5.0, 0.0),
            (-20.0, -4.0, 9.0),
            (-24.0, -7.0, 4.0),
            (-21.0, -8.0, 13.0),
            (-5.0, -23.0, 648.0),
        ),
    )
    def test_hinges_by_hand(self, energy_in, energy_out, expected):
        # One class: the energy is minus the logit.
        inner, outer = torch.tensor([[-energy_in]]), torch.tensor([[-energy_out]])
        assert energy_hinges(inner, outer, -23.0, -5.0).item() == pytest.approx(expected, abs=1e-12)

    def test_hinges_average_each_side_by_itself(self):
        inner, outer = torch.tensor([[20.0], [23.0]]), torch.tensor([[6.0], [4.0], [8.0], [5.0]])
        assert energy_hinges(inner, outer, -23.0, -5.0).item() == pytest.approx(9 / 2 + (1 + 9) / 4)


class TestWhatEachLossSees:
    def test_sr_never_looks_at_outliers(self):
        logits, features, labels = batch()
        alone = terms("sr", logits[:IN], features[:IN], labels)
        logits[IN:], features[IN:] = float("nan"), float("nan")
        beside = terms("sr", logits, features, labels)
        assert {k: v.item() for k, v in alone.items()} == {k: v.item() for k, v in beside.items()}
        assert not LOSSES["sr"].outliers

    @pytest.mark.parametrize("name", ("sroe", "oe", "energy"))
    def test_the_others_need_them(self, name):
        logits, features, labels = batch()
        before = sum(terms(name, logits, features, labels).values())
        logits[IN + 2] *= 3
        assert (
            LOSSES[name].outliers and sum(terms(name, logits, features, labels).values()) != before
        )

    @pytest.mark.parametrize("l1_on, seen", (("id", False), ("all", True)))
    def test_l1_of_outliers_features(self, l1_on, seen):
        logits, features, labels = batch()
        features.requires_grad_()
        sum(terms("sroe", logits, features, labels, l1_on=l1_on).values()).backward()
        assert features.grad[:IN].abs().min() > 0
        assert bool(features.grad[IN:].abs().max() > 0) == seen

    def test_labels_belong_to_the_first_images(self):
        logits, features, labels = batch()
        right = terms("oe", logits, features, labels)["ce"]
        assert terms("oe", logits.flip(0), features, labels)["ce"] != right

    @pytest.mark.parametrize(
        "name", [name for name, loss in LOSSES.items() if not (loss.gradient or loss.head)]
    )
    @pytest.mark.parametrize("scale", (0.0, 1.0, 1e4))
    def test_terms_are_non_negative_and_gradients_finite(self, name, scale):
        logits, features, labels = batch()
        logits = (scale * logits).float().requires_grad_()
        features = (scale * features).float().requires_grad_()
        found = terms(name, logits, features, labels)
        assert all(torch.isfinite(v) and v >= 0 for v in found.values())
        sum(found.values()).backward()
        assert torch.isfinite(logits.grad).all() and (
            features.grad is None or torch.isfinite(features.grad).all()
        )

    def test_gradients_push_as_the_papers_say(self):
        logits, features, labels = batch()
        logits.requires_grad_(), features.requires_grad_()
        terms("sr", logits, features, labels)["l1"].backward()
        assert torch.equal(features.grad[:IN], 0.02 / IN * features[:IN].detach().sign())
        uniform = torch.autograd.grad(uniformity(logits), logits)[0]
        assert torch.allclose(uniform, (logits.softmax(dim=1) - 1 / CLASSES).detach() / len(logits))


class TestRecord:
    @pytest.mark.parametrize("name", LOSSES)
    def test_every_loss_says_what_it_is(self, name):
        loss = LOSSES[name]
        assert loss.name == name and loss.title and loss.formula and loss.paper and loss.origin
        assert set(loss.help) == set(loss.defaults) and set(loss.choices) <= set(loss.defaults)
        assert loss().hyper == loss.defaults

    def test_what_a_loss_needs(self):
        pairs = ["reweightood", "supcon"]
        assert [n for n, loss in LOSSES.items() if not loss.outliers] == ["sr", "logitnorm", *pairs]
        assert [name for name, loss in LOSSES.items() if loss.gradient] == ["greg", "greg+"]
        assert [name for name, loss in LOSSES.items() if loss().chooses_outliers] == ["greg+"]
        assert [name for name, loss in LOSSES.items() if loss.head and loss.views == 2] == pairs
        assert not any(loss.head != (loss.views == 2) for loss in LOSSES.values())
        assert list(losses_of("pretrain")) == ["ce", "greg+", "logitnorm", *pairs]
        assert list(losses_of("tune")) == ["sr", "sroe", "oe", "energy", "greg", "greg+", "dal"]

    @pytest.mark.parametrize(
        "name, chosen, words",
        (
            ("sr", {"beta": 1.0}, "has no 'beta'. There is: alpha=0.02"),
            ("sr", {"alpha": -1.0}, "alpha -1"),
            ("oe", {"beta": float("nan")}, "beta nan"),
            ("sroe", {"l1_on": "both"}, "l1_on both is none of id, all"),
            ("energy", {"m_in": float("inf")}, "m_in inf"),
        ),
    )
    def test_bad_hyper_parameters(self, name, chosen, words):
        with pytest.raises(ValueError, match=words):
            LOSSES[name](**chosen)

    def test_logitnorm(self):
        logits, features, labels = batch()
        found = terms("logitnorm", logits, features, labels, tau=0.5)
        unit = [
            [v / (math.sqrt(sum(w * w for w in row)) + 1e-7) / 0.5 for v in row]
            for row in logits[:IN].tolist()
        ]
        same(found, {"ce": slow_ce(torch.tensor(unit, dtype=torch.float64), labels)})
        scaled = terms("logitnorm", 9 * logits, features, labels, tau=0.5)
        # their length does not count
        assert scaled["ce"].item() == pytest.approx(found["ce"].item(), rel=1e-6)
        best = torch.full((1, CLASSES), -1.0, dtype=torch.float64)
        best[0, 2] = CLASSES - 1
        least = math.log(
            1 + (CLASSES - 1) * math.exp(-CLASSES / (CLASSES - 1) ** 0.5 / CLASSES**0.5 / 0.5)
        )
        assert terms("logitnorm", best, features[:1], torch.tensor([2]), tau=0.5)[
            "ce"
        ].item() == pytest.approx(least, rel=1e-6)
        assert found["ce"].item() > least

    def test_cross_entropy(self):
        logits, features, labels = batch()
        found = CrossEntropy()(Batch(None, None, labels, logits[:IN], features[:IN]))
        same(found, {"ce": slow_ce(logits[:IN], labels)})
