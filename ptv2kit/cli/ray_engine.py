"""Trains cells as tasks of a Ray cluster. Machines share the folder of the runs; a task starts a cell's process."""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ptv2kit import __version__
from ptv2kit.cli.cell_job import CellJob
from ptv2kit.cli.local_engine import how_it_ended, start_child
from ptv2kit.cli.spread import Ended
from ptv2kit.errors import ConfigError, Problem
from ptv2kit.files import write_atomically

if TYPE_CHECKING:
    from rich.console import Console

_STOP = ".stop"
_SEEN = 30.0
"""Seconds that a network file system may need to show a new file on another machine."""


@final
@dataclass(frozen=True)
class Shared:
    """What the machine of a task must see as the machine that sends it does.

    Args:
        marker: a file in the folder of the suite.
        token: its content.
        working: the working folder, which relative paths in recipes start from.
        version: of ptv2kit.
    """

    marker: Path
    token: str
    working: Path
    version: str

    def missing(self) -> str:
        """What this machine does not see, as a sentence; empty if all is there."""
        host = socket.gethostname()
        if self.version != __version__:
            return f"worker '{host}' has ptv2kit {__version__}. Expected {self.version}"
        deadline = time.monotonic() + _SEEN
        while True:
            try:
                if self.marker.read_text(encoding="utf-8") == self.token:
                    break
            except OSError:
                if not self.marker.parent.parent.is_dir():
                    return _unseen(host, self.marker.parent)
            if time.monotonic() > deadline:
                return _unseen(host, self.marker.parent)
            time.sleep(0.5)
        return "" if self.working.is_dir() else f"worker '{host}' does not see the working folder '{self.working}'"


@final
class RayEngine:
    """Tasks of a Ray cluster, each with a GPU where the cluster has any, else with a processor.

    Args:
        folder: of the suite, on a file system that all machines share.
        address: of the cluster; None: Ray's own rule, which starts one on this machine if there is none.
        slots: tasks at one time; None: as many as the cluster takes.
        messages: of stderr.

    Raises:
        ConfigError: Ray is not installed, there is no such cluster, or a machine does not see the folder.
    """

    inside = False

    def __init__(self, folder: Path, address: str | None, slots: int | None, messages: Console) -> None:
        self._ray: Any = require_ray()
        self._messages = messages
        self._connect(address)
        resources: Mapping[str, float] = self._ray.cluster_resources()
        self._resource = "GPU" if resources.get("GPU", 0) >= 1 else "CPU"
        self.slots = 10_000 if slots is None else slots
        self._jobs: dict[Any, str] = {}
        self._stop = folder / f"{_STOP}-{uuid.uuid4().hex}"
        token = uuid.uuid4().hex
        self._shared = Shared((folder / f".seen-{token}").absolute(), token, Path.cwd(), __version__)
        folder.mkdir(parents=True, exist_ok=True)
        self._shared.marker.write_text(token, encoding="utf-8")
        try:
            self._check_machines()
        except BaseException:  # also Ctrl-C: the marker goes, and the cluster is left
            self.close()
            raise

    def start(self, job: CellJob) -> str:
        """Hand a job to the cluster."""
        asked = {"num_cpus": 1, "num_gpus": 1} if self._resource == "GPU" else {"num_cpus": 1}
        task = self._ray.remote(max_retries=0, **asked)(_run_job)
        self._jobs[task.remote(_absolute(job), self._shared, str(self._stop.absolute()))] = job.cell.name
        return "the cluster, as soon as a machine is free"

    def ended(self) -> list[Ended]:
        """The jobs that have ended since the last call."""
        if not self._jobs:
            return []
        done, _ = self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=0)
        return [self._result(self._jobs.pop(reference), reference) for reference in done]

    def stop(self, number: signal.Signals) -> None:
        """Ask all jobs to save and end; those that wait for a machine find it out when they are started."""
        write_atomically(self._stop, str(int(number)).encode())  # a worker may read it at this moment

    def close(self) -> None:
        """Leave the cluster, which ends what still runs there."""
        for reference in self._jobs:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()
        self._stop.unlink(missing_ok=True)
        self._shared.marker.unlink(missing_ok=True)

    def _connect(self, address: str | None) -> None:
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="error", include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"the Ray cluster '{address or 'of this machine'}' cannot be reached: {error}",
                hint="start it: 'ray start --head' on one machine, 'ray start --address HOST:PORT' on the others",
            ) from error

    def _check_machines(self) -> None:
        """Ask every machine that may get a job whether it sees the same files.

        Raises:
            ConfigError: one does not; all of them are named.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get(self._resource, 0) >= 1]
        if not nodes:
            raise ConfigError(f"no machine of the Ray cluster has a {self._resource} for tasks")
        task = self._ray.remote(num_cpus=0, max_retries=0)(_missing)
        asked = [
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                self._shared
            )
            for node in nodes
        ]
        problems: dict[Problem, None] = {}
        hint = "all machines need the same version of ptv2kit, and --runs-dir on a file system that they share"
        for node, reference in zip(nodes, asked, strict=True):
            try:
                text = str(self._ray.get(reference))
            except self._ray.exceptions.RayError as error:
                text = f"worker '{node['NodeManagerHostname']}' cannot run ptv2kit: {str(error).splitlines()[-1]}"
            if text:
                problems[Problem(text, hint=hint)] = None
        if problems:
            raise ConfigError(problems)
        self._messages.print(f"Ray: {len(nodes)} machines, a {self._resource} for each cell", soft_wrap=True)

    def _result(self, name: str, reference: Any) -> Ended:
        try:
            ended = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            return Ended(name, f"its Ray worker was lost ({type(error).__name__}): {first}")
        assert isinstance(ended, Ended)
        return ended


def require_ray() -> Any:
    """The package `ray`, with its reports of usage off.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs ray", hint="pip install 'ptv2kit[ray]'") from error
    return ray


def _absolute(job: CellJob) -> CellJob:
    """The job as another process finds its files; relative paths in recipes start from the working folder."""
    from dataclasses import replace

    data_root = None if job.data_root is None else job.data_root.absolute()
    return replace(job, folder=job.folder.absolute(), data_root=data_root)


def _missing(shared: Shared) -> str:
    """Runs on each machine before any job."""
    return shared.missing()


def _run_job(job: CellJob, shared: Shared, stop: str) -> Ended:
    """Runs on a machine of the cluster: starts the cell's process, waits for it, and passes on that it shall end."""
    name = job.cell.name
    missing = shared.missing()
    if missing:
        return Ended(name, missing)
    if Path(stop).exists():
        return Ended(name, stopped=signal.SIGINT)
    process = start_child(job, {}, shared.working)
    asked = False
    try:
        while process.poll() is None:
            time.sleep(0.2)
            if not asked and Path(stop).exists():
                asked = True
                process.send_signal(int(Path(stop).read_text(encoding="utf-8")))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
    return how_it_ended(name, process.returncode)


def _unseen(host: str, folder: Path) -> str:
    return f"worker '{host}' does not see the folder '{folder}': it is not on a file system that it shares"
