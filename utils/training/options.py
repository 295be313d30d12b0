"""Command-line options that the scripts share; every long option is known with - and with _."""

import argparse
import math
import os
import re
from collections.abc import Callable, Container, Iterable
from typing import Any, NoReturn

from models import MODELS
from utils import loaders, snapshots
from utils.losses import Loss, losses_of, sampling
from utils.runtime import DATA, STREAMS, UserError

from . import recipes
from .margins import note_borrowed, wants_margins


class Parser(argparse.ArgumentParser):
    """ArgumentParser that knows each long option with - and _,
    and prints a bad one as one line, exit status 2.
    """

    def __init__(self, **keywords):
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **keywords
        )

    def add(self, *names: str, **keywords: Any) -> argparse.Action:
        spellings = []
        for name in names:
            spellings += (
                [name]
                if not name.startswith("--")
                else dict.fromkeys(
                    [name, "--" + name[2:].replace("-", "_"), "--" + name[2:].replace("_", "-")]
                )
            )
        return self.add_argument(*spellings, **keywords)

    def error(self, message: str) -> NoReturn:
        self.exit(
            2, f"{self.prog}: {message}. See: python {self.prog.removeprefix('python ')} --help\n"
        )


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def positive_int(text: str) -> int:
    value = whole(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def count(text: str) -> int:
    value = whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive(text: str) -> float:
    value = number(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def non_negative(text: str) -> float:
    value = number(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def finite(text: str) -> float:
    value = number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def fraction(text: str) -> float:
    value = number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


def share(text: str) -> float:
    value = number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


DETERMINISTIC_HELP = (
    "the same command gives the same numbers on the same machine, on a GPU too: of each operator the "
    "algorithm that adds up in a fixed order, however slow, and an error where there is none "
    "(torch.use_deterministic_algorithms; no choice by timing in cuDNN). The number of threads, "
    "which orders sums on a CPU, is not fixed but recorded, and compared by --resume "
    "(default: off; on a CPU the numbers are the same without it)"
)


def add_common(parser: Parser, compilers: tuple[str, ...] = ("auto", "on", "off")) -> None:
    """Options of all three scripts."""
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
        kind = (
            {"choices": owner.choices[option]}
            if option in owner.choices
            else {
                "type": whole if isinstance(owner.defaults[option], int) else number,
                "metavar": "X",
            }
        )
        add(f"--{option}", help=f"{owner.help[option]};", **kind)
    if stage == "tune":
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
# where nothing was typed
USUAL = {
    "data": str(DATA),
    "device": "auto",
    "precision": "auto",
    "compile": "auto",
    "stream": "auto",
    "deterministic": False,
    "preset": "paper",
    "balance": False,
    "accumulate": 1,
    "new_head": False,
}
# options that no recipe has
OF_A_RUN = (
    *(*USUAL, "id", "split", "mean", "std", "image_size", "skip_bad", "outliers", "load"),
    "validation_ood",
)
# options beside the recipe that the weights depend on
OF_MAKING = ("balance", "accumulate")
OF_OUTLIERS = ("outliers", "oe_batch_size", "outlier_norm", "outlier_padding")


def settle(
    args: argparse.Namespace, stage: str, parent: dict | None = None, state: dict | None = None
) -> argparse.Namespace:
    """The options of a run in a new Namespace with nothing left open,
    which nobody changes afterwards.

    What was typed counts first; then what an interrupted run's ``state`` recorded; then the shape
    of the ``parent``, the description of the network that is fine-tuned; then the recipe. Two
    dictionaries come with it: ``recipe``, which the run records, and ``given``, options beside the
    recipe that --resume is to find again. UserError: an option that the loss does not have, one
    that contradicts parent or state, a value out of its range.
    """
    typed = {
        key: value for key, value in vars(args).items() if value is not None and value is not False
    }
    recorded = (state or {}).get("recipe", {})
    if "arch" in recorded and "arch" not in typed:
        snapshots.check_arch(recorded["arch"], "the state of the interrupted run")
    before = (state or {}).get("given", {})
    run = {**USUAL, **{k: recorded[k] for k in USUAL if k in recorded}, **before}
    run.update({key: typed[key] for key in OF_A_RUN if key in typed})
    # own images: the size the network was trained at
    if parent and run.get("id") and run.get("image_size") is None:
        run["image_size"] = parent.get("image_size")
    if run.get("id"):
        run["id"] = loaders.id_place(run["id"], run["data"])
    statistics = choose_statistics(run, parent or {})
    shape = {
        k: parent[k]
        for k in ("arch", "layers", "widen_factor")
        if (parent or {}).get(k) is not None
    }
    arch = typed.get("arch") or recorded.get("arch") or shape.get("arch", "wrn")
    divisors = recipes.divisors_of(run.get("load"), run.get("new_head"))
    table = recipes.origins(stage, args.dataset, args.loss, run["preset"], arch, divisors)
    usual = {key: entry.value for key, entry in table.items()}
    recipe = recipes.follow(usual, typed)
    recipe.update(shape)
    recipe.update({key: value for key, value in recorded.items() if key in recipe})
    for key in sorted(set(typed) & set(recipe)):
        if key in shape and typed[key] != shape[key]:
            raise UserError(
                f"{run.get('load', 'the pre-trained snapshot')} is a snapshot of another network: "
                f"its {key} is {shape[key]}, not {typed[key]}. Leave the option out, or run: "
                + snapshots.training_command("baseline.py", args.dataset, bool(run.get("id")))
            )
    if state:  # options that are younger than the run: it was made with what there was before
        loss = losses_of(stage)[args.loss]
        recipe.update({key: value for key, value in loss.before.items() if key not in recorded})
    was = {**USUAL, **recorded, **recipe}
    for key in ("preset", "precision", *OF_MAKING, *recipe):
        if state and key != "test_bs" and typed.get(key, was[key]) != was[key]:
            raise UserError(
                f"the interrupted run had {key} {was[key]}, not {typed[key]}. "
                "Resume with the same options, or start anew without --resume"
            )
    recipe.update({key: typed[key] for key in recipe if key in typed})
    if "padding" in typed and "outlier_padding" in recipe and "outlier_padding" not in typed:
        recipe["outlier_padding"] = recipe["padding"]
    check_loss(args.loss, stage, recipe, run["accumulate"])
    auto = recorded.get("auto_margins", False)
    if not state and stage == "tune":
        auto = wants_margins(typed, recipe, args.loss, own=bool(run.get("id")))
    if not (auto or state):
        note_borrowed(typed, recipe, stage, own=bool(run.get("id")))
    if run.get("validation_ood") and not auto:
        raise UserError(
            "--validation-ood is what --auto-margins measures energy margins on"
            + (": add --auto-margins" if "m_in" in recipe else f"; --loss {args.loss} has none")
        )
    made = {key: value for key, value in recipe.items() if key != "test_bs"}
    made |= {"preset": run["preset"], "streams": recorded.get("streams", 1) if state else STREAMS}
    made |= {"loss": args.loss} if args.loss != "ce" else {}
    made |= {"auto_margins": True} if auto else {}
    made |= {key: run[key] for key in ("precision", *OF_MAKING) if run[key] != USUAL[key]}
    given = {key: absolute(run[key]) for key in OF_A_RUN if run.get(key) != USUAL.get(key)}
    return argparse.Namespace(
        **{
            **vars(args),
            **run,
            **recipe,
            "stage": stage,
            "auto_margins": auto,
            "statistics": statistics,
            "streams": made["streams"],
            "recipe": made,
            "given": given,
            "origins": origins_of(recipe, table, typed, recorded, shape)
            | origins_beside(made, recipe, typed, recorded),
        }
    )


def origins_of(recipe: dict, table: dict, typed: dict, recorded: dict, shape: dict) -> dict:
    """{option: where its value comes from}, in words."""

    def origin(key):
        if key in typed:
            return "typed"
        if key in recorded:
            return "the interrupted run"
        if key in shape:
            return "the network that was given"
        return table[key].origin if table[key].value == recipe[key] else "follows what was typed"

    return {key: origin(key) for key in recipe if key in table}


def origins_beside(made: dict, recipe: dict, typed: dict, recorded: dict) -> dict:
    """{option: where its value comes from} of what a run records beside its ``recipe``."""
    known = {**dict.fromkeys(recorded, "the interrupted run"), **dict.fromkeys(typed, "typed")}
    return {
        key: known.get(key, "this project") for key in made if key not in recipe and key != "loss"
    }


def choose_statistics(run: dict, parent: dict) -> tuple[tuple, tuple]:
    """(mean, std) of a run: as typed, as the network was trained that is fine-tuned, or CIFAR's;
    what is assumed of a file of others is printed.

    UserError where the first two differ: its first layer has learnt the others.
    """
    try:
        typed = loaders.typed_statistics(run.get("mean"), run.get("std"))
    except ValueError as error:
        raise UserError(str(error)) from None
    trained = loaders.described_statistics(parent)
    if typed and trained and typed != trained:
        raise UserError(
            f"the network was trained with {loaders.shown(trained)}, not with "
            f"{loaders.shown(typed)}. Leave --mean and --std out"
        )
    if parent and not (typed or trained or "recipe" in parent):
        assumed = loaders.assumed_statistics(parent["arch"])
        print(
            f"images are normalised with {loaders.shown(assumed)}, assumed: the given network's file "
            "does not say (--mean, --std)"
        )
        return assumed
    return typed or trained or loaders.STATISTICS["cifar"]


def refuse_options_of_others(args: argparse.Namespace, stage: str) -> None:
    """UserError for a typed option that other losses of the stage have, but not ``args.loss``."""
    every, name = losses_of(stage), args.loss
    typed = {key for key, value in vars(args).items() if value is not None}
    owned = {key for loss in every.values() for key in loss.defaults} | set(OF_OUTLIERS)
    own = [*every[name].defaults, *(OF_OUTLIERS if every[name].outliers else ())]
    for key in sorted(typed & owned - set(own)):
        there = ", ".join(f"--{key}" for key in own) or "no option of its own"
        raise UserError(f"--{key} is not an option of --loss {name}, which has {there}")


def check_loss(name: str, stage: str, recipe: dict, accumulate: int = 1) -> None:
    """UserError where a hyper-parameter of the loss is out of its range, there are fewer candidates
    than clusters, or a step of pairs, or of a loss that keeps numbers from step to step, is to be
    made in several passes.
    """
    try:
        loss = make_loss(name, stage, recipe)
    except (ValueError, TypeError) as error:  # TypeError: a state's value that is no number
        raise UserError(f"--loss {name}: {error}") from None
    if loss.views == 2 and accumulate > 1:
        raise UserError(
            f"--loss {name} is made of all pairs of a step's images: in {accumulate} passes most "
            "would be missing. Leave --accumulate out and give a smaller --batch_size"
        )
    if loss.kept is not None and accumulate > 1:
        raise UserError(
            f"--loss {name} keeps numbers that move once a step: in {accumulate} passes they would "
            f"move {accumulate} times. Leave --accumulate out and give a smaller --batch_size"
        )
    candidates = sampling.CANDIDATES * recipe.get("oe_batch_size", 0)
    if loss.chooses_outliers and candidates < recipe["batch_size"]:
        raise UserError(
            f"--sampling clusters: {candidates} candidates are fewer than "
            f"{recipe['batch_size']} clusters, one for each ID image of a step. "
            "Give more outliers (--oe_batch_size) or fewer ID images (--batch_size)"
        )


def make_loss(name: str, stage: str, recipe: dict) -> Loss:
    """The loss with the hyper-parameters of a recipe; ValueError where one is out of its range."""
    loss = losses_of(stage)[name]
    return loss(**{key: recipe[key] for key in loss.defaults})


def absolute(value: object) -> object:
    """A path that exists as an absolute one, so that --resume finds it from any folder;
    anything else as it is.
    """
    path = os.path.expanduser(value) if isinstance(value, str) else ""
    return os.path.abspath(path) if os.path.exists(path) else value


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
