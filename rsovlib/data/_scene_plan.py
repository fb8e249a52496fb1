"""Where things lie in a simulated scene: land cover, heights and attributes, before anything is painted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rsovlib.data._noise import Field, fractal_noise, smooth_noise
from rsovlib.data.lexicon import BARE, BUILDING, CAR, FARMLAND, FOREST, GRASS, ORCHARD, POOL, ROAD, ROOF_COLOURS, WATER

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]

CAR_COLOURS = 5


@dataclass(frozen=True)
class Layout:
    """How a kind of landscape is composed.

    Attributes:
        fields: chance that there is farmland.
        field_level: farmland stands where smooth noise exceeds this.
        forest_level: forest stands where smooth noise exceeds this.
        bare_level: bare soil stands where smooth noise exceeds this.
        water: chance that there is water.
        town: chance that there are buildings.
        town_level: buildings stand where smooth noise exceeds this.
        blocks: chance that the buildings are large blocks rather than houses.
        highways: highest number of long roads.
    """

    fields: float
    field_level: float
    forest_level: float
    bare_level: float
    water: float
    town: float
    town_level: float
    blocks: float
    highways: int


LAYOUTS: Mapping[str, Layout] = {
    "urban": Layout(0.0, 9.0, 1.5, 1.6, 0.25, 1.0, -1.6, 0.6, 1),
    "suburb": Layout(0.25, 0.6, 0.9, 1.5, 0.3, 1.0, -0.5, 0.15, 2),
    "rural": Layout(0.95, -1.2, 1.2, 1.7, 0.35, 0.45, 1.0, 0.1, 2),
    "forest": Layout(0.3, 0.7, -0.5, 1.7, 0.4, 0.2, 1.2, 0.1, 2),
    "coast": Layout(0.4, 0.2, 0.9, 1.3, 1.0, 0.5, 0.3, 0.3, 2),
    "mixed": Layout(0.6, 0.0, 0.7, 1.3, 0.5, 0.7, 0.2, 0.3, 2),
}
LAYOUT_SHARES: Mapping[str, float] = {
    "urban": 0.22,
    "suburb": 0.2,
    "rural": 0.18,
    "forest": 0.1,
    "coast": 0.12,
    "mixed": 0.18,
}


@dataclass
class Plan:
    """Everything about a scene that is not yet light or radar echo.

    Attributes:
        labels: (H, W) class indices of :data:`rsovlib.data.lexicon.CLASSES`.
        height: (H, W) metres above the ground, of buildings only.
        roof: (H, W) index of the roof colour, where there is a building.
        crop: (H, W) index of the crop colour, where there is farmland.
        tone: (H, W) brightness factor of a single field or roof around 1.
        relief: (H, W) additive brightness of crop rows and roof ridges.
        markings: (H, W) lane markings.
        paint: (H, W) colour index of vehicles.
        gsd: ground sampling distance, metres a pixel.
        sun: direction towards which shadows fall, radians, in (x, y).
        water_kind: "river", "lake", "sea" or "".
    """

    labels: Labels
    gsd: float
    sun: float
    height: Field = field(init=False)
    roof: Labels = field(init=False)
    crop: Labels = field(init=False)
    tone: Field = field(init=False)
    relief: Field = field(init=False)
    markings: Mask = field(init=False)
    paint: Labels = field(init=False)
    water_kind: str = ""

    def __post_init__(self) -> None:
        shape = self.labels.shape
        self.height = np.zeros(shape, np.float32)
        self.roof = np.zeros(shape, np.uint8)
        self.crop = np.zeros(shape, np.uint8)
        self.tone = np.ones(shape, np.float32)
        self.relief = np.zeros(shape, np.float32)
        self.markings = np.zeros(shape, bool)
        self.paint = np.zeros(shape, np.uint8)

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.labels.shape
        return height, width

    def axes(self, angle: float) -> tuple[Field, Field]:
        """Pixel coordinates along and across a direction, each (H, W)."""
        height, width = self.shape
        y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return cos * x + sin * y, -sin * x + cos * y

    def centre(self, angle: float) -> tuple[float, float]:
        """The middle of the scene in the coordinates of :meth:`axes`."""
        height, width = self.shape
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        return cos * width / 2 + sin * height / 2, -sin * width / 2 + cos * height / 2


def plan_scene(
    rng: np.random.Generator, shape: tuple[int, int], gsd: float, layout: Layout, ground: int, greenness: float
) -> Plan:
    """Lays out a scene.

    Args:
        rng: source of randomness.
        shape: (H, W).
        gsd: metres a pixel.
        layout: how the landscape is composed.
        ground: class of everything that nothing else covers (grass, or bare soil in a desert).
        greenness: 1 in moist regions; lower values thin out farmland and forest, and lawns appear on bare ground.

    Returns:
        The plan.
    """
    plan = Plan(labels=np.full(shape, ground, np.uint8), gsd=gsd, sun=float(rng.uniform(0, 2 * np.pi)))
    if rng.random() < layout.fields * greenness:
        _lay_fields(rng, plan, layout)
    _lay_patches(rng, plan, layout, ground, greenness)
    if rng.random() < layout.water * (0.5 + 0.5 * greenness):
        _lay_water(rng, plan, coast=layout is LAYOUTS["coast"])
    if rng.random() < layout.town:
        _lay_town(rng, plan, layout, ground)
    for _ in range(rng.integers(0, layout.highways + 1)):
        _lay_highway(rng, plan)
    plan.height[plan.labels != BUILDING] = 0
    if rng.random() < 0.7:
        _park_vehicles(rng, plan)
    return plan


def _cell_table(rng: np.random.Generator, row: NDArray[np.int64], column: NDArray[np.int64], width: int) -> Field:
    """``width`` random numbers in [0, 1) for every cell of a lattice, (H, W, width), the same within a cell."""
    table = rng.random((2039, width), dtype=np.float32)
    return table[(row * 7919 ^ column * 104729) % 2039]


def _lay_fields(rng: np.random.Generator, plan: Plan, layout: Layout) -> None:
    angle = rng.uniform(0, np.pi)
    u, v = plan.axes(angle)
    u = u + 3 * fractal_noise(rng, plan.shape, 25)
    width = rng.uniform(40, 90) / plan.gsd
    column = np.floor(u / width + 100).astype(np.int64)
    stagger = rng.random(4096, dtype=np.float32)
    row = np.floor(v / (width * rng.uniform(1, 2.2)) + stagger[column % 4096] + 100).astype(np.int64)
    cell = _cell_table(rng, row, column, 6)

    farm = fractal_noise(rng, plan.shape, rng.uniform(25, 50)) > layout.field_level
    kind = cell[..., 0]
    plan.labels[farm] = FARMLAND
    plan.labels[farm & (kind < 0.12)] = BARE
    plan.labels[farm & (kind > 0.84)] = ORCHARD
    plan.labels[farm & (kind > 0.93)] = FOREST
    plan.labels[farm & ((u / width) % 1 < 1.5 / width)] = GRASS
    plan.crop[:] = cell[..., 1] * 4
    plan.tone[:] = 0.85 + 0.3 * cell[..., 2]
    period = (3.5 + 7 * cell[..., 4]) / min(plan.gsd, 1.6)
    across = np.where(cell[..., 3] > 0.5, u, v)
    plan.relief[:] = np.sin(2 * np.pi * across / period) * (0.03 + 0.07 * cell[..., 5])

    spacing = rng.uniform(8, 11) / plan.gsd
    du, dv = (u / spacing) % 1 - 0.5, (v / spacing) % 1 - 0.5
    orchard = plan.labels == ORCHARD
    plan.relief[orchard] = np.where(du**2 + dv**2 < 0.11, -1.0, 0.0)[orchard]  # -1 marks a crown for the painter


def _lay_patches(rng: np.random.Generator, plan: Plan, layout: Layout, ground: int, greenness: float) -> None:
    dryness = 1 - greenness
    forest = fractal_noise(rng, plan.shape, rng.uniform(12, 35)) > layout.forest_level + 0.9 * dryness
    plan.labels[forest & (plan.labels != ORCHARD)] = FOREST
    bare = fractal_noise(rng, plan.shape, rng.uniform(10, 25)) > layout.bare_level - 0.5 * dryness
    plan.labels[bare] = BARE
    if ground == BARE and rng.random() < 0.4:  # watered lawns: parks, golf courses, verges
        lawn = fractal_noise(rng, plan.shape, rng.uniform(8, 20)) > rng.uniform(0.3, 1.5)
        plan.labels[lawn & (plan.labels == BARE)] = GRASS


def _lay_water(rng: np.random.Generator, plan: Plan, *, coast: bool) -> None:
    extent = min(plan.shape)
    angle = rng.uniform(0, 2 * np.pi)
    u, v = plan.axes(angle)
    middle_u, middle_v = plan.centre(angle)
    if coast:
        inland = u - middle_u - 0.3 * extent * rng.standard_normal() + 8 * fractal_noise(rng, plan.shape, 30)
        water, plan.water_kind = inland > 0, "sea"
        plan.labels[(inland > -rng.uniform(3, 15) / plan.gsd) & ~water] = BARE
    elif rng.random() < 0.5:
        offset = v - middle_v - 0.2 * extent * rng.standard_normal() + 14 * fractal_noise(rng, plan.shape, 40)
        half = rng.uniform(5, 20) / plan.gsd
        water, plan.water_kind = np.abs(offset) < half, "river"
        wooded = rng.random() < 0.5
        bank = (np.abs(offset) < half * rng.uniform(1.1, 1.6)) & ~water
        plan.labels[bank] = FOREST if wooded else GRASS
    else:
        water = fractal_noise(rng, plan.shape, rng.uniform(15, 45)) > rng.uniform(0.8, 1.7)
        plan.water_kind = "lake"
    plan.labels[water] = WATER


def _lay_town(rng: np.random.Generator, plan: Plan, layout: Layout, ground: int) -> None:
    labels, gsd = plan.labels, plan.gsd
    water = labels == WATER
    zone = fractal_noise(rng, plan.shape, rng.uniform(25, 45)) > layout.town_level
    blocks = bool(rng.random() < layout.blocks)

    # Lots in a street grid that smooth noise bends: gently, or into crescents.
    u, v = plan.axes(rng.uniform(0, np.pi / 2))
    bend = rng.uniform(1, 3) if rng.random() < 0.7 else rng.uniform(10, 25)
    u = u + bend * smooth_noise(rng, plan.shape, 60) + 5000
    v = v + bend * smooth_noise(rng, plan.shape, 60) + 5000
    street_width = rng.uniform(4.5, 9) / gsd
    lot_u, lot_v = (rng.uniform(28, 55, 2) if blocks else rng.uniform(13, 24, 2)) / gsd
    block_u = lot_u * rng.integers(1, 4) + street_width
    block_v = lot_v * rng.integers(2, 5) + street_width
    in_u, in_v = u % block_u - street_width, v % block_v - street_width
    lots = (in_u > 0) & (in_v > 0)
    column = (np.floor(u / block_u) * 10 + np.floor(in_u / lot_u)).astype(np.int64)
    row = (np.floor(v / block_v) * 10 + np.floor(in_v / lot_v)).astype(np.int64)
    lot = _cell_table(rng, row, column, 8)
    at_u, at_v = (in_u % lot_u) / lot_u, (in_v % lot_v) / lot_v

    margin_u, margin_v = 0.08 + 0.18 * lot[..., 1], 0.08 + 0.18 * lot[..., 2]
    body = (at_u > margin_u) & (at_u < 1 - margin_u) & (at_v > margin_v) & (at_v < 1 - margin_v)
    notch = (lot[..., 5] < 0.3) & (at_u > 0.55) & (at_v > 0.5)
    courtyard = (lot[..., 5] > 0.85) & (np.abs(at_u - 0.5) < 0.15) & (np.abs(at_v - 0.5) < 0.15)
    built = zone & lots & (lot[..., 0] < rng.uniform(0.4, 0.95)) & body & ~notch & ~courtyard & ~water

    labels[zone & ((labels == FARMLAND) | (labels == ORCHARD))] = ground
    if blocks:
        paved = zone & ~water & (fractal_noise(rng, plan.shape, 12) > rng.uniform(-0.2, 1.6))
        labels[paved] = ROAD
    bridges = rng.random() < 0.5
    labels[zone & ~lots & (bridges | ~water)] = ROAD
    trees = zone & lots & ~water & (smooth_noise(rng, plan.shape, 3 / gsd) > rng.uniform(1.1, 2.4))
    labels[trees] = FOREST
    if not blocks and rng.random() < 0.3:
        pools = (lot[..., 6] < 0.3) & (np.hypot((at_u - 0.88) * lot_u, (at_v - 0.5) * lot_v) < 3.3 / gsd)
        labels[zone & lots & pools & ~water] = POOL
    labels[built] = BUILDING

    storeys = rng.uniform(8, 25) if blocks else rng.uniform(3, 7)
    plan.height[built] = (storeys * (0.5 + lot[..., 4]))[built]
    mix = np.cumsum(rng.dirichlet(np.full(len(ROOF_COLOURS), 0.7)))
    plan.roof[built] = np.searchsorted(mix, lot[..., 3] * 0.999).astype(np.uint8)[built]
    plan.tone[built] = (0.85 + 0.3 * lot[..., 7])[built]
    pitch = 0.01 if blocks else rng.uniform(0.02, 0.07)
    plan.relief[built] = np.where(at_u > 0.5, pitch, -pitch)[built]
    if blocks:  # plant rooms and lift shafts on flat roofs
        plan.relief[built & (smooth_noise(rng, plan.shape, 1.5 / gsd) > 1.6)] += rng.choice([-0.15, 0.12])


def _lay_highway(rng: np.random.Generator, plan: Plan) -> None:
    height, width = plan.shape
    angle = rng.uniform(0, np.pi)
    _, across = plan.axes(angle)
    through_x, through_y = width * rng.uniform(0.2, 0.8), height * rng.uniform(0.2, 0.8)
    across = across - (-np.sin(angle) * through_x + np.cos(angle) * through_y)
    across = across + rng.uniform(2, 8) * smooth_noise(rng, plan.shape, 50)
    half = rng.uniform(2.5, 6) / plan.gsd
    distance = np.abs(across)
    if rng.random() < 0.25:  # two carriageways with a median
        distance = np.abs(distance - half * 1.25)
    road = distance < half
    plan.labels[road] = ROAD
    if rng.random() < 0.5:
        plan.markings[road & (distance < 0.5)] = True


def _park_vehicles(rng: np.random.Generator, plan: Plan) -> None:
    places = np.flatnonzero(plan.labels == ROAD)
    if len(places) < 60:
        return
    rows, columns = np.unravel_index(rng.choice(places, rng.integers(2, 24)), plan.shape)
    heading = rng.uniform(0, np.pi)
    reach = int(np.ceil(3.5 / plan.gsd)) + 1
    for y, x in zip(rows, columns, strict=True):
        angle = heading + (np.pi / 2 if rng.random() < 0.5 else 0)
        top, left = max(0, y - reach), max(0, x - reach)
        window = np.s_[top : y + reach + 1, left : x + reach + 1]
        part = plan.labels[window]
        dy = np.arange(top, top + part.shape[0], dtype=np.float32)[:, None] - y
        dx = np.arange(left, left + part.shape[1], dtype=np.float32)[None] - x
        along, across = np.cos(angle) * dx + np.sin(angle) * dy, -np.sin(angle) * dx + np.cos(angle) * dy
        body = (np.abs(along) * plan.gsd < 2.8) & (np.abs(across) * plan.gsd < 1.3) & (part == ROAD)
        part[body] = CAR
        plan.paint[window][body] = rng.integers(CAR_COLOURS)
