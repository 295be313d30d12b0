"""data/download.py against a server on 127.0.0.1: what it fetches,
resumes, refuses, keeps and says.
"""

import contextlib
import errno
import hashlib
import importlib.util
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data import transfer
from data.archives import choose_images

SCRIPT = Path(__file__).resolve().parents[2] / "data" / "download.py"
spec = importlib.util.spec_from_file_location("download", SCRIPT)
download = importlib.util.module_from_spec(spec)
spec.loader.exec_module(download)

SHIPPED = json.loads((SCRIPT.parent / "sources.json").read_text(encoding="utf-8"))
MD5 = {
    "cifar10": "c58f30108f718f92721af3b95e74349a",
    "cifar100": "eb9058c3a382ffc7106e4002c42a8d85",
    "svhn": "eb5a983be6a315427106f1b164d9cef3",
    "textures": "fff73e5086ae6bdbea199a49dfb8a4c1",
    "places365": "f532f6ad7b582262a2ec8009075e186b",
    "lsun_c": "458a0a0ab8e5f1cb4516d7400568e460",
    "lsun_r": "278b7b31c8cb7e804a1465a8ce03a2dc",
    "isun": "be77b0f2c26fda898afac5f99645ee70",
    "300k": "64ca64357de98351f28454274a112dc3",
    "tin": "90528d7ca1a48142e341f4ef8d21d0de",
}


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server(ThreadingHTTPServer):
    """Serves ``files`` (path -> bytes) and records (path, Range) of each request;
    ``ranges`` False ignores Range.
    """

    def __init__(self):
        self.files, self.seen, self.ranges, self.cut, self.shift = {}, [], True, None, 0
        self.kind = "application/octet-stream"
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, path):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.seen.append((self.path, asked))
        body = self.server.files.get(self.path)
        start = (
            int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
            if asked and self.server.ranges
            else 0
        )
        if body is None or (start and start >= len(body)):
            return self.send_error(404 if body is None else 416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start + self.server.shift}-{len(body) - 1}/{len(body)}"
            )
        self.send_header("Content-Type", self.server.kind)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop, self.server.cut = self.server.cut, None  # break off once
        self.wfile.write(body[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def tar_of(files, extra=()):
    """.tar.gz of {name: bytes} and of extra TarInfo members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return buffer.getvalue()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def images(count, folder="pics"):
    return {f"{folder}/{i:03d}.jpg": bytes([i]) * 50 for i in range(count)}


def entry_for(server, body, **changes):
    """An entry of sources.json whose archive is ``body``, served at /set.tar.gz,
    three images under pics.
    """
    server.files["/set.tar.gz"] = body
    entry = {
        "title": "toy",
        "url": server.url("/set.tar.gz"),
        "mirrors": [],
        "archive": "set.tar.gz",
        "bytes": None,
        "size": None,
        "md5": hashlib.md5(body).hexdigest(),
        "sha256": None,
        "images": 3,
        "count": 3,
        "layout": "pics",
        "extract": {"top": "pics", "to": "pics"},
        "limits": {"bytes": 100_000, "members": 50},
        "licence": "none",
        "homepage": "",
        "citation": "",
    }
    return {**entry, **changes}


@pytest.fixture
def run(tmp_path):
    """run(entry, *options) -> exit status of ``download.py toy`` with the
    data folder tmp_path/data.
    """

    def call(entry, *options, names=("toy",)):
        sources = tmp_path / "sources.json"
        sources.write_text(
            json.dumps(
                {"sets": {"toy": entry}, "groups": {"all": ["toy"]}, "aliases": {"same": "toy"}}
            )
        )
        return download.main(
            [*names, "--data", str(tmp_path / "data"), "--sources", str(sources), *options]
        )

    return call


def listing(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_archive_is_fetched_checked_and_unpacked(server, run, tmp_path):
    body = tar_of({**images(3), "pics/._000.jpg": b"macOS"})
    assert run(entry_for(server, body)) == 0
    assert listing(tmp_path / "data") == [
        "pics/000.jpg",
        "pics/001.jpg",
        "pics/002.jpg",
        "set.tar.gz",
    ]
    assert (tmp_path / "data/pics/002.jpg").read_bytes() == bytes([2]) * 50


def test_archive_without_its_top_folder_and_zip(server, run, tmp_path):
    body = zip_of({"a/1.png": b"1", "2.JPG": b"2", "b/3.jpeg": b"3"})
    assert run(entry_for(server, body, archive="set.zip")) == 0
    assert listing(tmp_path / "data/pics") == ["2.JPG", "a/1.png", "b/3.jpeg"]


def test_single_file_set_by_alias(server, run, tmp_path):
    entry = entry_for(server, b"matrix" * 100, archive="x.mat", layout="svhn/x.mat", extract=None)
    assert run(entry, names=("same", "all")) == 0
    assert (tmp_path / "data/svhn/x.mat").read_bytes() == b"matrix" * 100
    assert len(server.seen) == 1


def test_there_already_means_no_request(server, run, tmp_path, capsys):
    entry = entry_for(server, tar_of(images(3)))
    assert run(entry) == 0 and len(server.seen) == 1
    (tmp_path / "data/set.tar.gz").unlink()
    assert run(entry) == 0 and len(server.seen) == 1
    assert "already there" in capsys.readouterr().out


def test_archive_placed_by_hand_means_no_request(server, run, tmp_path):
    entry = entry_for(server, tar_of(images(3)))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/set.tar.gz").write_bytes(server.files["/set.tar.gz"])
    assert run(entry) == 0 and server.seen == []
    assert len(listing(tmp_path / "data/pics")) == 3


@pytest.mark.parametrize("ranges", [True, False])
def test_resume_of_a_part(server, run, tmp_path, ranges):
    body = tar_of(images(3))
    server.ranges = ranges
    (tmp_path / "data").mkdir()
    (tmp_path / "data/set.tar.gz.part").write_bytes(body[:100])
    assert run(entry_for(server, body)) == 0
    assert server.seen == [("/set.tar.gz", "bytes=100-")]
    assert (tmp_path / "data/set.tar.gz").read_bytes() == body


@pytest.mark.parametrize("part", [b"x" * 100, b"x" * 5000], ids=["wrong beginning", "too long"])
def test_bad_part_is_fetched_from_the_start(server, run, tmp_path, part):
    body = tar_of(images(3))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/set.tar.gz.part").write_bytes(part)
    assert run(entry_for(server, body)) == 0
    assert server.seen == [("/set.tar.gz", f"bytes={len(part)}-"), ("/set.tar.gz", None)]


def test_another_range_than_asked_for_is_not_appended(server, run, tmp_path):
    body, server.shift = tar_of(images(3)), 7
    (tmp_path / "data").mkdir()
    (tmp_path / "data/set.tar.gz.part").write_bytes(body[:100])
    assert run(entry_for(server, body)) == 0
    assert server.seen == [("/set.tar.gz", "bytes=100-"), ("/set.tar.gz", None)]


def test_complete_part_needs_no_second_transfer(server, run, tmp_path):
    body = tar_of(images(3))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/set.tar.gz.part").write_bytes(body)
    assert run(entry_for(server, body)) == 0
    assert server.seen == [("/set.tar.gz", f"bytes={len(body)}-")]


def test_broken_transfer_goes_on_where_it_stopped(server, run):
    body, server.cut = tar_of(images(3)), 80
    assert run(entry_for(server, body)) == 0
    assert server.seen == [("/set.tar.gz", None), ("/set.tar.gz", "bytes=80-")]


def test_mirrors_in_turn_with_reasons(server, run, tmp_path, capsys):
    body = tar_of(images(3))
    server.files["/wrong"] = b"w" * 300
    entry = entry_for(
        server,
        body,
        url=server.url("/none"),
        mirrors=[server.url("/wrong"), server.url("/set.tar.gz")],
    )
    assert run(entry) == 0
    assert [path for path, _ in server.seen] == ["/none", "/wrong", "/set.tar.gz"]
    assert (
        run(
            {
                **entry,
                "layout": "other",
                "extract": {"top": "pics", "to": "other"},
                "archive": "other.tar.gz",
                "mirrors": entry["mirrors"][:1],
            }
        )
        == 2
    )
    error = capsys.readouterr().err
    assert "/none: HTTP status 404" in error
    assert f"/wrong: md5 is {hashlib.md5(b'w' * 300).hexdigest()}, not {entry['md5']}" in error
    assert not list((tmp_path / "data").glob("other*"))


def test_web_page_and_endless_answer_are_no_file(server, run, tmp_path, capsys):
    entry = entry_for(server, tar_of(images(3)))
    assert run({**entry, "bytes": 60}) == 2
    server.kind = "text/html"
    assert run(entry) == 2
    error = capsys.readouterr().err
    assert "longer than the expected 60 bytes" in error and "a web page came" in error
    assert listing(tmp_path / "data") == []


def link(kind, name="pics/link.jpg", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return [info]


def zip_link():
    info = zipfile.ZipInfo("pics/link.jpg")
    info.external_attr = 0o120777 << 16
    return zip_of({**images(3), info: b"/etc/passwd"})


EVIL = {
    "parent": tar_of({**images(3), "pics/../../evil.jpg": b"x"}),
    "absolute": tar_of({**images(3), "/evil.jpg": b"x"}),
    "drive": tar_of({**images(3), "C:/evil.jpg": b"x"}),
    "backslash": tar_of({**images(3), "..\\..\\evil.jpg": b"x"}),
    "symlink": tar_of(images(3), link(tarfile.SYMTYPE)),
    "hardlink": tar_of(images(3), link(tarfile.LNKTYPE)),
    "device": tar_of(images(3), link(tarfile.CHRTYPE)),
    "fifo": tar_of(images(3), link(tarfile.FIFOTYPE)),
    "bomb": tar_of({**images(2), "pics/big.jpg": bytes(200_000)}),
    "members": tar_of(images(60)),
    "twice": tar_of(images(3), [tarfile.TarInfo("pics/000.jpg")]),
    "count": tar_of(images(2)),
    "truncated": tar_of({f"pics/{i}.jpg": random.Random(i).randbytes(5000) for i in range(3)})[
        :9000
    ],
    "no archive": b"hello" * 50,
    "zip parent": zip_of({**images(3), "../evil.jpg": b"x"}),
    "zip symlink": zip_link(),
    "zip bomb": zip_of({**images(2), "pics/big.jpg": bytes(200_000)}),
}


@pytest.mark.parametrize("name", EVIL)
def test_evil_archive_is_refused_and_leaves_nothing(server, run, tmp_path, capsys, name):
    archive = "set.zip" if name.startswith("zip") else "set.tar.gz"
    (tmp_path / "data").mkdir()  # by hand, since the download is bounded as well
    (tmp_path / "data" / archive).write_bytes(EVIL[name])
    assert run(entry_for(server, EVIL[name], archive=archive)) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and error.startswith("toy: ")
    assert ("unsafe archive refused" in error) == (
        name not in ("twice", "count", "truncated", "no archive")
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["data", archive, "sources.json"]
    )


def test_set_that_is_incomplete_is_replaced_but_kept(server, run, tmp_path, capsys):
    entry = entry_for(server, tar_of(images(3)))
    (tmp_path / "data/pics").mkdir(parents=True)
    (tmp_path / "data/pics/mine.jpg").write_bytes(b"mine")
    assert run(entry) == 0
    assert "1 of 3 images" in capsys.readouterr().out
    assert (
        listing(tmp_path / "data/pics.bad") == ["mine.jpg"]
        and len(listing(tmp_path / "data/pics")) == 3
    )


def test_offline_says_where_to_put_what(run, server, tmp_path, capsys):
    entry = entry_for(server, tar_of(images(3)))
    server.shutdown()
    server.server_close()
    assert run({**entry, "mirrors": [server.url("/m")]}) == 2
    error = capsys.readouterr().err
    for said in (
        str(tmp_path / "data/set.tar.gz"),
        f"from: {entry['url']}",
        f"from: {server.url('/m')}",
        f"md5: {entry['md5']}",
        "refused",
        "same command again",
    ):
        assert said in error
    (tmp_path / "data/set.tar.gz").write_bytes(server.files["/set.tar.gz"])
    assert run(entry) == 0


def test_check_verifies_without_network(server, run, tmp_path, capsys):
    entry = entry_for(server, tar_of(images(3)))
    assert run(entry, "--check") == 2 and "missing" in capsys.readouterr().out
    assert server.seen == [] and not (tmp_path / "data").exists()
    assert run(entry) == 0 and run(entry, "--check") == 0
    assert re.search(
        r"^toy +good +3 of 3 images +checksum right$", capsys.readouterr().out, re.MULTILINE
    )
    (tmp_path / "data/set.tar.gz").write_bytes(b"changed")
    assert run(entry, "--check") == 2
    (tmp_path / "data/set.tar.gz").unlink()
    assert run(entry, "--check") == 0
    (tmp_path / "data/pics/000.jpg").unlink()
    assert run(entry, "--check") == 2 and "2 of 3 images" in capsys.readouterr().out
    assert len(server.seen) == 1


def test_check_of_files_with_checksums(server, run, tmp_path, capsys):
    files = {"batch_1": hashlib.md5(b"one").hexdigest(), "meta": hashlib.md5(b"two").hexdigest()}
    entry = entry_for(server, tar_of({"pics/batch_1": b"one", "pics/meta": b"two"}), files=files)
    assert run(entry) == 0 and run(entry, "--check") == 0
    (tmp_path / "data/pics/meta").write_bytes(b"bad")
    assert run(entry, "--check") == 2
    assert "missing or changed: meta" in capsys.readouterr().out


def test_chosen_subset_is_fixed(server, run, tmp_path):
    names = {f"test_256/Places365_test_{i:08d}.jpg": bytes([i]) for i in range(1, 41)}
    extract = {"top": "test_256", "to": "places/sub", "choose": 3, "seed": 0}
    # the order inside the archive does not matter
    for content in (names, dict(reversed(names.items()))):
        entry = entry_for(server, tar_of(content), layout="places/sub", extract=extract)
        data = tmp_path / "data"
        assert run(entry) == 0
        digest = {
            hashlib.sha256(f"0/{Path(name).name}".encode()).hexdigest(): Path(name).name
            for name in names
        }
        assert listing(data / "places/sub") == sorted(digest[key] for key in sorted(digest)[:3])
        for path in [data / "set.tar.gz", *(data / "places/sub").iterdir()]:
            path.unlink()
    assert choose_images(names, 3, seed=1) != choose_images(names, 3, seed=0)


def test_choice_of_the_shipped_places_list():
    """A changed choice would be another data set under the same name."""
    extract = SHIPPED["sets"]["places365"]["extract"]
    names = [f"Places365_test_{i:08d}.jpg" for i in range(1, 328_501)]
    chosen = choose_images(names, extract["choose"], extract["seed"])
    assert len(set(chosen)) == 10_000 and set(chosen) <= set(names)
    digest = hashlib.sha256("\n".join(chosen).encode()).hexdigest()
    assert digest == "74736c6a855a772b4b4fba27469d0d07340b788d1b9f68415671e9cdfb338661"


def test_interrupt_keeps_the_part_and_says_how_to_go_on(server, run, tmp_path, capsys, monkeypatch):
    body, server.cut = tar_of(images(3)), 80
    entry = entry_for(server, body)
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    assert run(entry) == 2 and (tmp_path / "data/set.tar.gz.part").read_bytes() == body[:80]

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "ask", stop)
    assert run(entry) == 130
    assert "download.py toy --data" in capsys.readouterr().err
    assert (tmp_path / "data/set.tar.gz.part").stat().st_size == 80


def test_full_disk_is_one_line(server, run, tmp_path, capsys, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.shutil, "copyfileobj", full)
    assert run(entry_for(server, tar_of(images(3)))) == 2
    error = capsys.readouterr().err
    assert "disk full" in error and len(error.splitlines()) == 1
    assert listing(tmp_path / "data") == ["set.tar.gz"]


def test_unknown_name_and_no_name(server, run, capsys):
    entry = entry_for(server, b"")
    for names in (("nonsense",), ()):
        assert run(entry, names=names) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1 and "toy" in error and "all" in error


def test_list_as_a_user_runs_it(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--list", "--data", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == ""
    sets, networks = done.stdout.split("\n\n")
    assert [line.split()[0] for line in sets.splitlines()[1:]] == download.resolve_names(
        ["all"], SHIPPED
    )
    assert networks.count("\npublished/") == 6


def test_shipped_groups():
    assert SHIPPED["groups"]["ood"] == ["textures", "svhn", "places365", "lsun_c", "lsun_r", "isun"]
    assert sorted([*SHIPPED["groups"]["all"], "tin"]) == sorted(SHIPPED["sets"]) == sorted(MD5)
    known = {*SHIPPED["sets"], *SHIPPED["by_hand"]}
    assert known >= {*SHIPPED["groups"]["openood"], *SHIPPED["groups"]["imagenet4"]}
    assert download.resolve_names(["300K_random_images", "ood", "svhn"], SHIPPED) == [
        "300k",
        *SHIPPED["groups"]["ood"],
    ]


@pytest.mark.parametrize("name", MD5)
def test_shipped_entry_is_complete(name):
    entry = SHIPPED["sets"][name]
    assert entry["md5"] == MD5[name]
    assert entry["sha256"] is None or re.fullmatch("[0-9a-f]{64}", entry["sha256"])
    for url in (entry["url"], *entry["mirrors"], entry["homepage"]):
        assert re.fullmatch(r"https?://\S+", url)
    assert "bytes" in entry and "size" in entry and isinstance(entry["mirrors"], list)
    assert entry["title"] and entry["licence"] and entry["citation"] and entry["images"] > 0
    assert entry["limits"]["bytes"] >= (entry["bytes"] or 0)
    assert Path(entry["url"].split("?")[0]).name == entry["archive"]
    if entry["extract"]:
        assert Path(entry["layout"]).is_relative_to(entry["extract"]["to"])
        assert entry.get("files") or entry["count"] == entry["images"] < entry["limits"]["members"]


def test_what_is_placed_by_hand(tmp_path, capsys):
    assert download.main(["imagenet4", "--check", "--data", str(tmp_path)]) == 2
    assert download.main(["ninco", "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"to:   {tmp_path / 'ninco'}" in error and "zenodo" in error and "SUN" in error
    (tmp_path / "ninco").mkdir()
    assert download.main(["ninco", "--data", str(tmp_path)]) == 0


@pytest.mark.parametrize("head", (b"HTTP/1.1 200 OK\r\nX: ", CHUNKED))
def test_a_server_whose_bytes_drip_in_ends_in_time(head, tmp_path, monkeypatch):
    """Each byte begins a socket's own timeout anew: of an answer's head, of a part's size."""
    monkeypatch.setattr(transfer, "LONGEST", 0.3)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip():
        end, _ = listening.accept()
        with end, contextlib.suppress(OSError):
            end.sendall(head)
            while not ended.wait(0.02):
                end.sendall(b"0")

    threading.Thread(target=drip, daemon=True).start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
    try:
        with pytest.raises(download.DownloadError, match="more than 0.3 seconds"):
            transfer.transfer(url, tmp_path / "x.part", 100)
    finally:
        ended.set()
        listening.close()


def test_what_a_server_says_moves_no_cursor(server, tmp_path):
    entry = entry_for(server, b"")
    listening = socket.create_server(("127.0.0.1", 0))

    def answer():
        end, _ = listening.accept()
        with end:
            end.recv(1 << 16)
            end.sendall(b"HTTP/1.1 404 \x1b[2J\x1b]0;title\x07\r\nContent-Length: 0\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    entry["url"] = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
    sources = tmp_path / "sources.json"
    sources.write_text(json.dumps({"sets": {"toy": entry}, "groups": {}, "aliases": {}}))
    words = ["toy", "--data", str(tmp_path / "data"), "--sources", str(sources)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        env={**os.environ, "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    listening.close()
    assert done.returncode == 2 and "tried: " in done.stderr
    assert "404 \\x1b[2J\\x1b]0;title\\x07" in done.stderr and "\x1b" not in done.stderr


def test_what_is_no_file_is_not_opened(server, run, tmp_path, capsys):
    """Named pipes, at the place of a set of one file and of a beginning; a link to elsewhere."""
    entry = entry_for(server, b"body", layout="one.mat", extract=None)
    data = tmp_path / "data"
    data.mkdir()
    os.mkfifo(data / "one.mat")
    assert run(entry, "--check") == 2 and "is no file" in capsys.readouterr().out
    os.mkfifo(data / "one.mat.part")
    assert run(entry) == 2 and "one.mat.part is no file" in capsys.readouterr().err
    (data / "one.mat.part").unlink()
    (tmp_path / "else").write_text("kept")
    (data / "one.mat.part").symlink_to(tmp_path / "else")
    assert run(entry) == 2 and (tmp_path / "else").read_text() == "kept"
    (data / "one.mat.part").unlink()
    assert run(entry) == 0 and (data / "one.mat").read_bytes() == b"body"
