"""DAL against stock autograd of its formula, the way of gamma, and what --resume needs."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from utils.losses import LOSSES, Batch
from utils.losses.base import uniformity
from utils.losses.dal import START, worst_shift
from utils.runtime import UserError
from utils.training import recipes
from utils.training.network import check_features
from utils.training.settled import check_loss

IN, OUT, CLASSES, WIDTH = 5, 7, 4, 6


def batch(seed=0, scale=1.0):
    """A batch in float64 whose logits are those of its head."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(9)
    head = nn.Linear(WIDTH, CLASSES).double()
    features = torch.randn(IN + OUT, WIDTH, generator=generator, dtype=torch.float64)
    features = (scale * features).relu().requires_grad_()
    y = torch.randint(0, CLASSES, (IN,), generator=generator)
    return Batch(None, None, y, head(features), features, head)


def slow_shift(h, head, gamma, steps, strength):
    """The search image by image, by stock autograd of J."""
    shift = torch.full_like(h, START)
    for _ in range(steps):
        shift.requires_grad_()
        objective = uniformity(head(h + shift)) - gamma * (size := shift.abs().mean())
        (gradient,) = torch.autograd.grad(objective, shift)
        with torch.no_grad():
            moved = [s + strength * g / g.norm() for s, g in zip(shift, gradient)]
        shift = torch.stack(moved)
    return shift, size.item()


@pytest.mark.parametrize(
    "chosen",
    (
        {},
        {"strength": 0.05, "rho": 0.01, "gamma_max": 3.0, "gamma_rate": 20.0, "beta": 0.2},
        {"strength": 0.3, "rho": 0.05, "gamma_rate": 5.0, "ascent_steps": 3},
    ),
)
def test_terms_and_gradients_are_those_of_stock_autograd(chosen):
    loss, gamma, prices = LOSSES["dal"](**chosen), 0.01, []
    hyper = loss.hyper
    for seed in range(4):
        made = batch(seed)
        found = loss(made)
        shift, size = slow_shift(
            made.features[IN:].detach(), made.head, gamma, loss.ascent_steps, loss.strength
        )
        gamma = gamma - hyper["gamma_rate"] * (hyper["rho"] - size)
        gamma = min(max(gamma, 0.0), hyper["gamma_max"])
        prices.append(gamma)
        assert float(loss.kept.gamma) == pytest.approx(gamma, rel=1e-5, abs=1e-7)
        term = hyper["beta"] * uniformity(made.head(made.features[IN:] + shift))
        assert list(found) == ["ce", "dal"]
        assert found["ce"].item() == F.cross_entropy(made.logits[:IN], made.y).item()
        assert found["dal"].item() == pytest.approx(term.item(), rel=1e-6)
        inputs = (made.features, *made.head.parameters())
        gradients = [
            torch.autograd.grad(t, inputs, retain_graph=True) for t in (found["dal"], term)
        ]
        for one, other in zip(*gradients):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-7) and other.abs().max() > 1e-3
    # with the published values no shift has a price; with a small rho it has, up to gamma_max
    assert (max(prices) == 0) == (not chosen)
    assert "gamma_max" not in chosen or hyper["gamma_max"] in prices


def test_the_worst_is_worse_than_the_outliers_and_a_price_holds_it_near():
    made = batch(scale=3.0)
    plain = uniformity(made.logits_out).item()
    h, head = made.features[IN:].detach(), made.head
    free, dear = (worst_shift(h, head, torch.tensor(g), 10, 1.0)[0] for g in (0.0, 10.0))
    worst, held = (uniformity(head(h + shift)).item() for shift in (free, dear))
    assert worst > held and worst > plain + 0.1
    assert free.norm(dim=1).max() <= 10 + 1e-3
    assert dear.abs().mean() < 0.5 * free.abs().mean()
    found = LOSSES["dal"](beta=1.0, strength=0.0)(made)["dal"]  # no step: OE but for the start
    assert found.item() == pytest.approx(plain, abs=1e-3)


def test_logits_that_do_not_depend_on_the_features_shift_nothing():
    made = batch()
    nn.init.zeros_(made.head.weight), nn.init.zeros_(made.head.bias)
    loss = LOSSES["dal"]()
    loss.kept.gamma.zero_()
    found = loss(made)
    assert found["dal"].item() == pytest.approx(0.5 * math.log(CLASSES))
    found["dal"].backward()
    assert torch.isfinite(made.features.grad).all() and torch.isfinite(made.head.weight.grad).all()


def test_gamma_goes_on_where_a_state_has_it():
    def term(loss, seed):
        return loss(batch(seed))["dal"].item()

    chosen = {"rho": 0.0, "gamma_rate": 5.0, "strength": 0.1}
    first, second = LOSSES["dal"](**chosen), LOSSES["dal"](**chosen)
    term(first, 0)
    second.kept.load_state_dict(first.kept.state_dict())
    assert term(second, 1) == term(first, 1) != term(LOSSES["dal"](**chosen), 1)


@pytest.mark.parametrize(
    "chosen, words",
    (
        ({"ascent_steps": 0}, "ascent_steps 0 is not at least 1"),
        ({"rho": -1.0}, "rho -1"),
        ({"strength": float("nan")}, "strength nan"),
        ({"gamma_max": float("inf")}, "gamma_max inf"),
    ),
)
def test_bad_hyper_parameters(chosen, words):
    with pytest.raises(ValueError, match=words):
        LOSSES["dal"](**chosen)


def test_a_step_in_passes_is_refused():
    recipe = recipes.resolve("tune", "cifar10", "dal")
    check_loss("dal", "tune", recipe)
    with pytest.raises(UserError, match="--loss dal keeps numbers.*in 2 passes"):
        check_loss("dal", "tune", recipe, accumulate=2)


def test_a_network_whose_logits_are_no_linear_layers_is_refused(monkeypatch):
    net = SimpleNamespace(fc=nn.Linear(3, 2))
    check_features(net, "dal", "tune", {})
    monkeypatch.setattr("models.linear_head", lambda model: None)
    with pytest.raises(UserError, match="--loss dal.*goes on after that layer.*oe"):
        check_features(net, "dal", "tune", {})
    check_features(net, "sr", "tune", {})
