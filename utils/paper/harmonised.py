"""The table of networks scored on harmonised images beside the usual ones."""

from utils.evaluation.protocol import is_usual

from . import results
from .markdown import NOTHING, fpr_cells, table
from .published import set_names


def quality_of(result: dict) -> int | None:
    """The JPEG quality that ``test.py --harmonise`` gave all images of a result, or None."""
    return result.get("arguments", {}).get("harmonise")


def render_harmonised(name: str) -> str:
    """Each recorded result of ``test.py --harmonise`` below that of the same snapshot, score and
    precision on the images as they are.
    """
    usual, alike = {}, []
    for result in results.recorded_results(name):
        for entry in result["scores"]:
            key = result["snapshot"]["sha256"], entry["score"], result["precision"]
            if quality_of(result) is not None:
                alike.append((key, result, entry))
            elif is_usual(result):
                usual[key] = (result, entry)
    rows, columns = [], []
    for key, result, entry in alike:
        if key in usual:
            rows.append(row_of(*usual[key], "as they are"))
            rows.append(row_of(result, entry, f"harmonised, JPEG {quality_of(result)}"))
            columns = set_names(entry)
    head = ["network", "score", "images", "ID error", *columns]
    return table(head, rows) if rows else NOTHING


def row_of(result: dict, entry: dict, images: str) -> list:
    names = [f"`{result['snapshot']['name']}`", f"`{entry['score']}`", images]
    return [*names, result["id"]["error"], *fpr_cells(entry)]
