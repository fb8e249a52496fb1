"""What takes the place of attention in CLIP's last block: pure functions, one or a few for each compared method.

The last attention of CLIP was trained to gather an image's content at the class token; for dense prediction it blurs
more than it helps.  Each method replaces it by another map A (rows are queries), which multiplies the same values.

Notation: q, k, v are (B, heads, L, d), the class token first where there is one; s = d^(-1/2); a softmax goes over the
last axis; a grid is (rows, columns) of patches in raster order.  Every function is differentiable where its formula is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rsovlib.errors import InputError

Grid = tuple[int, int]


# ---- maps from CLIP's own q, k and v ---------------------------------------------------------------------------


def scaled_product(a: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
    """s a b^T, (B, heads, L, L); b is a itself where it isn't given."""
    return (a * a.shape[-1] ** -0.5) @ (a if b is None else b).transpose(-1, -2)


def query_key(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """softmax(s q k^T): the original CLIP."""
    return scaled_product(q, k).softmax(dim=-1)


def query_query(q: torch.Tensor) -> torch.Tensor:
    """softmax(s q q^T): ClearCLIP (Lan et al., ECCV 2024)."""
    return scaled_product(q).softmax(dim=-1)


def correlative(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """softmax(s q q^T) + softmax(s k k^T), rows sum to 2: SCLIP (Wang et al., ECCV 2024)."""
    return query_query(q) + query_query(k)


def self_self(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The sum of the self-similarities of q, k and v, rows sum to 3: SegEarth-OV (Li et al., CVPR 2025)."""
    return query_query(q) + query_query(k) + query_query(v)


def neighbourhood(grid: Grid, sigma: float, *, class_token: bool = True, like: torch.Tensor) -> torch.Tensor:
    """Omega = exp(-distance^2 / (2 sigma^2)) between patches, added to logits: NACLIP (Hajimiri et al., WACV 2025).

    Args:
        grid: rows and columns of patches.
        sigma: in patches.
        class_token: whether a first row and column of zeros stand for the class token.
        like: gives precision and device.

    Returns:
        (L, L), 1 on the diagonal of the patches.
    """
    rows, columns = (torch.arange(side, dtype=like.dtype, device=like.device) for side in grid)
    vertical = torch.exp(-((rows[:, None] - rows) ** 2) / (2 * sigma**2))
    horizontal = torch.exp(-((columns[:, None] - columns) ** 2) / (2 * sigma**2))
    omega = torch.kron(vertical, horizontal)  # a Gaussian of the plane is the product of its axes' Gaussians
    return F.pad(omega, (1, 0, 1, 0)) if class_token else omega


def neighbour_aware(k: torch.Tensor, omega: torch.Tensor) -> torch.Tensor:
    """softmax(s k k^T + Omega): NACLIP."""
    return (scaled_product(k) + omega).softmax(dim=-1)


# ---- ResCLIP (Yang et al., CVPR 2025) --------------------------------------------------------------------------


def cross_residual(weights: torch.Tensor, earlier: torch.Tensor, share: float, scale: float = 1.0) -> torch.Tensor:
    """RCS: tau ((1 - l) A + l A_rcs), with the mean attention of blocks in the middle.

    Args:
        weights: A, the last block's own map.
        earlier: A_rcs.
        share: l, of the earlier blocks.
        scale: tau; without residual connection it has no effect.
    """
    return scale * ((1 - share) * weights + share * earlier)


def with_feedback(
    k: torch.Tensor, feedback: torch.Tensor, omega: torch.Tensor, share: float, scale: float
) -> torch.Tensor:
    """SFR: softmax(tau ((1 - l) s k k^T + l A_sfr) + Omega), with a map made from a first guess of the classes.

    Args:
        k: keys.
        feedback: A_sfr, (L, L), see :func:`class_feedback`.
        omega: see :func:`neighbourhood`.
        share: l, of the feedback.
        scale: tau.
    """
    return (scale * ((1 - share) * scaled_product(k) + share * feedback) + omega).softmax(dim=-1)


def class_feedback(classes: torch.Tensor, sigma: float = 5.0, *, decay: bool = True) -> torch.Tensor:
    """A_sfr: which patches a first guess puts into one class, seen along straight lines.

    Two patches of one class have 1.  Where the straight line between them leaves the class (as many steps T as their
    Chebyshev distance, offsets rounded half to even), that becomes exp(-T / T_max), T_max being the longest distance of
    the grid.  Each row is then smoothed along the raster by a Gaussian of 31 taps, normalised to sum 1; the whole is
    divided by its maximum.

    Args:
        classes: (h, w), one number a patch.
        sigma: of the smoothing, in patches along the raster.
        decay: whether lines that leave the class count less.

    Returns:
        (1 + h w, 1 + h w) float32; zeros for the class token.
    """
    height, width = classes.shape
    flat = classes.reshape(-1)
    same = (flat[:, None] == flat).double()
    longest = max(height, width) - 1
    if decay and longest > 0:
        broken, distance = _broken_lines(classes)
        same = torch.where(broken, same * torch.exp(-distance / longest), same)
    taps = torch.arange(-15, 16, dtype=torch.float64, device=same.device)
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    smooth = F.conv1d(same[:, None], (kernel / kernel.sum())[None, None], padding=15)[:, 0].relu()
    smooth = smooth / (smooth.sum(dim=-1, keepdim=True) + 1e-8)
    return F.pad(smooth / smooth.max(), (1, 0, 1, 0)).float()


def _broken_lines(classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For every pair of patches: whether the line from the first to the second leaves its class, and its steps T."""
    height, width = classes.shape
    rows, columns = (
        index.reshape(-1)
        for index in torch.meshgrid(
            torch.arange(height, device=classes.device), torch.arange(width, device=classes.device), indexing="ij"
        )
    )
    down, right = rows - rows[:, None], columns - columns[:, None]
    steps = torch.maximum(down.abs(), right.abs())
    flat = classes.reshape(-1)
    broken = torch.zeros_like(steps, dtype=torch.bool)
    for step in range(1, max(height, width)):
        # Beyond its end a line stays at its end. Whole numbers are multiplied first, so that halves are exact.
        taken, whole = steps.clamp(max=step), steps.clamp(min=1).double()
        row = rows[:, None] + torch.round(taken * down / whole).long()
        column = columns[:, None] + torch.round(taken * right / whole).long()
        broken |= flat[row * width + column] != flat[:, None]
    return broken, steps.double()


# ---- maps from another network: ProxyCLIP, CorrCLIP ------------------------------------------------------------


def proxy(features: torch.Tensor, beta: float = 1.2, gamma: float = 3.0) -> torch.Tensor:
    """softmax(gamma (C - beta mean(C))) over the positive entries; C are the cosines of a second network's features.

    ProxyCLIP (Lan et al., ECCV 2024).

    Args:
        features: (B, N, D).
        beta: what is subtracted, in means of the whole of C.
        gamma: inverse temperature.

    Returns:
        (B, N, N), rows sum to 1; a row without a positive entry becomes that of the identity.
    """
    unit = F.normalize(features, dim=-1)
    cosines = unit @ unit.transpose(-1, -2)
    centred = gamma * (cosines - beta * cosines.mean())
    return _softmax_where(centred, centred >= 0)


def scoped_correlation(features: torch.Tensor, regions: torch.Tensor, temperature: float = 4.0) -> torch.Tensor:
    """softmax(tau C) over the patches of one's own region: CorrCLIP (Zhang et al., ICCV 2025).

    A pair with a patch of no region is allowed where its cosine exceeds the mean of all.

    Args:
        features: (N, D) of the second network.
        regions: (N,), the region of each patch, -1 for none.
        temperature: tau, multiplies the cosines.

    Returns:
        (N, N), rows sum to 1.
    """
    unit = F.normalize(features, dim=-1)
    cosines = unit @ unit.T
    free = (regions < 0)[:, None] | (regions < 0)
    allowed = torch.where(free, cosines > cosines.mean(), regions[:, None] == regions)
    return _softmax_where(temperature * cosines, allowed)


def merge_regions(features: torch.Tensor, regions: torch.Tensor, reach: float = 0.2) -> torch.Tensor:
    """Join regions whose mean features agree: CorrCLIP's DBSCAN with ``min_samples = 1``, which is connectedness.

    Two regions are joined if their cosine lies within ``reach`` of the largest one.

    Args:
        features: (N, D), one a patch.
        regions: (N,), the region of each patch, -1 for none.
        reach: eps.

    Returns:
        (N,), numbers from 0; -1 stays.
    """
    from scipy.sparse.csgraph import connected_components

    names, inverse = torch.unique(regions[regions >= 0], return_inverse=True)
    if len(names) < 2:
        return torch.where(regions >= 0, torch.zeros_like(regions), regions)
    unit = F.normalize(features, dim=-1)[regions >= 0]
    sums = unit.new_zeros(len(names), unit.shape[1]).index_add_(0, inverse, unit)
    means = F.normalize(sums, dim=-1)
    cosines = means @ means.T
    joined = connected_components((cosines.max() - cosines <= reach).cpu().numpy(), directed=False)[1]
    merged = regions.clone()
    merged[regions >= 0] = torch.from_numpy(joined).to(regions)[inverse]
    return merged


def _softmax_where(logits: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Softmax over the allowed entries; a row without any becomes that of the identity."""
    size = logits.shape[-1]
    own = torch.eye(size, dtype=torch.bool, device=logits.device)
    allowed = allowed | (own & ~allowed.any(dim=-1, keepdim=True))
    return logits.masked_fill(~allowed, -torch.inf).softmax(dim=-1)


# ---- CASS: spectra of graphs (Kim et al., CVPR 2025) -----------------------------------------------------------


def spectrum(keys: torch.Tensor, count: int = 20) -> torch.Tensor:
    """The largest eigenvalues of s k k^T, first to length 1, then to sum 1.

    They are those of s k^T k, which has d rows in place of N; what is missing to ``count`` is 0.

    Args:
        keys: (heads, N, d).
        count: how many.

    Returns:
        (heads, count) float64, descending.
    """
    keys = keys.double()
    values = torch.linalg.eigvalsh(keys.shape[-1] ** -0.5 * keys.transpose(-1, -2) @ keys)
    values = values.clamp(min=0).flip(-1)[..., : min(count, keys.shape[-2])]
    values = F.pad(values, (0, max(0, count - values.shape[-1])))
    return F.normalize(F.normalize(values, dim=-1), p=1, dim=-1)


def spectral_pairs(rows: torch.Tensor, columns: torch.Tensor) -> tuple[list[tuple[int, int]], torch.Tensor]:
    """Pair the heads of two networks so that their spectra differ most, and the distances of all pairs.

    Args:
        rows: (n, count) spectra.
        columns: (m, count) spectra.

    Returns:
        Pairs (row, column), and (n, m) distances: sums of absolute differences.
    """
    from scipy.optimize import linear_sum_assignment

    distance = (rows[:, None] - columns).abs().sum(dim=-1)
    found = linear_sum_assignment(1 - distance.cpu().numpy())
    return [(int(i), int(j)) for i, j in zip(*found, strict=True)], distance


def to_range(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The affine map that gives ``values`` the smallest and the largest value of ``like``."""
    low, high = values.min(), values.max()
    span = torch.where(high > low, high - low, torch.ones_like(high))
    return (values - low) / span * (like.max() - like.min()) + like.min()


def low_rank_graph(keys: torch.Tensor, rank: int = 10, *, stretch: bool = True) -> torch.Tensor:
    """The best approximation of s k k^T of a rank, its diagonal set to 0.

    Args:
        keys: (N, d).
        rank: how many singular values are kept.
        stretch: whether they are mapped affinely to 0.5 of their smallest .. 1.5 of their largest.

    Returns:
        (N, N).
    """
    # k = U S V^T, so that k k^T = U S^2 U^T: no N x N matrix is decomposed.
    left, singular, _ = torch.linalg.svd(keys, full_matrices=False)
    left, values = left[:, :rank], keys.shape[-1] ** -0.5 * singular[:rank] ** 2
    if stretch and values[0] > values[-1]:
        low, high = values[-1], values[0]
        values = 0.5 * low + (values - low) / (high - low) * (1.5 * high - 0.5 * low)
    graph = (left * values) @ left.T
    return graph.fill_diagonal_(0.0)


def object_graph(
    clip_keys: torch.Tensor,
    dino_keys: torch.Tensor,
    *,
    count: int = 20,
    rank: int = 10,
    scale: float = 10.0,
    stretch: bool = True,
    pairing: str = "published",
) -> torch.Tensor:
    """Every CLIP head's graph s k k^T, mixed with the low-rank graph of a DINO head of another spectrum.

    W = (scale w W_d' + W_c) / (scale w + 1), with w the distance of the two spectra.

    Args:
        clip_keys: (heads, N, d).
        dino_keys: (heads', N, d'), on the same grid; they get the range of CLIP's keys first.
        count: eigenvalues compared.
        rank: of DINO's graph.
        scale: see the formula.
        stretch: see :func:`low_rank_graph`.
        pairing: ``"published"``: for the pair (DINO i, CLIP j), CLIP's head i gets DINO's head j, as the released
            program does; needs equally many heads. ``"matched"``: CLIP's head j gets DINO's head i.

    Returns:
        (heads, N, N), before the softmax.

    Raises:
        InputError: the numbers of heads differ and the pairing is the published one.
    """
    if pairing == "published" and len(clip_keys) != len(dino_keys):
        raise InputError(
            f"The published pairing needs as many heads in CLIP ({len(clip_keys)}) as in DINO ({len(dino_keys)}); "
            "use head_pairing='matched'."
        )
    dino_keys = to_range(dino_keys, clip_keys)
    graphs = scaled_product(clip_keys)
    pairs, distance = spectral_pairs(spectrum(dino_keys, count), spectrum(clip_keys, count))
    for row, column in pairs:
        head, other = (row, column) if pairing == "published" else (column, row)
        weight = scale * distance[row, column].to(graphs.dtype)
        structure = to_range(low_rank_graph(dino_keys[other], rank, stretch=stretch), graphs[head])
        graphs[head] = (weight * structure + graphs[head]) / (weight + 1)
    return graphs


# ---- CLIPer's refinement (Sun et al., ICCV 2025) ----------------------------------------------------------------


def attention_chain(maps: torch.Tensor, threshold: float = 0.2) -> torch.Tensor:
    """The product of a diffusion model's self-attention maps: each thresholded at a share of its columns' maxima.

    Args:
        maps: (n, N, N), layer by layer and head by head; non-negative.
        threshold: entries below this share of their column's maximum become 0.

    Returns:
        (N, N).
    """
    product: torch.Tensor | None = None
    for single in maps:
        scaled = single / single.amax(dim=0, keepdim=True).clamp(min=torch.finfo(single.dtype).tiny)
        scaled = scaled.masked_fill(scaled < threshold, 0.0)
        scaled = scaled / (scaled.sum(dim=-1, keepdim=True) + 1e-5)
        product = scaled if product is None else product @ scaled
    if product is None:
        raise InputError("A chain of attention needs at least one map.")
    return product
