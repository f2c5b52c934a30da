"""`ptv2kit run` from end to end on a tiny task, and what it does with bad input."""

from __future__ import annotations

import gzip
import json
import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ptv2kit.cli.main import main
from tests.projects import Project, end_at, project, read_json

__all__ = ["project"]


def test_the_epoch_is_chosen_on_a_share_of_the_training_rows(project: Project) -> None:
    code, _, err = project.run("train.select_on=25%", "train.epochs=2")
    assert code == 0, err
    results = json.loads((project.runs[-1] / "results.json").read_text())
    assert set(results["metrics"]) == {"validation", "test"}
    rows = len((project.folder / "rows.jsonl").read_text().splitlines())
    lines = {
        split: (project.runs[-1] / "predictions" / f"{split}.jsonl").read_text().splitlines()
        for split in ("validation", "test")
    }
    assert len(lines["test"]) == rows, "the rows that were to choose the epoch"
    assert 0 < len(lines["validation"]) < rows / 2
    assert main(["evaluate", str(project.runs[-1]), "--split", "test", "--json"]) == 0
    found = json.loads(project.capsys.readouterr().out)
    assert found["metrics"]["span_f1"] == pytest.approx(results["metrics"]["test"]["span_f1"])
    code, _, err = project.run("train.select_on=60%")
    assert code == 2
    assert "'train.select_on' must be a share above 0% and up to 50%" in err


