"""A file is there complete or not at all, and the old one stays until the new one is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rsovlib.errors import OutputError
from rsovlib.files import remove_unfinished, write_beside


def test_the_file_appears_only_when_the_block_has_ended(tmp_path: Path):
    path = tmp_path / "new folder" / "map.tif"
    with write_beside(path) as temporary:
        temporary.write_text("complete")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".tif", "writers choose the format by the suffix"
    assert path.read_text() == "complete"
    assert [p.name for p in path.parent.iterdir()] == ["map.tif"]


def test_after_an_error_folders_made_for_the_file_are_gone_and_others_are_not(tmp_path: Path):
    (tmp_path / "there").mkdir()

    def fail() -> None:
        with write_beside(tmp_path / "there" / "new" / "newer" / "map.tif"):
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert [p.name for p in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_after_an_error_the_old_file_stands_and_nothing_else(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "map.tif"
    path.write_text("old")

    def fail() -> None:
        with write_beside(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_permissions_are_those_of_a_plain_file(tmp_path: Path):
    old = os.umask(0o027)
    try:
        with write_beside(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_a_folder_is_no_output(tmp_path: Path):
    with pytest.raises(OutputError, match="is a folder"), write_beside(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_said_in_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="can't be written"), write_beside(tmp_path / "file" / "map.tif"):
        pass


def test_killed_in_mid_write_the_old_file_stands(tmp_path: Path):
    path = tmp_path / "map.tif"
    path.write_text("old")
    code = (
        "import time; from rsovlib.files import write_beside\n"
        f"with write_beside({str(path)!r}) as t: t.write_text('half'); print('writing', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.kill()
    assert path.read_text() == "old"


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path):
    path = tmp_path / "m.tif"
    killed = "import os, sys; from rsovlib.files import write_beside\nwith write_beside(sys.argv[1]): os._exit(1)"
    for target in (path, path, tmp_path / "m.p.tif", tmp_path / "m.png"):
        subprocess.run([sys.executable, "-c", killed, str(target)], check=False)
    (tmp_path / ".m.mine.part.tif").touch()
    assert len(list(tmp_path.iterdir())) == 5
    remove_unfinished(path)
    left = sorted(found.name for found in tmp_path.iterdir())
    assert len(left) == 3
    assert ".m.mine.part.tif" in left
    assert {name.rpartition(".part")[2] for name in left} == {".tif", ".png"}
    remove_unfinished(tmp_path / "no folder" / "m.tif")
