"""Two processes together are one: every loss's curve, BatchNorm's derivatives, evaluation, a rank
that dies.

The processes are forked, so that nothing is imported anew, and speak gloo over a file.
"""

import multiprocessing
import os
import socket
import traceback
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import write_own
from torch import nn

from utils import loaders, training
from utils.evaluation.network import Network
from utils.losses import Batch, losses_of, sampling
from utils.runtime import UserError, ranks, run

RANKS, STEPS, ID, OUT = 2, 20, 8, 12


class Net(nn.Module):
    """Two BatchNorms, one behind the other, and a linear head."""

    feature_dim = 6

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.nn.functional.softplus(self.bn1(self.conv1(x)))
        features = torch.nn.functional.softplus(self.bn2(self.conv2(x))).mean((2, 3))
        return self.fc(features), features


def train(name, stage):
    """(the terms of each step, the network at the end) of a loss, in float64, as the scripts do."""
    torch.manual_seed(0)
    kind = losses_of(stage)[name]
    defaults = {k: v for k, v in kind.defaults.items() if k not in ("m_in", "m_out")}
    # both hinges and both indicators are at work
    margins = {"m_in": -1.3, "m_out": -1.0} if "m_in" in kind.defaults else {}
    loss = kind(**defaults, **margins)
    model = Net().double().train()
    loss.attach(model.feature_dim, torch.device("cpu"))
    args = SimpleNamespace(
        learning_rate=0.1, momentum=0.9, decay=5e-4, oe_batch_size=OUT, seed=1, batch_size=ID
    )
    model = ranks.share(model)
    optimizer = training.make_optimizer(model, loss, args)
    numbers, curve = torch.Generator().manual_seed(1), []
    candidates = sampling.CANDIDATES if loss.chooses_outliers else 1
    for step in range(STEPS):
        count = OUT * candidates if loss.outliers else 0
        x, x_out = (
            torch.randn(n, 3, 8, 8, generator=numbers, dtype=torch.float64) for n in (ID, count)
        )
        y = (torch.arange(ID) + step) % 3
        if loss.views == 2:
            y = y[: ID // 2].repeat(2)
        if loss.chooses_outliers:
            x, y, x_out = sampling.choose_outliers(model, (x, y, x_out), args, step)
        x.requires_grad_(loss.gradient), x_out.requires_grad_(loss.gradient)
        logits, features = model(torch.cat([x, x_out]))
        terms = loss(Batch(x, x_out, y, logits, features, model.fc))
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()
        curve.append([float(term.detach()) for term in terms.values()])
    return np.array(curve), {key: value.numpy() for key, value in model.state_dict().items()}


def every_loss():
    stages = {name: stage for stage in ("pretrain", "tune") for name in losses_of(stage)}
    return {(stage, name): train(name, stage) for name, stage in stages.items()}


def second_derivative():
    """The gradient of a gradient's norm through BatchNorm, as GReg has it; rows do not divide."""
    torch.manual_seed(0)
    model = ranks.share(Net().double().train())
    x = torch.randn(7, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x)[0].logsumexp(1).sum(), x, create_graph=True)
    gradient.flatten(1).norm(dim=1).sum().backward()
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    if ranks.size() > 1:
        dist.all_reduce(flat)
    return gradient.detach().numpy(), x.grad.numpy(), flat.numpy()


def scored(folder):
    """Outputs of 23 images in batches of 4, and what the cache's folder holds."""
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)
    images = loaders.make_set(pixels, np.zeros(23, int), "x")
    network = Network(Net(), "0" * 64, torch.device("cpu"), "fp32", 4, folder, arch="wrn")
    outputs = network.outputs(images)
    return outputs.logits, outputs.features, ranks.rank()


def work(rank, folder, tasks, queue):
    try:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS
        )
        queue.put((rank, [task() for task in tasks]))
        dist.barrier()
    except BaseException:
        queue.put((rank, traceback.format_exc()))


