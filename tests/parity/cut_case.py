"""Cuts the repository's own parity case out of the full one, and puts its weights together again.

    python tests/parity/cut_case.py ../shared/parity/sdci_case_a

What is kept and what is left out is written in README.md beside this file. The cut is deterministic: doing it again
gives the same values, which a test checks wherever the full case is at hand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).resolve().parent
#: The synonyms whose merged embedding the full case holds as ``syn_text``.
SYNONYMS = "ground, road, streets"
BACKGROUND = "other"
#: Every so many entries of an array are kept, along the axes named; strides that share no factor with the grids' sides.
STRIDES = {
    "clip_features_last": (97, 1),
    "attn_clip_mean_rows": (9, 1),
    "seg": (3, 1),
    "dino_seg": (3, 1),
    "seg_matched": (7, 1),
    "dino_seg_matched": (7, 1),
    "diffused_clip": (1, 3, 1),
    "diffused_dino": (1, 3, 1),
    "prob_clip_processed": (1, 19, 17),
    "prob_dino_processed": (1, 19, 17),
}
#: Small enough, or cheap enough to compress, to be kept whole.
WHOLE = ("score_clip", "score_dino", "superpixels", "labels_official", "fg_text", "bg_text", "syn_text")


def thinned(name: str, array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The entries of one of the expected arrays that the small case keeps."""
    return array[tuple(slice(None, None, step) for step in STRIDES.get(name, (1,) * array.ndim))]


def used_tokens(text: dict[str, list[str]]) -> NDArray[np.int64]:
    """The rows of CLIP's token embedding that the case's texts look up, ascending."""
    words = [*text["classes"], BACKGROUND, *SYNONYMS.split(", ")]
    texts = [template.replace("{}", word) for template in text["templates"] for word in words]
    return np.unique(SimpleTokenizer()(texts).numpy())


def split_bytes(array: NDArray[np.float16]) -> NDArray[np.uint8]:
    """High and low bytes apart, (2, *shape): sign and exponent then compress, which mixed with the mantissa don't."""
    bits = array.view(np.uint16)
    return np.stack([bits >> 8, bits & 255]).astype(np.uint8)


def join_bytes(planes: NDArray[np.uint8]) -> NDArray[np.float16]:
    """The inverse of :func:`split_bytes`."""
    return np.asarray(planes[0].astype(np.uint16) << 8 | planes[1]).view(np.float16)


def cut_weights(
    state: dict[str, NDArray[np.float16]], rows: NDArray[np.int64] | None
) -> dict[str, NDArray[np.generic]]:
    """The arrays of a small weights' file; ``rows`` are those of the token embedding to keep."""
    cut: dict[str, NDArray[np.generic]] = {name: split_bytes(value) for name, value in state.items()}
    if rows is not None:
        embedding = state["token_embedding.weight"]
        cut["token_embedding.weight"] = split_bytes(embedding[rows])
        cut["token_embedding.rows"] = rows
        cut["token_embedding.vocabulary"] = np.array(len(embedding))
    return cut


def inflated(file: Path) -> dict[str, NDArray[np.float16]]:
    """A state dict in the published format again; rows of the token embedding that were left out are 0."""
    with np.load(file) as stored:
        state = {name: join_bytes(stored[name]) for name in stored.files if not name.endswith((".rows", ".vocabulary"))}
        if "token_embedding.rows" in stored.files:
            kept = state["token_embedding.weight"]
            table = np.zeros((int(stored["token_embedding.vocabulary"]), kept.shape[1]), np.float16)
            table[stored["token_embedding.rows"]] = kept
            state["token_embedding.weight"] = table
    return state


def inflate(file: Path, target: Path) -> Path:
    """Write :func:`inflated` as safetensors."""
    save_file(inflated(file), target)
    return target


def cut(source: Path) -> dict[str, dict[str, NDArray[np.generic]]]:
    """The content of the small case's three ``.npz`` files, by name."""
    text = json.loads((source / "text.json").read_text(encoding="utf-8"))
    with np.load(source / "expected.npz") as full:
        expected = {name: thinned(name, full[name]) for name in (*STRIDES, *WHOLE)}
    expected["superpixels"] = expected["superpixels"].astype(np.uint16)
    with np.load(source / "optimum.npz") as optimum:
        expected |= {f"optimum_{name}": optimum[name] for name in optimum.files}
    return {
        "clip": cut_weights(load_file(source / "tiny_openai_clip.safetensors"), used_tokens(text)),
        "dino": cut_weights(load_file(source / "tiny_dinov2_reg4.safetensors"), None),
        "expected": expected,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Cut the small parity case out of the full one.")
    parser.add_argument("source", type=Path, help="folder of the full case")
    source = parser.parse_args().source
    for name, arrays in cut(source).items():
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
    Image.open(source / "case.png").convert("RGB").save(HERE / "case.png", optimize=True)
    text = json.loads((source / "text.json").read_text(encoding="utf-8"))
    (HERE / "text.json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
