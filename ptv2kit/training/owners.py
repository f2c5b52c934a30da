"""Which process works on something, and whether it is still there. Pids are used again, so its start counts too."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def this_process() -> str:
    """Host, pid and start of this process."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Whether a process of this host has ended. Of processes elsewhere nothing can be known: they count as alive.

    Args:
        owner: from `this_process`.
    """
    host, pid, started = owner.rsplit(":", 2)
    return host == socket.gethostname() and _started(int(pid)) != started


def _started(pid: int) -> str:
    """When a process began, in clock ticks since the machine did; empty if it is not there or only waits to be reaped.

    Where there is no /proc: whether it is there.
    """
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] == "Z" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "there"
    return "there"
