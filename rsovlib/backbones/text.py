"""From class names to text embeddings: templates, and synonyms merged in the space of embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.data.classes import ClassPrompt
from rsovlib.data.lexicon import RS10
from rsovlib.errors import InputError, unknown_name

#: CLIPer's templates; four lack their full stop, as published.
PHOTO15 = (
    "a clean origami {}.",
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in ("small", "medium", "large")),
    *(f"This is a photo of a {size} {{}}." for size in ("small", "medium", "large")),
    *(f"There is a {size} {{}} in the scene." for size in ("small", "medium", "large")),
)
#: What MaskCLIP adds to OpenAI's 80.
IN_THE_SCENE = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)

#: Texts encoded at once; bounds memory for the largest text towers.
_BATCH = 64


def template_set(name: str | Sequence[str]) -> tuple[str, ...]:
    """A set of templates by name, or one's own.

    Args:
        name: ``"rs10"`` (SDCI), ``"openai80"`` (the 80 of OpenAI's ImageNet evaluation), ``"maskclip85"`` (those and
            five more), ``"photo15"`` (CLIPer), ``"plain"`` (the bare word), or a sequence of strings with one ``{}``
            each.

    Raises:
        InputError: unknown name, no template, or a template without ``{}``.
    """
    if isinstance(name, str):
        if name in ("openai80", "maskclip85"):
            import open_clip

            openai80 = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
            return openai80 if name == "openai80" else openai80 + IN_THE_SCENE
        known = {"rs10": RS10, "photo15": PHOTO15, "plain": ("{}",)}
        if name not in known:
            raise unknown_name("set of templates", name, [*known, "openai80", "maskclip85"])
        return known[name]
    templates = tuple(name)
    if not templates or any(template.count("{}") != 1 for template in templates):
        raise InputError(
            "Every template needs exactly one {} where the class name goes, and there must be one template."
        )
    return templates


def encode_words(clip: ClipBackbone, words: Sequence[str], templates: str | Sequence[str] = "rs10") -> torch.Tensor:
    """Embeddings of words in every template.

    Args:
        clip: the model.
        words: n class names or synonyms.
        templates: see :func:`template_set`.

    Returns:
        (n, templates, E), unit norm.
    """
    patterns = template_set(templates)
    remembered = clip.remembered_words()
    if remembered is None:
        return _encode(clip, words, patterns)
    new = [word for word in dict.fromkeys(words) if (word, patterns) not in remembered]
    if new:
        rows = _encode(clip, new, patterns)
        with torch.inference_mode(False):  # what is kept may later meet gradients
            remembered.update({(word, patterns): row.clone() for word, row in zip(new, rows, strict=True)})
    return torch.stack([remembered[word, patterns] for word in words])


def _encode(clip: ClipBackbone, words: Sequence[str], patterns: Sequence[str]) -> torch.Tensor:
    texts = [pattern.replace("{}", word) for word in words for pattern in patterns]
    rows = [clip.encode_text(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    return torch.cat(rows).reshape(len(words), len(patterns), -1)


def encode_classes(
    clip: ClipBackbone,
    prompts: Sequence[ClassPrompt],
    templates: str | Sequence[str] = "rs10",
) -> torch.Tensor:
    """One embedding a class, its synonyms merged in the space of embeddings (SDCI, register D32).

    For each template the mean over the class's words is taken and brought to unit norm; then the mean over the
    templates likewise. Repeating a word therefore changes nothing, and many synonyms give a class no advantage.

    Args:
        clip: the model.
        prompts: K classes.
        templates: see :func:`template_set`.

    Returns:
        (K, E), unit norm.
    """
    words = [word for prompt in prompts for word in prompt.words]
    by_word = encode_words(clip, words, templates)
    classes = []
    for rows in torch.split(by_word, [len(prompt.words) for prompt in prompts]):
        by_template = F.normalize(rows.mean(dim=0), dim=-1)
        classes.append(F.normalize(by_template.mean(dim=0), dim=-1))
    return torch.stack(classes)
