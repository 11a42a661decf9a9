"""Rows of evidence in, rows of answers out: files of any length, read and written in chunks."""

import contextlib
import csv
import gzip
import io
import itertools
import math
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from graphs.names import unknown

BLOCK = 2**20  # cells that are held at once
ENDINGS = (".csv", ".csv.gz", ".parquet")
TEXT, NUMBER, FLAG = "text", "number", "flag"
Write = Callable[[Sequence[Sequence[Any]]], None]  # columns of equal length; None is an empty cell


@dataclass(frozen=True)
class Source:
    """A file of rows."""

    path: Path
    columns: list[str]
    types: dict[str, Any]  # Arrow's type of each column of a .parquet file; none of a CSV file
    chunks: Callable[[int], Iterator[list[Sequence[Any]]]]  # that many rows at a time, by column
    share: Callable[[], float]  # how much of the file was read, 0 to 1


@contextlib.contextmanager
def open_rows(path: Path) -> Iterator[Source]:
    """Open a .csv, .csv.gz or .parquet file of rows, its first line naming the columns.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another ending, a broken file, a column twice, .parquet without pyarrow.
    """
    ending = ending_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    with _parquet(path) if ending == ".parquet" else _csv(path) as source:
        twice = [name for name in source.columns if source.columns.count(name) > 1]
        if twice:
            raise ValueError(f"{path} has the column {twice[0]!r} twice")
        yield source


