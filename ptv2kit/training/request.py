"""What was asked of a run, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptv2kit import __version__
from ptv2kit.spec.explain import explain
from ptv2kit.spec.load import ResolvedRecipe, resolved_yaml
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task import AnyTask
from ptv2kit.training.folder import RunFolder, environment
from ptv2kit.training.initial import InitialTensors
from ptv2kit.training.prepare import Prepared

_WITHOUT_EFFECT: Any = {
    "description": True,
    "licence": True,
    "expect": True,
    "task": True,
    "init_from": True,
    "trackers": True,
    "distributed": True,
    "train": {"checkpoint_steps", "keep_checkpoints"},
}
_SAID_OF_TASKS: Any = {"description": True, "licence": True, "languages": True, "data": {"splits"}}


def outcome_request(
    recipe: Recipe,
    tasks: Sequence[AnyTask],
    data: Sequence[Mapping[str, Any]],
    commit: str | None,
    initial: InitialTensors | None,
) -> dict[str, Any]:
    """Everything that decides a run's outcome; where the files lie does not, nor on how many processes it is trained.

    Keys that have their default are left out, so that a key which a later version adds makes no other run of it.

    Args:
        data: fingerprints by split, of each task.
        commit: of the backbone, if it is the hub's.
        initial: what the run starts from.
    """
    return {
        "recipe": recipe.model_dump(mode="json", exclude=_WITHOUT_EFFECT, exclude_defaults=True),
        "tasks": [task.model_dump(mode="json", exclude=_SAID_OF_TASKS, exclude_defaults=True) for task in tasks],
        "data": [dict(each) for each in data],
        "backbone": commit,
        "init_from": None if initial is None else initial.sha256,
        "ptv2kit": __version__,
    }


def request_of(prepared: Sequence[Prepared], initial: InitialTensors | None) -> dict[str, Any]:
    """`outcome_request` of what is about to be trained."""
    return outcome_request(
        prepared[0].self_contained()[0],
        [each.self_contained()[1] for each in prepared],
        [{name: split.data.fingerprint for name, split in each.splits.items()} for each in prepared],
        prepared[0].spec.commit,
        initial,
    )


def write_request(
    folder: RunFolder,
    key: str,
    resolved: ResolvedRecipe,
    prepared: Sequence[Prepared],
    overrides: Sequence[str],
    data_root: Path | None,
    initial: InitialTensors | None,
) -> None:
    """The resolved YAML of recipe and tasks, `provenance.json` and `environment.json`."""
    several = len(prepared) > 1
    recipe = prepared[0].self_contained()[0]
    files = [f"task.{each.task.task}.resolved.yaml" if several else "task.resolved.yaml" for each in prepared]
    start = None if recipe.init_from is None else str(Path(recipe.init_from).expanduser().absolute())
    update = {"task": tuple(files) if several else files[0], "init_from": start}
    folder.write_text("recipe.resolved.yaml", resolved_yaml(recipe.model_copy(update=update)))
    for each, file in zip(prepared, files, strict=True):
        folder.write_text(file, resolved_yaml(each.self_contained()[1]))
    data = [
        {
            name: {"source": split.data.source, "sha256": split.data.fingerprint, "rows": len(split.data.rows)}
            for name, split in each.splits.items()
        }
        for each in prepared
    ]
    names = [each.task.task for each in prepared]
    tasks = {f"task {name}" if several else "task": task for name, task in zip(names, resolved.tasks, strict=True)}
    folder.write_json(
        "provenance.json",
        {
            "key": key,
            "recipe": str(resolved.path),
            "task": [str(task.path) for task in resolved.tasks] if several else str(resolved.task.path),
            "overrides": list(overrides),
            "data_root": None if data_root is None else str(data_root),
            "data": dict(zip(names, data, strict=True)) if several else data[0],
            "backbone": {"source": prepared[0].spec.source, "commit": prepared[0].spec.commit},
            "init_from": None if initial is None else {"run": str(initial.source), "sha256": initial.sha256},
            "origins": {
                name: {row.key: row.origin for row in explain(section) if row.origin != "default"}
                for name, section in ({"recipe": resolved} | tasks).items()
            },
        },
    )
    folder.write_json("environment.json", environment())
