"""What a user sees of a fault of ours, and of one of theirs, by every verb."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptv2kit import errors
from ptv2kit.cli import main as command_line
from ptv2kit.cli.options import build_parser
from ptv2kit.errors import ProjectError
from tests.security.command import Ending, run

WORDS = {
    "run": ["recipe.yaml"],
    "evaluate": ["runs/x"],
    "predict": ["runs/x", "rows.jsonl"],
    "serve": ["runs/x", "--port", "0"],
    "plan": ["recipe.yaml"],
    "validate": ["recipe.yaml"],
    "explain": ["recipe.yaml"],
    "ls": ["runs"],
    "new": ["recipe", "task.yaml"],
    "preview": ["task.yaml"],
    "cp": ["nothing"],
    "schema": ["recipe"],
    "doctor": [],
    "export": ["runs/x", "--to", "adapter"],
    "import": ["adapter", "--recipe", "recipe.yaml", "--to", "runs/y"],
    "push": ["runs/x", "user/name"],
    "report": ["runs/x"],
    "completion": ["bash"],
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProjectError)]
KINDS.remove(ProjectError)


def failing(monkeypatch: pytest.MonkeyPatch, verb: str, error: BaseException, *words: str) -> Ending:
    """The command with a handler that raises."""

    def handler(_: object) -> int:
        raise error

    monkeypatch.setattr(command_line, "_function", lambda _: handler)
    return run(*words, verb, *WORDS[verb])


def test_no_verb_is_left_out() -> None:
    [choices] = [action.choices for action in build_parser()._actions if action.metavar == "VERB"]
    assert choices is not None
    assert sorted(WORDS) == sorted(choices)


@pytest.mark.parametrize("verb", WORDS)
def test_an_internal_error_says_how_to_report_it(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    ending = failing(monkeypatch, verb, KeyError("a bug of ours"))
    assert ending.code == 1
    assert "Traceback" not in ending.err + ending.out
    assert ending.err == (
        "error: internal error: KeyError: 'a bug of ours'\n"
        "  hint: run again with 'ptv2kit --debug …' and report what it prints\n"
    )


@pytest.mark.parametrize("verb", WORDS)
@pytest.mark.parametrize("error", [KeyError("a bug of ours"), MemoryError(), errors.DataError("bad", location="rows")])
def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, verb: str, error: Exception) -> None:
    ending = failing(monkeypatch, verb, error, "--debug")
    assert "Traceback (most recent call last)" in ending.err
    assert type(error).__name__ in ending.err


@pytest.mark.parametrize("verb", WORDS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_user_is_a_message_and_a_code(
    monkeypatch: pytest.MonkeyPatch, verb: str, kind: type[ProjectError]
) -> None:
    ending = failing(monkeypatch, verb, kind("expected this. Got that", location="file:3", hint="do so"))
    assert ending == Ending(kind.exit_code, "", "file:3: error: expected this. Got that\n  hint: do so\n")


def test_memory_that_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = failing(monkeypatch, "validate", MemoryError())
    assert ending.code == 4
    assert ending.err.startswith("error: out of memory\n")


@pytest.mark.parametrize("verb", sorted(set(WORDS) - {"ls", "schema", "doctor", "completion"}))
def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, verb: str, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    ending = run(verb, *WORDS[verb])
    assert ending.code in (2, 3), ending
    assert "Traceback" not in ending.err
    named = [word for word in WORDS[verb] if word in ending.err + ending.out]
    assert named, ending
