"""What this machine lets a process have: processors, memory, disk, the hub; the environment of its children, and a
pause of Python's garbage collector."""

from __future__ import annotations

import functools
import gc
import logging
import os
import shutil
import sys
import threading
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

_LOG = logging.getLogger(__name__)
_HUB_SECONDS = 2.5
_MEMINFO = Path("/proc/meminfo")
_CPUINFO = Path("/proc/cpuinfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def allowed_cores() -> int:
    """Processors that this process may use, which a scheduler or container may have limited."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def collector_paused() -> Generator[None]:
    """Do without Python's garbage collector, where a million objects are made that stay: it looks at all of them again
    and again, which takes a third of the time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def has_amx() -> bool:
    """Whether the processor multiplies matrices in bf16 by AMX, as Linux says; torch says it in newer versions only."""
    try:
        return " amx_bf16 " in _CPUINFO.read_text(encoding="utf-8").replace("\n", " ")
    except OSError:
        return False


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


def ask_hub() -> None:
    """Begin to ask whether the model hub answers, and do not wait: meanwhile libraries are loaded."""
    _asked()


def reach_hub() -> bool:
    """Whether the model hub answers; if not, only its cache is used from then on.

    It is asked once, for 2.5 seconds at most; otherwise each file that is looked for would wait for attempts of its
    own. `HF_HUB_OFFLINE` is honoured, and `HF_HUB_ETAG_TIMEOUT` if it is set, as seconds.
    """
    return _asked().result()


@functools.cache
def _asked() -> Future[bool]:
    from huggingface_hub import constants  # here, so that no other thread imports
    from huggingface_hub.utils import get_session

    answer: Future[bool] = Future()
    if constants.HF_HUB_OFFLINE:
        answer.set_result(False)
        return answer
    session = get_session()

    def ask() -> None:
        seconds = float(constants.HF_HUB_ETAG_TIMEOUT) if "HF_HUB_ETAG_TIMEOUT" in os.environ else _HUB_SECONDS
        try:
            session.head(constants.ENDPOINT, timeout=seconds, follow_redirects=False)
        except Exception as error:  # noqa: BLE001 - whatever the client's transport raises, the hub does not answer
            constants.HF_HUB_OFFLINE = True
            os.environ["HF_HUB_OFFLINE"] = "1"  # for child processes, and for libraries that are imported later
            reason = str(error).strip().partition("\n")[0]
            _LOG.warning(
                "the hub at %s does not answer (%s): only its cache is used; HF_HUB_ETAG_TIMEOUT=30 waits longer",
                constants.ENDPOINT,
                reason,
            )
            answer.set_result(False)
        else:
            answer.set_result(True)

    threading.Thread(target=ask, name="hub", daemon=True).start()
    return answer


def safe_environment() -> dict[str, str]:
    """This process's environment for a child that imports nothing from the working folder, as `ptv2kit` itself."""
    return {**os.environ, "PYTHONSAFEPATH": "1"}
