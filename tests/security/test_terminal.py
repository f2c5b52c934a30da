"""What strangers' names, labels and folders can do to the terminal and to the command that meets them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ptv2kit.cli.main import main
from ptv2kit.errors import Problem, visible
from tests.projects import Project, project

__all__ = ["project"]
ROOT = Path(__file__).parents[2]
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def test_control_characters_are_shown() -> None:
    assert visible("a\x1b[2Jb\tc\n\x9b\u202e") == "a\\u001b[2Jb\tc\n\\u009b\\u202e"
    assert UNSAFE.search(str(Problem(EVIL, EVIL, EVIL, EVIL))) is None
    assert json.loads(visible(json.dumps("\x9b", ensure_ascii=False))) == "\x9b"


@pytest.fixture
def evil(project: Project) -> Project:
    """A project whose labels, words and descriptions hold escape sequences."""
    rows = [json.loads(line) for line in (project.folder / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row["tags"] = [tag.replace("PER", f"PER{EVIL}") for tag in row["tags"]]
        row["words"] = [f"{word}{EVIL}" if word == "ada" else word for word in row["words"]]
    (project.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.change("tiny.yaml", "names: [LOC, PER]", "names: from_train")
    project.change("tiny.yaml", "task: tiny\n", 'task: tiny\ndescription: "\\e[2J\\x9b31m"\n')
    return project


@pytest.mark.parametrize(
    "words",
    [
        ("validate", "tiny.yaml", "--data"),
        ("preview", "recipe.yaml"),
        ("preview", "recipe.yaml", "--json"),
        ("explain", "tiny.yaml"),
        ("explain", "tiny.yaml", "--json"),
        ("run", "recipe.yaml", "train.epochs=1"),
        ("run", "recipe.yaml", "--dry-run"),
        ("plan", "recipe.yaml"),
        ("ls", "tasks"),
        ("run", f"no{EVIL}.yaml"),
        ("run", "recipe.yaml", f"train.{EVIL}=1"),
        ("run", "recipe.yaml", f"description={EVIL}"),
    ],
    ids=lambda words: " ".join(words).encode("unicode_escape").decode()[:30],
)
def test_no_verb_sends_what_files_say(evil: Project, backbone: Path, words: tuple[str, ...]) -> None:
    extra = ["--backbone", str(backbone)] if words[:2] == ("validate", "tiny.yaml") else []
    main([*words, *extra])
    captured = evil.capsys.readouterr()
    for text in (captured.out, captured.err):
        assert UNSAFE.search(text) is None, text.encode("unicode_escape")[:500]
    for page in evil.folder.rglob("*.md"):
        assert UNSAFE.search(page.read_text()) is None, page


def test_pages_and_reports_of_a_run_send_nothing(evil: Project) -> None:
    assert evil.run("train.epochs=1")[0] == 0
    [run] = evil.runs
    evil.capsys.readouterr()
    assert main(["report", str(run), "--to", "pages"]) == 0
    assert main(["evaluate", str(run)]) == 0
    captured = evil.capsys.readouterr()
    assert UNSAFE.search(captured.out + captured.err) is None
    for page in evil.folder.rglob("*.md"):
        assert UNSAFE.search(page.read_text()) is None, page


def command(project: Project, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which may hang or meet another locale."""
    whole = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    script = "from ptv2kit.cli.main import entry_point; entry_point()"
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=project.folder,
        env=whole,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )


@pytest.mark.night
@pytest.mark.parametrize("name", ["prompt/prompt.safetensors", "results.json", "metrics.jsonl", "README.md"])
def test_a_named_pipe_in_a_runs_folder_hangs_nothing(project: Project, name: str) -> None:
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    (run / name).unlink()
    os.mkfifo(run / name)
    for words in (["predict", str(run), "rows.jsonl"], ["report", str(run), "--to", "pages"]):
        ended = command(project, *words)
        assert "internal error" not in ended.stderr
        if name.startswith("prompt/") and words[0] == "predict":
            assert ended.returncode == 3
            assert "it is not a plain file" in ended.stderr


def test_a_deeply_nested_results_file_is_refused(project: Project) -> None:
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    (run / "results.json").write_text('{"status": ' + "[" * 5000 + "]" * 5000 + "}")
    for words in (["report", str(run), "--to", "pages"], ["run", "recipe.yaml", "--resume"], ["ls", "runs"]):
        main(words)
        assert "internal error" not in project.capsys.readouterr().err


def test_a_folder_name_that_is_too_long(project: Project) -> None:
    before = sorted(project.folder.rglob("*"))
    code, _, err = project.run("--runs-dir", "r" * 300)
    assert code == 2
    assert "run folders cannot be written below" in err
    assert "File name too long" in err
    assert sorted(project.folder.rglob("*")) == before


@pytest.mark.slow
def test_a_path_that_the_locale_cannot_write(project: Project) -> None:
    ended = command(project, "run", "recipe.yaml", "--runs-dir", "ørken", LC_ALL="C", PYTHONUTF8="0")
    assert "internal error" not in ended.stderr
    assert ended.returncode in (0, 2), ended.stderr
    if ended.returncode == 2:
        assert not list(project.folder.glob("*rken*"))
