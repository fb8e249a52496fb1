"""How sure a score is, and whether two methods differ: resampling whole images.

Pixels of one image depend on each other, images (more or less) don't; so images are what is drawn.  A score of a set
is a function of sums over its images, hence a resampled set is one row of a matrix product:

    totals (R, F) = times (R, n) @ counts (n, F),      times[r, i]: how often image i was drawn in resample r.

Everything is deterministic for a seed, and doesn't depend on the order in which the images were counted, since they
are taken in the order of their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from rsovlib.errors import InputError, unknown_name
from rsovlib.metrics.state import check_mergeable

Floats = NDArray[np.float64]
Table: TypeAlias = NDArray[np.integer[Any]] | Floats | sparse.csr_array
Statistic = Callable[[Floats], Floats]
Method = Literal["percentile", "bca"]

# Resamples are drawn in portions, so that no array of them is larger than this (32 MB).
_CHUNK_NUMBERS = 4_000_000


class ImageScores(Protocol):
    """What intervals and tests ask of scores: :class:`SegmentationMetrics` and :class:`PerImageSoftMetrics` have it."""

    @property
    def images(self) -> list[str]:
        """Names of the images."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the scores were made with."""

    def table(self) -> Any:
        """Counts (n, F) of the images."""

    def scores_of(self, totals: Any) -> dict[str, Floats]:
        """Name -> scores of each row of totals."""


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval.

    Attributes:
        value: of the whole set.
        low: lower end.
        high: upper end.
        level: of confidence, as a fraction.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Comparison:
    """The first method against the second, on the same images.

    Attributes:
        score: which one is compared.
        difference: first minus second of the whole set, with its paired bootstrap interval.
        p_exchange: two-sided p-value of the difference of the whole set if it didn't matter which method is which:
            in every image the two may be exchanged (Fisher's randomisation test).  The one that fits pooled scores.
        mean_image_difference: mean over the images of the difference of their own scores.
        p_sign_flip: two-sided p-value of that mean, by flipping signs (``scipy.stats.permutation_test``).
        p_wilcoxon: two-sided p-value of Wilcoxon's signed-rank test of these differences (``scipy.stats.wilcoxon``).
        images: how many images were compared.
        images_scored: how many of them have this score on their own; the last three numbers are about these.
    """

    score: str
    difference: Interval
    p_exchange: float
    mean_image_difference: float
    p_sign_flip: float
    p_wilcoxon: float
    images: int
    images_scored: int


def confidence_interval(
    metrics: ImageScores,
    score: str = "miou",
    *,
    level: float = 0.95,
    resamples: int = 2000,
    method: Method = "percentile",
    seed: int = 0,
) -> Interval:
    """A score of a set with its bootstrap interval over the images.

    Args:
        metrics: counts of single images: ``SegmentationMetrics(..., keep_images=True)`` or ``PerImageSoftMetrics``.
        score: a name of ``scores_of``: ``"miou"``, ``"boundary_f1"``, ``"iou/water"``, ``"cloudy/miou"``, ...
        level: of confidence, between 0 and 1.
        resamples: R.
        method: ``"percentile"``, or ``"bca"`` (bias-corrected and accelerated, Efron 1987,
            doi:10.1080/01621459.1987.10478410), which is better for skewed scores of few images.
        seed: of the resampling.

    Returns:
        The value and its interval.

    Raises:
        InputError: an unknown score, fewer than two images, or settings that make no sense.
    """
    statistic = _statistic(metrics, score)
    return bootstrap(metrics.table(), statistic, level=level, resamples=resamples, method=method, seed=seed)


def compare(
    first: ImageScores,
    second: ImageScores,
    score: str = "miou",
    *,
    level: float = 0.95,
    resamples: int = 2000,
    method: Method = "percentile",
    seed: int = 0,
) -> Comparison:
    """Whether the first method is better than the second on the same images.

    Args:
        first: counts of one method.
        second: counts of the other, of images of the same names, with the same settings.
        score: which score, as in :func:`confidence_interval`.
        level: of confidence.
        resamples: of the bootstrap and of both randomisation tests.
        method: of the interval.
        seed: of the resampling.

    Returns:
        The difference, its interval and p-values.

    Raises:
        InputError: other images, an unknown score, or settings that make no sense.
    """
    names = first.images
    if names != second.images:
        odd = sorted(set(names) ^ set(second.images))
        raise InputError(
            f"The methods were scored on different images ({len(names)} and {len(second.images)}); "
            f"{odd[0]!r} is in one of them only."
        )
    check_mergeable(first.settings, second.settings, "Scores")
    statistic = _statistic(first, score)
    tables = first.table(), second.table()
    difference = bootstrap(tables[0], statistic, tables[1], level=level, resamples=resamples, method=method, seed=seed)
    own = statistic(_dense(tables[0])) - statistic(_dense(tables[1]))
    own = own[~np.isnan(own)]
    flip, wilcoxon = _tests_of_images(own, resamples, seed)
    return Comparison(
        score=score,
        difference=difference,
        p_exchange=_exchange_test(tables[0], tables[1], statistic, resamples, seed),
        mean_image_difference=float(own.mean()) if own.size else float("nan"),
        p_sign_flip=flip,
        p_wilcoxon=wilcoxon,
        images=len(names),
        images_scored=own.size,
    )


