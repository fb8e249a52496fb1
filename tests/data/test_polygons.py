"""Label polygons in a table: burnt into pixels as the publisher of DSTL says."""

from __future__ import annotations

import numpy as np
import pytest

from rsovlib.data.manifest import Polygons
from rsovlib.data.polygons import PolygonTable
from rsovlib.errors import RasterError

COLUMNS = Polygons(
    image_column="Image",
    class_column="Class",
    geometry_column="Shape",
    extent_path="sizes.csv",
    extent_image_column="",
    x_column="Xmax",
    y_column="Ymin",
)


def table(folder, rows, sizes=",Xmax,Ymin\nA,0.01,-0.02\n", head="Image,Class,Shape\n"):
    (folder / "wkt.csv").write_text(head + "".join(f'{image},{number},"{shape}"\n' for image, number, shape in rows))
    (folder / "sizes.csv").write_text(sizes)
    return PolygonTable(folder / "wkt.csv", folder / "sizes.csv", COLUMNS)


def square(left, top, right, bottom, width, height):
    """A rectangle of pixels in the coordinates of image A: the inverse of the rule in the schema."""
    x, y = 0.01 * (width + 1) / width**2, -0.02 * (height + 1) / height**2
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return "MULTIPOLYGON (((" + ", ".join(f"{a * x:.12f} {b * y:.12f}" for a, b in corners) + ")))"


def test_rectangles_land_on_their_pixels(tmp_path):
    polygons = table(
        tmp_path,
        [("A", 3, square(2, 1, 5, 4, 9, 7)), ("A", 4, square(4, 3, 9, 7, 9, 7)), ("A", 5, "MULTIPOLYGON EMPTY")],
    )
    expected = np.zeros((7, 9), np.uint8)
    expected[1:4, 2:5] = 3
    assert np.array_equal(polygons.burn("A", (7, 9), [3]), expected)
    expected[3:7, 4:9] = 4  # the later class shows
    assert np.array_equal(polygons.burn("A", (7, 9), [3, 4, 5]), expected)
    assert polygons.images == {"A"}
    assert polygons.class_numbers == {3, 4, 5}
    assert not polygons.burn("A", (7, 9), [99]).any()


@pytest.mark.parametrize(
    ("rows", "more", "sentence"),
    [
        ([("A", 1, "MULTIPOLYGON (((")], {}, "the polygons of class 1 in 'A' can't be read"),
        ([("B", 1, "POINT (1 1)")], {}, "polygons of 'B', but its extent is not given"),
        ([("A", "x", "POINT (1 1)")], {}, "text where a number belongs"),
        ([], {"head": "Image,Klass,Shape\n"}, "has no column 'Class'; its columns are Image, Klass, Shape"),
        ([], {"sizes": "Xmax,Ymin\n1,2\n"}, "has no column ''"),
    ],
)
def test_tables_that_are_wrong(tmp_path, rows, more, sentence):
    with pytest.raises(RasterError) as error:
        table(tmp_path, rows, **more).burn(rows[0][0], (4, 4), [1])
    assert sentence in str(error.value)


def test_missing_table(tmp_path):
    with pytest.raises(RasterError, match="does not exist"):
        PolygonTable(tmp_path / "a.csv", tmp_path / "b.csv", COLUMNS)
