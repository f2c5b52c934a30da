"""What a suite says is best, what it keeps, and what it says before it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptv2kit.cli.main import main
from ptv2kit.errors import ConfigError
from ptv2kit.plan import hardware
from ptv2kit.plan.estimate import Disk, disk_of
from tests.projects import SuiteProject, project, suites
from tests.suites.test_suites import GRID

__all__ = ["project", "suites"]
TWO_TASKS = """suite: two
recipe: recipe.yaml
set: {train.epochs: 1}
grid: {task: [tiny.yaml, texts.yaml], prompt.length: [2, 3]}
"""


@pytest.fixture
def two_tasks(suites: SuiteProject) -> SuiteProject:
    rows = [{"text": "ada met alan", "label": "no"}, {"text": "alan left", "label": "yes"}] * 4
    (suites.folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (suites.folder / "texts.yaml").write_text(
        "task: texts\ndata: {source: jsonl, splits: {train: texts.jsonl, validation: texts.jsonl}}\n"
        'input: {text: "{text}", max_length: 16}\nlabels: {scheme: classes, column: label, names: [no, yes]}\n'
    )
    return suites


def test_scores_of_different_tasks_are_not_compared(two_tasks: SuiteProject) -> None:
    code, out, err = two_tasks.run(TWO_TASKS)
    assert code == 0, err
    folder = two_tasks.folder / "runs/two"
    assert not (folder / "best.yaml").exists()
    assert "task: cells/" in (folder / "best.tiny.yaml").read_text()
    assert (folder / "best.texts.yaml").is_file()
    assert "best of tiny: " in out
    assert "best of texts: " in out
    assert "Best of texts: `" in (folder / "table.md").read_text()
    assert main(["run", str(folder / "best.texts.yaml"), "--quiet"]) == 0


def test_what_the_command_line_gave_belongs_to_the_suite(suites: SuiteProject) -> None:
    code, _, err = suites.run(GRID, "train.seed=5", "prompt.dropout=0.0")
    assert code == 0, err
    resolved = (suites.folder / "runs/sizes/suite.resolved.yaml").read_text()
    assert "override:\n  train.seed: 5\n  prompt.dropout: 0.0\n" in resolved
    for subject in ("suite.yaml", "runs/sizes"):
        assert main(["report", subject, "--to", "pages", "--json"]) == 0
        capture = suites.capsys.readouterr()
        assert "other values" not in (suites.folder / "pages/report.md").read_text() + capture.out
    before = suites.runs()
    assert main(["run", "runs/sizes/suite.resolved.yaml", "--quiet"]) == 0
    assert suites.runs() == before, "the resolved suite is the same suite"


@pytest.mark.parametrize(
    ("keep", "prompt", "weights"), [("scores", False, False), ("prompt", True, False), ("all", True, True)]
)
def test_a_finished_cell_keeps_no_checkpoint_and_what_the_suite_says(
    suites: SuiteProject, keep: str, prompt: bool, weights: bool
) -> None:
    text = (
        f"suite: kept\nrecipe: recipe.yaml\nkeep: {keep}\nset: {{train.epochs: 1}}\n"
        "grid: {method: [p_tuning_v2, fine_tuning]}\n"
    )
    code, _, err = suites.run(text)
    assert code == 0, err
    for method, kept in (("p_tuning_v2", prompt), ("fine_tuning", weights)):
        [run] = [path for path in suites.runs("kept") if method in str(path)]
        assert not (run / "checkpoints").exists()
        assert (run / "prompt/prompt.safetensors").exists() == kept
        assert (run / "results.json").is_file()
        assert (run / "predictions/validation.jsonl").is_file()


def test_disk_is_counted_as_what_is_left_and_what_runs_at_one_time() -> None:
    sizes = [(3, Disk(kept=10, peak=110)), (1, Disk(kept=5, peak=505))]
    assert disk_of(sizes, jobs=1) == 35 + 500
    assert disk_of(sizes, jobs=2) == 35 + 500 + 100
    assert disk_of(sizes, jobs=9) == 35 + 500 + 300


def test_a_full_disk_hides_no_other_problem(suites: SuiteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptv2kit.cli.suite_plan.free_disk", lambda _: 10)
    code, out, err = suites.run(GRID, "--dry-run")
    assert code == 2
    assert "4 cells, 0 finished, 4 to train" in out
    assert "the runs will need about" in err
    (suites.folder / "rows.jsonl").unlink()
    code, _, err = suites.run(GRID, "--dry-run")
    assert "file 'rows.jsonl' of split 'train' was not found" in err
    assert "the runs will need about" in err
    assert code == 3


def test_a_mistake_in_a_grids_key_is_said_once(suites: SuiteProject) -> None:
    code, _, err = suites.run(GRID.replace("prompt.length: [2, 4]", "prompt.lenght: [2, 4, 8]"))
    assert code == 2
    assert err.count("unknown key 'prompt.lenght'") == 1
    assert "did you mean 'prompt.length'?" in err


def test_plan_says_that_a_suite_is_one(suites: SuiteProject) -> None:
    code, _, err = suites.run(GRID, verb="plan")
    assert code == 2
    assert "'suite.yaml' is a suite, and plan takes a recipe" in err
    assert "hint: ptv2kit run suite.yaml --dry-run" in err


def test_layers_that_the_backbone_does_not_have_are_said_where_they_stand(suites: SuiteProject, backbone: Path) -> None:
    recipe = (suites.folder / "recipe.yaml").read_text()
    (suites.folder / "recipe.yaml").write_text(recipe.replace("prompt: {", "prompt: {layers: 17-24, "))
    assert main(["validate", "recipe.yaml"]) == 2
    err = suites.capsys.readouterr().err
    assert "recipe.yaml:" in err
    assert "'prompt.layers': 17-24 is beyond the backbone's 2 layers" in err


def test_metrics_over_groups_say_how_many_groups_there_are(
    suites: SuiteProject, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"text": f"ada met alan {word}", "label": label, "question": question}
        for question in ("a", "b", "c")
        for word, label in (("in", 0), ("for", 1))
    ]
    (suites.folder / "grouped.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (suites.folder / "tiny.yaml").write_text(
        "task: grouped\ndata: {source: jsonl, splits: {train: grouped.jsonl, validation: grouped.jsonl}}\n"
        'input: {text: "{text}", max_length: 16}\n'
        'labels: {scheme: classes, column: label, names: ["no", "yes"], group: {by: "{question}"}}\n'
        "metrics: [multirc_f1a, multirc_exact_match, accuracy]\n"
    )
    assert main(["run", "recipe.yaml", "train.epochs=1"]) == 0
    cells = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    lines = {row[0]: row[-1] for row in cells}
    assert lines["multirc_exact_match"] == "3 groups"
    assert lines["accuracy"] == "6"


def test_python_attributes_are_no_columns(suites: SuiteProject) -> None:
    from ptv2kit.spec.load import load_task

    task = (suites.folder / "tiny.yaml").read_text()
    bad = task.replace(
        "input: {words: words, max_length: 16}", 'input: {text: "{question.__class__.__mro__}"}'
    ).replace("labels: {scheme: iob2, column: tags, names: [LOC, PER]}", "labels: {scheme: classes, column: label}")
    (suites.folder / "bad.yaml").write_text(bad)
    with pytest.raises(ConfigError, match="names an attribute of Python"):
        load_task(suites.folder / "bad.yaml")


def test_what_another_suite_has_trained_is_not_trained_again(suites: SuiteProject) -> None:
    code, _, err = suites.run(GRID)
    assert code == 0, err
    first = {path.parent for path in suites.folder.glob("runs/sizes/cells/*/*/results.json")}
    other = GRID.replace("suite: sizes", "suite: more").replace("prompt.length: [", "prompt.length: [7, ")
    assert "[7, " in other
    code, out, err = suites.run(other, "--dry-run")
    assert code == 0, err
    assert "6 cells, 4 finished, 2 to train" in out
    assert not (suites.folder / "runs/more").exists()
    code, _, err = suites.run(other)
    assert code == 0, err
    assert err.count("finished before, in ../sizes/cells/") == 4
    trained = [path.parent for path in suites.folder.glob("runs/more/cells/*/*/results.json")]
    assert len(trained) == 2
    records = [json.loads(path.read_text()) for path in suites.folder.glob("runs/more/cells/*/cell.json")]
    assert {(suites.folder / "runs/more" / record["run"]).resolve() for record in records} == {
        path.resolve() for path in [*first, *trained]
    }
    assert main(["report", "runs/more", "--to", "pages"]) == 0
    assert "6 of 6 cells finished" in (suites.folder / "pages/report.md").read_text()


def test_a_cell_with_a_new_name_keeps_its_run(suites: SuiteProject) -> None:
    assert suites.run(GRID)[0] == 0
    runs = suites.runs()
    renamed = GRID + "cases: [{name: short, set: {prompt.dropout: 0.0}}, {name: again}]\n"
    code, out, err = suites.run(renamed, "--dry-run")
    assert (code, "8 cells, 4 finished, 4 to train" in out) == (0, True), err
    code, _, err = suites.run(renamed, "--only", "again*")
    assert code == 0, err
    assert err.count("finished before, in cells/") == 4
    assert suites.runs() == runs
    for path in suites.folder.glob("runs/sizes/cells/again*/cell.json"):
        record = json.loads(path.read_text())
        assert (suites.folder / "runs/sizes" / record["run"] / "prompt").is_dir()


def test_the_plan_counts_trained_layer_norms(suites: SuiteProject) -> None:
    grid = GRID.replace("train.learning_rate: [1e-3, 5e-2]", "train.layer_norm_learning_rate: [null, 5e-3]")
    code, out, err = suites.run(grid, "--dry-run", "--json")
    assert code == 0, err
    cells = [(cell["settings"]["train.layer_norm_learning_rate"], cell["disk"]) for cell in json.loads(out)["cells"]]
    frozen, trained = ({disk for rate, disk in cells if rate == wanted} for wanted in (None, 5e-3))
    assert max(frozen) < max(trained)
    assert min(frozen) < min(trained)


def test_the_plan_of_a_gpu_counts_auto_as_what_it_will_be(
    suites: SuiteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp32 where the backbone's weights are trained, else bf16."""
    monkeypatch.setattr(hardware, "LEAST", 0.0)  # else the tiny model takes the same time in both
    grid = GRID.replace("train.learning_rate: [1e-3, 5e-2]", "backbone.dtype: [auto, fp32]")
    hours: dict[str, list[set[float]]] = {}
    for method in ("fine_tuning", "p_tuning_v2"):
        code, out, err = suites.run(grid, "--dry-run", "--gpu", "h100", "--json", f"method={method}")
        assert code == 0, err
        cells = [(cell["settings"]["backbone.dtype"], cell["hours"]) for cell in json.loads(out)["cells"]]
        hours[method] = [{each for dtype, each in cells if dtype == wanted} for wanted in ("auto", "fp32")]
    assert hours["fine_tuning"][0] == hours["fine_tuning"][1]
    assert max(hours["p_tuning_v2"][0]) < min(hours["p_tuning_v2"][1])


def test_a_run_that_was_not_kept_or_has_other_settings_is_trained_again(suites: SuiteProject) -> None:
    assert suites.run(GRID + "keep: scores\n")[0] == 0
    other = GRID.replace("suite: sizes", "suite: more")
    assert "4 cells, 0 finished, 4 to train" in suites.run(other, "--dry-run")[1], "this suite keeps prompts"
    assert "4 cells, 4 finished" in suites.run(other + "keep: scores\n", "--dry-run")[1]
    code, out, _ = suites.run(other + "keep: scores\n", "--dry-run", "train.epochs=1")
    assert (code, "4 cells, 0 finished" in out) == (0, True)
