"""The network that is trained: built, loaded, put on the device, and tested after each epoch."""

import argparse
import copy
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

import models
from utils import loaders, runtime, snapshots
from utils.losses import Loss, losses_of
from utils.metrics import is_near_chance
from utils.runtime import UserError, autocast, ranks


def prepare_training(
    model: nn.Module, device: torch.device, compile: str = "auto", gradient: bool = False
) -> nn.Module:
    """``prepare`` for training, with the fused operators on a CPU unless compile is "off", and with
    ``gradient``, for a loss that holds one, with those that are quickly differentiated again.
    """
    if gradient and device.type == "cpu" and compile != "off":
        models.differentiate_twice(model)
    # the fused BatchNorm knows this process's images alone
    models.use_kernels(fused=compile != "off" and ranks.size() == 1)
    if device.type == "cuda":
        # thousands of batches of one shape pay for the search
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    return runtime.prepare(model, device)


def compile_training(model: nn.Module, batch: Tensor, precision: str) -> None:
    """torch.compile of the model in place, so that parameters keep their names;
    left as it was where that fails.

    One pass each way over ``batch`` (B,3,H,W) compiles it here and not in the first step; it leaves
    no trace in the model. For a GPU: on a CPU the fused operators are faster.
    """
    before = copy.deepcopy(model.state_dict())
    model.compile(dynamic=False)
    try:
        with autocast(batch.device, precision):
            logits, _ = model(batch)
        logits.sum().backward()
    except Exception:  # no compiler, an operator it does not know: eager is as right
        model._compiled_call_impl = None
    model.load_state_dict(before)
    model.zero_grad(set_to_none=True)


def describe_computing(device: torch.device, precision: str, compile: str = "auto") -> dict:
    """What the digits of a training run depend on beside its recipe: device, precision, the fused
    kernels or not, threads, --deterministic, torch's version, the CPU's instruction sets, ranks.
    """
    fuse = device.type == "cpu" and compile != "off" and models.has_kernels()
    return {
        "device": device.type,
        "precision": precision,
        "fused": fuse and ranks.size() == 1,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch": str(torch.__version__),  # a class of its own, which no state may hold
        "cpu": " ".join(runtime.cpu_features()),
        "ranks": ranks.size(),
    }


def arch_name(arch: str) -> str:
    """What of --arch goes into file names: a network's name, the function of module:function, or
    timm_NAME, which may be another network than the project's of that name.
    """
    package, _, name = arch.rpartition(":")
    return f"{package}_{name}" if package in models.PACKAGES else name


