"""SDCI stage by stage: seconds and peak memory, on the CPU, with random weights (shapes and costs, no meaning).

Two rows of networks: those of the papers (ViT-L/14 at 518 pixels, DINOv2 ViT-B/14 with registers at 532) on one tile
of 512 x 512, and the embedded ones on one window of 256 x 256. Each pair runs in a process of its own, so that its
memory is its own; the first image is a small one, which compiles and warms up everything.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

PAIRS: dict[str, tuple[str, str, int]] = {
    "paper": ("ViT-L-14-quickgelu", "vit_base_patch14_reg4_dinov2", 512),
    "embedded": ("rsov-tiny-clip", "rsov-tiny-dino", 256),
}
CLASSES = ("water, river", "forest, trees", "buildings, rooftops", "roads", "bare soil")
MIB = 2**20
T = TypeVar("T")


def rows() -> Iterator[dict[str, Any]]:
    """One row a pair of networks and stage."""
    for pair in PAIRS:
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.bench_backbones", pair], stdout=subprocess.PIPE, text=True, check=True
        )
        for line in child.stdout.splitlines():
            if line.startswith("{"):
                yield json.loads(line)


def measure(pair: str) -> None:
    """Run one pair in this process; a JSON line a stage."""
    import torch

    from rsovlib.backbones import load_clip, load_dino
    from rsovlib.data.classes import parse_classes
    from rsovlib.data.scenes import make_scene
    from rsovlib.segmenters import SDCI, SDCIConfig
    from rsovlib.segmenters.images import resize_pil_bicubic, resize_tensor_bicubic, to_unit
    from rsovlib.segmenters.sdci import SDCIFeatures

    clip_name, dino_name, side = PAIRS[pair]
    common = {"pair": pair, "image": f"{side} x {side}", "threads": torch.get_num_threads()}

    def timed(stage: str, run: Callable[[], T], **more: Any) -> T:
        reset_peak()
        start, busy = time.perf_counter(), time.process_time()
        result = run()
        measured = {
            "seconds": round(time.perf_counter() - start, 3),
            "cpu_seconds": round(time.process_time() - busy, 3),  # of all threads; tells a busy machine from slow code
            "peak_mib": peak_mib(),
        }
        print(json.dumps({**common, "stage": stage, **measured, **more}), flush=True)
        return result

    torch.manual_seed(0)
    clip = timed("build CLIP", lambda: load_clip(clip_name, weights="random", device="cpu"))
    dino = timed("build DINO", lambda: load_dino(dino_name, weights="random", device="cpu"))
    config = SDCIConfig.embedded() if pair == "embedded" else SDCIConfig.official()
    sdci = SDCI(clip, dino, config)
    prompts = parse_classes(CLASSES)
    image = make_scene(side, seed=1).optical
    # Large enough for the solver's parallel version to be compiled, and small for the networks.
    SDCI(clip, dino, SDCIConfig.official(clip_size=4 * clip.patch_size, dino_scale=1.0))(image[:160, :160], CLASSES)

    grid = sdci._clip_grid(side, side)
    sides = (grid[0] * clip.patch_size, grid[1] * clip.patch_size)
    clip_pixels = clip.normalise(to_unit(resize_pil_bicubic(image, sides), clip.device))
    dino_sides = sdci._dino_sides(side, side, grid)
    dino_pixels = resize_tensor_bicubic(dino.normalise(to_unit(image, dino.device)), dino_sides)

    def plain_walk() -> None:
        for _ in clip.walk(clip.embed(clip_pixels)):
            pass

    def step_by_step() -> None:
        timed(f"CLIP alone at {sides[0]}", plain_walk)
        layers, last, clip_attention = timed(
            f"CLIP with fused attention at {sides[0]}", lambda: sdci._clip_features(clip_pixels)
        )
        seen = timed(f"DINO at {dino_sides[0]}", lambda: dino.features(dino_pixels))
        clip._words.clear()  # the first image had them encoded already
        text = timed("texts", lambda: sdci.encode_text(prompts))
        features = SDCIFeatures(
            image=image,
            clip_grid=grid,
            dino_grid=seen.grid,
            clip_layers=layers,
            clip_last=last,
            clip_attention=clip_attention,
            dino_layers=torch.cat(seen.layers),
            dino_text_layers=torch.cat(seen.text_layers),
            dino_attention=seen.attention[0],
        )
        scores = timed("CAF", lambda: sdci.score(features, text, len(prompts)))
        stages = timed("BCDR", lambda: sdci.refine(features, *scores))
        timed("CSCP", lambda: sdci.solve(image, stages["clip_map"], stages["dino_map"]))

    with torch.inference_mode():
        step_by_step()
    before = peak_mib(now=True)
    foreseen = round(sdci.memory_needed(side, side, len(prompts)) / MIB)
    timed("all, texts known", lambda: sdci(image, CLASSES), before_mib=before, foreseen_mib=foreseen)


def peak_mib(*, now: bool = False) -> int:
    """The process's largest resident memory since the last reset (where Linux tells), or its present one."""
    status = Path("/proc/self/status")
    if status.exists():
        wanted = "VmRSS:" if now else "VmHWM:"
        line = next(line for line in status.read_text().splitlines() if line.startswith(wanted))
        return round(int(line.split()[1]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MIB)


def reset_peak() -> None:
    """Start a new measurement of the peak; elsewhere than on Linux the peak is the whole run's so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


if __name__ == "__main__":
    measure(sys.argv[1])
