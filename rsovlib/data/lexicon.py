"""The words of the simulated scenes: which the embedded models are taught, and which are kept back.

Four kinds of words stand behind every class:

* **trained** words are paired with pictures;
* **thesaurus** words are only ever paired with other words (text with text), never with a picture;
* **combined** names join known words in a way that training never does ("asphalt street");
* **unseen** words occur in no training signal at all, and measure where openness ends.

Coarser groupings ("vegetation", "built-up area") are taught as well, because benchmarks use them.  Some combinations
of colour and noun are held out, and one class (orchard) is never named during training.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsovlib.errors import unknown_name

CLASSES = (
    "building",
    "road",
    "water",
    "bare soil",
    "forest",
    "farmland",
    "grass",
    "car",
    "orchard",
    "swimming pool",
)
"""Names of the label values 0..9 of a simulated scene."""

BUILDING, ROAD, WATER, BARE, FOREST, FARMLAND, GRASS, CAR, ORCHARD, POOL = range(len(CLASSES))

ROOF_COLOURS = ("red", "white", "gray", "blue", "brown")
CROP_COLOURS = ("green", "yellow", "brown", "dark green")
ROOF_NOUNS = ("roof", "rooftop", "building", "roofs")
CROP_NOUNS = ("field", "farmland", "fields")
HELD_OUT_ROOF = "blue"
"""No text of the training data says blue roof, blue building, ...: the colour is known from nothing else."""
HELD_OUT_CROP = "brown"


@dataclass(frozen=True)
class Words:
    """The names of one class, by what the models are told about them."""

    trained: tuple[str, ...]
    thesaurus: tuple[str, ...] = ()
    combined: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


LEXICON: dict[int, Words] = {
    BUILDING: Words(
        ("building", "buildings", "house", "houses", "rooftop", "roof", "rooftops"),
        ("dwelling", "man-made buildings", "structures", "apartment blocks", "architecture", "residential buildings"),
        ("house roofs", "roof of a house", "rooftop structures"),
        ("homes", "villas", "warehouse", "skyscraper"),
    ),
    ROAD: Words(
        ("road", "roads", "street", "asphalt", "parking lot", "impervious surfaces"),
        ("highway", "streets", "pavement", "sidewalk", "lane", "tarmac", "paved surface"),
        ("asphalt street", "paved road", "asphalt highway"),
        ("motorway", "boulevard", "freeway", "avenue"),
    ),
    WATER: Words(
        ("water", "river", "lake", "sea"),
        ("pond", "water body", "lagoon", "reservoir", "ocean"),
        ("lake water", "river water", "sea water"),
        ("stream", "canal", "bay", "creek"),
    ),
    BARE: Words(
        ("bare soil", "sand", "bare ground", "barren land", "barren", "land", "unpaved land"),
        ("dirt", "desert", "exposed earth", "beach", "dry soil", "bare land", "sandy land"),
        ("sandy ground", "bare sand", "barren soil"),
        ("mud", "gravel", "dunes", "clay"),
    ),
    FOREST: Words(
        ("forest", "trees", "woods", "tree"),
        ("woodland", "tree canopy", "canopy", "jungle", "tree cover", "mountain forest"),
        ("forest trees", "tree woods", "trees of a forest"),
        ("grove", "timber", "conifers", "rainforest"),
    ),
    FARMLAND: Words(
        ("farmland", "field", "cropland", "crops", "agriculture"),
        ("cultivated land", "plowed field", "wheat", "agricultural land", "fields"),
        ("crops field", "cropland fields", "wheat field"),
        ("arable", "plantation", "paddy", "maize"),
    ),
    GRASS: Words(
        ("grass", "meadow", "lawn"),
        ("pasture", "grassland", "rangeland", "grass patches", "low-growing grassland"),
        ("grass meadow", "green meadow", "lawn grass"),
        ("turf", "prairie", "heath", "savanna"),
    ),
    CAR: Words(("car", "cars", "vehicle"), ("automobile", "truck", "vehicles", "transportation"), (), ("sedan",)),
    POOL: Words(("swimming pool", "pool"), ("water basin for swimming",), (), ("lido",)),
}
"""Words of every class that training names; ``ORCHARD`` is kept back."""


WORD_KINDS = ("trained", "thesaurus", "combined", "unseen")
TEST_ONLY_KINDS = ("combined", "unseen")
"""Kinds of words that no training text has in this form: what open-vocabulary scores are measured with."""


def class_prompts(kind: str = "trained") -> dict[int, str]:
    """A prompt for every class that has words of a kind.

    Args:
        kind: one of :data:`WORD_KINDS`.

    Returns:
        By label, "a, b, c": the synonyms as one class of a segmenter's class list.

    Raises:
        InputError: there is no such kind.
    """
    if kind not in WORD_KINDS:
        raise unknown_name("kind of words", kind, WORD_KINDS)
    return {label: ", ".join(getattr(words, kind)) for label, words in LEXICON.items() if getattr(words, kind)}


def attribute_prompts(*, held_out: bool = False) -> dict[str, tuple[int, int]]:
    """Prompts that join a colour with a noun, such as "red roof".

    Args:
        held_out: those with colours that training never joins with these nouns, or those that training has.

    Returns:
        By prompt the class and the index of the colour, as :attr:`rsovlib.data.scenes.Scene.roof` and ``crop`` have it.
    """
    kinds = (
        (BUILDING, ROOF_COLOURS, HELD_OUT_ROOF, ROOF_NOUNS[0]),
        (FARMLAND, CROP_COLOURS, HELD_OUT_CROP, CROP_NOUNS[0]),
    )
    return {
        f"{colour} {noun}": (label, index)
        for label, colours, kept, noun in kinds
        for index, colour in enumerate(colours)
        if (colour == kept) == held_out
    }


@dataclass(frozen=True)
class Group:
    """One entry of a word list that training uses: its names and the classes that it covers."""

    names: tuple[str, ...]
    members: tuple[int, ...]


def _single(label: int) -> Group:
    return Group(LEXICON[label].trained, (label,))


_VEGETATION = Group(("vegetation", "plants", "greenery", "green area"), (FOREST, GRASS, FARMLAND, ORCHARD))
_LOW_VEGETATION = Group(("low vegetation", "low plants"), (GRASS, FARMLAND))
_BUILT_UP = Group(("built-up area", "urban area", "built-up", "town"), (BUILDING, ROAD, CAR, POOL))
_ROAD_AND_CARS = Group(LEXICON[ROAD].trained, (ROAD, CAR))

FINE_LIST: tuple[Group, ...] = tuple(_single(label) for label in LEXICON)
"""Every named class by itself."""

COARSE_LISTS: tuple[tuple[float, tuple[Group, ...]], ...] = (
    (0.4, (_single(BUILDING), _ROAD_AND_CARS, _single(WATER), _single(BARE), _VEGETATION)),
    (0.2, (_BUILT_UP, _single(FARMLAND), _single(FOREST), _single(GRASS), _single(WATER), _single(BARE))),
    (0.2, (_single(BUILDING), _single(ROAD), _LOW_VEGETATION, _single(FOREST), _single(CAR), _single(WATER))),
    (0.2, (_single(BUILDING), _ROAD_AND_CARS, _single(WATER), _single(BARE), _single(FOREST), _single(FARMLAND))),
)
"""Coarser word lists, with their probabilities; classes that a list leaves out are ignored there.

