"""Device placement without a device: FakeTensorMode lets tensors say that they are on cuda, and an
operation of two devices fails as it would there. No value is computed, and no backward pass."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import models
from utils import loaders
from utils.losses import Batch, losses_of
from utils.runtime import autocast
from utils.scores import SCORES

CUDA = torch.device("cuda")


@pytest.fixture
def fake():
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        try:
            torch.empty(1, device=CUDA).uniform_()
        except RuntimeError as error:  # torch 2.6, built for CUDA
            pytest.skip(f"this torch asks the driver even so: {str(error).splitlines()[0]}")
        yield mode


@pytest.mark.parametrize("precision", ("fp32", "bf16"))
@pytest.mark.parametrize("name", models.MODELS)
def test_networks(fake, name, precision):
    with CUDA:
        model = models.build(name, 10, layers=10)
    for training in (True, False):
        with autocast(CUDA, precision):
            logits, features = model.train(training)(torch.empty(4, 3, 32, 32, device=CUDA))
        assert (logits.device.type, features.device.type) == ("cuda", "cuda")
        assert logits.dtype == features.dtype == torch.float32 and logits.shape == (4, 10)


@pytest.mark.parametrize("name", [(s, n) for s in ("tune", "pretrain") for n in losses_of(s)])
def test_losses(fake, name):
    loss = losses_of(name[0])[name[1]]
    if loss.gradient or loss.head:
        pytest.skip("it asks for values: a gradient, or whether all labels are one")
    made, n, m = loss(), 4, 6 if loss.outliers else 0
    x = torch.empty(n, 3, 8, 8, device=CUDA)
    y = torch.zeros(n, dtype=torch.int64, device=CUDA)
    logits, features = (torch.empty(n + m, d, device=CUDA) for d in (10, 8))
    made.attach(8, CUDA)
    terms = made(Batch(x, x[:0], y, logits, features, torch.nn.Linear(8, 10, device=CUDA)))
    assert all(term.device.type == "cuda" and term.ndim == 0 for term in terms.values())


@pytest.mark.parametrize("score", (SCORES["odin"](), SCORES["mahalanobis"](eps=0.001)))
def test_the_input_step_of_the_scores_that_have_one(fake, score):
    assert "gradient" in score.needs
    logits, features = torch.empty(4, 10, device=CUDA), torch.empty(4, 8, device=CUDA)
    with torch._subclasses.fake_tensor.unset_fake_temporarily():
        score.stats = {"means": np.zeros((10, 8)), "V": np.eye(8)}
    value = score.objective(logits, features)
    assert value.device.type == "cuda" and value.ndim == 0


@pytest.mark.parametrize("size", (8, 32))
def test_batches(fake, size):
    images = torch.empty(6, size, size, 3, dtype=torch.uint8, device=CUDA)
    x = loaders.normalise(images)
    assert x.device.type == "cuda" and x.shape == (6, 3, size, size)
