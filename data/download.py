"""Fetch data sets, verify them and put them where the readers look.

    python data/download.py ood                        the six OOD test sets
    python data/download.py cifar10 300k --data DIR    some sets, elsewhere
    python data/download.py all --check                what is there and whether
                                                       it is good; no network
    python data/download.py --list                     what there is, from where, under which terms
    python data/download.py --audit                    images that the sets share (audit.py)

Addresses, checksums, terms and folders are in sources.json.
A file put in its place by hand is used like a fetched one.
"""

import argparse
import errno
import json
import os
import shlex
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
if not __package__:  # as a script: the project's folder is where ``data`` is found
    sys.path.insert(0, str(HERE.parent))

from data.archives import DownloadError, write_members  # noqa: E402
from data.there import check_all, file_path, inspect, list_all, list_published  # noqa: E402
from data.transfer import FetchError, obtain, set_aside  # noqa: E402
from utils.output import guard_streams  # noqa: E402


def unpack(path: Path, entry: dict, data: Path) -> None:
    """Unpack a verified archive beside its place, check what came out,
    then rename it into place.
    """
    target = data / entry["extract"]["to"]
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
    try:
        out = stage / "out"
        out.mkdir()
        with (zipfile.ZipFile if path.suffix == ".zip" else tarfile.open)(path) as archive:
            write_members(archive, entry, out)
        top = out / entry["extract"]["top"]
        out = top if top.is_dir() else out
        state, found = inspect(
            entry, out / Path(entry["layout"]).relative_to(entry["extract"]["to"])
        )
        if state != "good":
            raise DownloadError(f"{path} does not hold what it should: {found}")
        set_aside(target)
        out.rename(target)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        RuntimeError,
        FileExistsError,
        NotADirectoryError,
        IsADirectoryError,
    ) as error:
        # tarfile lists every format it tried
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DownloadError(f"{path} cannot be unpacked: {reason}") from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def get(name: str, entry: dict, data: Path) -> None:
    """Make one set ready; nothing is fetched that is already there."""
    state, found = inspect(entry, data / entry["layout"])
    if state == "good":
        print(f"{name}: already there, {data / entry['layout']} ({found})")
        return
    print(f"{name}: {found}")
    path = file_path(entry, data)
    obtain(entry, path)
    if entry["extract"]:
        unpack(path, entry, data)
    print(f"{name}: ready, {data / entry['layout']}")


def get_all(names: list[str], sets: dict[str, dict], data: Path) -> int:
    """Make the named sets ready; say on stderr what failed and how to place it by hand.
    Exit status 0 or 2.
    """
    failed = 0
    for name in names:
        entry = sets[name]
        try:
            get(name, entry, data)
        except FetchError as error:
            sums = [f"{kind}: {entry[kind]}" for kind in ("md5", "sha256") if entry[kind]]
            lines = [
                f"file: {file_path(entry, data)}",
                *(f"from: {url}" for url in (entry["url"], *entry["mirrors"])),
                *sums,
                *(f"tried: {reason}" for reason in str(error).splitlines()),
            ]
            print(
                f"{name} could not be fetched. Put the file there by hand and run "
                "the same command again:\n  " + "\n  ".join(lines),
                file=sys.stderr,
            )
            failed += 1
        except DownloadError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed += 1
    return 2 if failed else 0


def resolve_names(words: list[str], sources: dict) -> list[str]:
    """Names of sets for names, aliases and groups, in the order given, each once."""
    names = []
    for word in words:
        word = sources["aliases"].get(word.lower(), word.lower())
        kinds = ("sets", "groups", "aliases", "by_hand")
        there = [name for kind in kinds for name in sources.get(kind, ())]
        if word not in there:
            raise DownloadError(f"unknown data set '{word}'. There is: {', '.join(there)}")
        names += sources["groups"].get(word, [word])
    return list(dict.fromkeys(names))


def place_by_hand(names: list[str], sets: dict[str, dict] | None, data: Path) -> int:
    """Say of sets without a plain address and checksum where they are and where to put them.
    Exit status 0 if all are there, else 2.
    """
    missing = [name for name in names if not (data / sets[name]["layout"]).exists()]
    for name in missing:
        entry = sets[name]
        print(
            (
                f"{name}: {entry['title']}, is not fetched. Place it by hand:\n"
                f"  from: {entry['from']}\n  put:  {entry['what']}\n  to:   {data / entry['layout']}"
            ),
            file=sys.stderr,
        )
    return 2 if missing else 0


def audit(args: argparse.Namespace, argv: list[str]) -> int:
    """``audit.main``; torch, which it reads images with, is imported for it alone."""
    from data.audit import main
    from utils.runtime import run

    return run(lambda: main(args.names, args.data.expanduser(), list(map(str, argv))))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Fetch data sets, verify them and put them where the readers look."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="data sets, ood (the six), openood, imagenet4 or all; --list names them",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=HERE,
        metavar="DIR",
        help="where they go (default: %(default)s)",
    )
    parser.add_argument("--check", action="store_true", help="verify what is there, fetch nothing")
    parser.add_argument(
        "--list", action="store_true", help="name, size, images, address and licence of each"
    )
    parser.add_argument(
        "--audit",
        action="store_true",
        help="count the images that the sets share, exactly or nearly; NAME=PATH: one's own set",
    )
    parser.add_argument(
        "--sources", type=Path, default=HERE / "sources.json", help=argparse.SUPPRESS
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all well, 2 a set is missing or bad or the user erred, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    command = shlex.join(["python", os.path.relpath(__file__), *map(str, argv)])
    if args.audit:
        return audit(args, argv)
    try:
        sources = json.loads(args.sources.read_text(encoding="utf-8"))
        if not (args.names or args.check or args.list):
            raise DownloadError(
                f"name a data set: {', '.join((*sources['sets'], *sources['groups']))}"
            )
        action = list_all if args.list else check_all if args.check else get_all
        names, data = resolve_names(args.names or ["all"], sources), args.data
        try:
            data = data.expanduser()
        except RuntimeError:
            raise DownloadError(f"--data {data}: there is no user of that name") from None
        by_hand = [name for name in names if name in sources.get("by_hand", ())]
        fetched = [name for name in names if name not in by_hand]
        status = action(fetched, sources["sets"], data) if fetched else 0
        if args.list and not args.names:
            list_published()
        return max(status, place_by_hand(by_hand, sources.get("by_hand"), data))
    except DownloadError as error:
        print(f"download.py: {error}", file=sys.stderr)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        print(
            (
                f"download.py: {'disk full' if full else error.strerror or error}: "
                f"{error.filename or args.data}; what was fetched is kept. Go on with: {command}"
            ),
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print(
            (
                "\ndownload.py: interrupted; what was fetched is kept in a .part file. "
                f"Go on with: {command}"
            ),
            file=sys.stderr,
        )
        return 130
    return 2


if __name__ == "__main__":
    guard_streams()  # names of files and what servers say may hold anything
    sys.exit(main())
