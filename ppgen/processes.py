"""Signals, and training on several processes."""

import builtins
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessException

from .run import Run

Train = Callable[..., None]
WEIGHTS, REST = "weights.pt", "rest.json"  # what a launch brings back


@contextlib.contextmanager
def _on_signals(handle: Callable[[int, Any], None]) -> Iterator[dict[int, Any]]:
    """Handle Ctrl-C and SIGTERM for a while; the handlers of before are yielded, and put back."""
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    wanted = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in wanted}
    try:
        for number in before:
            signal.signal(number, handle)
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


class Stop:
    """Ctrl-C and SIGTERM ask the loop to save and end; a second one ends at once."""

    def __init__(self) -> None:
        self.signal = 0
        self.moment = 0.0
        self.before: dict[int, Any] = {}

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        with _on_signals(self._note) as self.before:
            yield

    def _note(self, number: int, frame: Any) -> None:
        if not self.signal:
            self.signal, self.moment = number, time.monotonic()
        elif time.monotonic() - self.moment > 1:  # else the same one, sent on by a parent
            signal.signal(number, self.before[number] or signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def leave(self) -> None:
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt("training was interrupted")
        if self.signal:
            raise SystemExit(128 + self.signal)


def find_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is one.

    Raises:
        ValueError: no such name, or a device that is absent here.
    """
    kind, colon, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or bool(colon) != index.isdigit():
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps; got {name!r}")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for and no CUDA device is available here")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' was asked for and is not available here")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} was asked for; there are {torch.cuda.device_count()}")
    return torch.device(kind, int(index)) if index else torch.device(kind)


def is_child() -> bool:
    """Whether another process of the same launch has already claimed the run directory."""
    return under_torchrun() and int(os.environ.get("RANK", "0")) > 0


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def strategy(unused: bool) -> Any:
    from lightning.fabric.strategies import DDPStrategy

    # Under torchrun the processes are there already; otherwise they are spawned from here.
    method: Any = "popen" if under_torchrun() else "spawn"
    return DDPStrategy(start_method=method, find_unused_parameters=unused)


def launch(fabric: Any, train: Train, job: tuple) -> Run:
    """Run ``train(fabric, *job, stop)`` on every process of a launch; the run is `job[0]`."""
    run: Run = job[0]
    stop = Stop()
    if fabric.world_size == 1 or under_torchrun():
        fabric.launch()
        with stop.listening():
            train(fabric, *job, stop)
        stop.leave()
        return run
    log = logging.getLogger("torch.multiprocessing.spawn")
    level = log.level
    log.setLevel(logging.ERROR)  # of the processes that it ends when one has failed
    # What was learned comes back by files: Fabric reads what a process returns only after it has
    # ended, and a process cannot end while a pipe is full of what nobody reads.
    with tempfile.TemporaryDirectory(prefix="ppgen-") as folder:
        try:
            with _on_signals(_forward):
                stop.signal = fabric.launch(_child, _Sent(train, job, Path(folder)))
        except (RuntimeError, ProcessException) as error:
            raise _in_words(error) from error
        finally:
            log.setLevel(level)
        weights = torch.load(Path(folder) / WEIGHTS, weights_only=True)
        rest = json.loads((Path(folder) / REST).read_text())
    run.program.load_state_dict(weights)
    run.program.eval()
    run.metrics, run.info = rest["metrics"], rest["info"]
    stop.leave()
    return run


def _in_words(error: Exception) -> Exception:
    """The error of a launched process as if it had been raised here."""
    text = str(error).strip()
    if "bootstrapping phase" in text or text.endswith("terminated with exit code 1"):
        return RuntimeError(
            "training on several devices starts processes that import your script again: "
            "call fit under `if __name__ == '__main__':`"
        )
    if "terminated with the following error" not in text:
        return RuntimeError(text)
    kind, _, what = text.splitlines()[-1].partition(": ")
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, Exception):
        return known(what)
    return RuntimeError(f"{kind}: {what}" if what else kind)


class _Sent:
    """A job on its way to another process, where Fabric is not to look into it."""

    def __init__(self, train: Train, job: tuple, folder: Path) -> None:
        self.train, self.job, self.folder = train, job, folder


def _child(fabric: Any, sent: _Sent) -> int:
    """What each spawned process runs; rank 0 writes the result, and its signal is the launch's."""
    train, job = sent.train, sent.job
    run = job[0]
    for module in (run.program, *job[1].values()):  # spawning has put them in shared memory
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.clone()
    stop = Stop()
    with stop.listening():
        train(fabric, *job, stop)
    if fabric.global_rank == 0:
        weights = {name: value.cpu() for name, value in run.program.state_dict().items()}
        torch.save(weights, sent.folder / WEIGHTS)
        rest = {"metrics": run.metrics, "info": run.info}
        (sent.folder / REST).write_text(json.dumps(rest))
    return stop.signal


def _forward(number: int, frame: Any) -> None:
    """Pass SIGTERM and Ctrl-C on to the spawned processes, which save and return."""
    for child in multiprocessing.active_children():
        if child.pid is not None:
            os.kill(child.pid, number)
