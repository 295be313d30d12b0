"""One file from the network: fetched, gone on with where it broke off, checked by its checksums."""

import contextlib
import hashlib
import http.client
import itertools
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from data.archives import CHUNK, DownloadError

TIMEOUT = 30  # seconds without an answer or a byte
LONGEST = 120  # seconds of one answer's head, or until a next byte of a file, however it drips in
SLOWEST, SLOW_AFTER = 1000, 60  # bytes a second; below that a transfer ends after so many seconds
ATTEMPTS = 3  # per address; each goes on where the one before broke off


class FetchError(DownloadError):
    """No address gave the right file."""


class BrokenTransfer(DownloadError):
    """The connection broke off; what came is kept."""


def mismatch(path: Path, entry: dict) -> str | None:
    """None if the file has the checksums of the entry, else what differs."""
    wanted = {kind: entry[kind] for kind in ("md5", "sha256") if entry.get(kind)}
    digests = {kind: hashlib.new(kind, usedforsecurity=False) for kind in wanted}
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            for digest in digests.values():
                digest.update(chunk)
    wrong = [
        f"{kind} is {digests[kind].hexdigest()}, not {value}"
        for kind, value in wanted.items()
        if digests[kind].hexdigest() != value
    ]
    return "; ".join(wrong) or None


def set_aside(path: Path) -> None:
    """Free a path without deleting what a user may want."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    elif path.exists():
        names = (path.with_name(f"{path.name}.bad{number or ''}") for number in itertools.count())
        kept = next(name for name in names if not name.exists())
        path.rename(kept)
        print(f"what was at {path} is now {kept.name}")


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """TimeoutError where what is inside takes longer; no limit on Windows.

    A socket's own timeout begins anew with each byte that comes.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"the server needs more than {seconds} seconds for an answer")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ask(url: str, have: int) -> http.client.HTTPResponse | None:
    """The server's answer to a request for the bytes from ``have`` on;
    None if it has no more (status 416).
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError("not an http address")
    headers = {"User-Agent": "data-download/1.0", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with within(LONGEST):
            request = urllib.request.Request(url, headers=headers)
            return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            return None
        raise DownloadError(f"HTTP status {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(str(getattr(error, "reason", error)) or type(error).__name__) from None


def transfer(url: str, part: Path, limit: int) -> None:
    """Append to ``part`` what it lacks; start anew if the server does not serve ranges."""
    if part.is_symlink() or (part.exists() and not part.is_file()):
        raise DownloadError(f"{part} is no file. Remove it")
    have = part.stat().st_size if part.exists() else 0
    response = ask(url, have)
    if response is None:
        return
    with response:
        # as Dropbox and hotel networks answer
        if response.headers.get_content_type() == "text/html":
            raise DownloadError("a web page came instead of the file")
        if response.status != 206:
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise BrokenTransfer("the server sent another range than asked for")
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        start, begun = time.monotonic(), have
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(
                total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None
            ) as bar,
        ):
            while (total or have) <= limit:
                seconds = time.monotonic() - start
                if seconds > SLOW_AFTER and have - begun < SLOWEST * seconds:
                    raise DownloadError(
                        f"{have - begun} bytes came in {seconds:.0f} seconds, slower than "
                        f"{SLOWEST} a second"
                    )
                try:
                    with within(LONGEST):  # sizes of parts may drip in too
                        chunk = response.read1(CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise BrokenTransfer(f"broke off after {have} bytes: {error}") from None
                if not chunk:
                    break
                have += file.write(chunk)
                bar.update(len(chunk))
    if max(have, total or 0) > limit:
        part.unlink()
        raise DownloadError(f"longer than the expected {limit} bytes")
    if total is not None and have < total:
        raise BrokenTransfer(f"broke off after {have} of {total} bytes")


def fetch(url: str, part: Path, entry: dict) -> None:
    """Fetch one address into ``part``; raise DownloadError with the reason if
    its checksum is not reached.
    """
    reason = None
    for _ in range(ATTEMPTS):
        resumed = part.exists() and part.stat().st_size > 0
        try:
            transfer(url, part, entry["bytes"] or entry["limits"]["bytes"])
        except BrokenTransfer as error:
            reason = error
            continue
        reason = mismatch(part, entry)
        if reason is None:
            return
        part.unlink()
        # after a resume the old beginning may be at fault: once more from the first byte
        if not resumed:
            break
    raise DownloadError(reason)


def obtain(entry: dict, path: Path) -> None:
    """Make the right file lie at path: found there, or fetched from the
    first address that gives it.
    """
    if path.is_file():
        wrong = mismatch(path, entry)
        if not wrong:
            print(f"{path} is there, nothing to fetch")
            return
        print(f"{path} is there but its {wrong}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    reasons = []
    for url in (entry["url"], *entry["mirrors"]):
        try:
            fetch(url, part, entry)
        except DownloadError as error:
            reasons.append(f"{url}: {error}")
        else:
            set_aside(path)
            part.replace(path)
            return
    raise FetchError("\n".join(reasons))
