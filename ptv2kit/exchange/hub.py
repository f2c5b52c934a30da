"""Runs on the hub: what of a run is published, and a published run as a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptv2kit.errors import ConfigError, DataError, did_you_mean
from ptv2kit.files import is_file, is_folder, read_json
from ptv2kit.machine import reach_hub
from ptv2kit.spec.load import RESOLVED_RECIPE, ResolvedRecipe, resolved_yaml
from ptv2kit.spec.sources import HubSource
from ptv2kit.spec.task import AnyTask

PREFIX = "hub:"
"""In front of the name of a published run, where a run's folder is asked for."""


def published_files(folder: Path, resolved: ResolvedRecipe, card: str) -> dict[str, bytes]:
    """What of a run is published, by path: recipe, tasks, scores, card and prompts. Neither rows nor predictions, which
    may hold them, nor checkpoints; and no path of this machine.

    Args:
        card: the content of `README.md`.

    Raises:
        ConfigError: the backbone is a folder of this machine, or the run has no prompt or no results.
    """
    recipe = resolved.recipe
    if is_folder(Path(recipe.backbone.name)):
        raise ConfigError(
            f"the backbone of this run is a folder of this machine, '{recipe.backbone.name}'",
            hint="publish runs whose backbone is on the hub, or 'mini'",
        )
    prompts = sorted(path for path in (folder / "prompt").rglob("*") if path.is_file())
    results = folder / "results.json"
    if not prompts or not is_file(results):
        lacking = "prompt" if not prompts else "results.json"
        raise ConfigError(f"the run '{folder}' has no {lacking}", hint="publish a run that has ended")
    if recipe.init_from is not None and Path(recipe.init_from).is_absolute():
        recipe = recipe.model_copy(update={"init_from": Path(recipe.init_from).name})
    names = [task.path.name for task in resolved.tasks]
    files = {
        "README.md": card.encode(),
        "results.json": results.read_bytes(),
        "recipe.resolved.yaml": resolved_yaml(
            recipe.model_copy(update={"task": names[0] if len(names) == 1 else tuple(names)})
        ).encode(),
    }
    for task in resolved.tasks:
        files[task.path.name] = resolved_yaml(_without_paths(task.task)).encode()
    for path in prompts:
        files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def find_run(name: str) -> Path:
    """The folder of a run; one of the hub, `hub:user/name` or `hub:user/name@revision`, is fetched first.

    Raises:
        ConfigError: the name of a run on the hub is malformed.
        DataError: the hub does not deliver.
    """
    if not name.startswith(PREFIX):
        return _local_run(Path(name))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    identifier, _, revision = name.removeprefix(PREFIX).partition("@")
    if identifier.count("/") != 1:
        raise ConfigError(f"'{name}' is not a run on the hub", hint=f"expected {PREFIX}user/name")
    reach_hub()
    try:
        found = snapshot_download(
            identifier, revision=revision or None, allow_patterns=["*.yaml", "*.json", "prompt/*"]
        )
    except HFValidationError as error:
        raise ConfigError(f"'{name}' is not a run on the hub: {error}") from error
    except Exception as error:
        raise hub_error(error, name) from error
    return Path(found)


def _local_run(path: Path) -> Path:
    """A run's folder; or the newest finished one in a folder of runs, such as `runs/quickstart` or `quickstart`.

    Raises:
        ConfigError: there are runs of this name, and none of them is finished; or there is nothing of this name.
    """
    if is_file(path / RESOLVED_RECIPE):
        return path
    for folder in (path, Path("runs") / path):
        runs = sorted(each for each in folder.iterdir() if is_file(each / RESOLVED_RECIPE)) if is_folder(folder) else []
        finished = [each for each in runs if _is_finished(each)]
        if finished:
            return finished[-1]
        if runs:
            raise ConfigError(
                f"no run in '{folder}' is finished", hint=f"name one of its folders, such as '{runs[-1]}'"
            )
    there = sorted(each.name for each in Path("runs").iterdir()) if is_folder(Path("runs")) else []
    known = [name for name in there if not name.startswith(".")]
    raise ConfigError(
        f"'{path}' is not the folder of a run, and there are no runs of this name in 'runs'",
        hint=did_you_mean(str(path), known) or "'ptv2kit run' prints a run's folder",
    )


def _is_finished(run: Path) -> bool:
    """Whether a run ended by itself; one whose results cannot be read has not."""
    try:
        results: Any = read_json(run / "results.json")
    except DataError:
        return False
    return isinstance(results, dict) and results.get("status") in ("finished", "stopped")


def hub_error(error: Exception, name: str) -> DataError:
    """What the hub, or the way to it, refused; any other error is raised as it is."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalTokenNotFoundError):
        return DataError("the hub needs a token", location=name, hint="hf auth login, or set HF_TOKEN")
    if isinstance(error, RevisionNotFoundError):
        return DataError("the hub has no such revision of it", location=name)
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        hint = "check the name; of a private one: hf auth login, or set HF_TOKEN"
        return DataError("the hub has nothing of this name, or does not show it to you", location=name, hint=hint)
    if isinstance(error, HfHubHTTPError):
        reason = str(error).strip().split("\n", 1)[0]
        denied = error.response.status_code in (401, 403)
        hint = "hf auth login with a token that may do this, or set HF_TOKEN" if denied else ""
        return DataError(f"the hub refused: {reason}", location=name, hint=hint)
    # The error of the HTTP library, which is not the same one in all versions of huggingface_hub.
    http_error = HfHubHTTPError.__bases__[0]
    if isinstance(error, (http_error, LocalEntryNotFoundError, ConnectionError)):
        reason = str(error).strip().split("\n", 1)[0]
        return DataError(f"the hub cannot be reached: {reason}", location=name)
    raise error


def describe(files: Mapping[str, bytes]) -> list[str]:
    """A line for each file: its size and path."""
    return [f"{len(content):>12,} bytes  {name}" for name, content in files.items()]


def _without_paths(task: AnyTask) -> AnyTask:
    """The task with the names of its files only."""
    if isinstance(task.data, HubSource):
        return task
    splits = task.data.splits.model_dump(mode="json", exclude={"seed"})
    named = {
        split: {name: Path(path).name for name, path in value.items()}
        if isinstance(value, dict)
        else None
        if value is None
        else Path(value).name
        for split, value in splits.items()
    }
    data = task.data.model_copy(
        update={"splits": type(task.data.splits).model_validate({**named, "seed": task.data.splits.seed})}
    )
    return task.model_copy(update={"data": data})
