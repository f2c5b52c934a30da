"""Several workers: the same command in processes of this machine, or as tasks of a Ray cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptv2kit import __version__
from ptv2kit.errors import ConfigError, TrainingError
from ptv2kit.machine import allowed_cores, safe_environment
from ptv2kit.suites.worker import PROCESSES, SESSION
from ptv2kit.training.signals import EndedEarly, StopSignals, forward_signal, signal_name

if TYPE_CHECKING:
    from rich.console import Console

_LOOK = 0.2
"""Seconds between two looks at the workers."""


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` has them; empty without any."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(count)]
    return [name.strip() for name in named.split(",")][:count]


def start_worker(
    words: Sequence[str], log: Path, session: str, environment: dict[str, str], working: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start the same command as one worker; what it prints goes to a log.

    Args:
        words: of the command line, after `ptv2kit`.
        log: gets its messages.
        working: the folder that it works in; None: this process's.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ptv2kit", *words, "--engine", "local", "--jobs", "1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            cwd=working,
            env={**safe_environment(), **environment, SESSION: session, "PTV2KIT_PARENT": str(os.getpid())},
            start_new_session=True,  # Ctrl-C reaches it through this process, once
        )


def local_crew(
    count: int,
    processes: int,
    words: Sequence[str],
    folder: Path,
    session: str,
    messages: Console,
    look: Callable[[], None],
) -> EndedEarly | None:
    """Run a number of workers on this machine, and wait until all have ended.

    Args:
        count: of workers; more than there are GPUs share them.
        processes: that each worker's cells have; it takes no others, and gets as many GPUs.
        words: of the command line, after `ptv2kit`.
        folder: of the suite; gets a log for each worker.
        look: called now and then while they work.

    Returns:
        How they were ended early, None if they were not.
    """
    gpus = visible_gpus()
    workers: list[subprocess.Popen[bytes]] = []
    passed = False
    try:
        with StopSignals() as stop:
            for index in range(count):
                threads = os.environ.get("OMP_NUM_THREADS") or str(threads_each(count * processes))
                environment = {"OMP_NUM_THREADS": threads, PROCESSES: str(processes)}
                own = [gpus[(index * processes + each) % len(gpus)] for each in range(processes)] if gpus else []
                if own:
                    environment["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(own))
                log = folder / f"worker-{index + 1}.log"
                workers.append(start_worker(words, log, session, environment))
                where = f", GPU {environment['CUDA_VISIBLE_DEVICES']}" if own else ""
                messages.print(f"worker {index + 1}: process {workers[-1].pid}{where}; prints to {log}", soft_wrap=True)
            while any(worker.poll() is None for worker in workers):
                if stop.received is not None and not passed:
                    passed = True
                    messages.print("ending: the workers save what they have; a second Ctrl-C ends them at once")
                    forward_signal(stop.received, workers)
                time.sleep(_LOOK)
                look()
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
    for index, worker in enumerate(workers, start=1):
        if worker.returncode < 0 and not passed:
            messages.print(f"worker {index} was ended by {signal_name(-worker.returncode)}")
    return stop.stopped if passed else None


def threads_each(processes: int) -> int:
    """Processors for each of some processes, at least one."""
    return max(1, allowed_cores() // processes)


def ray_crew(
    count: int | None,
    processes: int,
    address: str | None,
    words: Sequence[str],
    folder: Path,
    session: str,
    messages: Console,
    look: Callable[[], None],
) -> EndedEarly | None:
    """Run workers as tasks of a Ray cluster, each with a GPU where the cluster has any, else with a processor.

    Args:
        count: of workers; None: as many as the cluster has GPUs or processors for.
        processes: that each worker's cells have; it takes no others, and asks for as many GPUs or processors.
        address: of the cluster; None: Ray's own rule, which starts one on this machine if there is none.
        words: of the command line, after `ptv2kit`.
        folder: of the suite, on a file system that all machines share.
        look: called now and then while they work.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster.
        TrainingError: a machine does not see the same files, or has another version of ptv2kit.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs ray", hint="pip install 'ptv2kit[ray]'") from error
    library: Any = ray
    try:
        library.init(address=address, log_to_driver=False, logging_level="error", include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the Ray cluster '{address or 'of this machine'}' cannot be reached: {error}",
            hint="start it: 'ray start --head' on one machine, 'ray start --address HOST:PORT' on the others",
        ) from error
    resources = library.cluster_resources()
    kind = "GPU" if resources.get("GPU", 0) >= 1 else "CPU"
    workers = min(count or sys.maxsize, int(resources.get(kind, 0)) // processes)
    if workers == 0:
        raise ConfigError(
            f"cells ask for {processes} processes each, and the Ray cluster has {resources.get(kind, 0):g} {kind}s",
            hint="set distributed.gpus to no more than a machine of the cluster has",
        )
    each = f"a {kind}" if processes == 1 else f"{processes} {kind}s"
    messages.print(f"Ray: {workers} workers, {each} for each", soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    stop_file = folder.absolute() / f".stop-{session}"
    asked = {"num_cpus": processes} | ({"num_gpus": processes} if kind == "GPU" else {})
    task = library.remote(max_retries=0, **asked)(_work)
    given = (list(words), str(folder.absolute()), str(Path.cwd()), session, str(stop_file), __version__, processes)
    left = [task.remote(index, *given) for index in range(1, workers + 1)]
    faults: list[str] = []
    try:
        with StopSignals() as stop:
            while left:
                done, left = library.wait(left, timeout=_LOOK)
                faults += [_ended(library, reference) for reference in done]
                if stop.received is not None and not stop_file.exists():
                    stop_file.write_text(str(int(stop.received)), encoding="utf-8")
                look()
    finally:
        for reference in left:
            library.cancel(reference, force=True)
        library.shutdown()
        stop_file.unlink(missing_ok=True)
    refused = [fault for fault in faults if fault]
    if refused and len(refused) == workers:
        raise TrainingError(refused[0], hint="all machines need the same ptv2kit and folders that they share")
    for fault in refused:
        messages.print(f"warning: {fault}", soft_wrap=True)
    return stop.stopped


def _ended(library: Any, reference: Any) -> str:
    """What is wrong with a task of the cluster that has ended, empty if nothing is."""
    try:
        return str(library.get(reference))
    except library.exceptions.RayError as error:
        return f"a Ray worker was lost: {str(error).strip().splitlines()[0]}"


def _work(
    index: int,
    words: list[str],
    folder: str,
    working: str,
    session: str,
    stop_file: str,
    version: str,
    processes: int,
) -> str:
    """Runs on a machine of the cluster: one worker, which is ended when the stop file appears.

    Returns:
        What this machine lacks, empty if it could work.
    """
    if version != __version__:
        return f"a machine of the cluster has ptv2kit {__version__}. Expected {version}"
    for path in (folder, working):
        if not Path(path).is_dir():
            return f"a machine of the cluster does not see the folder '{path}'"
    log = Path(folder) / f"worker-{index}.log"
    process = start_worker(words, log, session, {PROCESSES: str(processes)}, Path(working))
    told = False
    try:
        while process.poll() is None:
            time.sleep(_LOOK)
            if not told and Path(stop_file).exists():
                told = True
                process.send_signal(int(Path(stop_file).read_text(encoding="utf-8") or signal.SIGTERM))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return ""
