"""Stage 3: score in-distribution against out-of-distribution images and print the papers' table.

    python test.py --model cifar10_wrn_pretrained --score energy
    python test.py --model cifar10_wrn_s1_tune --score energy            # every tune_LOSS folder that has it
    python test.py --model tune_sroe/cifar10_wrn_s1_tune --score all     # all scores, one forward pass an image set
    python test.py --model PATH.pt --score knn:k=100,mymodule:function --ood svhn,folder:PATH
    python test.py --list-scores

The table: FPR95, AUROC, AUPR with ID as the positive class, mean ± sd over 10 draws of 2,000 OOD images ([Energy], [SR]).
"""
import sys
import time

from utils import loaders, runtime, scores, snapshots
from utils.evaluation import protocol, report, validation
from utils.evaluation.network import Network
from utils.training import options


def parse(argv):
    parser = options.Parser(prog="test.py", description=__doc__)
    parser.add("--model", "--method_name", "-m", metavar="NAME|PATH", help="snapshot: a name (its newest epoch), folder/name or file")
    parser.add("--load", "-l", default=None, metavar="DIR", help="folder to look for --model in (default: every folder runs have written to)")
    parser.add("--score", default="energy", metavar="LIST", help=f"comma list of {', '.join(scores.SCORES)}, all, or module:function; "
               "hyper-parameters as knn:k=100 (default: energy)")
    parser.add("--ood", default="", metavar="LIST", help="comma list of data set names and folder:PATH (default: the papers' six sets)")
    parser.add("--id-train", default=None, metavar="PATH", help="own ID training images, for scores that are fitted (default: as --id)")
    parser.add("--T", type=options.positive, default=None, help="temperature of energy (default: 1) and odin (default: 1000)")
    parser.add("--noise", type=options.non_negative, default=None,
               help="input step of odin (default: 0.0014) and mahalanobis (default: 0, none)")
    parser.add("--num_to_avg", type=options.positive_int, default=10, metavar="N", help="draws to average (default: 10)")
    parser.add("--protocol", choices=("paper", "full"), default="paper",
               help="paper: draws of len(ID)//5 OOD images; full: whole sets (default: paper)")
    parser.add("--out_as_pos", action="store_true", help="print the table with OOD as the positive class")
    parser.add("--seed", type=options.count, default=1, help="of the draws (default: 1)")
    parser.add("--test_bs", type=options.positive_int, default=200, metavar="N", help="batch size (default: 200)")
    parser.add("--arch", default=None, metavar="NAME", help="network of a file without description: a name or module:function")
    for name, kind in (("--layers", int), ("--widen-factor", int), ("--droprate", float)):
        parser.add(name, type=kind, default=None, help="accepted and without effect: a snapshot says what network it is of")
    parser.add("--save", "-s", default=str(report.RESULTS), metavar="DIR", help="folder of the result files (default: CIFAR/results)")
    parser.add("--save-scores", action="store_true", help="write every image's scores beside the result")
    parser.add("--tune-scores", action="store_true", help="choose each score's hyper-parameters on held-out ID training images "
               "against generated noise, and print the grid (default: off)")
    parser.add("--list-scores", action="store_true", help="print every score's name, formula, needs and paper")
    options.add_common(parser)
    args = parser.parse_args(argv)
    if not args.model and not args.list_scores:
        parser.error("--model is missing")
    return args


def main(argv=None):
    args = parse(argv)
    if args.list_scores:
        print(scores.format_list())
        return
    runtime.make_folder(args.save)   # before the work, not after it
    files = [snapshots.find_one(args.load, stem=args.model)] if args.load else snapshots.find_snapshots(args.model)
    if len(files) > 1:
        print(f"'{args.model}' is the name of {len(files)} snapshots: {', '.join(snapshots.short_name(f) for f in files)}. "
              f"Each is scored; name one with its folder to score it alone.")
    for file in files:
        print(f"\n{snapshots.short_name(file)}")
        score_snapshot(file, args, sys.argv[1:] if argv is None else argv)


