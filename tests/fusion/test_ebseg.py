"""EBSeg: its balance, its attention to masks, its losses, and that it learns."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from rsovlib.errors import InputError
from rsovlib.fusion.ebseg import EBSegConfig, EBSegNetwork
from rsovlib.fusion.ebseg_head import Prediction, sine_places
from rsovlib.fusion.ebseg_loss import match, set_losses, targets_of

SMALL = EBSegConfig.embedded(
    clip_blocks=(1, 1, 2), dino_blocks=(1, 2, 3), attention_from=1, width=16, queries=5, layers=2, heads=2, hidden=16
)


@pytest.fixture
def network(clip, optical_dino) -> EBSegNetwork:
    torch.manual_seed(61)
    config = EBSegConfig(**{**SMALL.__dict__, "clip_blocks": (1, 1, 1)})
    return EBSegNetwork(config, clip, optical_dino).eval()


@pytest.fixture
def optical() -> torch.Tensor:
    torch.manual_seed(62)
    return torch.rand(2, 3, 40, 48)


def test_logits_are_the_papers_formula(network, optical, names) -> None:
    network.remember(names[:2])
    text = network.encode_text(names)
    assert text[:, 0, -1].tolist() == [1, 1, 0, 0]
    with torch.no_grad():
        out = network.run(optical, text)
        last, words = out.predictions[-1], text[:, 0, :-1]
        scale = network.clip_model.logit_scale.exp()
        supervised, looked, frozen = (
            (scale * part @ words.T).softmax(-1) for part in (last.embeddings, out.attended, out.pooled)
        )
        scores = torch.empty_like(supervised)
        for number in range(len(names)):
            weight = network.config.alpha if number < 2 else network.config.beta
            gamma = network.config.gamma
            scores[..., number] = (
                supervised[..., number] ** (1 - weight - gamma)
                * frozen[..., number] ** weight
                * looked[..., number] ** gamma
            )
        scores = scores / scores.sum(dim=-1, keepdim=True)
        with_none = torch.cat([words, F.normalize(network.no_class, dim=0)[None]])
        exists = 1 - (scale * last.embeddings @ with_none.T).softmax(-1)[..., -1:]
        expected = torch.einsum("bqt,bqhw->bthw", scores * exists, last.masks.sigmoid())
    torch.testing.assert_close(out.logits.exp(), expected, rtol=1e-4, atol=1e-6)
    assert out.logits.shape == (2, 4, 20, 24)
    # Normalised, the logarithms' softmax is the share of the scores.
    torch.testing.assert_close(out.logits.softmax(1), expected / expected.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_without_a_bias_a_query_is_the_class_token(network, optical) -> None:
    """Copies of the class token that look everywhere become what CLIP's own class token becomes, but for themselves."""
    with torch.no_grad():
        tokens = network.clip.embed(network.clip.normalise(optical), network.config.clip_position)
        streams = [step.output for step in network.clip.walk(tokens)]
        prediction = Prediction(torch.zeros(2, 5, 20, 24), torch.zeros(2, 5, 24), torch.zeros(2, 5, 16))
        features = torch.randn(2, 16, 20, 24)
        for parameter in network.mask_decoder.bias.parameters():
            parameter.zero_()
        attended, before_last = network._attend(streams[0], prediction, features, (5, 6))
        torch.testing.assert_close(before_last, streams[1])
        # Written out for one query: the class token twice among the keys.
        twice = torch.cat([streams[0][:, :1], streams[0]], dim=1)
        mask = torch.ones(twice.shape[1], twice.shape[1], dtype=torch.bool)
        mask[1:, 0] = False  # patches (and CLIP's own class token) don't see the copy
        for block in network.clip.blocks[1:]:
            query, key, value = network.clip.query_key_value(block, block.ln_1(twice))
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            twice = network.clip.finish(block, twice, network.clip.join_heads(block, mixed))
        expected = F.normalize(network.clip.project(twice)[:, 0], dim=-1)
    for number in range(5):
        torch.testing.assert_close(attended[:, number], expected, rtol=1e-4, atol=1e-5)


def test_a_bias_decides_where_a_query_looks(network, optical, names) -> None:
    with torch.no_grad():
        text = network.encode_text(names)
        plain = network.run(optical, text).attended
        for parameter in network.mask_decoder.bias.parameters():
            parameter.mul_(5)
        assert (network.run(optical, text).attended - plain).abs().max() > 1e-4


def test_permuting_the_classes_permutes_the_logits(network, optical, names) -> None:
    order = [2, 0, 3, 1]
    with torch.no_grad():
        plain = network(optical, network.encode_text(names))
        mixed = network(optical, network.encode_text([names[i] for i in order]))
    torch.testing.assert_close(mixed, plain[:, order], rtol=1e-4, atol=1e-5)


# ---- losses ----------------------------------------------------------------------------------------------------


def test_targets_leave_unknown_pixels_out() -> None:
    labels = torch.tensor([[[0, 0, 2, 255], [0, 0, 2, 7]]])
    (target,) = targets_of(labels, 3, (2, 4))
    assert target.classes.tolist() == [0, 2]
    assert target.known.tolist() == [True, True, True, False, True, True, True, False]
    assert target.masks.tolist() == [[1, 1, 0, 0, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0, 1, 0]]


