"""Stage 1: train a classifier on in-distribution images.

    python baseline.py cifar10                            # -> CIFAR/snapshots/pretrained/
    python baseline.py cifar10 --epochs 3                 # a short, complete schedule
    python baseline.py cifar10 --resume                   # go on with an interrupted run
    python baseline.py cifar10 --loss logitnorm           # -> snapshots/pretrained_logitnorm/
    python baseline.py flowers --id PATH --arch resnet18  # your own images

Recipe of [Energy] and [SR]: WRN-40-2, 100 epochs, SGD with Nesterov momentum, learning rate 0.1
falling along a cosine every step, weight decay 5e-4, batch 128, random flip and padded crop,
dropout 0.3.
"""

import utils.interrupt  # noqa: F401  Ctrl-C is one line from here on

# isort: split
import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

import models
from utils import loaders, runtime, snapshots, training
from utils.losses import Batch, losses_of, sampling
from utils.paper.curves import draw_curves
from utils.training import meant, names, options, settled


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options.Parser(prog="baseline.py", description=__doc__)
    parser.add_argument(
        "dataset", help=f"{', '.join(loaders.ID_SETS)}, or a name for your own images (--id)"
    )
    parser.add(
        "--loss",
        default="ce",
        choices=tuple(losses_of("pretrain")),
        help="default: ce, cross-entropy",
    )
    options.add_training(parser, "pretrain")
    parser.add("--save", "-s", metavar="DIR", help=options.SAVE_HELP)
    parser.add(
        "--load",
        "-l",
        metavar="NAME|PATH",
        help="start from the weights of this snapshot, at a hundredth of the recipe's learning rate "
        "(a tenth with --new-head) and for a tenth of its epochs (default: random weights)",
    )
    parser.add(
        "--new-head",
        action="store_true",
        help="with --load: a new last layer, for other classes than the snapshot's",
    )
    args = parser.parse_args(argv)
    settled.refuse_options_of_others(args, "pretrain")
    folder = "./snapshots/pretrained" + ("" if args.loss == "ce" else f"_{args.loss}")
    return argparse.Namespace(**{**vars(args), "save": args.save or folder})


def settle(args: argparse.Namespace) -> tuple[argparse.Namespace, Path | None]:
    """(the options of the run, nothing left open: what was typed, what an interrupted run had, the
    recipe; path of the snapshot of --load).
    """
    state, stem = meant.interrupted(args, "pretrain")
    options.known_dataset_of(args, state)
    given = meant.find_given(args, state)
    if args.new_head and not given:
        raise runtime.UserError("--new-head is for the weights of a snapshot: --load NAME|PATH")
    parent = training.describe_parent(given, args.arch) if given else None
    return names.named(settled.settle(args, "pretrain", parent, state), stem, given), given


def main(argv: list[str] | None = None) -> None:
    args, given = settle(parse(argv))
    runtime.use_deterministic(args.deterministic)
    device = runtime.pick_device(args.device, args.ngpu)
    precision = runtime.pick_precision(args.precision, device)
    loss = settled.make_loss(args.loss, "pretrain", args.recipe)
    loaders.use_streaming(args.stream, args.prefetch)
    train_set, test_set, num_classes = loaders.load_id_pair(args)
    outliers = loaders.load_outliers(args, train_set.images.shape[-1]) if loss.outliers else None

    computed = training.describe_computing(device, precision, args.compile)
    description = training.describe_network(args, num_classes, train_set, computed)
    if args.loss != "ce":
        description.update(loss=args.loss, score=loss.score)
    if loss.head:
        description["classifier"] = False
    if outliers is not None:
        description["outliers"] = outliers.describe()
    if given:
        training.check_given(given, args.arch)
    runtime.seed_all(args.seed, "init")
    model = snapshots.build_model(description)
    if given:
        print(f"from {snapshots.short_name(given)}")
        training.load_given(model, given, description, args.new_head)
        description.update(parent=given.name, parent_sha256=runtime.sha256_file(given))
    model = training.prepare(model, train_set, args, device, precision)
    loss.attach(model.feature_dim, device)
    optimizer = training.make_optimizer(model, loss, args)
    streams = runtime.Streams(args.seed, "pretrain", args.streams)
    batches = loaders.TrainingBatches(train_set, outliers, args, device, streams, loss)
    train_batches = loaders.Batches(train_set, args.test_bs, device, statistics=args.statistics)
    test_batches = loaders.Batches(test_set, args.test_bs, device, statistics=args.statistics)
    error_before = None
    if given and not args.new_head:
        error_before = training.tell_error_before(model, test_batches, device, precision)
        description["id_accuracy_before"] = round(100 - error_before, 4)
    begin = training.Rehearsal if args.dry_run else training.Run
    run = begin(
        snapshots.resolve_folder(args.save),
        args.stem,
        model,
        optimizer,
        args,
        description,
        loss.kept,
    )
    head = models.linear_head(model)
    autocast = partial(runtime.autocast, device, precision)
    steps = len(batches)
    schedule = partial(
        training.learning_rate, total=args.epochs * steps, base=args.learning_rate, loss=loss
    )
    with run.interruptible():
        for epoch in run.epochs:
            model.train()
            streams.seed_network(epoch)
            log = training.StepLog(epoch * steps, loss)
            images = run.steps(batches, epoch)
            bar = tqdm(images, f"epoch {epoch + 1}/{args.epochs}", steps, **options.BAR)
            for step, batch in enumerate(bar, epoch * steps):
                training.set_lr(optimizer, schedule(step))
                if loss.chooses_outliers:
                    with autocast():
                        batch = sampling.choose_outliers(model, batch, args, step)
                optimizer.zero_grad(set_to_none=True)
                for x, y, x_out, share in training.parts(*batch, args.accumulate):
                    x.requires_grad_(loss.gradient), x_out.requires_grad_(loss.gradient)
                    with autocast():  # ONE pass: BatchNorm sees both
                        logits, features = model(torch.cat([x, x_out]))
                    terms = loss(Batch(x, x_out, y, logits, features, head))
                    total = share * sum(terms.values())
                    total.backward()
                    log.add(terms, share)
                optimizer.step()
            if loss.head:
                training.take_class_means(model, train_batches, device, precision)
            run.end_epoch(epoch, log, *training.evaluate(model, test_batches, device, precision))
    run.finish(draw_curves, error_before)


if __name__ == "__main__":
    sys.exit(runtime.run(main))
