"""Files as arrays: rasters, MATLAB and NumPy files, and one clear sentence for each that is damaged."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
from PIL import Image

from rsovlib.data.arrays import open_array
from rsovlib.errors import RasterError


def read(path, channels=(1,), rows=slice(None), columns=slice(None), variable=None):
    with open_array(path, variable) as file:
        whole = slice(0, file.header.height), slice(0, file.header.width)
        rows, columns = rows if rows != slice(None) else whole[0], columns if columns != slice(None) else whole[1]
        return file.header, file.read(channels, rows, columns)


def test_rasters(geotiff):
    values = np.arange(3 * 7 * 5, dtype=np.uint16).reshape(3, 7, 5)
    header, found = read(geotiff("a.tif", values, nodata=4), (3, 1), slice(2, 5), slice(1, 5))
    assert (header.format, header.count, header.height, header.width, header.dtype) == ("tif", 3, 7, 5, "uint16")
    assert header.crs == "EPSG:32632"
    assert tuple(header.transform)[:6] == (10, 0, 500_000, 0, -10, 5_600_000)
    assert header.nodata == 4
    assert np.array_equal(found.values, values[[2, 0], 2:5, 1:5])


def test_pictures_say_what_they_are(tmp_path):
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.png")
    header, _ = read(tmp_path / "a.png", (1, 2, 3))
    assert (header.format, header.count, header.crs, header.transform, header.has_palette) == (
        "png",
        3,
        None,
        None,
        False,
    )
    picture = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), mode="P")
    picture.putpalette([9] * 768)
    picture.save(tmp_path / "p.png")
    header, found = read(tmp_path / "p.png")
    assert header.has_palette
    assert found.values.tolist() == [[[0, 1], [2, 3]]]  # the numbers, not the colours


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (3, 4, 6)])
def test_arrays_with_bands_first_or_last(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 99, shape).astype(np.int16)
    scipy.io.savemat(tmp_path / "a.mat", {"other": [1], "image": array})
    np.save(tmp_path / "a.npy", array)
    expected = {2: array[None] if array.ndim == 2 else None, 3: array}[array.ndim]
    if shape == (4, 6, 3):
        expected = np.moveaxis(array, -1, 0)
    for name, kind in (("a.mat", "mat"), ("a.npy", "npy")):
        header, found = read(tmp_path / name, tuple(range(1, len(expected) + 1)), slice(1, 3), slice(0, 5), "image")
        assert (header.format, header.dtype, header.height, header.width) == (kind, "int16", 4, 6)
        assert np.array_equal(found.values, expected[:, 1:3, 0:5])
        assert found.valid.all()


def test_nan_and_truth_values(tmp_path):
    np.save(tmp_path / "f.npy", np.array([[1.0, np.nan]], dtype=">f4"))
    header, found = read(tmp_path / "f.npy")
    assert header.dtype == "float32"
    assert found.valid.tolist() == [[True, False]]
    np.save(tmp_path / "b.npy", np.array([[True, False]]))
    header, found = read(tmp_path / "b.npy")
    assert header.dtype == "bool"
    assert found.values.tolist() == [[[1, 0]]]
    assert found.values.dtype == np.uint8


def _truncated_mat(path):
    scipy.io.savemat(path, {"image": np.random.default_rng(0).random((40, 40))}, do_compression=True)
    path.write_bytes(path.read_bytes()[:-500])


def _pickled(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _archive(path):
    np.savez(path.with_suffix(".npz"), a=[1])
    path.with_suffix(".npz").rename(path)


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("gone.mat", lambda path: None, "does not exist"),
        ("gone.npy", lambda path: None, "does not exist"),
        ("gone.tif", lambda path: None, "does not exist"),
        ("empty.mat", lambda path: path.touch(), "is empty"),
        ("empty.npy", lambda path: path.touch(), "is empty"),
        ("text.mat", lambda path: path.write_text("no MATLAB at all" * 20), "can't be read as a MATLAB file"),
        ("text.npy", lambda path: path.write_text("no NumPy at all"), "can't be read as a NumPy array"),
        ("cut.mat", _truncated_mat, "can't be read as a MATLAB file"),
        ("pickle.npy", _pickled, "can't be read as a NumPy array"),
        ("archive.npy", _archive, "an archive of arrays"),
        ("other.mat", lambda path: scipy.io.savemat(path, {"other": [[1]]}), "holds other, and the array 'image'"),
        ("text2.mat", lambda path: scipy.io.savemat(path, {"image": "text"}), "an image of real numbers"),
        ("four.mat", lambda path: scipy.io.savemat(path, {"image": np.zeros((2, 2, 2, 2))}), "shape (2, 2, 2, 2)"),
        ("complex.npy", lambda path: np.save(path, np.zeros((2, 2), complex)), "type complex128"),
    ],
)
def test_damaged_files(tmp_path, name, make, sentence):
    make(tmp_path / name)
    with pytest.raises(RasterError) as error:
        read(tmp_path / name, variable="image")
    assert str(error.value).startswith(str(tmp_path / name))
    assert sentence in str(error.value)
