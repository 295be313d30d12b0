"""The network that is trained: built, loaded, put on the device, and tested after each epoch."""
import copy
import platform

import torch
from torch.nn.functional import cross_entropy

from models.kernels import fused
from utils import loaders, runtime, snapshots
from utils.losses import LOSSES
from utils.runtime import UserError, autocast


def prepare_training(model, device, compile="auto"):
    """``prepare`` for training, with the fused operators on a CPU unless compile is "off"."""
    fused.enabled = compile != "off"
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True    # thousands of batches of one shape pay for the search
    return runtime.prepare(model, device)


def compile_training(model, batch, precision):
    """torch.compile of the model in place, so that parameters keep their names; left as it was where that fails.

    One pass each way over ``batch`` (B,3,H,W) compiles it here and not in the first step; it leaves no trace in the model.
    For a GPU: on a CPU the fused operators are faster.
    """
    before = copy.deepcopy(model.state_dict())
    model.compile(dynamic=False)
    try:
        with autocast(batch.device, precision):
            logits, _ = model(batch)
        logits.sum().backward()
    except Exception:   # no compiler, an operator it does not know: eager is as right
        model._compiled_call_impl = None
    model.load_state_dict(before)
    model.zero_grad(set_to_none=True)


def describe_computing(device, precision, compile="auto"):
    """What the digits of a training run depend on beside its recipe: device, precision and whether the fused kernels are used."""
    return {"device": device.type, "precision": precision, "fused": device.type == "cpu" and compile != "off" and fused.kernels() is not None}


def arch_name(arch):
    """What of --arch goes into file names: a network's name, or the function of module:function."""
    return arch.rsplit(":", 1)[-1]


def describe_network(args, num_classes, train_set, computed):
    """What a snapshot's .json says of its network, of the images it was trained on and, ``computed``, by what."""
    return {"arch": args.arch, "num_classes": num_classes, "layers": args.layers, "widen_factor": args.widen_factor,
            "droprate": args.droprate, "dataset": args.dataset, "data": train_set.source if args.id else args.dataset,
            "data_fingerprint": train_set.fingerprint, "train_images": len(train_set),
            "classes": list(train_set.classes or ()), "image_size": train_set.images.shape[-1], "seed": args.seed, "computed": computed,
            "versions": {"python": platform.python_version(), "torch": torch.__version__}}


def image_size(path, args):
    """Side of the images that a snapshot was trained on, or None where nothing says it."""
    return snapshots.describe(path, snapshots.read_weights(path), args.arch if ":" in args.arch else None).get("image_size")


def load_parent(path, args, description):
    """The pre-trained network to fine-tune, with the dropout of this recipe; its own shape is believed over the defaults."""
    state = snapshots.read_weights(path)
    parent = snapshots.describe(path, state, args.arch if ":" in args.arch else None)
    if parent["num_classes"] != description["num_classes"] or parent.get("dataset") not in (None, args.dataset):
        raise UserError(f"{path} is a network for {parent.get('dataset')} with {parent['num_classes']} classes, not for "
                        f"{args.dataset} with {description['num_classes']}. Run: python baseline.py {args.dataset}")
    shape = {key: parent[key] for key in ("arch", "layers", "widen_factor") if parent.get(key) is not None}
    for key, value in shape.items():
        if args.given.get(key, value) != value:
            raise UserError(f"{path} is a snapshot of another network: its {key} is {value}, not {args.given[key]}. "
                            f"Leave the option out, or run: python baseline.py {args.dataset}")
    loaders.check_classes(description["classes"], parent.get("classes"), f"{args.dataset}'s training images", path)
    vars(args).update(shape)
    model = snapshots.build_model({**description, **shape})
    snapshots.load_weights(model, state, path)
    return model, {**description, **shape}


def prepare(model, train_set, args, device, precision):
    """The model ready to be trained on batches of this ImageSet; UserError when it does not take its images."""
    model = prepare_training(model, device, args.compile)
    loaders.check_fits(model, train_set)
    if device.type == "cuda" and args.compile == "on":
        model.train()
        loss = LOSSES.get(getattr(args, "loss", None))
        count = args.batch_size + (args.oe_batch_size if loss and loss.outliers else 0)
        example = torch.zeros(count, *train_set.images.shape[1:], device=device)
        compile_training(model, example.contiguous(memory_format=torch.channels_last), precision)
    return model


def make_optimizer(model, args):
    """SGD with Nesterov momentum; weight decay on every parameter, as the papers' code has it."""
    return torch.optim.SGD(model.parameters(), lr=args.learning_rate, momentum=args.momentum,
                           weight_decay=args.decay, nesterov=args.momentum > 0, fused=True)


@torch.no_grad()
def evaluate(model, batches, device, precision):
    """(mean cross-entropy, error in percent) on the Batches of a labelled set."""
    model.eval()
    total, wrong = [], 0
    for x, y in batches:
        with autocast(device, precision):
            logits, _ = model(x)
        total.append(cross_entropy(logits, y, reduction="sum"))
        wrong += (logits.argmax(dim=1) != y).sum()
    return float(torch.stack(total).cpu().double().sum()) / len(batches.images), 100 * int(wrong) / len(batches.images)
