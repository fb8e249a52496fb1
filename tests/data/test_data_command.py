"""``rsovlib data``: list, show, check, prepare; 0 when all is well, 1 for differences, 2 for mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import fakes
import pytest

from rsovlib.cli import main
from rsovlib.data.manifest import load_manifest, manifest_names
from rsovlib.data.prepared import read_index


def test_list(tmp_path, monkeypatch, capsys):
    (tmp_path / "loveda").mkdir()
    monkeypatch.setenv("RSOV_DATA", str(tmp_path))
    assert main(["data", "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["NAME", "HERE"]
    assert [line.split()[0] for line in lines] == manifest_names()
    assert [line.split()[0] for line in lines if line.split()[1] == "yes"] == ["loveda"]


@pytest.mark.parametrize("name", manifest_names())
def test_show(name, capsys):
    manifest = load_manifest(name)
    assert main(["data", "show", name]) == 0
    told = capsys.readouterr().out
    for part in (manifest.title, manifest.licence.name, *manifest.pages, *manifest.modalities, *manifest.class_names):
        assert part in told
    for layout in manifest.layouts.values():
        assert all(files.path in told for files in layout.files.values())
    for item in manifest.classes:
        assert all(word in told for words in item.prompts.values() for word in words)
    assert main(["data", "show", name, "--json"]) == 0
    assert type(manifest).model_validate(json.loads(capsys.readouterr().out)) == manifest


@pytest.mark.parametrize("name", manifest_names())
def test_check_passes_on_a_complete_copy(fake_of, name, capsys):
    fake = fake_of(name)
    assert main(["data", "check", str(fake.manifest_path), "--root", str(fake.root)]) == 0
    assert "The copy is as the manifest says." in capsys.readouterr().out


def test_check_names_the_damage(fake_of, tmp_path, capsys):
    fake = fakes.own_copy(fake_of("loveda", "zenodo"), tmp_path)
    path = fake.samples[min(fake.samples)].files["rgb"]
    path.write_bytes(b"")
    command = ["data", "check", str(fake.manifest_path), "--root", str(fake.root), "--layout", "zenodo"]
    assert main([*command, "--quiet"]) == 1
    written = capsys.readouterr()
    assert written.out.splitlines() == [
        f"unreadable  {path.relative_to(fake.root).as_posix()}  is empty (0 bytes); get the file again"
    ]
    assert written.err == ""
    assert main([*command, "--json", "--quick", "--partial"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["counts"] == {"unreadable": 1}
    assert main([*command, "--workers", "2"]) == 1
    assert "1 difference: unreadable 1" in capsys.readouterr().out


def test_the_root_comes_from_the_environment(fake_of, tmp_path, monkeypatch, capsys):
    fake = fake_of("loveda", "zenodo")
    (tmp_path / "loveda").symlink_to(fake.root)
    monkeypatch.setenv("RSOV_DATA", str(tmp_path))
    assert main(["data", "check", str(fake.manifest_path), "--quiet"]) == 0
    # The published manifest knows how large the dataset really is.
    assert main(["data", "check", "loveda", "--quiet"]) == 1
    assert "are 6 files here, and 5987 were published" in capsys.readouterr().out


def test_prepare(fake_of, tmp_path, capsys):
    fake = fake_of("potsdam", "isprs")
    out = tmp_path / "tiles"
    command = ["data", "prepare", str(fake.manifest_path), "--root", str(fake.root), "--out", str(out)]
    assert main([*command, "--protocol", "sdci"]) == 0
    assert f"index: {out / 'index.parquet'}" in capsys.readouterr().out
    table, settings = read_index(out)
    assert settings["protocol"] == "sdci"
    assert len(table) == 2 * 3 * 3
    assert main([*command, "--protocol", "sdci", "--quiet", "--workers", "2"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["check", "potsdam"], "set RSOV_DATA"),
        (["check", "potsdm", "--root", "."], "Did you mean 'potsdam'"),
        (["check", "potsdam", "--root", "gone"], "There is no folder gone"),
        (["check", "potsdam", "--root", "."], "No file under . is of potsdam"),
        (["check", "potsdam", "--root", ".", "--layout", "ispr"], "Did you mean 'isprs'"),
        (["check", "own.yaml", "--root", "."], "There is no file own.yaml"),
        (["prepare", "potsdam", "--root", ".", "--out", "o"], "No file under . is of potsdam"),
        (["prepare", "potsdam", "--root", ".", "--out", "o", "--protocol", "sdic"], "Did you mean 'sdci'"),
        (["show", "potsdan"], "Did you mean 'potsdam'"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RSOV_DATA", raising=False)
    assert main(["data", *arguments]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("rsovlib: ")
    assert written.err.count("\n") == 1
    assert sentence in written.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["data"], ["data", "show"], ["data", "prepare", "potsdam"], ["data", "check", "x", "--workers", "y"]]
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: rsovlib data" in capsys.readouterr().err


def test_help_waits_for_no_library():
    code = (
        "import sys; from rsovlib.cli import main\ntry: main(['data', 'check', '--help'])\nfinally: print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--partial" in loaded
    assert not {"torch", "rasterio", "numpy", "pydantic", "yaml"} & set(loaded.split())


def test_check_and_prepare_do_not_load_torch(fake_of, tmp_path):
    """A data server has no use for it, and each worker process would wait for it."""
    fake = fake_of("loveda", "zenodo")
    where = ["--root", str(fake.root), "--quiet"]
    code = (
        "import sys; from rsovlib.cli import main\n"
        f"main(['data', 'check', {str(fake.manifest_path)!r}, *{where}])\n"
        f"main(['data', 'prepare', {str(fake.manifest_path)!r}, *{where}, '--out', {str(tmp_path / 'out')!r}])\n"
        "print('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "False\n"
