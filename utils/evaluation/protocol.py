"""The protocol: which image sets, which draws of them, and the rows of a table that these give."""

import zlib
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils import loaders
from utils.metrics import METRICS, detection_metrics, openood_metrics, quirks
from utils.runtime import DATA, UserError, print_note
from utils.scores import SCORES, Score, choose, names_all

from . import leaks
from .network import Network


@dataclass(frozen=True)
class Rules:
    """What ``--protocol NAME`` means: the sets, in groups, and how they are measured."""

    title: str
    # ID data set -> ((group, its sets), ...); "" = whatever the ID images are
    groups: Mapping[str, tuple] = field(default_factory=dict)
    # sets that are ID all the same: their scores count with those of the ID images
    shifted: tuple = ()
    lists: str = ""  # whose image lists in data/benchmark_imglist/ are read; {id} = the ID data set
    draws: bool = False  # draws of OOD images, else whole sets once
    metrics: str = "papers"  # "papers": detection_metrics; "openood": openood_metrics
    out_as_pos: bool = False  # the positive class of FPR95
    resize: float = 1.0  # side that images are brought to before the crop, in sides of the crop

    def size_of(self, side: int) -> int | tuple[int, int]:
        """The size that images are read at, for a side of the crop."""
        return side if self.resize == 1 else (round(side * self.resize), side)

    def groups_of(self, dataset: str) -> tuple:
        """The groups for ID images; UserError where the protocol is of other ones."""
        if not self.groups:
            return ()
        found = self.groups.get(dataset, self.groups.get(""))
        if found is None:
            raise UserError(
                f"the protocol of {self.title} is of the ID images {', '.join(self.groups)}, "
                f"not of {dataset}. Take --protocol paper or full, and name sets by --ood"
            )
        return found


PROTOCOLS = {
    "paper": Rules("the papers' six sets", draws=True),
    "full": Rules("the papers' six sets, whole"),
    "openood": Rules(
        "OpenOOD v1.5", loaders.OPENOOD_GROUPS, lists="{id}", metrics="openood", out_as_pos=True
    ),
    "imagenet200": Rules(
        "OpenOOD v1.5, ImageNet-200",
        {"": loaders.IMAGENET_GROUPS},
        lists="imagenet200",
        metrics="openood",
        out_as_pos=True,
        resize=256 / 224,
    ),
    "imagenet1k": Rules(
        "OpenOOD v1.5, ImageNet-1k",
        {"": loaders.IMAGENET_GROUPS},
        lists="imagenet",
        metrics="openood",
        out_as_pos=True,
        resize=256 / 224,
    ),
    "fsood": Rules(
        "OpenOOD v1.5, full spectrum",
        {"": loaders.IMAGENET_GROUPS},
        shifted=loaders.SHIFTED,
        lists="imagenet",
        metrics="openood",
        out_as_pos=True,
        resize=256 / 224,
    ),
    "imagenet4": Rules(
        "ReAct and DICE on ImageNet-1k", {"": loaders.IMAGENET_FOUR}, resize=256 / 224
    ),
}


def beside(default: Any) -> Any:
    """A field that does not make it another protocol."""
    return field(default=default, compare=False)


@dataclass(frozen=True)
class Protocol:
    """How a table's numbers come about; the defaults are the papers' protocol,
    what is usual ([Energy], [SR]).

    Fields are options of test.py. Two results with equal protocols may stand in one table. The
    other fields do not count there, but tell two results of one snapshot apart: hyper-parameters (a
    score's label has them too), the place of the images (which sets there are, and of how many
    images, is in the result), and what rounds the outputs.
    """

    ood: str = ""  # OOD sets; "": the data set's own, loaders.OOD_SETS
    id_train: str | None = None  # ID training images of one's own, for scores that are fitted
    num_to_avg: int = 10  # draws
    seed: int = 1  # of the draws
    tune_scores: bool = False  # hyper-parameters chosen on held-out ID images
    validation_ood: str | None = None  # OOD images that these are chosen against
    T: float | None = beside(None)
    noise: float | None = beside(None)
    mean: str | None = None  # what images are normalised with; None: as the network was trained
    std: str | None = None
    image_size: int | None = None  # side that images are brought to; None: the data set's own
    id: str | None = None  # ID images of one's own
    data: str = beside(str(DATA))
    precision: str = beside("auto")
    skip_bad: bool = beside(False)
    arch: str | None = beside(None)
    protocol: str = "paper"  # a name of PROTOCOLS
    share: int = 5  # a draw has len(ID) // share OOD images: 2,000 for CIFAR's 10,000
    # the positive class of the printed table: ID, or OOD; a result has both
    out_as_pos: bool = beside(False)
    harmonise: int | None = None  # JPEG quality that all images are brought to
    outputs: list[str] | None = None  # files of outputs in the place of network and images

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Protocol":
        """The protocol of test.py's arguments; what these do not name is as usual."""
        return cls(**{f.name: arguments[f.name] for f in fields(cls) if f.name in arguments})

    @property
    def rules(self) -> Rules:
        return PROTOCOLS[self.protocol]


