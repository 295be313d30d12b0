"""The result files that pages show, and which of test.py's enter the papers' tables."""

from collections.abc import Callable
from pathlib import Path

from utils.evaluation import report
from utils.evaluation.protocol import is_usual
from utils.losses import LOSSES
from utils.snapshots import is_complete
from utils.training.recipes import departures

from .markdown import NOTHING
from .usual import USUAL

RECORDED = report.RESULTS / "recorded"
STAGES = ("pretrained", *LOSSES)


class Result(dict):
    """A result file of test.py, or another record, and what the pages ask of it."""

    def __init__(self, path: Path):
        super().__init__(report.read_result(path))
        self.path = path

    @property
    def name(self) -> str:
        return self["snapshot"]["name"]

    @property
    def sha256(self) -> str:
        return self["snapshot"]["sha256"]

    @property
    def parent(self) -> str | None:
        """Checksum of the network that the snapshot was fine-tuned from."""
        return self["snapshot"].get("parent_sha256")

    @property
    def stage(self) -> str:
        """The loss of fine-tuning, or "pretrained"."""
        return self["snapshot"].get("loss", "pretrained")

    @property
    def recipe(self) -> dict:
        return self["snapshot"]["recipe"]

    @property
    def error(self) -> float:
        """ID error in percent."""
        return self["id"]["error"]

    @property
    def of(self) -> tuple[str, str, str]:
        """(id set, network, stage) of the snapshot."""
        return self["snapshot"]["dataset"], self["snapshot"]["arch"], self.stage

    @property
    def sets(self) -> list[tuple[str, int]]:
        """The OOD sets and their numbers of images."""
        return [(ood["name"], ood["images"]) for ood in self["ood"]]

    @property
    def made_of(self) -> tuple:
        """What results must have in common to stand in one row of snapshots:
        the snapshot, the images and the precision.
        """
        images = [(ood["name"], ood["images"], ood.get("fingerprint")) for ood in self["ood"]]
        made = self.sha256, self["precision"], self["id"].get("fingerprint")
        return *made, tuple(sorted(images))

    def has(self, score: str) -> bool:
        return any(entry["score"] == score for entry in self["scores"])

    def entry(self, score: str = "energy") -> dict:
        return report.entry_of(self, score)


def recorded_files(pattern: str) -> list[Result]:
    """The recorded result files of this pattern, by name."""
    return [Result(path) for path in sorted(RECORDED.glob(f"{pattern}.json"))]


def recorded_results(name: str) -> list[Result]:
    """The recorded results of test.py of a data set, by file name."""
    return [one for one in recorded_files(f"{name}_*") if report.is_of_scores(one)]


def recorded_file(name: str) -> Result | None:
    """The content of one recorded file, or None; ``name`` without suffix."""
    return next(iter(recorded_files(name)), None)


def block_of(file: str, render: Callable[[dict], str]) -> Callable[..., str]:
    """A page's block: the rendered content of one recorded file, in whose name {} is the data set."""

    def block(*dataset: str) -> str:
        record = recorded_file(file.format(*dataset))
        return NOTHING if record is None else render(record)

    return block


def recorded() -> dict:
    """``measured_results`` of the recorded ones."""
    return measured_results((RECORDED,))


