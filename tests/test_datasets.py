"""The data sets: what ships with the package, and images in IDX files as users have them."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from cydrop.datasets import load_idx, load_optdigits

NAMES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}


def idx_bytes(array, kind=8):
    """IDX: two zero bytes, the type, the number of dimensions, their lengths (big-endian), the data."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, kind, array.ndim]) + lengths + array.tobytes()


@pytest.fixture
def arrays(rng):
    return {
        "train images": rng.integers(0, 256, size=(30, 5, 4), dtype=np.uint8),
        "train labels": rng.integers(0, 10, size=30, dtype=np.uint8),
        "test images": rng.integers(0, 256, size=(12, 5, 4), dtype=np.uint8),
        "test labels": rng.integers(0, 10, size=12, dtype=np.uint8),
    }


@pytest.fixture
def folder(arrays, tmp_path):
    """The four files, gzipped, under their usual names."""
    for part, array in arrays.items():
        (tmp_path / f"{NAMES[part]}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return tmp_path


def check_equal(loaded, arrays):
    X, y, X_test, y_test = loaded
    for images, labels, part in ((X, y, "train"), (X_test, y_test, "test")):
        pixels = arrays[f"{part} images"]
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(images, pixels.reshape(len(pixels), -1) / np.float32(255))
        np.testing.assert_array_equal(labels, arrays[f"{part} labels"])


# The digits that ship with the package -------------------------------------------------------------------


def test_the_digits_have_their_shapes_and_types():
    X, y, X_test, y_test = load_optdigits()
    assert X.shape == (3823, 64)
    assert y.shape == (3823,)
    assert X_test.shape == (1797, 64)
    assert y_test.shape == (1797,)
    for images, labels in ((X, y), (X_test, y_test)):
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        assert labels.dtype == np.int64


def test_the_digits_are_sixteenths_between_0_and_1():
    X, _, X_test, _ = load_optdigits()
    for images in (X, X_test):
        assert images.min() == 0.0
        assert images.max() == 1.0
        np.testing.assert_array_equal(images * 16, np.round(images * 16))


def test_the_digits_have_the_class_counts_of_the_published_description():
    _, y, _, y_test = load_optdigits()
    assert np.bincount(y).tolist() == [376, 389, 380, 389, 387, 376, 377, 387, 380, 382]
    assert np.bincount(y_test).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_first_images_are_those_of_the_published_files():
    X, y, X_test, y_test = load_optdigits()
    first = [[0, 1, 6, 15, 12, 1, 0, 0], [0, 7, 16, 6, 6, 10, 0, 0], [0, 8, 16, 2, 0, 11, 2, 0]]
    assert (X[0] * 16).reshape(8, 8)[:3].tolist() == first
    first = [[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0], [0, 3, 15, 2, 0, 11, 8, 0]]
    assert (X_test[0] * 16).reshape(8, 8)[:3].tolist() == first
    assert (y[0], y_test[0]) == (0, 0)


def test_no_image_is_in_both_sets():
    X, _, X_test, _ = load_optdigits()
    both = {row.tobytes() for row in X} & {row.tobytes() for row in X_test}
    assert not both


def test_every_call_gives_arrays_of_its_own():
    first, second = load_optdigits(), load_optdigits()
    for array in first:
        array[...] = 7
    assert second[0].max() == 1.0
    assert load_optdigits()[1][0] == 0


def test_loading_the_digits_writes_nothing(tmp_path, monkeypatch):
    import cydrop

    def everything():
        package = Path(cydrop.__file__).parent
        return {path: path.stat().st_mtime_ns for path in package.rglob("*") if path.is_file()}

    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = everything()
    load_optdigits()
    assert everything() == before
    assert os.listdir(tmp_path) == []


# IDX files -----------------------------------------------------------------------------------------------


def test_gzipped_files_give_the_arrays(folder, arrays):
    check_equal(load_idx(folder), arrays)


def test_the_folder_may_be_text(folder, arrays):
    check_equal(load_idx(str(folder)), arrays)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dot", [False, True], ids=["hyphen", "dot"])
def test_plain_and_dot_spelled_files_give_the_arrays(tmp_path, arrays, ending, dot):
    for part, array in arrays.items():
        name = NAMES[part].replace("-idx", ".idx") if dot else NAMES[part]
        raw = idx_bytes(array)
        (tmp_path / (name + ending)).write_bytes(gzip.compress(raw) if ending else raw)
    check_equal(load_idx(tmp_path), arrays)


def test_spellings_may_be_mixed_in_a_folder(folder, arrays):
    packed = folder / "train-images-idx3-ubyte.gz"
    (folder / "train-images.idx3-ubyte").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    check_equal(load_idx(folder), arrays)


def test_loading_leaves_the_folder_as_it_was(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    load_idx(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("part", NAMES)
def test_a_missing_file_is_named(folder, part):
    (folder / f"{NAMES[part]}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=NAMES[part]) as caught:
        load_idx(folder)
    assert str(folder) in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no-such-folder"):
        load_idx(tmp_path / "no-such-folder")


@pytest.mark.parametrize("part", NAMES)
@pytest.mark.parametrize("kept", [0, 3, 7, -1])
def test_a_file_that_is_cut_off_is_named(folder, arrays, part, kept):
    (folder / f"{NAMES[part]}.gz").unlink()
    (folder / NAMES[part]).write_bytes(idx_bytes(arrays[part])[:kept])
    with pytest.raises(ValueError, match=NAMES[part]):
        load_idx(folder)


def test_a_file_with_too_many_bytes_is_named(folder, arrays):
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(arrays["train labels"]) + b"\0"))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz"):
        load_idx(folder)


def test_a_file_of_another_format_is_named(folder):
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"<html>404 not found</html>"))
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz"):
        load_idx(folder)


def test_an_idx_file_of_another_type_is_named(folder, arrays):
    floats = arrays["train labels"].astype(">f4")
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(floats, kind=13)))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz"):
        load_idx(folder)


def test_images_in_the_place_of_labels_are_named(folder):
    labels, images = folder / "train-labels-idx1-ubyte.gz", folder / "train-images-idx3-ubyte.gz"
    labels.write_bytes(images.read_bytes())
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz"):
        load_idx(folder)


def test_a_gzip_file_that_is_cut_off_is_named(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for kept in (2, 9, 11, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz"):
            load_idx(folder)


def test_a_damaged_gzip_file_is_named(folder):
    """Wherever a byte of the compressed data or of their check sum is wrong."""
    path = folder / "train-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    for place in range(10, len(whole)):  # the first ten bytes are gzip's header
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz"):
            load_idx(folder)


@pytest.mark.parametrize("split", ["train", "test"])
def test_counts_that_do_not_match_are_named(folder, arrays, split):
    """Fewer labels than images: the message says in which folder, which split, and both counts."""
    labels = arrays[f"{split} labels"][:-1]
    (folder / f"{NAMES[f'{split} labels']}.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    with pytest.raises(ValueError, match=f"{len(labels) + 1} images and {len(labels)} labels") as caught:
        load_idx(folder)
    assert str(folder) in str(caught.value)
    assert NAMES[f"{split} labels"].split("-")[0] in str(caught.value)
