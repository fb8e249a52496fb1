"""From image and words to a map, step by step through the cache, with a first answer that comes fast.

:class:`StagedSDCI` takes the very steps of :class:`rsovlib.segmenters.SDCI`, each remembered by what it is made of:

    window -> features ---> scores (CAF) -> diffused (BCDR) -> maps -> probabilities -> fused (CSCP) -> whole picture
    words  -> text ----^    neighbours -> graph --^      window -> superpixels ------------^

Only what a change touches runs again, in several windows at once. The answer is the segmenter's own to within the
convex solver's tolerance: a solve that starts from the last one's dual ends at another point inside the same
certificate.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.data.tiling import Tile, TileGrid
from rsovlib.kernels import nearest_neighbours, transition_of
from rsovlib.segmenters.base import Segmentation
from rsovlib.segmenters.images import RGB, enlarge, resize_pil_bicubic
from rsovlib.segmenters.sdci import SDCI, SDCIConfig
from rsovlib.segmenters.windows import window_grid
from rsovlib.widgets.crew import side_by_side
from rsovlib.widgets.stages import Node, StageCache
from rsovlib.widgets.worker import Ticket

#: Which settings each step reads; the features read all that no later step does.
READS: dict[str, tuple[str, ...]] = {
    "text": ("templates", "synonyms", "background", "mean_text"),
    "scores": ("scores", "logit_scale", "score_threshold", "lambda_1", "caf", "align_renorm"),
    "neighbours": ("graph_features", "diffusion_graph"),
    "graph": ("neighbours", "tau"),
    "diffused": ("alpha", "steps", "bcdr", "diffusion_graph"),
    "maps": ("rescale", "presence_threshold", "min_max"),
    "probabilities": ("to_probability", "softmax_above", "floor"),
    "superpixels": ("superpixel_scale", "superpixel_sigma", "superpixel_min_size"),
    "fused": ("cscp", "w_in", "w_cross", "lambda_clip", "lambda_dino", "beta", "solver", "tolerance"),
    "windows": ("window", "overlap"),
}
_LATER = {name for names in READS.values() for name in names}

#: Neighbours that are searched for at once: K may move below without a new search.
_NEIGHBOURS_HELD = 64
#: Iterations of the convex step behind the first answer. From where a slider left off the solver mostly needs fewer,
#: and the first answer is the settled one; otherwise it is rough, and another follows.
_ROUGH_ITERATIONS = 24
#: One word or number in the status line for each step.
_DOING = {
    "features": "the networks look at the image",
    "text": "encoding the words",
    "scores": "comparing image and words",
    "neighbours": "searching neighbours",
    "diffused": "diffusing",
    "superpixels": "making superpixels",
    "fused": "solving the convex step",
}


@dataclass
class Live:
    """What a computation asks and tells on its way.

    Attributes:
        ticket: whether it is still wanted.
        say: gets a few words on what is being done.
    """

    ticket: Ticket = field(default_factory=Ticket)
    say: Callable[[str], None] = lambda doing: None


@dataclass
class Answer:
    """A map, rough or settled.

    Attributes:
        segmentation: the map.
        settled: whether it is the segmenter's answer; otherwise ``note`` says what is shown.
        note: see there.
        steps: the staged computation behind it, for views of its insides; None for methods without steps.
    """

    segmentation: Segmentation
    settled: bool = True
    note: str = ""
    steps: StagedSDCI | None = None


class StagedSDCI:
    """SDCI on one image with one set of words, through the cache.

    Args:
        segmenter: models and configuration.
        image: (H, W, 3) uint8, as a source of the cache.
        prompts: K classes.
        cache: where results are remembered.
        live: whom to ask and tell.
    """

    def __init__(
        self, segmenter: SDCI, image: Node, prompts: Sequence[ClassPrompt], cache: StageCache, live: Live | None = None
    ) -> None:
        self.segmenter = segmenter
        self.config: SDCIConfig = segmenter.config
        self.prompts = list(prompts)
        self.cache = cache
        self.live = live or Live()
        self.image = image
        height, width = image.value.shape[:2]
        self.shape: tuple[int, int] = (height, width)
        self.grid: TileGrid = window_grid(height, width, self.config.window, self.config.overlap)
        self._models = (segmenter.clip.name, segmenter.clip.sha256, segmenter.dino.name, segmenter.dino.sha256)
        self._tiles: dict[tuple[int, int], Node] = {}
        self._telling = threading.Lock()
        self._begun: Counter[str] = Counter()  # windows for which a step was begun

    # ---- the steps of one window ---------------------------------------------------------------------------

    def pixels(self, tile: Tile) -> Node:
        """The window's (h, w, 3) pixels."""
        place = (tile.row, tile.column)
        if place not in self._tiles:
            # Keyed by its own bytes: what doesn't change in a new image isn't computed again.
            cut = np.ascontiguousarray(self.image.value[tile.slices])
            self._tiles[place] = self.cache.source("window", cut)
        return self._tiles[place]

    def features(self, tile: Tile) -> Node:
        """What both networks say of the window."""
        settings = {name: value for name, value in asdict(self.config).items() if name not in _LATER}
        pixels = self.pixels(tile)
        told = [self._models, sorted(settings.items())]
        return self._step("features", told, [pixels], lambda: self.segmenter.encode_image(pixels.value))

    def knows_features(self) -> bool:
        """Whether the networks have seen all windows already."""
        settings = {name: value for name, value in asdict(self.config).items() if name not in _LATER}
        told = [self._models, sorted(settings.items())]
        return all(self.cache.knows(self.cache.key("features", told, [self.pixels(tile)])) for tile in self.grid)

    def text(self) -> Node:
        """The words' vectors."""
        told = [self._models, self._reads("text"), [str(prompt) for prompt in self.prompts]]
        return self._step("text", told, [], lambda: self.segmenter.encode_text(self.prompts))

    def directions(self, tile: Tile) -> Node:
        """The features at unit length: what every word is compared with."""
        features = self.features(tile)
        return self._step("directions", [], [features], lambda: self.segmenter.directions(features.value))

    def scores(self, tile: Tile) -> Node:
        """CAF: the scores of both branches."""
        features, directions, text = self.features(tile), self.directions(tile), self.text()
        told = [self._reads("scores"), len(self.prompts)]
        return self._step(
            "scores",
            told,
            [features, text],
            lambda: self.segmenter.score(features.value, text.value, len(self.prompts), directions.value),
        )

    def graphs(self, tile: Tile) -> Node:
        """The graphs that both branches' scores walk on."""
        features, config = self.features(tile), self.config
        held = max(_NEIGHBOURS_HELD, config.neighbours)

        def search() -> dict[str, Any]:
            sources = self.segmenter.graph_features(features.value)
            return {
                branch: nearest_neighbours(rows, min(held, len(rows) - 1))
                for branch, rows in sources.items()
                if len(rows) > 1
            }

        found = self._step("neighbours", [self._reads("neighbours"), held], [features], search)

        def build() -> dict[str, Any]:
            return {
                branch: transition_of(near, config.neighbours, config.tau, row_eps=1e-6)
                for branch, near in found.value.items()
            }

        return self._step("graph", self._reads("graph"), [found], build)

    def diffused(self, tile: Tile, steps: int | None = None) -> Node:
        """BCDR: the scores after T steps, or after as many as asked."""
        features, scores = self.features(tile), self.scores(tile)
        segmenter = self.segmenter if steps is None else self.with_config(steps=steps)
        inputs = [scores, self.graphs(tile)] if self.config.bcdr else [scores]
        graphs = inputs[1].value if self.config.bcdr else None
        told = {name: getattr(segmenter.config, name) for name in READS["diffused"]}
        clip, dino = scores.value
        return self._step(
            "diffused", told, inputs, lambda: segmenter.diffuse(features.value, clip, dino, graphs=graphs)
        )

    def maps(self, tile: Tile) -> Node:
        """Both branches' class maps at the window's size, for a view of them."""
        diffused = self.diffused(tile)
        sides = (tile.height, tile.width)
        return self._step(
            "maps", self._reads("maps"), [diffused], lambda: self.segmenter.class_maps(diffused.value, sides)
        )

    def probabilities(self, tile: Tile) -> Node:
        """The convex step's inputs, (K, h, w) each."""
        diffused = self.diffused(tile)
        told = self._reads("maps") | self._reads("probabilities")

        def compute() -> Any:
            # The maps are made quickly and are as large as what is made of them: only a view of them keeps them.
            maps = self.segmenter.class_maps(diffused.value, (tile.height, tile.width))
            made = self.segmenter.convex_inputs(maps["clip_map"], maps["dino_map"])
            # On the CPU the solver takes plain arrays, which other threads than this one may read.
            return tuple(one.float().numpy() if one.device.type == "cpu" else one for one in made)

        return self._step("probabilities", told, [diffused], compute)

    def superpixels(self, tile: Tile) -> Node:
        """(h, w) labels."""
        pixels = self.pixels(tile)
        return self._step(
            "superpixels",
            self._reads("superpixels"),
            [pixels],
            lambda: self.segmenter.superpixels(pixels.value),
        )

    def fused(self, tile: Tile, rough: bool = False, threads: int | None = None) -> Node:
        """CSCP: the window's fused probabilities, starting from the last solution there.

        Args:
            tile: the window.
            rough: stop after a few iterations; such an answer is not remembered as the settled one.
            threads: of the solver.
        """
        inputs = [self.probabilities(tile), self.superpixels(tile)]
        key = self.cache.key("fused", self._reads("fused"), inputs)
        if self.cache.knows(key):
            return self.cache.node("fused", self._reads("fused"), inputs, lambda: None)
        self.live.ticket.check()
        (clip, dino), superpixels = (node.value for node in inputs)
        if not self.config.cscp:
            whole = clip / clip.sum(0)
            return self.cache.node("fused", self._reads("fused"), inputs, lambda: _Fused(whole))
        self._announce("fused")
        place = (tile.row, tile.column, *clip.shape)
        start = self.cache.start(place, self.pixels(tile).key)
        exact = self.config.solver == "optimum"
        live: dict[str, Any] = {}
        if exact:
            live = {"should_stop": self.live.ticket.stopped, "threads": threads}
            if rough:
                live["max_iterations"] = _ROUGH_ITERATIONS
        given = [torch.from_numpy(one) if isinstance(one, np.ndarray) else one for one in (clip, dino)]
        result = self.segmenter.fuse(given[0], given[1], superpixels, start=start, **live)
        if result.cancelled:
            self.live.ticket.check()
        answer = _Fused(_as_array(result.q), result.iterations)
        self.cache.keep_start(place, self.pixels(tile).key, result.dual)
        if rough and exact and not result.converged:
            self.cache.runs["fused, rough"] += 1
            return Node(key + "-rough", answer)
        self.cache.remember("fused", key, answer)
        return Node(key, answer)

    # ---- the whole picture ---------------------------------------------------------------------------------

    def answers(self) -> Iterator[Answer]:
        """A rough answer if the convex step has far to go, and the settled one."""
        first = self._all_windows(rough=True)
        settled = all(self.cache.knows(node.key) for node in first)
        yield self._answer(first, settled, "" if settled else "first iterations of the convex step")
        if not settled:
            yield self._answer(self._all_windows(rough=False), True, "")

    def blend(self, parts: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Maps (K, h, w) of all windows as one (K, H, W), as the segmenter blends them."""
        if len(self.grid) == 1:
            return _as_array(parts[0]).astype(np.float32, copy=False)
        first = _as_array(parts[0])
        whole = np.zeros((len(first), *self.shape), np.float32)
        for tile, part in zip(self.grid, parts, strict=True):
            whole[:, tile.slices[0], tile.slices[1]] += _as_array(part) * self.grid.weights(tile)
        return whole

    def window_at(self, column: int, row: int) -> Tile:
        """The window that counts most at a pixel."""
        inside = [
            tile
            for tile in self.grid
            if tile.row <= row < tile.row + tile.height and tile.column <= column < tile.column + tile.width
        ]
        return max(inside, key=lambda tile: float(self.grid.weights(tile)[row - tile.row, column - tile.column]))

    def with_config(self, **changes: Any) -> SDCI:
        """The same models with other settings."""
        return replace(self.segmenter, config=replace(self.config, **changes))

    def _all_windows(self, rough: bool) -> list[Node]:
        """All steps of all windows, as far as they aren't remembered."""
        self.text()  # which all windows need
        tiles = list(self.grid)
        if self.segmenter.device.type != "cpu" or len(tiles) == 1:
            return [self.fused(tile, rough) for tile in tiles]
        return side_by_side(lambda tile: self.fused(tile, rough, threads=1), tiles)

    def _answer(self, fused: Sequence[Node], settled: bool, note: str) -> Answer:
        self.live.ticket.check()

        def compute() -> Segmentation:
            whole = self.blend([node.value.q for node in fused])
            return Segmentation.from_probabilities(
                whole, [prompt.name for prompt in self.prompts], image=self.image.value, settings=self.settings()
            )

        if not settled:
            return Answer(compute(), False, note, self)
        return Answer(self._step("blended", self._reads("windows"), list(fused), compute).value, True, note, self)

    def settings(self) -> dict[str, Any]:
        """Those of the segmenter."""
        return self.segmenter.settings()

    def _announce(self, stage: str) -> None:
        """Say which step begins, once a step and not once a window; of the longest one also how far it has come."""
        if stage not in _DOING:
            return
        with self._telling:
            self._begun[stage] += 1
            if stage == "features" and len(self.grid) > 1:
                self.live.say(f"{_DOING[stage]}, window {self._begun[stage]} of {len(self.grid)}")
            elif self._begun[stage] == 1:
                self.live.say(_DOING[stage])

    def _reads(self, stage: str) -> dict[str, Any]:
        return {name: getattr(self.config, name) for name in READS[stage]}

    def _step(
        self, stage: str, told: Mapping[str, Any] | Sequence[Any], inputs: Sequence[Node], compute: Callable[[], Any]
    ) -> Node:
        """A step of the cache that tells what it does, and isn't begun when nobody wants it any more."""

        def announced() -> Any:
            self.live.ticket.check()
            self._announce(stage)
            with torch.inference_mode():
                return compute()

        return self.cache.node(stage, told, inputs, announced)


@dataclass(frozen=True)
class _Fused:
    """A window's fused probabilities (K, h, w), and the solver's iterations; its dual is only kept to start from."""

    q: np.ndarray[Any, Any]
    iterations: int = 0


def staged_answers(
    segmenter: SDCI, image: RGB, classes: Sequence[str], cache: StageCache, live: Live | None = None
) -> Iterator[Answer]:
    """Answers of SDCI, each better than the one before: a look at the reduced image first if the networks are cold.

    Args:
        segmenter: models and configuration.
        image: (H, W, 3) uint8.
        classes: K prompts.
        cache: where steps are remembered.
        live: whom to ask and tell.

    Raises:
        InputError: the classes can't be read.
        Superseded: nobody wants the answer any more.
    """
    prompts, source, live = parse_classes(classes), cache.source("image", image), live or Live()
    whole = StagedSDCI(segmenter, source, prompts, cache, live)
    if len(whole.grid) > 1 and not whole.knows_features():
        yield _preview(segmenter, image, prompts, cache, live, whole)
    yield from whole.answers()


def _preview(
    segmenter: SDCI, image: RGB, prompts: Sequence[ClassPrompt], cache: StageCache, live: Live, whole: StagedSDCI
) -> Answer:
    """The answer for the image reduced to one window, at the image's size."""
    height, width = image.shape[:2]
    share = (whole.config.window or max(height, width)) / max(height, width)
    reduced = resize_pil_bicubic(image, (max(1, round(height * share)), max(1, round(width * share))))
    small = StagedSDCI(segmenter, cache.source("image", reduced), prompts, cache, live)
    *_, last = small.answers()
    enlarged = enlarge(torch.from_numpy(last.segmentation.probabilities), (height, width)).numpy()
    shown = Segmentation.from_probabilities(enlarged, last.segmentation.classes, image=image)
    return Answer(shown, False, f"preview at {share:.0%} of the size")


def plain_answer(
    segmenter: Any,
    name: str,
    image: RGB,
    classes: Sequence[str],
    cache: StageCache,
    live: Live | None = None,
    sar: RGB | None = None,
    sar_valid: np.ndarray[Any, np.dtype[np.bool_]] | None = None,
) -> Answer:
    """The answer of any method, remembered as a whole.

    Args:
        segmenter: the method.
        name: what its answers are remembered under, settings included.
        image: (H, W, 3) uint8.
        classes: K prompts.
        cache: where answers are remembered.
        live: whom to ask and tell.
        sar: (H, W, 1..3) uint8 for methods that use it.
        sar_valid: (H, W), where there are radar data.
    """
    live = live or Live()
    inputs = [cache.source("image", image)]
    radar = getattr(segmenter, "uses_sar", False)
    if radar:
        inputs += [cache.source("radar", part) for part in (sar, sar_valid) if part is not None]

    def compute() -> Segmentation:
        live.ticket.check()
        live.say("segmenting")
        more = {"sar": sar, "sar_valid": sar_valid} if radar else {}
        result: Segmentation = segmenter(image, list(classes), **more)
        result.stages = {}  # nobody looks at them here, and they are large
        return result

    told = [name, list(classes), radar and sar is not None, radar and sar_valid is not None]
    made = cache.node("method", told, inputs, compute)
    live.ticket.check()
    return Answer(made.value)


def answers_of(
    segmenter: Any,
    name: str,
    image: RGB,
    classes: Sequence[str],
    cache: StageCache,
    live: Live | None = None,
    **radar: Any,
) -> Iterator[Answer]:
    """Answers of any method: step by step for SDCI, as a whole for the others; see :func:`plain_answer`."""
    if isinstance(segmenter, SDCI):
        yield from staged_answers(segmenter, image, classes, cache, live)
    else:
        yield plain_answer(segmenter, name, image, classes, cache, live, **radar)


def _as_array(values: Any) -> np.ndarray[Any, Any]:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
