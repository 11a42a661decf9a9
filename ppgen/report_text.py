"""The words, numbers and tables of a report, as HTML that is safe whatever files say."""

import html
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import yaml

Card = tuple[str, str, str, str]  # name, value, unit, note


def split_of(evaluation: Mapping[str, Any]) -> str:
    return str(evaluation.get("split", "test")).capitalize()


def width_of(picture: bytes) -> int:
    return int.from_bytes(picture[16:20], "big")  # of a PNG, whose header comes first


def safe(text: Any) -> str:
    return html.escape(str(text), quote=True)


def number(value: Any, figures: int = 5) -> str:
    """The figures that matter, thousands apart, a true minus."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("-", "−")
    size = abs(value)
    if float(value).is_integer() and size < 1e15:
        text = f"{int(value):,}"
    elif 1e-4 <= size < 1:
        text = f"{value:.{figures}g}"
    elif 1 <= size < 1e9:
        text = f"{value:,.{max(0, figures - 1 - math.floor(math.log10(size)))}f}"
    else:
        text = f"{value:.3e}"
    return text.replace("-", "−")


def with_error(value: Any, error: Any) -> str:
    """ "−98.42 ± 0.31": as many decimals as the error has two figures."""
    numbers = [v for v in (value, error) if isinstance(v, (int, float)) and math.isfinite(v)]
    if len(numbers) < 2 or error <= 0:
        return number(value)
    decimals = min(6, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:,.{decimals}f} ± {error:.{decimals}f}".replace("-", "−")


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return str(timedelta(seconds=round(seconds)))


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists of these, named by their paths."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}: ")
        elif isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            for k, item in enumerate(value, 1):
                yield from flat(item, f"{prefix}{key} {k}: ")
        else:
            yield f"{prefix}{key}", value


def list_of(pairs: Iterator[tuple[str, Any]]) -> str:
    return " · ".join(
        f"<span>{safe(key)} {safe(value if isinstance(value, str) else number(value))}</span>"
        for key, value in pairs
        if value not in (None, "")
    )


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    columns = "".join(f'<th scope="col">{safe(name)}</th>' for name in head)
    lines = []
    for name, *values in rows:
        cells = "".join(f"<td>{safe(number(value))}</td>" for value in values)
        lines.append(f'<tr><th scope="row">{safe(name)}</th>{cells}</tr>')
    return (
        f"<table><caption>{safe(caption)}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def yaml_text(content: Any) -> str:
    try:
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).strip()
    except yaml.YAMLError:
        return json.dumps(content, indent=2, default=str, ensure_ascii=False)


def likelihood_card(name: str, found: Mapping[str, Any], notes: Sequence[str]) -> Card:
    """A log-likelihood of evaluation.json, its notes followed by what was counted."""
    counts = {"particles": found.get("unit", "particles"), "examples": "examples"}
    counted = [
        f"{number(found[key])} {unit.removesuffix('s') if found[key] == 1 else unit}"
        for key, unit in counts.items()
        if found.get(key)
    ]
    value = with_error(found.get("value"), found.get("stderr"))
    return name, value, "nats", " · ".join([*notes, *counted])


def failed(name: str, error: Exception) -> str:
    """The line in place of a figure."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f'<p class="note">{safe(name)} could not be drawn: {safe(reason)}</p>'
