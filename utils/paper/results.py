"""The result files that pages show, and which of test.py's enter the papers' tables."""

from collections.abc import Callable
from pathlib import Path

from utils.evaluation import report
from utils.evaluation.protocol import is_usual
from utils.snapshots import is_complete
from utils.training.recipes import departures

from .markdown import NOTHING

RECORDED = report.RESULTS / "recorded"


def recorded_files(pattern: str) -> dict[str, dict]:
    """{name without suffix: content} of the recorded result files of this pattern, by name."""
    found = sorted(RECORDED.glob(f"{pattern}.json"))
    return {path.stem: report.read_result(path) for path in found}


def recorded_results(name: str) -> list[dict]:
    """The recorded results of test.py of a data set, by file name."""
    return [one for one in recorded_files(f"{name}_*").values() if "scores" in one]  # no studies


def recorded_file(name: str) -> dict | None:
    """The content of one recorded file, or None; ``name`` without suffix."""
    path = RECORDED / f"{name}.json"
    return report.read_result(path) if path.exists() else None


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
    """{(id set, network, stage, score): (entry, result, path)} of the protocol's own results.

    Of each stage the newest result of the last folder that has one counts (of recorded ones that of
    the longest schedule), and those of the same snapshot, OOD images and precision. A fine-tuned
    stage's was made from the pre-trained network that counts or, where nothing was, from another
    measured one, which its note names. Only whole runs of the papers' recipes enter, not other
    files that test.py can score.
    """
    groups = {}
    for rank, folder in enumerate(folders):
        for path in folder.glob("*.json"):
            result = report.read_result(path)
            if enters(result):
                snapshot = result["snapshot"]
                # git keeps no times
                written = path.stat().st_mtime_ns * (folder != RECORDED)
                place = (rank, written, snapshot["recipe"]["epochs"], path.name)
                groups.setdefault(stage_of(snapshot), []).append((place, path, result))
    found, pretrained = {}, {}
    for key, entries in sorted(groups.items(), key=lambda group: group[0][2] != "pretrained"):
        entries.sort(key=lambda entry: entry[0])
        if key[2] == "pretrained":
            pretrained[key[:2]] = [e[2]["snapshot"]["sha256"] for e in entries]
        else:
            parents = pretrained.get(key[:2], [])
            entries = made_from(parents[-1:], entries) or made_from(parents, entries)
        for _, path, result in entries:
            if made_of(result) == made_of(entries[-1][2]):
                for entry in result["scores"]:
                    found[(*key, entry["score"])] = (entry, result, path)
    return found


def made_from(parents: list[str], entries: list[tuple]) -> list[tuple]:
    """Those (place, path, result) whose snapshot was fine-tuned from one of these networks."""
    return [entry for entry in entries if parent_of(entry[2]) in parents]


def parent_of(result: dict) -> str | None:
    """Checksum of the network that a result's snapshot was fine-tuned from."""
    return result["snapshot"].get("parent_sha256")


def stage_of(snapshot: dict) -> tuple[str, str, str]:
    """(id set, network, "pretrained" or the loss of fine-tuning) of a snapshot."""
    return snapshot["dataset"], snapshot["arch"], snapshot.get("loss", "pretrained")


def made_of(result: dict) -> tuple:
    """What results must have in common to stand in one row of snapshots:
    the snapshot, the images and the precision.
    """
    images = [(ood["name"], ood["images"], ood.get("fingerprint")) for ood in result["ood"]]
    made = result["snapshot"]["sha256"], result["precision"], result["id"].get("fingerprint")
    return *made, tuple(sorted(images))


def enters(result: dict) -> bool:
    """Whether a result is of the protocol (six sets, 10 draws of seed 1, all ID images) and of a
    whole run of the recipe in the stage's folder.

    A score's hyper-parameters are in its label, which the tables look it up by.
    """
    snapshot = result.get("snapshot")
    if (
        "arguments" not in result
        or snapshot is None
        or not is_complete(snapshot)
        or departures(snapshot)
    ):
        return False
    return (
        is_usual(result)
        and snapshot.get("data", snapshot["dataset"]) == snapshot["dataset"]
        and is_folder_of(snapshot["name"].split("/")[-2], usual_folder(snapshot.get("loss")))
        and not snapshot["name"].endswith("_best")
    )


def usual_folder(loss: str | None) -> str:
    """The folder of the snapshots of a loss, or of pre-training."""
    return f"tune_{loss}" if loss else "pretrained"


def is_folder_of(name: str, folder: str) -> bool:
    """Whether a folder of snapshots is a stage's: its own, or that of the preset ``code``, which
    for SR is the papers' recipe."""
    return name in (folder, f"{folder}_code")


def measured_network(name: str, sha256: str | None, score: str = "energy") -> dict | None:
    """The recorded result, with that score, of a network by its checksum; None where there is none."""
    for result in recorded_results(name):
        scores = {entry["score"] for entry in result["scores"]}
        if result["snapshot"]["sha256"] == sha256 and score in scores and is_usual(result):
            return result
    return None
