"""What this machine lets a process have: processors, memory, disk, the hub; and the environment of its children."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sys
from pathlib import Path

_LOG = logging.getLogger(__name__)
_HUB_SECONDS = 3.0
_MEMINFO = Path("/proc/meminfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def allowed_cores() -> int:
    """Processors that this process may use, which a scheduler or container may have limited."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def free_memory(memory: Path = _MEMINFO, group: Path = _CONTROL_GROUP) -> int | None:
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


@functools.cache
def reach_hub() -> bool:
    """Ask once whether the model hub answers, for three seconds at most; if not, only its cache is used from then on.

    Without this, each file that is looked for would wait for its own attempts. `HF_HUB_OFFLINE` is honoured, and
    `HF_HUB_ETAG_TIMEOUT` if it is set, as seconds.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    seconds = float(constants.HF_HUB_ETAG_TIMEOUT) if "HF_HUB_ETAG_TIMEOUT" in os.environ else _HUB_SECONDS
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds, follow_redirects=False)
    except Exception as error:  # noqa: BLE001 - whatever the client's transport raises, the hub does not answer
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # for child processes, and for libraries that are imported later
        reason = str(error).strip().partition("\n")[0]
        _LOG.warning(
            "the hub at %s does not answer (%s): only its cache is used; HF_HUB_ETAG_TIMEOUT=30 waits longer",
            constants.ENDPOINT,
            reason,
        )
        return False
    return True


def safe_environment() -> dict[str, str]:
    """This process's environment for a child that imports nothing from the working folder, as `ptv2kit` itself."""
    return {**os.environ, "PYTHONSAFEPATH": "1"}
