"""How much memory and disk is free."""

from __future__ import annotations

import shutil
from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def free_memory(memory: Path = _MEMORY, group: Path = _GROUP) -> int | None:
    """Bytes that a process can still have, a container's limit included; None where the system does not say.

    Args:
        memory: Linux's table of the machine's memory.
        group: folder of the control group (version 2).
    """
    try:
        lines = memory.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if not found:
        return None
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except OSError:
        return found[0]
    return found[0] if limit == "max" else max(0, min(found[0], int(limit) - used))


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is, or would be made."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return shutil.disk_usage(existing).free
