"""Stage 1: train a classifier on in-distribution images.

    python baseline.py cifar10                            # WRN-40-2, 100 epochs -> CIFAR/snapshots/pretrained/
    python baseline.py cifar10 --epochs 3                 # a short, complete schedule
    python baseline.py cifar10 --resume                   # go on with an interrupted run
    python baseline.py flowers --id PATH --arch resnet18  # your own images

Recipe of [Energy] and [SR]: SGD with Nesterov momentum, learning rate 0.1 falling along a cosine every step,
weight decay 5e-4, batch 128, random flip and padded crop, dropout 0.3.
"""
import sys

from torch.nn.functional import cross_entropy
from tqdm import tqdm

from utils import loaders, runtime, snapshots, training
from utils.training import options


def parse(argv):
    parser = options.Parser(prog="baseline.py", description=__doc__)
    parser.add_argument("dataset", help=f"{', '.join(d for d in loaders.ID_SETS)}, or a name for your own images (--id)")
    options.add_training(parser, "pretrain")
    parser.add("--save", "-s", default="./snapshots/pretrained", metavar="DIR",
               help="folder of the snapshots; ./snapshots/... is the project's CIFAR/snapshots/... (default: ./snapshots/pretrained)")
    parser.add("--load", "-l", default=None, metavar="NAME|PATH", help="start from the weights of this snapshot (default: random)")
    args = parser.parse_args(argv)
    options.known_dataset(args.dataset, args.id, loaders.ID_SETS)
    return options.apply_recipe(args, "pretrain")


def main(argv=None):
    args = parse(argv)
    device = runtime.pick_device(args.device, args.ngpu)
    precision = runtime.pick_precision(args.precision, device)
    train_set, test_set, num_classes = loaders.load_id_pair(args)
    runtime.seed_epoch(args.seed, "init")
    description = training.describe_network(args, num_classes, train_set, training.describe_computing(device, precision, args.compile))
    model = snapshots.build_model(description)
    stem = f"{args.dataset}_{training.arch_name(args.arch)}_pretrained"
    if args.load:
        path = snapshots.find_one(args.load, stem)
        snapshots.load_weights(model, snapshots.read_weights(path), path)
        description.update(parent=path.name, parent_sha256=runtime.sha256_file(path))
    model = training.prepare(model, train_set, args, device, precision)
    optimizer = training.make_optimizer(model, args)
    run = training.Run(snapshots.resolve_folder(args.save), stem, model, optimizer, args, description)
    train_batches = loaders.Batches(train_set, args.batch_size, device, augment=True, padding=args.padding)
    test_batches = loaders.Batches(test_set, args.test_bs, device)
    with run.interruptible():
        for epoch in range(run.first_epoch, args.epochs):
            clock = training.Clock()
            losses = train_epoch(model, optimizer, train_batches, epoch, args, device, precision)
            seconds = clock.lap()
            run.end_epoch(epoch, seconds, losses, *training.evaluate(model, test_batches, device, precision))
    run.finish()


def train_epoch(model, optimizer, batches, epoch, args, device, precision):
    """One pass over the training images; returns the mean training loss as {"loss": ...}."""
    model.train()
    steps, total = len(batches), args.epochs * len(batches)
    log = training.StepLog(first_step=epoch * steps)
    data = batches.epoch(runtime.seed_epoch(args.seed, epoch))
    for i, (x, y) in enumerate(tqdm(data, f"epoch {epoch + 1}/{args.epochs}", steps, unit="step", disable=None, leave=False)):
        training.set_lr(optimizer, training.cosine_lr(epoch * steps + i, total, args.learning_rate))
        with runtime.autocast(device, precision):
            logits, _ = model(x)
        loss = log.add({"ce": cross_entropy(logits, y)})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return log.means()


if __name__ == "__main__":
    sys.exit(runtime.run(main))
