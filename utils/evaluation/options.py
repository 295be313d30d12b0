"""The options of test.py."""

import argparse
import sys
from collections.abc import Callable

from utils import scores
from utils.training.options import add_common
from utils.training.parser import (
    Parser,
    count,
    limited,
    non_negative,
    number,
    positive,
    positive_int,
)

from . import compare
from .given import OF_IMAGES
from .protocol import PROTOCOLS, USUAL
from .report import RESULTS
from .torchvision_weights import is_published

jpeg_quality = limited(
    positive_int, lambda value: value <= 95, "is above 95, the best JPEG quality"
)
share = limited(
    number, lambda value: 0 < value <= 1, "is not a share above 0 and at most 1, as 0.95 is"
)


def parse(argv: list[str] | None, description: str) -> argparse.Namespace:
    """test.py's options, and ``command``, the words as typed.

    The defaults that make a result the usual one are those of the protocol's record.
    """
    parser = Parser(prog="test.py", description=description)
    for declare in (add_inputs, add_questions, add_protocol, add_results):
        declare(parser.add)
    add_common(parser, ("auto", "on", "off", "openvino"))
    words = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(words)
    if args.outputs or compare.folders(args):
        typed = [key for key in OF_IMAGES if getattr(args, key) != parser.get_default(key)]
        if typed:
            option = (
                "--outputs stands" if args.outputs else "--compare of two folders of outputs stands"
            )
            parser.error(f"{option} for network and images; --{typed[0]} is not taken")
    elif not (args.model or args.compare or args.list_scores):
        parser.error("--model is missing")
    if args.model and is_published(args.model) and not args.arch:
        args.arch = args.model
    if args.validation_ood and not args.tune_scores:
        parser.error("--validation-ood is what --tune-scores chooses against; add that")
    if args.compare:
        args = compare.settle(args)
    return argparse.Namespace(**vars(args), command=words)


def add_inputs(add: Callable) -> None:
    """What is scored, by what: a snapshot or files of outputs, scores, OOD sets."""
    add(
        "--model",
        "--method_name",
        "-m",
        metavar="NAME|PATH",
        help="snapshot: a name (its newest epoch), folder/name or file; several, with commas between: "
        "mean and sd over them too",
    )
    add(
        "--load",
        "-l",
        metavar="DIR",
        help="folder to look for --model in (default: every folder runs have written to)",
    )
    add(
        "--score",
        default="energy",
        metavar="LIST",
        help=f"comma list of {', '.join(scores.SCORES)}, all, or module:function; "
        "hyper-parameters as knn:k=100 (default: energy)",
    )
    add(
        "--ood",
        default=USUAL.ood,
        metavar="LIST",
        help="comma list of data set names, folder:PATH and NAME=PATH (default: the papers' six sets)",
    )
    add(
        "--outputs",
        nargs="+",
        metavar="NPZ",
        help="TRAIN.npz ID.npz OOD.npz [NAME=OOD.npz ...]: score these outputs of any network in "
        "the place of --model and images: logits (N,C), features (N,D), labels (N,), and the head's "
        "weight (C,D) and bias (C,); - for TRAIN.npz where there is none, cifar10=ID.npz to say what "
        "they are of",
    )
    add(
        "--save-outputs",
        metavar="DIR",
        help="write the outputs of --model as such files, in a folder below DIR",
    )


def add_questions(add: Callable) -> None:
    """What may be asked in the place of a table."""
    add(
        "--compare",
        metavar="A,B",
        help="two scores of --model or --outputs, or two snapshots, or two folders of --save-outputs, in "
        "the place of --model: the "
        "differences of FPR95 and AUROC, with intervals by a paired bootstrap over the images",
    )
    add(
        "--images",
        metavar="PATH",
        help="say of each of these images whether it is in or out, instead of the table: a folder "
        "with all below it, an archive, an array, one image file, or a data set's name",
    )
    add(
        "--tpr",
        type=share,
        default=0.95,
        metavar="SHARE",
        help="of --images and --export: share of the ID test images that the threshold keeps (default: 0.95)",
    )
    add(
        "--export",
        metavar="FILE",
        help="write normalisation, network, --score and the threshold of --tpr as one graph: "
        ".onnx or .pt2",
    )


def add_protocol(add: Callable) -> None:
    """How a table's numbers come about."""
    add(
        "--id-train",
        metavar="PATH",
        help="own ID training images, for scores that are fitted (default: as --id)",
    )
    add("--T", type=positive, help="temperature of energy (default: 1) and odin (default: 1000)")
    add(
        "--noise",
        type=non_negative,
        help="input step of odin (default: 0.0014) and mahalanobis (default: 0, none)",
    )
    add(
        "--num_to_avg",
        type=positive_int,
        default=USUAL.num_to_avg,
        metavar="N",
        help=f"draws to average (default: {USUAL.num_to_avg})",
    )
    add(
        "--protocol",
        choices=tuple(PROTOCOLS),
        default=USUAL.protocol,
        help=f"paper: draws of len(ID)//{USUAL.share} OOD images; full: whole sets; "
        + "; ".join(f"{name}: {rules.title}" for name, rules in PROTOCOLS.items() if rules.groups)
        + f" (default: {USUAL.protocol})",
    )
    add(
        "--harmonise",
        type=jpeg_quality,
        metavar="Q",
        help="blur all images a little and store them as JPEG of quality Q, 1 to 95, ID and OOD "
        "alike: what a score still tells apart is not how the files were made (default: off)",
    )
    add("--out_as_pos", action="store_true", help="print the table with OOD as the positive class")
    add("--seed", type=count, default=USUAL.seed, help=f"of the draws (default: {USUAL.seed})")
    add("--test_bs", type=positive_int, default=200, metavar="N", help="batch size (default: 200)")
    add(
        "--arch",
        metavar="NAME",
        help="network of a file without description: a name or module:function",
    )
    for name, kind in (("--layers", int), ("--widen-factor", int), ("--droprate", float)):
        add(
            name,
            type=kind,
            help="accepted and without effect: a snapshot says what network it is of",
        )


def add_results(add: Callable) -> None:
    """What is written and printed, and how hyper-parameters are chosen."""
    add(
        "--save",
        "-s",
        default=str(RESULTS),
        metavar="DIR",
        help="folder of the result files (default: CIFAR/results)",
    )
    add("--save-scores", action="store_true", help="write every image's scores beside the result")
    add(
        "--per-class",
        action="store_true",
        help="print each ID class's error and the share of it that each score rejects; result files "
        "always have it",
    )
    add(
        "--tune-scores",
        action="store_true",
        help="choose each score's hyper-parameters on held-out ID training images against "
        "generated noise, and print the grid (default: off)",
    )
    add(
        "--validation-ood",
        metavar="LIST",
        help="of --tune-scores: choose against these OOD images of your own instead of noise, named "
        "as for --ood; none of them may be in a test set",
    )
    add(
        "--download",
        action="store_true",
        help="fetch the weights of --model torchvision:NAME where torch's cache lacks them",
    )
    add(
        "--list-scores",
        action="store_true",
        help="print every score's name, formula, needs and paper",
    )
