"""The networks: published names, shapes, counts and initial weights;
the contract; image sizes; inference.
"""

import copy
import importlib
import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models

FEATURE_DIM = {"wrn": 128, "resnet18": 512, "resnet34": 512, "densenet": 342, "allconv": 192}
ARCHS = sorted(FEATURE_DIM)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine several threads wait for each other at every one of
    the many small operators.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def nets(one_thread):
    """One network of each kind with 10 classes, in eval mode,
    its BatchNorm statistics not the initial ones.
    """
    torch.manual_seed(0)
    built = {arch: models.build(arch, 10) for arch in ARCHS}
    for net in built.values():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        net.eval()
    return built


# what the published files hold, in their order, written from METHODS section 4
# and not from the networks


def conv(name, channels_in, channels, kernel, bias=False):
    names = {f"{name}.weight": (channels, channels_in, kernel, kernel)}
    return {**names, f"{name}.bias": (channels,)} if bias else names


def bn(name, channels):
    statistics = {
        f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")
    }
    return {**statistics, f"{name}.num_batches_tracked": ()}


def linear(channels, classes):
    return {"fc.weight": (classes, channels), "fc.bias": (classes,)}


def wrn_names(depth, k, classes):
    names, channels_in = conv("conv1", 3, 16, 3), 16
    for group, channels in (("block1", 16 * k), ("block2", 32 * k), ("block3", 64 * k)):
        for i in range((depth - 4) // 6):
            at = f"{group}.layer.{i}"
            names |= bn(f"{at}.bn1", channels_in) | conv(f"{at}.conv1", channels_in, channels, 3)
            names |= bn(f"{at}.bn2", channels) | conv(f"{at}.conv2", channels, channels, 3)
            if channels_in != channels:
                names |= conv(f"{at}.convShortcut", channels_in, channels, 1)
            channels_in = channels
    return names | bn("bn1", 64 * k) | linear(64 * k, classes)


def densenet_names(classes):
    names = conv("conv1", 3, 24, 3)
    for group, channels_in in ((1, 24), (2, 108), (3, 150)):
        for i in range(16):
            at, seen = f"block{group}.layer.{i}", channels_in + 12 * i
            names |= bn(f"{at}.bn1", seen) | conv(f"{at}.conv1", seen, 48, 1)
            names |= bn(f"{at}.bn2", 48) | conv(f"{at}.conv2", 48, 12, 3)
        if group < 3:
            made = channels_in + 192
            names |= bn(f"trans{group}.bn1", made) | conv(f"trans{group}.conv1", made, made // 2, 1)
    return names | bn("bn1", 342) | linear(342, classes)


def resnet_names(blocks, classes):
    names, channels_in = conv("conv1", 3, 64, 3) | bn("bn1", 64), 64
    for stage, (count, channels) in enumerate(zip(blocks, (64, 128, 256, 512)), start=1):
        for i in range(count):
            at = f"layer{stage}.{i}"
            names |= conv(f"{at}.conv1", channels_in, channels, 3) | bn(f"{at}.bn1", channels)
            names |= conv(f"{at}.conv2", channels, channels, 3) | bn(f"{at}.bn2", channels)
            if channels_in != channels:
                names |= conv(f"{at}.shortcut.0", channels_in, channels, 1) | bn(
                    f"{at}.shortcut.1", channels
                )
            channels_in = channels
    return names | linear(512, classes)


def allconv_names(classes):
    names = {}
    # the Sequential counts convolution, BN, GELU and, after the third and sixth,
    # max pooling and dropout
    for at, channels_in, channels, kernel in (
        (0, 3, 96, 3),
        (3, 96, 96, 3),
        (6, 96, 96, 3),
        (11, 96, 192, 3),
        (14, 192, 192, 3),
        (17, 192, 192, 3),
        (22, 192, 192, 3),
        (25, 192, 192, 1),
        (28, 192, 192, 1),
    ):
        names |= conv(f"features.{at}", channels_in, channels, kernel, bias=True) | bn(
            f"features.{at + 1}", channels
        )
    return names | linear(192, classes)


def published_names(arch, classes, depth=40, k=2):
    return {
        "wrn": lambda: wrn_names(depth, k, classes),
        "densenet": lambda: densenet_names(classes),
        "resnet18": lambda: resnet_names((2, 2, 2, 2), classes),
        "resnet34": lambda: resnet_names((3, 4, 6, 3), classes),
        "allconv": lambda: allconv_names(classes),
    }[arch]()


@pytest.mark.parametrize("arch", ARCHS)
def test_names_shapes_and_order_are_the_published_ones(arch, nets):
    got = {name: tuple(value.shape) for name, value in nets[arch].state_dict().items()}
    assert list(got.items()) == list(published_names(arch, 10).items())


@pytest.mark.parametrize("depth, k", [(10, 1), (16, 4), (28, 10)])
def test_names_and_shapes_of_other_wrns(depth, k):
    with torch.device("meta"):
        net = models.build("wrn", 7, layers=depth, widen_factor=k)
    assert {n: tuple(v.shape) for n, v in net.state_dict().items()} == published_names(
        "wrn", 7, depth, k
    )
    assert net.feature_dim == 64 * k and net.num_classes == 7


def count_wrn(depth, k, classes):
    widths, total, channels = (16 * k, 32 * k, 64 * k), 3 * 9 * 16, 16
    for width in widths:
        shortcut = channels * width if channels != width else 0
        total += 2 * channels + 9 * channels * width + 2 * width + 9 * width**2 + shortcut
        total += ((depth - 4) // 6 - 1) * (4 * width + 18 * width**2)
        channels = width
    return total + 2 * channels + (channels + 1) * classes


def count_densenet(classes):
    def block(channels):  # 16 layers see channels + 12 i: BN, 1x1 to 48, BN, 3x3 to 12
        seen = 16 * channels + 12 * sum(range(16))
        return (2 + 48) * seen + 16 * (2 * 48 + 9 * 48 * 12)

    transitions = sum(2 * c + c * c // 2 for c in (216, 300))
    return 27 * 24 + block(24) + block(108) + block(150) + transitions + 2 * 342 + 343 * classes


def count_resnet(blocks, classes):
    total, channels = 27 * 64 + 2 * 64, 64
    for count, width in zip(blocks, (64, 128, 256, 512)):
        total += count * (18 * width**2 + 4 * width) - 9 * width * (width - channels)
        total += channels * width + 2 * width if channels != width else 0
        channels = width
    return total + 513 * classes


def count_allconv(classes):
    convolutions = 9 * (3 * 96 + 2 * 96**2 + 96 * 192 + 3 * 192**2) + 2 * 192**2
    # a convolution's bias and two of BN a channel
    return convolutions + 3 * (3 * 96 + 6 * 192) + 193 * classes


@pytest.mark.parametrize("classes", [10, 100])
def test_parameter_counts(classes):
    expected = {
        "wrn": {10: 2_243_546, 100: 2_255_156}[classes],
        "densenet": count_densenet(classes),
        "resnet18": count_resnet((2, 2, 2, 2), classes),
        "resnet34": count_resnet((3, 4, 6, 3), classes),
        "allconv": count_allconv(classes),
    }
    assert count_wrn(40, 2, classes) == expected["wrn"]
    with torch.device("meta"):
        got = {
            arch: sum(p.numel() for p in models.build(arch, classes).parameters()) for arch in ARCHS
        }
    assert got == expected


def test_models_table_holds_the_tested_networks():
    assert sorted(models.MODELS) == ARCHS


@pytest.mark.parametrize("arch", ARCHS)
def test_features_are_the_input_of_the_head(arch, nets):
    net, seen = nets[arch], []
    handle = net.fc.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits, features = net(torch.randn(3, 3, 32, 32))
    handle.remove()
    assert isinstance(net.fc, nn.Linear) and net.num_classes == 10
    assert features.shape == (3, FEATURE_DIM[arch]) == (3, net.feature_dim) and logits.shape == (
        3,
        10,
    )
    assert torch.equal(seen[0], features)
    assert torch.equal(net.fc(features), logits)
    assert features.std() > 0


@pytest.mark.parametrize("arch", ARCHS)
def test_sign_of_features(arch, nets):
    with torch.no_grad():
        _, features = nets[arch](torch.randn(4, 3, 32, 32))
    if arch == "allconv":
        assert -0.165 < features.min() < 0  # a mean of GELUs is not below the GELU's minimum
    else:
        assert features.min() >= 0 and features.max() > 0


@pytest.mark.parametrize("arch", ["wrn", "densenet", "allconv"])
def test_initial_convolutions_are_normal_with_fan_out(arch):
    torch.manual_seed(3)
    net = models.build(arch, 10)
    scaled = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            std = math.sqrt(
                2 / (module.kernel_size[0] * module.kernel_size[1] * module.out_channels)
            )
            scaled[name] = module.weight.detach().flatten() / std
            if len(scaled[name]) > 5000:  # the standard error of a std is 1 / sqrt(2 n)
                assert abs(scaled[name].std() - 1) < 5 / math.sqrt(2 * len(scaled[name])), name
    values = torch.cat(list(scaled.values()))
    assert abs(values.mean()) < 5 / math.sqrt(len(values))
    within = [(values.abs() < z).float().mean().item() for z in (1, 2, 3)]
    assert within == pytest.approx([0.6827, 0.9545, 0.9973], abs=0.004)  # a uniform has 0.577, 1, 1
    assert torch.equal(net.fc.bias, torch.zeros(10)) and net.fc.weight.std() > 0


def test_initial_resnet_weights_are_pytorchs():
    torch.manual_seed(3)
    for module in models.build("resnet18", 10).modules():
        if isinstance(module, nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert 0.95 * bound < module.weight.abs().max() <= bound


@pytest.mark.parametrize("arch", ARCHS)
def test_initial_batch_norms_are_the_identity(arch):
    for module in models.build(arch, 10).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
            assert (module.running_mean == 0).all() and (module.running_var == 1).all()


@pytest.mark.parametrize("arch", ARCHS)
def test_eval_mode_repeats_itself_image_by_image(arch, nets):
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        first = nets[arch](images)[0]
        again = nets[arch](images)[0]
        alone = nets[arch](images[1:2])[0]
    assert torch.equal(first, again)
    torch.testing.assert_close(alone, first[1:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arch, drops", [("wrn", True), ("densenet", True), ("allconv", True), ("resnet18", False)]
)
def test_dropout_only_in_training(arch, drops):
    net = models.build(arch, 10).train()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        same = torch.equal(net(images)[0], net(images)[0])
    assert same is not drops


@pytest.mark.parametrize("arch", ["wrn", "densenet"])
def test_dropout_rate_zero_draws_nothing(arch):
    net = models.build(arch, 10, layers=10, droprate=0.0).train()
    before = torch.get_rng_state()
    net(torch.zeros(2, 3, 16, 16))
    assert torch.equal(torch.get_rng_state(), before)


def test_wrn_is_the_published_computation():
    """The WRN written out for depth 10 with functions only, from METHODS section 4."""
    torch.manual_seed(1)
    net = models.build("wrn", 10, layers=10, widen_factor=2).eval()
    w, x = net.state_dict(), torch.randn(2, 3, 32, 32)

    def norm(h, at):
        mean, var = w[f"{at}.running_mean"], w[f"{at}.running_var"]
        return F.relu(F.batch_norm(h, mean, var, w[f"{at}.weight"], w[f"{at}.bias"]))

    h = F.conv2d(x, w["conv1.weight"], padding=1)
    for group, stride in ((1, 1), (2, 2), (3, 2)):
        at = f"block{group}.layer.0"
        active = norm(h, f"{at}.bn1")
        inner = norm(
            F.conv2d(active, w[f"{at}.conv1.weight"], stride=stride, padding=1), f"{at}.bn2"
        )
        shortcut = F.conv2d(active, w[f"{at}.convShortcut.weight"], stride=stride)
        h = shortcut + F.conv2d(inner, w[f"{at}.conv2.weight"], padding=1)
    features = F.avg_pool2d(norm(h, "bn1"), 8).flatten(1)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[1], features, rtol=1e-4, atol=1e-5)


def test_allconv_is_the_published_computation(nets):
    """At 32x32: the 1x1 convolutions are padded by 1,
    and the average is over the first 8x8 of 10x10 positions.
    """
    w, x = nets["allconv"].state_dict(), torch.randn(2, 3, 32, 32)

    def unit(h, at, padding):
        h = F.conv2d(h, w[f"features.{at}.weight"], w[f"features.{at}.bias"], padding=padding)
        at = f"features.{at + 1}"
        h = F.batch_norm(
            h, w[f"{at}.running_mean"], w[f"{at}.running_var"], w[f"{at}.weight"], w[f"{at}.bias"]
        )
        return h * torch.sigmoid(1.702 * h)

    h = x
    for at, padding in (
        (0, 1),
        (3, 1),
        (6, 1),
        ("pool", 0),
        (11, 1),
        (14, 1),
        (17, 1),
        ("pool", 0),
        (22, 0),
        (25, 1),
        (28, 1),
    ):
        h = F.max_pool2d(h, 2) if at == "pool" else unit(h, at, padding)
    assert h.shape == (2, 192, 10, 10)
    with torch.no_grad():
        torch.testing.assert_close(
            nets["allconv"](x)[1], F.avg_pool2d(h, 8).flatten(1), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("size", [(28, 28), (64, 64), (20, 36), (12, 13)])
@pytest.mark.parametrize("arch", ARCHS)
def test_other_image_sizes(arch, size, nets):
    with torch.no_grad():
        logits, features = nets[arch](torch.randn(1, 3, *size))
    assert logits.shape == (1, 10) and features.shape == (1, FEATURE_DIM[arch])
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    "arch, size",
    [("densenet", (3, 32)), ("densenet", (32, 3)), ("allconv", (11, 32)), ("allconv", (8, 8))],
)
def test_too_small_images_are_refused(arch, size, nets):
    with pytest.raises(ValueError, match=rf"at least .* pixels, these are {size[0]}x{size[1]}"):
        nets[arch](torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    "arch, size", [("wrn", 1), ("resnet18", 1), ("densenet", 4), ("allconv", 12)]
)
def test_smallest_images(arch, size, nets):
    with torch.no_grad():
        assert torch.isfinite(nets[arch](torch.randn(1, 3, size, size))[0]).all()


@pytest.mark.parametrize("arch", ARCHS)
def test_bf16_autocast_gives_float32(arch, nets):
    images = torch.randn(2, 3, 32, 32)
    seen = []
    # the first stays in float32
    _, second, *_ = (m for m in nets[arch].modules() if isinstance(m, nn.Conv2d))
    handle = second.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, features = nets[arch](images)
        handle.remove()
        exact = nets[arch](images)[1]
    assert seen == [torch.bfloat16]  # or the test would say nothing
    assert logits.dtype == features.dtype == torch.float32
    assert torch.equal(F.linear(features, nets[arch].fc.weight, nets[arch].fc.bias), logits)
    assert (features - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("arch", ARCHS)
def test_the_first_convolution_and_a_wrns_shortcuts_are_float32_under_autocast(arch, nets):
    """Neither images nor weights are rounded before these,
    and what comes out is in training alone.
    """
    seen, images = {}, torch.randn(2, 3, 32, 32)
    convolutions = {name: m for name, m in nets[arch].named_modules() if isinstance(m, nn.Conv2d)}
    handles = [
        m.register_forward_hook(
            lambda m, inputs, output, name=name: seen.update({name: (inputs[0], output)})
        )
        for name, m in convolutions.items()
    ]
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            nets[arch](images)
            for handle in handles:
                handle.remove()
            first = next(iter(convolutions))
            in_training = copy.deepcopy(convolutions[first]).train()(images)
        exact = [
            name
            for name, m in convolutions.items()
            if torch.equal(seen[name][1], m._conv_forward(seen[name][0].float(), m.weight, m.bias))
        ]
    assert seen[first][0].dtype == torch.float32 and torch.equal(
        in_training, seen[first][1].bfloat16()
    )
    assert exact == [name for name in convolutions if name == first or "convShortcut" in name]


@pytest.mark.parametrize("arch", ARCHS)
def test_channels_last_gives_the_same(arch, nets):
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = nets[arch](images)[1]
        try:
            nets[arch].to(memory_format=torch.channels_last)
            last = nets[arch](images.to(memory_format=torch.channels_last))[1]
        finally:
            nets[arch].to(memory_format=torch.contiguous_format)
    # sums in another order, of large terms
    torch.testing.assert_close(last, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


@pytest.mark.parametrize("arch", ["wrn", "allconv"])
def test_compiles_in_one_graph(arch):
    net = models.build(arch, 10, layers=10, widen_factor=1).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        compiled = torch.compile(net, backend="eager", fullgraph=True)(images)
        torch.testing.assert_close(compiled, net(images))
    torch._dynamo.reset()


@pytest.mark.parametrize("arch", ["wrn", "resnet18", "densenet", "allconv"])
def test_gradient_of_a_gradient(arch):
    """GReg differentiates a norm of the energy's gradient at the image."""
    net = models.build(arch, 3, layers=10, widen_factor=1).train()
    images = torch.randn(2, 3, 12, 12, requires_grad=True)
    energy = -net(images)[0].logsumexp(1).sum()
    (gradient,) = torch.autograd.grad(energy, images, create_graph=True)
    gradient.flatten(1).norm(dim=1).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert net.fc.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "arch, options, layers, widen_factor",
    [
        ("wrn", {}, 40, 2),
        ("wrn", {"layers": 16, "widen_factor": 4}, 16, 4),
        ("wrn", {"layers": 10, "widen_factor": 1}, 10, 1),
        ("resnet18", {}, None, None),
        ("resnet34", {}, None, None),
        ("densenet", {}, None, None),
        ("allconv", {}, None, None),
    ],
)
def test_infer_round_trip(arch, options, layers, widen_factor):
    with torch.device("meta"):
        state = models.build(arch, 100, **options).state_dict()
    expected = {"arch": arch, "num_classes": 100, "layers": layers, "widen_factor": widen_factor}
    assert models.infer(state) == expected
    head = {"resnet18": "linear", "resnet34": "linear", "allconv": "classifier"}.get(arch, "fc")
    published = {
        f"module.{name.replace('fc.', head + '.')}": value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert models.infer(published) == expected


@pytest.mark.parametrize("arch", ARCHS)
def test_infer_of_a_file_that_would_not_load(arch, nets):
    state = nets[arch].state_dict()
    name = next(iter(state))
    assert models.infer({**state, "extra.weight": torch.zeros(2)}) is None
    assert models.infer({n: v for n, v in state.items() if n != name}) is None
    assert models.infer({**state, name: torch.zeros(5, 3, 7, 7)}) is None


def test_infer_of_other_files():
    assert models.infer({}) is None
    assert models.infer({"fc.weight": torch.zeros(10, 8), "fc.bias": torch.zeros(10)}) is None
    assert (
        models.infer({"fc.weight": torch.zeros(10), "layer1.0.conv1.weight": torch.zeros(1)})
        is None
    )
    assert (
        models.infer({"fc.weight": torch.zeros(0, 8), "features.0.weight": torch.zeros(1)}) is None
    )
    narrow = {
        "fc.weight": torch.zeros(10, 8),
        "block1.layer.0.conv1.weight": torch.zeros(8, 16, 3, 3),
    }
    assert models.infer(narrow) is None


def test_infer_draws_no_random_numbers(nets):
    before = torch.get_rng_state()
    models.infer(nets["wrn"].state_dict())
    assert torch.equal(torch.get_rng_state(), before)


USERS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, size=None):
        super().__init__()
        self.fc, self.size = nn.Linear(3, classes), size

    def forward(self, x):
        if self.size and x.shape[-1] != self.size:
            raise RuntimeError("wrong size")
        features = x.mean((2, 3))
        return self.fc(features), features

class Convolution(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return super().forward(self.conv(x))

class LogitsOnly(Net):
    def forward(self, x):
        return super().forward(x)[0]

class OtherFeatures(Net):
    def forward(self, x):
        logits, features = super().forward(x)
        return logits, features + 1

class WideFeatures(Net):
    def forward(self, x):
        logits, features = super().forward(x)
        return logits, torch.cat((features, features), 1)

class OtherDim(Net):
    feature_dim = 4

def headless(classes): return nn.Identity()

def large(classes): return Net(classes, 224)
def odd(classes): return Net(classes, 33)
def thousand(classes): return Net(1000)
def nothing(classes): return None
"""


@pytest.fixture
def users(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(USERS)
    (tmp_path / "my_broken.py").write_text("import there_is_no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_networks"
    sys.modules.pop("my_networks", None)


@pytest.mark.parametrize("function", ["Net", "large"])
def test_a_users_own_network(function, users):
    net = models.build(f"{users}:{function}", 7)
    assert net.fc.out_features == net.num_classes == 7 and net.feature_dim == 3
    assert net.training


def test_a_users_head_stays_in_float32_under_autocast(users):
    net = models.build(f"{users}:Convolution", 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, features = net(torch.rand(5, 3, 8, 8))
    assert logits.dtype == features.dtype == torch.float32
    torch.testing.assert_close(
        logits, torch.nn.functional.linear(features, net.fc.weight, net.fc.bias)
    )
    assert not torch.equal(logits, logits.bfloat16().float()) and list(net.state_dict()) == [
        "fc.weight",
        "fc.bias",
        "conv.weight",
        "conv.bias",
    ]


@pytest.mark.parametrize(
    "function, error, words",
    [
        ("nothing", TypeError, "returned a NoneType, not a torch.nn.Module"),
        ("headless", TypeError, "as .fc"),
        ("thousand", ValueError, "1000 classes, asked for 7"),
        ("OtherFeatures", ValueError, "fc\\(features\\) is not logits"),
        ("WideFeatures", ValueError, "features \\(N,3\\)"),
        ("OtherDim", ValueError, "feature_dim 4"),
        ("odd", ValueError, "neither 32x32 nor 224x224"),
        ("missing", ValueError, "has no function 'missing'"),
    ],
)
def test_a_users_network_that_breaks_the_contract(function, error, words, users):
    with pytest.raises(error, match=words):
        models.build(f"{users}:{function}", 7)


@pytest.mark.parametrize(
    "text, words",
    [
        ("def net(classes:", "SyntaxError"),
        ("undefined_name", "NameError"),
        ("def net(classes):\n    return {}['nothing']", "KeyError"),
        (
            (
                "import torch\nclass net(torch.nn.Module):\n    def __init__(self, c):\n"
                "        super().__init__()\n        self.fc = torch.nn.Linear(3, c)\n"
                "    def forward(self, x):\n        return self.nothing"
            ),
            "AttributeError",
        ),
    ],
)
def test_a_users_file_with_a_mistake_in_it(text, words, tmp_path, monkeypatch):
    (tmp_path / "mistaken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mistaken", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match=f"'mistaken:net'.*{words}"):
        models.build("mistaken:net", 3)


@pytest.mark.parametrize(
    "arch, words",
    [
        (
            "vgg",
            (
                "unknown network 'vgg'. There is: wrn, resnet18, resnet34, densenet, "
                "allconv, or module:function"
            ),
        ),
        ("no_such_module:net", "module 'no_such_module' cannot be imported"),
        (":net", "module '' cannot be imported"),
        ("my_broken:net", "there_is_no_such_package"),
    ],
)
def test_unknown_networks(arch, words, users):
    with pytest.raises(ValueError, match=words):
        models.build(arch, 10)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"layers": 41}, "6n \\+ 4"),
        ({"layers": 4}, "6n \\+ 4"),
        ({"layers": -2}, "6n \\+ 4"),
        ({"widen_factor": 0}, "widen factor"),
        ({"droprate": 1.0}, "dropout rate"),
        ({"droprate": -0.1}, "dropout rate"),
        ({"num_classes": 0}, "at least one class"),
    ],
)
def test_impossible_options(options, words):
    with pytest.raises(ValueError, match=words):
        models.build("wrn", **{"num_classes": 10, **options})


def test_head_aliases_load_a_published_head(nets):
    for arch, head in (("resnet18", "linear."), ("allconv", "classifier.")):
        state = {
            name.replace("fc.", head): value for name, value in nets[arch].state_dict().items()
        }
        assert head in models.HEAD_ALIASES and "fc.weight" not in state
        alias = models.HEAD_ALIASES[head]
        nets[arch].load_state_dict(
            {name.replace(head, alias): value for name, value in state.items()}
        )
