"""Training on two processes (gloo, on the CPU): the same numbers, one writer, clean ends."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import killable
import pytest
import torch

from ppgen.loop import Batches
from ppgen.run import load_checkpoint, read_json, read_metrics

TESTS = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"
)
# Batches of 15, 15, 15 and 1: an odd one is shared 8 to 7, a single one 1 to 0.
QUIET = {
    "model": "Quiet", "examples": 46, "batch_size": 15, "epochs": 3, "lr": 0.05,
    "objective": {"name": "Draws"}, "compile": "none",
}  # fmt: skip
CLI = [
    "train", "--model", "killable.Noisy", "--data", "digits", "--binarize", "dynamic", "--ema",
    "0.9", "--sample_epochs", "0", "--progress", "false", "--batch_size", "256",
]  # fmt: skip


def start(*words):
    return subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=ENVIRONMENT, cwd=TESTS,
    )  # fmt: skip


def complaints(process):
    """What a process says on stderr, without Lightning's announcement of the processes."""
    _, error = process.communicate(timeout=120)
    announced = ("Initializing distributed", "-----", "distributed_backend", "All distributed")
    lines = [line for line in error.splitlines() if line and not line.startswith(announced)]
    return "".join(f"{line}\n" for line in lines)


def script(out, options):
    process = start(sys.executable, TESTS / "killable.py", out or "", json.dumps(options))
    printed, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return json.loads(printed.splitlines()[-1]), printed


@pytest.mark.parametrize(("n", "size", "world"), [(46, 15, 2), (33, 16, 2), (7, 3, 4), (5, 5, 3)])
def test_shares_of_a_batch_add_up_to_it(n, size, world):
    split = killable.points(n).train
    whole = Batches(split, size, seed=3)
    parts = [Batches(split, size, 3, rank, world) for rank in range(world)]
    for number in range(2 * whole.per_epoch):
        (x,), weight = whole(number)
        found = [part(number) for part in parts]
        assert weight == 1 and sum(share for _, share in found) == pytest.approx(world)
        # The mean over processes of share * mean loss is the mean loss of the whole batch.
        mean = sum(share * mine.mean(0) for (mine,), share in found) / world
        torch.testing.assert_close(mean, x.mean(0))
        assert all(len(mine) > 0 for (mine,), _ in found)


def test_two_processes_are_one_whole_batch_with_noise_of_their_own(tmp_path, capsys):
    program, metrics = killable.train(None, json.loads(json.dumps(QUIET)))
    capsys.readouterr()
    out = tmp_path / "run"
    found, printed = script(out, QUIET | {"devices": 2})
    for name, value in program.state_dict().items():
        torch.testing.assert_close(torch.tensor(found["weights"][name]), value, rtol=0, atol=1e-5)
    assert found["steps"] == 12
    # The saved weights are the returned ones, and one process alone wrote them.
    for name, value in load_checkpoint(out)[0].items():
        assert torch.equal(torch.tensor(found["weights"][name]), value)
    assert len(load_checkpoint(out)[1]["generators"]) == 2
    rows = [(row["step"], row["split"]) for row in read_metrics(out)]
    assert rows == [(row["step"], row["split"]) for row in metrics]
    held_out = [[r["loss"] for r in m if r["split"] == "validation"]
                for m in (read_metrics(out), metrics)]  # fmt: skip
    assert held_out[0] == pytest.approx(held_out[1], abs=1e-4)
    assert len(list((out / "tensorboard").iterdir())) == 1
    # 12 steps on two processes, no draw twice; three validations begin from the seed itself.
    draws = re.findall(r"draw ([\d.]+)", printed)
    assert len(draws) == 2 * 12 + 3 and len(set(draws)) == 2 * 12


