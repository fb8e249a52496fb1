"""Training the small CLIP.

Its dense predictions are read through the attention fusion of SDCI, which a small CLIP doesn't survive untrained (its
averaged attention is diffuse): it first learns on the value path, then through the fused attention itself.

The region loss is *dense supervision in the space of texts*: every patch is told the shares of its classes, as
sentences with names drawn at random.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.embedded import build_embedded_clip, embedded_tokenizer
from rsovlib.data.lexicon import BARE, BUILDING, CAR, FARMLAND, FOREST, GRASS, POOL, ROAD, WATER
from rsovlib.experiments.embedded.progress import (
    SAVE_EVERY,
    adamw,
    learning_rate,
    load_progress,
    save_progress,
    set_learning_rate,
)
from rsovlib.experiments.embedded.recipe import SIDE, ClipRecipe, clip_config
from rsovlib.experiments.embedded.samples import LABELS, VEGETATION, Batch, Pool, draw_batch
from rsovlib.experiments.embedded.texts import (
    NAMED_CROPS,
    NAMED_ROOFS,
    WordList,
    draw_captions,
    draw_colour_texts,
    draw_synonyms,
    draw_word_lists,
)
from rsovlib.kernels.attention import accumulate, normalise_round_, processed_map

_TEXT_SCALE = 20.0
_LARGEST_SCALE = 60.0
_FIRST_SCALE = 14.0
_LOG_EVERY = 25


@dataclass(frozen=True)
class DenseTokens:
    """What the image tower says of a batch, in the joint space (not of unit norm).

    Attributes:
        image: (B, E) class token of the whole network.
        paths: names of dense readings, each (B, N, E): "value", "fused", "value_deep", "fused_deep".
    """

    image: torch.Tensor
    paths: dict[str, torch.Tensor]


def dense_tokens(clip: ClipBackbone, images: torch.Tensor, deep: int, *, fused: bool) -> DenseTokens:
    """The forward pass of the training: the same readings that SDCI uses, with gradients.

    Args:
        clip: the model.
        images: (B, 3, S, S) in [0, 1].
        deep: index of the feature, 0 .. L - 2, that is read beside the last one (register D11 of SDCI: the
            layer-normed input of block ``deep + 1``).
        fused: whether the fused attention is wanted as well.

    Returns:
        The tokens; with ``fused`` the k-th feature is read through k rounds of normalisation (D08, official).
    """
    layers = len(clip.blocks)
    tokens = clip.embed(clip.normalise(images))
    maps: torch.Tensor | None = None
    features = []
    for step in clip.walk(tokens, attention=range(layers - 1) if fused else False):
        if step.index < layers - 1:
            features.append(step.normed)
            last = step.output
            if step.attention is not None:
                maps = accumulate(maps, step.attention)
        final = step.output
    # In code of the first phase the deep value path reads block outputs; inputs and outputs differ by one block only.
    paths = {"value": clip.attend_last(last)[:, 1:], "value_deep": clip.attend_last(features[deep])[:, 1:]}
    if maps is not None:
        for number in range(1, layers + 1):
            maps = normalise_round_(maps)
            if number == deep + 1:
                paths["fused_deep"] = clip.attend_last(features[deep], processed_map(maps))[:, 1:]
        paths["fused"] = clip.attend_last(last, processed_map(maps))[:, 1:]
    return DenseTokens(clip.project(final[:, :1])[:, 0], paths)


_SCENE_WEIGHTS = {BUILDING: 1.6, WATER: 1.3, FOREST: 0.9, FARMLAND: 1.3, GRASS: 0.8, CAR: 1.5, POOL: 1.5}
_REAL_WEIGHTS = {BUILDING: 2.2, ROAD: 1.8, BARE: 0.6, VEGETATION: 1.4}


def _class_weights(*, real: bool) -> torch.Tensor:
    """How much each label counts, (LABELS,): small and thin things more, what is everywhere less.

    Most patches with a house hold more of something else; without weights the models name that instead.
    """
    weights = torch.ones(LABELS)
    for label, weight in (_REAL_WEIGHTS if real else _SCENE_WEIGHTS).items():
        weights[label] = weight
    return weights


def _region_loss(tokens: torch.Tensor, texts: torch.Tensor, targets: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every patch's classes against their soft shares."""
    logits = scale * F.normalize(tokens.float(), dim=-1) @ texts.T
    return -(targets * logits.log_softmax(dim=-1)).sum() / targets.sum().clamp(min=1)


def _contrast_loss(
    images: torch.Tensor, captions: torch.Tensor, sets: Sequence[tuple[int, ...]], scale: torch.Tensor
) -> torch.Tensor:
    """Image-caption contrast in which captions of the same set of classes are all positives."""
    same = torch.tensor([[float(a == b) for b in sets] for a in sets])
    same = same / same.sum(dim=1, keepdim=True)
    logits = scale * images @ captions.T
    rows, columns = logits.log_softmax(dim=1), logits.T.log_softmax(dim=1)
    return -0.5 * ((same * rows).sum(dim=1).mean() + (same * columns).sum(dim=1).mean())


