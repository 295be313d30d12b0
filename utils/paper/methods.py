"""The two flows of reproduce.py: a data set's chain, and the papers' tables."""

import argparse
import time

from utils import loaders, runtime
from utils.evaluation import printed, report
from utils.losses import LOSSES
from utils.training import options

from . import figures, pages, results, tables
from .commands import evaluate
from .published import ID_SETS, METHODS, TABLE_METHODS, TABLES, published_rows
from .trained import snapshot_of, train
from .usual import changed, file_name


def chain(args: argparse.Namespace) -> None:
    """Train, fine-tune, score; one table, one figure."""
    start = time.perf_counter()
    loaders.check_chain(args.dataset, args.data, own_id=args.id is not None)
    pretrained = train(None, args)
    losses = dict.fromkeys(loss for _, loss, _ in METHODS if loss)
    tuned = {loss: train(loss, args, pretrained) for loss in losses}

    words = [*options.common_words(args), "--save-scores"]
    measured = {None: evaluate(pretrained, [s for _, loss, s in METHODS if not loss], words)}
    for loss, file in tuned.items():
        measured[loss] = evaluate(file, [LOSSES[loss].score], words)
    rows = [(method, measured[loss], score) for method, loss, score in METHODS]
    write_table(args, rows)
    figure, _ = figures.draw_densities(rows, args)
    print(f"figure: {runtime.short_path(figure)}")
    print(f"{time.perf_counter() - start:.0f} seconds in all")


def paper_table(args: argparse.Namespace) -> None:
    """Score the snapshots that a paper's table needs, render all tables again, draw the figures."""
    if args.dataset not in ID_SETS:
        raise runtime.UserError(
            f"there is no published table of {args.dataset}. There is: {', '.join(ID_SETS)}"
        )
    wanted = wanted_scores(list(TABLES) if args.table == "all" else [args.table], args.dataset)
    there = list(dict.fromkeys(network for network, _ in wanted))
    networks = [args.arch] if args.one_network else there
    if not set(networks) <= set(there):
        raise runtime.UserError(
            f"--table {args.table} has no row of {args.arch} that can be measured. "
            f"There is: {', '.join(there)}"
        )
    measured, words = {}, [*options.common_words(args), "--save-scores"]
    for network in networks:
        given = changed(args, arch=network)
        pretrained = snapshot_of("pretrained", given)
        for stage in [stage for of, stage in wanted if of == network] if pretrained else []:
            file = pretrained if stage == "pretrained" else snapshot_of(stage, given, pretrained)
            if file:
                measured[network, stage] = evaluate(file, list(wanted[network, stage]), words)
    if not measured:
        raise runtime.UserError(
            f"there is no snapshot of {args.dataset} to measure. Run: "
            f"python reproduce.py {args.dataset} --table {args.table} --train"
        )
    made = pages.write_published((results.RECORDED, report.RESULTS))
    rows = [
        (method, measured["wrn", loss or "pretrained"], score)
        for method, loss, score in TABLE_METHODS
        if ("wrn", loss or "pretrained") in measured
    ]
    rows = [(method, result, score) for method, result, score in rows if result.has(score)]
    if rows:
        write_table(args, rows)
        made += [f"{path}.png" for path in figures.draw(rows, args)]
    for path in made:
        print(f"-> {runtime.short_path(path)}")


def wanted_scores(names: list[str], dataset: str) -> dict[tuple[str, str], dict]:
    """{(network, stage): the scores that the rows of these tables need, and the two that figures
    show, as the keys of a dict} of what can be measured.
    """
    wanted = {}
    for name in names:
        for _, network, score, stage in published_rows(TABLES[name], dataset):
            if tables.why_not(score, stage) == "not measured":
                scores = wanted.setdefault((network, stage), dict.fromkeys(("msp", "energy")))
                scores[score] = None
    return wanted


def write_table(args: argparse.Namespace, rows: list[tuple]) -> None:
    """Print the final table (rows: methods; columns: the sets and their mean) and write it as CSV.

    rows: (method, result, score).
    """
    table = [
        {**result.entry(score), "score": method, "error": result.error}
        for method, result, score in rows
    ]
    for metric, title in (("fpr95", "FPR95"), ("auroc", "AUROC")):
        print("\n" + printed.format_summary(table, metric, title))
    print("\nID error: " + ", ".join(f"{row['score']} {row['error']:.2f} %" for row in table))
    lines = []
    for row in table:
        for cell in [*row["sets"], row["average"]]:
            line = {"method": row["score"], "id_error": f"{row['error']:.4f}"}
            line |= {"set": cell["set"], "n": cell.get("n", "")}
            for metric in ("fpr95", "auroc", "aupr_in"):
                line[metric] = f"{cell[metric]:.4f}"
                line[f"{metric}_sd"] = f"{cell['sd'][metric]:.4f}"
            lines.append(line)
    path = report.RESULTS / f"{file_name(args, 'table')}.csv"
    runtime.write_text(path, report.csv_text(lines))
    print(f"table: {runtime.short_path(path)}")
