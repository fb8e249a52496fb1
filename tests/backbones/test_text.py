"""From words to embeddings: templates, synonyms, and what must not change them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rsovlib.backbones import RS10, encode_classes, encode_words, load_clip, template_set
from rsovlib.backbones import text as text_module
from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.errors import InputError

TWO = ("a photo of {}.", "{} from above")


def test_the_named_sets():
    assert template_set("rs10") is RS10
    assert len(set(RS10)) == 10
    assert template_set("plain") == ("{}",)
    openai = template_set("openai80")
    assert len(openai) == 80
    assert openai[0].replace("{}", "lake") == "a bad photo of a lake."
    assert all(template.count("{}") == 1 for template in (*RS10, *openai))


def test_ones_own_templates():
    assert template_set(list(TWO)) == TWO
    for wrong in ([], ["no place"], ["{} and {}"], ["{}", "none"]):
        with pytest.raises(InputError, match=r"exactly one \{\}"):
            template_set(wrong)
    with pytest.raises(InputError, match="Did you mean 'rs10'"):
        template_set("rs1O")


def test_every_word_in_every_template(tiny_clip):
    rows = encode_words(tiny_clip, ["water", "bare soil"], TWO)
    assert rows.shape == (2, 2, 24)
    torch.testing.assert_close(rows[1, 0], tiny_clip.encode_text(["a photo of bare soil."])[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows[0, 1], tiny_clip.encode_text(["water from above"])[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(2, 2))


def test_many_texts_are_encoded_in_parts(tiny_clip, monkeypatch):
    whole = encode_words(tiny_clip, ["water", "forest", "soil"], TWO)
    monkeypatch.setattr(text_module, "_BATCH", 4)
    torch.testing.assert_close(encode_words(tiny_clip, ["water", "forest", "soil"], TWO), whole, rtol=1e-4, atol=1e-5)


def test_words_are_remembered_until_the_weights_change(tiny_config, monkeypatch):
    clip = load_clip("ViT-B-32", weights="random", device="cpu", **tiny_config)
    asked: list[str] = []
    encode = clip.encode_text

    def counted(texts):
        asked.extend(texts)
        return encode(texts)

    monkeypatch.setattr(clip, "encode_text", counted)
    with torch.inference_mode():
        first = encode_words(clip, ["water", "forest", "water"], TWO)
    assert len(asked) == 4
    assert torch.equal(first[0], first[2])
    again = encode_words(clip, ["forest", "soil", "water"], TWO)
    assert asked[4:] == ["a photo of soil.", "soil from above"]
    assert torch.equal(again[[2, 0]], first[:2])
    # They may meet gradients, though they were made without.
    factor = torch.ones((), requires_grad=True)
    (again * factor).sum().backward()
    encode_words(clip, ["water"], ("{}",))
    assert asked[6:] == ["water"]
    # Other weights, other answers: loaded or trained.
    clip.model.load_state_dict({name: value + 0.1 for name, value in clip.model.state_dict().items()})
    assert not torch.allclose(encode_words(clip, ["water"], TWO), first[0])
    clip.model.requires_grad_(True)
    before = len(asked)
    rows = [encode_words(clip, ["water"], TWO) for _ in range(2)]
    assert len(asked) == before + 4
    assert rows[0].requires_grad


def test_a_forgetful_memory_still_answers(tiny_clip, monkeypatch):
    from rsovlib.backbones import clip as clip_module

    monkeypatch.setattr(clip_module, "_MOST_WORDS", 2)
    words = ["water", "forest", "soil", "lake"]
    one, other = encode_words(tiny_clip, words, TWO), encode_words(tiny_clip, words[::-1], TWO)
    torch.testing.assert_close(one, other.flip(0), rtol=1e-4, atol=1e-5)
    assert len(encode_words(tiny_clip, ["river"], TWO)) == 1


def test_synonyms_are_merged_template_by_template(tiny_clip):
    """Mean over the words, unit norm; mean over the templates, unit norm: the order matters."""
    merged = encode_classes(tiny_clip, parse_classes(["water, river, lake", "forest"]), TWO)
    expected = []
    for words in (("water", "river", "lake"), ("forest",)):
        by_template = []
        for template in TWO:
            rows = tiny_clip.encode_text([template.replace("{}", word) for word in words])
            by_template.append(F.normalize(sum(rows) / len(words), dim=0))
        expected.append(F.normalize(sum(by_template) / 2, dim=0))
    torch.testing.assert_close(merged, torch.stack(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged.norm(dim=-1), torch.ones(2))
    words_first = F.normalize(
        F.normalize(encode_words(tiny_clip, ["water", "river", "lake"], TWO).mean(dim=1), dim=-1).mean(dim=0), dim=-1
    )
    assert (words_first - merged[0]).abs().max() > 1e-5


def test_a_repeated_word_changes_nothing(tiny_clip):
    once, twice = (
        encode_classes(tiny_clip, parse_classes([c])) for c in ("water, river", "water, river, WATER, river")
    )
    torch.testing.assert_close(once, twice, rtol=0, atol=0)
    # Even where the same word was not taken out before: a class of two equal words is that word.
    doubled = encode_classes(tiny_clip, [ClassPrompt("water", ("water",))])
    torch.testing.assert_close(doubled, encode_classes(tiny_clip, [ClassPrompt("water")]), rtol=1e-4, atol=1e-5)


def test_the_order_of_synonyms_does_not_matter_and_other_classes_neither(tiny_clip):
    one = encode_classes(tiny_clip, parse_classes(["water, river", "forest", "soil"]))
    other = encode_classes(tiny_clip, parse_classes(["soil", "river, water"]))
    torch.testing.assert_close(one[[2, 0]], other, rtol=1e-4, atol=1e-5)


def test_braces_in_a_word_are_letters(tiny_clip):
    rows = encode_words(tiny_clip, ["a {} b"], ("x {} y",))
    torch.testing.assert_close(rows[0], tiny_clip.encode_text(["x a {} b y"]))


def test_words_of_the_embedded_model_mean_something():
    """Words of one meaning lie closer than words of different ones."""
    clip = load_clip(device="cpu")
    rows = encode_classes(clip, parse_classes(["water", "lake", "forest", "trees", "buildings", "rooftops"]))
    cosine = (rows @ rows.T).fill_diagonal_(-1)
    assert cosine.argmax(dim=1).tolist() == [1, 0, 3, 2, 5, 4]
