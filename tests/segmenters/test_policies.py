"""Each attention policy against its formula, written out slowly in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import DBSCAN

from rsovlib.errors import InputError
from rsovlib.segmenters import policies
from rsovlib.segmenters.pamr import pamr

GRID = (3, 4)
TOKENS = 1 + GRID[0] * GRID[1]
HEADS, SIZE = 2, 5


def softmax(row):
    """Of a list of numbers; -inf are left out."""
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [value / sum(powers) for value in powers]


def slow_softmax_product(a, b, add=None):
    """softmax(s a b^T + add), entry by entry."""
    heads, tokens, size = a.shape[1:]
    out = np.zeros((heads, tokens, tokens))
    for head in range(heads):
        for i in range(tokens):
            row = [
                sum(a[0, head, i, c] * b[0, head, j, c] for c in range(size)).item() / size**0.5 for j in range(tokens)
            ]
            if add is not None:
                row = [value + float(add[i, j]) for j, value in enumerate(row)]
            out[head, i] = softmax(row)
    return out


def slow_omega(grid, sigma, class_token=True):
    rows, columns = grid
    cells = [(i, j) for i in range(rows) for j in range(columns)]
    first = int(class_token)
    out = np.zeros((first + len(cells),) * 2)
    for a, (i, j) in enumerate(cells):
        for b, (m, n) in enumerate(cells):
            out[first + a, first + b] = math.exp(-((i - m) ** 2 + (j - n) ** 2) / (2 * sigma**2))
    return out


@pytest.fixture(scope="module")
def qkv():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(1, HEADS, TOKENS, SIZE, generator=generator, dtype=torch.float64) for _ in range(3))


def close(got, expected):
    np.testing.assert_allclose(np.asarray(got), expected, rtol=0, atol=1e-6)


# ---- CLIP's own q, k and v ------------------------------------------------------------------------------------


def test_the_original_attention(qkv):
    q, k, _ = qkv
    close(policies.query_key(q, k)[0], slow_softmax_product(q, k))


def test_queries_with_queries(qkv):
    q = qkv[0]
    close(policies.query_query(q)[0], slow_softmax_product(q, q))


def test_correlative_attention_is_a_sum_not_a_mean(qkv):
    q, k, _ = qkv
    got = policies.correlative(q, k)[0]
    close(got, slow_softmax_product(q, q) + slow_softmax_product(k, k))
    close(got.sum(dim=-1), np.full((HEADS, TOKENS), 2.0))


def test_self_self_attention(qkv):
    close(policies.self_self(*qkv)[0], sum(slow_softmax_product(x, x) for x in qkv))


@pytest.mark.parametrize("class_token", [True, False])
def test_the_neighbourhood(qkv, class_token):
    got = policies.neighbourhood(GRID, 1.7, class_token=class_token, like=qkv[0])
    close(got, slow_omega(GRID, 1.7, class_token))
    if class_token:
        assert not got[0].any()
        assert not got[:, 0].any()


def test_neighbour_aware_attention(qkv):
    k = qkv[1]
    omega = slow_omega(GRID, 2.0)
    close(policies.neighbour_aware(k, torch.from_numpy(omega))[0], slow_softmax_product(k, k, omega))


# ---- ResCLIP --------------------------------------------------------------------------------------------------


def slow_feedback(classes, sigma, decay):
    height, width = classes.shape
    cells = [(i, j) for i in range(height) for j in range(width)]
    longest = max(height, width) - 1
    same = np.zeros((len(cells),) * 2)
    for a, (i, j) in enumerate(cells):
        for b, (m, n) in enumerate(cells):
            if classes[i, j] != classes[m, n]:
                continue
            steps = max(abs(m - i), abs(n - j))
            line = [(i + round(t * (m - i) / steps), j + round(t * (n - j) / steps)) for t in range(1, steps + 1)]
            leaves = any(classes[cell] != classes[i, j] for cell in line)
            same[a, b] = math.exp(-steps / longest) if leaves and decay else 1.0
    kernel = [math.exp(-(t**2) / (2 * sigma**2)) for t in range(-15, 16)]
    smooth = np.zeros_like(same)
    for a in range(len(cells)):
        for b in range(len(cells)):
            taps = [(b + t, kernel[t + 15] / sum(kernel)) for t in range(-15, 16)]
            smooth[a, b] = max(0.0, sum(weight * same[a, c] for c, weight in taps if 0 <= c < len(cells)))
        smooth[a] /= smooth[a].sum() + 1e-8
    return np.pad(smooth / smooth.max(), ((1, 0), (1, 0)))


@pytest.mark.parametrize("decay", [True, False])
def test_class_feedback_follows_straight_lines(decay):
    classes = np.random.default_rng(2).integers(0, 3, (6, 5))
    classes[2:4] = 1  # a band that lines of other classes must cross
    close(policies.class_feedback(torch.from_numpy(classes), 2.0, decay=decay), slow_feedback(classes, 2.0, decay))
    assert not np.allclose(slow_feedback(classes, 2.0, True), slow_feedback(classes, 2.0, False))


def test_feedback_of_a_single_patch_or_class():
    assert policies.class_feedback(torch.zeros(1, 1, dtype=torch.long)).tolist() == [[0, 0], [0, 1]]
    assert policies.class_feedback(torch.zeros(2, 3, dtype=torch.long))[1:, 1:].min() > 0.8


def test_both_steps_of_residual_attention(qkv):
    q, k, _ = qkv
    omega, feedback = slow_omega(GRID, 5.0), slow_feedback(np.arange(12).reshape(GRID) % 2, 5.0, True)
    earlier = slow_softmax_product(q, k)
    expected = np.zeros((HEADS, TOKENS, TOKENS))
    for head in range(HEADS):
        for i in range(TOKENS):
            row = []
            for j in range(TOKENS):
                product = sum(k[0, head, i, c] * k[0, head, j, c] for c in range(SIZE)).item() / SIZE**0.5
                row.append(2.1 * ((1 - 0.6) * product + 0.6 * feedback[i, j]) + omega[i, j])
            expected[head, i] = softmax(row)
    got = policies.with_feedback(k, torch.from_numpy(feedback), torch.from_numpy(omega), 0.6, 2.1)
    close(got[0], expected)
    mixed = policies.cross_residual(got, torch.from_numpy(earlier)[None], 0.3, 2.0)
    close(mixed[0], 2.0 * (0.7 * expected + 0.3 * earlier))


# ---- another network's features -------------------------------------------------------------------------------


def slow_cosines(features):
    count = len(features)
    lengths = [math.sqrt(sum(value**2 for value in row)) for row in features.tolist()]
    return np.array(
        [
            [float((features[i] * features[j]).sum()) / (lengths[i] * lengths[j]) for j in range(count)]
            for i in range(count)
        ]
    )


@pytest.fixture(scope="module")
def structure():
    """(12, 7) features, float64, with a common direction as a network's have."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(12, 7, generator=generator, dtype=torch.float64) + 0.5


