"""Which of CLIP's parameters are trained: the query and value weights of every attention, and nothing else.

PyTorch keeps the weights of query, key and value in one tensor, of which an optimiser can only train all or nothing.
They are taken apart here by PyTorch's own parametrisation: three parameters, joined whenever the tensor is read.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize


class _Packed(nn.Module):
    """Three square matrices on top of each other."""

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return torch.cat([query, key, value])

    def right_inverse(self, packed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # Copies: chunks are views of the packed tensor, and an optimiser's steps must not meet each other there.
        return tuple(part.clone() for part in packed.chunk(3))


def split_attention(model: nn.Module) -> None:
    """Give every packed attention of a model separate query, key and value weights; what it computes stays the same."""
    for attention in list(_attentions(model)):
        if not parametrize.is_parametrized(attention, "in_proj_weight"):
            parametrize.register_parametrization(attention, "in_proj_weight", _Packed())
            # PyTorch pickles no parametrised module, and training on several devices sends networks to processes.
            type(attention).__reduce_ex__ = _reduce  # type: ignore[assignment]


def query_and_value_weights(model: nn.Module) -> list[nn.Parameter]:
    """The query and value weights of a model that went through :func:`split_attention`, image and text towers."""
    found = []
    for attention in _attentions(model):
        parts: object = attention.parametrizations["in_proj_weight"]  # type: ignore[index]
        found += [getattr(parts, "original0"), getattr(parts, "original2")]  # noqa: B009
    return found


def position_tables(model: nn.Module) -> list[nn.Parameter]:
    """The position tables of both towers."""
    return [p for name, p in model.named_parameters() if name.rpartition(".")[2] == "positional_embedding"]


def _reduce(attention: nn.MultiheadAttention, protocol: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """How a split attention is pickled: as the plain one, and which of its parts are trained."""
    parts: Any = attention.parametrizations["in_proj_weight"]  # type: ignore[index]
    trained = [one.requires_grad for one in (parts.original0, parts.original1, parts.original2)]
    plain = copy.copy(attention.__dict__)
    plain["_modules"] = {name: one for name, one in plain["_modules"].items() if name != "parametrizations"}
    packed = nn.Parameter(attention.in_proj_weight.detach().clone(), requires_grad=False)
    plain["_parameters"] = {"in_proj_weight": packed, **plain["_parameters"]}
    return _joined, (plain, trained)


def _joined(plain: dict[str, Any], trained: Sequence[bool]) -> nn.MultiheadAttention:
    """A split attention from what :func:`_reduce` made of it."""
    attention = nn.MultiheadAttention.__new__(nn.MultiheadAttention)
    nn.Module.__init__(attention)
    attention.__dict__.update(plain)
    split_attention(attention)
    parts: Any = attention.parametrizations["in_proj_weight"]  # type: ignore[index]
    for one, taught in zip((parts.original0, parts.original1, parts.original2), trained, strict=True):
        one.requires_grad_(taught)
    return attention


def _attentions(model: nn.Module) -> Iterator[nn.MultiheadAttention]:
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            yield module
