"""Decibels and speckle filters, against closed forms and a slow reference."""

from __future__ import annotations

import numpy as np
import pytest

from rsovlib.data.sar import (
    boxcar,
    despeckle,
    equivalent_looks,
    from_db,
    from_intensity,
    intensity,
    lee,
    refined_lee,
    to_db,
)
from rsovlib.errors import InputError

FILTERS = {"boxcar": boxcar, "lee": lee, "refined_lee": refined_lee}


def speckled(ground, looks, seed=0):
    """Gamma speckle of mean 1 and variance 1 / looks on the ground's backscatter."""
    return ground * np.random.default_rng(seed).gamma(looks, 1 / looks, np.shape(ground))


def slow_refined_lee(z, looks):
    """The definition, pixel by pixel, with the pixels of each window looked up one at a time."""
    height, width = z.shape

    def at(y, x):
        return z[y, x] if 0 <= y < height and 0 <= x < width else np.nan

    def part(y, x, dy, dx):
        values = np.array([at(y + 2 * dy + j, x + 2 * dx + i) for j in (-1, 0, 1) for i in (-1, 0, 1)])
        return np.nan if np.isnan(values).all() else np.nanmean(values)

    sides = {"west": (0, -1), "east": (0, 1), "north": (-1, 0), "south": (1, 0)}
    sides |= {"northwest": (-1, -1), "southeast": (1, 1), "northeast": (-1, 1), "southwest": (1, -1)}
    pairs = [("west", "east"), ("north", "south"), ("northwest", "southeast"), ("northeast", "southwest")]
    result = np.full(z.shape, np.nan)
    for y in range(height):
        for x in range(width):
            if np.isnan(z[y, x]):
                continue
            around = {(j, i): at(y + j, x + i) for j in range(-3, 4) for i in range(-3, 4)}
            window = np.array(list(around.values()))
            mean, variance = np.nanmean(window), np.nanvar(window)
            if variance <= mean**2 / looks:
                result[y, x] = mean
                continue
            m = {(j, i): part(y, x, j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)}
            m = {key: mean if np.isnan(value) else value for key, value in m.items()}

            def gradient(first, second, m=m):
                """The three parts of one side against the three of the other."""
                (ay, ax), (by, bx) = sides[first], sides[second]
                one = [m[key] for key in m if key[0] * ay + key[1] * ax > 0]
                other = [m[key] for key in m if key[0] * by + key[1] * bx > 0]
                return abs(sum(other) - sum(one))

            first, second = max(pairs, key=lambda pair: gradient(*pair))
            nearer = abs(m[sides[second]] - m[0, 0]) < abs(m[sides[first]] - m[0, 0])
            side = sides[second if nearer else first]
            half = [value for (j, i), value in around.items() if j * side[0] + i * side[1] >= 0]
            mean, variance = np.nanmean(half), np.nanvar(half)
            signal = max(0, (variance - mean**2 / looks) / (1 + 1 / looks))
            result[y, x] = mean + (signal / variance if variance else 0) * (z[y, x] - mean)
    return result


def test_decibels():
    np.testing.assert_allclose(to_db(np.array([1.0, 10, 0.01])), [0, 10, -20])
    np.testing.assert_allclose(from_db(np.array([0.0, 10, -20])), [1, 10, 0.01])
    assert np.isnan(to_db(np.array([0.0, -1, np.nan]))).all()
    values = np.random.default_rng(0).gamma(2, 1, (3, 5, 4)).astype("float32")
    for unit in ("db", "linear", "amplitude"):
        there = from_intensity(values, unit)
        assert there.dtype == np.float32
        np.testing.assert_allclose(intensity(there, unit), values, rtol=1e-4)
    np.testing.assert_allclose(intensity(np.array([3, 4], "uint16"), "amplitude"), [9, 16])
    with pytest.raises(InputError, match=r"no unit of radar values 'dB'.*Did you mean 'db'"):
        intensity(values, "dB")


@pytest.mark.parametrize("name", FILTERS)
def test_a_constant_stays_and_what_is_missing_too(name):
    image = np.full((37, 31), 0.02)
    image[4:9, 5:20] = np.nan
    image[0, 0] = np.nan
    filtered = FILTERS[name](image)
    np.testing.assert_array_equal(np.isnan(filtered), np.isnan(image))
    np.testing.assert_allclose(filtered[np.isfinite(image)], 0.02)
    assert FILTERS[name](np.full((1, 1), 5.0)).item() == 5
    assert np.isnan(FILTERS[name](np.full((3, 4), np.nan))).all()
    assert FILTERS[name](image.astype("float32")).dtype == np.float32


@pytest.mark.parametrize("name", FILTERS)
def test_what_is_missing_does_not_spill(name):
    """A pixel's neighbours are filtered as if the missing ones lay beyond the border."""
    image = speckled(np.full((30, 20), 0.1), 4)
    image[:, 12:] = np.nan
    np.testing.assert_allclose(FILTERS[name](image)[:, :12], FILTERS[name](image[:, :12]))


