"""A run killed at any moment and resumed ends with the bits of the run that was left alone."""

import contextlib
import errno
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import killable
import pytest
import torch

from ppgen import cli, load
from ppgen.run import load_checkpoint, locked, read_metrics

EVERYTHING = {
    "model": "Noisy",
    "steps": 14,
    "ema": 0.9,
    "clip_norm": 5.0,
    "checkpoint_seconds": 0.0,
    "objective": {"name": "ELBO", "kl_warmup": 10, "particles": 2},
}
VARIANTS = {
    "everything": EVERYTHING,
    "accumulated": EVERYTHING | {"accumulate": 3, "ema": 0.0, "weight_decay": 0.01},
    "plain": {"model": "VAE", "epochs": 3, "batch_size": 300, "checkpoint_seconds": 0.0},
    "adversarial": {"model": "Duel", "steps": 12, "batch_size": 16, "checkpoint_seconds": 0.0},
}


def train(out, options):
    with warnings.catch_warnings():  # forks and half-written files warn; the bits are what counts
        warnings.simplefilter("ignore")
        return killable.train(out, json.loads(json.dumps(options)))


def forked(work, stderr=os.devnull):
    """A process that does `work`, started in milliseconds; its status is what `work` returns."""

    def child():
        status = 70
        with open(stderr, "w") as file, contextlib.redirect_stderr(file):
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    status = work() or 0
            except BaseException:
                traceback.print_exc()
            file.flush()
        os._exit(status)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
    return process


def finish(out, options):
    """What a person does after a kill: resume, or start again where nothing was begun."""
    return train(out, options | {"resume": (out / "config.yaml").exists()})


