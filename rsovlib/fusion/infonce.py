r"""InfoNCE over tokens at several depths: the loss that teaches a SAR encoder to speak like an optical one.

With a query q from the SAR image, the key k+ of the same place in the optical image and N keys of other places,

    L = -log( exp(q . k+ / tau) / (exp(q . k+ / tau) + sum_j exp(q . k-_j / tau)) ),      q, k of unit norm

(MM-OVSeg, arXiv 2603.17528, supplement; van den Oord et al. 2018, arXiv 1807.03748).  What the paper leaves open is
stated here and can be chosen: which places are negatives, tau, whether the loss runs both ways, and whether tokens or
means of images are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F

from rsovlib.errors import InputError, unknown_name

Negatives = Literal["batch", "image"]
"""Where the negatives of a token come from: all other tokens of the batch, or only those of its own image."""


@dataclass(frozen=True)
class ContrastRule:
    """How tokens are compared.

    Attributes:
        temperature: tau.
        negatives: see :data:`Negatives`.
        symmetric: also ask the optical token for its SAR token, and take the mean; the published formula doesn't.
        pooled: compare the mean token of each image in place of its tokens; needs negatives from the batch.
    """

    temperature: float = 0.07
    negatives: Negatives = "batch"
    symmetric: bool = False
    pooled: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"The temperature of InfoNCE is {self.temperature}, and must be positive.")
        if self.negatives not in get_args(Negatives):
            raise unknown_name("kind of negatives", self.negatives, get_args(Negatives))
        if self.pooled and self.negatives == "image":
            raise InputError("Means of images have no negatives within their image; take negatives='batch'.")


@dataclass(frozen=True)
class Retrieval:
    """How often the most similar optical token is the one of the same place.

    Attributes:
        top1: share of the SAR tokens for which it is, 0 to 1.
        chance: the same for guessing: 1 / candidates.
        candidates: optical tokens that each SAR token chooses from.
        queries: SAR tokens asked.
    """

    top1: float
    chance: float
    candidates: int
    queries: int


def sample_positions(images: int, tokens: int, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Places to compare, without repetition within an image: the similarities of all would fill the memory.

    Args:
        images: B.
        tokens: N of an image.
        count: how many of them, at most N.
        device: where to draw; torch's generator is used.

    Returns:
        (B, min(count, N)) int64.
    """
    return torch.rand(images, tokens, device=device).argsort(dim=1)[:, :count]


def take_positions(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Tokens (B, N, D) at positions (B, P) -> (B, P, D)."""
    return tokens.gather(1, positions[..., None].expand(-1, -1, tokens.shape[-1]))


def token_infonce(
    queries: torch.Tensor, keys: torch.Tensor, rule: ContrastRule = ContrastRule()
) -> torch.Tensor:  # frozen, so that a shared default can't change
    """The mean loss over all tokens of a batch.

    Args:
        queries: (B, P, D) of the SAR image, of any norm.
        keys: (B, P, D) of the optical image; the positive of a query is the key at its own index.
        rule: what is compared with what.

    Returns:
        A number; log(N + 1) when nothing can be told apart.

    Raises:
        InputError: the shapes differ or aren't (B, P, D).
    """
    if queries.ndim != 3 or queries.shape != keys.shape:
        raise InputError(
            f"InfoNCE compares queries and keys (B, P, D) of one shape, not {tuple(queries.shape)} and "
            f"{tuple(keys.shape)}."
        )
    if rule.pooled:
        queries, keys = queries.mean(dim=1, keepdim=True), keys.mean(dim=1, keepdim=True)
    # Half precision would round similarities of 1 / tau = 14 to hundredths.
    queries, keys = F.normalize(queries.float(), dim=-1), F.normalize(keys.float(), dim=-1)
    if rule.negatives == "batch":
        queries, keys = queries.flatten(0, 1)[None], keys.flatten(0, 1)[None]
    logits = queries @ keys.transpose(1, 2) / rule.temperature  # (groups, Q, Q), positives on the diagonal
    target = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    loss = F.cross_entropy(logits.transpose(1, 2), target)
    if not rule.symmetric:
        return loss
    return 0.5 * (loss + F.cross_entropy(logits, target))


def multiscale_infonce(
    queries: Sequence[torch.Tensor],
    keys: Sequence[torch.Tensor],
    rule: ContrastRule = ContrastRule(),
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """The mean of :func:`token_infonce` over several depths of a network.

    Args:
        queries: a tensor (B, N, D) a depth, of the SAR encoder.
        keys: the same of the optical encoder.
        rule: what is compared with what.
        positions: (B, P) places to compare; all if not given.

    Returns:
        A number.

    Raises:
        InputError: different numbers of depths, or none.
    """
    if not queries or len(queries) != len(keys):
        raise InputError(f"{len(queries)} depths of SAR tokens were given and {len(keys)} of optical ones.")
    losses = []
    for query, key in zip(queries, keys, strict=True):
        if positions is not None:
            query, key = take_positions(query, positions), take_positions(key, positions)
        losses.append(token_infonce(query, key, rule))
    return torch.stack(losses).mean()


def retrieval(queries: torch.Tensor, keys: torch.Tensor, *, across: bool = False) -> Retrieval:
    """Whether a SAR token finds the optical token of its place among all of the set.

    Tokens know a little of where in the image they are, and that is the same for both sensors: even an encoder that has
    never seen radar finds some by it. ``across`` shuts that door: the candidates are the tokens at the same position of
    all images, and only what is there can tell them apart.

    Args:
        queries: (B, P, D) SAR tokens.
        keys: (B, P, D) optical tokens of the same places.
        across: choose among the B tokens at the same position, not among all B x P.

    Returns:
        The share of hits, and what guessing would give. Ties count as misses of all but the first.
    """
    if across:
        query, key = (F.normalize(x.float(), dim=-1).transpose(0, 1) for x in (queries, keys))  # (P, B, D)
        right = (query @ key.transpose(1, 2)).argmax(dim=2) == torch.arange(len(queries), device=query.device)
        return Retrieval(float(right.float().mean()), 1 / len(queries), len(queries), right.numel())
    first, second = (F.normalize(x.float(), dim=-1).flatten(0, 1) for x in (queries, keys))
    found = torch.cat([(part @ second.T).argmax(dim=1) for part in first.split(2048)])
    hits = (found == torch.arange(len(first), device=found.device)).float().mean()
    return Retrieval(float(hits), 1 / len(second), len(second), len(first))
