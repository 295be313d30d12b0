"""Stage 2: fine-tune a pre-trained classifier with an OOD-aware loss.

    python tune.py cifar10                                # SR: sparsity regularisation, no outliers -> CIFAR/snapshots/tune_sr/
    python tune.py cifar10 --loss sroe                    # SR with outlier exposure
    python tune.py cifar10 --loss oe --outliers PATH      # your own outliers: a folder, archive or array
    python tune.py cifar10 --loss energy --m_in -23 --m_out -5

Recipe of [Energy] and [SR]: 10 epochs from the pre-trained snapshot, learning rate 0.001 falling along a cosine every step,
128 ID images and (but for SR) 256 outliers in ONE forward pass, so that BatchNorm sees both.
"""
import sys
from itertools import repeat

import torch
from tqdm import tqdm

from utils import loaders, runtime, snapshots, training
from utils.losses import LOSSES
from utils.training import options


def parse(argv):
    parser = options.Parser(prog="tune.py", description=__doc__)
    parser.add_argument("dataset", help=f"{', '.join(loaders.ID_SETS)}, or the name given to your own images (--id)")
    parser.add("--loss", default="sr", choices=tuple(LOSSES), help="default: sr")
    options.add_training(parser, "tune")
    options.add_tuning(parser)
    parser.add("--save", "-s", default=None, metavar="DIR",
               help="folder of the snapshots; ./snapshots/... is the project's CIFAR/snapshots/... (default: ./snapshots/tune_LOSS)")
    parser.add("--load", "-l", default="./snapshots/pretrained", metavar="NAME|PATH",
               help="pre-trained snapshot: a folder, a name or a file (default: ./snapshots/pretrained)")
    args = parser.parse_args(argv)
    options.known_dataset(args.dataset, args.id, loaders.ID_SETS)
    args.save = args.save or f"./snapshots/tune_{args.loss}"
    return options.apply_recipe(args, "tune", args.loss)


def main(argv=None):
    args = parse(argv)
    device = runtime.pick_device(args.device, args.ngpu)
    precision = runtime.pick_precision(args.precision, device)
    loss = LOSSES[args.loss]
    stem = f"{args.dataset}_{training.arch_name(args.arch)}_pretrained"
    if args.id and args.image_size is None:     # images of one's own are brought to the size that the network was trained at
        args.image_size = training.image_size(snapshots.find_one(args.load, stem), args)
    train_set, test_set, num_classes = loaders.load_id_pair(args)
    parent = snapshots.find_one(args.load, stem)
    computed = training.describe_computing(device, precision, args.compile)
    description = {**training.describe_network(args, num_classes, train_set, computed), "loss": args.loss, "score": loss.score,
                   "parent": parent.name, "parent_sha256": runtime.sha256_file(parent)}
    model, description = training.load_parent(parent, args, description)
    model = training.prepare(model, train_set, args, device, precision)
    optimizer = training.make_optimizer(model, args)
    id_batches = loaders.Batches(train_set, args.batch_size, device, augment=True, padding=args.padding)
    outlier_batches = None
    if loss.outliers:
        outliers = loaders.load_outliers(args)
        if outliers.images.shape[1:] != train_set.images.shape[1:]:
            raise runtime.UserError(f"outliers '{outliers.name}' ({outliers.source}) are images of {tuple(outliers.images.shape[1:])}, "
                                    f"the ID images of {tuple(train_set.images.shape[1:])}. Both must have one size")
        description["outliers"] = outliers.describe()
        mean, std = loaders.outlier_statistics(args.outlier_norm)
        outlier_batches = loaders.Batches(outliers, args.oe_batch_size, device, augment=True, padding=args.outlier_padding,
                                          mean=mean, std=std, steps=len(id_batches))
    run = training.Run(snapshots.resolve_folder(args.save), f"{args.dataset}_{training.arch_name(args.arch)}_s{args.seed}_tune",
                       model, optimizer, args, description)
    test_batches = loaders.Batches(test_set, args.test_bs, device)
    with run.interruptible():
        for epoch in range(run.first_epoch, args.epochs):
            clock = training.Clock()
            losses = tune_epoch(model, optimizer, loss, id_batches, outlier_batches, epoch, args, device, precision)
            seconds = clock.lap()
            run.end_epoch(epoch, seconds, losses, *training.evaluate(model, test_batches, device, precision))
    run.finish()


def tune_epoch(model, optimizer, loss, id_batches, outlier_batches, epoch, args, device, precision):
    """One pass over the ID images, outliers beside them; returns the mean of the loss and of each of its terms."""
    model.train()
    steps, total = len(id_batches), args.epochs * len(id_batches)
    log = training.StepLog(first_step=epoch * steps)
    id_data = id_batches.epoch(runtime.seed_epoch(args.seed, epoch))
    outlier_data = outlier_batches.epoch(runtime.data_generator(args.seed, f"outliers {epoch}")) if outlier_batches else repeat((None, None))
    pairs = tqdm(zip(id_data, outlier_data), f"epoch {epoch + 1}/{args.epochs}", steps, unit="step", disable=None, leave=False)
    for i, ((x, y), (x_out, _)) in enumerate(pairs):
        training.set_lr(optimizer, training.cosine_lr(epoch * steps + i, total, args.learning_rate))
        with runtime.autocast(device, precision):
            logits, features = model(x if x_out is None else torch.cat([x, x_out]))
        total_loss = log.add(loss.terms(logits, features, y, args))
        optimizer.zero_grad(set_to_none=True)
        total_loss.backward()
        optimizer.step()
    return log.means()


if __name__ == "__main__":
    sys.exit(runtime.run(main))
