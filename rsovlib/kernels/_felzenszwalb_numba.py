"""Felzenszwalb and Huttenlocher's segmentation in compiled code: smoothing, edge costs, sort, union-find.

The arithmetic follows scikit-image's order of operations without fused multiply-adds, so costs agree to the last
bit and so do labels, but for the order of edges of exactly equal cost: there scikit-image leaves the order to an
unstable sort that depends on the processor, and here the edge that comes first in the list of all edges goes first
(right, down, down-right, up-right; each in raster order).

What makes it fast, without changing the result:

* Edges are spread over a few groups of rising cost.  A group is sorted only when its turn comes, and edges whose ends
  have met by then are dropped first: in raster order, where looking up both ends is cheap.
* Sorting is by radix on the float32 rounding of the cost, which keeps the order of all but near-equal costs; runs of
  equal keys are then put in order by the exact costs.
* A root keeps the threshold that a cost must stay below, so no edge needs a division.
* Small segments are merged by going once more only over the edges that were refused, until none is small.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
import numba as nb
import numpy as np

_GROUPS = 24
_KEY_SHIFT = 18  # the histogram that cuts the groups uses the upper 14 bits of the 32-bit keys
_DIGIT = 11


@nb.njit(cache=True, nogil=True)
def smooth(image, weights):  # pragma: no cover
    """Separable symmetric filter of (C, H, W) along H, then W; edges mirrored with the edge pixel repeated."""
    channels, height, width = image.shape
    radius = weights.size - 1
    out = np.empty((channels, height, width))
    padded = np.empty(width + 2 * radius)
    line = np.empty(width)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                line[x] = image[c, y, x] * weights[0]
            for r in range(radius, 0, -1):
                w = weights[r]
                above, below = image[c, _mirror(y - r, height)], image[c, _mirror(y + r, height)]
                for x in range(width):
                    line[x] += (above[x] + below[x]) * w
            for x in range(-radius, width + radius):
                if x < 0 or x >= width:
                    padded[x + radius] = line[_mirror(x, width)]
                else:
                    padded[x + radius] = line[x]
            row = out[c, y]
            for x in range(width):
                row[x] = padded[x + radius] * weights[0]
            for r in range(radius, 0, -1):
                w = weights[r]
                for x in range(width):
                    row[x] += (padded[x + radius - r] + padded[x + radius + r]) * w
    return out


@nb.njit(cache=True, nogil=True)
def _mirror(i, n):
    """Index of the half-sample symmetric extension (d c b a | a b c d | d c b a)."""
    period = 2 * n
    i = i % period
    return i if i < n else period - 1 - i


@nb.njit(cache=True, nogil=True)
def _squares(first, second, total):
    for x in range(total.size):
        d = first[x] - second[x]
        total[x] += d * d


@nb.njit(cache=True, nogil=True)
def _distance(image, y0, x0, y1, x1, n, lanes, cost):
    """Euclidean distance between the bands of n pixels from (y0, x0) and n from (y1, x1)."""
    channels = image.shape[0]
    if channels < 8:
        cost[:n] = 0
        for c in range(channels):
            _squares(image[c, y0, x0 : x0 + n], image[c, y1, x1 : x1 + n], cost[:n])
    else:
        # NumPy adds eight or more terms in eight interleaved sums; the same order gives the same last bit.
        lanes[:, :n] = 0
        whole = channels - channels % 8
        for c in range(whole):
            _squares(image[c, y0, x0 : x0 + n], image[c, y1, x1 : x1 + n], lanes[c % 8, :n])
        for x in range(n):
            low = (lanes[0, x] + lanes[1, x]) + (lanes[2, x] + lanes[3, x])
            cost[x] = low + ((lanes[4, x] + lanes[5, x]) + (lanes[6, x] + lanes[7, x]))
        for c in range(whole, channels):
            _squares(image[c, y0, x0 : x0 + n], image[c, y1, x1 : x1 + n], cost[:n])
    for x in range(n):
        cost[x] = np.sqrt(cost[x])


@nb.njit(cache=True, nogil=True)
def edge_costs(image):  # pragma: no cover
    """Costs (4, H, W) of the edges right, down, down-right and up-right of each pixel; unused slots hold -1."""
    _, height, width = image.shape
    cost = np.full((4, height, width), -1.0)
    lanes = np.empty((8, width))
    for y in range(height):
        _distance(image, y, 1, y, 0, width - 1, lanes, cost[0, y])
        if y + 1 < height:
            _distance(image, y + 1, 0, y, 0, width, lanes, cost[1, y])
            _distance(image, y + 1, 1, y, 0, width - 1, lanes, cost[2, y])
            _distance(image, y + 1, 0, y, 1, width - 1, lanes, cost[3, y])
    return cost


@nb.njit(cache=True, nogil=True)
def _to_keys(row, single):
    for x in range(row.size):
        single[x] = np.float32(row[x])


@nb.njit(cache=True, nogil=True)
def _group_edges(cost):
    """Edges as (key << 32 | slot), spread over groups of rising cost, each in the order of the slots."""
    rows = cost.shape[0]
    width = cost.shape[1]
    bins = 1 << (32 - _KEY_SHIFT)
    count = np.zeros(bins, np.int64)
    single = np.empty(width, np.float32)
    bits = single.view(np.uint32)  # non-negative floats sort like their bits
    total = 0
    for y in range(rows):
        _to_keys(cost[y], single)
        for x in range(width):
            if cost[y, x] >= 0:
                count[bits[x] >> _KEY_SHIFT] += 1
                total += 1
    group_of = np.empty(bins, np.int32)
    start = np.zeros(_GROUPS + 1, np.int64)
    group, filled = 0, 0
    for b in range(bins):
        if filled >= (total * (group + 1)) // _GROUPS and group < _GROUPS - 1:
            group += 1
        group_of[b] = group
        start[group + 1] += count[b]
        filled += count[b]
    for g in range(_GROUPS):
        start[g + 1] += start[g]
    place = start[:-1].copy()
    edges = np.empty(total, np.uint64)
    for y in range(rows):
        _to_keys(cost[y], single)
        slot = y * width
        for x in range(width):
            if cost[y, x] >= 0:
                g = group_of[bits[x] >> _KEY_SHIFT]
                edges[place[g]] = (np.uint64(bits[x]) << np.uint64(32)) | np.uint64(slot + x)
                place[g] += 1
    return edges, start


@nb.njit(cache=True, nogil=True)
def _find(parent, i):
    """Root of i, which is its own parent; halves the path on the way."""
    up = parent[i]
    while up != i:
        above = parent[up]
        parent[i] = above
        i = above
        up = parent[i]
    return i


@nb.njit(cache=True, nogil=True)
def _flatten(parent):
    """Point every pixel straight at its root."""
    for p in range(parent.size):
        up = parent[p]
        if parent[up] != up:
            parent[p] = _find(parent, up)


@nb.njit(cache=True, nogil=True)
def _offsets(pixels, width):
    """What to add to an edge's slot for its two ends, by direction: right, down, down-right, up-right."""
    first = np.array([0, -pixels, -2 * pixels, -3 * pixels + width])
    second = np.array([1, -pixels + width, -2 * pixels + width + 1, -3 * pixels + 1])
    return first, second