def together(folder, *tasks):
    """What each of the ranks returns, in their order."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [
        context.Process(target=work, args=(rank, folder, tasks, queue)) for rank in range(RANKS)
    ]
    for process in processes:
        process.start()
    found = dict(queue.get(timeout=100) for _ in processes)
    for process in processes:
        process.join(20)
    for result in found.values():
        assert not isinstance(result, str), result
    return [found[rank] for rank in range(RANKS)]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return together(folder, every_loss, second_derivative, lambda: scored(folder), numbers)


def test_every_losss_curve_is_that_of_one_process(of_two):
    alone = every_loss()
    assert {("tune", name) for name in ("sr", "sroe", "oe", "energy", "greg", "dal")} < set(alone)
    for rank in range(RANKS):
        for key, (curve, state) in alone.items():
            there, weights = of_two[rank][0][key]
            near = 1e-4 if losses_of(key[0])[key[1]].head else 1e-9  # a head is float32
            assert np.allclose(there, curve, rtol=near, atol=near), key
            assert all(np.allclose(weights[k], v, rtol=near, atol=near) for k, v in state.items())


def test_second_derivative_with_rows_that_do_not_divide(of_two):
    for rank in range(RANKS):
        for one, other in zip(second_derivative(), of_two[rank][1], strict=True):
            assert np.allclose(one, other, rtol=1e-9, atol=1e-12) and abs(one).max() > 1e-3


def test_scores_are_those_of_one_process_bit_for_bit(of_two, tmp_path):
    logits, features, _ = scored(tmp_path)
    for rank in range(RANKS):
        assert np.array_equal(of_two[rank][2][0], logits)
        assert np.array_equal(of_two[rank][2][1], features)


def test_one_process_is_as_ever():
    model = Net()
    assert ranks.share(model) is model and type(model.bn1) is nn.BatchNorm2d
    assert (ranks.size(), ranks.rank(), ranks.everyone(True)) == (1, 0, True)


def test_a_batch_that_does_not_divide(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 3)
    args = SimpleNamespace(recipe={"batch_size": 128}, batch_size=128)
    with pytest.raises(UserError, match="128 images a step.*3 processes"):
        training.prepare(Net(), None, args, torch.device("cpu"), "fp32")


def test_a_process_that_finds_no_others_says_so(monkeypatch, capsys):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for size in ("2", "two"):
        monkeypatch.setenv("WORLD_SIZE", size)
        monkeypatch.setenv("RANK", "0")
        assert run(lambda: pytest.fail("it began"), keep_memory=False) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "do not find one another" in line and "torchrun" in line


def numbers():
    """What the ranks have in turn, some of them nothing; and the lowest of their numbers."""
    rank = ranks.rank()
    own = (np.full((2 + rank, 3), rank, np.float32), np.ones((2 + rank, 0), np.float32))
    found = ranks.in_turn(own)
    some = ranks.in_turn(own if rank else None)
    none = ranks.in_turn(None)
    return (
        [a.tolist() for a, _ in found],
        [b.shape for _, b in found],
        some[0],
        none,
        ranks.lowest(7 - rank),
    )


def test_what_ranks_send_one_another_is_numbers(of_two):
    for rank in range(RANKS):
        values, shapes, nothing, none, low = of_two[rank][3]
        assert values == [[[0.0] * 3] * 2, [[1.0] * 3] * 3] and shapes == [(2, 0), (3, 0)]
        assert (nothing, none, low) == (None, [None, None], 6)


# The script runs twice from here on, as the two ranks of one run; the second is killed at its step {step}.
TWO_RANKS = """
import os, signal, torch
child = os.fork()
os.environ.update(
    RANK=str(int(child == 0)), LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
    MASTER_PORT="{port}", GLOO_SOCKET_IFNAME="lo",
)
leave, step, count = os._exit, torch.optim.SGD.step, []
def end(status):
    os.waitpid(child, 0)
    leave(status)
if child:
    os._exit = end
def stop(self, *a):
    count.append(1)
    if len(count) == {step}: os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *a)
if not child:
    torch.optim.SGD.step = stop
"""


def test_a_rank_that_is_killed_ends_the_run_which_goes_on(make_project, tmp_path):
    project, own = make_project(), write_own(tmp_path / "own")
    shape = "--device cpu --layers 10 --widen-factor 1 --batch_size 20 --epochs 3"

    def of_two(folder, step=0, more=""):
        with socket.create_server(("127.0.0.1", 0)) as free:
            prelude = TWO_RANKS.format(step=step, port=free.getsockname()[1])
        command = f"baseline.py own --id {own} {shape} --save {tmp_path / folder}{more}"
        return project.run(command, prelude=prelude)

    assert of_two("whole").status == 0
    result = of_two("killed", step=5)  # in the second of three epochs
    assert result.status == 2 and len(result.err.splitlines()) == 1
    assert "another process of this run has ended" in result.err and "--resume" in result.err
    assert len(list((tmp_path / "killed").glob("*.run/*.resume.pt"))) == 1
    result = of_two("killed", more=" --resume")
    assert result.status == 0 and "resuming" in result.out and result.err == ""
    whole, resumed = (
        torch.load(next((tmp_path / folder).glob("*_epoch_2.pt")), weights_only=True)
        for folder in ("whole", "killed")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