def score_snapshot(file, args, command):
    """Score one snapshot: outputs of every image set, every score of them, metrics of every score."""
    start = time.perf_counter()
    device = runtime.pick_device(args.device, args.ngpu)
    model, description = snapshots.load_model(file, args.arch)
    dataset = description.get("dataset") or ("own" if args.id else None)
    if dataset is None or (args.id is None and dataset not in loaders.ID_SETS):
        raise runtime.UserError(f"{file.name} was trained on images of your own ({description.get('data', 'unknown')}). Give them: --id PATH")
    if args.id is None and description["num_classes"] != loaders.DATASETS[dataset].num_classes:
        raise runtime.UserError(f"{file} is a snapshot for {description['num_classes']} classes; '{dataset}' has {loaders.DATASETS[dataset].num_classes}")
    chosen = scores.choose(args.score, dataset, args.T, args.noise)
    size = args.image_size or description.get("image_size")
    id_set = loaders.load_id(dataset, "test", args.data, args.id, size, args.skip_bad, description["num_classes"])
    loaders.check_classes(id_set.classes, description.get("classes"), id_set.source, file)
    ood_sets = loaders.parse_ood(args.ood, dataset, args.data, id_set.images.shape[-1], args.skip_bad)
    network = Network(model, runtime.sha256_file(file), device, runtime.pick_precision(args.precision, device),
                               args.test_bs, compile=args.compile, arch=description["arch"])
    loaders.check_fits(network.model, id_set)
    train_set = None
    if args.tune_scores or any("train" in score.needs for score in chosen):
        train_set = load_train_set(dataset, id_set, description, args)
        loaders.check_classes(train_set.classes, description.get("classes"), train_set.source, file)
    network.plan([id_set, *ood_sets] + ([train_set] if train_set else []))

    id_outputs = network.outputs(id_set)
    id_error = 100 * float((id_outputs.logits.argmax(axis=1) != id_outputs.labels).mean())
    grids = {}
    if args.tune_scores:
        chosen, grids = tune_scores(chosen, network, train_set, dataset)
    measured, vectors = [], {}
    for score in chosen:
        try:
            with scores.as_user_error(score):
                if "train" in score.needs:
                    network.fit(score, train_set)
                id_scores = network.score(score, id_set)
                ood_scores = {ood.name: network.score(score, ood) for ood in ood_sets}
        except runtime.UserError as error:
            if not scores.names_all(args.score):
                raise
            print(f"note: {score.label} is left out: {error}", file=sys.stderr)   # the other scores can still be had
            continue
        rows = [protocol.measure_set(id_scores, values, name, args.num_to_avg, args.seed, args.protocol) for name, values in ood_scores.items()]
        measured.append({"score": score.label, "hyper": score.hyper, "sets": rows, "average": protocol.mean_row(rows)})
        vectors.update({f"{score.label}/{name}": values for name, values in {"id": id_scores, **ood_scores}.items()})
        print("\n" + report.format_set_table(score.label, [*rows, measured[-1]["average"]], id_error, args.out_as_pos))
    if len(measured) > 1:
        positive = "_out" if args.out_as_pos else ""
        print("\n" + report.format_summary(measured, "fpr95" + positive, "FPR95") + "\n\n" + report.format_summary(measured, "auroc", "AUROC"))

    names = ["all"] if args.score.strip().lower() == "all" else [score.label for score in chosen]
    path = runtime.make_folder(args.save) / report.result_name(file, names, args.protocol, unusual(file, dataset, args))
    report.write_result(path, {
        "command": ["test.py", *command], "arguments": {key: runtime.portable(value) for key, value in vars(args).items()},
        "protocol": args.protocol, "seed": args.seed, "num_to_avg": args.num_to_avg, "precision": network.precision, "compiled": network.compiled not in (None, network.model),
        "snapshot": {"name": snapshots.short_name(file), "sha256": network.sha256, **{k: v for k, v in description.items() if k != "sha256"}},
        "id": {**id_set.describe(), "error": id_error, "accuracy": 100 - id_error,
                                     "mean_l1": float(abs(id_outputs.features).sum(axis=1).mean())}, "train": train_set and train_set.describe(),
        "ood": [ood.describe() for ood in ood_sets], "scores": measured, "tuned": grids,
        "machine": runtime.describe_machine(device), "seconds": round(time.perf_counter() - start, 1)})
    if args.save_scores:
        report.write_scores(path, vectors)
    print(f"\nresult: {runtime.short_path(path)}.json and .csv")


def unusual(file, dataset, args):
    """What makes a result another one than the usual of its name: its images, its draws, its precision, a snapshot from elsewhere."""
    usual = {"ood": "", "id_train": None, "num_to_avg": 10, "seed": 1, "tune_scores": False, "T": None, "noise": None, "image_size": None}
    if dataset in loaders.ID_SETS:   # images of one's own are always given by --id
        usual["id"] = None
    usual.update(data=str(runtime.DATA), precision="auto", skip_bad=False, arch=None)
    found = [f"{key}={getattr(args, key)}" for key, value in usual.items() if getattr(args, key) != value]
    return found + [str(file.parent)] * (not file.is_relative_to(snapshots.SNAPSHOTS))


def load_train_set(dataset, id_set, description, args):
    """The ID training images that scores are fitted on, without augmentation; UserError if they are the test images."""
    train_set = loaders.load_id(dataset, "train", args.data, args.id_train or args.id, id_set.images.shape[-1], args.skip_bad,
                                 description["num_classes"])
    if train_set.fingerprint == id_set.fingerprint:
        raise runtime.UserError("the ID training images that scores are fitted on are the test images. Give others: --id-train PATH")
    return train_set


def tune_scores(chosen, network, train_set, dataset):
    """Each score with the best values of its grid, and the grids; a score without one stays as it is."""
    validation, tuned, grids = validation.Validation(network, train_set), [], {}
    for score in chosen:
        rows = []
        if score.grid:
            with scores.as_user_error(score):
                score, rows = validation.tune(score, dataset)
            print("\n" + validation.format_grid(score, rows))
        tuned.append(score)
        grids[score.name] = rows
    return list({score.label: score for score in tuned}.values()), grids


if __name__ == "__main__":
    sys.exit(runtime.run(main))
