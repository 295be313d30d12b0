"""Command-line options that the scripts share; every long option is known with - and with _."""

import argparse
import re
from collections.abc import Callable, Container, Iterable

from models import MODELS
from utils import loaders
from utils.losses import losses_of
from utils.runtime import DATA, UserError

from . import recipes
from .parser import (
    Parser,
    count,
    fraction,
    non_negative,
    number,
    positive,
    positive_int,
    share,
    whole,
)

DETERMINISTIC_HELP = (
    "the same command gives the same numbers on the same machine, on a GPU too: of each operator the "
    "algorithm that adds up in a fixed order, however slow, and an error where there is none "
    "(torch.use_deterministic_algorithms; no choice by timing in cuDNN). The number of threads, "
    "which orders sums on a CPU, is not fixed but recorded, and compared by --resume "
    "(default: off; on a CPU the numbers are the same without it)"
)


def add_common(parser: Parser, compilers: tuple[str, ...] = ("auto", "on", "off")) -> None:
    """Options of all three scripts."""
    add_images(parser)
    add_computing(parser, compilers)


def add_images(parser: Parser) -> None:
    """Which ID images, and what they are normalised with."""
    parser.add(
        "--data",
        default=str(DATA),
        metavar="DIR",
        help="folder of the data sets (default: data/ of the project)",
    )
    parser.add(
        "--id",
        default=None,
        metavar="PATH",
        help="own ID images: a folder with train/ and test/ class folders, "
        "such .zip or .tar archives, or train.npz and test.npz with 'images' and 'labels'",
    )
    parser.add(
        "--split",
        type=share,
        default=None,
        metavar="X",
        help="share of each class to split off for testing, of own ID images without a test part "
        "(default: that of the training)",
    )
    for name in ("--mean", "--std"):
        parser.add(
            name,
            type=loaders.channels,
            default=None,
            metavar="NAME|R,G,B",
            help=f"that images are normalised with: {', '.join(loaders.STATISTICS)}, or three "
            "numbers for values of 0 to 1, or one for all channels (default: the trained network's, "
            "else cifar, "
            f"{loaders.shown(loaders.STATISTICS['cifar'])})",
        )
    parser.add(
        "--image-size",
        type=positive_int,
        default=None,
        metavar="N",
        help="side that ID images are brought to (default: 32, or the trained network's; "
        "to train on, arrays keep theirs)",
    )
    parser.add(
        "--skip-bad",
        action="store_true",
        help="leave unreadable images out and count them, instead of stopping",
    )


def add_computing(parser: Parser, compilers: tuple[str, ...]) -> None:
    """Where and how a network computes, and how images come to it."""
    parser.add(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto"
    )
    parser.add(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: bf16 convolutions where the hardware is faster at them; "
        "scores are float64 always (default: auto)",
    )
    parser.add(
        "--compile",
        choices=compilers,
        default="auto",
        help="fused and compiled networks where a C++ compiler is there; auto: "
        "if the work is worth compiling for"
        + "; openvino: by that package, which is installed apart" * ("openvino" in compilers)
        + " (default: auto)",
    )
    parser.add("--deterministic", action="store_true", help=DETERMINISTIC_HELP)
    parser.add(
        "--ngpu",
        type=count,
        default=1,
        help="0 = CPU (default: 1); more than one device is not used",
    )
    parser.add(
        "--stream",
        choices=("auto", "on", "off"),
        default="auto",
        help="leave the images of folders and archives on disk and decode them as they are used; "
        "auto: where they would take much of the free memory (default: auto)",
    )
    parser.add(
        "--prefetch",
        type=count,
        default=0,
        metavar="N",
        help="processes that decode images which stream (default: 0, one a core)",
    )


def common_words(args: argparse.Namespace, leave: Container[str] = ()) -> list[str]:
    """The options of ``add_common`` that are not at their defaults, as words for another script;
    those named in ``leave`` left out.
    """
    parser = Parser()
    add_common(parser)
    usual = vars(parser.parse_args([]))
    given = {
        name: getattr(args, name)
        for name, value in usual.items()
        if name not in leave and getattr(args, name) != value
    }
    return [
        word
        for name, value in given.items()
        for word in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
    ]


def add_recipe(parser: Parser, stage: str) -> Callable[..., None]:
    """A function like ``parser.add`` for options whose default comes from the recipe;
    it is None until ``settle``.
    """

    def add(*names, help="", **keywords):
        option = keywords.get("dest") or names[0].strip("-").replace("-", "_")
        text = " ".join(filter(None, [help, recipes.describe(option, stage)])).replace("%", "%%")
        parser.add(*names, default=None, help=text, **keywords)

    return add


