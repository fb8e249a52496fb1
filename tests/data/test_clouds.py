"""Clouds: the cover asked for, the mixing by hand, one result for all kinds of arrays, and the physics' direction."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch

from rsovlib.data.clouds import CLOUD_OPACITY, CLOUD_VERSION, KINDS, PRESETS, add_clouds, add_preset_clouds
from rsovlib.errors import InputError

SHAPE = 61, 47
COVERS = [0.0, 0.01, 0.1, 0.37, 0.5, 0.9, 0.99, 1.0]
ZENITH = {"sun_elevation": 90.0}  # the tops are lit evenly and every shadow lies under its cloud
SENTINEL_2 = [443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190]


@pytest.fixture
def clear() -> np.ndarray:
    """A clear image (61, 47, 3) uint8 that is nowhere black or white."""
    return np.random.default_rng(3).integers(20, 200, (*SHAPE, 3), dtype=np.uint8)


def share(opacity: np.ndarray | torch.Tensor) -> float:
    return float((np.asarray(opacity) > CLOUD_OPACITY).mean())


# --- cover and opacity


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cover", COVERS)
def test_the_cover_is_met_to_the_pixel(clear: np.ndarray, kind: str, cover: float):
    for seed in range(4):
        _, opacity = add_clouds(clear, cover, kind, seed)
        assert opacity.shape == SHAPE
        assert opacity.dtype == np.float32
        assert opacity.min() >= 0
        assert opacity.max() <= 1
        assert abs(share(opacity) - cover) <= 0.5 / opacity.size + 1e-9


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (300, 5)])
@pytest.mark.parametrize("cover", [0.0, 0.5, 1.0])
def test_any_shape_has_its_cover(shape: tuple[int, int], cover: float):
    image = np.full((*shape, 3), 90, np.uint8)
    cloudy, opacity = add_clouds(image, cover, "thick", 1)
    assert cloudy.shape == image.shape
    assert np.isfinite(opacity).all()
    assert abs(share(opacity) - cover) <= 0.5 / opacity.size + 1e-9


def test_without_cover_the_image_comes_back_as_it_was(clear: np.ndarray):
    for kind in KINDS:
        cloudy, opacity = add_clouds(clear, 0, kind, 5, wavelengths=[660, 560, 490], black=7)
        assert np.array_equal(cloudy, clear)
        assert not opacity.any()
        assert not np.shares_memory(cloudy, clear)


def test_thin_and_thick_are_as_opaque_as_they_say(clear: np.ndarray):
    for seed in range(8):
        for cover in (0.05, 0.3, 0.7, 1.0):
            mean = {}
            for kind in KINDS:
                opacity = add_clouds(clear, cover, kind, seed)[1]
                mean[kind] = opacity[opacity > CLOUD_OPACITY].mean()
            assert 0.2 < mean["thin"] < 0.5
            assert 0.6 < mean["thick"] <= 1
            assert mean["thin"] < mean["varied"] < mean["thick"]


def test_varied_clouds_are_thin_in_one_place_and_thick_in_another():
    image = np.full((128, 128, 3), 90, np.uint8)
    both = 0
    for seed in range(6):
        opacity = add_clouds(image, 0.8, "varied", seed)[1]
        inside = opacity[opacity > CLOUD_OPACITY]
        both += (inside < 0.5).mean() > 0.1 and (inside > 0.85).mean() > 0.1
    assert both >= 4


def test_more_cover_grows_the_same_clouds_and_the_kind_leaves_them_in_place(clear: np.ndarray):
    few, many = (add_clouds(clear, cover, "thick", 11)[1] > CLOUD_OPACITY for cover in (0.2, 0.5))
    assert not (few & ~many).any()
    for kind in KINDS:
        assert np.array_equal(add_clouds(clear, 0.5, kind, 11)[1] > CLOUD_OPACITY, many)


def test_clouds_are_clouds_and_not_noise():
    opacity = add_clouds(np.full((128, 128), 90, np.uint8), 0.4, "thick", 2)[1]
    assert np.corrcoef(opacity[:, :-2].ravel(), opacity[:, 2:].ravel())[0, 1] > 0.7
    assert opacity[:64].mean() != pytest.approx(opacity[64:].mean(), abs=0.01), "there are large structures"


# --- determinism


def test_one_seed_is_one_result_and_another_seed_another(clear: np.ndarray):
    first, again, other = (add_clouds(clear, 0.5, "varied", seed) for seed in (1, 1, 2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert np.abs(first[1] - other[1]).mean() > 0.1


def test_this_version_makes_these_clouds():
    """If this fails because clouds are made differently, raise CLOUD_VERSION and write the new values."""
    opacity = add_clouds(np.full((40, 32), 90, np.uint8), 0.5, "varied", 7)[1]
    assert CLOUD_VERSION == 1
    expected = [[0.894, 0.765, 0.396, 0], [0, 0.921, 0, 0], [0, 0, 0.938, 0], [0.392, 0, 0.635, 0]]
    assert opacity[::13, ::10] == pytest.approx(np.array(expected), abs=2e-3)


# --- kinds of arrays


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("known", [False, True])
def test_torch_gives_what_numpy_gives(clear: np.ndarray, dtype: type, known: bool):
    image = (
        (clear / 255).astype(dtype)
        if np.dtype(dtype).kind == "f"
        else clear.astype(dtype) * (1 if dtype == np.uint8 else 40)
    )
    options = {"wavelengths": [660, 560, 490] if known else None, "haze": 0.1}
    array, opacity = add_clouds(image, 0.6, "varied", 4, **options)
    tensor, tensor_opacity = add_clouds(torch.from_numpy(image).permute(2, 0, 1), 0.6, "varied", 4, **options)
    assert array.dtype == image.dtype
    assert tensor.dtype == torch.from_numpy(image).dtype
    assert tensor.shape == (3, *SHAPE)
    assert np.array_equal(tensor_opacity.numpy(), opacity)
    rounding = 1 if np.dtype(dtype).kind != "f" else 1e-6
    assert np.abs(tensor.permute(1, 2, 0).numpy().astype(float) - array.astype(float)).max() <= rounding


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_cuda_device_gives_what_the_processor_gives(clear: np.ndarray):
    image = torch.from_numpy(clear).permute(2, 0, 1)[None] / 255
    here, opacity = add_clouds(image, 0.6, "varied", 4, wavelengths=[660, 560, 490], haze=0.1)
    there, there_opacity = add_clouds(image.cuda(), 0.6, "varied", 4, wavelengths=[660, 560, 490], haze=0.1)
    assert there.is_cuda
    assert there_opacity.is_cuda
    assert torch.allclose(there.cpu(), here, atol=1e-6)
    assert torch.equal(there_opacity.cpu(), opacity)


def test_half_precision_and_gradients(clear: np.ndarray):
    image = torch.from_numpy(clear).permute(2, 0, 1) / 255
    exact = add_clouds(image, 0.5, "thick", 0)[0]
    half = add_clouds(image.half(), 0.5, "thick", 0)[0]
    assert half.dtype == torch.float16
    assert torch.allclose(half.float(), exact, atol=2e-3)
    assert torch.equal(add_clouds(image.requires_grad_(), 0.5, "thick", 0)[0], exact)


def test_a_batch_is_its_images(clear: np.ndarray):
    batch = torch.from_numpy(np.stack([clear, clear[::-1].copy(), clear // 2])).permute(0, 3, 1, 2)
    cloudy, opacity = add_clouds(batch, 0.4, "thick", 5)
    assert opacity.shape == (3, *SHAPE)
    for index, image in enumerate(batch):
        single, single_opacity = add_clouds(image, 0.4, "thick", 5 + index)
        assert torch.equal(cloudy[index], single)
        assert torch.equal(opacity[index], single_opacity)
    mixed, opacity = add_clouds(batch, [0.1, 0.5, 1.0], "thin", [9, 2, 9])
    assert [share(plane) for plane in opacity] == pytest.approx([0.1, 0.5, 1.0], abs=0.001)
    assert torch.equal(mixed[1], add_clouds(batch[1], 0.5, "thin", 2)[0])


def test_a_batch_of_one_keeps_its_dimension(clear: np.ndarray):
    cloudy, opacity = add_clouds(torch.from_numpy(clear).permute(2, 0, 1)[None], 0.4, "thick", 5)
    assert cloudy.shape == (1, 3, *SHAPE)
    assert opacity.shape == (1, *SHAPE)


def test_bands_of_one_place_in_calls_of_their_own_get_the_same_clouds(clear: np.ndarray):
    wavelengths = [660, 560, 490]
    together, opacity = add_clouds(clear, 0.5, "thin", 3, wavelengths=wavelengths)
    for band, wavelength in enumerate(wavelengths):
        alone, alone_opacity = add_clouds(clear[..., band], 0.5, "thin", 3, wavelengths=[wavelength])
        assert np.array_equal(alone, together[..., band])
        assert np.array_equal(alone_opacity, opacity)


def test_views_and_read_only_arrays_are_fine_and_stay_as_they_are(clear: np.ndarray):
    view = clear[::-1, ::2]
    view.flags.writeable = False
    before = view.copy()
    cloudy, _ = add_clouds(view, 0.5, "varied", 1)
    assert np.array_equal(view, before)
    assert np.array_equal(cloudy, add_clouds(before, 0.5, "varied", 1)[0])


# --- the mixing


def test_the_mixing_by_hand():
    image = np.random.default_rng(0).uniform(0, 0.4, (*SHAPE, 3)).astype(np.float32)
    cloudy, opacity = add_clouds(image, 0.5, "varied", 6, shadow=0, brightness=0.8, colour=[1, 0.9, 1.1], **ZENITH)
    alpha = opacity[..., None]
    expected = (1 - alpha) * image + alpha * 0.8 * np.array([1, 0.9, 1.1])
    assert cloudy == pytest.approx(expected, abs=1e-6)


def test_uint16_is_reflectance_times_10000(clear: np.ndarray):
    image = clear.astype(np.uint16) * 20
    numbers = add_clouds(image, 0.5, "varied", 6)[0]
    reflectance = add_clouds(image / 10_000, 0.5, "varied", 6)[0]
    assert np.abs(numbers - 10_000 * reflectance).max() <= 0.51


def test_an_offset_of_the_values_passes_through(clear: np.ndarray):
    image = clear.astype(np.uint16) * 20
    plain = add_clouds(image, 0.5, "varied", 6, haze=0.2, wavelengths=[660, 560, 490])[0]
    offset = add_clouds(
        image + 1000, 0.5, "varied", 6, haze=0.2, wavelengths=[660, 560, 490], black=1000, white=11_000
    )[0]
    assert np.abs(offset.astype(int) - plain - 1000).max() <= 1


def test_integers_do_not_wrap_around():
    bright = np.full((*SHAPE, 3), 255, np.uint8)
    assert add_clouds(bright, 0.5, "thick", 0, brightness=1.0, shadow=0, colour=[1.5] * 3, **ZENITH)[0].min() == 255
    dark = np.zeros((*SHAPE, 3), np.uint8)
    assert add_clouds(dark, 0.5, "thick", 0, black=[200.0] * 3)[0].min() == 0


# --- wavelengths


def test_thin_clouds_veil_blue_more_than_red_by_the_power_law():
    wavelengths = np.array([450, 550, 660, 860])
    black = np.zeros((*SHAPE, 4), np.float32)
    cloudy, opacity = add_clouds(black, 0.6, "thin", 2, wavelengths=wavelengths, brightness=1.0, **ZENITH)
    # Over black ground, what is seen is the opacity of each band.
    expected = 1 - (1 - opacity[..., None].astype(float)) ** ((wavelengths / 550) ** -0.5)
    assert cloudy == pytest.approx(expected, abs=1e-5)
    cloud = opacity > CLOUD_OPACITY
    assert (np.diff(cloudy[cloud].mean(axis=0)) < 0).all()


def test_thick_clouds_are_white_in_the_visible_and_near_infrared():
    cloudy, opacity = add_clouds(np.full((*SHAPE, 4), 0.2), 0.6, "thick", 2, wavelengths=[450, 550, 660, 860], shadow=0)
    core = opacity > 0.9
    assert core.any()
    assert np.ptp(cloudy[core], axis=-1).max() < 1e-6


def test_short_wave_infrared_and_the_cirrus_band():
    ground = np.full((*SHAPE, 5), 0.3)
    ground[..., 2] = 0.001  # nothing of the ground is seen at 1375 nm
    bands = [660, 945, 1375, 1610, 2190]
    water, opacity = add_clouds(ground, 0.5, "thick", 3, wavelengths=bands, phase="water")
    ice, _ = add_clouds(ground, 0.5, "thick", 3, wavelengths=bands, phase="ice")
    core = opacity > 0.95
    red, vapour, cirrus, swir_1, swir_2 = np.moveaxis(water[core].mean(axis=0) / water[core].mean(axis=0)[0], -1, 0)
    assert red == 1
    assert vapour < 0.3
    assert cirrus < 0.01
    assert swir_2 < swir_1
    assert ice[core].mean(axis=0)[2] > 0.2 > 100 * ground[0, 0, 2]
    assert (ice[core].mean(axis=0)[3:] < water[core].mean(axis=0)[3:]).all()


def test_a_band_of_unknown_wavelength_is_as_without_wavelengths(clear: np.ndarray):
    some, _ = add_clouds(clear, 0.5, "thin", 3, wavelengths=[490, None, 860])
    none, _ = add_clouds(clear, 0.5, "thin", 3)
    assert np.array_equal(some[..., 1], none[..., 1])
    assert not np.array_equal(some[..., 0], none[..., 0])


def test_without_wavelengths_all_bands_are_alike():
    cloudy, _ = add_clouds(np.full((*SHAPE, 7), 0.25), 0.5, "thin", 3, haze=0.2)
    assert np.ptp(cloudy, axis=-1).max() == 0


def test_cloud_spectra_are_those_of_a_real_patch(shared):
    """Real cumulus over Africa: each band against red inside the clouds, carried on to a dense cloud."""
    with rasterio.open(shared / "data/sen12mscr-cloudy-sample/ROIs1868_summer_s2_cloudy_19_p30.tif") as source:
        real = np.moveaxis(source.read() / 10_000, 0, -1)
    inside = real[..., 3] > 0.25

    def dense(image: np.ndarray, where: np.ndarray) -> np.ndarray:
        lines = [np.polyfit(image[where][:, 3], image[where][:, band], 1) for band in range(13)]
        return np.array([np.polyval(line, 0.7) for line in lines]) / 0.7

    ground = np.median(real[real[..., 3] < 0.15], axis=0)
    cloudy, opacity = add_clouds(np.broadcast_to(ground, real.shape), 0.3, "thick", 1, wavelengths=SENTINEL_2, **ZENITH)
    ours = dense(cloudy, opacity > CLOUD_OPACITY)
    # Every band within 0.2 of the real one, where the bands' ratios to red reach from 0 to 1.2.
    assert np.abs(ours - dense(real, inside)).max() < 0.2


# --- shadows


@pytest.mark.parametrize(
    ("azimuth", "toward"), [(0, (1, 0)), (90, (0, -1)), (180, (-1, 0)), (270, (0, 1)), (135, (-1, -1))]
)
def test_shadows_lie_away_from_the_sun_at_the_right_distance(azimuth: float, toward: tuple[int, int]):
    ground = np.full((96, 96), 0.3)
    cloudy, opacity = add_clouds(
        ground, 0.15, "thick", 8, shadow=0.5, sun_azimuth=azimuth, sun_elevation=45, cloud_height=14
    )
    steps = round(14 / np.hypot(*toward))
    rows, columns = (steps * np.array(toward)).tolist()
    # The cloud that shades a pixel stands `steps` towards the sun; away from the border nothing is mirrored.
    inner = slice(20, 76), slice(20, 76)
    cloud_there = np.roll(opacity, (rows, columns), (0, 1))[inner]
    free = opacity[inner] == 0
    assert (cloud_there[free] > 0.5).sum() > 20, "some shadow lies on open ground"
    light = cloudy[inner][free] / 0.3
    assert light == pytest.approx(1 - 0.5 * (1 - 0.2) * cloud_there[free], abs=1e-6)


def test_no_shadow_when_there_shall_be_none(clear: np.ndarray):
    cloudy, opacity = add_clouds(clear, 0.3, "thick", 8, shadow=0)
    assert np.array_equal(cloudy[opacity == 0], clear[opacity == 0])
    assert np.array_equal(opacity, add_clouds(clear, 0.3, "thick", 8, shadow=1, cloud_height=2000)[1])


def test_shadows_are_blue():
    ground = np.full((*SHAPE, 3), 0.3)
    cloudy, opacity = add_clouds(ground, 0.3, "thick", 8, wavelengths=[490, 660, 860])
    shaded = (opacity == 0) & (cloudy[..., 2] < 0.2)
    assert shaded.sum() > 10
    assert (np.diff(cloudy[shaded].mean(axis=0)) < -0.005).all()


# --- haze


def test_haze_veils_everything_but_is_no_cloud(clear: np.ndarray):
    plain, opacity = add_clouds(clear, 0.3, "thick", 8)
    hazy, hazy_opacity = add_clouds(clear, 0.3, "thick", 8, haze=0.3)
    assert np.array_equal(hazy_opacity, opacity)
    open_ground = opacity == 0
    assert hazy[open_ground].std() < 0.85 * plain[open_ground].std()
    only, none = add_clouds(np.zeros((*SHAPE, 3), np.float32), 0, "thin", 8, haze=0.3, brightness=1.0)
    assert np.array_equal(
        only, add_clouds(np.zeros((*SHAPE, 3), np.float32), 0, "varied", 8, haze=0.3, brightness=1.0)[0]
    )
    assert not none.any()
    assert only.mean() == pytest.approx(0.3, abs=0.03)


def test_haze_is_blue():
    only, _ = add_clouds(np.zeros((*SHAPE, 4), np.float32), 0, "thin", 8, haze=0.3, wavelengths=[490, 660, 1610, 1375])
    blue, red, infrared, cirrus = only.mean(axis=(0, 1))
    assert blue > 1.2 * red > 1.5 * infrared
    assert cirrus == 0, "haze lies below the vapour that closes this band"


# --- pixels without data


@pytest.mark.parametrize("nodata", [0, 37, 255])
def test_nodata_stays_and_no_pixel_becomes_nodata(nodata: int):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    image[image == nodata] = 100
    image[:20] = nodata
    image[30, 5, 1] = nodata  # in one band only
    missing = image == nodata
    for array in (image, torch.from_numpy(image).permute(2, 0, 1)):
        cloudy, opacity = add_clouds(array, 0.5, "varied", 2, nodata=nodata, brightness=1.0, shadow=1, haze=0.1)
        cloudy = np.asarray(cloudy if array is image else cloudy.permute(1, 2, 0))
        opacity = np.asarray(opacity)
        assert np.array_equal(cloudy == nodata, missing)
        assert not opacity[:20].any()
        assert (opacity[20:] > CLOUD_OPACITY).mean() == pytest.approx(0.5, abs=0.001)


def test_nan_stays_and_does_not_spread():
    image = np.random.default_rng(1).uniform(0, 0.5, (*SHAPE, 3)).astype(np.float32)
    image[:, :15] = np.nan
    image[40, 40, 0] = np.nan
    missing = np.isnan(image)
    cloudy, opacity = add_clouds(image, 0.4, "thick", 2)
    assert np.array_equal(np.isnan(cloudy), missing)
    assert not opacity[:, :15].any()
    assert (opacity[:, 15:] > CLOUD_OPACITY).mean() == pytest.approx(0.4, abs=0.001)
    tensor, tensor_opacity = add_clouds(torch.from_numpy(image).permute(2, 0, 1), 0.4, "thick", 2)
    assert np.allclose(tensor.permute(1, 2, 0).numpy(), cloudy, atol=1e-6, equal_nan=True)
    assert np.array_equal(tensor_opacity.numpy(), opacity)


def test_a_batch_counts_the_cover_of_each_image_over_its_own_data():
    batch = torch.rand(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0)) * 0.5
    batch[1, :, :30] = torch.nan
    opacity = add_clouds(batch, 0.5, "thick", 0)[1]
    assert share(opacity[0]) == pytest.approx(0.5, abs=0.001)
    assert share(opacity[1, 30:]) == pytest.approx(0.5, abs=0.001)
    assert not opacity[1, :30].any()


def test_an_image_without_any_data_comes_back():
    for image in (np.full((*SHAPE, 3), np.nan), np.zeros((*SHAPE, 3), np.uint8)):
        cloudy, opacity = add_clouds(image, 0.7, "thick", 0, nodata=0)
        assert np.array_equal(cloudy, image, equal_nan=image.dtype.kind == "f")
        assert not opacity.any()


# --- presets


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_clouds_within_their_range(clear: np.ndarray, name: str):
    preset = PRESETS[name]
    batch = torch.from_numpy(clear).permute(2, 0, 1).expand(6, -1, -1, -1)
    cloudy, opacity = add_preset_clouds(batch, name, 20)
    shares = [share(plane) for plane in opacity]
    assert preset.cover[0] - 0.001 <= min(shares) < max(shares) <= preset.cover[1] + 0.001
    single, single_opacity = add_preset_clouds(clear, name, 23)
    assert np.array_equal(single_opacity, opacity[3].numpy())
    assert np.abs(single.astype(int) - cloudy[3].permute(1, 2, 0).numpy()).max() <= 1
    assert np.array_equal(single_opacity, add_clouds(clear, shares[3], preset.kind, 23)[1])


def test_the_papers_sets_have_presets():
    assert PRESETS["openearthmap-sar-thin"].kind == "thin"
    assert PRESETS["openearthmap-sar-thick"].kind == "thick"
    assert {PRESETS[name].kind for name in ("pie-rgb-sar-cloud", "ddhr-sk", "ddhr-ch", "whu-opt-sar")} == {"varied"}


# --- what can't be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cover": -0.1}, "between 0 and 1"),
        ({"cover": 1.5}, "between 0 and 1"),
        ({"cover": float("nan")}, "between 0 and 1"),
        ({"cover": [0.1, 0.2]}, "2 covers"),
        ({"cover": "half"}, "number"),
        ({"kind": "thik"}, "Did you mean 'thick'"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"seed": [1, 2]}, "2 seeds"),
        ({"wavelengths": [660, 560]}, "3 bands and 2 wavelengths"),
        ({"wavelengths": [0.66, 0.56, 0.49]}, "nanometres"),
        ({"phase": "watr"}, "Did you mean 'water'"),
        ({"haze": 1.2}, "haze"),
        ({"shadow": -1}, "shadow"),
        ({"brightness": 2}, "brightness"),
        ({"sun_elevation": 0}, "sun"),
        ({"sun_azimuth": float("inf")}, "sun"),
        ({"cloud_height": -3}, "height"),
        ({"scale": 0}, "scale"),
        ({"colour": [1, 1]}, "each of the 3 bands"),
        ({"black": [0, float("nan"), 0]}, "finite"),
        ({"white": 0}, "white"),
    ],
)
def test_arguments_that_cannot_be(clear: np.ndarray, changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        add_clouds(clear, **({"cover": 0.5, "kind": "thick", "seed": 0} | changes))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((2, 3, 4, 5), np.uint8), "Batches are torch tensors"),
        (torch.zeros(5), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.zeros((4, 4, 3), complex), "complex128"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "int64"),
        ([[1, 2], [3, 4]], "list"),
        (np.full((4, 4, 3), 255.0), "white="),
    ],
)
def test_images_that_cannot_be(image: object, message: str):
    with pytest.raises(InputError, match=message):
        add_clouds(image, 0.5, "thick", 0)


def test_an_unknown_preset_names_the_nearest(clear: np.ndarray):
    with pytest.raises(InputError, match="openearthmap-sar-thick"):
        add_preset_clouds(clear, "openearthmap-thick")