@nb.njit(cache=True, nogil=True)
def _drop_met(edges, parent, pixels, first, second):
    """Move the edges whose ends have not met to the front, in order; return how many they are.

    Needs flat trees.  No branch depends on the outcome, which is as good as random.
    """
    kept = 0
    for e in range(edges.size):
        edge = edges[e]
        slot = np.int64(edge & np.uint64(0xFFFFFFFF))
        direction = slot // pixels
        edges[kept] = edge
        kept += parent[slot + first[direction]] != parent[slot + second[direction]]
    return kept


@nb.njit(cache=True, nogil=True)
def _radix_sort(edges, spare):
    """Stable sort by the upper 32 bits; digits that are the same in all are skipped."""
    n = edges.size
    size = 1 << _DIGIT
    mask = np.uint64(size - 1)
    source, target = edges, spare
    for shift in range(32, 64, _DIGIT):
        by = np.uint64(shift)
        place = np.zeros(size, np.int64)
        for e in range(n):
            place[(source[e] >> by) & mask] += 1
        if place[(source[0] >> by) & mask] == n:
            continue
        position = 0
        for d in range(size):
            here = place[d]
            place[d] = position
            position += here
        for e in range(n):
            digit = (source[e] >> by) & mask
            target[place[digit]] = source[e]
            place[digit] += 1
        source, target = target, source
    return source


@nb.njit(cache=True, nogil=True)
def _settle_equal_keys(edges, exact):
    """Order runs of one float32 key by their exact costs; equal costs stay in the order of their slots."""
    n = edges.size
    e = 1
    while e < n:
        if exact[e] >= exact[e - 1]:  # rounding keeps the order, so a descent can only lie within a run
            e += 1
            continue
        key = edges[e] >> np.uint64(32)
        first, last = e - 1, e + 1
        while first > 0 and (edges[first - 1] >> np.uint64(32)) == key:
            first -= 1
        while last < n and (edges[last] >> np.uint64(32)) == key:
            last += 1
        _sort_run(edges[first:last], exact[first:last])
        e = last


@nb.njit(cache=True, nogil=True)
def _sort_run(run, exact):
    if run.size > 64:
        order = np.argsort(exact, kind="mergesort")
        run[:] = run[order].copy()
        exact[:] = exact[order].copy()
        return
    for e in range(1, run.size):
        moving, value = run[e], exact[e]
        hole = e
        while hole > 0 and exact[hole - 1] > value:
            run[hole], exact[hole] = run[hole - 1], exact[hole - 1]
            hole -= 1
        run[hole], exact[hole] = moving, value


