"""Running SDCI under many configurations with shared steps gives what each of them gives alone."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from rsovlib.data.scenes import make_scene
from rsovlib.errors import InputError
from rsovlib.experiments.sdci.staged import STEPS, WINDOWS, StagedTile, in_good_order, labels_under
from rsovlib.segmenters import SDCI, SDCIConfig, make_segmenter

WORDS = ["water, river", "forest", "grass"]
#: One other value for every field.
OTHER = {
    "clip_size": 72,
    "position_embedding": "bicubic",
    "dino_size": 104,
    "dino_scale": 1.0,
    "dino_like_clip": True,
    "dino_resize": "pil",
    "layer_maps": "sum",
    "sinkhorn_rounds": 0,
    "centre": "global_mean",
    "value_path": "values",
    "layer_features": "block_outputs",
    "clip_attention": "raw_mean",
    "class_token": "dropped",
    "dino_rows": "renormalised",
    "background": None,
    "mean_text": False,
    "templates": "plain",
    "synonyms": "by_word",
    "align_renorm": True,
    "scores": "logits",
    "logit_scale": 20.0,
    "score_threshold": 0.0,
    "lambda_1": 0.3,
    "caf": False,
    "graph_features": "mean",
    "neighbours": 4,
    "tau": 1.0,
    "bcdr": False,
    "diffusion_graph": "own",
    "alpha": 0.5,
    "steps": 3,
    "rescale": False,
    "presence_threshold": 1.2,
    "min_max": False,
    "to_probability": "sum",
    "softmax_above": 9.0,
    "floor": 1e-3,
    "cscp": False,
    "w_in": 0.5,
    "w_cross": 1.0,
    "lambda_clip": 0.5,
    "lambda_dino": 1.0,
    "beta": 0.5,
    "solver": "official",
    "tolerance": 1e-2,
    "superpixel_scale": 400.0,
    "superpixel_sigma": 2.0,
    "superpixel_min_size": 100,
}


@pytest.fixture(scope="module")
def sdci() -> SDCI:
    made = make_segmenter("sdci", device="cpu")
    assert isinstance(made, SDCI)
    return made


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.ascontiguousarray(make_scene(64, seed=3).optical[:, :56])


def test_every_field_belongs_to_one_step():
    names = [name for step in STEPS.values() for name in step] + list(WINDOWS)
    assert sorted(names) == sorted(entry.name for entry in fields(SDCIConfig))
    assert {*OTHER, "precision"} == set(names) - set(WINDOWS)


def test_each_configuration_gives_what_it_gives_alone(sdci, picture):
    """Also where the one before shares all but one field: a field in the wrong step would be overlooked."""
    configs = {"base": sdci.config, **{name: replace(sdci.config, **{name: value}) for name, value in OTHER.items()}}
    together = labels_under(sdci, configs, picture, WORDS)
    assert list(together) == list(configs)
    for name, config in configs.items():
        np.testing.assert_array_equal(together[name], replace(sdci, config=config)(picture, WORDS).labels, name)


def test_windows(sdci):
    image = make_scene(96, seed=5).optical
    config = replace(sdci.config, window=64, overlap=16)
    configs = {"one": config, "other": replace(config, beta=1.0)}
    for name, labels in labels_under(sdci, configs, image, WORDS).items():
        np.testing.assert_array_equal(labels, replace(sdci, config=configs[name])(image, WORDS).labels)


def test_a_warm_start_stays_within_the_tolerance(sdci, picture):
    configs = {f"{beta}": replace(sdci.config, beta=beta, tolerance=1e-6) for beta in (0.1, 0.05, 0.4)}
    cold = labels_under(sdci, configs, picture, WORDS)
    warm = labels_under(sdci, configs, picture, WORDS, warm=True)
    for name in configs:
        assert (cold[name] == warm[name]).mean() > 0.999


def test_the_networks_run_once_for_all_that_comes_after_them(sdci, picture, monkeypatch):
    calls = []
    encode = SDCI.encode_image
    monkeypatch.setattr(SDCI, "encode_image", lambda self, image: calls.append(self.config) or encode(self, image))
    base = sdci.config
    other = replace(base, dino_scale=1.0)
    # Mixed up, so that keeping only the last one doesn't do without an order.
    mixed = [base, other, replace(base, beta=0.3), replace(other, beta=0.3), replace(base, tau=1.0)]
    labels_under(sdci, {str(index): config for index, config in enumerate(mixed)}, picture, WORDS)
    assert [config.dino_scale for config in calls] == [2.0, 1.0]


def test_the_order_starts_with_the_first_and_follows_the_steps(sdci):
    base = sdci.config
    configs = {
        "base": base,
        "graph": replace(base, tau=1.0),
        "fusion": replace(base, beta=0.3),
        "graph and fusion": replace(base, tau=1.0, beta=0.3),
    }
    assert in_good_order(configs) == ["base", "fusion", "graph", "graph and fusion"]


def test_configurations_that_cut_the_image_differently(sdci, picture):
    configs = {"one": sdci.config, "other": replace(sdci.config, window=128)}
    with pytest.raises(InputError, match="same window"):
        labels_under(sdci, configs, picture, WORDS)
    with pytest.raises(InputError, match="there are 0"):
        labels_under(sdci, {}, picture, WORDS)


def test_a_tile_without_the_convex_step(sdci, picture):
    from rsovlib.data.classes import parse_classes

    config = replace(sdci.config, cscp=False)
    fused = StagedTile(sdci, picture, parse_classes(WORDS)).probabilities(config)
    np.testing.assert_allclose(fused.sum(dim=0), 1, atol=1e-6)