def add_training(parser: Parser, stage: str) -> None:
    """Options of baseline.py ("pretrain") or tune.py ("tune");
    every loss of the stage brings those of its record.
    """
    add = add_recipe(parser, stage)
    add_common(parser)
    add("--arch", metavar="NAME", help=f"{', '.join(MODELS)}, or module:function of your own;")
    add("--epochs", "-e", type=positive_int, metavar="N")
    add("--learning_rate", "-lr", "--lr", dest="learning_rate", type=positive, metavar="X")
    add("--batch_size", "-b", type=positive_int, metavar="N")
    add("--test_bs", type=positive_int, metavar="N", help="batch size of evaluation;")
    add("--momentum", type=fraction, metavar="X")
    add("--decay", "-d", type=non_negative, metavar="X", help="weight decay;")
    add("--layers", type=positive_int, metavar="N", help="depth of the WRN;")
    add(
        "--widen-factor",
        dest="widen_factor",
        type=positive_int,
        metavar="K",
        help="width of the WRN;",
    )
    add("--droprate", type=fraction, metavar="P", help="dropout;")
    add("--padding", type=count, metavar="N", help="of the random crop;")
    add("--seed", type=count, metavar="N", help="seeds everything;")
    presets = "; ".join(f"{name}: {text}" for name, text in recipes.PRESETS.items())
    parser.add(
        "--preset", default=None, choices=tuple(recipes.PRESETS), help=f"{presets} (default: paper)"
    )
    # what was typed can be told
    parser.set_defaults(data=None, device=None, precision=None, compile=None, stream=None)
    parser.add(
        "--balance",
        action="store_true",
        help="as many images of each class in an epoch: those of small classes come again, some of "
        "large ones not at all",
    )
    parser.add(
        "--accumulate",
        type=positive_int,
        default=None,
        metavar="N",
        help="each step's images in N passes, for devices with little memory: the same gradients, "
        "but that BatchNorm sees a pass at a time (default: 1)",
    )
    parser.add(
        "--dry-run",
        action="store_true",
        help="say what the run would be and how long it would take, from its first steps; "
        "nothing is written",
    )
    parser.add(
        "--resume",
        action="store_true",
        help="go on with an interrupted run of the same command, exactly; "
        "options that are left out are those it had",
    )
    add_losses(parser, add, stage)
    if stage == "tune":
        add_margins(parser)


def add_losses(parser: Parser, add: Callable[..., None], stage: str) -> None:
    """The options of the outliers, where a loss of the stage takes any, and those of every loss."""
    losses = losses_of(stage).values()
    if any(loss.outliers for loss in losses):
        parser.add(
            "--outliers",
            default=None,
            metavar="NAME|PATH",
            help="auxiliary outliers: a data set's name, a folder, an archive or an array "
            "(default: the first that is there of the sets made for it)",
        )
        add("--oe_batch_size", type=positive_int, metavar="N", help="outliers a step;")
        add(
            "--outlier-norm",
            dest="outlier_norm",
            choices=("id", "imagenet"),
            help="statistics outliers are normalised with;",
        )
        add(
            "--outlier-padding",
            dest="outlier_padding",
            type=count,
            metavar="N",
            help="of the outliers' random crop;",
        )
    for option in dict.fromkeys(option for loss in losses for option in loss.defaults):
        owner = next(loss for loss in losses if option in loss.defaults)
        if option in owner.choices:
            kind = {"choices": owner.choices[option]}
        else:
            is_whole = isinstance(owner.defaults[option], int)
            kind = {"type": whole if is_whole else number, "metavar": "X"}
        add(f"--{option}", help=f"{owner.help[option]};", **kind)


def add_margins(parser: Parser) -> None:
    """What the energy margins of a fine-tuning are measured on."""
    parser.add(
        "--auto-margins",
        action="store_true",
        help="of a loss with energy margins: take the pre-trained network's mean energies of "
        "ID training images and outliers for them (default: on with --id alone)",
    )
    parser.add(
        "--validation-ood",
        default=None,
        metavar="LIST",
        help="measure the margins of --auto-margins on these OOD images of your own instead of "
        "the outliers, named as for test.py's --ood; none of them may be in a test set",
    )


SAVE_HELP = (
    "folder of the snapshots; ./snapshots/... is the project's CIFAR/snapshots/... "
    "(default: ./snapshots/pretrained, ./snapshots/tune_LOSS)"
)
BAR = {"unit": "step", "disable": None, "leave": False}  # a progress bar on a terminal only


def known_dataset_of(args: argparse.Namespace, state: dict) -> None:
    """``known_dataset`` of a training script's options,
    or of those that an interrupted run recorded.
    """
    given = {**state.get("given", {}), **{key: value for key, value in vars(args).items() if value}}
    known_dataset(args.dataset, given.get("id"), loaders.ID_SETS, given.get("data", str(DATA)))


def known_dataset(
    name: str, path: str | None, names: Iterable[str], data: str | None = None
) -> None:
    """UserError unless the data set is known by name or given by path,
    under a name that file names can begin with.

    With ``data``, the folder of the data sets, also unless its training images are there.
    """
    if not re.fullmatch(r"\w[\w.+-]{,63}", name):
        raise UserError(
            f"'{name[:80]}' cannot name a data set: letters, digits and . _ + - only, at most 64. "
            "Its place is given by --id PATH"
        )
    if path is None and name not in names:
        raise UserError(
            f"unknown data set '{name}'. There is: {', '.join(names)}; "
            f"or bring your own: {name} --id PATH"
        )
    if path is None and data and not loaders.is_there(name, "train", data):
        raise UserError(loaders.missing_message(name, "train", data))
