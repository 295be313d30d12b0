"""The tables of results that are not of the papers' protocol: harmonised images, OpenOOD's rules,
and [DICE]'s on ImageNet-1k.
"""

from utils.evaluation import printed
from utils.evaluation.protocol import is_usual

from . import results
from .markdown import fpr_cells, table
from .published import PUBLISHED, printed_number, set_names

OPENOOD_METRICS = ("fpr95_out", "auroc", "aupr_in", "aupr_out")


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
            key = result.sha256, entry["score"], result["precision"]
            if quality_of(result) is not None:
                alike.append((key, result, entry))
            elif is_usual(result):
                usual[key] = (result, entry)
    rows, columns = [], []
    for key, *harmonised in alike:
        if key in usual:
            for how, (result, entry) in (
                ("as they are", usual[key]),
                (f"harmonised, JPEG {quality_of(harmonised[0])}", harmonised),
            ):
                names = [f"`{result.name}`", f"`{entry['score']}`", how]
                rows.append([*names, result.error, *fpr_cells(entry)])
                columns = set_names(entry)
    head = ["network", "score", "images", "ID error", *columns]
    return table(head, rows)


def render_openood(name: str) -> str:
    """Every recorded result of ``--protocol openood`` of an ID data set, a line a set and group."""
    rows, kept = [], []
    for result in results.recorded_results(name):
        if result["protocol"] != "openood":
            continue
        kept = [f"`{part['name']}` {part['images']:,}" for part in result["ood"]]
        kept.append(f"scored in {result['precision']}")
        kept.append(f"missing: {', '.join(result.get('missing', [])) or 'none'}")
        for entry in result["scores"]:
            names = [f"`{result.name}`", f"`{entry['score']}`"]
            for row in printed.shown_rows(entry):
                lacks = f" (lacks {', '.join(row['lacks'])})" if row.get("lacks") else ""
                values = [row[metric] for metric in OPENOOD_METRICS]
                rows.append([*names, result.error, row["set"] + lacks, *values])
    head = "network | score | ID error | set or group | FPR95 | AUROC | AUPR-IN | AUPR-OUT"
    return table(head, rows, f"{'; '.join(kept)}.")


def render_imagenet4() -> str:
    """The published rows of [DICE] on ImageNet-1k; nothing of it has been run here."""
    methods = {}
    for record in PUBLISHED["records"]:
        if (record["protocol"], record["id_set"]) == ("imagenet4", "imagenet1k"):
            cells = methods.setdefault(record["method"], {})
            cells.setdefault(record["ood_set"], {})[record["metric"]] = printed_number(record)
    sets = list(dict.fromkeys(name for cells in methods.values() for name in cells))
    rows = [
        [method, *(" / ".join(cells[name].values()) for name in sets), "not run here"]
        for method, cells in methods.items()
    ]
    return table(["method", *sets, "measured"], rows, "FPR95 / AUROC, source: [DICE].")
