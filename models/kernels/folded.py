"""A network's pass in evaluation, in bfloat16 on a CPU, with BatchNorm, ReLU and the sum with a
shortcut inside oneDNN's convolutions: nothing is compiled, and a third faster than what a compiler
makes of it.

BatchNorm goes into the weights of the convolution before it and a float32 bias. (As a bfloat16 bias,
which is what a compiler folds it to, its rounding would be the same error for every image.) One that
no convolution is before is a kernel of fused.cpp, with its ReLU, and with the sum before it, which
then stays in float32.
"""

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from models import layers

from .fused import kernels

BF16 = torch.bfloat16
POINTWISE = torch.ops.mkldnn
# of the largest output: how far folded outputs may be from eager bfloat16 ones
TOLERANCE = 0.03
# Channels below which a sum is kept in float32: those of the first maps, whose rounding goes through
# all that follows. On real images a WRN-40-2 gains nothing by keeping its wider ones as well.
NARROW = 64


def fold(model: nn.Module, size: tuple[int, int, int]) -> Callable | None:
    """The network in evaluation as a function of batches (N,3,H,W) of images of that size, which
    returns (logits, features) as the network does under bf16 autocast up to rounding; None where it
    cannot be made so: kernels or oneDNN missing, a network that cannot be traced, or one that gives
    other outputs so.
    """
    if kernels() is None:
        return None
    example = torch.randn(4, *size, generator=torch.Generator().manual_seed(0))
    example = example.contiguous(memory_format=torch.channels_last)
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            folded = rewritten(model)
            pairs = list(zip(model(example), folded(example), strict=True))
        right = all(
            (a.float() - b).abs().max() <= TOLERANCE * a.float().abs().max() for a, b in pairs
        )
    except Exception:  # an operator it does not know: eager or compiled is as right
        return None
    return folded if right else None


class Tracer(fx.Tracer):
    """Traces down to PyTorch's own modules and this project's convolution and head."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        known = isinstance(module, nn.Conv2d) or hasattr(module, "swish")
        return known or super().is_leaf_module(module, name)


def affine_of(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(scale, shift) of each channel, float64, of a BatchNorm in evaluation."""
    scale = (bn.running_var.double() + bn.eps).rsqrt()
    if bn.affine:
        scale = scale * bn.weight.double()
    shift = -bn.running_mean.double() * scale
    return scale, shift + bn.bias.double() if bn.affine else shift


class Convolution(nn.Module):
    """f(bn(conv(x))) with f "relu", "swish" (x sigmoid(x)) or "none", with BatchNorm or without:
    bf16 (N,C,H,W) -> bf16, float32 inside. gains: x is the first of them times what the convolution
    was trained for, and f is given the second times what BatchNorm makes.

    ``first``: of the images themselves, computed in float32, as bf16's steps are as wide as an
    image's own grey levels.
    """

    def __init__(self, conv: nn.Conv2d, bn, after: str, first: bool, gains: tuple = (1.0, 1.0)):
        super().__init__()
        weight, bias = conv.weight.double() / gains[0], None
        if conv.bias is not None:
            bias = conv.bias.double()
        if bn is not None:
            scale, shift = affine_of(bn)
            weight = weight * scale[:, None, None, None]
            bias = shift if bias is None else shift + bias * scale
        weight, bias = weight * gains[1], None if bias is None else bias * gains[1]
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError("a padding that oneDNN does not have")
        self.given = weight.to(torch.float32 if first else BF16)
        self.bias = None if bias is None else bias.float()
        self.geometry = [list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups]
        self.after, self.dtype = after, self.given.dtype
        self.shape, self.weight = None, None

    def packed(self, x: Tensor) -> Tensor:
        """The weights in the order that oneDNN wants for inputs of this shape."""
        if self.shape != x.shape:
            weight = self.given.to_mkldnn()
            reorder = torch._C._nn.mkldnn_reorder_conv2d_weight
            self.shape, self.weight = x.shape, reorder(weight, *self.geometry, list(x.shape))
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        y = POINTWISE._convolution_pointwise(
            x, self.packed(x), self.bias, *self.geometry, self.after, [], ""
        )
        return y.to(BF16)


class Sum(nn.Module):
    """shortcut + conv(x), and ReLU, in the shortcut's own memory, which nobody reads again."""

    def __init__(self, conv: Convolution, relu: bool):
        super().__init__()
        self.conv, self.relu = conv, relu

    def forward(self, shortcut: Tensor, x: Tensor) -> Tensor:
        conv = self.conv
        if conv.bias is None:
            last = [*conv.geometry, "add", 1.0, "relu" if self.relu else None, [], None]
            return POINTWISE._convolution_pointwise_.binary(
                shortcut, x, conv.packed(x), None, *last
            )
        y = conv(x)  # the operator above takes no float32 bias
        check_same(shortcut, y)
        kernels().sum_bfloat16(
            y.data_ptr(), shortcut.data_ptr(), y.numel(), self.relu, torch.get_num_threads()
        )
        return shortcut


