"""Outputs of fixed networks, plain and after the input step, are the recorded ones:
else the cache is stale.

If a test fails and the new numbers are wanted: raise FORWARD in utils/evaluation/network.py, and
record the numbers here. ``PYTHONPATH=. python tests/evaluation/test_golden.py`` prints them.
"""

import tempfile
import zlib

import numpy as np
import pytest
import torch

import models
from utils import loaders, scores
from utils.evaluation import network as network_module
from utils.evaluation.network import Network

RAISE = (
    "outputs have changed: raise FORWARD in utils/evaluation/network.py and record the new numbers "
    "(see this file's head)"
)
NETWORKS = {
    "wrn": dict(layers=10, widen_factor=1),
    "resnet18": {},
    "resnet34": {},
    "densenet": {},
    "allconv": {},
}
STEPPED = ["odin:eps=0.01", "mahalanobis:eps=0.01"]

# Of each network: logits 0 and 1 of image 0, logit 2 of image 1, mean and maximum of the features.
# Of each input step of the WRN: mean logit and mean feature.
RECORDED_WITH = 3  # FORWARD
RECORDED = {
    "wrn": [-0.499737, 2.80465, 0.0528556, 1.2426, 5.39389],
    "resnet18": [-7.18483, -5.91316, 1.36988, 4.01992, 26.0524],
    "resnet34": [-7.35371, -1.55257, 5.25515, 11.9247, 30.6938],
    "densenet": [-0.679462, 2.11002, 0.593316, 0.716564, 6.48308],
    "allconv": [1.56935, 0.38428, -1.76894, 0.559251, 6.44162],
    "odin:eps=0.01": [0.0391586, 1.25274],
    "mahalanobis:eps=0.01": [0.0679861, 1.22062],
}


def values_of(name, shape):
    """float64 array in -1..1 that is a formula of a parameter's name and place,
    the same on every machine.
    """
    place = np.arange(np.prod(shape, dtype=int)) + zlib.crc32(name.encode()) % 1000
    return np.sin(0.7 * place + 0.01 * place * (place % 13)).reshape(shape)


def fixed_network(arch):
    """A network whose weights and running statistics are formulas."""
    model = models.build(arch, 4, **{"droprate": 0.3, **NETWORKS[arch]}).eval()
    state = {}
    for name, old in model.state_dict().items():
        value = torch.from_numpy(values_of(name, tuple(old.shape))).to(old.dtype)
        if name.endswith("running_var"):
            value = 1 + value / 2
        elif old.dim() > 1:
            value = value * (3 / old[0].numel()) ** 0.5
        elif name.endswith("weight"):
            value = 1 + value / 4
        state[name] = value if old.is_floating_point() else old
    model.load_state_dict(state)
    return model


def fixed_images(count, seed=0):
    pixels = (127.5 + 127.5 * values_of(f"images {seed}", (count, 32, 32, 3))).astype(np.uint8)
    return loaders.make_set(pixels, np.arange(count) % 4, f"fixed{seed}")


def network_of(arch, folder):
    return Network(
        fixed_network(arch), arch, torch.device("cpu"), "fp32", 8, cache=folder, arch=arch
    )


def outputs_now(arch, folder):
    found = network_of(arch, folder).outputs(fixed_images(2))
    logits, features = found.logits.astype(float), found.features.astype(float)
    return [logits[0, 0], logits[0, 1], logits[1, 2], features.mean(), features.max()]


def stepped_now(label, folder):
    (score,) = scores.choose(label)
    network = network_of("wrn", folder)
    if "train" in score.needs:
        network.fit(score, fixed_images(200, 1))
    found = network.stepped_outputs(fixed_images(8), score)
    return [found.logits.astype(float).mean(), found.features.astype(float).mean()]


def now(name, folder):
    return (stepped_now if name in STEPPED else outputs_now)(name, folder)


@pytest.mark.parametrize("name", [*models.MODELS, *STEPPED])
def test_outputs_are_the_recorded_ones(name, tmp_path):
    np.testing.assert_allclose(
        now(name, tmp_path),
        RECORDED[name],
        rtol=2e-3 if name in STEPPED else 1e-4,
        atol=1e-5,
        err_msg=RAISE,
    )
    assert network_module.FORWARD == RECORDED_WITH


def test_every_input_step_is_recorded():
    assert {name.partition(":")[0] for name in STEPPED} == {
        score.name for score in scores.choose("all") if "gradient" in score.needs
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name in (*models.MODELS, *STEPPED):
            print(f'    "{name}": [{", ".join(f"{value:.6g}" for value in now(name, folder))}],')