def logged(metrics):
    keep = [{k: v for k, v in row.items() if k != "seconds"} for row in metrics]
    return [row for row in keep if row["split"] == "validation"], [
        (row["step"], row["split"]) for row in keep
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    found = {}

    def run(name):
        if name not in found:
            out = tmp_path_factory.mktemp("whole") / name
            program, metrics = train(out, VARIANTS[name])
            weights, state = load_checkpoint(out)
            found[name] = (killable.digest(program), logged(metrics), weights, state, out)
        return found[name]

    return run


def same(left, right):
    """Whether two nested states are equal bit for bit, but for the time that they took."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(
            same(left[key], right[key]) for key in left if key != "seconds"
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def check_equal(name, out, program, metrics, uninterrupted):
    digest, rows, weights, state, _ = uninterrupted(name)
    assert killable.digest(program) == digest
    assert logged(metrics) == rows
    assert logged(read_metrics(out)) == rows
    again, more = load_checkpoint(out)
    assert same(again, weights) and same(more, state)
    assert not list(out.rglob("*.tmp"))
    stems = {file.stem for file in (out / "checkpoints").iterdir()}
    assert len(stems) == 2 and len(list((out / "checkpoints").iterdir())) == 6


def killed_at(out, options, call, place):
    """A run that kills itself at the `call`-th file that it puts in place or takes away."""

    def work():
        count = 0

        def deadly(function, path_of):
            def wrapped(*args, **keywords):
                nonlocal count
                if not str(path_of(args)).startswith(str(out)):
                    return function(*args, **keywords)
                count += 1
                if count == call and place == "torn":
                    Path(args[0]).write_bytes(Path(args[0]).read_bytes()[:7])
                if count == call and place != "after":
                    os.kill(os.getpid(), signal.SIGKILL)
                result = function(*args, **keywords)
                if count == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return wrapped

        os.replace = deadly(os.replace, lambda args: args[1])
        os.unlink = deadly(os.unlink, lambda args: args[0])
        train(out, options)

    process = forked(work, out.parent / "errors")
    process.join()
    print((out.parent / "errors").read_text())
    return process.exitcode


@pytest.mark.parametrize(
    ("call", "place"),
    [(1, "torn"), (1, "after"), (2, "torn"), (2, "after"), (3, "after"), (4, "before"),
     (4, "after"), (5, "torn"), (6, "torn"), (6, "after"), (7, "after"), (11, "after"),
     (12, "before"), (13, "before"), (13, "after"), (14, "after"), (15, "after"), (17, "torn")],
)  # fmt: skip
def test_killed_at_any_write(call, place, tmp_path, uninterrupted):
    out = tmp_path / "run"
    options = VARIANTS["everything"]
    assert killed_at(out, options, call, place) == -signal.SIGKILL
    program, metrics = finish(out, options)
    check_equal("everything", out, program, metrics, uninterrupted)


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_at_random_moments(name, tmp_path, uninterrupted):
    out, options = tmp_path / "run", VARIANTS[name]
    draw = random.Random(name)
    for kill in range(3):
        begun = (out / "config.yaml").exists()

        def work(begun=begun):
            train(out, options | {"resume": begun})

        process = forked(work)
        # A number of checkpoints, then a moment that is anywhere in a step or in a write.
        wanted = f"step_{(1, 4, 8)[kill] + draw.randrange(3):09d}.json"
        while process.is_alive() and not (out / "checkpoints" / wanted).exists():
            time.sleep(0.0005)
        time.sleep(draw.random() * 0.02)
        process.kill()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
    program, metrics = finish(out, options)
    check_equal(name, out, program, metrics, uninterrupted)


def test_a_finished_run_resumed_stays_as_it_is_and_goes_further(tmp_path, uninterrupted):
    _, rows, weights, _, whole = uninterrupted("plain")
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    program, metrics = train(out, VARIANTS["plain"] | {"resume": True})
    check_equal("plain", out, program, metrics, uninterrupted)
    _, metrics = train(out, VARIANTS["plain"] | {"resume": True, "epochs": 4})
    assert logged(metrics)[1][: len(rows[1])] == rows[1]
    assert metrics[-1]["step"] == 20
    assert not same(load_checkpoint(out)[0], weights)


# Damage


def damage(file, how):
    data = file.read_bytes()
    if how == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "missing":
        file.unlink()
    else:
        file.write_bytes(data[: len(data) // 2] + b"\xff\x00" + data[len(data) // 2 + 2 :])


@pytest.fixture
def run_copy(tmp_path, uninterrupted):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted("plain")[-1], out)
    return out


@pytest.mark.parametrize("how", ["truncated", "corrupted", "empty", "missing"])
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "json"])
def test_a_damaged_checkpoint_is_reported_and_passed_over(suffix, how, run_copy, uninterrupted):
    newest = sorted((run_copy / "checkpoints").glob(f"*.{suffix}"))[-1]
    damage(newest, how)
    if (suffix, how) == ("json", "missing"):  # as a kill leaves it: never whole, so not damaged
        _, state = load_checkpoint(run_copy)
    else:
        with pytest.warns(UserWarning, match="step_000000015 .*damaged") as seen:
            _, state = load_checkpoint(run_copy)
        assert len(seen) == 1 and "\n" not in str(seen[0].message)
    assert state["step"] == 14
    program, metrics = finish(run_copy, VARIANTS["plain"])
    check_equal("plain", run_copy, program, metrics, uninterrupted)


def test_with_every_checkpoint_damaged_loading_refuses_and_resuming_starts_anew(
    run_copy, uninterrupted, capsys
):
    for file in (run_copy / "checkpoints").glob("*.pt"):
        damage(file, "truncated")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(ValueError) as refused:
        load(run_copy)
    assert "no whole checkpoint" in str(refused.value) and "\n" not in str(refused.value)
    # The damaged ones do not stand in the way of new ones: killed again, it has one to go on from.
    process = forked(lambda: train(run_copy, VARIANTS["plain"] | {"resume": True}))
    good = run_copy / "checkpoints" / "step_000000004.json"
    while process.is_alive() and not good.exists():
        time.sleep(0.0005)
    process.kill()
    process.join()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_checkpoint(run_copy)
    assert found is not None and 3 <= found[1]["step"] < 15
    program, metrics = finish(run_copy, VARIANTS["plain"])
    check_equal("plain", run_copy, program, metrics, uninterrupted)


# A full disk


@pytest.mark.parametrize("writes", [1, 3, 5, 9, 14])
def test_a_full_disk_stops_with_one_line_and_keeps_the_last_good_checkpoint(
    writes, tmp_path, monkeypatch, capsys
):
    out, left = tmp_path / "run", writes
    sync = os.fsync

    def full(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    words = ["train", "--model", "VAE", "--model.latent_dim", "2", "--model.hidden", "[16]"]
    words += ["--data", "digits", "--binarize", "static", "--batch_size", "300", "--epochs", "3"]
    words += ["--checkpoint_seconds", "0", "--progress", "false", "--out", str(out)]
    monkeypatch.setattr(os, "fsync", full)
    assert cli.main(words) == 1
    monkeypatch.undo()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "No space left" in error
    assert not list(out.rglob("*.tmp"))
    whole = sorted((out / "checkpoints").glob("*.json"))
    assert len(whole) == {1: 0, 3: 0, 5: 0, 9: 2, 14: 2}[writes] or writes in (5, 9, 14)
    if whole:
        assert load_checkpoint(out)[1]["step"] == int(re.sub(r"\D", "", whole[-1].stem))
    resumed = [*words[:1], "--resume", "--out", str(out)]
    assert cli.main(resumed) == 0, capsys.readouterr().err
    other = tmp_path / "other"
    assert cli.main([*words[:-1], str(other)]) == 0
    assert same(load_checkpoint(out)[0], load_checkpoint(other)[0])


def test_a_full_disk_as_the_system_reports_it(tmp_path, uninterrupted):
    """RLIMIT_FSIZE: the operating system itself refuses to write further."""
    resource = pytest.importorskip("resource")
    out = tmp_path / "run"
    shutil.copytree(uninterrupted("plain")[-1], out)
    before = load_checkpoint(out)
    largest = max(file.stat().st_size for file in (out / "checkpoints").iterdir())

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2,) * 2)
        train(out, VARIANTS["plain"] | {"resume": True, "epochs": 5})

    process = forked(work, tmp_path / "errors")
    process.join()
    assert process.exitcode == 70
    assert "OSError: [Errno 27] File too large" in (tmp_path / "errors").read_text()
    assert not list(out.rglob("*.tmp"))
    assert same(load_checkpoint(out)[0], before[0])


# Pickles: a file of a run executes nothing


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def plant(file, marker, how):
    if how == "pickle":
        file.write_bytes(pickle.dumps(Payload(marker)))
        pickle.loads(file.read_bytes())
    else:
        torch.save(
            {"step": 15, "w": Payload(marker)}, buffer := io.BytesIO(),
            _use_new_zipfile_serialization=how == "torch",
        )  # fmt: skip
        file.write_bytes(buffer.getvalue())
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert marker.exists()  # the payload works, if only anything unpickles it
    marker.unlink()


def forge(file):
    """Make the manifest agree with the planted file."""
    manifest = file.with_suffix(".json")
    content = json.loads(manifest.read_text())
    content["sha256"][file.suffix[1:]] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content))


def commands(out, tmp_path):
    return {
        "evaluate": ["evaluate", str(out), "--particles", "2", "--limit", "10"],
        "sample": ["sample", str(out), "--n", "4", "--out", str(tmp_path / "x.npz")],
        "report": ["report", str(out)],
        "resume": ["train", "--resume", "--out", str(out), "--epochs", "4", "--progress", "false"],
    }


@pytest.fixture(scope="module")
def by_command(tmp_path_factory):
    """A run made by the command, with its evaluation, two checkpoints in it."""
    out = tmp_path_factory.mktemp("command") / "run"
    words = ["train", "--model", "VAE", "--model.latent_dim", "2", "--model.hidden", "[16]"]
    words += ["--data", "digits", "--binarize", "static", "--batch_size", "300", "--epochs", "3"]
    words += ["--checkpoint_seconds", "0", "--progress", "false", "--sample_epochs", "0"]
    assert cli.main([*words, "--out", str(out)]) == 0
    assert cli.main(["evaluate", str(out), "--particles", "2", "--limit", "10"]) == 0
    return out


@pytest.mark.parametrize(
    ("name", "how"),
    [("config.yaml", "pickle"), ("run.json", "pickle"), ("metrics.csv", "pickle"),
     ("evaluation.json", "pickle"), ("checkpoints/step_000000015.json", "pickle"),
     ("checkpoints/step_000000015.safetensors", "pickle"),
     ("checkpoints/step_000000015.safetensors", "pickle, forged"),
     ("checkpoints/step_000000015.safetensors", "torch, forged"),
     ("checkpoints/step_000000015.pt", "torch"),
     ("checkpoints/step_000000015.pt", "pickle, forged"),
     ("checkpoints/step_000000015.pt", "torch, forged"),
     ("checkpoints/step_000000015.pt", "legacy, forged")],
)  # fmt: skip
def test_a_planted_pickle_executes_nothing(name, how, by_command, tmp_path, capsys):
    marker = tmp_path / "executed"
    refused = set()
    for command in ("load", "evaluate", "sample", "report", "resume"):
        place = tmp_path / command
        out = place / "run"
        shutil.copytree(by_command, out)
        plant(out / name, marker, how.split(",")[0])
        if "forged" in how:
            forge(out / name)
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            if command == "load":
                warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)
                try:
                    load(out)
                    status = 0
                except ValueError as error:
                    status = 2
                    print(f"ppgen: {error}", file=sys.stderr)
            else:
                status = cli.main(commands(out, place)[command])
        lines = [  # without the progress bar
            line
            for line in capsys.readouterr().err.splitlines()
            if line and "evaluating" not in line
        ]
        assert not marker.exists(), command
        assert status in (0, 2), (command, lines)
        assert len(lines) <= 1 and (status == 0 or lines), (command, lines)
        if status:
            refused.add(command)
    by_name = {"config.yaml": 5, "run.json": 5, "evaluation.json": 1, "metrics.csv": 0}
    assert len(refused) == by_name.get(name, 0), refused


def test_a_forged_state_that_is_no_state_is_refused_in_one_line(by_command, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(by_command, out)
    for file in (out / "checkpoints").glob("*.pt"):
        torch.save({"step": 15}, file)
        forge(file)
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        status = cli.main(commands(out, tmp_path)["resume"])
    error = capsys.readouterr().err
    assert status == 2 and "has no generators: train again" in error
    assert error.count("\n") == 1


def test_a_resumed_run_keeps_its_settings(tmp_path):
    """In the library as in the command: another batch size would be another run."""
    out = tmp_path / "run"
    train(out, VARIANTS["plain"])
    with pytest.raises(ValueError, match="batch_size"):
        train(out, VARIANTS["plain"] | {"resume": True, "batch_size": 7})
    with pytest.raises(ValueError, match="more than"):
        train(out, VARIANTS["plain"] | {"resume": True, "epochs": 1})
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
    train(out, VARIANTS["plain"] | {"resume": True})  # it is complete: nothing is done or written
    assert before == {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}


def test_one_run_is_written_by_one_process(tmp_path):
    out = tmp_path / "run"
    train(out, VARIANTS["plain"])
    unfinished = out / "checkpoints" / "step_000000099.safetensors"
    unfinished.write_bytes(b"being written")
    before = sorted(out.rglob("*"))
    for how in ({"resume": True}, {"overwrite": True}):
        with locked(out), pytest.raises(ValueError, match="another process"):
            train(out, VARIANTS["plain"] | how | {"epochs": 5})
        assert sorted(out.rglob("*")) == before  # nor is anything of it cleared
    train(out, VARIANTS["plain"] | {"resume": True, "epochs": 5})


def test_a_line_cut_short_is_no_row(tmp_path):
    out = tmp_path / "run"
    train(out, VARIANTS["plain"])
    rows = read_metrics(out)
    table = out / "metrics.csv"
    table.write_bytes(table.read_bytes()[:-4])
    assert read_metrics(out) == rows[:-1]


def test_a_kill_before_old_checkpoints_are_cleared(tmp_path):
    """The last write of all was whole: resuming finds the run complete, and clears what is left."""
    out = tmp_path / "run"
    train(out, VARIANTS["plain"] | {"checkpoint_seconds": 0.0})
    newest = sorted((out / "checkpoints").glob("*.json"))[-1]
    for file in (out / "checkpoints").glob(f"{newest.stem}.*"):
        shutil.copy(file, file.with_name(file.name.replace(newest.stem, "step_000000001")))
    (out / "checkpoints" / "step_000000002.pt").write_bytes(b"orphan")
    before = load_checkpoint(out)
    train(out, VARIANTS["plain"] | {"resume": True})
    assert len(list((out / "checkpoints").iterdir())) == 6
    assert same(load_checkpoint(out), before)
