"""What test.py evaluates: a snapshot's network, the image sets that its options name, the scores."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils import loaders
from utils.losses import LOSSES
from utils.runtime import DATA, UserError, print_note
from utils.scores import SCORES, Score, choose, names_all

from . import leaks
from .network import Network
from .protocol import PROTOCOLS, USUAL, Protocol, Rules
from .rows import group_rows, mean_row, measure_set


class Sets(NamedTuple):
    """The image sets of an evaluation; ``train``, ID training images without augmentation,
    for scores that are fitted. ``shifted`` ones count as ID; ``missing``: names of the protocol's
    sets that are not there; ``leaks``: images that are in two sets, as by ``find_leaks``;
    ``validation``: OOD sets that hyper-parameters are chosen against.
    """

    id: loaders.ImageSet
    ood: list[loaders.ImageSet]
    train: loaders.ImageSet | None
    shifted: tuple[loaders.ImageSet, ...] = ()
    missing: tuple[str, ...] = ()
    leaks: tuple[dict[str, Any], ...] = ()
    validation: tuple[loaders.ImageSet, ...] = ()

    def all(self) -> list[loaders.ImageSet]:
        train = [self.train] if self.train else []
        return [self.id, *self.shifted, *self.ood, *train, *self.validation]


class Case(NamedTuple):
    """What test.py evaluates: a snapshot's file, description and network, the image sets,
    the scores, and its options.
    """

    file: Path
    description: dict[str, Any]
    network: Network
    sets: Sets
    scores: list[Score]
    args: Namespace

    @property
    def protocol(self) -> Protocol:
        return Protocol.of(vars(self.args))

    @property
    def out_as_pos(self) -> bool:
        """Whether the printed table's positive class is OOD."""
        return self.args.out_as_pos or self.protocol.rules.out_as_pos

    def shared_sets(self) -> list[loaders.ImageSet]:
        """The sets beside the ID images, where a score reads their outputs;
        one with an input step makes passes of its own.
        """
        sets = [*self.sets.shifted, *self.sets.ood]
        return sets if any("gradient" not in score.needs for score in self.scores) else []

    def measure(self, score: Score) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """(rows of the table: the OOD sets, the groups, the average; {set: its images' scores})."""
        accepted = {
            images.name if images is not self.sets.id else "id": self.network.score(score, images)
            for images in (self.sets.id, *self.sets.shifted)
        }
        found = {ood.name: self.network.score(score, ood) for ood in self.sets.ood}
        id_scores = np.concatenate(list(accepted.values()))
        rows = [measure_set(id_scores, v, name, self.protocol) for name, v in found.items()]
        groups = self.protocol.rules.groups_of(self.description.get("dataset") or "own")
        return [*rows, *group_rows(rows, groups), mean_row(rows)], {**accepted, **found}


class Rows(NamedTuple):
    """What came of it: an entry a score as result files have them, {score/set: (N,) scores}, and
    the grids of --tune-scores.
    """

    measured: list[dict[str, Any]]
    vectors: dict[str, np.ndarray]
    grids: dict[str, list]

    def add(
        self, score: Score, table: list[dict[str, Any]], vectors: dict[str, np.ndarray]
    ) -> None:
        entry = {"score": score.label, "hyper": score.hyper, "average": table[-1]}
        entry["sets"] = [row for row in table[:-1] if "sets" not in row]
        if groups := [row for row in table[:-1] if "sets" in row]:
            entry["groups"] = groups
        self.measured.append(entry)
        self.vectors.update({f"{score.label}/{name}": values for name, values in vectors.items()})


