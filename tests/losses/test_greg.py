"""GReg's gradient term against slow and independent computations,
with the fused kernels and without.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models
from models.kernels import fused
from utils.losses import LOSSES, Batch
from utils.losses.greg import gradient_norms, gradient_term, norms_of
from utils.runtime import UserError
from utils.training import StepLog

M_IN, M_OUT = -2.4, -2.2


class Small(nn.Module):
    """Convolution, BatchNorm, ReLU and a head, whose second derivative is
    finite differences' easy prey.
    """

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x):
        features = F.softplus(self.bn(self.conv(x))).mean((2, 3))
        return self.fc(features), features


def images(seed=0, n=5, m=7, size=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x, x_out = (torch.randn(k, 3, size, size, generator=generator, dtype=dtype) for k in (n, m))
    return (
        x.requires_grad_(),
        x_out.requires_grad_(),
        torch.randint(0, 4, (n,), generator=generator),
    )


def batch_of(model, x, x_out, y):
    logits, features = model(torch.cat([x, x_out]))
    return Batch(x, x_out, y, logits, features)


def term(batch, *margins):
    return gradient_term(batch, norms_of(batch), *margins)


def slow_term(model, x, x_out, m_in, m_out):
    """The term image by image; right where no image sees another one."""
    total = 0.0
    for part, is_id in ((x, True), (x_out, False)):
        norms = []
        for image in part.detach():
            image = image[None].clone().requires_grad_()
            energy = -torch.logsumexp(model(image)[0], dim=1)
            norm = torch.autograd.grad(energy.sum(), image)[0].norm()
            right = energy.item() <= m_in if is_id else energy.item() >= m_out
            norms.append(norm.item() if right else 0.0)
        total += sum(norms) / len(norms)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_in_evaluation_mode_it_is_the_term_of_each_image_alone(seed):
    torch.manual_seed(seed)
    model = models.build("wrn", 4, 10, 1, 0.0).eval()
    x, x_out, y = images(seed, size=16)
    with torch.no_grad():
        energies = -torch.logsumexp(model(torch.cat([x, x_out]))[0], dim=1).sort().values
    middle = float(energies[5] + energies[6]) / 2  # some images on either side, none at the margin
    found = term(batch_of(model, x, x_out, y), middle, middle)
    expected = slow_term(model, x, x_out, middle, middle)
    assert expected > 0 and found.item() == pytest.approx(expected, rel=1e-5)


def test_in_training_mode_it_is_stock_autograd_of_the_sum():
    torch.manual_seed(0)
    model = Small().train()
    x, x_out, y = images()
    norms = gradient_norms(-torch.logsumexp(model(torch.cat([x, x_out]))[0], dim=1), (x, x_out))
    joined = torch.cat([x, x_out]).detach().requires_grad_()
    energy = -torch.logsumexp(model(joined)[0], dim=1)
    expected = torch.autograd.grad(energy.sum(), joined)[0].flatten(1).norm(dim=1)
    assert torch.allclose(torch.cat(norms), expected, rtol=1e-5)


def test_the_gradient_by_the_weights_agrees_with_finite_differences():
    torch.manual_seed(0)
    model = Small().double().train()
    x, x_out, y = images(dtype=torch.float64)

    def value():
        # all images on the right side
        return term(batch_of(model, x, x_out, y), 1e9, -1e9)

    value().backward()
    for name, weight in model.named_parameters():
        flat, gradient = weight.data.view(-1), torch.zeros_like(weight.data.view(-1))
        for i in range(0, len(flat), max(1, len(flat) // 7)):
            step, kept = 1e-6, flat[i].item()
            sides = []
            for sign in (1, -1):
                flat[i] = kept + sign * step
                sides.append(value().item())
            flat[i] = kept
            gradient[i] = (sides[0] - sides[1]) / (2 * step)
            found = 0.0 if weight.grad is None else weight.grad.view(-1)[i].item()
            assert found == pytest.approx(gradient[i].item(), rel=1e-4, abs=1e-7), name


@pytest.mark.skipif(fused.kernels() is None, reason="no C++ compiler here")
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_the_fused_kernels_have_the_second_derivative_of_stock_operators(p):
    """The same dropout mask included: read off the kernel's own output and
    given to the stock operators.
    """
    torch.manual_seed(0)
    x = torch.randn(8, 6, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    bn = nn.BatchNorm2d(6).train()
    with torch.no_grad():
        bn.weight.uniform_(0.5, 2), bn.bias.uniform_(-0.5, 0.5)
    target = torch.randn(8, 6, 5, 5)

    def second(y):
        (gradient,) = torch.autograd.grad((y * target).tanh().sum(), x, create_graph=True)
        bn.zero_grad()
        gradient.square().sum().backward()
        return gradient.detach(), bn.weight.grad.clone(), bn.bias.grad.clone()

    y = fused.bn_relu_dropout(x, bn, p)
    stock = F.relu(F.batch_norm(x, None, None, bn.weight, bn.bias, True, eps=bn.eps))
    kept = ((y > 0) | (stock == 0)).detach()
    assert p == 0 or 0.5 < kept[stock > 0].float().mean() < 0.9
    scale = 65536 / (65536 - round(p * 65536))
    ours, theirs = second(y), second(stock * kept * scale)
    for a, b in zip(ours, theirs):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_in_bf16_the_term_is_that_of_fp32_to_a_hundredth():
    torch.manual_seed(0)
    model = models.build("wrn", 4, 10, 2, 0.0).train()
    x, x_out, y = images(n=16, m=16, size=16)
    exact = term(batch_of(copy.deepcopy(model), x, x_out, y), 1e9, -1e9).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = batch_of(model, x, x_out, y)
    assert term(batch, 1e9, -1e9).item() == pytest.approx(exact, rel=1e-2)


def test_only_the_right_side_of_each_margin_counts():
    torch.manual_seed(0)
    model = Small().eval()
    x, x_out, y = images()
    batch = batch_of(model, x, x_out, y)
    assert term(batch, -1e9, 1e9).item() == 0.0
    norms = gradient_norms(-torch.logsumexp(batch.logits, dim=1), (x, x_out))
    assert term(batch, 1e9, 1e9).item() == pytest.approx(norms[0].mean().item())
    assert term(batch, -1e9, -1e9).item() == pytest.approx(norms[1].mean().item())
    whole = term(batch, 1e9, -1e9)
    assert term(batch, 1e9, -1e9, "code").item() == pytest.approx(whole.item() / 12)


def test_the_statistics_of_batchnorm_move_once_a_step():
    model = Small().train()
    x, x_out, y = images()
    loss = LOSSES["greg"](m_in=M_IN, m_out=M_OUT)
    terms = loss(batch_of(model, x, x_out, y))
    sum(terms.values()).backward()
    assert list(terms) == ["ce", "energy", "gradient"] and model.bn.num_batches_tracked == 1
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_gradients_that_are_not_finite_are_said_as_such():
    class Sharp(Small):
        """Features whose slope is infinite where an image is black."""

        def forward(self, x):
            features = x.abs().sqrt().mean(dim=(2, 3)).repeat(1, 2)
            return self.fc(features), features

    torch.manual_seed(0)
    (x, x_out, y), loss = images(), LOSSES["greg"](m_in=M_IN, m_out=M_OUT)
    with torch.no_grad():
        x[2, :, 3, 3] = 0.0
        x_out[4] = 0.0
    for model, bad in ((Small(), 0), (Sharp(), 2)):
        log = StepLog(100, loss)
        log.add(loss(batch_of(Small(), x, x_out, y)))
        log.add(loss(batch_of(model, x, x_out, y)))
        if not bad:
            assert log.means()["gradient"] > 0
            continue
        with pytest.raises(UserError, match="gradient by the image is not finite for 2 of 12") as e:
            log.check()
        assert "at step 101 (ce 1." in str(e.value) and "smaller --learning_rate" in str(e.value)
    x_out.data[0] = float("nan")  # the logits are what is wrong
    log = StepLog(0, loss)
    log.add(loss(batch_of(Small(), x, x_out, y)))
    with pytest.raises(UserError, match="^the loss is not finite at step 0"):
        log.check()


@pytest.mark.parametrize("loss", ["energy", "greg"])
def test_margins_the_wrong_way_round_are_refused(loss):
    with pytest.raises(ValueError, match="m_in -5 is above m_out -23"):
        LOSSES[loss](m_in=-5.0, m_out=-23.0)
