"""Felzenszwalb and Huttenlocher's segmentation in compiled code: smoothing, edge costs, sort, union-find.

The arithmetic follows scikit-image's order of operations without fused multiply-adds, so costs agree to the last
bit and so do labels, but for the order of edges of exactly equal cost: there scikit-image leaves the order to an
unstable sort that depends on the processor, and here the edge that comes first in the list of all edges goes first
(right, down, down-right, up-right; each in raster order).

The method goes through all edges of the image by rising cost, and so all over the image at each step, which misses
every cache.  But whether an edge joins two segments depends on these two alone, so another order gives the same
result as long as each segment meets its own edges by rising cost.  Therefore the work is done in two rounds:

1. Tile by tile, in the caches.  A segment that could still grow across the tile's border is *blocked* from the cost of
   its cheapest edge that leads out.  An edge that costs more and could join a blocked segment is put off, which blocks
   the segment at its other end from that cost on.  Segments whose own limit lies lower are final, whatever comes:
   they keep the blocking from spreading far.
2. The edges put off and those between tiles, over the whole image, on the segments that the tiles left.

What else makes it fast, without changing the result:

* A tile's edges are spread over a few groups of rising cost.  A group is sorted only when its turn comes, and edges
  whose ends have met by then are dropped first: in raster order, where looking up both ends is cheap.
* Sorting is by radix on the float32 rounding of the cost, which keeps the order of all but near-equal costs; runs of
  equal keys are then put in order by the exact costs.
* A root keeps the threshold that a cost must stay below, so no edge needs a division.
* Small segments are merged by going once more only over the edges that were refused and touch a small segment.
* Between two given segments only the cheapest edge ever matters.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
import numba as nb
import numpy as np

_GROUPS = 8
_KEY_SHIFT = 20  # the histogram that cuts the groups uses the upper 12 bits of the 32-bit keys
_DIGIT = 11
_LOW = np.uint64(0xFFFFFFFF)
_DIRECTION = np.uint64(30)  # an edge is known by direction << 30 | pixel, in the order of the list of all edges
_PIXEL = np.uint64(2**30 - 1)


@nb.njit(cache=True, nogil=True)
def smooth(image, weights):  # pragma: no cover
    """Separable symmetric filter of (C, H + 2 R, W) along H, then W, edges along W mirrored; (C, H, W)."""
    channels, height, width = image.shape
    radius = weights.size - 1
    height -= 2 * radius
    out = np.empty((channels, height, width))
    padded = np.empty(width + 2 * radius)
    line = np.empty(width)
    for c in range(channels):
        for y in range(height):
            middle = image[c, y + radius]
            for x in range(width):
                line[x] = middle[x] * weights[0]
            for r in range(radius, 0, -1):
                w = weights[r]
                above, below = image[c, y + radius - r], image[c, y + radius + r]
                for x in range(width):
                    line[x] += (above[x] + below[x]) * w
            padded[radius : radius + width] = line
            for x in range(1, radius + 1):
                padded[radius - x] = line[_mirror(-x, width)]
                padded[radius + width + x - 1] = line[_mirror(width + x - 1, width)]
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


def mirrored_rows(start, stop, height):
    """Row numbers start..stop-1 of an image extended by mirroring, as rows of the image itself."""
    rows = np.arange(start, stop) % (2 * height)
    return np.minimum(rows, 2 * height - 1 - rows)


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
def _window_costs(bands, top, y0, x0, height, width, lanes, cost):
    """Costs (4, h+1, w+1) of the edges right, down, down-right and up-right of a tile's pixels; -1 for no edge.

    The tile begins at (y0, x0); the row above and the column left of it come first, as their edges lead into it.
    """
    for i in range(cost.shape[1]):
        y = y0 - 1 + i
        cost[:, i] = -1.0
        if y < 0:
            continue
        row = y - top
        x = max(x0 - 1, 0)
        at = x - (x0 - 1)
        n = cost.shape[2] - at
        short = min(n, width - 1 - x)
        _distance(bands, row, x + 1, row, x, short, lanes, cost[0, i, at:])
        if y + 1 < height:
            _distance(bands, row + 1, x, row, x, n, lanes, cost[1, i, at:])
            _distance(bands, row + 1, x + 1, row, x, short, lanes, cost[2, i, at:])
            _distance(bands, row + 1, x, row, x + 1, short, lanes, cost[3, i, at:])


@nb.njit(cache=True, nogil=True)
def _cut_border(cost, blocked, y0, x0, height, width, crossing, count):
    """Take the edges that leave the tile out of ``cost``: they block the pixel at their inner end.

    Those that belong to the tile's own pixels are listed by cost and slot, their number in the list of all edges.
    """
    last_i, last_j = cost.shape[1] - 1, cost.shape[2] - 1
    pitch = last_j + 1
    for i in range(last_i + 1):
        step = 1 if i == 0 or i == last_i else max(last_j, 1)
        for j in range(0, last_j + 1, step):
            for d in range(4):
                value = cost[d, i, j]
                if value < 0:
                    continue
                i0, j0 = (i + 1 if d == 3 else i), j
                i1, j1 = (i + 1 if d == 1 or d == 2 else i), (j if d == 1 else j + 1)
                first = i0 >= 1 and i0 <= last_i and j0 >= 1 and j0 <= last_j
                second = i1 >= 1 and i1 <= last_i and j1 >= 1 and j1 <= last_j
                if first and second:
                    continue
                if first:
                    blocked[i0 * pitch + j0] = min(blocked[i0 * pitch + j0], value)
                if second:
                    blocked[i1 * pitch + j1] = min(blocked[i1 * pitch + j1], value)
                if i >= 1 and j >= 1:
                    crossing[count].cost = value
                    crossing[count].slot = (d << 30) | ((y0 - 1 + i) * width + x0 - 1 + j)
                    count += 1
                cost[d, i, j] = -1.0
    return count


@nb.njit(cache=True, nogil=True)
def _to_keys(row, single):
    for x in range(row.size):
        single[x] = np.float32(row[x])


@nb.njit(cache=True, nogil=True)
def _group_edges(cost, edges, start):
    """Edges as (key << 32 | slot), spread over groups of rising cost, each in the order of the slots."""
    _, rows, width = cost.shape
    bins = 1 << (32 - _KEY_SHIFT)
    count = np.zeros(bins, np.int64)
    single = np.empty(width, np.float32)
    bits = single.view(np.uint32)  # non-negative floats sort like their bits
    total = 0
    for d in range(4):
        for y in range(rows):
            row = cost[d, y]
            _to_keys(row, single)
            for x in range(width):
                there = row[x] >= 0
                count[bits[x] >> _KEY_SHIFT] += there
                total += there
    group_of = np.empty(bins, np.int32)
    start[:] = 0
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
    for d in range(4):
        for y in range(rows):
            row = cost[d, y]
            _to_keys(row, single)
            slot = (d << 30) | (y * width)
            for x in range(width):
                if row[x] >= 0:
                    g = group_of[bits[x] >> _KEY_SHIFT]
                    edges[place[g]] = (np.uint64(bits[x]) << np.uint64(32)) | np.uint64(slot + x)
                    place[g] += 1


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
def _ends(pitch):
    """What to add to a pixel for the two ends of its edges, by direction: right, down, down-right, up-right."""
    return np.array([0, 0, 0, pitch]), np.array([1, pitch, pitch + 1, 1])


@nb.njit(cache=True, nogil=True)
def _mark_final(parent, limit, blocked, level, final):
    """Point every pixel straight at its root, and mark the roots that no edge of ``level`` or more can change."""
    for p in range(parent.size):
        up = parent[p]
        if parent[up] != up:
            up = _find(parent, up)
            parent[p] = up
        final[p] = limit[p] <= min(level, blocked[p])


@nb.njit(cache=True, nogil=True)
def _drop_decided(edges, parent, final, size, min_size, first, second, refused, r):
    """Move the edges that could still join two segments to the front, in order; return how many they are.

    Those at final segments are refused without a look at their costs.  Needs flat trees.  No branch depends on the
    outcome, which is as good as random.
    """
    kept = 0
    for e in range(edges.size):
        edge = edges[e]
        pixel = np.int64(edge & _PIXEL)
        direction = np.int64((edge >> _DIRECTION) & np.uint64(3))
        u, v = parent[pixel + first[direction]], parent[pixel + second[direction]]
        apart = u != v
        certain = final[u] | final[v]
        edges[kept] = edge
        kept += apart & (certain ^ True)
        refused[r] = np.uint32(edge & _LOW)
        r += apart & certain & ((size[u] < min_size) | (size[v] < min_size))
    return kept, r


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
def _settle_equal_keys(edges, exact, slots):
    """Order runs of one float32 key by exact cost, and equal costs by slot.

    ``edges`` keeps its order but for the keys' sake: only ``exact`` and ``slots`` are read afterwards, and moved.
    """
    n = edges.size
    e = 1
    while e < n:
        # Rounding keeps the order, so a descent can only lie within a run.
        if exact[e] > exact[e - 1] or (exact[e] == exact[e - 1] and slots[e] > slots[e - 1]):
            e += 1
            continue
        key = edges[e] >> np.uint64(32)
        first, last = e - 1, e + 1
        while first > 0 and (edges[first - 1] >> np.uint64(32)) == key:
            first -= 1
        while last < n and (edges[last] >> np.uint64(32)) == key:
            last += 1
        _sort_run(edges[first:last], exact[first:last], slots[first:last])
        e = last


@nb.njit(cache=True, nogil=True)
def _sort_run(run, exact, slots):
    if run.size > 64:
        for values in range(2):
            order = np.argsort(slots) if values == 0 else np.argsort(exact, kind="mergesort")
            run[:] = run[order].copy()
            exact[:] = exact[order].copy()
            slots[:] = slots[order].copy()
        return
    for e in range(1, run.size):
        edge, value, slot = run[e], exact[e], slots[e]
        hole = e
        while hole > 0 and (exact[hole - 1] > value or (exact[hole - 1] == value and slots[hole - 1] > slot)):
            run[hole], exact[hole], slots[hole] = run[hole - 1], exact[hole - 1], slots[hole - 1]
            hole -= 1
        run[hole], exact[hole], slots[hole] = edge, value, slot


@nb.njit(cache=True, nogil=True)
def _gather(edges, cost, exact, slots):
    for e in range(edges.size):
        edge = edges[e]
        slots[e] = np.uint32(edge & _LOW)
        exact[e] = cost[np.int64((edge >> _DIRECTION) & np.uint64(3)), np.int64(edge & _PIXEL)]


@nb.njit(cache=True, nogil=True)
def _split(slot):
    """Pixel and direction of an edge."""
    return np.int64(slot) & (2**30 - 1), np.int64(slot) >> 30


@nb.njit(cache=True, nogil=True)
def _join_group(exact, slots, parent, size, limit, blocked, scale, min_size, first, second, refused, r, later, d):
    """Go through a tile's sorted edges: join two segments, or note the edge as refused or as put off."""
    for e in range(exact.size):
        pixel, direction = _split(slots[e])
        u = _find(parent, pixel + first[direction])
        v = _find(parent, pixel + second[direction])
        if u == v:
            continue
        value = exact[e]
        # Edges of cost 0 always join, in any order, so that blocks don't matter to them.
        if value < min(min(limit[u], blocked[u]), min(limit[v], blocked[v])) or (value == 0 and scale > 0):
            if size[u] < size[v]:
                u, v = v, u
            size[u] += size[v]
            parent[v] = u
            limit[u] = value + scale / size[u]
            blocked[u] = min(blocked[u], blocked[v])
        elif (limit[u] <= min(value, blocked[u])) or (limit[v] <= min(value, blocked[v])):
            refused[r] = slots[e]
            r += size[u] < min_size or size[v] < min_size
        else:
            blocked[u] = min(blocked[u], value)
            blocked[v] = min(blocked[v], value)
            later[d] = slots[e]
            d += 1
    return r, d


