"""Bootstrap intervals and paired tests against scipy's, against exact enumeration, and in cases with a known answer."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse, stats

from rsovlib.errors import InputError
from rsovlib.metrics import PerImageSoftMetrics, SegmentationMetrics, bootstrap, compare, confidence_interval

CLASSES = ["water", "forest", "road"]


def scored(error: float, images: int = 12, seed: int = 0, order: int = 1) -> SegmentationMetrics:
    """A method that is wrong in a share of the pixels; the images are the same for every method."""
    metrics = SegmentationMetrics(CLASSES, unseen=["road"], keep_images=True)
    for number in range(images)[::order]:
        rng = np.random.default_rng((number, seed))
        true = np.random.default_rng(number).integers(0, 2 + number % 2, (9, 7))
        wrong = rng.random(true.shape) < error * (0.5 + rng.random())
        metrics.update(np.where(wrong, (true + 1) % 3, true), true, image=f"tile {number:02}")
    return metrics


def mean_of(totals: np.ndarray) -> np.ndarray:
    """Of a table with the values in the first column and ones in the second."""
    return totals[:, 0] / totals[:, 1]


def table_of(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)


def test_the_interval_is_that_of_images_drawn_one_by_one():
    metrics = scored(0.3)
    found = confidence_interval(metrics, "miou", resamples=50, seed=3)
    assert found.value == metrics.compute()["miou"]
    times = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=50)
    samples = []
    for row in times:
        drawn = SegmentationMetrics(CLASSES, boundary_tolerance=None, boundary_width=None)
        for image, count in zip(metrics.images, row, strict=True):
            number = int(image.split()[1])
            rng = np.random.default_rng((number, 0))
            true = np.random.default_rng(number).integers(0, 2 + number % 2, (9, 7))
            wrong = rng.random(true.shape) < 0.3 * (0.5 + rng.random())
            for _ in range(count):
                drawn.update(np.where(wrong, (true + 1) % 3, true), true)
        samples.append(drawn.compute()["miou"])
    np.testing.assert_allclose([found.low, found.high], np.percentile(samples, [2.5, 97.5]), rtol=1e-12)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bca_is_scipys_bca(level: float):
    """Given the same resamples, scipy and we must find the same ends: it then only computes the percentiles."""
    values = np.random.default_rng(1).exponential(size=25) ** 2  # skewed
    found = bootstrap(table_of(values), mean_of, level=level, resamples=999, method="bca", seed=5)
    times = np.random.default_rng(5).multinomial(25, np.full(25, 1 / 25), size=999)
    samples = times @ values / 25
    prior = replace(
        stats.bootstrap((values,), np.mean, n_resamples=2, method="percentile"), bootstrap_distribution=samples
    )
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=0, bootstrap_result=prior, confidence_level=level, method="BCa"
    ).confidence_interval
    np.testing.assert_allclose([found.low, found.high], [theirs.low, theirs.high], rtol=1e-9)
    plain = bootstrap(table_of(values), mean_of, level=level, resamples=999, seed=5)
    assert found.low > plain.low  # it moves towards the long tail
    assert found.high > plain.high


def test_bca_of_a_pooled_score():
    """The jackknife leaves whole images out; scipy is handed images as indices."""
    metrics = scored(0.4, images=9)
    table = metrics.table().toarray()

    def miou(indices: np.ndarray, axis: int = -1) -> np.ndarray:
        rows = np.moveaxis(np.asarray(indices), axis, -1)
        return metrics.scores_of(table[rows].sum(axis=-2).reshape(-1, table.shape[1]))["miou"].reshape(rows.shape[:-1])

    found = confidence_interval(metrics, "miou", resamples=400, method="bca", seed=2)
    times = np.random.default_rng(2).multinomial(9, np.full(9, 1 / 9), size=400)
    samples = metrics.scores_of(times @ table)["miou"]
    prior = replace(
        stats.bootstrap((np.arange(9),), miou, n_resamples=2, method="percentile"), bootstrap_distribution=samples
    )
    theirs = stats.bootstrap(
        (np.arange(9),), miou, n_resamples=0, bootstrap_result=prior, method="BCa"
    ).confidence_interval
    np.testing.assert_allclose([found.low, found.high], [theirs.low, theirs.high], rtol=1e-9)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_interval_of_a_mean_is_the_textbooks(method: str):
    values = np.random.default_rng(2).normal(3, 1, 400)
    found = bootstrap(table_of(values), mean_of, method=method)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_large_sets_are_drawn_in_portions_with_the_same_result(monkeypatch):
    table = table_of(np.random.default_rng(3).random(30))
    whole = bootstrap(table, mean_of, resamples=200)
    monkeypatch.setattr("rsovlib.metrics.uncertainty._CHUNK_NUMBERS", 300)
    assert bootstrap(table, mean_of, resamples=200) == whole
    kept = bootstrap(sparse.csr_array(table), mean_of, resamples=200)
    assert (kept.value, kept.low, kept.high) == pytest.approx((whole.value, whole.low, whole.high), rel=1e-12)


def test_the_same_for_a_seed_and_for_any_order_of_the_images():
    forwards, backwards = scored(0.3), scored(0.3, order=-1)
    halves = [scored(0.3) for _ in range(2)]
    assert confidence_interval(forwards, seed=1) == confidence_interval(backwards, seed=1)
    assert confidence_interval(forwards, seed=1) != confidence_interval(forwards, seed=2)
    assert compare(forwards, scored(0.4, seed=9)) == compare(backwards, scored(0.4, seed=9, order=-1))
    assert halves[0].images == sorted(halves[0].images)


def test_a_method_against_itself():
    found = compare(scored(0.3), scored(0.3))
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
    assert (found.p_exchange, found.p_sign_flip, found.p_wilcoxon) == (1, 1, 1)


def test_a_method_against_a_much_worse_one_and_back():
    better, worse = scored(0.1), scored(0.5, seed=1)
    found, back = compare(better, worse), compare(worse, better)
    assert 0 < found.difference.low < found.difference.value < found.difference.high
    assert found.difference.value == pytest.approx(better.compute()["miou"] - worse.compute()["miou"])
    for p in (found.p_exchange, found.p_sign_flip, found.p_wilcoxon):
        assert 0 < p < 0.01
    assert back.difference.value == -found.difference.value
    assert back.p_exchange == found.p_exchange
    assert back.p_wilcoxon == found.p_wilcoxon
    assert (found.images, found.images_scored) == (12, 12)


def test_the_difference_is_paired():
    """Images of very different difficulty: the methods' own intervals overlap, that of their difference is narrow."""
    hard = np.linspace(0, 1, 30)
    first, second = table_of(hard + 0.02), table_of(hard)
    own, gain = bootstrap(second, mean_of), bootstrap(first, mean_of, second)
    assert own.high - own.low > 0.1
    assert gain.low == pytest.approx(0.02)
    assert gain.high == pytest.approx(0.02)