def test_two_objectives_that_share_modules_train_on_two_processes(tmp_path):
    options = {"model": "Duel", "examples": 64, "batch_size": 16, "steps": 10}
    found, _ = script(tmp_path / "run", options | {"devices": 2})
    torch.manual_seed(0)
    start_of = killable.Duel((3,)).state_dict()
    for name, value in found["weights"].items():  # both players moved
        assert not torch.equal(torch.tensor(value), start_of[name]), name
    assert set(found["train"]) >= {"critic/loss", "critic/real", "generator/loss"}
    assert len(load_checkpoint(tmp_path / "run")[1]["optimizers"]) == 2


def test_the_command_on_two_processes_stops_and_resumes_to_the_same_bits(tmp_path):
    words = [*CLI, "--devices", "2", "--steps", "200", "--out"]
    command = [sys.executable, "-m", "ppgen.cli"]
    out, whole = tmp_path / "run", tmp_path / "whole"
    process = start(*command, *words, out)
    while process.poll() is None and len(read_metrics(out)) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    error = complaints(process)
    assert process.returncode == 143, error
    assert error.count("\n") == 1 and "--resume goes on" in error, error
    step = load_checkpoint(out)[1]["step"]
    assert 6 <= step < 200 and read_json(out / "run.json")["steps"] == step
    resume = ["train", "--resume", "--out", out, "--model", "killable.Noisy"]
    for arguments in ([*words, whole], resume):
        process = start(*command, *arguments)
        error = complaints(process)
        assert process.returncode == 0 and not error, error
    (left, one), (right, two) = load_checkpoint(out), load_checkpoint(whole)
    assert one["step"] == two["step"] == 200
    assert all(torch.equal(left[name], right[name]) for name in right)
    for mine, other in zip(one["generators"], two["generators"], strict=True):
        assert torch.equal(mine["torch"], other["torch"])
    assert not torch.equal(two["generators"][0]["torch"], two["generators"][1]["torch"])


def test_a_failure_in_one_process_is_one_line(tmp_path):
    words = [*CLI, "--devices", "2", "--steps", "20", "--lr", "1e30", "--warmup_steps", "0"]
    process = start(sys.executable, "-m", "ppgen.cli", *words, "--out", tmp_path / "run")
    error = complaints(process)
    assert process.returncode == 1, error
    assert "the loss is not finite at step" in error and "Traceback" not in error, error
    assert error.count("\n") == 1, error


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    file = tmp_path / "unguarded.py"
    file.write_text(
        "import killable\n"
        f"killable.train({str(tmp_path / 'run')!r}, {json.dumps(QUIET | {'devices': 2})})\n"
    )
    process = start(sys.executable, file)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    last = error.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: training on several devices")
    assert "call fit under `if __name__ == '__main__':`" in last


def test_torchrun_starts_the_processes(tmp_path):
    out = tmp_path / "run"
    process = start(
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_addr",
        "127.0.0.1", "--master_port", 29517, TESTS / "killable.py", out,
        json.dumps(QUIET | {"devices": 2}),
    )  # fmt: skip
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    program, metrics = killable.train(None, json.loads(json.dumps(QUIET)))
    for name, value in load_checkpoint(out)[0].items():
        torch.testing.assert_close(value, program.state_dict()[name], rtol=0, atol=1e-5)
    rows = [(row["step"], row["split"]) for row in read_metrics(out)]
    assert rows == [(row["step"], row["split"]) for row in metrics]


def test_a_run_is_resumed_on_as_many_processes(tmp_path):
    options = {"model": "Quiet", "steps": 2, "batch_size": 16}
    killable.train(tmp_path / "run", dict(options))
    file = sorted((tmp_path / "run" / "checkpoints").glob("*.pt"))[-1]
    state = torch.load(file, weights_only=True)
    state["generators"] = state["generators"] * 2
    torch.save(state, file)
    manifest = read_json(file.with_suffix(".json"))
    manifest["sha256"]["pt"] = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_suffix(".json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="trained on 2 processes; resume it on as many"):
        killable.train(tmp_path / "run", options | {"resume": True, "steps": 4})
