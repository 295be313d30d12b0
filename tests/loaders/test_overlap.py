"""Validation OOD images and test images have no image in common."""

import numpy as np
import pytest
from conftest import noise, write_images

from utils import loaders
from utils.loaders import check_apart
from utils.runtime import UserError


def named(name, *parts):
    return loaders.make_set(np.concatenate(parts), None, name)


def test_one_image_in_both_is_found_wherever_it_stands(monkeypatch):
    monkeypatch.setattr(loaders.leaks, "CHUNK", 4)
    pixels = noise(30, 8, 0)
    tests = [named("x", pixels[:10]), named("x", pixels[10:20])]  # of one name: ID and OOD
    check_apart([], tests)
    check_apart([named("own", pixels[20:])], tests)
    shared = named("own", pixels[20:27], pixels[13:14], pixels[27:], pixels[4:5])
    with pytest.raises(UserError) as error:
        check_apart([named("other", pixels[20:]), shared], tests[1:])
    assert "'own'" in str(error.value) and "1 of its 12 images" in str(error.value)
    assert "the first is number 7" in str(error.value)
    with pytest.raises(UserError, match="'x', the first is number 11"):
        check_apart([shared], tests[:1])
    nearly = pixels[13:14].copy()
    nearly[0, 7, 7, 2] ^= 1
    check_apart([named("own", nearly)], tests)


def test_images_that_stream_are_looked_at_too(tmp_path):
    pixels = noise(9, 8, 0)
    write_images(tmp_path / "photos", pixels)
    before = loaders.use_streaming("on", 1)
    try:
        photos = loaders.load("photos", path=tmp_path / "photos", size=8)
    finally:
        loaders.use_streaming(**before)
    assert photos.streamed
    check_apart([photos], [named("test", noise(9, 8, 1))])
    with pytest.raises(UserError, match="'photos' .*1 of its 9 .*first is 005.png"):
        check_apart([photos], [named("test", noise(9, 8, 1), pixels[5:6])])
    with pytest.raises(UserError, match="test set 'photos'"):
        check_apart([named("own", pixels[8:])], [named("some", noise(3, 8, 2)), photos])


def test_a_part_of_a_set_that_was_used_is_known_by_its_images(monkeypatch):
    pixels = noise(30, 8, 0)
    used = loaders.describe_used(named("own", pixels[:20]))
    assert (used["name"], used["images"]) == ("own", 20) and len(used["pixels"]) < 12 * 20
    for first, count in ((0, 20), (15, 5), (20, 0)):
        assert loaders.count_used(named("x", pixels[first : first + 20]), used) == count
    nearly = pixels[3:4].copy()
    nearly[0, 7, 7, 2] ^= 1
    assert loaders.count_used(named("x", nearly), used) == 0
    assert loaders.count_used(named("x", noise(4, 16, 0)), used) == 0  # of another size
    for other in ({"pixels": "!"}, {"pixels": "QQ=="}, {"pixels": 3}, {}):  # not written here
        assert loaders.count_used(named("x", pixels), {**used, "pixels": "", **other}) == 0
    former = named("own", pixels[:20]).describe()  # a former version's: the whole set alone
    assert loaders.count_used(named("x", pixels[:20]), former) == 20
    assert loaders.count_used(named("x", pixels[:19]), former) == 0
    monkeypatch.setattr(loaders.overlap, "KEPT", 6)  # of a large set the smallest numbers
    few = loaders.describe_used(named("own", pixels[:20]))
    assert loaders.count_used(named("x", pixels), few) == 6
