"""Sets are found by name and by path, fingerprinted, checked,
and brought together as ID, OOD and outlier sets.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import coloured, noise, options, pack, write_images, write_own
from scipy.io import savemat
from test_official_files import write_cifar10, write_cifar100

from utils import loaders
from utils.loaders import readers
from utils.runtime import DATA, UserError

STAND_INS = {
    "textures": "textures_dtd",
    "places365": "places",
    "lsun_c": "scenes_crop",
    "lsun_r": "scenes_resize",
}


def write_npz(path, images, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=images, **arrays)
    return path


def pixels_of(image_set):
    """uint8 (N,H,W,3) array of an ImageSet."""
    return image_set.images.permute(0, 2, 3, 1).numpy()


class TestImageSet:
    def test_fields(self):
        images, labels = coloured(5, 3, 8, seed=0)
        made = loaders.make_set(images, labels, "mine", ("a", "b", "c"), "here")
        assert made.images.shape == (5, 3, 8, 8) and made.images.dtype == torch.uint8
        assert made.labels.dtype == torch.int64
        assert made.images.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(pixels_of(made), images) and made.labels.tolist() == labels.tolist()
        assert (len(made), made.name, made.classes, made.source) == (
            5,
            "mine",
            ("a", "b", "c"),
            "here",
        )

    def test_subset(self):
        images, labels = coloured(9, 3, 8, seed=0)
        whole = loaders.make_set(images, labels, "mine")
        part = whole.subset(np.array([7, 2]), "part")
        assert (
            np.array_equal(pixels_of(part), images[[7, 2]])
            and part.labels.tolist() == labels[[7, 2]].tolist()
        )
        assert part.name == "part" and part.fingerprint != whole.fingerprint
        assert (
            part.fingerprint
            == loaders.make_set(images[[7, 2]], labels[[7, 2]], "other").fingerprint
        )
        assert loaders.make_set(images, None, "x").subset(np.arange(3)).labels is None
        whole.names = tuple("abcdefghi")
        assert part.names is None and whole.subset(np.array([7, 2])).names == ("h", "c")

    def test_subset_in_place(self):
        images, labels = coloured(9, 3, 8, seed=0)
        index = np.array([0, 2, 3, 7, 8])
        copy = loaders.make_set(images.copy(), labels, "mine").subset(index)
        whole = loaders.make_set(images, labels, "mine")
        part = whole.subset(index, in_place=True)
        assert part.fingerprint == copy.fingerprint and torch.equal(part.images, copy.images)
        assert part.images.data_ptr() == whole.images.data_ptr()

    def test_fingerprint_is_of_pixels_labels_and_shape_alone(self):
        images, labels = coloured(4, 2, 8, seed=0)
        base = loaders.make_set(images, labels, "mine").fingerprint
        same = loaders.make_set(
            images.copy(), labels.astype(np.uint8), "other", ("a", "b"), "there"
        )
        assert base == same.fingerprint
        other_pixel, other_label = images.copy(), labels.copy()
        other_pixel[3, 7, 7, 2] ^= 1
        other_label[3] ^= 1
        others = [
            (other_pixel, labels),
            (images, other_label),
            (images, None),
            (images[::-1], labels),
            (images.reshape(4, 4, 16, 3), labels),
            (images[:3], labels[:3]),
        ]
        found = {loaders.make_set(*other, "mine").fingerprint for other in others}
        assert len(found) == len(others) and base not in found and all(len(f) == 64 for f in found)

    def test_describe(self):
        made = loaders.make_set(noise(3, 8, seed=0), None, "mine")
        made.skipped = ("a.png",)
        assert made.describe() == {
            "name": "mine",
            "images": 3,
            "fingerprint": made.fingerprint,
            "skipped": 1,
        }


class TestFindByName:
    def test_cifar_from_official_files(self, data):
        for name, folder, write in (
            ("cifar10", "cifar-10-batches-py", write_cifar10),
            ("cifar100", "cifar-100-python", write_cifar100),
        ):
            made = write(data / folder)
            for split, batch in (
                ("train", "data_batch_1" if name == "cifar10" else "train"),
                ("test", "test_batch" if name == "cifar10" else "test"),
            ):
                found = loaders.load_id(name, split, data)
                images, labels = made[batch]
                assert np.array_equal(pixels_of(found)[: len(images)], images)
                assert found.labels[: len(labels)].tolist() == labels
                assert len(found) == (35 if (name, split) == ("cifar10", "train") else len(images))

    def test_svhn_from_its_official_file(self, data):
        images = noise(4, 32, seed=1)
        for place in ("svhn/test_32x32.mat", "test_32x32.mat"):
            (data / place).parent.mkdir(exist_ok=True)
            savemat(
                data / place,
                {"X": images.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [2], [3]])},
            )
            found = loaders.load("svhn", data=data)
            assert np.array_equal(pixels_of(found), images) and found.labels.tolist() == [
                0,
                1,
                2,
                3,
            ]
            (data / place).unlink()

    @pytest.mark.parametrize(
        "place", ("dtd/images", "textures", "ood/textures", "textures/test", "outliers/textures")
    )
    def test_folders(self, data, place):
        images, labels = coloured(6, 2, 32, seed=0)
        write_images(data / place, images, labels)
        assert np.array_equal(
            pixels_of(loaders.load("textures", data=data)),
            images[np.argsort(labels, kind="stable")],
        )

    @pytest.mark.parametrize(
        "name, official",
        (
            ("lsun_c", "LSUN"),
            ("lsun_r", "LSUN_resize"),
            ("isun", "iSUN"),
            ("places365", "places365/test_subset"),
        ),
    )
    def test_official_folders_of_downloads(self, data, name, official):
        images = noise(3, 32, seed=2)
        write_images(data / official, images)
        assert np.array_equal(pixels_of(loaders.load(name, data=data)), images)

    @pytest.mark.parametrize(
        "place",
        (
            "isun.npz",
            "ood/isun.npz",
            "isun/test.npz",
            "isun.npy",
            "ood/isun.zip",
            "isun/test.tar.gz",
        ),
    )
    def test_arrays_and_archives(self, data, tmp_path, place):
        images, path = noise(3, 32, seed=2), data / place
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".npz":
            np.savez(path, images=images)
        elif path.suffix == ".npy":
            np.save(path, images)
        else:
            pack(write_images(tmp_path / "images", images), path)
        found = loaders.load("isun", data=data)
        assert (
            np.array_equal(pixels_of(found), images)
            and found.source == str(path)
            and found.name == "isun"
        )

    def test_300k_is_a_bare_array(self, data):
        np.save(data / "300K_random_images.npy", noise(3, 32, seed=2))
        assert (
            loaders.outlier_name("cifar10", data) == "300k"
            and len(loaders.load("300k", "train", data)) == 3
        )

    def test_lsun_c_is_cropped_and_others_are_shrunk(self, data):
        images = noise(3, 36, seed=3)
        for place in ("LSUN", "LSUN_resize"):
            write_images(data / place, images)
        assert np.array_equal(pixels_of(loaders.load("lsun_c", data=data)), images[:, 2:34, 2:34])
        shrunk = pixels_of(loaders.load("lsun_r", data=data))
        assert shrunk.shape == (3, 32, 32, 3) and not np.array_equal(shrunk, images[:, 2:34, 2:34])

    def test_arrays_keep_their_size_unless_fitted(self, data):
        images = noise(3, 36, seed=3)
        write_npz(data / "lsun_c.npz", images)
        assert loaders.load("lsun_c", data=data).images.shape == (3, 3, 36, 36)
        assert np.array_equal(
            pixels_of(loaders.load("lsun_c", data=data, fit_arrays=True)), images[:, 2:34, 2:34]
        )

    def test_a_folder_of_both_splits_is_no_id_set(self, data):
        images, labels = coloured(4, 2, 32, seed=0)
        write_images(data / "cifar10", images, labels)
        with pytest.raises(UserError, match="not found"):
            loaders.load_id("cifar10", "test", data)
        write_images(data / "cifar10" / "test", images, labels)
        assert len(loaders.load_id("cifar10", "test", data)) == 4

    def test_an_empty_folder_is_not_there(self, data):
        (data / "dtd" / "images").mkdir(parents=True)
        (data / "cifar-10-batches-py").mkdir()
        assert not loaders.is_there("textures", data=data) and not loaders.is_there(
            "cifar10", data=data
        )
        write_npz(data / "ood/textures.npz", noise(2, 32, seed=0))
        assert len(loaders.load("textures", data=data)) == 2

    @pytest.mark.parametrize(
        "name", [n for n, entry in loaders.DATASETS.items() if entry.make is None]
    )
    def test_missing_set_names_places_and_the_next_command(self, data, name):
        with pytest.raises(UserError) as error:
            loaders.load(name, "test", data)
        message = str(error.value)
        for place in (
            *loaders.DATASETS[name].paths,
            f"{name}/test.npz",
            f"ood/{name}.npz",
            f"outliers/{name}.npz",
        ):
            assert str(data / place) in message
        known = {"tiny_imagenet": "300k", **{kin: first for first, kin in STAND_INS.items()}}.get(
            name, name
        )
        by_hand = loaders.SOURCES["by_hand"].get(name)
        if by_hand:
            assert by_hand["from"] in message and message.endswith(by_hand["layout"])
        else:
            assert message.endswith(f"python data/download.py {known} --data {data}")
        assert "\n" not in message
        assert "--data" not in loaders.missing_message(name, "test", DATA)

    def test_a_new_line_of_the_table_without_address(self, data, monkeypatch):
        monkeypatch.setitem(loaders.DATASETS, "new", loaders.DataSet(("place/new",)))
        with pytest.raises(UserError, match="place/new.*Place it there$"):
            loaders.load("new", data=data)

    def test_unknown_name_lists_what_there_is(self, data):
        with pytest.raises(
            UserError, match="unknown data set 'cifar11'.*cifar10, cifar100, digits.*folder:PATH"
        ):
            loaders.load("cifar11", data=data)

    def test_a_users_own_set_below_the_data_folder(self, data):
        write_npz(data / "ood" / "mine.npz", noise(2, 32, seed=0))
        assert len(loaders.parse_ood("mine", "cifar10", data)[0]) == 2

    def test_skip_bad_counts_on_stderr(self, data, capsys):
        write_images(data / "iSUN", noise(6, 32, seed=0))
        for i in range(4):
            (data / "iSUN" / f"00{i}.png").write_text("x")
        with pytest.raises(UserError, match="'000.png' cannot be read"):
            loaders.load("isun", data=data)
        for _ in range(2):  # the second time from the cache
            found = loaders.load("isun", data=data, skip_bad=True)
            assert len(found) == 2 and found.skipped == ("000.png", "001.png", "002.png", "003.png")
            said = capsys.readouterr().err
            assert (
                "isun: 4 of 6 images could not be read" in said
                and "000.png, 001.png, 002.png, ..." in said
            )
        assert found.describe()["skipped"] == 4


class TestProtocol:
    def test_what_is_there_of_each_line_is_taken(self, data):
        names = [line[0] for line in loaders.SIX_SETS]
        assert loaders.ood_names("cifar10", data) == names
        for stand_in in STAND_INS.values():
            write_npz(data / "ood" / f"{stand_in}.npz", noise(2, 32, seed=0))
        assert loaders.ood_names("cifar10", data) == [STAND_INS.get(name, name) for name in names]
        for first in STAND_INS:
            write_npz(data / "ood" / f"{first}.npz", noise(2, 32, seed=0))
        assert loaders.ood_names("cifar100", data) == names

    def test_digits_need_no_file(self, data):
        sets = loaders.parse_ood("", "digits", data)
        assert [s.name for s in sets] == loaders.ood_names("digits", data) and len(sets) == 6
        assert loaders.outlier_name("digits", data) == "digit_outliers"
        assert list(data.iterdir()) == []

    def test_missing_sets_of_the_protocol_are_named_together(self, data):
        write_npz(data / "ood" / "isun.npz", noise(2, 32, seed=0))
        write_npz(data / "ood" / "places.npz", noise(2, 32, seed=0))
        with pytest.raises(UserError) as error:
            loaders.parse_ood("", "cifar10", data)
        assert f"download.py textures svhn lsun_c lsun_r --data {data};" in str(error.value)

    def test_outliers_there_first(self, data):
        assert loaders.outlier_name("cifar10", data) == "tiny_imagenet"
        write_npz(data / "300k.npz", noise(2, 32, seed=0))
        assert loaders.outlier_name("cifar10", data) == "300k"
        write_npz(data / "outliers" / "tiny_imagenet.npz", noise(2, 32, seed=0))
        assert loaders.outlier_name("cifar10", data) == "tiny_imagenet"

    def test_no_outlier_set_is_an_ood_test_set(self):
        tested = {
            name for line in (*loaders.SIX_SETS, *loaders.OOD_SETS["digits"]) for name in line
        }
        assert not tested & {*loaders.OUTLIERS, *loaders.OUTLIER_SETS["digits"], *loaders.ID_SETS}

    def test_tables_name_known_sets(self):
        lines = (
            *loaders.SIX_SETS,
            *loaders.OOD_SETS["digits"],
            loaders.OUTLIERS,
            *loaders.OUTLIER_SETS.values(),
        )
        assert {name for line in lines for name in line} <= set(loaders.DATASETS)


class TestParseOod:
    @pytest.fixture
    def places(self, tmp_path, data):
        """Paths of four sets of 2, 3, 4 and 5 images of one's own, and iSUN by name."""
        write_npz(data / "isun.npz", noise(6, 32, seed=0))
        folder = write_images(tmp_path / "my.photos", noise(3, 32, seed=2))
        return SimpleNamespace(
            npz=write_npz(tmp_path / "a" / "arrays.npz", noise(2, 32, seed=1)),
            folder=folder,
            archive=pack(
                write_images(tmp_path / "w", noise(4, 32, seed=3)), tmp_path / "packed.v2.tar.gz"
            ),
            image=pack(write_images(tmp_path / "v", noise(5, 32, seed=3)), tmp_path / "z.zip"),
        )

    def test_names_and_paths_mixed(self, places, data):
        text = (
            f"isun, {places.npz},folder:{places.folder} "
            f",path:{places.archive},file:{places.image},gaussian"
        )
        sets = loaders.parse_ood(text, "cifar10", data)
        assert [s.name for s in sets] == [
            "isun",
            "arrays",
            "my.photos",
            "packed.v2",
            "z",
            "gaussian",
        ]
        assert [len(s) for s in sets[:-1]] == [6, 2, 3, 4, 5]
        assert np.array_equal(pixels_of(sets[2]), noise(3, 32, seed=2))

    def test_relative_paths(self, places, data, monkeypatch):
        monkeypatch.chdir(places.folder)
        assert [s.name for s in loaders.parse_ood("folder:.", "cifar10", data)] == ["my.photos"]
        assert [s.name for s in loaders.parse_ood("./", "cifar10", data)] == ["my.photos"]
        monkeypatch.chdir(places.npz.parent)
        sets = loaders.parse_ood("arrays.npz,../my.photos/", "cifar10", data)
        assert [s.name for s in sets] == ["arrays", "my.photos"]

    def test_official_files_by_path(self, tmp_path, data):
        write_cifar100(tmp_path / "x" / "cifar-100-python")
        images = noise(4, 32, seed=1)
        savemat(
            tmp_path / "x" / "train_32x32.mat",
            {"X": images.transpose(1, 2, 3, 0), "y": np.ones((4, 1))},
        )
        sets = loaders.parse_ood(
            f"folder:{tmp_path}/x/cifar-100-python,{tmp_path}/x/train_32x32.mat", "cifar10", data
        )
        assert [s.name for s in sets] == ["cifar-100-python", "train_32x32"] and [
            len(s) for s in sets
        ] == [9, 4]
        assert np.array_equal(pixels_of(sets[1]), images)

    def test_the_same_name_twice(self, places, data):
        (places.folder.parent / "b").mkdir()
        other = write_npz(places.folder.parent / "b" / "arrays.npz", noise(2, 32, seed=4))
        for text in (
            "isun,isun",
            f"{places.npz},{other}",
            f"{places.npz},isun,folder:{places.npz}",
        ):
            with pytest.raises(UserError, match="--ood names '(isun|arrays)' twice"):
                loaders.parse_ood(text, "cifar10", data)

    def test_names_that_differ_behind_a_dot_are_two(self, tmp_path, data):
        for name in ("v1.0", "v1.1"):
            write_images(tmp_path / name, noise(2, 32, seed=0))
        sets = loaders.parse_ood(f"{tmp_path}/v1.0,{tmp_path}/v1.1", "cifar10", data)
        assert [s.name for s in sets] == ["v1.0", "v1.1"]

    def test_nothing_between_commas_is_the_protocol(self, data):
        assert [s.name for s in loaders.parse_ood(" , ", "digits", data)] == loaders.ood_names(
            "digits", data
        )

    def test_arrays_of_another_size_are_brought_to_the_id_images_size(self, tmp_path, data):
        images = noise(3, 48, seed=0)
        path = write_npz(tmp_path / "large.npz", images)
        assert np.array_equal(
            pixels_of(loaders.parse_ood(str(path), "cifar10", data, size=24)[0]),
            readers.fit_pixels(images, 24),
        )
        assert np.array_equal(
            pixels_of(loaders.parse_ood(str(path), "cifar10", data, size=48)[0]), images
        )

    def test_errors(self, tmp_path, data):
        (tmp_path / "empty").mkdir()
        for text, words in (
            ("folder:/nowhere/here", "/nowhere/here does not exist.*Give a folder"),
            ("gone.npz", "gone.npz does not exist"),
            ("nonsense", "unknown data set 'nonsense'"),
            (f"folder:{tmp_path}/empty", "empty holds no image"),
            ("isun", "isun.* not found"),
        ):
            with pytest.raises(UserError, match=words):
                loaders.parse_ood(text, "cifar10", data)


