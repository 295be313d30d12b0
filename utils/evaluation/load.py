"""The network of a snapshot, ready for images: where it computes, and what they are normalised with."""

from argparse import Namespace
from pathlib import Path

from utils import runtime, snapshots
from utils.loaders import (
    DATASETS,
    ID_SETS,
    STATISTICS,
    assumed_statistics,
    described_statistics,
    id_place,
    shown,
    typed_statistics,
)
from utils.runtime import DATA, UserError

from .network import Network


def take_known_set(description: dict, args: Namespace) -> None:
    """``--id cifar10``: the images of a snapshot are those of a known set, found by its name, where
    nothing of that name lies in the current folder; ``--id NAME`` of another set, those that lie
    under its name.
    """
    name = vars(args).get("id")
    if name in ID_SETS and not Path(name).exists():
        description.update(dataset=name, data=name)
        if description.get("classifier") is False:  # its head is no one's
            description["num_classes"] = DATASETS[name].num_classes
        args.id = None
    elif name:
        args.id = id_place(name, vars(args).get("data", DATA))


def load_network(file: Path, args: Namespace) -> tuple[Network, dict]:
    """(network, description) of a snapshot file; args: device, ngpu, precision, compile,
    test_bs and arch of test.py.
    """
    model, description = snapshots.load_model(file, args.arch)
    take_known_set(description, args)
    device = runtime.pick_device(args.device, args.ngpu)
    precision = runtime.pick_precision(args.precision, device)
    network = Network(
        model, runtime.sha256_file(file), device, precision, args.test_bs, arch=description["arch"]
    )
    network.mean, network.std = choose_statistics(description, args)
    return network.compiling(args.compile), description


def choose_statistics(description: dict, args: Namespace) -> tuple[tuple, tuple]:
    """(mean, std) for the images of a snapshot: as typed, as its description says, ImageNet's for a
    package's network, else this project's; what is assumed of a file of others is printed.
    """
    given = vars(args)
    try:
        typed = typed_statistics(given.get("mean"), given.get("std"))
    except ValueError as error:
        raise UserError(str(error)) from None
    described = described_statistics(description)
    if typed and described and typed != described:
        runtime.print_note(
            f"the network was trained with {shown(described)}; as typed, images are "
            f"normalised with {shown(typed)}"
        )
    known = typed or described
    if known or "recipe" in description:
        return known or STATISTICS["cifar"]
    assumed = assumed_statistics(description["arch"])
    print(
        f"images are normalised with {shown(assumed)}, assumed: the file does not say "
        "(--mean, --std)"
    )
    return assumed