@pytest.mark.parametrize("looks", [1, 4.4])
def test_homogeneous_ground_gets_the_looks_that_the_window_has(looks):
    image = speckled(np.full((300, 280), 0.05), looks)
    assert equivalent_looks(image) == pytest.approx(looks, rel=0.05)
    # A mean of n independent pixels has n times as many looks.
    assert equivalent_looks(boxcar(image, 5)) == pytest.approx(25 * looks, rel=0.1)
    # Told of much more speckle than there is, Lee's filter finds no signal anywhere, and takes the mean.
    np.testing.assert_allclose(lee(image, looks / 30), boxcar(image))
    np.testing.assert_allclose(refined_lee(image, looks / 30), boxcar(image))
    # Told the truth, it takes chance for signal in part of the windows.
    for filtered in (lee(image, looks), refined_lee(image, looks)):
        assert 4 * looks < equivalent_looks(filtered) < 49 * looks
        assert filtered.mean() == pytest.approx(image.mean(), rel=0.03)
    # Told of hardly any speckle, it leaves the image as it is.
    np.testing.assert_allclose(lee(image, 1e9), image, rtol=1e-6, atol=1e-8)


def rms_decibels(ratio, where):
    return np.sqrt(np.mean(to_db(ratio)[where] ** 2))


def test_edges_are_kept_better_than_by_a_mean():
    ground = np.where(np.add.outer(np.arange(80), np.arange(70)) < 75, 0.02, 0.3)
    image = speckled(ground, 4)
    near = np.abs(np.add.outer(np.arange(80), np.arange(70)) - 74.5) < 3
    errors = {name: rms_decibels(apply(image) / ground, near) for name, apply in FILTERS.items()}
    assert errors["refined_lee"] < 0.7 * errors["lee"]
    assert errors["refined_lee"] < 0.5 * errors["boxcar"]
    assert errors["refined_lee"] < rms_decibels(image / ground, near)  # and better than no filter
    # A ship stays a ship.
    image[40, 10] = 50
    assert refined_lee(image)[40, 10] > 25
    assert boxcar(image)[40, 10] < 2


@pytest.mark.parametrize("seed", range(3))
def test_refined_lee_equals_its_definition(seed):
    rng = np.random.default_rng(seed)
    ground = np.select([rng.random((19, 23)) < 0.02, np.arange(23) + np.zeros((19, 1)) < 9], [20, 0.02], default=0.4)
    image = speckled(ground, 3, seed)
    image[rng.random(image.shape) < 0.1] = np.nan
    image[12:, 17:] = np.nan
    np.testing.assert_allclose(refined_lee(image, 3), slow_refined_lee(image, 3), rtol=1e-9)


def test_lee_equals_its_definition():
    image = speckled(np.where(np.arange(17) < 8, 0.02, 0.4) + np.zeros((11, 1)), 3)
    image[2, 3:6] = np.nan
    expected = np.full(image.shape, np.nan)
    for y, x in np.argwhere(np.isfinite(image)):
        window = image[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        mean, variance = np.nanmean(window), np.nanvar(window)
        signal = max(0, (variance - mean**2 / 3) / (1 + 1 / 3))
        expected[y, x] = mean + signal / variance * (image[y, x] - mean)
    np.testing.assert_allclose(lee(image, 3, size=5), expected)


def test_a_bright_target_leaves_no_trace_in_calm_water_far_from_it():
    image = speckled(np.full((9, 60), 1e-3), 4)
    image[4, 5] = 1e7
    alone = image[:, 12:]
    np.testing.assert_allclose(lee(image)[:, 15:], lee(alone)[:, 3:], rtol=1e-9)


def test_filters_turn_with_the_image():
    image = speckled(np.where(np.arange(21) < 9, 0.02, 0.4) + np.zeros((16, 1)), 3)
    inside = np.s_[3:-3, 3:-3]  # at the border, two parts of a window may tie, and the first is taken
    for apply in FILTERS.values():
        np.testing.assert_allclose(apply(image[::-1, ::-1])[inside], apply(image)[::-1, ::-1][inside])
        np.testing.assert_allclose(apply(image.T)[inside], apply(image).T[inside])
        np.testing.assert_allclose(apply(7 * image), 7 * apply(image))


def test_despeckle_takes_any_unit_and_all_bands():
    bands = np.stack([speckled(np.full((20, 15), level), 4, seed) for seed, level in enumerate((0.1, 0.02))])
    bands[0, 3, 3] = np.nan
    for method, apply in FILTERS.items():
        expected = np.stack([apply(band) for band in bands])
        for unit in ("db", "linear", "amplitude"):
            found = despeckle(from_intensity(bands, unit), method, unit)
            np.testing.assert_allclose(intensity(found, unit), expected, rtol=1e-6)
    assert despeckle(bands[0], "lee", "linear").shape == (20, 15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda image: despeckle(image, "frost", "db"), "no speckle filter 'frost'"),
        (lambda image: lee(image, size=4), "odd number of pixels, and 4"),
        (lambda image: lee(image, looks=0), "number of looks is 0"),
        (lambda image: refined_lee(image[None]), "one band"),
        (lambda image: equivalent_looks(image * np.nan), "at least two values"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(InputError, match=message):
        call(np.ones((5, 6)))