def bootstrap(
    counts: Table,
    statistic: Statistic,
    other: Table | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    method: Method = "percentile",
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of a function of sums over images, or of its difference between two methods (paired).

    Args:
        counts: (n, F) of the images.
        statistic: (R, F) sums -> (R,) values; may give ``nan`` for a resample in which the score doesn't exist,
            which is then left out.
        other: the same of the method to compare with, image by image; the value is then first minus other.
        level: of confidence, between 0 and 1.
        resamples: R.
        method: ``"percentile"`` or ``"bca"``.
        seed: of the resampling.

    Returns:
        The value on the whole set and its interval; ``nan`` where the score doesn't exist.

    Raises:
        InputError: fewer than two images, different numbers of them, or settings that make no sense.
    """
    images = _checked(counts, other, level, resamples, method)
    tables = [counts] if other is None else [counts, other]

    def value_of(times: Floats) -> Floats:
        values = [statistic(np.asarray(times @ table, dtype=np.float64)) for table in tables]
        return values[0] if other is None else values[0] - values[1]

    value = float(value_of(np.ones((1, images)))[0])
    samples = np.concatenate([value_of(times) for times in _draws(images, resamples, counts.shape[1], seed)])
    samples = samples[~np.isnan(samples)]
    if np.isnan(value) or not samples.size:
        return Interval(value, float("nan"), float("nan"), level)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        totals = [np.asarray(table.sum(axis=0), dtype=np.float64)[None] for table in tables]
        without = [statistic(total - _dense(table)) for total, table in zip(totals, tables, strict=True)]
        tails = _bca_tails(tails, value, samples, without[0] if other is None else without[0] - without[1])
    low, high = np.percentile(samples, 100 * tails)
    return Interval(value, float(low), float(high), level)


def _statistic(metrics: ImageScores, score: str) -> Statistic:
    """A score by its name, as a function of totals."""
    names = metrics.scores_of(np.zeros((1, metrics.table().shape[1])))
    if score not in names:
        raise unknown_name("score", score, names)
    return lambda totals: metrics.scores_of(totals)[score]


def _checked(counts: Table, other: Table | None, level: float, resamples: int, method: str) -> int:
    """Refuse what can't be resampled; the number of images."""
    images = counts.shape[0]
    if images < 2:
        raise InputError(f"An interval over images needs at least two of them; there are {images}.")
    if other is not None and other.shape != counts.shape:
        raise InputError(
            f"The two methods have counts of the shapes {counts.shape} and {other.shape}; they must agree."
        )
    if not 0 < level < 1:
        raise InputError(f"level={level}: give a fraction between 0 and 1, such as 0.95.")
    if resamples < 1:
        raise InputError(f"resamples={resamples}: draw at least once, better 2000 times.")
    if method not in get_args(Method):
        raise unknown_name("kind of bootstrap interval", method, get_args(Method))
    return images


def _draws(images: int, resamples: int, columns: int, seed: int) -> Iterator[Floats]:
    """How often each image is drawn, in portions of some resamples: (portion, n)."""
    rng = np.random.default_rng(seed)
    portion = max(1, _CHUNK_NUMBERS // max(images, columns))
    chances = np.full(images, 1 / images)
    for start in range(0, resamples, portion):
        yield rng.multinomial(images, chances, size=min(portion, resamples - start)).astype(np.float64)


def _bca_tails(tails: Floats, value: float, samples: Floats, without: Floats) -> Floats:
    """The percentiles that BCa takes in place of ``tails`` (Efron 1987, section 3, with the jackknife's acceleration).

    Args:
        tails: (2,) nominal.
        value: on the whole set.
        samples: of the resamples.
        without: (n,) with each image left out.
    """
    # A value that is equal counts half, as in scipy: else a discrete score is called biased.
    share = ((samples < value).mean() + (samples <= value).mean()) / 2
    if share in (0.0, 1.0):  # nothing, or everything, lies below: no bias can be told
        return tails
    bias = stats.norm.ppf(share)
    without = without[~np.isnan(without)]
    pulls = without.mean() - without if without.size else np.zeros(1)
    spread = (pulls**2).sum() ** 1.5
    acceleration = (pulls**3).sum() / (6 * spread) if spread > 0 else 0.0
    shifted = bias + stats.norm.ppf(tails)
    return stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))


def _exchange_test(first: Table, second: Table, statistic: Statistic, resamples: int, seed: int) -> float:
    """Two-sided p-value of the difference of pooled scores when the two methods are exchanged in random images."""
    sums = [np.asarray(table.sum(axis=0), dtype=np.float64)[None] for table in (first, second)]
    observed = float((statistic(sums[0]) - statistic(sums[1]))[0])
    if np.isnan(observed):
        return float("nan")
    gap = second - first
    rng = np.random.default_rng(seed)
    portion = max(1, _CHUNK_NUMBERS // max(first.shape))
    extreme = drawn = 0
    for start in range(0, resamples, portion):
        swaps = rng.integers(0, 2, (min(portion, resamples - start), first.shape[0])).astype(np.float64)
        moved = np.asarray(swaps @ gap, dtype=np.float64)
        found = statistic(sums[0] + moved) - statistic(sums[1] - moved)
        found = found[~np.isnan(found)]
        extreme += int((np.abs(found) >= abs(observed) - 1e-12).sum())
        drawn += found.size
    return (extreme + 1) / (drawn + 1)  # what was observed is one of the arrangements


def _tests_of_images(differences: Floats, resamples: int, seed: int) -> tuple[float, float]:
    """Two-sided p-values of differences of single images: sign flips, and Wilcoxon's."""
    if differences.size < 2:
        return float("nan"), float("nan")
    if not differences.any():
        return 1.0, 1.0
    flips = stats.permutation_test(
        (differences,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        vectorized=True,
        batch=max(1, _CHUNK_NUMBERS // differences.size),
        random_state=np.random.default_rng(seed),  # the name that all scipy from 1.13 on know
    )
    return float(flips.pvalue), float(stats.wilcoxon(differences).pvalue)


def _dense(table: Table) -> Floats:
    return np.asarray(table if isinstance(table, np.ndarray) else table.toarray(), dtype=np.float64)