def choose_scores(description: Mapping[str, Any], file: Path, args: Namespace) -> list[Score]:
    """The scores of --score for a snapshot; UserError where one needs a classifier that it has not.

    Of ``all`` those that need one are left out.
    """
    chosen = choose(args.score, description.get("dataset"), args.T, args.noise)
    if description.get("classifier") is not False:
        return chosen
    fitting = [
        score
        for score in chosen
        if getattr(score, "own", False) or not set(score.needs) & {"logits", "head", "gradient"}
    ]
    if len(fitting) < len(chosen) and not names_all(args.score):
        missing = next(score for score in chosen if score not in fitting)
        there = [
            name for name, kind in SCORES.items() if not set(kind.needs) - {"features", "train"}
        ]
        raise UserError(
            f"score '{missing.label}' needs a classifier; {file.name}{without_one(description)}. "
            f"Scores of its features: {', '.join(there)}"
        )
    return fitting


def without_one(description: Mapping[str, Any]) -> str:
    """That a snapshot has no classifier, and why where its description tells."""
    loss = description.get("loss")
    return f" was trained with --loss {loss}, without one" if loss in LOSSES else " has none"


def dataset_of(description: Mapping[str, Any], file: Path, args: Namespace) -> str:
    """Name of the ID data set of a snapshot, "own" for images without a name;
    UserError where only --id PATH can give them.
    """
    name = description.get("dataset") or ("own" if args.id else None)
    data = description.get("data") or name
    # studies fine-tune on parts of a set's own images, which they put below data/cache
    own = data != name and not Path(data).is_relative_to(DATA / "cache")
    if args.id is None and (own or name not in loaders.ID_SETS):
        told = f"{file.name} does not say what images it was trained on"
        if "data" in description:
            told = f"{file.name} was trained on images of your own ({description['data']})"
        raise UserError(
            f"{told}. Give them: --id PATH, or a known set's name, --id {loaders.ID_SETS[0]}"
        )
    known = loaders.DATASETS[name].num_classes if args.id is None else description["num_classes"]
    if description["num_classes"] != known:
        raise UserError(
            f"{file} is a snapshot for {description['num_classes']} classes; '{name}' has {known}"
        )
    return name


def load_id_set(
    description: Mapping[str, Any], file: Path, args: Namespace, split: str = "test"
) -> loaders.ImageSet:
    """ID images of a snapshot, of the size it was trained at; args:
    data, id, id_train, image_size, skip_bad.

    UserError: labels that the snapshot does not have, or class names in another order.
    """
    path = args.id if split == "test" else args.id_train or args.id
    size = args.image_size or description.get("image_size")
    rules = PROTOCOLS[vars(args).get("protocol", USUAL.protocol)]
    if rules.resize != 1:
        size = rules.size_of(size or 224)
    if split == "test" and path is None and rules.lists:
        name = dataset_of(description, file, args)
        folder = list_folder(rules, name)
        path = loaders.listed_path(folder, folder, args.data)
    share = share_of(description, args, path)
    images = loaders.load_id(
        dataset_of(description, file, args),
        split,
        args.data,
        loaders.Unsplit(path, share) if share else path,
        size,
        args.skip_bad,
        description["num_classes"],
    )
    loaders.check_classes(images.classes, description.get("classes"), images.source, file)
    return images


def share_of(description: Mapping[str, Any], args: Namespace, path: str | None) -> float | None:
    """What of --id is the test set: as typed, or as the snapshot was trained; None where the images
    have parts of their own.
    """
    if path is None or path != args.id:
        return None
    share = description.get("split")
    return args.split or (None if share is None or loaders.has_parts(path) else share)


def list_folder(rules: Rules, dataset: str) -> str:
    """The folder of benchmark_imglist/ with the lists of a protocol."""
    return rules.lists.format(id=dataset)


