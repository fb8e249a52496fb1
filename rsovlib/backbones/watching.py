"""The head mean of one attention's map, watched while its network runs, without ever holding the heads' maps.

A fused attention never forms its map, and the plain one forms it for all heads at once: for 4,096 tokens and two heads
twice 134 MB, which a CPU then waits for. Here the watched call of ``scaled_dot_product_attention`` is answered a few
rows at a time, while those are in the cache: the answer is the same, and the mean over the heads is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

#: Values of all heads' maps that are formed at once: what a core's cache holds; a GPU wants much to do at once.
_AT_ONCE = {"cpu": 2**20}
_AT_ONCE_ELSEWHERE = 2**26


class WatchedAttention(TorchFunctionMode):
    """Keeps the head mean of one attention's map while it is entered; of this thread alone, and without a trace.

    Args:
        which: the watched call of ``F.scaled_dot_product_attention`` since it was entered, from 0: for the last block
            of a transformer its depth less one.
        prefix: tokens in front that take part in the softmax and are cut out of the mean.

    Attributes:
        head_mean: (B, N, N); empty before.
        calls: attentions so far.
    """

    def __init__(self, which: int, prefix: int) -> None:
        super().__init__()
        self.which, self.prefix = which, prefix
        self.head_mean = torch.empty(0)
        self.calls = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        answer = self._attend if self.calls - 1 == self.which else func
        return answer(*args, **(kwargs or {}))

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> torch.Tensor:
        """What was asked for, (B, heads, L, d); ``head_mean`` is left behind."""
        if attn_mask is not None or dropout_p or is_causal:
            raise NotImplementedError("A masked or dropped attention is not that of a DINO in evaluation mode.")
        batch, heads, length, width = query.shape
        keys = key.transpose(-1, -2)
        factor = width**-0.5 if scale is None else scale
        budget = _AT_ONCE.get(query.device.type, _AT_ONCE_ELSEWHERE)
        step = max(1, budget // (batch * heads * length))
        first, rows_of_mean, answers = self.prefix, [], []
        for start in range(0, length, step):
            weights = (query[:, :, start : start + step] * factor @ keys).softmax(dim=-1)
            answers.append(weights @ value)
            rows_of_mean.append(weights[:, :, max(first - start, 0) :, first:].mean(dim=1))
        self.head_mean = torch.cat(rows_of_mean, dim=1)
        return torch.cat(answers, dim=2)
