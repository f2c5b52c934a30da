"""Tasks, recipes and suites by name: those of the project, then the catalog that is installed with the package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from ptv2kit.errors import ConfigError, did_you_mean
from ptv2kit.files import is_file, is_folder
from ptv2kit.spec.yaml import load_document

Kind = Literal["task", "recipe", "suite"]
FOLDERS: dict[Kind, str] = {"task": "tasks", "recipe": "recipes", "suite": "recipes/suites"}
"""Where a project and the catalog keep each kind."""
_SUFFIXES = (".yaml", ".yml")


def catalog_folder() -> Path:
    """The folder with `tasks` and `recipes` of the package: part of it when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "catalog"
    return installed if is_folder(installed) else package.parent


@final
@dataclass(frozen=True)
class Entry:
    """A file that has a name.

    Args:
        name: that finds it, such as `rte` or `mini/table3`.
        origin: `project` or `catalog`.
        hidden: whether a file of the project has the same name and wins.
    """

    name: str
    kind: Kind
    path: Path
    origin: Literal["project", "catalog"]
    hidden: bool


def entries(kind: Kind, base: Path | None = None) -> list[Entry]:
    """Every file of a kind that a name finds, those of the project first.

    Args:
        kind: of the files; of recipes, suites are left out, and so is what others extend.
        base: the project's folder; None: the working folder.
    """
    found: list[Entry] = []
    project = dict(_files((base or Path()) / FOLDERS[kind], kind))
    for name, path in project.items():
        found.append(Entry(name, kind, path, "project", hidden=False))
    for name, path in _files(catalog_folder() / FOLDERS[kind], kind):
        if name not in project or not project[name].samefile(path):
            found.append(Entry(name, kind, path, "catalog", hidden=name in project))
    return found


def find_file(name: str | Path, kinds: Sequence[Kind], bases: Sequence[Path] = (Path(),)) -> Path:
    """The file that is meant by a path or a name.

    Args:
        name: a path, if there is such a file or it ends in `.yaml` or begins with `/` or `.`; else a name.
        kinds: in which folders a name is looked up, in order.
        bases: folders that may have these folders, in order; the catalog comes last.

    Raises:
        ConfigError: there is no such file; the hint names the closest name.
    """
    text = str(name)
    if text.endswith(_SUFFIXES) or text.startswith(("/", ".")) or is_file(Path(text)):
        return Path(text)
    places = [base / FOLDERS[kind] for base in bases for kind in kinds]
    places += [catalog_folder() / FOLDERS[kind] for kind in kinds]
    for place in places:
        if is_file(place / f"{text}.yaml"):
            return place / f"{text}.yaml"
    if is_folder(Path(text)):
        return Path(text)  # after the names: data is often in a folder that is called like its task
    known = sorted({name for kind in kinds for base in (*bases, catalog_folder()) for name, _ in _files_of(base, kind)})
    looked = ", ".join(dict.fromkeys(f"{FOLDERS[kind]}/" for kind in kinds))
    close = did_you_mean(text, known)
    listed = " and ".join(f"'ptv2kit ls {kind}s'" for kind in kinds) + (" lists" if len(kinds) == 1 else " list")
    raise ConfigError(
        f"there is no {' or '.join(kinds)} '{text}': looked in {looked} of the project and in the catalog",
        hint=close if close.startswith("did") else f"{listed} them; a path ends in .yaml",
    )


def find_beside(name: str, kind: Kind, folder: Path) -> Path:
    """The file that another file means by a path or a name.

    Args:
        name: a path from the other file's folder, if it ends in `.yaml`, begins with `/` or `.`, or there is such a
            file; else a name, which is looked up in that folder, above it, in the working folder, and in the catalog.
        folder: of the other file.

    Raises:
        ConfigError: there is no such file.
    """
    path = folder / name
    if name.endswith(_SUFFIXES) or name.startswith(("/", ".")) or (kind == "task" and "/" in name):
        if not is_file(path):
            raise ConfigError(f"{kind} file '{path}' does not exist")
        return path
    if is_file(path):
        return path
    bases = list(dict.fromkeys((folder, *folder.absolute().parents, Path())))
    if folder.absolute().is_relative_to(catalog_folder()):
        bases = [Path()]  # a project's file is meant before the catalog's own
    return find_file(name, [kind], bases)


