"""`validate`, `explain` and the frame of the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ptv2kit import __version__
from ptv2kit.cli.main import main
from ptv2kit.cli.options import build_parser

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")
FOLDERS = ("recipes", "recipes/suites", "tasks")
SHIPPED = sorted(str(path) for folder in FOLDERS for path in (ROOT / folder).glob("*.yaml"))


def test_every_shipped_file_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", *SHIPPED]) == 0
    assert capsys.readouterr().out.count(": ok (") == len(SHIPPED) > 10


def test_problems_of_all_files_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("task: a\n")
    second.write_text("a: 1\na: 2\n")
    assert main(["validate", str(first), QUICKSTART, str(second)]) == 2
    out, err = capsys.readouterr()
    assert out == f"{QUICKSTART}: ok (recipe)\n"
    assert f"{first}:1:1: error: missing key 'labels'" in err
    assert f"{second}:2:1: error: duplicate key 'a'" in err


def test_validate_takes_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", QUICKSTART, "train.epochs=3", "prompt.length=20"]) == 0
    assert main(["validate", QUICKSTART, "train.select_on=70%"]) == 2
    assert "command line: error: 'train.select_on' must be a share" in capsys.readouterr().err
    assert main(["validate", "train.epochs=3"]) == 2
    assert "there is no file to check" in capsys.readouterr().err


def test_validate_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("a: 1\na: 2\n")
    assert main(["validate", str(path), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    problem = report["files"][0]["problems"][-1]
    assert problem == {
        "location": f"{path}:2:1",
        "message": "duplicate key 'a'",
        "hint": "it is set before, in line 1",
    }


def test_explain_shows_value_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", QUICKSTART, "train.seed", "backbone.name", "train.seed=5"]) == 0
    seed, name = capsys.readouterr().out.splitlines()
    assert seed.split() == ["train.seed", "5", "command", "line"]
    assert name.startswith("backbone.name")
    assert "base/mini.yaml:" in name


def test_explain_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", QUICKSTART, "train.decay", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"train.decay": {"value": 0.95, "origin": "default"}}


def test_explain_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "task.yaml").write_text(
        "task: t\ndata: {source: jsonl, splits: {train: a.jsonl, validation: a.jsonl}}\n"
        'input: {text: "{a}", max_length: 16}\nlabels: {scheme: classes, column: b, names: [x, y]}\n'
    )
    (tmp_path / "other.yaml").write_text((tmp_path / "task.yaml").read_text().replace("16", "32"))
    one, other, run = tmp_path / "one.yaml", tmp_path / "two.yaml", tmp_path / "run"
    one.write_text("recipe: a\ntask: task.yaml\nbackbone: {name: mini}\ntrain: {epochs: 2, learning_rate: 1e-3}\n")
    other.write_text(
        "recipe: a\ntask: other.yaml\nbackbone: {name: mini}\ntrain: {epochs: 3, learning_rate: 1e-3, seed: 7}\n"
    )
    assert main(["explain", "--diff", str(one), str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["train.epochs", "train.seed", "t: input.max_length"]
    assert [side["value"] for side in found["train.epochs"]] == [2, 3]
    assert found["train.seed"][0]["origin"] == "default"
    assert found["train.seed"][1]["origin"] == f"{other}:4:47"
    assert main(["explain", "--diff", str(one), str(one), "train", "train.seed=5"]) == 0
    assert capsys.readouterr().out == (
        f"train.seed\n  - {json.loads('11'):<40}  default\n  + {json.loads('5'):<40}  command line\n"
    )
    run.mkdir()
    (run / "recipe.resolved.yaml").write_text(one.read_text().replace("task.yaml", "../task.yaml"))
    assert main(["explain", "--diff", str(run), str(one)]) == 0
    assert capsys.readouterr().out == "no value differs\n"
    assert main(["explain", "--diff", str(one), str(tmp_path / "task.yaml")]) == 2
    assert "a recipe cannot be compared with a task" in capsys.readouterr().err
    assert main(["explain", "--diff", str(one)]) == 2
    assert "--diff needs two files" in capsys.readouterr().err


def test_explain_of_an_unknown_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", QUICKSTART, "train.epoch"]) == 2
    assert "hint: did you mean 'train.epochs'?" in capsys.readouterr().err


def test_overrides_may_stand_behind_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", QUICKSTART, "--json", "train.seed", "train.seed=5"]) == 0
    assert json.loads(capsys.readouterr().out)["train.seed"]["value"] == 5


def test_debug_may_stand_behind_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "none.yaml", "--debug"]) == main(["--debug", "validate", "none.yaml"]) == 2
    assert capsys.readouterr().err.count("Traceback") == 2


def test_a_terminal_without_unicode_is_no_reason_to_fail(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"extends: {QUICKSTART}\nrecipe: r\ndescription: a → b\ntask: {ROOT / 'tasks/quickstart.yaml'}\n")
    command = [sys.executable, "-m", "ptv2kit", "explain", str(path), "description"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert r'"a \u2192 b"' in done.stdout


@pytest.mark.parametrize("words", [["fly"], ["run"], ["explain"]])
def test_wrong_usage_ends_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_every_verb_has_help_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("run", "validate", "explain"):
        with pytest.raises(SystemExit) as caught:
            build_parser().parse_args([verb, "--help"])
        assert caught.value.code == 0
        assert f"  ptv2kit {verb} " in capsys.readouterr().out


def test_an_internal_error_is_one_line_and_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("ptv2kit.cli.explain.load_file", broken)
    assert main(["explain", QUICKSTART]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: internal error: RuntimeError: boom\n  hint: ")
    assert "Traceback" not in err
    assert main(["--debug", "explain", QUICKSTART]) == 1
    assert "Traceback" in capsys.readouterr().err


HEAVY = ("torch", "transformers", "datasets", "numpy", "sklearn")


def run_and_list_heavy(*calls: list[str]) -> subprocess.CompletedProcess[str]:
    """The calls one after another in a fresh process, which fails if any of the libraries was loaded."""
    script = (
        "import sys\nfrom ptv2kit.cli.main import main\n"
        f"for words in {list(calls)!r}:\n"
        "    try:\n        code = main(words)\n    except SystemExit as ending:\n        code = ending.code\n"
        "    if code:\n        sys.exit(f'{words} ended with {code}')\n"
        f"    loaded = {set(HEAVY)!r} & set(sys.modules)\n"
        "    if loaded:\n        sys.exit(f'{words} loaded {loaded}')\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)


def test_no_verbs_help_loads_a_heavy_library() -> None:
    verbs = re.findall(r"^    ([a-z-]+)  +\S", build_parser().format_help(), flags=re.MULTILINE)
    assert {"run", "validate", "preview", "plan", "ls", "push"} < set(verbs)
    done = run_and_list_heavy(*([verb, "--help"] for verb in verbs))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["validate", QUICKSTART],
        ["explain", QUICKSTART],
        ["explain", QUICKSTART, "train.learning_rate"],
        ["schema", "recipe"],
        ["ls", "tasks", "--json"],
        ["ls", "recipes", "--json"],
    ],
    ids=" ".join,
)
def test_configuration_verbs_load_no_heavy_library(words: list[str]) -> None:
    done = run_and_list_heavy(words)
    assert done.returncode == 0, done.stderr
    if words == ["--version"]:
        assert done.stdout == f"ptv2kit {__version__}\n"


@pytest.mark.parametrize(
    "verb",
    ["plan", *(pytest.param(verb, marks=pytest.mark.slow) for verb in ("preview", "run --dry-run", "validate --data"))],
)
def test_torch_is_imported_without_looking_for_garbage(verb: str) -> None:
    script = (
        "import gc, sys\nfrom ptv2kit.cli.main import main\n"
        "whole = []\n"
        "def watch(phase, info):\n"
        "    if phase == 'start' and info['generation'] == 2 and 'ptv2kit.training' not in sys.modules:\n"
        "        whole.append('torch' in sys.modules)\n"
        "gc.callbacks.append(watch)\n"
        f"code = main({[*verb.split(), QUICKSTART]!r})\n"
        "sys.exit(code or f'{sum(whole)} {gc.get_freeze_count() > 100_000} {gc.isenabled()}')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "0 True True" in done.stderr.splitlines(), done.stderr


def test_the_module_runs_like_the_command() -> None:
    command = [sys.executable, "-m", "ptv2kit", "validate", QUICKSTART]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, f"{QUICKSTART}: ok (recipe)\n")