def _tag_loss(images: torch.Tensor, texts: torch.Tensor, shares: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Each class that an image has against those that it has not; what is there in traces is left out."""
    logits = scale * images @ texts.T
    present, absent = (shares > 0.06).float(), (shares < 0.01).float()
    against = torch.logaddexp(logits, (logits + absent.clamp(min=1e-9).log()).logsumexp(dim=1, keepdim=True))
    return (present * (against - logits)).sum() / present.sum().clamp(min=1)


def _colour_loss(tokens: torch.Tensor, texts: torch.Tensor, shares: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Colours of roofs (or crops), on patches that are mostly of that class."""
    targets = shares * (shares.sum(dim=-1, keepdim=True) > 0.5)
    if targets.sum() < 3:
        return tokens.new_zeros(())
    return _region_loss(tokens, texts, targets, scale)


def clip_loss(
    clip: ClipBackbone,
    batch: Batch,
    lists: Sequence[WordList],
    recipe: ClipRecipe,
    rng: np.random.Generator,
    *,
    fused: bool,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of one step.

    Args:
        clip: the model.
        batch: images and shares of classes.
        lists: two ways to name the classes that the step tells apart.
        recipe: weights of the losses.
        rng: draws captions, synonyms, colours and the layer that is read besides the last.
        fused: the second phase, through the fused attention.

    Returns:
        The loss, and its parts as numbers.
    """
    captions, sets = draw_captions(rng, batch, recipe.captions)
    roof_texts, crop_texts = draw_colour_texts(rng)
    new, known = draw_synonyms(rng)
    groups = [*(words.texts for words in lists), captions, roof_texts, crop_texts, new, known]
    deep = int(rng.integers(len(clip.blocks) - 1))
    with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
        every_text = clip.encode_text([text for group in groups for text in group])
        dense = dense_tokens(clip, batch.images, deep, fused=fused)
    *named, caption_texts, roofs, crops, new_texts, known_texts = every_text.split([len(group) for group in groups])
    images = F.normalize(dense.image.float(), dim=-1)
    scale = clip.model.logit_scale.exp().clamp(max=_LARGEST_SCALE)  # type: ignore[operator]

    weighted = batch.shares * _class_weights(real=batch.real)
    tagged = batch.shares.mean(dim=1)

    def region(path: str, which: int) -> torch.Tensor:
        return _region_loss(dense.paths[path], named[which], weighted @ lists[which].members, scale)

    prefix = "fused" if fused else "value"
    either = int(rng.integers(len(lists)))
    parts = {
        "region": region(prefix, 0),
        "second": recipe.second * region(prefix, 1),
        "deep": recipe.deep * region(f"{prefix}_deep", either),
        "tags": recipe.tags * _tag_loss(images, named[either], tagged @ lists[either].members, scale),
        "captions": recipe.contrast * _contrast_loss(images[: len(captions)], caption_texts, sets, scale),
        "synonyms": recipe.thesaurus * F.cross_entropy(_TEXT_SCALE * new_texts @ known_texts.T, torch.arange(len(new))),
    }
    if fused:
        parts["identity"] = recipe.identity * region("value", either)
    path = dense.paths["value" if fused and rng.random() < 0.5 else prefix]
    parts["roofs"] = recipe.attributes * _colour_loss(path, roofs, batch.roofs[..., list(NAMED_ROOFS)], scale)
    parts["crops"] = recipe.attributes * _colour_loss(path, crops, batch.crops[..., list(NAMED_CROPS)], scale)
    return torch.stack(list(parts.values())).sum(), {name: float(part.detach()) for name, part in parts.items()}


def new_clip(seed: int) -> ClipBackbone:
    """An untrained small CLIP with its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = embedded_tokenizer()
    model: open_clip.CLIP = build_embedded_clip(clip_config(tokenizer.vocab_size))  # type: ignore[attr-defined]
    with torch.no_grad():
        model.logit_scale.fill_(math.log(_FIRST_SCALE))
    return ClipBackbone(model, tokenizer, name="embedded CLIP in training", weights="random")


def train_clip(
    scenes: Pool,
    real: Pool | None,
    recipe: ClipRecipe,
    seed: int,
    checkpoint: Path | None = None,
) -> tuple[ClipBackbone, list[dict[str, float]]]:
    """Trains the small CLIP.

    Args:
        scenes: simulated scenes.
        real: real images with labels, or None.
        recipe: how.
        seed: of the initial weights and of every draw.
        checkpoint: where to keep the progress; a stopped run goes on from there.

    Returns:
        The model in evaluation mode, and the log: losses every 25 steps, with CPU seconds.
    """
    rng = np.random.default_rng([seed, 1])
    clip = new_clip(seed)
    model = clip.model
    model.train()
    optimiser = adamw(model, recipe.value_rate, 0.05)
    parts = {"model": model, "optimiser": optimiser}
    start, log = load_progress(checkpoint, rng, parts) if checkpoint else (0, [])
    total = recipe.value_steps + recipe.fused_steps
    used = log[-1]["cpu_seconds"] if log else 0.0
    began = time.process_time() - used
    for step in tqdm(range(start, total), initial=start, total=total, desc="CLIP", unit="step"):
        fused = step >= recipe.value_steps
        rate = (
            learning_rate(step - recipe.value_steps, recipe.fused_steps, recipe.fused_rate)
            if fused
            else learning_rate(step, recipe.value_steps, recipe.value_rate)
        )
        set_learning_rate(optimiser, rate)
        large = rng.random() < (recipe.large_fused if fused else recipe.large_value)
        pool = real if real is not None and rng.random() < recipe.real else scenes
        batch = draw_batch(rng, pool, recipe.batch // 4 if large else recipe.batch, 2 * SIDE if large else SIDE)
        lists = draw_word_lists(rng, real=pool.real, regrouped=recipe.regrouped)
        loss, losses = clip_loss(clip, batch, lists, recipe, rng, fused=fused)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % _LOG_EVERY == 0 or step == total - 1:
            log.append({"step": step, "real": float(pool.real), **losses, "cpu_seconds": time.process_time() - began})
        if checkpoint and ((step + 1) % SAVE_EVERY == 0 or step == total - 1):
            save_progress(checkpoint, step + 1, rng, parts, log)
    model.eval()
    return clip, log