def test_proxy_attention(structure):
    cosines = slow_cosines(structure)
    mean = cosines.mean()
    expected = []
    for row in cosines:
        centred = [3.0 * (value - 1.2 * mean) for value in row]
        expected.append(softmax([value if value >= 0 else -math.inf for value in centred]))
    close(policies.proxy(structure[None], 1.2, 3.0)[0], expected)
    assert (np.array(expected) == 0).any()


def test_proxy_attention_where_nothing_is_above_the_mean():
    same = torch.ones(1, 4, 3, dtype=torch.float64)
    close(policies.proxy(same)[0], np.eye(4))


def test_scoped_correlation(structure):
    cosines = slow_cosines(structure)
    regions = [0, 0, 1, 1, 1, -1, -1, 2, 2, 0, 1, 2]
    expected = []
    for i, row in enumerate(cosines):
        allowed = []
        for j, value in enumerate(row):
            if regions[i] < 0 or regions[j] < 0:
                inside = value > cosines.mean()
            else:
                inside = regions[i] == regions[j]
            allowed.append(4.0 * value if inside else -math.inf)
        expected.append(softmax(allowed))
    close(policies.scoped_correlation(structure, torch.tensor(regions), 4.0), expected)


@pytest.mark.parametrize("reach", [0.05, 0.2, 0.6])
def test_regions_are_merged_as_dbscan_does(reach):
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(60, 4, generator=generator, dtype=torch.float64) + 0.6
    regions = torch.arange(60) % 12
    regions[-5:] = -1
    merged = policies.merge_regions(features, regions, reach)
    unit = features / features.norm(dim=1, keepdim=True)
    means = torch.stack([unit[regions == region].mean(dim=0) for region in range(12)])
    means = means / means.norm(dim=1, keepdim=True)
    cosines = (means @ means.T).numpy()
    distance = np.clip(cosines.max() - cosines, 0, None)
    joined = DBSCAN(eps=reach, min_samples=1, metric="precomputed").fit_predict(distance)
    assert (merged[regions < 0] == -1).all()
    got = merged[:12].numpy()
    np.testing.assert_array_equal(got[:, None] == got, joined[:, None] == joined)
    np.testing.assert_array_equal(merged[regions >= 0], got[regions[regions >= 0]])


def test_a_single_region_is_not_merged():
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(5))
    assert policies.merge_regions(features, torch.tensor([7, 7, -1, 7])).tolist() == [0, 0, -1, 0]


# ---- CASS -----------------------------------------------------------------------------------------------------


def slow_spectrum(keys, count):
    out = []
    for head in keys.numpy():
        values = np.sort(np.linalg.eigvalsh(head @ head.T / math.sqrt(head.shape[1])))[::-1][:count]
        values = np.clip(values, 0, None)
        values = np.pad(values, (0, count - len(values)))
        values = values / math.sqrt((values**2).sum())
        out.append(values / values.sum())
    return np.array(out)


