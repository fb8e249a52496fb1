"""How many simulated scenes a second: one process, and two; with all sensors and with the optical image alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from rsovlib.data.scenes import MODALITIES, SCENE_VERSION, make_scene

SCENES = 60


def make(job: tuple[int, int, tuple[str, ...]]) -> int:
    size, seed, modalities = job
    return make_scene(size, seed, modalities=modalities).seed


def rows() -> Iterator[dict[str, object]]:
    for size in (160, 256, 512):
        for modalities in ((), MODALITIES):
            jobs = [(size, seed, modalities) for seed in range(SCENES)]
            make(jobs[0])
            for processes in (1, 2):
                if processes == 1:
                    began = time.perf_counter()
                    list(map(make, jobs))
                    seconds = time.perf_counter() - began
                else:
                    with ProcessPoolExecutor(processes) as pool:
                        list(pool.map(make, jobs[:processes]))  # the processes have started and imported
                        began = time.perf_counter()
                        list(pool.map(make, jobs, chunksize=5))
                        seconds = time.perf_counter() - began
                yield {
                    "size": size,
                    "sensors": "optical, nir, sar, dsm" if modalities else "optical",
                    "processes": processes,
                    "scenes_per_second": round(SCENES / seconds, 1),
                    "scene_version": SCENE_VERSION,
                }
