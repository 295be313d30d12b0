"""Command-line options that the scripts share; every long option is known with - and with _."""
import argparse
import math
import re

from models import MODELS
from utils.runtime import DATA, UserError

from . import recipes


class Parser(argparse.ArgumentParser):
    """ArgumentParser that knows each long option with - and _, and prints a bad one as one line, exit status 2."""

    def __init__(self, **keywords):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **keywords)

    def add(self, *names, **keywords):
        spellings = []
        for name in names:
            spellings += [name] if not name.startswith("--") else \
                dict.fromkeys([name, "--" + name[2:].replace("-", "_"), "--" + name[2:].replace("_", "-")])
        return self.add_argument(*spellings, **keywords)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}. See: python {self.prog.removeprefix('python ')} --help\n")


def whole(text):
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def number(text):
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def positive_int(text):
    value = whole(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def count(text):
    value = whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive(text):
    value = number(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def non_negative(text):
    value = number(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def finite(text):
    value = number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def fraction(text):
    value = number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


def add_common(parser):
    """Options of all three scripts."""
    parser.add("--data", default=str(DATA), metavar="DIR", help="folder of the data sets (default: data/ of the project)")
    parser.add("--id", default=None, metavar="PATH", help="own ID images: a folder with train/ and test/ class folders, "
               "such .zip or .tar archives, or train.npz and test.npz with 'images' and 'labels'")
    parser.add("--image-size", type=positive_int, default=None, metavar="N",
               help="side that ID images are brought to (default: 32, or the trained network's; to train on, arrays keep theirs)")
    parser.add("--skip-bad", action="store_true", help="leave unreadable images out and count them, instead of stopping")
    parser.add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto")
    parser.add("--precision", choices=("auto", "fp32", "bf16"), default="auto",
               help="auto: bf16 convolutions where the hardware is faster at them; scores are float64 always (default: auto)")
    parser.add("--compile", choices=("auto", "on", "off"), default="auto",
               help="fused and compiled networks where a C++ compiler is there; auto: if the work is worth compiling for (default: auto)")
    parser.add("--ngpu", type=count, default=1, help="0 = CPU (default: 1); more than one device is not used")
    parser.add("--prefetch", type=count, default=0, help="accepted and without effect: images are resident, there are no workers")


def common_words(args, leave=()):
    """The options of ``add_common`` that are not at their defaults, as words for another script; those named in ``leave`` left out."""
    usual = {"data": str(DATA), "id": None, "image_size": None, "device": "auto", "precision": "auto", "compile": "auto", "ngpu": 1}
    words = [part for name, value in usual.items() if name not in leave and getattr(args, name) != value
             for part in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
    return words + ["--skip-bad"] * (args.skip_bad and "skip_bad" not in leave)


def recipe_adder(parser, stage):
    """A function like ``parser.add`` for options whose default is None here and comes from the recipe table."""
    def add(*names, help="", **keywords):
        option = keywords.get("dest") or names[0].strip("-").replace("-", "_")
        text = " ".join(filter(None, [help, recipes.describe(option, stage)])).replace("%", "%%")
        parser.add(*names, default=None, help=text, **keywords)
    return add


def add_training(parser, stage):
    """Options of baseline.py and tune.py."""
    recipe = recipe_adder(parser, stage)
    add_common(parser)
    recipe("--arch", metavar="NAME", help=f"{', '.join(MODELS)}, or module:function of your own;")
    recipe("--epochs", "-e", type=positive_int, metavar="N")
    recipe("--learning_rate", "-lr", "--lr", dest="learning_rate", type=positive, metavar="X")
    recipe("--batch_size", "-b", type=positive_int, metavar="N")
    recipe("--test_bs", type=positive_int, metavar="N", help="batch size of evaluation;")
    recipe("--momentum", type=fraction, metavar="X")
    recipe("--decay", "-d", type=non_negative, metavar="X", help="weight decay;")
    recipe("--layers", type=positive_int, metavar="N", help="depth of the WRN;")
    recipe("--widen-factor", dest="widen_factor", type=positive_int, metavar="K", help="width of the WRN;")
    recipe("--droprate", type=fraction, metavar="P", help="dropout;")
    recipe("--padding", type=count, metavar="N", help="of the random crop;")
    recipe("--seed", type=count, metavar="N", help="seeds everything;")
    parser.add("--preset", default="paper", choices=tuple(recipes.PRESETS),
               help="; ".join(f"{name}: {text}" for name, text in recipes.PRESETS.items()) + " (default: paper)")
    parser.add("--resume", action="store_true", help="go on with an interrupted run of the same command, exactly")


def add_tuning(parser):
    """Options of tune.py alone."""
    recipe = recipe_adder(parser, "tune")
    parser.add("--outliers", default=None, metavar="NAME|PATH",
               help="auxiliary outliers: a data set's name, a folder, an archive or an array (default: tiny_imagenet or 300k, "
               "whichever is there; digits: digit_outliers)")
    recipe("--oe_batch_size", type=positive_int, metavar="N", help="outliers a step;")
    recipe("--alpha", type=non_negative, metavar="X", help="weight of the L1 norm of the features;")
    recipe("--beta", type=non_negative, metavar="X", help="weight of the outlier term;")
    recipe("--m_in", type=finite, metavar="E", help="energy margin of ID images;")
    recipe("--m_out", type=finite, metavar="E", help="energy margin of outliers;")
    recipe("--l1-on", dest="l1_on", choices=("id", "all"), help="images whose L1 norm SROE takes;")
    recipe("--outlier-norm", dest="outlier_norm", choices=("id", "imagenet"), help="statistics outliers are normalised with;")
    recipe("--outlier-padding", dest="outlier_padding", type=count, metavar="N", help="of the outliers' random crop;")


def apply_recipe(args, stage, loss=None):
    """Fill what the command line left open from the recipe table; returns args, ``args.given`` = what it did not leave open."""
    recipe = recipes.resolve(stage, args.dataset, loss, args.preset, args.arch or "wrn")
    args.given = {option: getattr(args, option) for option in recipe if getattr(args, option, None) is not None}
    for option, value in recipe.items():
        if getattr(args, option, None) is None:
            setattr(args, option, value)
    return args


def known_dataset(name, path, names):
    """UserError unless the data set is known by name or given by path, under a name that file names can begin with."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(f"'{name}' cannot name a data set: letters, digits and . _ + - only. Its place is given by --id PATH")
    if path is None and name not in names:
        raise UserError(f"unknown data set '{name}'. There is: {', '.join(names)}; or bring your own: {name} --id PATH")