def measured_results(folders: tuple[Path, ...]) -> dict:
    """{(id set, network, stage, score): (entry, result)} of the protocol's own results.

    Of each stage the newest result of the last folder that has one counts (of recorded ones that of
    the longest schedule), and those of the same snapshot, OOD images and precision. A fine-tuned
    stage's was made from the pre-trained network that counts or, where nothing was, from another
    measured one, which its note names. Only whole runs of the papers' recipes enter, not other
    files that test.py can score.
    """
    ranked = []
    for rank, folder in enumerate(folders):
        for result in filter(enters, map(Result, folder.glob("*.json"))):
            # git keeps no times
            written = result.path.stat().st_mtime_ns * (folder != RECORDED)
            place = (rank, written, result.recipe["epochs"], result.path.name)
            ranked.append((place, result))
    groups = {}
    for _, result in sorted(ranked, key=lambda one: one[0]):
        groups.setdefault(result.of, []).append(result)
    found, pretrained = {}, {}
    for of in sorted(
        groups, key=lambda of: (STAGES.index(of[2]) > 0, *of[:2], STAGES.index(of[2]))
    ):
        group = groups[of]
        if of[2] == "pretrained":
            pretrained[of[:2]] = [result.sha256 for result in group]
        else:
            parents = pretrained.get(of[:2], [])
            from_last, from_any = (
                [result for result in group if result.parent in some]
                for some in (parents[-1:], parents)
            )
            group = from_last or from_any
        for result in group:
            if result.made_of == group[-1].made_of:
                found |= {(*of, entry["score"]): (entry, result) for entry in result["scores"]}
    return found


def enters(result: dict) -> bool:
    """Whether a result is of the protocol (six sets, 10 draws of seed 1, all ID images) and of a
    whole run of the recipe in the stage's folder.

    A score's hyper-parameters are in its label, which the tables look it up by.
    """
    if not report.is_of_scores(result):
        return False
    snapshot, told = result["snapshot"], result.get("id") or {}
    there = [snapshot.get(key) for key in ("name", "dataset", "arch", "seed", "train_images")]
    there += [result.get(key) for key in ("arguments", "protocol", "precision", "ood")]
    there += [told.get(key) for key in ("error", "accuracy", "images")]
    rows = [row for entry in result["scores"] for row in entry["sets"]]
    there += [row.get(key) for key in ("n", "drawn", "draws") for row in rows]
    if None in there or not is_complete(snapshot) or departures(snapshot):
        return False
    return (
        is_usual(result)
        and snapshot.get("loss", "pretrained") in STAGES
        and snapshot.get("data", snapshot["dataset"]) == snapshot["dataset"]
        and is_folder_of(Path(snapshot["name"]).parent.name, usual_folder(snapshot.get("loss")))
        and not snapshot["name"].endswith("_best")
    )


def usual_folder(loss: str | None) -> str:
    """The folder of the snapshots of a loss, or of pre-training."""
    return f"tune_{loss}" if loss else "pretrained"


def is_folder_of(name: str, folder: str) -> bool:
    """Whether a folder of snapshots is a stage's: its own, or that of the preset ``code``, which
    for SR is the papers' recipe."""
    return name in (folder, f"{folder}_code")


def measured_network(name: str, sha256: str | None) -> Result | None:
    """The recorded result, with the energy score, of a network by its checksum, or None."""
    for result in recorded_results(name):
        if result.sha256 == sha256 and result.has("energy") and is_usual(result):
            return result
    return None


def parents_of(runs: list[Result]) -> list[Result]:
    """The recorded networks that these were fine-tuned from, the longest trained first."""
    found = {run.parent: measured_network(run.of[0], run.parent) for run in runs}
    return sorted(filter(None, found.values()), key=lambda one: -one.recipe["epochs"])


def whole_sr_runs(name: str) -> list[Result]:
    """Recorded results of whole SR runs, whatever their recipe,
    in the order of crop, alpha and epochs.
    """
    found = [
        one
        for one in recorded_results(name)
        if one.of[1:] == (USUAL["arch"], "sr")
        and is_complete(one["snapshot"])
        and is_usual(one)  # no other protocol's numbers beside these
        and one.has("energy")
    ]
    return sorted(
        found, key=lambda one: [one.recipe[key] for key in ("padding", "alpha", "epochs")]
    )


def epochs_of(result: Result) -> str:
    """Epochs of the complete schedule, of a fine-tuned network after its parent's: ``100 + 10``."""
    parent, own = measured_network(result.of[0], result.parent), result.recipe["epochs"]
    return f"{parent.recipe['epochs']} + {own}" if parent else str(own)
