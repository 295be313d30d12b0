"""A data set's chain for several training seeds, some at a time, each on cores of its own."""

import argparse
import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import torch

from utils import runtime
from utils.evaluation import report
from utils.training import options

from .markdown import mean_and_sd, plus_minus, table
from .usual import changed, file_name, unusual_words

METRICS = ("fpr95", "auroc", "id_error")


def places(jobs: int) -> list[dict]:
    """What each of ``jobs`` chains at a time has to itself: a share of the cores, and a GPU of those
    at hand, in turn.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    gpus = torch.cuda.device_count()
    made = []
    for job in range(jobs):
        own = cores[job::jobs]
        threads = max(len(own) or (os.cpu_count() or 1) // jobs, 1)
        environment = {"OMP_NUM_THREADS": str(threads)}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(job % gpus)
        made.append({"cores": own, "environment": environment})
    return made


def run_chain(words: list[str], place: dict, log: Path) -> int:
    """Run a chain on its cores and return its exit status; what it prints goes to a log."""
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", str(runtime.ROOT / "reproduce.py"), *words],
            env={**os.environ, **place["environment"]},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if place["cores"]:
        os.sched_setaffinity(process.pid, place["cores"])
    return process.wait()


def words_of(args: argparse.Namespace, seed: int) -> list[str]:
    """The command of one seed's chain, without ``reproduce.py``."""
    words = [args.dataset, "--seed", str(seed)]
    words += ["--own-folders"] * (seed != 1) + ["--fresh"] * args.fresh
    words += unusual_words({"arch": args.arch, "preset": args.preset})
    return words + options.common_words(args)


def chains(args: argparse.Namespace) -> Path:
    """Run the chain of every seed, at most ``args.jobs`` at a time; print mean and sd of their
    tables, and write them as CSV, whose path is returned. UserError names the log of one that
    fails; the others end first.
    """
    folder, free = runtime.make_folder(report.RESULTS), SimpleQueue()
    for place in places(min(args.jobs, len(args.seeds))):
        free.put(place)

    def chain(seed: int) -> tuple[int, Path, int]:
        words, log = words_of(args, seed), folder / f"{args.dataset}_s{seed}.log"
        place = free.get()
        print(f"$ python reproduce.py {' '.join(words)}   > {runtime.short_path(log)}", flush=True)
        status = run_chain(words, place, log)
        free.put(place)
        return seed, log, status

    with ThreadPoolExecutor(free.qsize()) as pool:
        failed = [(seed, log) for seed, log, status in pool.map(chain, args.seeds) if status]
    if failed:
        raise runtime.UserError(
            f"the chain of seed {', '.join(str(seed) for seed, _ in failed)} failed; its error is at "
            f"the end of {runtime.short_path(failed[0][1])}. The same command goes on"
        )
    rows = mean_over_seeds(
        [folder / f"{file_name(changed(args, seed=seed), 'table')}.csv" for seed in args.seeds]
    )
    lines = []
    for method, pairs in rows.items():
        line = {"method": method}
        for metric, (mean, sd) in zip(METRICS, pairs):
            line |= {metric: round(mean, 4), f"{metric}_sd": round(sd, 4)}
        lines.append(line)
    path = folder / f"{file_name(changed(args, seed=1), 'seeds')}.csv"
    runtime.write_text(path, report.csv_text(lines))
    print("\n" + format_means(rows))
    print(f"\nmean ± sd over {len(args.seeds)} training seeds: {runtime.short_path(path)}")
    return path


def mean_over_seeds(files: list[Path]) -> dict[str, list[tuple[float, float]]]:
    """{method: (mean, sd) of FPR95, of AUROC, of the ID error} of the averages in tables of one seed
    each, in percent, of the methods that all tables have.
    """
    found = {}
    for file in files:
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                if row["set"] == "average":
                    values = [float(row[key]) for key in METRICS]
                    found.setdefault(row["method"], []).append(values)
    return {
        method: [mean_and_sd(column) for column in zip(*values)]
        for method, values in found.items()
        if len(values) == len(files)
    }


def format_means(rows: dict[str, list[tuple[float, float]]]) -> str:
    """What ``mean_over_seeds`` gives, as a table."""
    head = "method | FPR95, average | AUROC, average | ID error"
    lines = [[method, *(plus_minus(*pair) for pair in pairs)] for method, pairs in rows.items()]
    return table(head, lines)


def parse_seeds(text: str) -> list[int]:
    """Seeds with commas between, "1,2,3" -> [1, 2, 3]; argparse's error unless there are two or
    more, each once.
    """
    seeds = [options.count(word) for word in text.split(",")]
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"'{text}' are not two or more different seeds")
    return seeds
