"""Making training scenes in processes of their own; light, since every process imports it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from rsovlib.data.lexicon import BUILDING
from rsovlib.data.scenes import make_scene

Made = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], str]
"""Image, labels, attributes (index of the roof or crop colour) and kind of water."""


def _make(job: tuple[int, int]) -> Made:
    side, seed = job
    scene = make_scene(side, seed, modalities=())
    attributes = np.where(scene.labels == BUILDING, scene.roof, scene.crop).astype(np.uint8)
    return scene.optical, scene.labels, attributes, str(scene.notes["water"])


def make_all(side: int, seeds: Sequence[int], workers: int) -> Iterator[Made]:
    """Makes scenes in the order of their seeds.

    Args:
        side: in pixels.
        seeds: of the scenes.
        workers: number of processes; 1 makes them in this one.

    Yields:
        One scene after another.
    """
    jobs = [(side, seed) for seed in seeds]
    if workers <= 1:
        yield from map(_make, jobs)
        return
    # Fresh processes: forking one in which torch has threads can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_make, jobs, chunksize=max(1, min(25, len(jobs) // workers)))
