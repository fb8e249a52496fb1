"""Finished pieces: what comes back is what was written by this very run, or nothing."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from rsovlib.data.tilestore import code_digest, file_facts, open_store, partial_folder, run_key
from rsovlib.errors import OutputError

ARRAYS = {
    "probabilities": np.arange(3 * 5 * 7, dtype=np.uint16).reshape(3, 5, 7),
    "labels": np.zeros((4, 9), np.uint8),
    "numbers": np.array([1.5, np.nan]),
    "nothing": np.empty((0, 3), np.float32),
}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "m.tif"


@pytest.mark.parametrize("compress", [False, True])
def test_a_piece_comes_back(out, compress):
    with open_store(out, "key") as store:
        assert store.get("a") is None
        store.put("a", ARRAYS, compress=compress)
        store.put("empty", {})
        back = store.get("a")
        assert list(back) == list(ARRAYS)
        for name, values in ARRAYS.items():
            np.testing.assert_array_equal(back[name], values)
            assert back[name].dtype == values.dtype
        assert store.get("empty") == {}
        assert (store.names(), store.written) == ({"a", "empty"}, 2)
        store.drop("a")
        store.drop("a")
        assert store.get("a") is None


def test_a_damaged_piece_is_no_piece(out):
    with open_store(out, "key") as store:
        store.put("a", ARRAYS)
        path = store.folder / "a"
        whole = path.read_bytes()
        for place in range(0, len(whole), 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert store.get("a") is None
        for length in (0, 3, 16, 40, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert store.get("a") is None
        path.write_bytes(whole + b"x")
        assert store.get("a") is None
        path.write_bytes(whole)
        assert store.get("a") is not None


def test_pieces_of_other_runs_and_names_are_no_pieces(out):
    with open_store(out, "key") as store, open_store(out.with_name("n.tif"), "other") as other:
        store.put("a", ARRAYS)
        (other.folder / "a").write_bytes((store.folder / "a").read_bytes())
        (store.folder / "b").write_bytes((store.folder / "a").read_bytes())
        assert other.get("a") is None
        assert store.get("b") is None


def interrupted(out, key, pieces=("a",), rest=None):
    """A run that keeps some pieces, perhaps half of another, and is stopped; gives what it found."""
    found = None

    def work():
        nonlocal found
        with open_store(out, key) as store:
            found = store.get("a")
            for name in pieces:
                store.put(name, ARRAYS)
            if rest is not None:
                (store.folder / rest).write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    return found


def test_a_store_outlives_an_interruption_and_not_a_success(out):
    interrupted(out, "key", rest=".half.part")
    assert partial_folder(out).is_dir()
    # Other settings never meet it, and a run that finished nothing leaves nothing.
    assert interrupted(out, "different", ()) is None
    assert [path.name for path in partial_folder(out).iterdir() if path.is_dir()] == ["key"]
    with open_store(out, "key") as store:
        assert store.get("a") is not None
        assert not list(store.folder.glob(".*"))
    assert list(out.parent.iterdir()) == []


def test_only_pieces_that_hold_something_are_worth_keeping(out):
    def work():
        with open_store(out, "key") as store:
            store.put("t-1000-1000", {})
            assert not store.is_worth_keeping()
            raise OutputError("stop")

    with pytest.raises(OutputError, match="stop"):
        work()
    assert list(out.parent.iterdir()) == []


def test_without_resuming_all_is_forgotten(out):
    for key in ("one", "two"):
        interrupted(out, key)
    with open_store(out, "one", resume=False) as store:
        assert store.get("a") is None
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("folder", ["", "new/deeper"])
def test_a_run_that_nobody_can_tell_from_another_keeps_nothing(tmp_path, folder):
    interrupted(tmp_path / folder / "m.tif", None)
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time(out):
    pytest.importorskip("fcntl")
    with open_store(out, "key") as store:
        store.put("a", ARRAYS)
        with pytest.raises(OutputError, match=r"Another process is making .*m\.tif"), open_store(out, "key"):
            pass
        assert store.get("a") is not None


def test_a_full_disk_is_said_and_leaves_no_half_piece(out, monkeypatch):
    def full(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def work():
        with open_store(out, "key") as store:
            store.put("a", ARRAYS)
            monkeypatch.setattr(os, "replace", full)
            store.put("b", ARRAYS)

    with pytest.raises(OutputError, match=r"No space left on device.*make room"):
        work()
    assert sorted(path.name for path in (partial_folder(out) / "key").iterdir()) == ["a"]


def test_keys_and_facts(tmp_path):
    assert run_key({"a": 1, "b": [2]}) == run_key({"b": [2], "a": 1})
    assert run_key({"a": 1}) != run_key({"a": 1.5}) != run_key({"a": "1"})
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    before = file_facts([str(file), str(tmp_path / "missing")])
    assert [fact[:2] for fact in before] == [["a.bin", 3]]
    os.utime(file, ns=(1, 1))
    assert file_facts([str(file)]) != before
    assert code_digest() == code_digest()
