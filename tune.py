"""Stage 2: fine-tune a pre-trained classifier with an OOD-aware loss.

    python tune.py cifar10                           # SR, no outliers -> CIFAR/snapshots/tune_sr/
    python tune.py cifar10 --loss sroe               # SR with outlier exposure
    python tune.py cifar10 --loss oe --outliers PATH # a folder, an archive or an array
    python tune.py cifar10 --loss energy --m_in -23 --m_out -5

Recipe of [Energy] and [SR]: 10 epochs from the pre-trained snapshot, learning rate 0.001 falling
along a cosine every step, 128 ID images and (but for SR) 256 outliers in ONE forward pass,
so that BatchNorm sees both.
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
    parser = options.Parser(prog="tune.py", description=__doc__)
    parser.add_argument(
        "dataset", help=f"{', '.join(loaders.ID_SETS)}, or the name given to your own images (--id)"
    )
    parser.add("--loss", default="sr", choices=tuple(losses_of("tune")), help="default: sr")
    options.add_training(parser, "tune")
    parser.add("--save", "-s", metavar="DIR", help=options.SAVE_HELP)
    parser.add(
        "--load",
        "-l",
        metavar="NAME|PATH",
        help="pre-trained snapshot: a folder, a name or a file (default: ./snapshots/pretrained)",
    )
    args = parser.parse_args(argv)
    settled.refuse_options_of_others(args, "tune")
    return argparse.Namespace(
        **{**vars(args), "save": args.save or f"./snapshots/tune_{args.loss}"}
    )


def settle(args: argparse.Namespace) -> tuple[argparse.Namespace, Path]:
    """(the options of the run, nothing left open, path of the pre-trained snapshot)."""
    state, stem = meant.interrupted(args, "tune")
    options.known_dataset_of(args, state)
    parent = meant.find_parent(args, state)
    args = settled.settle(args, "tune", training.describe_parent(parent, args.arch), state)
    return names.named(args, stem, parent), parent


def main(argv: list[str] | None = None) -> None:
    args, parent = settle(parse(argv))
    runtime.use_deterministic(args.deterministic)
    device = runtime.pick_device(args.device, args.ngpu)
    precision = runtime.pick_precision(args.precision, device)
    loss = settled.make_loss(args.loss, "tune", args.recipe)
    loaders.use_streaming(args.stream, args.prefetch)
    train_set, test_set, num_classes = loaders.load_id_pair(args)
    outliers = loaders.load_outliers(args, train_set.images.shape[-1]) if loss.outliers else None

    computed = training.describe_computing(device, precision, args.compile)
    description = {
        **training.describe_network(args, num_classes, train_set, computed),
        "loss": args.loss,
        "score": loss.score,
        "parent": parent.name,
        "parent_sha256": runtime.sha256_file(parent),
    }
    if outliers is not None:
        description["outliers"] = outliers.describe()
    if validation := training.load_validation(args, test_set):
        description["validation_ood"] = [loaders.describe_used(images) for images in validation]
    print(f"from {snapshots.short_name(parent)}")
    model = training.load_parent(parent, description)
    model = training.prepare(model, train_set, args, device, precision)
    if args.auto_margins and not args.resume:
        sets = (train_set, validation or [outliers])
        args = training.with_margins(args, model, sets, device, precision)
        loss = settled.make_loss(args.loss, "tune", args.recipe)
    loss.attach(model.feature_dim, device)
    optimizer = training.make_optimizer(model, loss, args)
    streams = runtime.Streams(args.seed, "tune", args.streams)
    batches = loaders.TrainingBatches(train_set, outliers, args, device, streams, loss)
    test_batches = loaders.Batches(test_set, args.test_bs, device, statistics=args.statistics)
    error_before = training.tell_error_before(model, test_batches, device, precision)
    training.note_chance(error_before, test_set, num_classes, parent)
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
    schedule = partial(training.learning_rate, total=args.epochs * steps, base=args.learning_rate)
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
            run.end_epoch(epoch, log, *training.evaluate(model, test_batches, device, precision))
    run.finish(draw_curves, error_before)


if __name__ == "__main__":
    sys.exit(runtime.run(main))
