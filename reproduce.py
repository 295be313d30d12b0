"""A data set's whole chain (train, fine-tune, score, table, figure), or a paper's table.

    python reproduce.py digits                       # needs no download; a few minutes
    python reproduce.py cifar10                      # the papers' recipes; hours on a CPU
    python reproduce.py cifar10 --seeds 1,2,3 --jobs 3   # three trainings at a time, mean and sd
    python reproduce.py cifar10 --preset quick       # a short schedule, in folders of its own
    python reproduce.py cifar10 --table sr           # published beside measured: CIFAR/README.md
    python reproduce.py cifar10 --table all --train  # what is missing is trained
    python reproduce.py cifar10 --sweep              # SR's alpha, chosen without OOD images
    python reproduce.py cifar10 --ablation           # SR with one thing changed at a time
    python reproduce.py cifar10 --scores-matrix      # every score on the networks of the tables
    python reproduce.py --summary cifar10_wrn_s1_tune    # mean and sd over the seeds of your own runs

Images come first: python data/download.py cifar10 ood 300k. Each stage is the command a user would
type, and is printed. A stage whose snapshot is there with this recipe is not run again, an
interrupted one goes on; anything else is trained, and what it replaces is moved aside.
"""

import utils.interrupt  # noqa: F401  Ctrl-C is one line from here on

# isort: split
import argparse
import sys

from utils import loaders, runtime
from utils.paper import methods, published, seeds, studies, summary
from utils.training import options, recipes


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options.Parser(prog="reproduce.py", description=__doc__)
    parser.add_argument(
        "dataset",
        nargs="?",
        default=loaders.NO_DOWNLOAD,
        help=f"{', '.join(loaders.ID_SETS)} (default: {loaders.NO_DOWNLOAD})",
    )
    parser.add("--fresh", action="store_true", help="train every stage anew")
    parser.add(
        "--arch",
        default=None,
        metavar="NAME",
        help="default: wrn; with --table: every network of the table, or only the one named",
    )
    parser.add("--seed", type=options.count, default=1, help="of training (default: 1)")
    parser.add(
        "--seeds",
        type=seeds.parse_seeds,
        default=None,
        metavar="LIST",
        help="the chain for each of these training seeds, as 1,2,3; mean and sd over them",
    )
    parser.add(
        "--jobs",
        type=options.positive_int,
        default=1,
        metavar="K",
        help="with --seeds: so many at a time, each on its own cores and GPU (default: 1)",
    )
    parser.add(
        "--own-folders",
        action="store_true",
        help="snapshots of this seed in folders of their own, pretrained_s2 for --seed 2",
    )
    parser.add(
        "--preset", default="paper", choices=tuple(recipes.PRESETS), help="recipes (default: paper)"
    )
    parser.add(
        "--table",
        default=None,
        choices=(*published.TABLES, "all"),
        help="a paper's table instead of the chain",
    )
    parser.add(
        "--train", action="store_true", help="with --table: train the snapshots that are missing"
    )
    parser.add(
        "--sweep",
        action="store_true",
        help="fine-tune with SR at several alphas and compare them; no OOD test set is seen",
    )
    parser.add(
        "--ablation",
        action="store_true",
        help="fine-tune with SR, with one thing changed at a time, and score the OOD sets",
    )
    parser.add(
        "--scores-matrix",
        action="store_true",
        help="every score on the networks of the tables: a table and a heat map",
    )
    parser.add(
        "--summary",
        default=None,
        metavar="NAME",
        help="mean and sd over the seeds of your own runs of this name, as test.py has scored them: "
        "a table, CSV and LaTeX",
    )
    options.add_common(parser)
    args = parser.parse_args(argv)
    check(parser, args)
    args.one_network, args.arch = args.arch is not None, args.arch or "wrn"
    return args


def check(parser: options.Parser, args: argparse.Namespace) -> None:
    """One line and exit status 2 for options that do not go together."""
    options.known_dataset(args.dataset, args.id, loaders.ID_SETS)
    studied = ("table", "sweep", "ablation", "scores_matrix", "summary")
    chosen = [f"--{name.replace('_', '-')}" for name in studied if getattr(args, name)]
    if len(chosen) > 1:
        parser.error(f"{' and '.join(chosen)}: one at a time")
    if args.seeds and (chosen or args.seed != 1):
        parser.error(f"--seeds is about the chain: no {chosen[0] if chosen else '--seed'}")
    if args.jobs > 1 and not args.seeds:
        parser.error("--jobs goes with --seeds")
    if args.train and not args.table:
        parser.error("--train goes with --table")
    if (args.sweep or args.ablation) and (args.fresh or args.preset != "paper"):
        parser.error(f"{chosen[0]} has a recipe of its own: no --fresh and no --preset")
    if (args.scores_matrix or args.summary) and (args.fresh or args.preset != "paper"):
        parser.error(f"{chosen[0]} trains nothing: no --fresh and no --preset")
    if args.table and args.id:
        parser.error("--table is about the papers' images: no --id")
    if args.table and args.preset != "paper":
        parser.error("--table is about the papers' recipes: no --preset")


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.summary:
        summary.summarise(args.summary)
    elif args.sweep:
        studies.sweep(args)
    elif args.ablation:
        studies.ablation(args)
    elif args.scores_matrix:
        studies.matrix(args)
    elif args.table:
        methods.paper_table(args)
    elif args.seeds:
        seeds.chains(args)
    else:
        methods.chain(args)


if __name__ == "__main__":
    sys.exit(runtime.run(main))
