"""The files of a run: whole or not at all, and read back as they were written."""

import errno
import json
import math
import os
import warnings

import pytest
import torch

from ppgen.run import (
    Log,
    claim,
    load_checkpoint,
    pack_weights,
    read_json,
    read_metrics,
    read_yaml,
    save_checkpoint,
    unpack_weights,
    write_atomically,
)


@pytest.mark.parametrize("failing", ["fsync", "replace", "write"])
def test_a_file_is_written_whole_or_not_at_all(failing, tmp_path, monkeypatch):
    file = tmp_path / "deep" / "file"
    write_atomically(file, b"first")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    data = b"second"
    if failing == "write":
        data = "not bytes"
    else:
        monkeypatch.setattr(os, failing, full)
    with pytest.raises((OSError, TypeError)):
        write_atomically(file, data)
    monkeypatch.undo()
    assert file.read_bytes() == b"first" and [f.name for f in file.parent.iterdir()] == ["file"]
    write_atomically(file, b"second")
    assert file.read_bytes() == b"second"


def test_weights_of_every_kind_come_back_bit_for_bit(tmp_path):
    base = torch.randn(4, 6)
    state = {
        "plain": base,
        "tied": base,
        "transposed": base.t(),
        "strided": torch.randn(8, 8)[::2, 1::3],
        "expanded": torch.randn(1, 3).expand(5, 3),
        "view": base[:2],
        "scalar": torch.tensor(2.5),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "half": torch.randn(3).bfloat16(),
        "double": torch.randn(2, 2).double(),
        "empty": torch.empty(0, 3),
        "other empty": torch.empty(0, 3),
        "special": torch.tensor([math.nan, math.inf, -0.0]),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    data = pack_weights(state)
    (tmp_path / "w.safetensors").write_bytes(data)
    found = unpack_weights((tmp_path / "w.safetensors").read_bytes())
    assert found.keys() == state.keys()
    for name, value in state.items():
        value = value.detach()
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        left, right = (v.contiguous().view(-1).view(torch.uint8) if v.numel() and v.dim() else v
                       for v in (found[name], value))  # fmt: skip
        assert torch.equal(left, right), name
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert "plain" in header and "tied" not in header  # stored once
    assert json.loads(header["__metadata__"]["tied"]) == {"tied": "plain"}
    found["plain"].zero_()  # tied in the file; the module ties its own again
    assert base.abs().sum() > 0


def checkpoint(path, step):
    save_checkpoint(path, step, {"w": torch.full((3,), float(step))}, {"step": step})


def names(path):
    return sorted(file.name for file in (path / "checkpoints").iterdir())


def test_the_last_two_checkpoints_are_kept(tmp_path):
    for step in (1, 5, 20, 1000):
        checkpoint(tmp_path, step)
    stems = ["step_000000020", "step_000001000"]
    parts = ("json", "pt", "safetensors")
    assert names(tmp_path) == [f"{stem}.{part}" for stem in stems for part in parts]
    weights, state = load_checkpoint(tmp_path)
    assert state == {"step": 1000} and weights["w"].tolist() == [1000.0] * 3
    assert load_checkpoint(tmp_path / "none") is None


def test_what_a_kill_left_behind_is_cleared_and_nothing_of_others(tmp_path):
    checkpoint(tmp_path, 1)
    folder = tmp_path / "checkpoints"
    (folder / ".step_000000002.pt.123.tmp").write_bytes(b"half")
    (folder / "step_000000002.pt").write_bytes(b"an orphan without its manifest")
    (folder / "best.safetensors").write_bytes(b"mine")
    (tmp_path / ".config.yaml.77.tmp").write_bytes(b"half")
    (tmp_path / "config.yaml").write_text("lr: 1")
    (tmp_path / ".notes.tmp").write_text("mine")
    claim(tmp_path, resume=True, overwrite=False)
    checkpoint(tmp_path, 3)
    stems = ("step_000000001", "step_000000003")
    parts = ("json", "pt", "safetensors")
    assert names(tmp_path) == ["best.safetensors"] + [f"{s}.{p}" for s in stems for p in parts]
    assert not (tmp_path / ".config.yaml.77.tmp").exists()
    assert (tmp_path / ".notes.tmp").exists()


def test_a_checkpoint_whose_writing_fails_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoint(tmp_path, 1)
    checkpoint(tmp_path, 2)
    before = {file: (tmp_path / "checkpoints" / file).read_bytes() for file in names(tmp_path)}
    replace, left = os.replace, 1

    def full(*paths):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*paths)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        checkpoint(tmp_path, 3)
    monkeypatch.undo()
    for name, data in before.items():
        assert (tmp_path / "checkpoints" / name).read_bytes() == data
    assert load_checkpoint(tmp_path)[1] == {"step": 2}  # without a warning: it was never whole
    checkpoint(tmp_path, 3)
    assert load_checkpoint(tmp_path)[1] == {"step": 3} and len(names(tmp_path)) == 6


def test_a_damaged_later_checkpoint_does_not_push_out_new_ones(tmp_path):
    for step in (900, 1000):
        checkpoint(tmp_path, step)
    for file in (tmp_path / "checkpoints").glob("*.pt"):
        file.write_bytes(b"damaged")
    for step in (1, 2, 3):  # started anew
        checkpoint(tmp_path, step)
    assert load_checkpoint(tmp_path)[1] == {"step": 3}
    assert len(names(tmp_path)) == 6


def row(step, split="train", **terms):
    return {"step": step, "epoch": step / 2, "seconds": 0.5, "split": split, "loss": 1.25, **terms}


def test_a_log_takes_new_columns_and_is_read_back(tmp_path):
    rows = [row(1, kl=0.1), row(2, **{"kl": 1e-17, "a, b": -3.0}), row(2, "validation")]
    log = Log(tmp_path)
    for each in rows:
        log.add(each)
        assert read_metrics(tmp_path) == log.rows  # at every moment, not only at the end
    log.close()
    assert read_metrics(tmp_path) == rows
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header == 'step,epoch,seconds,split,loss,kl,"a, b"'
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4
    again = Log(tmp_path, step=1)  # resumed from a checkpoint at step 1
    again.add(row(2, kl=7.0))
    again.close()
    assert read_metrics(tmp_path) == [rows[0], row(2, kl=7.0)] == again.rows
    Log(tmp_path).close()
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_line_cut_short_is_left_out(cut, tmp_path):
    log = Log(tmp_path)
    for step in (1, 2, 3):
        log.add(row(step, kl=0.123456789))
    log.close()
    file = tmp_path / "metrics.csv"
    file.write_bytes(file.read_bytes()[:-cut])
    found = read_metrics(tmp_path)
    assert found[:2] == [row(1, kl=0.123456789), row(2, kl=0.123456789)]
    resumed = Log(tmp_path, step=2)
    resumed.add(row(3, kl=0.5))
    resumed.close()
    assert read_metrics(tmp_path) == [*found[:2], row(3, kl=0.5)]


def test_metrics_that_are_no_table_are_reported(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="not readable"):
        assert read_metrics(tmp_path) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_metrics(tmp_path / "none") == []


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b"{", b"!!python/name:os.system"])
def test_what_cannot_be_read_is_one_line(content, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(content)
    for read in (read_json, read_yaml):
        with pytest.raises(ValueError) as error:
            read(file)
        assert str(file) in str(error.value) and "\n" not in str(error.value)
