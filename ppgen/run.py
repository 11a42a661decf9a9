"""A run directory: configuration, checkpoints, metrics; written whole or not at all.

    config.yaml        what was asked; `ppgen train --config` reads it
    run.json           what was found: format, versions, data set, hardware
    checkpoints/       step_N.safetensors (weights), step_N.pt (state), step_N.json (checksums)
    metrics.csv        a row a logged step
    tensorboard/       the same for TensorBoard
    samples/           pictures as training goes on
    evaluation.json, report.html, figures/

Nothing read from here is executed: weights are safetensors, the resumable state is loaded with
`weights_only=True`, configurations with the safe YAML loader, and classes come from this package
or from the caller.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor, nn

from .data import Dataset

FORMAT = 1
KEEP = 2
# What may differ when a run is resumed; with anything else it would be another run.
RESUMABLE = {"epochs", "steps", "device", "progress", "checkpoint_seconds"}
RESUMABLE |= {"validate_epochs", "sample_epochs"}
OURS = ("config.yaml", "run.json", "metrics.csv", "evaluation.json", "report.html")
OUR_FOLDERS = ("checkpoints", "tensorboard", "samples", "figures")
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError)


@dataclass
class Run:
    """A training run, on disk or in memory.

    Attributes:
        program: the trained module, on the device it was trained on.
        dataset: the data, where they are at hand.
        config: the saved configuration.
        info: `run.json`: versions, hardware, the data set's shape, training time.
        metrics: logged rows: step, epoch, seconds, split, loss, terms by title; nats per example.
        path: the run directory; None for a run in memory.
    """

    program: nn.Module
    dataset: Dataset | None = None
    config: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    path: Path | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.info["data"]["shape"])

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """`evaluation.json`, or None where the run was not evaluated yet, or trained on since."""
        if self.path is None or not (self.path / "evaluation.json").exists():
            return None
        found = read_json(self.path / "evaluation.json")
        stale = "step" in found and found["step"] != self.info.get("steps")
        return None if stale else found

    def __repr__(self) -> str:
        last = next((row for row in reversed(self.metrics) if row["split"] == "validation"), None)
        figure = f", validation {last['loss']:.2f} nats at step {last['step']}" if last else ""
        where = f" in {self.path}" if self.path else ""
        return f"Run({type(self.program).__name__}{where}{figure})"


# Files ----------------------------------------------------------------------------------------


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary file beside it, flushed, then renamed.

    Raises:
        OSError: the disk is full, say; the old file is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: the file is not one, in one line.
    """
    try:
        content = json.loads(path.read_bytes().decode())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not readable as JSON ({_line(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file, by the safe loader.

    Raises:
        ValueError: the file is not one, in one line.
    """
    try:
        content = yaml.safe_load(path.read_bytes().decode())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not readable as YAML ({_line(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a YAML mapping")
    return content


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# The directory --------------------------------------------------------------------------------


def check_claim(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that a run may be written to `path`; changes nothing.

    Raises:
        ValueError: there is something there already, or nothing to resume.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other")
    if resume:
        if not (path / "config.yaml").exists():
            raise ValueError(f"{path} holds no run to resume (no config.yaml there)")
        if (path / "run.json").exists():  # written second: a kill may have come between
            check_format(path)
    elif path.exists() and not _without_results(path):
        if not overwrite:
            raise ValueError(
                f"{path} exists: go on with --resume (resume=True), replace it with --overwrite "
                "(overwrite=True), or choose another place"
            )
        if not path.is_dir() or not any((path / name).exists() for name in OURS):
            raise ValueError(f"{path} is not a run directory: it is not overwritten")


def claim(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Take `path` for a run, clearing an old one where that was asked for; see `check_claim`."""
    check_claim(path, resume=resume, overwrite=overwrite)
    if overwrite:
        for name in OURS:
            (path / name).unlink(missing_ok=True)
        for name in OUR_FOLDERS:
            shutil.rmtree(path / name, ignore_errors=True)
    path.mkdir(parents=True, exist_ok=True)
    # A kill may have come between the writing of a checkpoint and the end of older ones.
    checkpoints = path / "checkpoints"
    _prune(checkpoints, [file.stem for file in checkpoints.glob("step_*.json")])
    for folder in (path, path / "checkpoints", path / "samples", path / "figures"):
        for file in filter(_left_over, folder.glob(".*.tmp")):
            file.unlink(missing_ok=True)


def _left_over(file: Path) -> bool:
    """Whether a killed process left a file of `write_atomically`, or its lock, behind."""
    return re.fullmatch(r"\..+\.\d+\.tmp|\.lock", file.name) is not None


def _without_results(path: Path) -> bool:
    """Whether a folder is empty, or holds a run that ended before its first figures."""
    if not path.is_dir():
        return False
    if all(map(_left_over, path.iterdir())):
        return True
    known = {*OURS, *OUR_FOLDERS}
    strange = any(f.name not in known and not _left_over(f) for f in path.iterdir())
    checkpoints = path / "checkpoints"
    begun = checkpoints.is_dir() and any(checkpoints.iterdir())
    table = path / "metrics.csv"
    begun |= table.exists() and len(table.read_bytes().split()) > 0
    return (path / "run.json").exists() and not (strange or begun)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run directory: no other process may write the same run meanwhile.

    Raises:
        ValueError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # not a Unix
        yield
        return
    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another process is writing the run in {path}") from None
        try:
            yield
        finally:
            (path / ".lock").unlink(missing_ok=True)


def check_format(path: Path) -> dict[str, Any]:
    """The run's `run.json`, refused where a newer version of ppgen wrote it."""
    if not path.is_dir():
        raise ValueError(f"{path} is not a run directory")
    if not (path / "run.json").exists():
        raise ValueError(f"{path} is not a run directory (no run.json there)")
    info = read_json(path / "run.json")
    if not isinstance(info.get("format"), int) or not isinstance(info.get("data"), dict):
        raise ValueError(f"{path / 'run.json'} is not that of a run (no format or data in it)")
    if info["format"] > FORMAT:
        raise ValueError(
            f"{path} was written by a newer ppgen ({info.get('ppgen')}, format {info['format']}; "
            f"this one reads up to {FORMAT}): upgrade ppgen to read it"
        )
    return info


# Weights and checkpoints ----------------------------------------------------------------------


def pack_weights(state: dict[str, Tensor]) -> bytes:
    """A state dict as safetensors; tensors that share memory are stored once and named so."""
    kept: dict[tuple, str] = {}
    tied: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in kept:
            tied[name] = kept[key]
        else:
            kept[key] = name
            tensors[name] = tensor.detach().cpu().contiguous().clone()
    return safetensors.torch.save(tensors, metadata={"tied": json.dumps(tied)})


def unpack_weights(data: bytes) -> dict[str, Tensor]:
    """The state dict in the bytes of a safetensors file, tied names filled in."""
    state = safetensors.torch.load(data)
    length = int.from_bytes(data[:8], "little")  # of the JSON header that follows
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    for name, source in json.loads(metadata.get("tied", "{}")).items():
        state[name] = state[source]
    return state


def save_checkpoint(path: Path, step: int, weights: dict[str, Tensor], state: dict) -> None:
    """Write a checkpoint; its manifest comes last, so that a torn one is never taken for whole."""
    folder = path / "checkpoints"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    parts = {"safetensors": pack_weights(weights), "pt": buffer.getvalue()}
    stem = f"step_{step:09d}"
    for suffix, data in parts.items():
        write_atomically(folder / f"{stem}.{suffix}", data)
    sums = {suffix: hashlib.sha256(data).hexdigest() for suffix, data in parts.items()}
    write_json(folder / f"{stem}.json", {"step": step, "sha256": sums})
    # Later ones were damaged, or this run would have gone on from them.
    _prune(folder, [file.stem for file in folder.glob("step_*.json") if file.stem <= stem])


def _prune(folder: Path, stems: list[str]) -> None:
    """Keep the last of some checkpoints, and nothing of any other."""
    kept = sorted(stems)[-KEEP:]
    for file in sorted(folder.glob("step_*")):  # .json before its .pt and .safetensors
        if file.stem not in kept:
            file.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict] | None:
    """The newest whole checkpoint, as (weights, state); None where there is none.

    Damaged ones are reported by a warning and passed over.
    """
    for manifest in sorted((path / "checkpoints").glob("step_*.json"), reverse=True):
        try:
            sums = read_json(manifest)["sha256"]
            parts = {}
            for suffix in ("safetensors", "pt"):
                parts[suffix] = manifest.with_suffix(f".{suffix}").read_bytes()
                if hashlib.sha256(parts[suffix]).hexdigest() != sums[suffix]:
                    raise ValueError(f"the checksum of {manifest.stem}.{suffix} does not match")
            return unpack_weights(parts["safetensors"]), _unpack_state(parts["pt"], manifest.stem)
        except (*UNREADABLE, SafetensorError) as error:
            warnings.warn(
                f"checkpoint {manifest.stem} in {path} is damaged and passed over ({_line(error)})",
                stacklevel=2,
            )
    return None


def _unpack_state(data: bytes, stem: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of other pickle protocols
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (*UNREADABLE, pickle.UnpicklingError):  # torch's text advises to execute the file
        raise ValueError(f"{stem}.pt holds other things than tensors and plain values") from None
    if not isinstance(state, dict):
        raise ValueError(f"{stem}.pt does not hold a checkpoint")
    return state


# Metrics --------------------------------------------------------------------------------------


class Log:
    """Rows of figures: kept in memory, and in metrics.csv and TensorBoard where there is a path.

    Args:
        path: the run directory, or None.
        step: keep the rows of the file up to this step (a resumed run); None starts anew.
    """

    def __init__(self, path: Path | None, step: int | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.columns: list[str] = []
        self.file: Any = None
        self.board: Any = None
        self.path = path
        if path is None:
            return
        if step is not None:
            self.rows = [row for row in read_metrics(path) if row["step"] <= step]
        self._rewrite()
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.board = SummaryWriter(
            path / "tensorboard", purge_step=None if step is None else step + 1
        )

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.path is None:
            return
        if set(row) <= set(self.columns):
            csv.DictWriter(self.file, self.columns).writerow(row)
            self.file.flush()
        else:
            self._rewrite()
        for title, value in row.items():
            if title not in ("step", "epoch", "split") and not isinstance(value, str):
                self.board.add_scalar(f"{row['split']}/{title}", value, row["step"])

    def _rewrite(self) -> None:
        """A new column changes the header, so the file is written again, whole."""
        if self.path is None:
            return
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(self.rows)
        if self.file is not None:
            self.file.close()
        write_atomically(self.path / "metrics.csv", text.getvalue().encode())
        self.file = open(self.path / "metrics.csv", "a", newline="")  # noqa: SIM115

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.csv, numbers as numbers; a line cut short by a kill is left out."""
    file = path / "metrics.csv"
    if not file.exists():
        return []
    try:
        text = file.read_bytes().decode()
        text = text[: text.rfind("\n") + 1]  # the rest was cut short
        lines = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, ValueError, csv.Error) as error:
        warnings.warn(f"{file} is not readable and is left out ({_line(error)})", stacklevel=2)
        return []
    rows = []
    for line in lines:
        try:
            row: dict[str, Any] = {
                key: value if key == "split" else float(value)
                for key, value in line.items()
                if value not in (None, "")
            }
            rows.append(row | {"step": int(row["step"]), "split": str(row["split"])})
        except (ValueError, KeyError, TypeError):
            continue
    return rows
