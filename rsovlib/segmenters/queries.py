"""Class names as rows to compare features with, and how several names of one class are merged afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.text import encode_classes, encode_words
from rsovlib.data.classes import ClassPrompt

#: Ways of merging -> what they do and who uses them.
MERGES = {
    "max_prob": "every name is a query of its own; a class has the largest probability of its names (SCLIP family)",
    "mean_embedding": "one query a class, the mean of its names in every template (SDCI)",
    "joined": "one query a class, its names with the commas between them inside the template (CLIPer)",
}


@dataclass(frozen=True)
class Queries:
    """The texts of all classes.

    Attributes:
        vectors: (M, E), unit norm; M is K or more.
        owner: (M,), the class of each row.
        classes: K.
    """

    vectors: torch.Tensor
    owner: torch.Tensor
    classes: int

    def merged(self, values: torch.Tensor) -> torch.Tensor:
        """The largest value of each class's queries: (M, ...) -> (K, ...)."""
        if len(self.owner) == self.classes:
            return values
        index = self.owner.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
        return values.new_zeros(self.classes, *values.shape[1:]).scatter_reduce(
            0, index, values, "amax", include_self=False
        )


def encode_queries(
    clip: ClipBackbone, prompts: Sequence[ClassPrompt], templates: str | Sequence[str], merge: str
) -> Queries:
    """The queries of K classes, merged as one of :data:`MERGES` says; each name is the mean over the templates."""
    if merge == "mean_embedding":
        vectors = encode_classes(clip, prompts, templates)
        owners = list(range(len(prompts)))
    else:
        if merge == "joined":
            prompts = [ClassPrompt(str(prompt)) for prompt in prompts]
        words = [word for prompt in prompts for word in prompt.words]
        vectors = F.normalize(encode_words(clip, words, templates).mean(dim=1), dim=-1)
        owners = [number for number, prompt in enumerate(prompts) for _ in prompt.words]
    return Queries(vectors, torch.tensor(owners, device=vectors.device), len(prompts))
