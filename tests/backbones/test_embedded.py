"""The models that ship with the package: complete, unaltered, real open_clip and timm objects, able to do their job."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from timm.models.vision_transformer import VisionTransformer

from rsovlib.backbones import load_clip, load_dino
from rsovlib.backbones.checkpoints import sha256_of
from rsovlib.backbones.embedded import (
    EMBEDDED,
    embedded_card,
    embedded_model,
    embedded_path,
    embedded_tokenizer,
)
from rsovlib.data.lexicon import all_training_texts
from rsovlib.errors import InputError
from rsovlib.experiments.embedded.evaluation import run_segmenter, scene_cases, value_path, word_lists
from rsovlib.experiments.embedded.recipe import VALIDATION_SEEDS
from rsovlib.experiments.embedded.statistics import mean_iou
from rsovlib.segmenters.sdci import SDCI, SDCIConfig

CLIPS = sorted(name for name, entry in EMBEDDED.items() if entry.kind == "clip")
DINOS = sorted(name for name, entry in EMBEDDED.items() if entry.kind == "dino")


def test_there_is_a_pair_for_every_seed():
    assert "rsov-tiny-clip" in CLIPS
    assert [name.replace("clip", "dino") for name in CLIPS] == DINOS


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_files_are_what_the_manifest_says(name):
    assert sha256_of(embedded_path(name)) == embedded_model(name).sha256
    assert embedded_path(name).suffix == ".safetensors"


def test_all_weights_together_stay_small():
    assert sum(embedded_path(name).stat().st_size for name in EMBEDDED) <= 25e6


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_cards_say_what_the_models_are(name):
    card = embedded_card(name)
    for part in ("not open-vocabulary in general", "## Data", "## Words", "## Budget", "## Scores", "## Limits"):
        assert part in card, part


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'rsov-tiny-clip'"):
        embedded_model("rsov-tiny-klip")


@pytest.mark.parametrize("name", CLIPS)
def test_clips_load_as_open_clip_models(name):
    clip = load_clip(name, device="cpu")
    assert isinstance(clip.model, open_clip.CLIP)
    text = clip.encode_text(["water", "a satellite image of a forest."])
    assert text.shape == (2, clip.embed_dim)
    torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
    tokens = clip.embed(clip.normalise(torch.rand(1, 3, 40, 56)))
    assert tokens.shape == (1, 1 + 5 * 7, clip.width)


@pytest.mark.parametrize("name", DINOS)
def test_dinos_load_as_timm_models_in_the_space_of_texts(name):
    dino = load_dino(name, device="cpu")
    assert isinstance(dino.model, VisionTransformer)
    features = dino.features(dino.normalise(torch.rand(1, 3, 40, 56)))
    assert features.grid == (5, 7)
    assert len(features.layers) == len(features.text_layers) == len(dino.model.blocks)
    clip = load_clip(name.replace("dino", "clip"), device="cpu")
    assert features.text_layers[-1].shape == (1, 35, clip.embed_dim)
    assert not torch.equal(features.text_layers[-1], features.layers[-1])  # aligned, not merely of equal width


def test_the_tokenizer_cuts_the_lexicon_as_clips_own_does():
    small, full = embedded_tokenizer(), SimpleTokenizer()
    for text in all_training_texts():
        pieces = [small.decoder[token] for token in small.encode(text)]
        assert pieces == [full.decoder[token] for token in full.encode(text)], text


def test_any_word_tokenizes_and_no_two_lexicon_words_collide():
    tokens = embedded_tokenizer()(["quixotic zeppelins", "Überschwemmung", "", "42 bridges!"])
    assert tokens.shape == (4, 24)
    texts = all_training_texts()
    rows = {tuple(row) for row in embedded_tokenizer()(texts).tolist()}
    # Punctuation and blanks apart, every text has tokens of its own.
    assert len(rows) == len({" ".join(text.split()) for text in texts})


def test_the_vocabulary_fits_the_weights():
    for name in CLIPS:
        assert embedded_model(name).config["text_cfg"]["vocab_size"] == embedded_tokenizer().vocab_size


@pytest.mark.parametrize("name", CLIPS)
def test_they_recognise_land_cover_by_its_names_and_not_by_nonsense(name):
    clip, cases, words = load_clip(name, device="cpu"), scene_cases(4, VALIDATION_SEEDS), word_lists()

    def score(kind):
        return float(mean_iou(run_segmenter(value_path(clip), cases, words[kind]).sum(axis=0)))

    # Guessing one class everywhere can't reach 25 with seven classes; the trained models are far above it.
    assert score("class names") > 35
    assert score("thesaurus words") > 25
    assert score("nonsense 1") < 25


def test_sdci_runs_on_them_at_odd_sizes(image):
    segmenter = SDCI(
        load_clip("rsov-tiny-clip", device="cpu"), load_dino("rsov-tiny-dino", device="cpu"), SDCIConfig.embedded()
    )
    result = segmenter(image, ["water", "forest, trees", "bare soil"])
    assert result.labels.shape == image.shape[:2]
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-4)
