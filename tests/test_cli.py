"""The command line: one sentence and exit code 2 for every mistake, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio

import rsovlib
from rsovlib.cli import main
from rsovlib.data import raster

CLASSES = "water, river; forest; bare soil"


@pytest.fixture
def scene(tmp_path, image):
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "count": 3, "height": 37, "width": 31, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5.6e6)) as target:
        target.write(image.transpose(2, 0, 1))
    return path


@pytest.fixture
def asked(monkeypatch):
    """A segmenter that needs no model; what it was made with is kept."""
    calls = {}

    def make(method, **options):
        calls.update(options, method=method.name)

        def segmenter(image, classes):
            bright = image.mean(axis=-1) / 255
            return SimpleNamespace(probabilities=np.stack([1 - bright, bright / 2, bright / 2]).astype(np.float32))

        return segmenter

    monkeypatch.setattr(raster, "_make_segmenter", make)
    return calls


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_segment_writes_everything_and_tells_it(tmp_path, scene, asked, capsys):
    files = {"png": "m.png", "vector": "m.gpkg", "probabilities": "p.tif"}
    extra = [text for kind, name in files.items() for text in (f"--{kind}", str(tmp_path / name))]
    out = tmp_path / "m.tif"
    assert main(["segment", str(scene), "--classes", CLASSES, "--out", str(out), *extra]) == 0
    assert names(tmp_path) == ["m.gpkg", "m.png", "m.tif", "m.tif.aux.xml", "p.tif", "scene.tif"]
    told = capsys.readouterr().out
    for text in ("water", "bare soil", "hectares", str(out), str(tmp_path / "m.gpkg"), "bands 1, 2, 3"):
        assert text in told


def test_options_reach_the_segmenter(tmp_path, scene, asked, capsys):
    out = str(tmp_path / "m.tif")
    command = ["segment", str(scene), "--classes", CLASSES, "--out", out, "--quiet"]
    models = ["--clip", "ViT-B-16", "--dino-weights", "d.safetensors"]
    parameters = ["--set", "beta=0.3", "--set", "templates=None", "--set", "bcdr=False", "--set", "graph=dino"]
    assert main([*command, "--method", "valuepath", "--profile", "full", "--device", "cpu", *models, *parameters]) == 0
    assert asked == {
        "method": "valuepath",
        "profile": "full",
        "device": "cpu",
        "clip": "ViT-B-16",
        "dino_weights": "d.safetensors",
        "beta": 0.3,
        "templates": None,
        "bcdr": False,
        "graph": "dino",
    }
    assert capsys.readouterr().out == ""
    asked.clear()
    assert main(command) == 0
    assert asked == {"method": "sdci", "profile": "embedded", "device": "auto"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image": "missing.tif"}, "does not exist"),
        ({"image": "."}, "is a folder"),
        ({"image": "text.tif"}, "can't be opened as a raster"),
        ({"image": "empty.tif"}, "is empty"),
        ({"image": "cut.tif"}, "is cut short"),
        ({"classes": ""}, "list of classes is empty"),
        ({"classes": "water; Water"}, "the same name"),
        ({"classes": "water; ,,"}, "has no word"),
        ({"classes": ";".join(f"c{k}" for k in range(255))}, "at most 254"),
        ({"method": "sdcl"}, "Did you mean 'sdci'?"),
        ({"profile": "ful"}, "Did you mean 'full'?"),
        ({"clip-weights": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"out": "scene.tif"}, "also the input"),
        ({"out": "link.tif"}, "also the input"),
        ({"out": "m.jpg"}, "must end in .tif"),
        ({"out": "text.tif/m.tif"}, "is a file and not a folder"),
        ({"png": "m.tif"}, "must end in .png"),
        ({"bands": "1,2,7"}, "no band '7'"),
        ({"tile": "64", "overlap": "64"}, "must be smaller than the tile"),
    ],
)
def test_mistakes(tmp_path, scene, monkeypatch, capsys, changes, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.tif").write_text("no raster")
    (tmp_path / "empty.tif").touch()
    (tmp_path / "cut.tif").write_bytes(scene.read_bytes()[:-1000])
    (tmp_path / "link.tif").symlink_to(scene)
    before = names(tmp_path), scene.read_bytes()
    options = {"image": "scene.tif", "classes": CLASSES, "out": "m.tif", **changes}
    arguments = [options.pop("image"), *(text for key, value in options.items() for text in (f"--{key}", value))]
    assert main(["segment", *arguments]) == 2
    written = capsys.readouterr()
    assert written.err.startswith("rsovlib: ")
    assert sentence in written.err
    assert written.err.count("\n") == 1
    assert written.out == ""
    assert (names(tmp_path), scene.read_bytes()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["segment"],
        ["segment", "a.tif", "--out", "m.tif"],
        ["segment", "a.tif", "--classes", "a", "--out", "m.tif", "--tile", "x"],
        ["segment", "a.tif", "--classes", "a", "--out", "m.tif", "--set", "beta"],
        ["weights", "show"],
    ],
)
def test_wrong_usage_also_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: rsovlib" in capsys.readouterr().err


def test_interruption_is_quiet(tmp_path, scene, monkeypatch, capsys):
    def make(method, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(raster, "_make_segmenter", make)
    out = str(tmp_path / "m.tif")
    assert main(["segment", str(scene), "--classes", CLASSES, "--out", out, "--quiet"]) == 130
    assert capsys.readouterr().err == ""
    assert names(tmp_path) == ["scene.tif"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_process_cleans_up(tmp_path, scene, number, code):
    program = (
        "import sys, time\n"
        "from rsovlib import cli\n"
        "from rsovlib.data import raster\n"
        "def wait(image, classes):\n"
        "    print('in the middle', flush=True)\n"
        "    time.sleep(600)\n"
        "raster._make_segmenter = lambda method, **options: wait\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = ["segment", str(scene), "--classes", CLASSES, "--out", str(tmp_path / "m.tif"), "--quiet"]
    with subprocess.Popen([sys.executable, "-c", program, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in the middle\n"
        assert len(names(tmp_path)) > 1  # the temporary files
        process.send_signal(number)
    assert process.returncode == code
    assert names(tmp_path) == ["scene.tif"]


def test_the_signal_handler_of_the_caller_comes_back(tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert main(["segment", str(tmp_path / "a.tif"), "--classes", "a", "--out", str(tmp_path / "m.tif")]) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_library_is_loaded_to_answer_a_plain_question():
    """`--version` and `--help` must not wait for libraries."""
    code = "import sys; from rsovlib.cli import main\ntry: main(['--version'])\nfinally: print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.startswith(f"rsovlib {rsovlib.__version__}")
    assert not {"torch", "rasterio", "numpy", "matplotlib"} & set(loaded.split())


def test_a_damaged_file_gives_one_line_and_no_log_of_gdal(tmp_path, scene):
    content = bytearray(scene.read_bytes())
    content[:40] = b"II*\x00" + b"\xff" * 36
    (tmp_path / "bad.tif").write_bytes(content)
    command = [sys.executable, "-m", "rsovlib", "segment", "bad.tif", "--classes", "a", "--out", "m.tif"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "rsovlib: bad.tif can't be opened as a raster; it is of an unknown format, or damaged from its start on."
    ]


def test_weights(tmp_path, monkeypatch, capsys):
    from rsovlib.backbones import registry

    monkeypatch.setenv("RSOV_CACHE", str(tmp_path))
    monkeypatch.setenv("RSOV_OFFLINE", "1")
    assert main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [entry.name for entry in registry.list_weights()]
    shipped = registry.DEFAULT_CLIP
    assert main(["weights", "show", shipped]) == 0
    assert registry.get(shipped).sha256 in capsys.readouterr().out
    assert main(["weights", "check", shipped]) == 0
    assert f"{shipped}: as published" in capsys.readouterr().out
    absent = next(entry.name for entry in registry.list_weights() if not entry.embedded)
    assert main(["weights", "check", absent]) == 0
    assert capsys.readouterr().out == f"{absent}: not here\n"
    assert main(["weights", "show", "nothing"]) == 2
    assert "rsovlib: There is no" in capsys.readouterr().err


def test_altered_weights_are_an_error(tmp_path, monkeypatch, capsys):
    from rsovlib.backbones import registry

    altered = tmp_path / "w.safetensors"
    altered.write_bytes(b"other content")
    monkeypatch.setenv("RSOV_OFFLINE", "1")
    monkeypatch.setattr(registry, "fetch", lambda entry: altered)
    assert main(["weights", "check", registry.DEFAULT_CLIP]) == 2
    written = capsys.readouterr()
    assert f"{registry.DEFAULT_CLIP}: ALTERED" in written.out
    assert written.err.startswith("rsovlib: ")