class TestIdSets:
    def test_train_and_test_folders(self, tmp_path, data):
        for split, seed in (("train", 1), ("test", 2)):
            images, labels = coloured(6, 3, 32, seed)
            write_images(tmp_path / "mine" / split, images, labels)
        train, test, classes = loaders.load_id_pair(options(data, id=str(tmp_path / "mine")))
        order = np.argsort(coloured(6, 3, 32, 1)[1], kind="stable")
        assert classes == 3 and train.classes == test.classes == ("class_0", "class_1", "class_2")
        assert np.array_equal(pixels_of(train), coloured(6, 3, 32, 1)[0][order])
        assert np.array_equal(pixels_of(test), coloured(6, 3, 32, 2)[0][order])

    @pytest.mark.parametrize("ending", (".zip", ".tar.gz"))
    def test_train_and_test_archives(self, tmp_path, data, ending):
        (tmp_path / "mine").mkdir()
        for split, seed in (("train", 1), ("test", 2)):
            images, labels = coloured(6, 3, 32, seed)
            pack(
                write_images(tmp_path / split, images, labels),
                tmp_path / "mine" / f"{split}{ending}",
            )
        train, test, classes = loaders.load_id_pair(options(data, id=str(tmp_path / "mine")))
        assert (
            classes == 3
            and len(train) == len(test) == 6
            and train.source.endswith(f"train{ending}")
        )

    def test_train_and_test_arrays_of_another_size(self, tmp_path, data):
        args = options(
            data, id=str(write_own(tmp_path / "mine", classes=4, train=12, test=8, size=10))
        )
        train, test, classes = loaders.load_id_pair(args)
        assert (
            classes == 4
            and train.images.shape == (12, 3, 10, 10)
            and test.images.shape == (8, 3, 10, 10)
        )
        args.outliers = str(write_npz(tmp_path / "o.npz", noise(5, 32, seed=0)))
        # one forward pass takes both
        assert loaders.load_outliers(args, 10).images.shape == (5, 3, 10, 10)

    def test_official_folder_by_path(self, tmp_path, data):
        for name, write in (("cifar10", write_cifar10), ("cifar100", write_cifar100)):
            made = write(tmp_path / name)
            train, test, classes = loaders.load_id_pair(options(data, id=str(tmp_path / name)))
            assert len(train) == (35 if name == "cifar10" else 9)
            assert np.array_equal(
                pixels_of(test), made["test_batch" if name == "cifar10" else "test"][0]
            )

    @pytest.mark.parametrize("name", ("cifar10", "flowers"))
    def test_own_images_have_classes_of_their_own_whatever_they_are_called(
        self, tmp_path, data, name
    ):
        own = str(write_own(tmp_path / "own", classes=12, train=36, test=24))
        _, test, classes = loaders.load_id_pair(options(data, dataset=name, id=own))
        assert classes == 12 and int(test.labels.max()) == 11
        assert int(loaders.load_id(name, "test", data, own).labels.max()) == 11
        with pytest.raises(UserError, match="labels go from 0 to 11, outside 0 to 9"):
            loaders.load_id(name, "test", data, own, num_classes=10)  # a network for ten classes

    def test_image_size(self, tmp_path, data):
        for split, seed in (("train", 1), ("test", 2)):
            write_images(tmp_path / "mine" / split, *coloured(4, 2, 32, seed))
        args = options(data, id=str(tmp_path / "mine"), image_size=16)
        assert loaders.load_id_pair(args)[0].images.shape == (4, 3, 16, 16)
        own = str(write_own(tmp_path / "arrays", classes=2, train=12, test=8, size=10))
        assert loaders.load_id_pair(options(data, id=own))[0].images.shape == (12, 3, 10, 10)
        assert loaders.load_id_pair(options(data, id=own, image_size=16))[0].images.shape == (
            12,
            3,
            16,
            16,
        )

    def test_labels_that_are_absurd_or_absent(self, tmp_path, data, capsys):
        for split in ("train", "test"):
            write_npz(
                tmp_path / "far" / f"{split}.npz",
                noise(2, 8, seed=len(split)),
                labels=np.array([0, 10**9]),
            )
            write_npz(
                tmp_path / "gap" / f"{split}.npz",
                noise(2, 8, seed=len(split)),
                labels=np.array([0, 2]),
            )
        with pytest.raises(UserError, match="labels go from 0 to 1000000000, outside 0 to 999"):
            loaders.load_id_pair(options(data, id=str(tmp_path / "far")))
        assert loaders.load_id_pair(options(data, id=str(tmp_path / "gap")))[2] == 3
        assert "has the label 1;" in capsys.readouterr().err

    def test_num_classes_of_known_sets_does_not_hang_on_the_labels_there(self, data):
        write_cifar100(data / "cifar-100-python")
        assert loaders.load_id_pair(options(data, dataset="cifar100"))[2] == 100

    def test_labels_out_of_range(self, data):
        images = noise(3, 32, seed=0)
        for labels in ([0, 1, 10], [-1, 0, 1]):
            write_npz(data / "cifar10" / "test.npz", images, labels=np.array(labels))
            with pytest.raises(
                UserError, match=f"labels go from {min(labels)} to {max(labels)}, outside 0 to 9"
            ):
                loaders.load_id("cifar10", "test", data)
        write_npz(data / "mine" / "test.npz", images, labels=np.array([0, 1, 4]))
        assert loaders.load_id("mine", "test", data, num_classes=5).labels.max() == 4
        with pytest.raises(UserError, match="labels go from 0 to 4, outside 0 to 3"):
            loaders.load_id("mine", "test", data, num_classes=4)
        write_npz(
            data / "mine" / "test.npz",
            images,
            labels=np.array([0, 1, 3]),
            classes=np.array(["a", "b", "c"]),
        )
        with pytest.raises(UserError, match="labels go from 0 to 3, outside 0 to 2"):
            loaders.load_id("mine", "test", data)

    def test_test_labels_beyond_those_of_training(self, tmp_path, data):
        for split, labels in (("train", [0, 1, 2]), ("test", [0, 1, 3])):
            write_npz(
                tmp_path / f"{split}.npz", noise(3, 32, seed=len(split)), labels=np.array(labels)
            )
        with pytest.raises(UserError, match="test.npz.*labels go from 0 to 3, outside 0 to 2"):
            loaders.load_id_pair(options(data, id=str(tmp_path)))

    def test_no_labels(self, tmp_path, data):
        write_npz(data / "cifar10" / "test.npz", noise(3, 32, seed=0))
        with pytest.raises(UserError, match="test.npz.* has no labels.*class folders"):
            loaders.load_id("cifar10", "test", data)
        write_images(tmp_path / "flat" / "train", noise(3, 32, seed=0))
        with pytest.raises(UserError, match="train.* has no labels"):
            loaders.load_id_pair(options(data, id=str(tmp_path / "flat")))

    def test_pairs_that_do_not_belong_together(self, tmp_path, data):
        images, labels = coloured(6, 3, 32, 1)
        write_images(tmp_path / "one", images, labels)
        with pytest.raises(
            UserError, match="training and test images are the same.*train/ and test/"
        ):
            loaders.load_id_pair(options(data, id=str(tmp_path / "one")))
        write_images(tmp_path / "two" / "train", images, labels)
        write_images(tmp_path / "two" / "test", *coloured(4, 2, 32, 2))
        with pytest.raises(
            UserError, match="has the classes class_0, class_1, not those of training"
        ):
            loaders.load_id_pair(options(data, id=str(tmp_path / "two")))
        for split, size in (("train", 32), ("test", 28)):
            write_npz(
                tmp_path / "three" / f"{split}.npz", noise(2, size, seed=0), labels=np.array([0, 1])
            )
        with pytest.raises(
            UserError, match=r"test.npz holds images of \(3, 28, 28\), training has \(3, 32, 32\)"
        ):
            loaders.load_id_pair(options(data, id=str(tmp_path / "three")))

    def test_images_that_are_not_square(self, tmp_path, data):
        write_npz(tmp_path / "train.npz", noise(2, 32, seed=0)[:, :24], labels=np.array([0, 1]))
        with pytest.raises(UserError, match="24 high and 32 wide, not square. .*--image-size 24"):
            loaders.load_id_pair(options(data, id=str(tmp_path)))

    def test_missing_path(self, data):
        with pytest.raises(UserError, match="/nowhere/here does not exist"):
            loaders.load_id_pair(options(data, id="/nowhere/here"))


