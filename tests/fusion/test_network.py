"""The network's switches, what it does without SAR, what is trained, and bad input."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from rsovlib.backbones import ClipBackbone, DinoBackbone
from rsovlib.errors import InputError
from rsovlib.fusion.config import READINGS, RELEASE_DIFFERS, FusionConfig, Readings
from rsovlib.fusion.cost import CostEmbedding, cosine_cost
from rsovlib.fusion.dense_clip import dense_features
from rsovlib.fusion.network import CostAggregationNetwork


@pytest.fixture
def full(small, clip, optical_dino, sar_dino) -> CostAggregationNetwork:
    torch.manual_seed(31)
    return CostAggregationNetwork(small, clip, optical_dino, sar_dino).eval()


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(32)
    return torch.rand(2, 3, 48, 40), torch.rand(2, 3, 48, 40)


def copied(config: FusionConfig, source: CostAggregationNetwork, *dinos: DinoBackbone) -> CostAggregationNetwork:
    """Another network with as much of the first one's weights as it has a place for."""
    network = CostAggregationNetwork(config, source.clip, *dinos).eval()
    state = source.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return network


# ---- acceptance --------------------------------------------------------------------------------------------


def test_sar_projections_at_zero_give_gsnet(small, full, optical_dino, pair, names) -> None:
    optical, sar = pair
    gsnet = copied(FusionConfig.for_method("gsnet", small), full, optical_dino)
    with torch.no_grad():
        text = full.encode_text(names)
        different = full(optical, text, sar)
        for parameter in full.sar_levels.parameters():
            parameter.zero_()
        torch.testing.assert_close(full(optical, text, sar), gsnet(optical, text))
        assert (different - gsnet(optical, text)).abs().max() > 1e-4


def test_without_dino_it_is_cat_seg(small, clip, pair, names) -> None:
    """The whole chain of CAT-Seg written out: no sigmoid, no second cost, no DINO in the decoder."""
    torch.manual_seed(33)
    network = CostAggregationNetwork(FusionConfig.for_method("cat-seg", small), clip).eval()
    optical, text = pair[0], network.encode_text(names)
    with torch.no_grad():
        features = dense_features(
            network.clip, network.clip.normalise(optical), skips=(1, 2), reading="class_residual", position="bilinear"
        )
        cost = torch.einsum("bdhw,tpd->btphw", F.normalize(features.last, dim=1), text)
        volume = torch.stack([network.embedding.clip(cost[:, t]) for t in range(len(names))], dim=1)
        refined = network.aggregator(volume, features.last, text)
        skips = [network.clip_middle(features.skips[0])], [network.clip_fine(features.skips[1])]
        torch.testing.assert_close(network(optical, text), network.decoder(refined, *skips))
    assert network.embedding.fuse is None
    assert not [name for name, _ in network.named_parameters() if "dino" in name or "optical" in name]


def test_permuting_the_classes_permutes_the_logits(full, pair, names) -> None:
    optical, sar = pair
    order = [2, 0, 3, 1]
    with torch.no_grad():
        plain = full(optical, full.encode_text(names), sar)
        mixed = full(optical, full.encode_text([names[i] for i in order]), sar)
    torch.testing.assert_close(mixed, plain[:, order], rtol=1e-4, atol=1e-5)


def test_no_valid_sar_is_no_sar(full, pair, names) -> None:
    optical, sar = pair
    with torch.no_grad():
        text = full.encode_text(names)
        nowhere = full(optical, text, torch.full_like(sar, torch.nan), torch.zeros_like(sar[:, :1]))
        everywhere = full(optical, text, sar, torch.ones_like(sar[:, :1]))
        torch.testing.assert_close(nowhere, full(optical, text), rtol=0, atol=0)
        torch.testing.assert_close(everywhere, full(optical, text, sar))
        assert (nowhere - everywhere).abs().max() > 1e-4