def catalog_entry(name: str, kind: Kind | None) -> Entry:
    """The file of the catalog that has a name.

    Raises:
        ConfigError: there is none, or files of several kinds have it and `kind` does not say which.
    """
    kinds: tuple[Kind, ...] = ("task", "recipe", "suite") if kind is None else (kind,)
    known: list[str] = []
    found: list[Entry] = []
    for each in kinds:
        for file_name, path in _files_of(catalog_folder(), each):
            known.append(file_name)
            if file_name == name:
                found.append(Entry(name, each, path, "catalog", hidden=False))
    if not found:
        close = did_you_mean(name, sorted(known))
        hint = close if close.startswith("did") else "'ptv2kit ls tasks', 'ls recipes' and 'ls suites' list them"
        raise ConfigError(f"the catalog has no {' or '.join(kinds)} '{name}'", hint=hint)
    if len(found) > 1:
        several = " and a ".join(entry.kind for entry in found)
        raise ConfigError(f"'{name}' is a {several}", hint=f"say which: --kind {found[0].kind}")
    return found[0]


def copy_entry(entry: Entry, target: Path) -> list[Path]:
    """Copy a file of the catalog with what it extends or names, in the folders that the catalog has.

    Args:
        target: the folder that gets `tasks` and `recipes`.

    Returns:
        The files that were written.

    Raises:
        ConfigError: one of them is already there; nothing is written then.
    """
    root = entry.path
    for _ in Path(FOLDERS[entry.kind]).parts:
        root = root.parent
    for _ in Path(entry.name).parts:
        root = root.parent
    files = [path.relative_to(root) for path in _with_ancestors(entry.path)]
    there = [target / file for file in files if (target / file).exists()]
    if (target / files[0]).exists():
        raise ConfigError(f"'{there[0]}' already exists", hint="nothing is overwritten: choose another folder")
    written: list[Path] = []
    for file in files:
        if not (target / file).exists():
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, target / file)
            written.append(target / file)
    return written


def _with_ancestors(path: Path) -> list[Path]:
    """A file, what it extends, the recipes that a suite names, and the data that is beside a task."""
    found: list[Path] = []
    waiting = [path.resolve()]
    while waiting:
        current = waiting.pop(0)
        if current in found:
            continue
        found.append(current)
        if current.suffix not in _SUFFIXES:
            continue
        values = load_document(current).values
        named = [values.get("extends"), values.get("recipe") if "suite" in values else None]
        cases = values.get("cases")
        named += [case.get("recipe") for case in cases if isinstance(case, dict)] if isinstance(cases, list) else []
        data = values.get("data")
        splits = data.get("splits") if isinstance(data, dict) else None
        named += [value for value in splits.values() if isinstance(value, str)] if isinstance(splits, dict) else []
        for name in named:
            if isinstance(name, str) and is_file(current.parent / name):
                waiting.append((current.parent / name).resolve())
    return found


def _files_of(base: Path, kind: Kind) -> Iterator[tuple[str, Path]]:
    return _files(base / FOLDERS[kind], kind)


def _files(folder: Path, kind: Kind) -> Iterator[tuple[str, Path]]:
    """The names of a folder's files, and the files."""
    for path in sorted(folder.rglob("*.yaml")) if is_folder(folder) else ():
        within = path.relative_to(folder)
        if kind == "recipe" and within.parts[0] in ("suites", "base"):
            continue
        yield within.with_suffix("").as_posix(), path
