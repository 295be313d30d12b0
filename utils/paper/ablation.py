"""What of SR's fine-tuning does what: ``python reproduce.py cifar10 --ablation``.

SR is fine-tuned shortly, as for --sweep, as the paper has it and with one thing changed at a time, and every network is
scored on the OOD test sets: the L1 norm is told from the extra epochs. Whole runs of SR from the same network that are
there, with whatever recipe, are scored beside them. This explains SR's numbers; nothing is chosen by it.
"""
from utils import runtime, snapshots
from utils.evaluation import report
from utils.training import options, recipes

from . import studies

VARIANTS = {"SR": {"alpha": 0.02}, "without the L1 norm (alpha 0)": {"alpha": 0.0}, "alpha 0.05": {"alpha": 0.05}, "without dropout": {"droprate": 0.0},
            "without the random crop": {"padding": 0}, "without the crop and the L1 norm": {"padding": 0, "alpha": 0.0},
            "learning rate 0.01": {"learning_rate": 0.01}}    # options of tune.py


def run(args):
    """Fine-tune and score every variant, print the table, write CIFAR/results/{dataset}_ablation.json."""
    parent = studies.find_parent(args)
    folder, _, count = studies.prepare(args, parent)
    words, whole = options.common_words(args), whole_runs(args, parent)
    rows = [describe("before", studies.evaluate(parent, *words))]
    recipe = recipes.resolve("tune", args.dataset, "sr", "paper", args.arch)
    for name, changes in VARIANTS.items():
        if name != "SR" and changes.items() <= recipe.items():
            continue      # the recipe has it so already
        result = studies.evaluate(studies.fine_tune(args, folder, parent, **changes), *words)
        rows.append(describe(name, result, changes))
    for name, file, changes in whole:
        result = studies.evaluate(file, *words)
        rows.append(describe(name, result, changes))
    print("\n" + report.format_summary([{**row, "score": row["name"]} for row in rows], "fpr95", "FPR95"))
    path = report.RESULTS / f"{studies.study_name(args, 'ablation')}.json"
    runtime.write_json(path, {**studies.provenance(args, parent, count, result), "rows": rows})
    print(f"-> {runtime.short_path(path)}")


def whole_runs(args, parent):
    """[(name, path, what its recipe has otherwise)] of SR's finished runs on all images from the pre-trained snapshot ``parent``."""
    found = []
    for file in snapshots.all_snapshots():
        if not file.with_suffix(".json").exists():
            continue      # nothing tells how it was made
        description = snapshots.describe(file, snapshots.read_weights(file))
        if (description.get("loss") == "sr" and description.get("seed") == args.seed and description.get("parent_sha256") == runtime.sha256_file(parent)
                and snapshots.is_complete(description) and snapshots.epoch_of(file) >= 0):
            changes = {key: value for key, (value, _) in recipes.departures(description).items()}
            words = [f"whole run of SR, {description['recipe']['epochs']} epochs of {description['train_images']:,} images",
                     *(f"{key} {value}" for key, value in changes.items())]
            found.append((", ".join(words), file, changes))
    return sorted(found, key=lambda run: len(run[2]))


def describe(name, result, changes=None):
    """A row: what was changed, and what test.py's result says of the network."""
    entry = result["scores"][0]
    return {"name": name, "changes": changes or {}, "error": result["id"]["error"], "mean_l1": result["id"]["mean_l1"], "sets": entry["sets"],
            "average": entry["average"], "snapshot": result["snapshot"]["sha256"]}