def test_what_lies_under_the_mask_makes_no_difference(full, pair, names) -> None:
    optical, sar = pair
    valid = torch.ones_like(sar[:, :1])
    valid[..., :20] = 0
    other = sar.clone()
    other[..., :20] = 1 - other[..., :20]
    with torch.no_grad():
        text = full.encode_text(names)
        torch.testing.assert_close(full(optical, text, sar, valid), full(optical, text, other, valid))
        careless = copied(full.config.with_readings(masks_missing_sar=False), full, full.optical_dino, full.sar_dino)
        assert (careless(optical, text, sar, valid) - careless(optical, text, other, valid)).abs().max() > 1e-4
        torch.testing.assert_close(careless(optical, text, sar, valid), full(optical, text, sar))


def test_a_second_clip_for_sar_adds_nothing_at_first_but_its_skips(small, full, clip, pair, names) -> None:
    optical, sar = pair
    config = FusionConfig(**{**small.__dict__, "sar_clip": True})
    network = CostAggregationNetwork(config, clip, full.optical_dino, full.sar_dino, clip).eval()
    network.load_state_dict(full.state_dict(), strict=False)
    with torch.no_grad():
        text = full.encode_text(names)
        plain, more = full.run(optical, text, sar), network.run(optical, text, sar)
        torch.testing.assert_close(more.cost_clip, plain.cost_clip)
        assert (more.logits - plain.logits).abs().max() > 1e-5
        nowhere = torch.zeros_like(sar[:, :1])
        torch.testing.assert_close(network(optical, text, sar, nowhere), full(optical, text), rtol=0, atol=0)
    network.train()
    network(optical, network.encode_text(names), sar).square().sum().backward()
    assert network.sar_clip_levels.last.weight.grad.abs().max() > 0
    assert not any(p.requires_grad for p in network.sar_clip_model.parameters())
    with pytest.raises(InputError, match="needs sar_clip"):
        CostAggregationNetwork(config, clip, full.optical_dino, full.sar_dino)