def ending_of(path: Path) -> str:
    """The ending of a file of rows.

    Raises:
        ValueError: none of those that can be read and written.
    """
    found = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    if found is None:
        raise ValueError(f"{str(path)!r} must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    return found


def new_file(path: str | Path, overwrite: bool) -> Path:
    """A path that can be written, refused where there is a file already.

    Raises:
        ValueError: it exists and is not to be overwritten, or is a folder.
        FileNotFoundError: no folder to write in.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file to write")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: choose another name or add --overwrite")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(path.parent)!r} to write {path.name!r} in")
    return path


def output(path: str | None, overwrite: bool) -> Path | None:
    """The file for rows that was asked for, None for standard output.

    Raises:
        ValueError, FileNotFoundError: as `ending_of` and `new_file` do.
    """
    if path is None:
        return None
    ending_of(Path(path))
    return new_file(path, overwrite)


@contextlib.contextmanager
def _csv(path: Path) -> Iterator[Source]:
    size = path.stat().st_size
    with open(path, "rb") as raw:
        plain: Any = gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw
        with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text:
            records = _records(path, text)
            header = next(records, None)
            if header is None:
                raise ValueError(f"{path} is empty: its first line must name the columns")

            def chunks(rows: int) -> Iterator[list[Sequence[Any]]]:
                while chunk := list(itertools.islice(records, rows)):
                    yield list(zip(*chunk, strict=True))

            yield Source(path, header, {}, chunks, lambda: raw.tell() / max(size, 1))


def _records(path: Path, text: io.TextIOWrapper) -> Iterator[list[str]]:
    """The rows of a CSV file. No row is skipped or filled up: a cut one would look unobserved."""
    reader = csv.reader(text, strict=True)
    width = blank = 0
    try:
        for record in reader:
            if not record:
                blank = blank or reader.line_num
                continue
            if blank:  # at the end of the file blank lines do no harm
                raise ValueError(f"{path}, line {blank}: blank, between lines that are not")
            width = width or len(record)
            if len(record) != width:
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(record)} cells, where the header has "
                    f"{width} columns"
                )
            yield record
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; convert the file to UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error})") from None


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Source]:
    arrow = _pyarrow(path)
    try:
        file = arrow.parquet.ParquetFile(path)
    except (arrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a whole parquet file ({error})") from None
    done = 0

    def chunks(rows: int) -> Iterator[list[Sequence[Any]]]:
        nonlocal done
        for batch in file.iter_batches(batch_size=rows):
            done += batch.num_rows
            yield [column.to_pylist() for column in batch.columns]

    with file:
        schema = file.schema_arrow
        types = dict(zip(schema.names, schema.types, strict=True))
        total = max(file.metadata.num_rows, 1)
        yield Source(path, schema.names, types, chunks, lambda: done / total)


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ValueError(
            f"{path}: .parquet files need pyarrow (pip install pyarrow); .csv and .csv.gz do not"
        ) from None
    return pyarrow


# Cells ------------------------------------------------------------------------------------------


class Codes(dict[Any, int]):
    """The state index of each cell of a variable's column, -1 where it says nothing."""

    def __init__(self, positions: Mapping[str, int]) -> None:
        super().__init__({**positions, "": -1})
        self._positions = positions

    def __missing__(self, cell: Any) -> int:
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return -1
        code = self._positions.get(str(cell))
        if code is None:  # programs write integers with gaps as 1.0
            with contextlib.suppress(ValueError, OverflowError):
                number = float(cell)
                code = self._positions.get(str(int(number))) if number.is_integer() else None
        if code is None:
            raise KeyError(cell)
        self[cell] = code
        return code

    def of(self, cells: Sequence[Any], source: Source, place: int, before: int) -> np.ndarray:
        """The indices of the cells of a column, whose first is in the row after `before`.

        Raises:
            ValueError: a cell that is no state; file and row are named.
        """
        try:
            return np.fromiter(map(self.__getitem__, cells), np.int64, len(cells))
        except KeyError as error:
            cell, name = error.args[0], source.columns[place]
            said = unknown("state", cell, self._positions, name)
            row = before + cells.index(cell) + 1
            raise ValueError(f"{source.path}, row {row:,} after the header: {said}") from None


# Writing ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def new_rows(out: Path | None, kinds: Mapping[str, Any], overwrite: bool) -> Iterator[Write]:
    """Write rows to a file, whole or not at all, or to standard output as CSV.

    The rows go to a temporary file beside it, which gets the name once it is complete.

    Args:
        out: a .csv, .csv.gz or .parquet file; None for standard output.
        kinds: by column TEXT, NUMBER, FLAG, or a type of Arrow's; numbers are written by `repr`.
        overwrite: replace a file that is there.

    Raises:
        ValueError: a column twice; a file that exists, also one that came into being meanwhile.
    """
    if out is None:
        yield _csv_writer(sys.stdout, kinds)
        return
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with _terminable():
            with open(temporary, "wb") as raw:
                with _writer(raw, out, kinds) as write:
                    yield write
                raw.flush()
                os.fsync(raw.fileno())
            new_file(out, overwrite)
            os.replace(temporary, out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was written") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _writer(raw: BinaryIO, out: Path, kinds: Mapping[str, Any]) -> Iterator[Write]:
    ending = ending_of(out)
    if ending == ".parquet":
        arrow = _pyarrow(out)
        known = {TEXT: arrow.string(), NUMBER: arrow.float64(), FLAG: arrow.bool_()}
        schema = arrow.schema(
            [(name, known[kind] if isinstance(kind, str) else kind) for name, kind in kinds.items()]
        )
        with arrow.parquet.ParquetWriter(raw, schema) as file:
            yield lambda columns: file.write_table(
                arrow.table([*map(list, columns)], schema=schema)
            )
        return
    with contextlib.ExitStack() as stack:
        plain: Any = raw
        if ending == ".csv.gz":  # without a time and a name inside, the same rows give equal bytes
            plain = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
        text = io.TextIOWrapper(plain, encoding="utf-8", newline="")
        stack.callback(text.detach)  # flushes; what lies under it stays open
        yield _csv_writer(text, kinds)


def _csv_writer(text: Any, kinds: Mapping[str, Any]) -> Write:
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(kinds)
    return lambda columns: writer.writerows(zip(*columns, strict=True))


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that the temporary file is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextlib.contextmanager
def progress(share: Callable[[], float]) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal; the function yielded is told the rows."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.fields[rows]:,} rows"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0, rows=0)
        yield lambda rows: bar.update(task, completed=share(), rows=rows)