def check_same(shortcut: Tensor, y: Tensor) -> None:
    """ValueError for maps of other shapes, which PyTorch's sum would enlarge and a kernel would not."""
    if shortcut.shape != y.shape:
        raise ValueError("a sum of maps of other shapes")


class Affine(nn.Module):
    """relu(bn(x)), or without ReLU, of an x that no convolution alone has made: bf16 -> bf16."""

    def __init__(self, bn: nn.BatchNorm2d, relu: bool):
        super().__init__()
        self.scale, self.shift = (part.float().contiguous() for part in affine_of(bn))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        y, channels = torch.empty_like(x), x.shape[1]
        kernels().affine_bfloat16(
            x.data_ptr(),
            y.data_ptr(),
            x.numel() // channels,
            channels,
            self.scale.data_ptr(),
            self.shift.data_ptr(),
            self.relu,
            torch.get_num_threads(),
        )
        return y


class Step(nn.Module):
    """shortcut + conv(x), kept in float32, and relu(bn()) of it, or without ReLU, in bf16.

    A network that adds block after block to one map would else round that map to bf16 each time.
    A float32 shortcut is changed in its own memory, which nobody reads again. kept: somebody reads
    the sum itself, too.
    """

    def __init__(self, total: Sum, affine: Affine, kept: bool):
        super().__init__()
        self.conv, self.affine, self.kept = total.conv, affine, kept

    def forward(self, shortcut: Tensor, x: Tensor) -> tuple[Tensor | None, Tensor]:
        x, trunk, affine = self.conv(x), None, self.affine
        check_same(shortcut, x)
        single = shortcut.dtype == torch.float32
        if self.kept:
            trunk = shortcut if single else torch.empty_like(shortcut, dtype=torch.float32)
        step = kernels().step_float32 if single else kernels().step_bfloat16
        y, channels = torch.empty_like(x), x.shape[1]
        step(
            x.data_ptr(),
            shortcut.data_ptr(),
            None if trunk is None else trunk.data_ptr(),
            y.data_ptr(),
            x.numel() // channels,
            channels,
            affine.scale.data_ptr(),
            affine.shift.data_ptr(),
            affine.relu,
            torch.get_num_threads(),
        )
        return trunk, y


def head(x: Tensor, fc: nn.Linear, gain: float = 1.0) -> tuple[Tensor, Tensor]:
    """As ``layers.pool_and_classify``, of ``gain`` times a map, in bf16."""
    with torch.autocast("cpu", enabled=False):
        features = x.mean((2, 3), dtype=torch.float32) / gain
        return fc(features), features


