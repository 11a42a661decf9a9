"""Files are written whole or not at all."""

import os

import pytest

from graphs.files import write_whole


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "new.gif"
    write_whole(path, b"GIF89a\x00\r\n")
    assert path.read_bytes() == b"GIF89a\x00\r\n"
    write_whole(str(path), b"")
    assert path.read_bytes() == b"" and os.listdir(tmp_path) == ["new.gif"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, call, error):
    path = tmp_path / "old.png"
    path.write_bytes(b"old")
    seen = []

    def fails(*_):
        seen.extend(os.listdir(tmp_path))
        raise error

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(type(error)):
        write_whole(path, b"new")
    assert len(seen) == 2  # the new bytes lay beside it, in the same folder
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["old.png"]


def test_the_bytes_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def synced(file):
        done.append(os.fstat(file).st_size)
        fsync(file)

    def renamed(source, target):
        done.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_whole(tmp_path / "file", b"12345")
    assert done == [5, "renamed"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "file", b"1")
    assert not os.listdir(tmp_path)