@pytest.mark.parametrize("count", [3, 20])
def test_spectra(count):
    keys = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    close(policies.spectrum(keys, count), slow_spectrum(keys, count))


def slow_low_rank(keys, rank, stretch):
    matrix = keys.numpy() @ keys.numpy().T / math.sqrt(keys.shape[1])
    left, values, right = np.linalg.svd(matrix)
    values = values[:rank]
    if stretch:
        low, high = values.min(), values.max()
        values = [0.5 * low + (value - low) * (1.5 * high - 0.5 * low) / (high - low) for value in values]
    out = sum(value * np.outer(left[:, i], right[i]) for i, value in enumerate(values))
    np.fill_diagonal(out, 0)
    return out


@pytest.mark.parametrize("stretch", [True, False])
def test_the_low_rank_graph(stretch):
    keys = torch.randn(12, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    close(policies.low_rank_graph(keys, 3, stretch=stretch), slow_low_rank(keys, 3, stretch))


@pytest.mark.parametrize("pairing", ["published", "matched"])
def test_the_object_graph(pairing):
    generator = torch.Generator().manual_seed(8)
    clip = torch.randn(3, 12, 6, generator=generator, dtype=torch.float64)
    dino = torch.randn(3, 12, 6, generator=generator, dtype=torch.float64) * 4 + 1
    ranged = (dino - dino.min()) / (dino.max() - dino.min()) * (clip.max() - clip.min()) + clip.min()
    of_dino, of_clip = slow_spectrum(ranged, 4), slow_spectrum(clip, 4)
    distance = np.array([[np.abs(a - b).sum() for b in of_clip] for a in of_dino])
    rows, columns = linear_sum_assignment(1 - distance)
    expected = clip.numpy() @ clip.numpy().transpose(0, 2, 1) / math.sqrt(6)
    for i, j in zip(rows, columns, strict=True):
        head, other = (i, j) if pairing == "published" else (j, i)
        graph = slow_low_rank(ranged[other], 2, True)
        low, high = expected[head].min(), expected[head].max()
        graph = (graph - graph.min()) / (graph.max() - graph.min()) * (high - low) + low
        weight = 10 * distance[i, j]
        expected[head] = (weight * graph + expected[head]) / (weight + 1)
    close(policies.object_graph(clip, dino, count=4, rank=2, pairing=pairing), expected)


def test_unequal_numbers_of_heads():
    generator = torch.Generator().manual_seed(9)
    clip, dino = (torch.randn(heads, 12, 6, generator=generator) for heads in (2, 3))
    assert policies.object_graph(clip, dino, pairing="matched").shape == (2, 12, 12)
    # Heads that find no partner keep their own graph.
    few = policies.object_graph(clip, dino[:1], pairing="matched")
    assert sum(torch.equal(a, b) for a, b in zip(few, policies.scaled_product(clip), strict=True)) == 1
    with pytest.raises(InputError, match="head_pairing='matched'"):
        policies.object_graph(clip, dino)


# ---- CLIPer, PAMR ---------------------------------------------------------------------------------------------


def test_a_chain_of_attention():
    maps = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    expected = np.eye(6)
    for single in maps.numpy():
        scaled = np.array([[single[i, j] / max(single[:, j]) for j in range(6)] for i in range(6)])
        scaled[scaled < 0.4] = 0
        expected = expected @ np.array([row / (row.sum() + 1e-5) for row in scaled])
    close(policies.attention_chain(maps, 0.4), expected)
    with pytest.raises(InputError, match="at least one"):
        policies.attention_chain(maps[:0])


def test_pamr_step_by_step():
    generator = torch.Generator().manual_seed(11)
    image = torch.randn(3, 7, 5, generator=generator, dtype=torch.float64)
    maps = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    height, width, dilations = 7, 5, (1, 3)

    def at(values, row, column):
        return values[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)].numpy()

    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    expected = maps.clone()
    for _ in range(2):
        new = torch.zeros_like(expected)
        for row in range(height):
            for column in range(width):
                every = [at(image, row + a * d, column + b * d) for d in dilations for a, b in steps]
                spread = np.std(every, axis=0, ddof=1)
                places = [(row + a * d, column + b * d) for d in dilations for a, b in steps if (a, b) != (0, 0)]
                logits = [
                    float(np.mean(-np.abs(at(image, row, column) - at(image, *place)) / (1e-8 + 0.1 * spread)))
                    for place in places
                ]
                sums = sum(weight * at(expected, *place) for weight, place in zip(softmax(logits), places, strict=True))
                new[:, row, column] = torch.from_numpy(sums)
        expected = new
    close(pamr(image, maps, 2, dilations), expected)
    assert pamr(image, maps, 0) is maps
    # Other sizes are resized so that corners stay corners.
    small = pamr(image, maps[:, ::2, ::2].contiguous(), 0)
    close(small[:, ::6, ::4], maps[:, ::6, ::4])
