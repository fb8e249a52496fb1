"""Weight files: what is read, what is refused, and that nothing in them is ever run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rsovlib.backbones import load_clip, load_dino
from rsovlib.backbones.checkpoints import load_strictly, read_state_dict, sha256_of
from rsovlib.errors import WeightsError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) and value.dtype == other[name].dtype for name, value in one.items()
    )


@pytest.mark.parametrize("name", ["plain.safetensors", "wrong_ending.pt"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    save_file(STATE, tmp_path / name)
    assert equal(read_state_dict(tmp_path / name), STATE)


def wrapped(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in STATE.items()}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": wrapped("module."), "epoch": 3, "name": "ViT-L-14"},
        {"model": wrapped("module._orig_mod."), "optimizer": {"lr": 0.1}},
        {"teacher": wrapped("backbone.")},
        {"student": wrapped("other."), "teacher": {**wrapped("module.backbone."), "module.head.mlp": torch.ones(1)}},
        {"model": {"teacher": {**wrapped("backbone."), "dino_head.w": torch.ones(1), "ibot_head.w": torch.ones(1)}}},
        wrapped("module."),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_wrappers_are_taken_off(tmp_path, content, legacy):
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=not legacy)
    state = read_state_dict(tmp_path / "weights.pt")
    assert equal({name: value for name, value in state.items() if "head" not in name}, STATE)


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "boom")


def hostile(kind: str, file: Path, target: Path) -> None:
    content = {"state_dict": STATE, "extra": Bomb(target)}
    if kind == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.bin"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, kind, name):
    file, target = tmp_path / name, tmp_path / "boom"
    hostile(kind, file, target)
    for load in (
        lambda: read_state_dict(file),
        lambda: load_clip(weights=file, device="cpu"),
        lambda: load_clip("rsov-tiny-clip", weights=file, device="cpu"),
        lambda: load_dino("rsov-tiny-dino", weights=file, device="cpu"),
    ):
        with pytest.raises(WeightsError, match=r"refused for safety|no readable checkpoint"):
            load()
    assert not target.exists()
    # The trap works: a loader that trusts the file does run it.
    with file.open("rb") as stream:
        pickle.load(stream) if kind == "pickle" else torch.load(stream, weights_only=False)
    assert target.read_text() == "boom"


def test_torchscript_archives_are_refused(tmp_path):
    """OpenAI's own downloads are such archives. Written by hand: a program, its constants and its data."""
    file = tmp_path / "ViT-B-32.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({}))
        archive.writestr("model/constants.pkl", pickle.dumps(()))
        archive.writestr("model/code/__torch__.py", "def forward(self): pass")
    with pytest.raises(WeightsError, match=r"TorchScript.*safetensors"):
        read_state_dict(file)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98])
def test_truncated_files(tmp_path, kind, share):
    file = tmp_path / "weights.bin"
    big = {"a": torch.randn(50, 50)}
    if kind == "safetensors":
        save_file(big, file)
    else:
        torch.save(big, file, _use_new_zipfile_serialization=kind == "zip")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match=str(file)) as caught:
        read_state_dict(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(2)], "list"),
        (torch.ones(2), "Tensor"),
        ({"epoch": 3}, "no tensors"),
        ({"state_dict": {}}, "no tensors"),
    ],
)
def test_files_without_a_state_dict(tmp_path, content, words):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=words):
        read_state_dict(tmp_path / "odd.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 100, b"<html>Not found</html>" * 50])
def test_files_that_are_no_checkpoints(tmp_path, content):
    (tmp_path / "page.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"page\.pt"):
        read_state_dict(tmp_path / "page.pt")


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(WeightsError, match="no weights file"):
            read_state_dict(path)


def test_a_safetensors_header_that_lies(tmp_path):
    """A header that claims more than the file has must not make us reserve it."""
    file = tmp_path / "liar.safetensors"
    for length in (2**40, 2**63, 20):
        file.write_bytes(
            length.to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9000,9000],"data_offsets":[0,9]}}'
        )
        with pytest.raises(WeightsError, match="liar"):
            read_state_dict(file)


def test_every_parameter_must_fit():
    model = torch.nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    load_strictly(model, good, "x")
    assert torch.equal(model.weight, good["weight"])
    for change, words in (
        ({"weight": torch.ones(2, 4)}, r"weight is \(2, 4\), the model has \(2, 3\)"),
        ({"more": torch.ones(1)}, "1 unknown, first more"),
    ):
        with pytest.raises(WeightsError, match=words):
            load_strictly(model, good | change, "x")
    with pytest.raises(WeightsError, match="1 missing, first bias"):
        load_strictly(model, {"weight": torch.ones(2, 3)}, "x")


def test_the_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