@nb.njit(cache=True, nogil=True)
def _join_group(edges, exact, parent, size, threshold, scale, pixels, first, second, refused):
    """Go through sorted edges: join two segments where the cost is below both thresholds, else note the refusal.

    Ends are looked up a batch ahead, all at once: those loads miss the cache, and the decisions that follow are
    too irregular for the processor to start the next loads by itself.
    """
    count = 0
    batch = 64
    us = np.empty(batch, np.int64)
    vs = np.empty(batch, np.int64)
    lows = np.empty(batch)
    for begin in range(0, edges.size, batch):
        end = min(begin + batch, edges.size)
        for e in range(begin, end):
            slot = np.int64(edges[e] & np.uint64(0xFFFFFFFF))
            direction = slot // pixels
            u = parent[parent[slot + first[direction]]]
            v = parent[parent[slot + second[direction]]]
            us[e - begin], vs[e - begin] = u, v
            lows[e - begin] = min(threshold[u], threshold[v])
        for e in range(begin, end):
            u, v = _find(parent, us[e - begin]), _find(parent, vs[e - begin])
            if u == v:
                continue
            value = exact[e]
            if value < min(threshold[u], threshold[v]):
                if size[u] < size[v]:
                    u, v = v, u
                size[u] += size[v]
                parent[v] = u
                threshold[u] = value + scale / size[u]
            else:
                refused[count] = edges[e]
                count += 1
    return count


@nb.njit(cache=True, nogil=True)
def _gather(edges, cost, exact):
    for e in range(edges.size):
        exact[e] = cost[np.int64(edges[e] & np.uint64(0xFFFFFFFF))]


@nb.njit(cache=True, nogil=True)
def merge(cost, scale, min_size):  # pragma: no cover
    """Labels (H, W) from the edge costs (4, H, W)."""
    _, height, width = cost.shape
    pixels = height * width
    flat = cost.reshape(4 * pixels)
    edges, start = _group_edges(cost.reshape(4 * height, width))
    longest = 1
    for g in range(_GROUPS):
        longest = max(longest, start[g + 1] - start[g])
    spare = np.empty(longest, np.uint64)
    exact = np.empty(longest)
    parent = np.arange(pixels).astype(np.int32)
    size = np.ones(pixels, np.int32)
    threshold = np.full(pixels, scale)
    first, second = _offsets(pixels, width)
    refused = 0  # refused edges are kept at the front of `edges`, where nothing is read any more
    for g in range(_GROUPS):
        group = edges[start[g] : start[g + 1]]
        _flatten(parent)
        kept = _drop_met(group, parent, pixels, first, second)
        if kept == 0:
            continue
        ordered = _radix_sort(group[:kept], spare[:kept])
        _gather(ordered, flat, exact)
        _settle_equal_keys(ordered, exact[:kept])
        refused += _join_group(ordered, exact, parent, size, threshold, scale, pixels, first, second, edges[refused:])
    _flatten(parent)
    refused = _drop_settled(edges[:refused], parent, size, pixels, first, second, min_size)
    _merge_small(edges[:refused], parent, size, pixels, first, second, min_size)
    return _raster_labels(parent, height, width)


@nb.njit(cache=True, nogil=True)
def _drop_settled(edges, parent, size, pixels, first, second, min_size):
    """As :func:`_drop_met`, and drop the edges between two segments that are large enough: they stay so."""
    kept = 0
    for e in range(edges.size):
        edge = edges[e]
        slot = np.int64(edge & np.uint64(0xFFFFFFFF))
        direction = slot // pixels
        u, v = parent[slot + first[direction]], parent[slot + second[direction]]
        edges[kept] = edge
        kept += (u != v) & ((size[u] < min_size) | (size[v] < min_size))
    return kept


@nb.njit(cache=True, nogil=True)
def _merge_small(edges, parent, size, pixels, first, second, min_size):
    """Join small segments over the cheapest edges that still separate two segments."""
    small = 0
    for p in range(pixels):
        small += parent[p] == p and size[p] < min_size
    for e in range(edges.size):
        if small == 0:
            return
        slot = np.int64(edges[e] & np.uint64(0xFFFFFFFF))
        direction = slot // pixels
        u, v = _find(parent, slot + first[direction]), _find(parent, slot + second[direction])
        if u == v or (size[u] >= min_size and size[v] >= min_size):
            continue
        small -= (size[u] < min_size) + (size[v] < min_size)
        if size[u] < size[v]:
            u, v = v, u
        size[u] += size[v]
        parent[v] = u
        small += size[u] < min_size


@nb.njit(cache=True, nogil=True)
def _raster_labels(parent, height, width):
    """Number the segments in the order of their first pixels."""
    labels = np.empty((height, width), np.int32)
    flat = labels.reshape(height * width)
    number = np.full(parent.size, -1, np.int32)
    following = np.int32(0)
    for p in range(parent.size):
        root = _find(parent, p)
        if number[root] < 0:
            number[root] = following
            following += 1
        flat[p] = number[root]
    return labels
