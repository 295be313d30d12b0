"""The table of networks scored on harmonised images beside the usual ones."""

from pathlib import Path

from utils.evaluation import report
from utils.evaluation.protocol import is_usual

from .rendered import NOTHING, fpr_cells, table
from .tables import RECORDED, own_name


def render_harmonised(name: str) -> str:
    """Each recorded result of ``test.py --harmonise`` below that of the same snapshot, score and
    precision on the images as they are.
    """
    usual, alike = {}, []
    for path in sorted(RECORDED.glob(f"{name}_*.json")):
        result = report.read_result(path)
        if "scores" not in result:  # of a study
            continue
        quality = result["arguments"].get("harmonise")
        if quality is not None:
            alike.append((quality, result))
        elif is_usual(result):
            for entry in result["scores"]:
                usual[key_of(result, entry)] = (result, entry)
    rows, sets = [], []
    for quality, result in alike:
        for entry in result["scores"]:
            if key_of(result, entry) in usual:
                rows.append(row_of(*usual[key_of(result, entry)], "as they are"))
                rows.append(row_of(result, entry, f"harmonised, JPEG {quality}"))
                sets = [own_name(cell) for cell in entry["sets"]]
    head = ["network", "score", "images", "ID error", *sets, "average"]
    return table(head, rows) if rows else NOTHING


def results_of(name: str) -> set[Path]:
    """Files of the harmonised results of a data set that have not been recorded."""
    return {
        path
        for path in report.RESULTS.glob(f"{name}_*.json")
        if report.read_result(path).get("arguments", {}).get("harmonise") is not None
    }


def key_of(result: dict, entry: dict) -> tuple:
    return result["snapshot"]["sha256"], entry["score"], result["precision"]


def row_of(result: dict, entry: dict, images: str) -> list[str]:
    return [
        f"`{result['snapshot']['name']}`",
        f"`{entry['score']}`",
        images,
        f"{result['id']['error']:.2f}",
        *fpr_cells(entry),
    ]