def test_with_the_cost_skip_a_fresh_network_says_what_the_cosines_say(small, full, pair, names) -> None:
    config = FusionConfig(**{**small.__dict__, "cost_skip": 8.0})
    network = CostAggregationNetwork(config, full.clip, full.optical_dino, full.sar_dino).eval()
    with torch.no_grad():
        out = network.run(pair[0], network.encode_text(names), pair[1])
        cosines = 8 * (out.cost_clip[:, 0] - 0.2) + 4 * (out.cost_dino[:, 0] - 0.2) + network.decoder.head.bias
        expected = F.interpolate(cosines, size=out.logits.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(out.logits, expected, rtol=1e-4, atol=1e-5)
    assert len(network.trained_parameters()) == len(full.trained_parameters()) + 2


# ---- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 48), (37, 61), (8, 8), (3, 5), (100, 20)])
def test_any_size(full, names, size: tuple[int, int]) -> None:
    optical = torch.rand(1, 3, *size)
    with torch.no_grad():
        out = full.run(optical, full.encode_text(names), optical)
    rows, columns = (max(1, int(side / 8 + 0.5)) for side in size)
    assert out.logits.shape == (1, len(names), 4 * rows, 4 * columns)
    assert out.cost_clip.shape == (1, 1, len(names), rows, columns)
    assert out.logits.isfinite().all()


def test_costs_are_cosines(full, pair, names) -> None:
    with torch.no_grad():
        out = full.run(pair[0], full.encode_text(names), pair[1])
    for cost in (out.cost_clip, out.cost_dino):
        assert cost.abs().max() <= 1 + 1e-6
    features, text = torch.randn(2, 7, 3, 4), torch.randn(5, 2, 7)
    cost = cosine_cost(features, text)
    one = F.cosine_similarity(features[1, :, 2, 3], text[4, 1], dim=0)
    torch.testing.assert_close(cost[1, 1, 4, 2, 3], one)


def test_fused_volume_is_that_of_the_paper() -> None:
    torch.manual_seed(34)
    embedding = CostEmbedding(2, 6, 3, dino=True)
    clip, dino = torch.randn(2, 2, 5, 4, 3), torch.randn(2, 2, 5, 4, 3)
    first, second = embedding.clip(clip[:, :, 1]).sigmoid(), embedding.dino(dino[:, :, 1]).sigmoid()
    expected = embedding.fuse(torch.cat([first, second], dim=1)).sigmoid() + first
    torch.testing.assert_close(embedding(clip, dino)[:, 1], expected)


# ---- CLIP ---------------------------------------------------------------------------------------------------


def test_dense_reading_adds_the_class_token_that_entered(clip: ClipBackbone) -> None:
    torch.manual_seed(35)
    pixels = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        tokens = clip.embed(pixels)
        streams = []
        for step in clip.walk(tokens, stop=2):
            tokens = step.output
            streams.append(tokens)
        block = clip.blocks[-1]
        packed = F.linear(block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias)
        x = tokens[:, :1] + block.attn.out_proj(packed[..., 64:])
        x = x + block.mlp(block.ln_2(x))
        expected = (clip._visual.ln_post(x) @ clip._visual.proj)[:, 1:].transpose(1, 2).reshape(1, 24, 6, 6)
        got = dense_features(clip, pixels, skips=(2, 1), reading="class_residual", position="bilinear")
        own = dense_features(clip, pixels, skips=(), reading="own_residual", position="bilinear")
    torch.testing.assert_close(got.last, expected)
    torch.testing.assert_close(got.skips[0][0, :, 2, 3], streams[1][0, 1 + 2 * 6 + 3])
    torch.testing.assert_close(got.skips[1][0, :, 2, 3], streams[0][0, 1 + 2 * 6 + 3])
    assert (own.last - expected).abs().max() > 1e-3


def test_taking_the_attention_apart_changes_nothing_in_clip(full, clip, pair, names) -> None:
    pixels = clip.normalise(pair[0])
    with torch.no_grad():
        torch.testing.assert_close(full.clip.encode_text(names), clip.encode_text(names), rtol=1e-5, atol=1e-6)
        for own, given in zip(full.clip.walk(full.clip.embed(pixels)), clip.walk(clip.embed(pixels)), strict=True):
            torch.testing.assert_close(own.output, given.output)


def test_only_what_is_listed_moves(full, clip, optical_dino, sar_dino, pair, names) -> None:
    before = {name: value.clone() for name, value in full.state_dict().items()}
    given = {name: value.clone() for name, value in clip.model.state_dict().items()}
    groups = {"clip": 1e-2, "new": 1e-2}
    parameters = full.trained_parameters()
    assert {group for group, _ in parameters} == set(groups)
    optimiser = torch.optim.SGD([{"params": [p], "lr": groups[group]} for group, p in parameters])
    full.train()
    assert not full.clip_model.training
    full(pair[0], full.encode_text(names), pair[1]).square().sum().backward()
    optimiser.step()
    moved = {name for name, value in full.state_dict().items() if not torch.equal(value, before[name])}
    clip_moved = {name for name in moved if name.startswith("clip_model.")}
    # Query and value weights of both towers; the last image block's queries have no part in the dense reading.
    assert all(name.endswith(("in_proj_weight.original0", "in_proj_weight.original2")) for name in clip_moved)
    towers = len(clip.blocks) + len(clip.model.transformer.resblocks)
    assert len(clip_moved) == 2 * towers - 1
    assert not [name for name in moved if name.startswith(("optical_model.", "sar_model."))]
    new = {name for name, _ in full.named_parameters() if not name.startswith(("clip_model", "optical_m", "sar_m"))}
    # A constant added to all keys of a softmax cancels.
    assert all(name.startswith("aggregator.spatial") and name.endswith("key.bias") for name in new - moved)
    # The backbone that was given is still what it was.
    assert all(torch.equal(value, given[name]) for name, value in clip.model.state_dict().items())


def test_position_tables_are_trained_only_where_the_reading_says_so(small, clip, optical_dino, sar_dino) -> None:
    plain = CostAggregationNetwork(small, clip, optical_dino, sar_dino)
    with_tables = CostAggregationNetwork(small.with_readings(trains_position=True), clip, optical_dino, sar_dino)
    extra = len(with_tables.trained_parameters()) - len(plain.trained_parameters())
    assert extra == 2
    names = {name for name, p in with_tables.named_parameters() if p.requires_grad and "positional" in name}
    assert names == {"clip_model.positional_embedding", "clip_model.visual.positional_embedding"}


def test_text_gradients_in_training_and_memory_when_frozen(full, names) -> None:
    assert full.encode_text(names).requires_grad
    full.freeze()
    first = full.encode_text(names)
    assert not first.requires_grad
    assert full.clip.remembered_words()
    # Remembered by word: another list of classes gets its own texts.
    torch.testing.assert_close(full.encode_text(names[::-1]), first.flip(0))


# ---- readings ------------------------------------------------------------------------------------------------


def test_readings_of_the_release() -> None:
    ours, theirs = Readings(), Readings.released()
    differing = {name for name in READINGS if getattr(ours, name) != getattr(theirs, name)}
    assert differing == set(RELEASE_DIFFERS)
    assert theirs.ignored_as_negative
    assert not ours.ignored_as_negative
    assert Readings.released(plain_class_names=True).plain_class_names


def test_words_of_the_release(full, small, optical_dino, sar_dino) -> None:
    theirs = copied(FusionConfig(**{**small.__dict__, "readings": Readings.released()}), full, optical_dino, sar_dino)
    with torch.no_grad():
        text = theirs.encode_text(["background, clutter", "developed space", "road"])
        expected = full.encode_text(["backbroad", "developedspace", "road"])
        both = full.encode_text(["background, clutter"])
        words = full.encode_text(["background", "clutter"])
    torch.testing.assert_close(text, expected)
    torch.testing.assert_close(both[0], F.normalize(words.mean(dim=0), dim=-1))


def test_skip_order_and_statistics_change_the_network(full, optical_dino, sar_dino, pair, names) -> None:
    with torch.no_grad():
        text = full.encode_text(names)
        plain = full(pair[0], text, pair[1])
        for change in ({"shallow_skip_first": False}, {"own_statistics": False}, {"pads_classes": False}):
            other = copied(full.config.with_readings(**change), full, optical_dino, sar_dino)
            assert (other(pair[0], text, pair[1]) - plain).abs().max() > 1e-6


# ---- configuration and bad input ------------------------------------------------------------------------------


def test_configuration_survives_json() -> None:
    config = FusionConfig.vit_l(optical_dino=True, readings=Readings.released(own_statistics=True))
    assert FusionConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert [FusionConfig.for_method(m, config).method for m in ("mm-ovseg", "gsnet", "cat-seg")] == [
        "mm-ovseg",
        "gsnet",
        "cat-seg",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optical_dino": False}, "needs the optical one"),
        ({"clip_dense": "token"}, "dense reading"),
        ({"heads": 3}, "can't share"),
        ({"kernel": 4}, "odd"),
        ({"templates": ("a photo",)}, "template"),
        ({"window": 0}, "at least 1"),
        ({"bogus": 1}, "no entry"),
        ({"readings": {"bogus": True}}, "no reading"),
    ],
)
def test_bad_configurations(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FusionConfig.from_dict(values)


def test_bad_input(full, small, clip, optical_dino, sar_dino, pair, names) -> None:
    optical, sar = pair
    text = full.encode_text(names).detach()
    for arguments, message in (
        ((optical[0], text), "Optical images must be"),
        ((optical, text[:, 0]), "Texts must be"),
        ((optical, text, sar[..., :8]), "bring them to one grid"),
        ((optical, text, sar, sar), "sar_valid must be"),
    ):
        with pytest.raises(InputError, match=message):
            full(*arguments)
    gsnet = CostAggregationNetwork(FusionConfig.for_method("gsnet", small), clip, optical_dino)
    with pytest.raises(InputError, match="no SAR branch"):
        gsnet(optical, text, sar)
    with pytest.raises(InputError, match="needs sar_dino"):
        CostAggregationNetwork(small, clip, optical_dino)
    with pytest.raises(InputError, match="no place for optical_dino"):
        CostAggregationNetwork(FusionConfig.for_method("cat-seg", small), clip, optical_dino)
    with pytest.raises(InputError, match="has 3 blocks"):
        CostAggregationNetwork(FusionConfig.embedded(clip_skips=(1, 2)), clip, optical_dino, sar_dino)
    with pytest.raises(InputError, match="below the last"):
        CostAggregationNetwork(FusionConfig.embedded(dino_blocks=(1, 2, 3)), clip, optical_dino, sar_dino)
