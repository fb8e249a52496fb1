"""How many simulated scenes a second: one process, and two; the optical image alone, all sensors, samples of suites.

``scenes_per_second`` is by the clock, and what a crowded machine leaves of it; ``cpu_ms`` is the processor's time for a
scene, from which ``per_second_by_cpu`` says what the processes would make with a core each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from rsovlib.data.scenes import MODALITIES, SCENE_VERSION, make_scene
from rsovlib.data.suites import load_suite

SCENES = 60
SUITES = ("mm-ovseg-pie-cloud", "edc-m3m-cr", "scenario-hunan")

Job = TypeVar("Job")


def make(job: tuple[int, int, tuple[str, ...]]) -> float:
    """Milliseconds of processor time for one scene."""
    size, seed, modalities = job
    began = time.process_time()
    make_scene(size, seed, modalities=modalities)
    return 1e3 * (time.process_time() - began)


def sample(job: tuple[str, int]) -> float:
    """The same for one full-size sample of a suite."""
    name, index = job
    suite = load_suite(name)
    began = time.process_time()
    suite.sample("test", index, quick=False)
    return 1e3 * (time.process_time() - began)


def rows() -> Iterator[dict[str, object]]:
    for size in (160, 256, 512):
        for modalities in ((), MODALITIES):
            sensors = "optical, nir, swir, sar, dsm" if modalities else "optical"
            yield from measured(make, [(size, seed, modalities) for seed in range(SCENES)], size, sensors)
    for name in SUITES:
        size = load_suite(name).size.full
        yield from measured(sample, [(name, index) for index in range(SCENES // 3)], size, f"suite {name}")


def measured(work: Callable[[Job], float], jobs: Sequence[Job], size: int, sensors: str) -> Iterator[dict[str, object]]:
    work(jobs[0])
    for processes in (1, 2):
        if processes == 1:
            began = time.perf_counter()
            times = list(map(work, jobs))
            seconds = time.perf_counter() - began
        else:
            with ProcessPoolExecutor(processes) as pool:
                list(pool.map(work, jobs[:processes]))  # the processes have started and imported
                began = time.perf_counter()
                times = list(pool.map(work, jobs, chunksize=5))
                seconds = time.perf_counter() - began
        yield {
            "size": size,
            "sensors": sensors,
            "processes": processes,
            "scenes_per_second": round(len(jobs) / seconds, 1),
            "cpu_ms": round(statistics.mean(times), 1),
            "per_second_by_cpu": round(1e3 * processes / statistics.mean(times), 1),
            "scene_version": SCENE_VERSION,
        }
