"""How much memory this process may still take."""

from pathlib import Path


def free_memory() -> int:
    """Bytes that are free for this process: the machine's, or what its control group leaves."""
    import psutil

    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    for folder, limit, used in (
        (group, "memory.max", "memory.current"),
        (group / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        if not (folder / limit).exists() or not (folder / used).exists():
            continue
        most = (folder / limit).read_text().strip()
        if most.isdigit():
            free = min(free, int(most) - int((folder / used).read_text()) + _cache(folder))
    return max(free, 0)


def _cache(folder: Path) -> int:
    """Bytes of cached files, which the system gives up before it runs out."""
    if not (folder / "memory.stat").exists():
        return 0
    lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    kept = {name: int(count) for name, count in lines}
    return kept.get("total_inactive_file", kept.get("inactive_file", 0))