def test_a_run_leaves_a_whole_folder(project: Project) -> None:
    code, out, err = project.run()
    assert code == 0
    [run] = project.runs
    assert "backbone" in err
    assert "% of the backbone" in err
    assert "epoch   3/3" in err
    assert "span_f1" in out
    assert f"run: runs/tiny/{run.name}" in out
    names = (str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    assert sorted(name for name in names if not name.startswith("checkpoints/best/")) == [
        "README.md",
        "checkpoints/.lock",
        "checkpoints/step-00000006.safetensors",
        "checkpoints/step-00000009.safetensors",
        "environment.json",
        "log.txt",
        "metrics.jsonl",
        "predictions/validation.jsonl",
        "prompt/prompt.json",
        "prompt/prompt.safetensors",
        "provenance.json",
        "recipe.resolved.yaml",
        "results.json",
        "task.resolved.yaml",
    ]
    results = read_json(run / "results.json")
    assert results["status"] == "finished"
    assert results["epochs"] == len(results["history"]) == 3
    best = results["history"][results["best_epoch"] - 1]
    assert results["metrics"]["validation"] == best
    assert results["parameters"]["prompt"] == 2 * 2 * 4 * 32
    names = set(load_file(run / "prompt" / "prompt.safetensors"))
    assert names == {"prompt.layers.0", "prompt.layers.1", "head.linear.weight", "head.linear.bias"}
    predictions = [json.loads(line) for line in (run / "predictions" / "validation.jsonl").read_text().splitlines()]
    assert [row["location"] for row in predictions] == [f"rows.jsonl:{n}" for n in range(1, 13)]
    origins = read_json(run / "provenance.json")["origins"]["recipe"]
    assert origins["train.epochs"] == "recipe.yaml:5:17"


def test_the_resolved_recipe_runs_again_with_the_same_result_and_key(project: Project) -> None:
    project.run()
    [first] = project.runs
    assert main(["run", str(first / "recipe.resolved.yaml")]) == 0
    second = next(run for run in project.runs if run != first)
    assert second.name.split("-")[2] == first.name.split("-")[2]
    for name in ("metrics", "history", "types"):
        assert read_json(first / "results.json")[name] == read_json(second / "results.json")[name]
    prompts = [(run / "prompt" / "prompt.safetensors").read_bytes() for run in (first, second)]
    assert prompts[0] == prompts[1]


@pytest.fixture
def mirror(project: Project) -> Path:
    """Of the project's task, whose rows are on the hub."""
    folder = project.folder / "mirror" / "tiny"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text((project.folder / "rows.jsonl").read_text())
    source = "{source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}"
    hub = "{source: hub, path: nobody/nothing, splits: {train: train, validation: validation}}"
    project.change("tiny.yaml", source, hub)
    return folder


@pytest.mark.parametrize(
    "words", [["run", "recipe.yaml"], ["preview", "tiny.yaml"], ["validate", "--data", "tiny.yaml"]]
)
def test_the_hub_is_asked_only_without_a_mirror(
    words: list[str], project: Project, mirror: Path, silent_hub: list[float]
) -> None:
    code, _, err = project.command(*words, "--data-root", str(mirror.parent))
    assert code == 0, err
    assert (silent_hub, "does not answer" in err) == ([], False)
    code, _, err = project.command(*words)
    assert code == 3, err
    assert (len(silent_hub), "does not answer" in err) == (1, True)


def test_a_mirrored_hub_task_runs_again_from_its_folder(project: Project, mirror: Path) -> None:
    assert project.run("--data-root", "mirror")[0] == 0
    [first] = project.runs
    assert main(["run", str(first / "recipe.resolved.yaml")]) == 0
    assert {run.name.split("-")[2] for run in project.runs} == {first.name.split("-")[2]}
    assert len(project.runs) == 2
    code, _, err = project.run("--data-root", "mirror", "train.select_on=25%")
    assert code == 0, err
    [scores] = [path for run in project.runs for path in run.glob("predictions/test.jsonl")]
    scored = scores.read_text().splitlines()
    assert len(scored) == len((mirror / "validation.jsonl").read_text().splitlines())
    (mirror / "validation.jsonl").unlink()
    code, _, err = project.run("--data-root", "mirror")
    assert code == 3
    assert "the mirror 'mirror/tiny' lacks the split validation" in err


def test_a_dry_run_writes_nothing(project: Project) -> None:
    code, out, err = project.run("--dry-run", "train.seed=5")
    assert code == 0
    assert "seed: 5" in out
    assert "dry run: nothing was trained" in err
    assert not (project.folder / "runs").exists()


def test_json_and_quiet(project: Project) -> None:
    code, out, err = project.run("--json", "--quiet")
    assert (code, err) == (0, "")
    assert json.loads(out)["recipe"] == "tiny"


def test_a_test_split_is_scored_with_the_best_prompt(project: Project) -> None:
    project.change("tiny.yaml", "validation: rows.jsonl}", "validation: rows.jsonl, test: rows.jsonl}")
    code, out, _ = project.run()
    assert code == 0
    [run] = project.runs
    metrics = read_json(run / "results.json")["metrics"]
    assert metrics["test"] == metrics["validation"]
    assert "tiny: test" in out


def test_a_missed_expectation_ends_with_5_after_everything_is_written(project: Project) -> None:
    recipe = project.folder / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "expect: [{metric: span_f1, value: 101, source: nobody}]\n")
    code, _, err = project.run()
    assert code == 5
    assert "error: validation span_f1: expected 101, found " in err
    [run] = project.runs
    assert read_json(run / "results.json")["expect"][0]["value"] == 101


def test_classes_train_from_csv(project: Project) -> None:
    (project.folder / "rows.csv").write_text("text,label\nada left,PER\nrome,LOC\nalan left,PER\nparis,LOC\n")
    (project.folder / "tiny.yaml").write_text(
        "task: tiny\ndata: {source: csv, splits: {train: rows.csv, validation: rows.csv}}\n"
        'input: {text: "{text}"}\nlabels: {scheme: classes, column: label}\nmetrics: [accuracy, macro_f1]\n'
    )
    code, out, _ = project.run("train.max_length=16", "train.epochs=8")
    assert code == 0
    assert "accuracy" in out
    assert "macro_f1" in out


BAD_ROW = '{"words": ["ada"], "tags": ["I-PER"]}\n'


def truncated_gzip() -> bytes:
    return gzip.compress(b'{"words": ["ada"], "tags": ["O"]}\n' * 5000)[:-20]


