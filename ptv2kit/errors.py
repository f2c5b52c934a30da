"""Errors that a user can cause or fix.

Every error that leaves ptv2kit on purpose is a `ProjectError`: a list of problems, each with the place where it was
found, what is wrong and, where one is known, a hint. The command line prints them and ends with `exit_code`. Anything
else is an internal fault.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from abc import ABC
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """A text whose control characters, and marks that turn the direction of writing, are written as `\\u001b`.

    Sent to a terminal, they could move its cursor, change its title or hide what stands beside them. Line breaks and
    tabs stay.
    """
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


@final
@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        message: what was expected and what was found, without a final full stop.
        location: where it was found: `path:line:column`, `path:line`, `path: row 7`, or `command line`; may be empty.
        excerpt: the source text that holds the fault, shown below the message; may hold several lines (a caret).
        hint: what to do about it.
    """

    message: str
    location: str = ""
    excerpt: str = ""
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"{self.location}: error: {self.message}" if self.location else f"error: {self.message}"]
        lines += [f"    {line}" for line in self.excerpt.splitlines()]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return visible("\n".join(lines))


class ProjectError(Exception, ABC):
    """An error for the user: all problems that were found, and the process's exit code.

    Args:
        problems: one message, or every problem that was found.
        location: of the message, if `problems` is a string.
        hint: of the message, if `problems` is a string.
    """

    exit_code: ClassVar[int]

    def __init__(self, problems: str | Iterable[Problem], *, location: str = "", hint: str = "") -> None:
        if isinstance(problems, str):
            problems = [Problem(problems, location=location, hint=hint)]
        self.problems: tuple[Problem, ...] = tuple(problems)
        assert self.problems, "an error needs at least one problem"
        super().__init__("\n".join(str(problem) for problem in self.problems))


@final
class ConfigError(ProjectError):
    """A YAML file, a command line or the request as a whole is wrong; nothing was run."""

    exit_code = 2


@final
class DataError(ProjectError):
    """A data set or a network resource is missing, unreadable or malformed."""

    exit_code = 3


@final
class TrainingError(ProjectError):
    """A run that was set up correctly failed, for example because its loss is no longer a number."""

    exit_code = 1


@final
class OutOfMemoryError(ProjectError):
    """The device or the host ran out of memory."""

    exit_code = 4


@final
class ExpectationMissedError(ProjectError):
    """The run ended and a value in `expect` was not reached."""

    exit_code = 5


@final
class InterruptedRunError(ProjectError):
    """The user interrupted the run; what was there was saved."""

    exit_code = 130


@final
class TerminatedRunError(ProjectError):
    """A scheduler or the system asked the run to end (SIGTERM); what was there was saved."""

    exit_code = 143


@final
class HungUpRunError(ProjectError):
    """The terminal that the run was started from was closed (SIGHUP); what was there was saved."""

    exit_code = 129


def did_you_mean(found: str, known: Sequence[str]) -> str:
    """A hint that names the closest of `known`, or all of them if none is close and they are few.

    Returns:
        The hint without a final full stop, or an empty string if there is nothing helpful to say.
    """
    close = difflib.get_close_matches(found, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if 0 < len(known) <= 24:
        return "known: " + ", ".join(known)
    return ""


def require_extra(package: str, what: str, extra: str) -> None:
    """Make sure, before anything costly, that an optional package is installed.

    Args:
        package: its name in an import.
        what: the beginning of the message, such as `a search needs Optuna`.
        extra: of ptv2kit, which installs it.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{what}, which is not installed", hint=f"pip install 'ptv2kit[{extra}]'")