class Rewriting:
    """A traced network whose nodes are replaced by the modules above."""

    def __init__(self, model: nn.Module):
        own = (layers.pool_and_classify, layers.check_size)
        self.graph = Tracer(autowrap_functions=own).trace(model)
        self.whole = fx.GraphModule(model, self.graph)
        self.input = next(node for node in self.graph.nodes if node.op == "placeholder")
        self.gains = {}  # node -> how many times too large its output is

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.whole.get_submodule(node.target) if node.op == "call_module" else None

    def calls(self, node: fx.Node, *functions: Callable) -> bool:
        return node.op == "call_function" and node.target in functions

    def then(self, node: fx.Node, fits: Callable[[fx.Node], bool]) -> fx.Node | None:
        """The one node that reads this one, if it is such a one."""
        users = list(node.users)
        return users[0] if len(users) == 1 and fits(users[0]) else None

    def is_relu(self, node: fx.Node) -> bool:
        return self.calls(node, F.relu, torch.relu) or isinstance(self.module(node), nn.ReLU)

    def is_norm(self, node: fx.Node) -> bool:
        return isinstance(self.module(node), nn.BatchNorm2d)

    def swish_of(self, node: fx.Node) -> float | None:
        """s where the node is x sigmoid(s x); that is swish(s x) / s, and oneDNN has swish."""
        return getattr(self.module(node), "swish", None)

    def passes_on(self, node: fx.Node) -> bool:
        """Whether a node gives s times its output for s > 0 times its input."""
        return isinstance(self.module(node), nn.MaxPool2d) or self.calls(node, operator.getitem)

    def takes_gain(self, node: fx.Node) -> bool:
        """Whether all that read a node can be told that it is a number of times too large."""
        return all(
            isinstance(self.module(user), nn.Conv2d)
            or self.calls(user, head)
            or (self.passes_on(user) and self.takes_gain(user))
            for user in node.users
        )

    def gain(self, node: fx.Node) -> float:
        while self.passes_on(node):
            node = node.args[0]
        return self.gains.get(node, 1.0)

    def replace(self, chain: list[fx.Node], module: nn.Module, *inputs: fx.Node) -> fx.Node:
        """Put a module in the place of nodes that follow one another."""
        name = f"folded{len(self.graph.nodes)}_{len(self.whole._modules)}"
        self.whole.add_submodule(name, module)
        with self.graph.inserting_before(chain[-1]):
            node = self.graph.call_module(name, inputs)
        chain[-1].replace_all_uses_with(node)
        for old in reversed(chain):
            self.graph.erase_node(old)
        return node

    def drop(self) -> None:
        """Dropout does nothing in evaluation, and the size of the images has been looked at."""
        for node in list(self.graph.nodes):
            if self.calls(node, F.dropout) or isinstance(self.module(node), nn.Dropout):
                node.replace_all_uses_with(node.args[0])
                self.graph.erase_node(node)
            elif self.calls(node, layers.check_size):
                self.graph.erase_node(node)
            elif self.calls(node, layers.pool_and_classify):
                node.target = head

    def convolutions(self) -> None:
        for node in list(self.graph.nodes):
            conv = self.module(node)
            if not isinstance(conv, nn.Conv2d):
                continue
            norm = self.then(node, self.is_norm)
            relu = self.then(norm or node, self.is_relu)
            swish = self.then(norm or node, self.swish_of)
            if swish is not None and not self.takes_gain(swish):
                swish = None
            after = "relu" if relu else "swish" if swish else "none"
            gains = (self.gain(node.args[0]), self.swish_of(swish) if swish else 1.0)
            first = node.args[0] is self.input
            made = Convolution(conv, norm and self.module(norm), after, first, gains)
            chain = [n for n in (node, norm, relu or swish) if n is not None]
            self.gains[self.replace(chain, made, node.args[0])] = gains[1]
        for node in self.graph.nodes:
            if self.calls(node, head):
                node.args = (*node.args[:2], self.gain(node.args[0]))

    def norms(self) -> None:
        for node in list(self.graph.nodes):
            if self.is_norm(node):
                relu = self.then(node, self.is_relu)
                made = Affine(self.module(node), relu is not None)
                self.replace([n for n in (node, relu) if n is not None], made, node.args[0])

    def sums(self) -> None:
        for node in list(self.graph.nodes):
            if not self.calls(node, operator.add, torch.add):
                continue
            order = {other: i for i, other in enumerate(self.graph.nodes)}
            a, b = node.args
            for conv, shortcut in ((b, a), (a, b)):
                module = self.module(conv)
                plain = isinstance(module, Convolution) and module.after == "none"
                # nobody reads the shortcut after the sum, which takes its place
                last = max(map(order.get, shortcut.users)) == order[node]
                if plain and len(conv.users) == 1 and last and self.is_map(shortcut):
                    relu = self.then(node, self.is_relu)
                    chain = [n for n in (conv, node, relu) if n is not None]
                    self.replace(chain, Sum(module, relu is not None), shortcut, conv.args[0])
                    break

    def steps(self) -> None:
        """Sums that one BatchNorm reads, and besides it at most such sums, which add to them."""
        norm_of = {}
        for node in reversed(list(self.graph.nodes)):
            total = self.module(node)
            if isinstance(total, Sum) and not total.relu and len(total.conv.given) < NARROW:
                norms = [user for user in node.users if isinstance(self.module(user), Affine)]
                rest = [user for user in node.users if user not in norms]
                if len(norms) == 1 and all(u in norm_of and u.args[0] is node for u in rest):
                    norm_of[node] = norms[0]
        for node, norm in norm_of.items():
            made = Step(self.module(node), self.module(norm), kept=len(node.users) > 1)
            step = self.replace([node], made, *node.args)
            with self.graph.inserting_after(step):
                trunk = self.graph.call_function(operator.getitem, (step, 0))
                y = self.graph.call_function(operator.getitem, (step, 1))
            step.replace_all_uses_with(trunk, lambda user, own=(trunk, y): user not in own)
            norm.replace_all_uses_with(y)
            self.graph.erase_node(norm)

    def is_map(self, node: fx.Node) -> bool:
        """Whether a node's output is bf16, in channels_last memory and its own."""
        return isinstance(self.module(node), (Convolution, Sum, Affine))


def rewritten(model: nn.Module) -> fx.GraphModule:
    """The network with everything folded that can be."""
    work = Rewriting(model)
    work.drop()
    work.convolutions()
    work.norms()
    work.sums()
    work.steps()
    work.graph.lint()
    work.whole.delete_all_unused_submodules()
    work.whole.recompile()
    return work.whole.eval()
