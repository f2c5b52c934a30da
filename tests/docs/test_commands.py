"""Every command and every piece of Python in the README and in docs/ works as it is written.

Commands that train do so on four rows for one epoch. What cannot be run here is named with its reason, and parsed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ptv2kit.cli.main import main
from ptv2kit.cli.options import build_parser
from tests.docs.commands import PAGES, ROOT, Command, blocks, commands
from tests.docs.world import NAMED_RUNS, make_world

FEW = ["train.epochs=1", "limit.train=4", "limit.validation=4"]
_BIG = "needs backbones and data of the paper; tests/test_paper_suites.py checks every cell"
_ELSEWHERE = {
    r"ptv2kit push ": "writes to the hub; tests/cli/test_push.py does so to a stand-in",
    r"ptv2kit predict hub:": "reads from the hub; tests/cli/test_push.py does so from a stand-in",
    r"ptv2kit import checkpoints/conll04": "needs a checkpoint of the official code; tests/test_interchange.py has one",
    r"ptv2kit run recipes/suites/(table|copa)": _BIG,
    r"ptv2kit report (.*figure3|mini/table3)": "needs a suite that was run; tests/test_report.py makes one",
    r"ptv2kit run .*--resume$": "needs a run that was interrupted; tests/cli/test_resume.py interrupts some",
    r"ptv2kit preview .* --backbone roberta": "needs a tokenizer of the hub; tests/test_verbalizer.py has its own",
    r"ptv2kit run recipes/suites/.*(?<!--dry-run)$": "takes minutes to hours; tests/suites/ runs small ones",
    r"ptv2kit serve .*--host": "listens to a network; tests/cli/test_serve.py asks with a token",
}
"""What is only parsed, by a pattern of the command, and why."""
_OTHER_PROGRAMS = (
    "pip",
    "hf",
    "curl",
    "torchrun",
    "python",
    "python3",
    ".venv/bin/pip",
    ".venv-test/bin/pip",
    "just",
)
ALL = commands()
OURS = [command for command in ALL if command.words[0].endswith("ptv2kit")]


def reason(command: Command) -> str | None:
    """Why a command is not run."""
    return next((why for pattern, why in _ELSEWHERE.items() if re.match(pattern, command.text)), None)


def test_there_are_commands() -> None:
    assert len(OURS) > 50
    assert {command.words[0] for command in ALL} - {command.words[0] for command in OURS} <= {
        *_OTHER_PROGRAMS,
        ".venv-test/bin/pytest",
    }
    for pattern in _ELSEWHERE:
        assert any(re.match(pattern, command.text) for command in OURS), f"no command is like {pattern}"
    assert sum(reason(command) is None for command in OURS) > 40


@pytest.mark.parametrize("command", OURS, ids=lambda command: command.text)
def test_ours_are_parsed(command: Command) -> None:
    args, rest = build_parser().parse_known_args(command.words[1:])
    assert not rest or (args.trailing and not any(word.startswith("-") for word in rest))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_project_are_there(page: Path) -> None:
    for block in blocks("sh", page):
        for path in re.findall(r"(?:^|\s)((?:recipes|tasks|benchmarks)/[\w./-]+\.(?:yaml|py|jsonl))", block):
            assert (ROOT / path).is_file(), path


def test_options_of_the_benchmarks_are_there() -> None:
    """They run for minutes to hours; what they are told must at least be known to them."""
    for command in ALL:
        words = list(command.words)
        if words[:2] == ["just", "bench"]:
            script = ROOT / "benchmarks" / "speed.py"
        elif words[0] == "python" and words[1].startswith("benchmarks/"):
            script = ROOT / words[1]
        else:
            continue
        sources = [script, *script.parent.glob("peers/*.py")]
        known = "\n".join(source.read_text() for source in sources)
        for option in (word for word in words if word.startswith("--")):
            assert f'"{option}"' in known, command.text


def test_extras_and_recipes_of_just_are_there() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for command in ALL:
        for extras in re.findall(r"(?:ptv2kit|\.)\[([\w,]+)\]", command.text):
            assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras.split(","))
        if command.words[0] == "just":
            assert re.search(rf"^{command.words[1]}\b.*:", (ROOT / "Justfile").read_text(), re.MULTILINE), command.text


def test_torchrun_starts_our_command() -> None:
    started = [command.words for command in ALL if command.words[0] == "torchrun"]
    assert started
    for words in started:
        build_parser().parse_args(words[words.index("ptv2kit") + 1 :])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the runs that pages speak of."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, words in NAMED_RUNS.items():
            few = [word.replace("=4", "=2") for word in FEW]
            assert main(["run", *words.split(), "--data-root", "DATA", "--quiet", *few]) == 0
            made = max((path for path in (folder / name).parent.iterdir()), key=lambda path: path.stat().st_mtime)
            made.rename(folder / name)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def inside(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world)
    monkeypatch.setenv("PTV2KIT_DATA", str(world / "data"))
    return world


def as_run(command: Command) -> list[str]:
    """The words of a command, with little to do."""
    words = list(command.words[1:])
    if words[0] == "run" and "--dry-run" not in words:
        if "--accept" in words:
            return [word.replace("train.epochs=30", "train.epochs=2") for word in words]
        return [*words, *FEW]
    if words[0] == "new":
        (Path.cwd() / "reviews.yaml").unlink(missing_ok=True)
        if words[1] == "recipe":
            assert main(["new", "task", "reviews.csv", "--validation", "reviews-dev.csv"]) == 0
            (Path.cwd() / "reviews-mini.yaml").unlink(missing_ok=True)
        (Path.cwd() / "my.yaml").unlink(missing_ok=True)
    if words[:2] == ["report", "runs/mini-wikigold"]:
        runs = ["runs/mini-wikigold/20261123-130443-1f2e3d4c", "runs/mini-rte/20261123-130443-1f2e3d4c"]
        assert [str(Path(run).parent) for run in runs] == words[1:3]
    return words


RUN = [command for command in OURS if reason(command) is None and command.words[1] != "serve"]


@pytest.mark.night
@pytest.mark.filterwarnings("ignore")  # what other libraries warn of is their tests' matter
def test_ours_run(inside: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests) -> None:
    for command in RUN:
        with subtests.test(msg=command.text):
            code = main(as_run(command))
            captured = capsys.readouterr()
            assert code == 0 or (code == 5 and "expect" in captured.err), captured.err


@pytest.mark.slow
@pytest.mark.parametrize("page", ["predict.md", "python.md", "serving.md"])
def test_python_runs(inside: Path, page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("python", ROOT / "docs" / page):
        exec(compile(block, page, "exec"), {})


@pytest.mark.slow
def test_how_it_works(inside: Path) -> None:
    """The page is one program, with its own assertions: it tags as the toolkit does, and it learns."""
    program = "\n".join(blocks("python", ROOT / "docs" / "how-it-works.md"))
    assert 40 < len(program.splitlines()) < 100
    exec(compile(program, "how-it-works.md", "exec"), {})


@pytest.mark.slow
def test_the_server_answers_what_the_page_asks(inside: Path) -> None:
    [serve] = [command for command in OURS if command.words[1] == "serve" and reason(command) is None]
    [ask] = [command for command in ALL if command.words[0] == "curl" and "Authorization" not in command.text]
    words = [sys.executable, "-m", "ptv2kit", *serve.words[1:], "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "http://" in line)
        address = line.split("http://", 1)[1].split("/predict", 1)[0]
        told = [word.replace("localhost:8000", address) for word in ask.words]
        done = subprocess.run([*told, "--silent", "--noproxy", "*"], check=True, capture_output=True, text=True)
        process.send_signal(signal.SIGINT)
    answers = json.loads(done.stdout)["answers"]
    assert [answer["row"] for answer in answers] == [0, 1, 2]
    assert all("label" in answer for answer in answers)


@pytest.mark.slow
def test_the_mistake_of_the_first_ten_minutes_is_the_one_that_is_shown(tmp_path: Path) -> None:
    """Its own task and recipe are written, and the recipe's mistake looks as on the page."""
    page = (ROOT / "docs" / "first-ten-minutes.md").read_text(encoding="utf-8")
    script = "\n".join(blocks("sh", ROOT / "docs" / "first-ten-minutes.md"))
    script = script[script.index("cat > reviews.csv") :]
    left_out = ("ptv2kit preview", "ptv2kit run", "ptv2kit report", "ptv2kit explain", "--data")
    kept = "\n".join(line for line in script.splitlines() if not any(each in line for each in left_out))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", kept], cwd=tmp_path, env=environment, capture_output=True)
    [shown] = re.findall(r"```text\n(broken.yaml.*?)```", page, flags=re.DOTALL)
    assert done.stderr.decode().endswith(shown), done.stderr.decode()


@pytest.mark.night
def test_the_first_ten_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the page's commands, one after the other, but those that install."""
    for name in ("recipes", "tasks"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = "\n".join(blocks("sh", ROOT / "docs" / "first-ten-minutes.md"))
    installing = [line for line in script.splitlines() if ".venv" in line]
    assert len(installing) == 3
    kept = "\n".join(line for line in script.splitlines() if line not in installing)
    kept = kept.replace("run recipes/quickstart.yaml", "run recipes/quickstart.yaml train.epochs=1")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", kept], cwd=tmp_path, env=environment, capture_output=True)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, err
    assert "unknown key 'prompt.lenght'" in err
    assert "hint: did you mean 'prompt.length'?" in err
    assert len(list((tmp_path / "runs" / "reviews-mini").iterdir())) == 2
    assert "span_f1" in out