def load_groups(
    dataset: str, id_set: loaders.ImageSet, args: Namespace
) -> tuple[list[loaders.ImageSet], list[loaders.ImageSet], list[str]]:
    """(OOD sets, shifted ID sets, names of what is not there) of a protocol with groups, or the OOD
    sets of --ood; what is not there is said on stderr. UserError when there is no OOD set at all.
    """
    rules = PROTOCOLS[args.protocol]
    side = id_set.images.shape[-1]
    size = rules.size_of(side)
    folder = list_folder(rules, dataset)
    names = [name for _, members in rules.groups_of(dataset) for name in members]
    shifted, missing = loaders.load_named(rules.shifted, folder, args.data, size, args.skip_bad)
    if args.ood:
        sets = loaders.parse_ood(args.ood, dataset, args.data, size, args.skip_bad)
        absent = [name for name in names if name not in [images.name for images in sets]]
    else:
        sets, absent = loaders.load_named(names, folder, args.data, size, args.skip_bad)
    missing += absent
    places = "; ".join(loaders.where_to_get(name, args.data) for name in missing)
    if not sets:
        raise UserError(f"of the OOD sets of {rules.title} none is in {args.data}. {places}")
    if missing:
        print_note(
            f"of {rules.title} there is no {', '.join(missing)} in {args.data}, and the "
            f"means lack them. {places}"
        )
    if rules.lists and not loaders.listed_path(sets[0].name, folder, args.data):
        print_note(
            f"without OpenOOD's image lists (benchmark_imglist/{folder}/ in {args.data}) whole "
            "sets are scored; the numbers are not comparable with its tables"
        )
    return sets, shifted, missing


def load_sets(
    description: Mapping[str, Any], file: Path, args: Namespace, with_train: bool
) -> Sets:
    """The image sets that test.py's options name; UserError where one is missing, or ID training
    images are the test images.
    """
    rules, dataset = PROTOCOLS[args.protocol], dataset_of(description, file, args)
    rules.groups_of(dataset)  # before the images are read
    id_set, shifted, missing = load_id_set(description, file, args), [], []
    side = id_set.images.shape[-1]
    if rules.groups:
        ood_sets, shifted, missing = load_groups(dataset, id_set, args)
    else:
        ood_sets = loaders.parse_ood(args.ood, dataset, args.data, side, args.skip_bad)
    train_set = None
    if with_train:
        train_set = load_id_set({**description, "image_size": side}, file, args, "train")
        if train_set.fingerprint == id_set.fingerprint:
            raise UserError(
                "the ID training images that scores are fitted on are the test images. "
                "Give others: --id-train PATH"
            )
    validation = load_validation(description, file, args, [id_set, *shifted, *ood_sets])
    found = leaks.find_leaks(id_set, ood_sets, train_set, description)
    if results := vars(args).get("save"):
        found += leaks.find_chosen(ood_sets, description.get("sha256"), Path(results).expanduser())
    leaks.note_leaks(found)
    if args.harmonise is not None:
        id_set, train_set, *others = (
            images and loaders.harmonise(images, args.harmonise)
            for images in (id_set, train_set, *shifted, *ood_sets, *validation)
        )
        shifted, others = others[: len(shifted)], others[len(shifted) :]
        ood_sets, validation = others[: len(ood_sets)], others[len(ood_sets) :]
    return Sets(
        id_set, ood_sets, train_set, tuple(shifted), tuple(missing), tuple(found), tuple(validation)
    )


def load_validation(
    description: Mapping[str, Any], file: Path, args: Namespace, tests: list[loaders.ImageSet]
) -> list[loaders.ImageSet]:
    """The sets of --validation-ood, brought to the size of the ``tests``; UserError where an image
    is in both, or in a test set and in what the snapshot's margins were measured on.
    """
    for part in description.get("validation_ood") or ():
        for images in tests:
            count, name = loaders.count_used(images, part), part.get("name")
            if count:
                raise UserError(
                    f"{count:,} of the {len(images):,} images of '{images.name}' are in the "
                    f"validation OOD set '{name}' of {file.name}, on which its margins were "
                    "measured: they are no test for it. Name others: --ood NAME,folder:PATH"
                )
    text = vars(args).get("validation_ood")
    if not text:
        return []
    size = PROTOCOLS[args.protocol].size_of(tests[0].images.shape[-1])
    sets = loaders.parse_ood(
        text, description.get("dataset"), args.data, size, args.skip_bad, "--validation-ood"
    )
    loaders.check_apart(sets, tests)
    return sets
