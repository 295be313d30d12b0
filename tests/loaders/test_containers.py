"""Folders and archives give the very images in them, in one order, or an error says why not."""

import io
import random
import tarfile

import numpy as np
import pytest
from conftest import coloured, noise, pack, write_images
from PIL import Image

from utils.loaders import containers, readers
from utils.runtime import UserError


def decode_all(path, **keywords):
    return readers.decode(
        containers.Folder(path) if path.is_dir() else containers.Archive(path), 32, **keywords
    )


class TestFoldersAndArchives:
    @pytest.fixture
    def folder(self, tmp_path):
        images, labels = coloured(6, 3, 32, seed=0)
        return write_images(tmp_path / "images", images, labels)

    def test_class_folders(self, folder):
        images, labels = coloured(6, 3, 32, seed=0)
        pixels, found, classes, bad = decode_all(folder)
        order = np.argsort(labels, kind="stable")  # class by class, by name within a class
        assert np.array_equal(pixels, images[order]) and found.tolist() == labels[order].tolist()
        assert classes == ("class_0", "class_1", "class_2") and bad == []

    @pytest.mark.parametrize("ending", (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))
    def test_an_archive_is_as_its_folder_in_whatever_order_it_was_packed(
        self, folder, tmp_path, ending
    ):
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
        random.Random(1).shuffle(names)
        packed = pack(folder, tmp_path / f"a{ending.replace('.tgz', '.tar.gz')}", names)
        archive = packed.rename(tmp_path / f"a{ending}")
        pixels, labels, classes, bad = decode_all(archive)
        expected = decode_all(folder)
        assert np.array_equal(pixels, expected[0]) and np.array_equal(labels, expected[1])
        assert classes == expected[2] and bad == []

    def test_a_compressed_archive_is_read_front_to_back(self, folder, tmp_path):
        names = sorted(
            (p.relative_to(folder).as_posix() for p in folder.rglob("*.png")), reverse=True
        )
        source = containers.Archive(pack(folder, tmp_path / "a.tar.gz", names))
        assert source.names == sorted(names) and [source.names[i] for i in source.order] == names

    def test_flat_folder_has_no_labels(self, tmp_path):
        images = noise(3, 32, seed=1)
        pixels, labels, classes, _ = decode_all(write_images(tmp_path / "flat", images))
        assert np.array_equal(pixels, images) and labels is None and classes is None

    def test_sorted_by_whole_name(self, tmp_path):
        images = noise(4, 32, seed=2)
        for image, name in zip(images, ("b/10.png", "b/9.png", "a/z.PNG", "B/1.png")):
            write_images(tmp_path / "write", [image])
            (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "write" / "000.png").rename(tmp_path / "s" / name)
        pixels, labels, classes, _ = decode_all(tmp_path / "s")
        assert containers.Folder(tmp_path / "s").names == [
            "B/1.png",
            "a/z.PNG",
            "b/10.png",
            "b/9.png",
        ]
        assert np.array_equal(pixels, images[[3, 2, 0, 1]]) and labels.tolist() == [0, 1, 2, 2]
        assert classes == ("B", "a", "b")

    def test_what_is_no_image_or_hidden_is_passed_over(self, folder):
        expected = decode_all(folder)
        (folder / "notes.txt").write_text("x")
        (folder / "class_0" / "._000.png").write_bytes(b"x")
        write_images(folder / ".thumbnails", noise(1, 32, seed=0))
        write_images(folder / "__MACOSX", noise(1, 32, seed=0))
        pixels, labels, classes, _ = decode_all(folder)
        assert np.array_equal(pixels, expected[0]) and classes == expected[2]
        assert np.array_equal(decode_all(pack(folder, folder.parent / "a.zip"))[0], expected[0])

    def test_linked_class_folders_are_read(self, folder, tmp_path):
        (tmp_path / "links").mkdir()
        for part in folder.iterdir():
            (tmp_path / "links" / part.name).symlink_to(part)
        assert np.array_equal(decode_all(tmp_path / "links")[0], decode_all(folder)[0])

    @pytest.mark.parametrize("mode", ("L", "LA", "RGBA", "P", "CMYK", "1", "I;16"))
    def test_every_kind_of_image_becomes_rgb(self, tmp_path, mode):
        deep = Image.fromarray((np.arange(1600, dtype=np.uint16) * 40).reshape(40, 40))
        image = deep if mode == "I;16" else Image.fromarray(noise(1, 40, seed=4)[0]).convert(mode)
        ending = ".tif" if mode == "CMYK" else ".png"
        (tmp_path / "m").mkdir()
        image.save(tmp_path / "m" / f"a{ending}")
        assert Image.open(tmp_path / "m" / f"a{ending}").mode == mode
        pixels = decode_all(tmp_path / "m")[0]
        if mode == "I;16":  # the high byte, where convert() would clip all above 255 to white
            image = Image.fromarray(np.round(np.asarray(deep) / 257).astype(np.uint8))
        assert np.array_equal(pixels[0], np.asarray(readers.fit_image(image.convert("RGB"), 32)))

    @pytest.mark.parametrize("ending", (".png", ".jpg", ".bmp", ".webp", ".gif", ".ppm", ".tif"))
    def test_a_truncated_image_is_named_or_left_out(self, tmp_path, ending):
        images, labels = noise(4, 32, seed=5), [0, 1, 1, 1]
        folder = write_images(tmp_path / "t", images, labels, ending)
        whole = decode_all(folder)
        bad = folder / "class_1" / f"002{ending}"
        content = bad.read_bytes()
        for part in (content[: len(content) // 2], content[:20], b""):
            bad.write_bytes(part)
            with pytest.raises(
                UserError, match=f"'class_1/002{ending}' cannot be read.*--skip-bad"
            ):
                decode_all(folder)
            pixels, found, classes, left_out = decode_all(folder, skip_bad=True)
            assert np.array_equal(pixels, whole[0][[0, 1, 3]]) and found.tolist() == [0, 1, 1]
            assert left_out == [f"class_1/002{ending}"] and classes == whole[2]

    def test_a_bad_image_makes_no_noise_of_its_own(self, tmp_path, recwarn):
        folder = write_images(tmp_path / "t", noise(2, 32, seed=5), ending=".tif")
        content = (folder / "000.tif").read_bytes()
        (folder / "000.tif").write_bytes(content[: len(content) - 30])
        assert decode_all(folder, skip_bad=True)[3] == ["000.tif"] and len(recwarn) == 0

    def test_bad_image_in_an_archive(self, folder, tmp_path):
        (folder / "class_0" / "000.png").write_text("no image")
        for name in ("a.zip", "a.tar.gz"):
            archive = pack(folder, tmp_path / name)
            with pytest.raises(UserError, match=f"{name}: image 'class_0/000.png' cannot be read"):
                decode_all(archive)
            assert len(decode_all(archive, skip_bad=True)[0]) == 5

    def test_link_to_nothing_is_named(self, folder):
        (folder / "class_0" / "gone.png").symlink_to(folder / "nothing.png")
        with pytest.raises(UserError, match="'class_0/gone.png' cannot be read"):
            decode_all(folder)
        assert decode_all(folder, skip_bad=True)[3] == ["class_0/gone.png"]

    def test_nothing_to_read(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="empty holds no image"):
            decode_all(tmp_path / "empty")
        (tmp_path / "empty" / "a.png").write_text("x")
        with pytest.raises(UserError, match="none of its 1 images can be read"):
            decode_all(tmp_path / "empty", skip_bad=True)
        (tmp_path / "empty" / "a.png").rename(tmp_path / "empty" / "a.txt")
        for name in ("a.zip", "a.tar"):
            with pytest.raises(UserError, match=f"{name} holds no image"):
                decode_all(pack(tmp_path / "empty", tmp_path / name))

    @pytest.mark.parametrize("ending", (".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"))
    def test_damaged_archives(self, folder, tmp_path, ending):
        archive = pack(folder, tmp_path / f"a{ending}")
        content = archive.read_bytes()
        for part in (content[: len(content) // 2], content[:100], b"", b"x" * 2000):
            archive.write_bytes(part)
            with pytest.raises(UserError, match="is not a readable .zip or .tar archive"):
                decode_all(archive)

    def test_a_damaged_header_does_not_hide_the_images_behind_it(self, folder, tmp_path):
        archive = pack(folder, tmp_path / "a.tar")
        with tarfile.open(archive) as file:
            third = file.getmembers()[2].offset
        content = bytearray(archive.read_bytes())
        content[third : third + 200] = b"?" * 200
        archive.write_bytes(content)
        with pytest.raises(UserError, match="is not a readable .zip or .tar archive"):
            decode_all(archive)

    def test_nothing_leaves_the_archive(self, tmp_path):
        png = io.BytesIO()
        Image.fromarray(noise(1, 32, seed=0)[0]).save(png, "PNG")
        (tmp_path / "in").mkdir()
        with tarfile.open(tmp_path / "in" / "a.tar", "w") as file:
            for name in ("../outside.png", "a/inside.png"):
                member = tarfile.TarInfo(name)
                member.size = len(png.getvalue())
                file.addfile(member, io.BytesIO(png.getvalue()))
            link = tarfile.TarInfo("a/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            file.addfile(link)
        pixels, labels, classes, bad = decode_all(tmp_path / "in" / "a.tar")
        assert len(pixels) == 1 and classes == ("a",) and bad == []
        assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "in"]