def test_the_exchange_test_is_the_exact_one():
    """All 2^8 ways of exchanging the methods, against the share that the test estimates."""
    first, second = scored(0.3, images=8), scored(0.4, images=8, seed=4)
    a, b = first.table().toarray(), second.table().toarray()

    def miou(rows: np.ndarray) -> float:
        return float(first.scores_of(rows.sum(axis=0)[None])["miou"][0])

    observed = abs(miou(a) - miou(b))
    extreme = 0
    for swaps in itertools.product((False, True), repeat=8):
        swapped = np.array(swaps)[:, None]
        extreme += abs(miou(np.where(swapped, b, a)) - miou(np.where(swapped, a, b))) >= observed - 1e-12
    exact = extreme / 2**8
    assert 0.02 < exact < 0.98
    assert compare(first, second, resamples=5000).p_exchange == pytest.approx(exact, abs=0.03)


def test_tests_of_single_images_are_scipys():
    first, second = scored(0.3), scored(0.4, seed=4)
    found = compare(first, second, "pixel_accuracy", resamples=5000)
    own = [m.scores_of(m.table().toarray())["pixel_accuracy"] for m in (first, second)]
    assert found.mean_image_difference == pytest.approx((own[0] - own[1]).mean())
    assert found.p_wilcoxon == stats.wilcoxon(own[0], own[1]).pvalue
    signs = np.array(list(itertools.product((-1, 1), repeat=12)))
    flipped = np.abs(signs @ (own[0] - own[1]))
    exact = (flipped >= flipped[-1] - 1e-12).mean()
    assert found.p_sign_flip == pytest.approx(exact)  # 2^12 < 5000: scipy goes through all of them