class TestOutliers:
    def test_by_name_and_by_path(self, tmp_path, data, monkeypatch):
        write_npz(data / "outliers" / "tiny_imagenet.npz", noise(2, 32, seed=0))
        write_npz(data / "outliers" / "mine.npz", noise(3, 32, seed=1))
        path = write_npz(tmp_path / "other.npz", noise(4, 32, seed=2))
        folder = write_images(tmp_path / "photos", noise(5, 40, seed=3))
        monkeypatch.chdir(tmp_path)
        for given, name, count in (
            (None, "tiny_imagenet", 2),
            ("tiny_imagenet", "tiny_imagenet", 2),
            ("mine", "mine", 3),
            (str(path), "other", 4),
            ("other.npz", "other", 4),
            ("photos", "photos", 5),
            (f"folder:{folder}", "photos", 5),
            (f"path:{path}", "other", 4),
        ):
            found = loaders.load_outliers(options(data, dataset="cifar10", outliers=given), 32)
            assert (found.name, found.images.shape) == (name, (count, 3, 32, 32))

    def test_training_part_is_taken(self, tmp_path, data):
        for split, count in (("train", 3), ("test", 2)):
            write_npz(tmp_path / "o" / f"{split}.npz", noise(count, 32, seed=0))
        assert len(loaders.load_outliers(options(data, outliers=str(tmp_path / "o")), 32)) == 3

    def test_missing(self, data):
        for given, words in (
            (
                None,
                f"tiny_imagenet.*not found.*{data}/outliers/tiny_imagenet.npz.*download.py 300k",
            ),
            ("nonsense", "unknown data set 'nonsense'.*There is:.*tiny_imagenet"),
            ("/nowhere/x.npz", "/nowhere/x.npz does not exist"),
        ):
            with pytest.raises(UserError, match=words):
                loaders.load_outliers(options(data, dataset="cifar10", outliers=given), 32)

    def test_statistics(self):
        assert loaders.outlier_statistics("id") == (loaders.MEAN, loaders.STD)
        assert loaders.outlier_statistics("imagenet") == (
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
        )
