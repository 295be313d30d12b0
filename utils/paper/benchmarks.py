"""The tables of other protocols' results: OpenOOD's, and [DICE]'s on ImageNet-1k."""

from utils.evaluation import printed

from . import results
from .markdown import NOTHING, table
from .published import PUBLISHED, printed_number

COLUMNS = ("fpr95_out", "auroc", "aupr_in", "aupr_out")


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
            names = [f"`{result['snapshot']['name']}`", f"`{entry['score']}`"]
            for row in printed.shown_rows(entry):
                lacks = f" (lacks {', '.join(row['lacks'])})" if row.get("lacks") else ""
                values = [row[metric] for metric in COLUMNS]
                rows.append([*names, result["id"]["error"], row["set"] + lacks, *values])
    head = "network | score | ID error | set or group | FPR95 | AUROC | AUPR-IN | AUPR-OUT"
    return table(head, rows, f"{'; '.join(kept)}.") if rows else NOTHING


def render_imagenet4() -> str:
    """The published rows of [DICE] on ImageNet-1k; nothing of it has been run here."""
    sets, methods = [], {}
    for record in PUBLISHED["records"]:
        if (record["protocol"], record["id_set"]) == ("imagenet4", "imagenet1k"):
            sets.append(record["ood_set"])
            cells = methods.setdefault(record["method"], {}).setdefault(record["ood_set"], {})
            cells[record["metric"]] = printed_number(record)
    sets = list(dict.fromkeys(sets))
    rows = [
        [method, *(pair_of(cells.get(name)) for name in sets), "not run here"]
        for method, cells in methods.items()
    ]
    return table(["method", *sets, "measured"], rows, "FPR95 / AUROC, source: [DICE].")


def pair_of(metrics: dict[str, str] | None) -> str:
    return f"{metrics['fpr95']} / {metrics['auroc']}" if metrics else ""