def describe_network(
    args: argparse.Namespace, num_classes: int, train_set: loaders.ImageSet, computed: dict
) -> dict:
    """What a snapshot's .json says of its network, of the images it was trained on and,
    ``computed``, by what.
    """
    return {
        "stage": args.stage,
        "arch": args.arch,
        "num_classes": num_classes,
        "layers": args.layers,
        "widen_factor": args.widen_factor,
        "droprate": args.droprate,
        "dataset": args.dataset,
        "data": train_set.source if args.id else args.dataset,
        "data_fingerprint": train_set.fingerprint,
        "train_images": len(train_set),
        "classes": list(train_set.classes or ()),
        "image_size": train_set.images.shape[-1],
        **dict(zip(("mean", "std"), map(list, args.statistics))),
        **({"split": args.split} if getattr(args, "split", None) else {}),
        "seed": args.seed,
        "computed": computed,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def describe_parent(path: Path, arch: str | None) -> dict:
    """The description of a pre-trained snapshot: its .json alone where that names the network
    (``load_parent`` and ``check_given`` hold the weights against it), else what names and shapes
    tell.
    """
    own = arch if ":" in (arch or "") else None
    description = snapshots.read_description(path) or {}
    if "arch" not in description or description.get("num_classes") is None:
        return snapshots.describe(path, snapshots.read_weights(path, own), own)
    if own is None:
        snapshots.check_arch(description["arch"], path.with_suffix(".json"))
    return {**description, "arch": own or description["arch"]}


def check_given(path: Path, arch: str) -> None:
    """UserError unless a snapshot's weights are of the network that it is said to be, before one of
    that name is made.
    """
    own = arch if ":" in arch else None
    snapshots.describe(path, snapshots.read_weights(path, own), own)


def load_parent(path: Path, description: dict) -> torch.nn.Module:
    """The network of this description with the weights of a pre-trained snapshot; UserError unless
    that is of its data set, its classes and its shapes, before any memory of its own is taken.
    """
    state = snapshots.read_weights(path, description["arch"])
    parent = snapshots.describe(
        path, state, description["arch"] if ":" in description["arch"] else None
    )
    dataset = description["dataset"]
    own = description.get("data", dataset) != dataset
    command = snapshots.training_command("baseline.py", dataset, own)
    if parent.get("classifier") is False:
        raise UserError(
            f"{path} was trained with --loss {parent.get('loss')}, without a classifier: its logits "
            f"mean nothing to this loss. Fine-tune another network: --load NAME|PATH, or run: "
            + command
        )
    if parent["num_classes"] != description["num_classes"] or parent.get("dataset") not in (
        None,
        dataset,
    ):
        raise UserError(
            f"{path} is a network for {parent.get('dataset')} with {parent['num_classes']} "
            f"classes, not for {dataset} with {description['num_classes']}. Run: {command}"
        )
    loaders.check_classes(
        description["classes"], parent.get("classes"), f"{dataset}'s training images", path
    )
    model = snapshots.build_model(description)
    snapshots.load_weights(model, state, path)
    return model


def load_given(model: nn.Module, path: Path, description: dict, new_head: bool) -> None:
    """Load the weights that a pre-training begins with; with ``new_head`` all but those of the last
    linear layer, which stays as it was made.

    UserError unless they are this network's, or without ``new_head`` of another number of classes.
    A note on stderr where their classes have other names.
    """
    arch = description["arch"]
    state = snapshots.read_weights(path, arch)
    parent = snapshots.describe(path, state, arch if ":" in arch else None)
    classes, own = parent["num_classes"], description["num_classes"]
    if new_head:
        snapshots.load_weights(model, state, path, head=False)
        return
    if classes != own:
        raise UserError(
            f"{path} is a network for {classes} classes, not for the {own} of "
            f"{description['dataset']}. Give it a new last layer: --new-head"
        )
    if parent.get("classes") and description["classes"] not in ([], parent["classes"]):
        runtime.print_note(
            f"the last layer of {path.name} was trained for other classes "
            f"({', '.join(map(str, parent['classes'][:3]))}, ...). --new-head begins with a new one"
        )
    snapshots.load_weights(model, state, path)


def check_features(model: nn.Module, name: str, stage: str, recipe: dict) -> None:
    """UserError where a loss acts on features and the network has no linear layer to take them
    from, or puts them through the last layer and the network's logits are not its output: it would
    train without the term that makes it that loss.
    """
    loss = losses_of(stage)[name]
    uses = loss.features or recipe.get("sampling") == "clusters"
    lack = "" if models.feature_width(model) else "has no linear layer"
    if loss.linear and models.linear_head(model) is None:
        lack = lack or "goes on after that layer"
    if uses and lack:
        others = [other for other, one in losses_of(stage).items() if not one.features]
        raise UserError(
            f"--loss {name} acts on the features before the last linear layer, and this network "
            f"{lack}. Give another network, or a loss of the logits: "
            f"{', '.join(others)}"
        )


def prepare(
    model: nn.Module,
    images: loaders.ImageSet,
    args: argparse.Namespace,
    device: torch.device,
    precision: str,
) -> nn.Module:
    """The model ready to be trained on batches of this ImageSet, by all ranks together;
    UserError when it does not take its images, or the ranks cannot share a batch evenly.
    """
    for key in ("batch_size", "oe_batch_size"):
        if args.recipe.get(key, 0) % ranks.size():
            raise UserError(
                f"{args.recipe[key]} images a step (--{key}) cannot be shared evenly by "
                f"{ranks.size()} processes. Take another number of them: the batch is the recipe's"
            )
    check_features(model, args.loss, args.stage, args.recipe)
    gradient = losses_of(args.stage)[args.loss].gradient
    model = prepare_training(model, device, args.compile, gradient)
    loaders.check_fits(model, images)
    # what torch.compile makes cannot be differentiated again
    if device.type == "cuda" and args.compile == "on" and ranks.size() == 1 and not gradient:
        model.train()
        count = args.batch_size + args.recipe.get("oe_batch_size", 0)
        example = torch.zeros(count, *images.images.shape[1:], device=device)
        compile_training(model, example.contiguous(memory_format=torch.channels_last), precision)
    return ranks.share(model)


def make_optimizer(model: nn.Module, loss: Loss, args: argparse.Namespace) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum of the network and the loss's head, if it has one;
    weight decay on every parameter, as the papers' code has it.
    """
    optimizer = torch.optim.SGD(
        [*model.parameters(), *loss.projection.parameters()],
        lr=args.learning_rate,
        momentum=args.momentum,
        weight_decay=args.decay,
        nesterov=args.momentum > 0,
        fused=True,
    )
    ranks.share_gradients(optimizer, model)
    return optimizer


def note_chance(error: float, images: loaders.ImageSet, num_classes: int, parent: Path) -> None:
    """Warn on stderr where a network that is given as trained is near chance, its error in percent,
    and its description does not say so.
    """
    known = (snapshots.read_description(parent) or {}).get("id_accuracy")
    count = len(images)
    if not is_near_chance(error, count, num_classes):
        return
    if known is None or not is_near_chance(100 - known, count, num_classes):
        print(
            f"warning: {parent.name} is near chance on these images. Are they its images, its classes "
            "in its order, its mean and std?",
            file=sys.stderr,
        )


def inference(
    model: nn.Module, batches: loaders.Batches, device: torch.device, precision: str
) -> Callable:
    """The model in evaluation as a function of these batches: folded in bf16 on a CPU, where that
    is up to twice as fast.
    """
    model.eval()
    if precision == "bf16" and device.type == "cpu":
        return models.fold(model, tuple(batches.images.shape[1:])) or model
    return model


@torch.no_grad()
def take_class_means(
    model: nn.Module, batches: loaders.Batches, device: torch.device, precision: str
) -> None:
    """Make the linear head that of the nearest class mean, for a loss that trains no classifier.

    batches of the ID training images without augmentation. The head's rows become the classes'
    mean unit features, brought to length 1, its bias 0: the largest logit is the class mean of the
    smallest angle.
    """
    forward = inference(model, batches, device, precision)
    means = torch.zeros_like(model.fc.weight, dtype=torch.float64)
    for x, y in batches:
        with autocast(device, precision):
            _, features = forward(x)
        means.index_add_(0, y, normalize(features.double(), dim=1))
    model.fc.weight.copy_(normalize(means, dim=1))
    if model.fc.bias is not None:
        model.fc.bias.zero_()


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: loaders.Batches, device: torch.device, precision: str
) -> tuple[float, float]:
    """(mean cross-entropy, error in percent) on the Batches of a labelled set."""
    forward = inference(model, batches, device, precision)
    total, wrong = [], 0
    for x, y in batches:
        with autocast(device, precision):
            logits, _ = forward(x)
        total.append(cross_entropy(logits, y, reduction="sum"))
        wrong += (logits.argmax(dim=1) != y).sum()
    return float(torch.stack(total).cpu().double().sum()) / len(batches.images), 100 * int(
        wrong
    ) / len(batches.images)


def tell_error_before(
    model: nn.Module, batches: loaders.Batches, device: torch.device, precision: str
) -> float:
    """The ID error in percent that given weights have before they are trained on, which is
    printed.
    """
    _, error = evaluate(model, batches, device, precision)
    print(f"ID error before fine-tuning {error:.2f} %")
    return error
