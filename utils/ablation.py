"""What of SR's fine-tuning does what: ``python reproduce.py cifar10 --ablation``.

SR is fine-tuned shortly, as for --sweep, as the paper has it and with one thing changed at a time, and every network is
scored on the OOD test sets. This explains SR's numbers; nothing is chosen by it.
"""
from . import results, runtime, sweep

VARIANTS = {"SR": {"alpha": 0.02}, "without the L1 norm (alpha 0)": {"alpha": 0.0}, "alpha 0.05": {"alpha": 0.05},
            "without dropout": {"droprate": 0.0}, "without random crops": {"padding": 0}}


def run(args):
    """Fine-tune and score every variant, print the table, write CIFAR/results/{dataset}_ablation.json."""
    parent = sweep.find_parent(args)
    folder, _, count = sweep.prepare(args)
    words = ["--data", args.data]
    rows = [describe("before", sweep.evaluate(args, parent, *words))]
    for name, changes in VARIANTS.items():
        file = sweep.fine_tune(args, folder, parent, **changes)
        result = sweep.evaluate(args, file, *words)
        rows.append(describe(name, result, changes))
    print("\n" + results.format_summary([{**row, "score": row["name"]} for row in rows], "fpr95", "FPR95"))
    path = results.RESULTS / f"{args.dataset}_ablation.json"
    runtime.write_json(path, {"rows": rows, "parent": runtime.sha256_file(parent), "images": count, "epochs": sweep.EPOCHS, "seed": args.seed,
                              "id": result["id"], "draws": result["num_to_avg"], "machine": result["machine"]})
    print(f"-> {runtime.short_path(path)}")


def describe(name, result, changes=None):
    entry = result["scores"][0]
    return {"name": name, "changes": changes or {}, "error": result["id"]["error"], "mean_l1": result["id"]["mean_l1"], "sets": entry["sets"],
            "average": entry["average"], "snapshot": result["snapshot"]["sha256"]}
