"""Methods by name: what is registered, how others join, and that asking is cheap."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import rsovlib
from rsovlib.errors import InputError
from rsovlib.segmenters import COMPARED, METHODS, PROFILES, SarSegmenter, Segmentation, make_segmenter
from rsovlib.segmenters.factories import BRANCHES
from rsovlib.segmenters.registry import Method, find_method, method_help, register, unregister


class Halves:
    """A stand-in: all water; where the radar is bright, forest."""

    uses_sar = True

    def __call__(self, image, classes, sar=None, sar_valid=None):
        probabilities = np.zeros((len(classes), *image.shape[:2]), np.float32)
        bright = np.zeros(image.shape[:2], bool) if sar is None else (sar[..., 0] > 127) & sar_valid
        probabilities[0] = ~bright
        probabilities[1] = bright
        return Segmentation.from_probabilities(probabilities, classes)

    def memory_needed(self, height, width, classes):
        return height * width * classes

    def settings(self):
        return {"method": "halves"}


def make_halves(method: str, *, profile: str, device: str, **options: object) -> Halves:
    if options:
        raise InputError(f"{method} has no options.")
    return Halves()


@pytest.fixture
def halves():
    yield register("halves", make_halves, uses_sar=True, doc="a stand-in")
    unregister("halves")


def test_every_method_of_the_package_is_registered_once():
    built_in = ["sdci", *BRANCHES, "sdci-paper", "valuepath", *COMPARED]
    assert set(built_in) <= set(METHODS)
    assert {name for name, method in METHODS.items() if "make_training_free" in str(method.factory)} == set(built_in)
    assert all(method.doc for method in METHODS.values())
    assert METHODS["mm-ovseg"].uses_sar
    assert not METHODS["sdci"].uses_sar


def test_a_method_of_ones_own_is_made_and_listed_like_the_others(halves):
    assert METHODS["halves"] is halves
    assert "halves (a stand-in)" in method_help()
    assert isinstance(make_segmenter("halves"), SarSegmenter)
    image, radar = np.zeros((5, 7, 3), np.uint8), np.zeros((5, 7), np.uint8)
    radar[2] = 200
    seen = np.ones((5, 7), bool)
    seen[:, 0] = False
    result = rsovlib.segment(image, ["water", "forest"], method="halves", sar=radar, sar_valid=seen)
    expected = np.zeros((5, 7))
    expected[2, 1:] = 1
    np.testing.assert_array_equal(result.labels, expected)
    assert (rsovlib.segment(image, ["water", "forest"], method="halves").labels == 0).all()


def test_a_name_is_taken_only_once_unless_one_says_so(halves):
    with pytest.raises(InputError, match="already"):
        register("halves", make_halves)
    assert register("halves", make_halves, doc="another", replace=True).doc == "another"


@pytest.mark.parametrize(("name", "factory"), [("", make_halves), ("two words", make_halves), ("x", "no-colon")])
def test_what_is_no_method_is_refused(name, factory):
    with pytest.raises(InputError):
        register(name, factory)
    assert name not in METHODS


def test_a_typing_error_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'sdci-paper'"):
        find_method("sdci-papr")


def test_a_factory_that_is_not_installed_is_one_sentence():
    with pytest.raises(InputError, match="not part of this installation"):
        Method("absent", "rsovlib.fusion.nowhere:make").make()
    with pytest.raises(InputError, match="not part of this installation"):
        Method("absent", "rsovlib.segmenters.registry:nothing").make()


def test_a_library_that_a_factory_lacks_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import a_library_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_library_that_nobody_has"):
        Method("absent", "needs_more:make").make()


def test_a_radar_image_for_a_method_without_is_refused_before_any_model_is_loaded(halves):
    with pytest.raises(InputError, match=r"'sdci' can't use a radar image; .*: mm-ovseg, .*halves"):
        rsovlib.segment(np.zeros((5, 7, 3), np.uint8), ["water"], sar=np.zeros((5, 7), np.uint8))


@pytest.mark.parametrize(
    ("radar", "valid", "words"),
    [
        (np.zeros((5, 6), np.uint8), None, "one grid"),
        (np.zeros((5, 7, 4), np.uint8), None, "1 to 3"),
        (np.zeros((5, 7), np.uint16), None, "radar image must be uint8"),
        (np.zeros((5, 7), np.uint8), np.ones((5, 7)), "must be bool"),
        (np.full((5, 7), np.nan), None, r"\[0, 1\]"),
    ],
)
def test_a_radar_array_that_does_not_fit_is_refused(halves, radar, valid, words):
    with pytest.raises(InputError, match=words):
        rsovlib.segment(np.zeros((5, 7, 3), np.uint8), ["water"], method="halves", sar=radar, sar_valid=valid)


def test_a_radar_file_beside_an_array_is_refused(halves):
    with pytest.raises(InputError, match="as a file too"):
        rsovlib.segment(np.zeros((5, 7, 3), np.uint8), ["water"], method="halves", sar="s1.tif")
    with pytest.raises(InputError, match="belongs to a radar array"):
        rsovlib.segment(np.zeros((5, 7, 3), np.uint8), ["water"], method="halves", sar_valid=np.ones((5, 7), bool))


def test_the_names_are_there_without_the_models_libraries():
    code = (
        "import sys, rsovlib.segmenters.registry as r; r.method_help(); print('torch' in sys.modules, len(r.METHODS))"
    )
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert words == ["False", str(len(METHODS))]


def test_profiles_are_those_of_the_factories():
    assert set(PROFILES) == {"embedded", "full"}
    with pytest.raises(InputError, match="There is no profile"):
        make_segmenter("sdci", profile="embeded")
