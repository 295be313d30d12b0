"""What of SR's fine-tuning does what: ``python reproduce.py cifar10 --ablation``.

SR is fine-tuned shortly, as for --sweep, as the paper has it and with one thing changed at a time, and every network is
scored on the OOD test sets: the L1 norm is told from the extra epochs. This explains SR's numbers; nothing is chosen by it.
"""
from . import options, recipes, results, runtime, sweep

VARIANTS = {"SR": {"alpha": 0.02}, "without the L1 norm (alpha 0)": {"alpha": 0.0}, "alpha 0.05": {"alpha": 0.05}, "without dropout": {"droprate": 0.0},
            "without the random crop": {"padding": 0}, "without the crop and the L1 norm": {"padding": 0, "alpha": 0.0},
            "learning rate 0.01": {"learning_rate": 0.01}}    # options of tune.py


def run(args):
    """Fine-tune and score every variant, print the table, write CIFAR/results/{dataset}_ablation.json."""
    parent = sweep.find_parent(args)
    folder, _, count = sweep.prepare(args, parent)
    words = options.common_words(args)
    rows = [describe("before", sweep.evaluate(parent, *words))]
    recipe = recipes.resolve("tune", args.dataset, "sr", "paper", args.arch)
    for name, changes in VARIANTS.items():
        if name != "SR" and changes.items() <= recipe.items():
            continue      # the recipe has it so already
        result = sweep.evaluate(sweep.fine_tune(args, folder, parent, **changes), *words)
        rows.append(describe(name, result, changes))
    print("\n" + results.format_summary([{**row, "score": row["name"]} for row in rows], "fpr95", "FPR95"))
    path = results.RESULTS / f"{sweep.study_name(args, 'ablation')}.json"
    runtime.write_json(path, {**sweep.provenance(args, parent, count, result), "rows": rows})
    print(f"-> {runtime.short_path(path)}")


def describe(name, result, changes=None):
    """A row: what was changed, and what test.py's result says of the network."""
    entry = result["scores"][0]
    return {"name": name, "changes": changes or {}, "error": result["id"]["error"], "mean_l1": result["id"]["mean_l1"], "sets": entry["sets"],
            "average": entry["average"], "snapshot": result["snapshot"]["sha256"]}