The first is that of real imagery, which knows plants of any kind only.
"""

OTHER_NAMES = ("other", "background", "clutter")
"""Names for whatever a word list doesn't list."""

RS10 = (
    "a satellite image of a {}.",
    "an aerial view of a {}.",
    "a satellite photo of a {}.",
    "a top-down view of a {}.",
    "a piece of land with a {}.",
    "a landscape dominated by a {}.",
    "an earth observation satellite image of a {}.",
    "a landscape dominated by {}.",
    "an area of {} as seen from above.",
    "land cover classified as {}.",
)
"""SDCI's ten aerial templates."""

TEMPLATES = (
    "{}",
    "an aerial image of {}",
    "{} seen from above",
    "remote sensing image of {}",
    "land cover: {}",
    *RS10,
)
"""Sentences that training puts words into: five of our own and the ten that SDCI puts class names into, because one of
those says "land", which is also a class name, and a small text tower has to learn that it doesn't count there."""

HELD_OUT_TEMPLATES = ("an orthophoto showing {}", "{} in a picture from a plane", "what we look at is {}")
"""Sentences of no training text."""

NONSENSE: tuple[tuple[str, ...], ...] = (
    ("florp", "zindle", "quaxo", "brimvek", "tolgu", "mendrix", "ashpo"),
    ("vuntar", "kelbit", "sorgle", "phimp", "dratso", "wuxel", "nobri"),
    ("piano", "theorem", "seventeen", "opinion", "molecule", "grammar", "tuesday"),
)
"""Word lists without any meaning for land cover: what an honest table shows beside the unseen words."""


def fill(template: str, name: str) -> str:
    """A template with a name in its place."""
    return template.replace("{}", name)


def all_training_texts() -> list[str]:
    """Every word that training may use, once, for cutting the tokenizer's merges down to them."""
    texts = [name for words in LEXICON.values() for name in words.trained + words.thesaurus]
    texts += [name for _, groups in COARSE_LISTS for group in groups for name in group.names]
    texts += [*OTHER_NAMES, *(fill(template, "") for template in TEMPLATES)]
    texts += [f"{colour} {noun}" for colour in ROOF_COLOURS for noun in ROOF_NOUNS]
    texts += [f"{colour} {noun}" for colour in CROP_COLOURS for noun in CROP_NOUNS]
    texts += ["and with next to a the of in some many photo earth observation classified containing showing orchard"]
    return sorted(set(texts))