def test_matching_is_the_cheapest_of_all() -> None:
    torch.manual_seed(63)
    logits, masks = torch.randn(4, 4), torch.randn(4, 30)
    labels = torch.randint(0, 3, (1, 5, 6))
    labels[0, 0, :3] = 255
    (target,) = targets_of(labels, 3, (5, 6))
    queries, places = match(logits, masks, target)

    def cost(pairs: list[tuple[int, int]]) -> float:
        total = 0.0
        for query, place in pairs:
            inside, wanted = masks[query, target.known], target.masks[place, target.known]
            likely = inside.sigmoid()
            dice = 1 - (2 * (likely * wanted).sum() + 1) / (likely.sum() + wanted.sum() + 1)
            named = logits[query].softmax(0)[target.classes[place]]
            total += float(5 * F.binary_cross_entropy_with_logits(inside, wanted) + 5 * dice - 2 * named)
        return total

    every = [list(zip(chosen, range(3), strict=True)) for chosen in itertools.permutations(range(4), 3)]
    best = min(cost(pairs) for pairs in every)
    assert cost(list(zip(queries.tolist(), places.tolist(), strict=True))) == pytest.approx(best, rel=1e-5)


def test_perfect_queries_have_no_loss() -> None:
    labels = torch.tensor([[[0, 0, 1, 1], [0, 0, 255, 1]]])
    classifier = torch.eye(3)
    masks = torch.full((1, 3, 2, 4), -30.0)
    masks[0, 1, :, :2] = 30
    masks[0, 0, :, 2:] = 30
    embeddings = torch.eye(3)[[1, 0, 2]][None]  # query 1 is class 0, query 0 class 1, the third nothing
    prediction = Prediction(masks, embeddings, torch.zeros(1, 3, 4))
    losses = set_losses([prediction], embeddings, classifier, torch.tensor(50.0), labels)
    assert float(losses.total) == pytest.approx(0, abs=1e-4)
    swapped = set_losses([prediction], embeddings.flip(1), classifier, torch.tensor(50.0), labels)
    assert float(swapped.classes) > 1


def test_no_labels_no_masks_to_learn(network, optical, names) -> None:
    losses, _ = network.losses(optical, names, torch.full((2, 40, 48), 255))
    assert float(losses.masks) == float(losses.dice) == float(losses.structure) == 0
    assert losses.total.isfinite()


def test_it_learns_two_halves(network, optical, names) -> None:
    optical = torch.where(torch.arange(48) < 24, 0.2 * optical, 0.8 + 0.2 * optical)
    labels = (torch.arange(48) >= 24).long().expand(2, 40, 48)
    optimiser = torch.optim.AdamW([p for _, p in network.trained_parameters()], 3e-3)
    frozen = {name: p.clone() for name, p in network.named_parameters() if not p.requires_grad}
    network.train()
    first = None
    for _ in range(40):
        losses, logits = network.losses(optical, names[:2], labels)
        first = first or float(losses.total.detach())
        losses.total.backward()
        optimiser.step()
        optimiser.zero_grad()
    small = F.interpolate(labels[:, None].float(), size=logits.shape[-2:])[:, 0].long()
    assert float(losses.total.detach()) < 0.5 * first
    assert (logits.argmax(dim=1) == small).float().mean() > 0.95
    assert all(torch.equal(p, frozen[name]) for name, p in network.named_parameters() if name in frozen)
    assert network.config.seen == ("forest", "river", "water")


# ---- details ---------------------------------------------------------------------------------------------------


def test_places_are_distinct_and_the_same_at_any_scale() -> None:
    places = sine_places(4, 6, 16)
    assert places.shape == (24, 16)
    assert torch.cdist(places, places).add(torch.eye(24)).min() > 1e-3
    coarse, fine = sine_places(1, 1, 16), sine_places(3, 3, 16)
    torch.testing.assert_close(fine[4], coarse[0], atol=1e-5, rtol=0)


def test_any_size(network, names) -> None:
    with torch.no_grad():
        text = network.encode_text(names)
        for size in ((37, 61), (3, 5)):
            assert network(torch.rand(1, 3, *size), text).isfinite().all()


def test_bad_input(network, clip, optical_dino, optical, names) -> None:
    text = network.encode_text(names).detach()
    with pytest.raises(InputError, match="no SAR branch"):
        network(optical, text, optical)
    with pytest.raises(InputError, match="Texts must be"):
        network(optical, text[..., :-1])
    with pytest.raises(InputError, match="before the last"):
        EBSegNetwork(EBSegConfig.embedded(), clip, optical_dino)
    with pytest.raises(InputError, match="sum to 1"):
        EBSegConfig(beta=0.4)
    with pytest.raises(InputError, match="multiple of 4"):
        EBSegConfig(width=30, heads=2)
    with pytest.raises(InputError, match="no entry"):
        EBSegConfig.from_dict({"bogus": 1})
    assert EBSegConfig.from_dict(SMALL.to_dict()) == SMALL