USUAL = Protocol()


def departures(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """{option: value} of all that is not as usual in test.py's arguments,
    in the order of the fields.
    """
    given = vars(Protocol.of(arguments))
    return {option: value for option, value in given.items() if value != getattr(USUAL, option)}


def is_usual(result: Mapping[str, Any]) -> bool:
    """Whether a result file's record is of the papers' protocol."""
    return Protocol.of({**result["arguments"], "protocol": result["protocol"]}) == USUAL


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
            f"score '{missing.label}' needs a classifier; {file.name} was trained with --loss "
            f"{description.get('loss')}, without one. Scores of its features: {', '.join(there)}"
        )
    return fitting


def dataset_of(description: Mapping[str, Any], file: Path, args: Namespace) -> str:
    """Name of the ID data set of a snapshot, "own" for images without a name;
    UserError where only --id PATH can give them.
    """
    name = description.get("dataset") or ("own" if args.id else None)
    data = description.get("data", name)
    # studies fine-tune on parts of a set's own images, which they put below data/cache
    own = data != name and not Path(data).is_relative_to(DATA / "cache")
    if args.id is None and (own or name not in loaders.ID_SETS):
        told = f"{file.name} does not say what images it was trained on"
        if "data" in description:
            told = f"{file.name} was trained on images of your own ({description['data']})"
        raise UserError(f"{told}. Give them: --id PATH, or a known set's name, --id cifar10")
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


def crc32_of(name: str) -> int:
    """A number of a set's name, which may hold bytes that are no UTF-8."""
    return zlib.crc32(name.encode(errors="surrogateescape"))


def draw_indices(count: int, size: int, draws: int, seed: int, name: str) -> list[np.ndarray]:
    """Index arrays of ``draws`` random draws of ``size`` out of ``count``
    images without replacement.

    A set of at most ``size`` images is used whole, once.
    The draws depend on the seed and the set's name alone.
    """
    if count <= size:
        return [np.arange(count)]
    rng = np.random.default_rng([seed, crc32_of(name)])
    return [rng.choice(count, size, replace=False) for _ in range(draws)]


def measure_set(
    id_scores: np.ndarray, ood_scores: np.ndarray, name: str, protocol: Protocol = USUAL
) -> dict[str, Any]:
    """Metrics in percent of one OOD set: mean and sd over the draws, and over the whole set.

    Scores (N,) and (M,), larger = more OOD. The sd is the sample standard deviation over the draws,
    0 where there is only one.
    """
    measured = openood_metrics if protocol.rules.metrics == "openood" else detection_metrics
    whole = measured(id_scores, ood_scores)
    size = max(len(id_scores) // protocol.share, 1) if protocol.rules.draws else len(ood_scores)
    parts = draw_indices(len(ood_scores), size, protocol.num_to_avg, protocol.seed, name)
    rows = [whole] if len(parts) == 1 else [measured(id_scores, ood_scores[part]) for part in parts]
    values = {metric: 100 * np.array([row[metric] for row in rows]) for metric in METRICS}
    return {
        "set": name,
        "n": len(ood_scores),
        "drawn": len(parts[0]),
        "draws": len(parts),
        **{metric: float(v.mean()) for metric, v in values.items()},
        "sd": {metric: float(v.std(ddof=1)) if len(v) > 1 else 0.0 for metric, v in values.items()},
        "whole": {metric: 100 * whole[metric] for metric in METRICS},
        "flags": quirks(id_scores, ood_scores),
    }


def mean_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The plain mean over the sets, as the papers print it;
    its sd is that of the mean of independent draws.

    ``draws`` are those of the set with the fewest: where that is one draw of all its images, the sd
    leaves that set's part out.
    """
    return {
        "set": "average",
        "draws": min(row["draws"] for row in rows),
        **{metric: float(np.mean([row[metric] for row in rows])) for metric in METRICS},
        "sd": {
            metric: float(np.sqrt(sum(row["sd"][metric] ** 2 for row in rows)) / len(rows))
            for metric in METRICS
        },
        "whole": {
            metric: float(np.mean([row["whole"][metric] for row in rows])) for metric in METRICS
        },
        "flags": [],
    }


def group_rows(rows: list[dict[str, Any]], groups: tuple) -> list[dict[str, Any]]:
    """The mean row of each named group that has a set, with the names of its ``sets`` and of those
    it ``lacks``.
    """
    made = []
    for name, members in groups:
        found = [row for row in rows if row["set"] in members]
        if name and found:
            there = [row["set"] for row in found]
            lacks = [member for member in members if member not in there]
            made.append({**mean_row(found), "set": name, "sets": there, "lacks": lacks})
    return made