def test_null_p_values_are_not_small_too_often():
    """Two methods that are equally good: p-values below 0.2 in about a fifth of the cases."""
    small = []
    for case in range(60):
        first, second = scored(0.3, images=8, seed=2 * case + 10), scored(0.3, images=8, seed=2 * case + 11)
        small.append(compare(first, second, resamples=200).p_exchange < 0.2)
    assert 0.05 < np.mean(small) < 0.35


def test_a_score_that_some_images_do_not_have():
    """Every second image has no road: resamples without any leave it out, as do tests of single images."""
    first, second = scored(0.2), scored(0.4, seed=1)
    found = compare(first, second, "iou/road")
    assert (found.images, found.images_scored) == (12, 6)
    lonely = SegmentationMetrics(CLASSES, unseen=["road"], keep_images=True)
    lonely.update(np.array([[2, 2, 0]]), np.array([[2, 2, 2]]), image="road")
    lonely.update(np.array([[0]]), np.array([[0]]), image="water")
    interval = confidence_interval(lonely, "miou_unseen")
    assert (interval.value, interval.low, interval.high) == pytest.approx((2 / 3,) * 3)
    never = SegmentationMetrics(CLASSES, keep_images=True)
    for name in "ab":
        never.update(np.array([[0, 1]]), np.array([[0, 1]]), image=name)
    interval = confidence_interval(never, "miou_unseen")
    assert np.isnan([interval.value, interval.low, interval.high]).all()
    assert np.isnan(compare(never, never, "miou_unseen").p_exchange)


def test_soft_scores_have_intervals_too():
    methods = [PerImageSoftMetrics("tree"), PerImageSoftMetrics("tree")]
    rng = np.random.default_rng(0)
    for number in range(10):
        mask = (rng.random((8, 9)) < 0.4) & (number != 3)
        for metrics, noise in zip(methods, (0.3, 0.6), strict=True):
            p = np.clip(mask * (1 - noise) + noise * rng.random(mask.shape), 0, 1)
            metrics.update(p, mask, image=f"tile {number}")
    values = methods[0].per_image()["iou"]
    found = confidence_interval(methods[0], "soft_iou_per_image", seed=4)
    direct = bootstrap(table_of(values), mean_of, seed=4)
    assert (found.value, found.low, found.high) == pytest.approx((direct.value, direct.low, direct.high), rel=1e-12)
    better = compare(*methods, "soft_iou_per_image")
    assert better.difference.low > 0
    assert better.p_wilcoxon < 0.01


def test_printed_with_its_ends():
    assert str(confidence_interval(scored(0), "miou")) == "1 [1, 1]"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"score": "mio"}, "Did you mean 'miou'"),
        ({"level": 95}, "level=95"),
        ({"resamples": 0}, "resamples=0"),
        ({"method": "basic"}, "choose one of bca, percentile"),
    ],
)
def test_settings_that_make_no_sense(arguments: dict, sentence: str):
    with pytest.raises(InputError, match=sentence):
        confidence_interval(scored(0.3), **arguments)


def test_sets_that_can_not_be_compared():
    with pytest.raises(InputError, match="'tile 11' is in one of them only"):
        compare(scored(0.3), scored(0.3, images=11))
    with pytest.raises(InputError, match="at least two"):
        confidence_interval(scored(0.3, images=1))
    with pytest.raises(InputError, match="they must agree"):
        bootstrap(np.ones((3, 2)), mean_of, np.ones((4, 2)))
    other = SegmentationMetrics([*CLASSES, "roof"], keep_images=True)
    for name in scored(0.3).images:
        other.update(np.array([[0]]), np.array([[0]]), image=name)
    with pytest.raises(InputError, match="different classes don't go together"):
        compare(scored(0.3), other)
