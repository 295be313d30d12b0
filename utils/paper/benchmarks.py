"""The table of results by OpenOOD's protocol."""

from pathlib import Path

from utils.evaluation import report

from .rendered import NOTHING, table
from .tables import PUBLISHED, RECORDED

COLUMNS = ("fpr95_out", "auroc", "aupr_in", "aupr_out")


def render_openood(name: str) -> str:
    """Every recorded result of ``--protocol openood`` of an ID data set, a line a set and group."""
    rows, kept = [], []
    for path in sorted(RECORDED.glob(f"{name}_*_openood*.json")):
        result = report.read_result(path)
        kept = [f"`{part['name']}` {part['images']:,}" for part in result["ood"]]
        kept.append(f"scored in {result['precision']}")
        kept.append(f"missing: {', '.join(result.get('missing', [])) or 'none'}")
        for entry in result["scores"]:
            for row in report.shown_rows(entry):
                lacks = f" (lacks {', '.join(row['lacks'])})" if row.get("lacks") else ""
                rows.append(
                    [
                        f"`{result['snapshot']['name']}`",
                        f"`{entry['score']}`",
                        f"{result['id']['error']:.2f}",
                        row["set"] + lacks,
                        *(f"{row[metric]:.2f}" for metric in COLUMNS),
                    ]
                )
    head = ["network", "score", "ID error", "set or group", "FPR95", "AUROC", "AUPR-IN", "AUPR-OUT"]
    return table(head, rows) + f"\n\n{'; '.join(kept)}." if rows else NOTHING


def results_of(name: str) -> set[Path]:
    """Files of an ID data set's results by this protocol that have not been recorded."""
    return set(report.RESULTS.glob(f"{name}_*_openood*.json"))


def render_imagenet4() -> str:
    """The published rows of [DICE] on ImageNet-1k; nothing of it has been run here."""
    sets, methods = [], {}
    for record in PUBLISHED["records"]:
        if (record["protocol"], record["id_set"]) == ("imagenet4", "imagenet1k"):
            sets.append(record["ood_set"])
            cells = methods.setdefault(record["method"], {})
            flag = f" [{record['flag']['kind']}]" if "flag" in record else ""
            cell = f"{record['value']:.2f}{flag}"
            cells.setdefault(record["ood_set"], {})[record["metric"]] = cell
    sets = list(dict.fromkeys(sets))
    rows = [
        [
            method,
            *(
                " / ".join(cells[name][metric] for metric in ("fpr95", "auroc"))
                if name in cells
                else ""
                for name in sets
            ),
            "not run here",
        ]
        for method, cells in methods.items()
    ]
    return table(["method", *sets, "measured"], rows) + "\n\nFPR95 / AUROC, source: [DICE]."