@pytest.mark.parametrize(
    ("files", "changes", "code", "message"),
    [
        ({}, [("recipe.yaml", "length: 4", "lenght: 4")], 2, "recipe.yaml:4:10: error: unknown key 'prompt.lenght'"),
        ({}, [("recipe.yaml", "epochs: 3", "epochs: three")], 2, "recipe.yaml:5:17: error: 'train.epochs' must be an"),
        ({}, [("recipe.yaml", "epochs: 3", "epochs: 3, epochs: 4")], 2, "recipe.yaml:5:20: error: duplicate key"),
        ({}, [("tiny.yaml", "train: rows.jsonl", "train: none.jsonl")], 3, "of split 'train' was not found"),
        ({}, [("tiny.yaml", "words: words", "words: wrods")], 3, "rows.jsonl:1: error: no column 'wrods'"),
        ({}, [("tiny.yaml", "[LOC, PER]", "[LOC, PRE]")], 3, "rows.jsonl:1: error: span type 'PER' of tag 1 is not in"),
        ({"rows.jsonl": BAD_ROW}, [], 3, "rows.jsonl:1: error: tag 1 of 1, 'I-PER', is not IOB2"),
        (
            {"rows.jsonl": '{"words": ["a", "b"], "tags": ["O"]}'},
            [],
            3,
            "rows.jsonl:1: error: 2 words in",
        ),
        ({"rows.jsonl": ""}, [], 3, "split 'train' is empty"),
        ({"rows.jsonl": "\n{]\n"}, [], 3, "rows.jsonl:2: error: "),
        (
            {"rows.jsonl.gz": truncated_gzip()},
            [("tiny.yaml", "rows.jsonl", "rows.jsonl.gz")],
            3,
            "rows.jsonl.gz",
        ),
        ({"rows.jsonl.gz": b"no gzip"}, [("tiny.yaml", "rows.jsonl", "rows.jsonl.gz")], 3, "rows.jsonl.gz"),
        ({}, [("recipe.yaml", "{name: ", "{name: ./none} #")], 2, "error: backbone folder './none' does not exist"),
        (
            {},
            [("recipe.yaml", "length: 4", "length: 60")],
            2,
            "max_length 16 + prompt length 60 exceed the 64 positions",
        ),
        (
            {},
            [("recipe.yaml", "epochs: 3", "device: cuda, epochs: 3")],
            2,
            "train.device is cuda, but torch finds no GPU",
        ),
        ({"runs": "a file"}, [], 2, "run folders cannot be written below 'runs'"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    project: Project, files: dict[str, str | bytes], changes: list[tuple[str, str, str]], code: int, message: str
) -> None:
    if "cuda" in message and __import__("torch").cuda.is_available():
        pytest.skip("this machine has a GPU")
    for name, content in files.items():
        (project.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, old, new in changes:
        project.change(name, old, new)
    found, out, err = project.run()
    assert found == code, err
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not (project.folder / "runs").is_dir()


def test_an_unknown_backbone_is_a_data_error(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = project.folder / "recipe.yaml"
    path.write_text(path.read_text().replace("backbone: {name: ", "backbone: {name: nobody/nothing-here} # "))
    code, _, err = project.run()
    assert code == 3
    assert "error: backbone 'nobody/nothing-here' is not a local folder and could not be loaded from the hub" in err
    assert project.runs == []


def test_a_folder_that_refuses_is_named(project: Project) -> None:
    if os.geteuid() == 0:
        closed = Path("/proc")  # even the superuser cannot make files there
    else:
        closed = project.folder / "closed"
        closed.mkdir(mode=0o500)
    code, _, err = project.run("--runs-dir", str(closed))
    assert code == 2
    assert f"run folders cannot be written below '{closed}'" in err


def test_a_backbone_without_a_vocabulary_is_refused(project: Project, backbone: Path) -> None:
    bare = project.folder / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((backbone / name).read_bytes())
    code, _, err = project.run("backbone.name=bare")
    assert code == 2
    assert "has no vocabulary: its tokenizer knows 5 special tokens and nothing else" in err
    assert project.run("backbone.name=bare", "--dry-run")[0] == 2
    assert project.runs == []


def test_names_that_look_like_markup_are_shown_as_they_are(project: Project) -> None:
    rows = project.folder / "rows.jsonl"
    rows.write_text(rows.read_text().replace("-PER", "-[bold]").replace("-LOC", "-[/x]"))
    project.change("tiny.yaml", "[LOC, PER]", '["[bold]", "[/x]"]')
    code, out, _ = project.run("--runs-dir", "runs[a]")
    assert code == 0
    assert "[bold]" in out
    assert "[/x]" in out
    assert "run: runs[a]/tiny/" in out


def test_a_data_root_that_is_no_folder_is_refused(project: Project) -> None:
    code, _, err = project.run("--data-root", "nowhere")
    assert code == 2
    assert "the data root 'nowhere' is not a folder" in err


def test_a_pair_that_cannot_be_cut_as_asked_names_the_row(project: Project) -> None:
    (project.folder / "rows.csv").write_text("a,b,label\n" + "ada " * 20 + ",rome,0\nalan,paris,1\n")
    (project.folder / "tiny.yaml").write_text(
        "task: tiny\ndata: {source: csv, splits: {train: rows.csv, validation: rows.csv}}\n"
        'input: {text: "{a}", pair: "{b}", truncate: pair, max_length: 8}\n'
        'labels: {scheme: classes, column: label, names: {"0": x, "1": y}}\n'
    )
    code, _, err = project.run()
    assert code == 3
    assert err.count("rows.csv:2: error: one side of the pair alone fills the 8 sub-words") == 1
    project.change("tiny.yaml", '{"0": x, "1": y}', "[x, y]")
    assert 'hint: map the values of the data to names: {"0": x, "1": y}' in project.run()[2]


def test_data_is_found_under_the_data_root_first(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project.folder / "root"
    root.mkdir()
    (project.folder / "rows.jsonl").rename(root / "rows.jsonl")
    assert project.run("--dry-run")[0] == 3
    assert project.run("--dry-run", "--data-root", "root")[0] == 0
    monkeypatch.setenv("PTV2KIT_DATA", "root")
    assert project.run("--dry-run")[0] == 0


def test_divergence_ends_with_1_and_keeps_no_broken_prompt(project: Project) -> None:
    code, _, err = project.run("train.learning_rate=1e30", "train.max_gradient_norm=0")
    assert code == 1
    assert "error: the loss became nan in step" in err
    assert "hint: lower train.learning_rate (now 1e+30)" in err
    assert "no epoch had been evaluated, so that no prompt was kept" in err
    [run] = project.runs
    assert f"the run's folder is '{run.relative_to(project.folder)}'" in err
    assert not (run / "prompt").exists()
    code, _, err = project.command("predict", str(run), "rows.jsonl")
    assert (code, "prompt: error: there is no trained prompt" in err) == (3, True), err
    assert "became nan" in (run / "log.txt").read_text()


def test_a_full_disk_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ptv2kit.training.writer.write_atomically", full)
    code, _, err = project.run()
    assert code == 1
    assert "the run folder cannot be written: No space left on device" in err


@pytest.mark.slow
def test_ctrl_c_saves_and_ends_with_130(project: Project) -> None:
    process = project.start("run", "recipe.yaml", "train.epochs=100000")
    code, out, err = end_at(process, "epoch   3/", signal.SIGINT)
    assert code == 130, err
    assert "Traceback" not in err
    assert "interrupted; the best prompt so far is in" in err
    [run] = project.runs
    results = read_json(run / "results.json")
    assert results["status"] == "interrupted"
    assert results["epochs"] >= 3
    assert (run / "prompt" / "prompt.safetensors").is_file()
    assert "span_f1" in out


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_that_wait_sleep_soon_unless_the_user_says_how(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["ls", "tasks"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == expected
