"""What ``data/download.py --audit`` found in the images at hand."""

from .markdown import NOTHING, table
from .results import recorded_file


def render_audit() -> str:
    """The pairs of sets that share images, how near is meant, and what the hash finds again."""
    record = recorded_file("audit")
    if record is None:
        return NOTHING
    sizes = {entry["title"]: entry["images"] for entry in record["sets"]}
    shared = [pair for pair in record["pairs"] if pair["exact"] + pair["near"]]
    rows = []
    for pair in sorted(shared, key=lambda pair: -pair["percent"]):
        names = [f"`{pair['second']}`", f"{sizes[pair['second']]:,}", f"`{pair['first']}`"]
        counts = [f"{pair[kind]:,}" for kind in ("exact", "near", "mirrored")]
        rows.append([*names, *counts, pair["percent"]])
    flat = {entry["title"]: entry["flat"] for entry in record["sets"] if entry["flat"]}
    repeated = {entry["title"]: entry["repeated"] for entry in record["sets"] if entry["repeated"]}
    probes = record["probes"]
    again = "; ".join(f"{how}: {share:.1f} %" for how, share in probes["found"].items())
    note = (
        f"{len(shared)} of the {len(record['pairs'])} pairs of the {len(sizes)} sets share images; the "
        f"sets are {listed(sizes)}. Equal to another one of their own set are {listed(repeated)}. "
        f"Near: at most {record['bits']} of {record['signs']} signs of the hash differ, and the pixels, "
        f"each image brought to mean 0 and standard deviation 1, by at most {record['difference']:g} on "
        f"average; mirror images count. Flat images, whose grey values have a standard deviation below "
        f"{record['contrast']:g} of 255, are never near: {listed(flat)}. Of images of "
        f"`{probes['set']}` that were changed, these were found near again: {again}."
    )
    return table(
        "images of | images | also in | exact | near | of these mirrored | exact and near, %",
        rows,
        note,
    )


def listed(counts: dict[str, int]) -> str:
    """ "`svhn` (12), `isun` (3)", or "none"."""
    return ", ".join(f"`{name}` ({count:,})" for name, count in counts.items()) or "none"
