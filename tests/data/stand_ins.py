"""Segmenters without networks, for tests of whole scenes; a module, so that worker processes can import it."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

COLOURS = np.array([[40, 80, 160], [60, 130, 50], [190, 170, 140]], dtype=float)


def digest(image):
    """A name for a tile by what it holds."""
    return hashlib.sha1(np.ascontiguousarray(image)).hexdigest()[:12]


class Logged:
    """By colour, with a term that differs from tile to tile (so that blending matters); each call is one line of a log.

    Args:
        log: file to append to, or None.
        delay: seconds a call takes.
        setting: something that the map depends on.
        die_at: name of a tile at which the process ends as if it had been killed.
    """

    tiling = (24, 8)

    def __init__(self, log=None, delay=0.0, setting=0.0, die_at=None):
        self.log, self.delay, self.setting, self.die_at = log, delay, setting, die_at

    def settings(self):
        return {"setting": self.setting}

    def _note(self, step, image):
        if digest(image) == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.delay)
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write(f"{step} {digest(image)}\n")

    def _scores(self, image):
        distance = ((image[None].astype(float) - COLOURS[:, None, None]) ** 2).sum(-1) / 2000
        bias = np.random.default_rng(int(digest(image), 16)).normal(0, 0.5, (3, 1, 1))
        return (bias - distance + distance.min(axis=0) + self.setting).astype(np.float32)

    @staticmethod
    def _result(scores):
        values = np.exp(scores - scores.max(axis=0))
        return SimpleNamespace(probabilities=values / values.sum(axis=0))

    def __call__(self, image, classes):
        self._note("segment", image)
        return self._result(self._scores(image))


class TwoPass(Logged):
    """The same in two passes: scores are divided by the largest of the scene, and get an offset for each tile."""

    def scene_gatherer(self):
        return partial(gather, self.setting)

    def examine(self, image, classes):
        self._note("examine", image)
        return {"scores": self._scores(image)}

    def tile_statistics(self, examined, valid):
        return np.abs(examined["scores"][:, valid]).max(axis=1).astype(np.float64)

    def decide(self, image, classes, examined, constants, offsets):
        self._note("decide", image)
        return self._result(examined["scores"] / np.float32(constants["largest"]) + offsets[:, None, None])


def gather(setting, tiles):
    largest, offsets = 0.0, []
    for tile, examined, statistics in tiles:
        assert examined["scores"].shape == (3, tile.height, tile.width)
        largest = max(largest, float(statistics.max()))
        offsets.append(np.full(3, 0.01 * (tile.row_index - tile.column_index), np.float32) * [1, 2, 3])
    return {"largest": largest + setting}, [offset.astype(np.float32) for offset in offsets]


class Radar(Logged):
    """By colour, and where the radar is bright, the last class; each call says in the log what of the radar it saw."""

    uses_sar = True
    __name__ = "Radar"  # of the kinds below, too: their maps are the same

    def __call__(self, image, classes, sar=None, sar_valid=None):
        seen = "none" if sar is None else f"{digest(sar)}:{int(sar_valid.sum())}"
        self._note(f"segment {seen}", image)
        scores = self._scores(image)
        if sar is not None:
            assert sar.dtype == np.uint8
            assert sar.shape == image.shape
            assert sar_valid.shape == image.shape[:2]
            assert not sar[~sar_valid].any()
            scores[-1] += np.where(sar_valid, sar[..., 0] / 20.0, 0)
        return self._result(scores)


class Together(Radar):
    """The same for several tiles at once."""

    def segment_batch(self, images, classes, sar=None, sar_valid=None):
        self._note(f"batch of {len(images)}", images[0])
        sars = [None] * len(images) if sar is None else sar
        valids = [None] * len(images) if sar_valid is None else sar_valid
        return [self(image, classes, s, v) for image, s, v in zip(images, sars, valids, strict=True)]


def make_radar(method, *, profile, device, **options):
    """A factory of the kind that is registered."""
    return Radar(**options)