RECORD = np.dtype([("cost", np.float64), ("slot", np.uint32), ("u", np.int32), ("v", np.int32)], align=True)


@nb.njit(cache=True, nogil=True)
def merge_strip(bands, top, y0, y1, labels, scale, min_size, tile, node_size, node_limit, nodes, records):
    """Round 1 in the tiles of rows y0..y1-1.

    Args:
        bands: (C, rows, W) from row ``top`` on, with one more row on either side of the strip where there is one.
        top: see bands.
        y0: first row of the strip.
        y1: the row after its last.
        labels: (H, W), takes the numbers of the segments.
        scale: k of the method.
        min_size: edges between segments that have this size already are forgotten.
        tile: side of the tiles.
        node_size: takes the segments' sizes.
        node_limit: takes the segments' limits.
        nodes: the number of segments so far.
        records: (3, 4 rows W) takes the edges that were refused, put off, or cross tiles (of these, ends unknown).

    Returns:
        The number of segments, and of the three kinds of edges.
    """
    height, width = labels.shape
    most = (min(tile, y1 - y0) + 1) * (min(tile, width) + 1)
    buffer = np.empty(4 * most)
    parents, sizes, numbers = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    limits, blocks = np.empty(most), np.empty(most)
    edges, spare = np.empty(4 * most, np.uint64), np.empty(4 * most, np.uint64)
    exact, slots = np.empty(4 * most), np.empty(4 * most, np.uint32)
    refused, later = np.empty(4 * most, np.uint32), np.empty(4 * most, np.uint32)
    lanes = np.empty((8, min(tile, width) + 1))
    finals = np.empty(most, np.bool_)
    seen = np.empty(2**14, np.int64)  # pairs of segments seen lately, by a hash: forgetting one does no harm
    start = np.empty(_GROUPS + 1, np.int64)
    counts = np.zeros(3, np.int64)
    for top_row in range(y0, y1, tile):
        h = min(tile, y1 - top_row)
        for left in range(0, width, tile):
            w = min(tile, width - left)
            pitch = w + 1
            area = (h + 1) * pitch
            cost = buffer[: 4 * area].reshape(4, h + 1, pitch)
            parent, size, limit, blocked = parents[:area], sizes[:area], limits[:area], blocks[:area]
            final = finals[:area]
            for p in range(area):
                parent[p] = p
            size[:] = 1
            limit[:] = scale
            blocked[:] = np.inf
            first, second = _ends(pitch)
            _window_costs(bands, top, top_row, left, height, width, lanes, cost)
            counts[2] = _cut_border(cost, blocked, top_row, left, height, width, records[2], counts[2])
            _group_edges(cost, edges, start)
            flat = cost.reshape(4, area)
            r, d, level = 0, 0, -1.0
            for g in range(_GROUPS):
                group = edges[start[g] : start[g + 1]]
                _mark_final(parent, limit, blocked, level, final)
                kept, r = _drop_decided(group, parent, final, size, min_size, first, second, refused, r)
                if kept == 0:
                    continue
                ordered = _radix_sort(group[:kept], spare[:kept])
                _gather(ordered, flat, exact, slots)
                _settle_equal_keys(ordered, exact[:kept], slots[:kept])
                level = exact[kept - 1]
                r, d = _join_group(
                    exact[:kept], slots[:kept], parent, size, limit, blocked, scale, min_size, first, second,
                    refused, r, later, d,
                )  # fmt: skip
            _mark_final(parent, limit, blocked, level, final)
            number = numbers[:area]
            number[:] = -1
            for i in range(1, h + 1):
                row = labels[top_row + i - 1]
                for j in range(1, pitch):
                    root = parent[i * pitch + j]
                    if number[root] < 0:
                        number[root] = nodes
                        node_size[nodes] = size[root]
                        node_limit[nodes] = limit[root]
                        nodes += 1
                    row[left + j - 1] = number[root]
            base = (top_row - 1) * width + left - 1
            seen[:] = -1
            for kind in range(2):
                noted = refused[:r] if kind == 0 else later[:d]
                for e in range(noted.size):
                    pixel, direction = _split(noted[e])
                    u, v = parent[pixel + first[direction]], parent[pixel + second[direction]]
                    if u == v or (kind == 0 and size[u] >= min_size and size[v] >= min_size):
                        continue
                    if kind == 1:
                        pair = min(u, v) * area + max(u, v)
                        at = (pair * 0x9E3779B1 >> 8) & (seen.size - 1)
                        if seen[at] == pair:
                            continue
                        seen[at] = pair
                    record = records[kind, counts[kind]]
                    record.cost = flat[direction, pixel]
                    record.slot = (direction << 30) | (base + (pixel // pitch) * width + pixel % pitch)
                    record.u, record.v = number[u], number[v]
                    counts[kind] += 1
    return nodes, counts[0], counts[1], counts[2]


@nb.njit(cache=True, nogil=True)
def _find_ends(records, labels):
    """Look up the segments at both ends of edges that cross tiles."""
    flat = labels.reshape(labels.size)
    first, second = _ends(labels.shape[1])
    for e in range(records.size):
        pixel, direction = _split(records[e].slot)
        records[e].u = flat[pixel + first[direction]]
        records[e].v = flat[pixel + second[direction]]


@nb.njit(cache=True, nogil=True)
def _sorted_records(records):
    """A copy, by rising cost, then slot."""
    n = records.size
    edges = np.empty(n, np.uint64)
    key = np.empty(1, np.float32)
    bits = key.view(np.uint32)
    for e in range(n):
        key[0] = records[e].cost
        edges[e] = (np.uint64(bits[0]) << np.uint64(32)) | np.uint64(e)
    exact, slots = np.empty(n), np.empty(n, np.uint32)
    if n > 0:
        edges = _radix_sort(edges, np.empty(n, np.uint64))
    for e in range(n):
        record = records[np.int64(edges[e] & _LOW)]
        exact[e], slots[e] = record.cost, record.slot
    _settle_equal_keys(edges, exact, slots)
    result = np.empty_like(records)
    for e in range(n):
        result[e] = records[np.int64(edges[e] & _LOW)]
    return result


@nb.njit(cache=True, nogil=True)
def _flatten(parent):
    """Point every node straight at its root."""
    for p in range(parent.size):
        up = parent[p]
        if parent[up] != up:
            parent[p] = _find(parent, up)


@nb.njit(cache=True, nogil=True)
def finish(labels, size, limit, refused, later, crossing, scale, min_size):
    """Round 2, the merging of small segments, and the final numbers, in ``labels``."""
    parent = np.arange(size.size).astype(np.int32)
    _find_ends(crossing, labels)
    edges = _sorted_records(np.concatenate((later, crossing)))
    count = 0
    for e in range(edges.size):
        edge = edges[e]
        u, v = _find(parent, edge.u), _find(parent, edge.v)
        if u == v:
            continue
        if edge.cost < min(limit[u], limit[v]):
            if size[u] < size[v]:
                u, v = v, u
            size[u] += size[v]
            parent[v] = u
            limit[u] = edge.cost + scale / size[u]
        else:
            edges[count] = edge
            count += 1
    _flatten(parent)
    small = np.concatenate(
        (
            refused[: _drop_settled(refused, parent, size, min_size)],
            edges[: _drop_settled(edges[:count], parent, size, min_size)],
        )
    )
    _merge_small(_sorted_records(small), parent, size, min_size)
    _renumber(labels, parent)


@nb.njit(cache=True, nogil=True)
def _drop_settled(edges, parent, size, min_size):
    """As :func:`_drop_met`, and drop the edges between two segments that are large enough: they stay so."""
    kept = 0
    for e in range(edges.size):
        edge = edges[e]
        u, v = parent[edge.u], parent[edge.v]
        edges[kept] = edge
        kept += (u != v) & ((size[u] < min_size) | (size[v] < min_size))
    return kept


@nb.njit(cache=True, nogil=True)
def _merge_small(edges, parent, size, min_size):
    """Join small segments over the cheapest edges that still separate two segments."""
    for e in range(edges.size):
        u, v = _find(parent, edges[e].u), _find(parent, edges[e].v)
        if u == v or (size[u] >= min_size and size[v] >= min_size):
            continue
        if size[u] < size[v]:
            u, v = v, u
        size[u] += size[v]
        parent[v] = u


@nb.njit(cache=True, nogil=True)
def _renumber(labels, parent):
    """Number the segments in the order of their first pixels."""
    _flatten(parent)
    number = np.full(parent.size, -1, np.int32)
    following = np.int32(0)
    flat = labels.reshape(labels.size)
    for p in range(flat.size):
        root = parent[flat[p]]
        if number[root] < 0:
            number[root] = following
            following += 1
        flat[p] = number[root]
