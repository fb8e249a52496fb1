"""What a method costs for one image: parameters, FLOPs, latency, memory, and energy where it can be estimated.

FLOPs are those of torch's operators as ``torch.utils.flop_counter`` counts them: two for a multiplication with an
addition, in convolutions, matrix products and attention. Words are encoded once and kept, so a second image doesn't pay
for them, and they aren't counted, as in SDCI's paper. Compiled loops (superpixels, diffusion, the convex step) run
outside of torch and are not counted either.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from rsovlib.data.classes import parse_classes
from rsovlib.experiments.results import ResultRow, peak_memory, record
from rsovlib.segmenters.base import Segmenter

NO_CODECARBON = "not measured: codecarbon is not installed (pip install rsovlib[costs])"
NO_COUNTRY = "not measured: the electricity's country isn't given (-p country=FRA)"


@dataclass(frozen=True)
class Energy:
    """What codecarbon estimates for one image.

    Attributes:
        watt_hours: of processor, memory and GPU.
        grams_co2: at the mix of the country, or None where none was given.
        assumptions: what the estimate rests on.
    """

    watt_hours: float | None
    grams_co2: float | None
    assumptions: str


@dataclass(frozen=True)
class Costs:
    """What one image costs.

    Attributes:
        parameters: of all networks.
        flops: of one image, without the words.
        latencies: seconds of each repetition.
        peak_memory: of this process so far, in bytes: libraries, models and all that it did before.
        energy: estimated.
        device: where it was computed.
    """

    parameters: int
    flops: int
    latencies: tuple[float, ...]
    peak_memory: int
    energy: Energy
    device: str

    @property
    def latency(self) -> float:
        """Median of the repetitions, in seconds."""
        return statistics.median(self.latencies)


def measure_costs(
    segmenter: Segmenter, image: Any, classes: str | Sequence[str], *, repeats: int = 5, country: str = ""
) -> Costs:
    """Measure what a segmenter costs.

    Args:
        segmenter: with its models loaded.
        image: (H, W, 3) uint8.
        classes: as for the segmenter.
        repeats: how often the latency is measured, after one run to warm up.
        country: ISO code of three letters, for the CO2 of its electricity; "" leaves CO2 out.

    Returns:
        The costs of one image.
    """
    from torch.utils.flop_counter import FlopCounterMode

    prompts = [str(prompt) for prompt in parse_classes(classes)]
    segmenter(image, prompts)
    with FlopCounterMode(display=False) as counter:
        segmenter(image, prompts)
    latencies = []
    for _ in range(repeats):
        _wait()
        started = time.perf_counter()
        segmenter(image, prompts)
        _wait()
        latencies.append(time.perf_counter() - started)
    networks = list(_networks(segmenter))
    device = next((str(one.device.type) for network in networks for one in network.parameters()), "cpu")
    return Costs(
        parameters=sum(one.numel() for network in networks for one in network.parameters()),
        flops=int(counter.get_total_flops()),
        latencies=tuple(latencies),
        peak_memory=peak_memory(),
        energy=_energy(segmenter, image, prompts, repeats, country),
        device=device,
    )


def record_costs(costs: Costs, row: str, column: str, **fields: Any) -> list[ResultRow]:
    """Hand the costs over as result rows.

    Args:
        costs: of one method.
        row: its name.
        column: for the table's, such as the size of the image.
        **fields: further fields of the rows.
    """
    fields = {"device": costs.device} | fields
    spread = {"low": min(costs.latencies), "high": max(costs.latencies), "n": len(costs.latencies)}
    rows = [
        record(row, column, "parameters", costs.parameters / 1e6, unit="million", **fields),
        record(row, column, "flops", costs.flops / 1e9, unit="GFLOP", **fields),
        record(
            row, column, "latency", costs.latency, unit="s", note="interval: fastest and slowest", **spread, **fields
        ),
        record(row, column, "peak memory", costs.peak_memory / 2**20, unit="MiB", **fields),
    ]
    energy = costs.energy
    rows.append(record(row, column, "energy", energy.watt_hours, unit="Wh", note=energy.assumptions, **fields))
    without = energy.assumptions if energy.watt_hours is None else NO_COUNTRY
    note = "as the energy" if energy.grams_co2 is not None else without
    rows.append(record(row, column, "CO2 equivalent", energy.grams_co2, unit="g", note=note, **fields))
    return rows


def random_image(size: int, seed: int = 0) -> np.ndarray:
    """Something to measure on: (size, size, 3) uint8, smooth in places so that superpixels have work to do."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(1, size // 16), max(1, size // 16), 3))
    fine = np.kron(coarse, np.ones((16, 16, 1)))[:size, :size]
    padded = np.pad(fine, ((0, size - fine.shape[0]), (0, size - fine.shape[1]), (0, 0)), mode="edge")
    return np.clip(padded + rng.normal(0, 8, padded.shape), 0, 255).astype(np.uint8)


def _networks(segmenter: Segmenter) -> Iterator[nn.Module]:
    """The networks of a segmenter, each once."""
    seen: set[int] = set()
    for name in ("clip", "dino"):
        model = getattr(getattr(segmenter, name, None), "model", None)
        if isinstance(model, nn.Module) and id(model) not in seen:
            seen.add(id(model))
            yield model


def _energy(segmenter: Segmenter, image: Any, prompts: Sequence[str], repeats: int, country: str) -> Energy:
    """codecarbon's estimate, without the network; nothing where it isn't installed."""
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        return Energy(None, None, NO_CODECARBON)
    with warnings.catch_warnings():
        # Version 3 would rather be told of output_methods, which version 2 doesn't know.
        warnings.simplefilter("ignore", DeprecationWarning)
        tracker = OfflineEmissionsTracker(
            country_iso_code=country or "USA",  # it wants one; without a country the CO2 is thrown away
            save_to_file=False,
            log_level="critical",
            tracking_mode="process",
            measure_power_secs=1,
            allow_multiple_runs=True,
        )
    tracker.start()
    for _ in range(repeats):
        segmenter(image, list(prompts))
    tracker.stop()
    data = tracker.final_emissions_data
    parts = ", ".join(f"{type(one).__name__} {getattr(one, '_mode', '')}".strip() for one in tracker._hardware)
    assumptions = (
        f"codecarbon, offline, this process: {data.cpu_model}, processor {data.cpu_power:.3g} W, "
        f"memory {data.ram_power:.3g} W, GPU {data.gpu_power:.3g} W ({parts}), {repeats} images"
    )
    if country:
        assumptions += f", electricity of {country}"
    grams = 1000 * data.emissions / repeats if country else None
    return Energy(1000 * data.energy_consumed / repeats, grams, assumptions)


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
