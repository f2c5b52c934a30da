"""Rules of suites, and cells that start from other cells: what wins, what is recorded, what is a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptv2kit.cli.main import main
from ptv2kit.errors import ConfigError
from ptv2kit.report.records import CellRecord
from ptv2kit.spec.cells import Cell, load_suite
from ptv2kit.spec.load import load_recipe, resolved_yaml
from ptv2kit.spec.rules import used_rules
from ptv2kit.suites.folder import missed

TASK = """task: {name}
data: {{source: jsonl, splits: {{train: rows.jsonl, validation: rows.jsonl}}}}
input: {{text: "{{text}}"}}
labels: {{scheme: classes, column: label, names: [a, b]}}
"""
RECIPE = """recipe: base
task: one
backbone: {name: mini}
train: {epochs: 9, learning_rate: 1e-3}
expect: [{metric: accuracy, value: 10}]
"""
SUITE = """suite: some
recipe: recipe.yaml
set: {train.epochs: 2, train.batch_size: 4}
grid:
  task: [one, two]
  prompt.length: [2, 4]
rules:
  - {where: {task: one}, set: {train.epochs: 3, train.seed: 1}, source: script one}
  - {where: {task: [one, two], prompt.length: 4}, set: {train.seed: 2}, source: script four}
  - {where: {task: two}, expect: [{metric: accuracy, value: 90, source: "table 1", origin: paper}]}
"""
STARTS = """suite: some
recipe: recipe.yaml
cases:
  - {name: joint, set: {task: [one, two]}}
  - {name: alone, set: {init_from: "cell:joint"}, grid: {task: [one, two]}}
grid: {train.seed: [1, 2]}
set: {expect: []}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").mkdir()
    for name in ("one", "two"):
        (tmp_path / "tasks" / f"{name}.yaml").write_text(TASK.format(name=name))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def cells(text: str, *overrides: str) -> dict[str, Cell]:
    Path("suite.yaml").write_text(text)
    return {cell.name: cell for cell in load_suite(Path("suite.yaml"), overrides).cells}


@pytest.mark.usefixtures("folder")
def test_a_rule_reaches_the_cells_that_it_matches() -> None:
    trained = {name: cell.resolved.recipe.train for name, cell in cells(SUITE).items()}
    assert {name: (train.epochs, train.seed) for name, train in trained.items()} == {
        "task=one,length=2": (3, 1),
        "task=one,length=4": (3, 2),
        "task=two,length=2": (2, 11),
        "task=two,length=4": (2, 2),
    }


@pytest.mark.usefixtures("folder")
def test_a_rule_says_where_its_values_come_from() -> None:
    found = {name: cell.sources for name, cell in cells(SUITE).items()}
    assert found == {
        "task=one,length=2": {"train.epochs": "script one", "train.seed": "script one"},
        "task=one,length=4": {"train.epochs": "script one", "train.seed": "script four"},
        "task=two,length=2": {},
        "task=two,length=4": {"train.seed": "script four"},
    }


@pytest.mark.usefixtures("folder")
def test_expectations_are_added_to_those_of_the_recipe() -> None:
    found = cells(SUITE)
    assert [item.value for item in found["task=one,length=2"].resolved.recipe.expect] == [10]
    expected = found["task=two,length=2"].resolved.recipe.expect
    assert [(item.value, item.origin, item.source) for item in expected] == [
        (10, "other", ""),
        (90, "paper", "table 1"),
    ]


@pytest.mark.usefixtures("folder")
def test_a_released_value_is_never_missed() -> None:
    released = '{metric: accuracy, value: 95, origin: released}, {metric: accuracy, value: 90, source: "table 1"'
    cell = cells(SUITE.replace('{metric: accuracy, value: 90, source: "table 1"', released))["task=two,length=2"]
    assert [item.value for item in cell.resolved.recipe.expect] == [10, 95, 90]
    for score, expected in ((92.0, []), (50.0, ["validation accuracy: expected 90, found 50.00 (table 1)"])):
        metrics = {"validation": {"accuracy": score}}
        record = CellRecord(name=cell.name, settings=dict(cell.settings), status="finished", metrics=metrics)
        assert missed(record, cell.resolved) == expected


@pytest.mark.usefixtures("folder")
def test_a_cells_overrides_make_its_recipe_again() -> None:
    for text in (SUITE, STARTS):
        for cell in cells(text, "train.batch_size=8").values():
            again = load_recipe(Path("recipe.yaml"), cell.overrides)
            assert again.recipe == cell.resolved.recipe


@pytest.mark.usefixtures("folder")
def test_grid_and_case_and_command_line_win_over_rules() -> None:
    suite = """suite: some
recipe: recipe.yaml
set: {train.seed: 5}
cases:
  - {name: plain}
  - {name: long, set: {train.epochs: 20}}
grid: {prompt.length: [2, 4]}
rules:
  - {where: {case: [plain, long]}, set: {train.epochs: 7, train.seed: 8, prompt.length: 16}, source: all}
  - {where: {case: plain, prompt.length: 4}, set: {train.seed: 9}, source: later}
"""
    with pytest.raises(ConfigError, match=r"suite\.yaml:9:\d+: error: 'prompt\.length' has no effect"):
        cells(suite)
    found = cells(suite.replace(", prompt.length: 16", ""), "train.batch_size=2")
    trained = {name: cell.resolved.recipe.train for name, cell in found.items()}
    assert {name: (train.epochs, train.seed, train.batch_size) for name, train in trained.items()} == {
        "plain,length=2": (7, 8, 2),
        "plain,length=4": (7, 9, 2),
        "long,length=2": (20, 8, 2),
        "long,length=4": (20, 8, 2),
    }
    assert found["long,length=2"].sources == {"train.seed": "all"}
    over = cells(suite.replace(", prompt.length: 16", ""), "train.seed=3")
    assert {cell.resolved.recipe.train.seed for cell in over.values()} == {3}


@pytest.mark.usefixtures("folder")
def test_values_of_the_command_line_have_no_source_and_replace_expectations() -> None:
    found = cells(SUITE, "train.seed=3", "expect=[]")["task=one,length=4"]
    assert found.sources == {"train.epochs": "script one"}
    assert all(cell.resolved.recipe.expect == () for cell in cells(SUITE, "expect=[]").values())


def test_an_extended_suite_may_have_fewer_cells_than_rules(folder: Path) -> None:
    (folder / "parent.yaml").write_text(SUITE)
    found = cells("suite: child\nextends: parent.yaml\ngrid: {task: [two]}\n")
    assert set(found) == {"task=two,length=2", "task=two,length=4"}
    assert found["task=two,length=4"].sources == {"train.seed": "script four"}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{task: one}", "{taks: one}", "suite.yaml:8:14: error: the suite does not vary 'taks'"),
        ("{task: one}", "{taks: one}", "hint: did you mean 'task'?"),
        ("{task: one}", "{case: one}", "suite.yaml:8:14: error: the suite has no cases"),
        ("{task: one}", "{train.batch_size: 4}", "suite.yaml:8:14: error: the suite does not vary 'train.batch_size'"),
        ("{task: one}", "{task: onne}", "suite.yaml:8:20: error: no cell has text 'onne' for 'task'"),
        ("{task: one}", "{task: onne}", "hint: did you mean 'one'?"),
        ("[one, two], prompt", "[one, tow], prompt", "suite.yaml:9:26: error: no cell has text 'tow' for 'task'"),
        ("length: 4}", "length: 8}", "suite.yaml:9:47: error: no cell has 8 for 'prompt.length'"),
        ("length: 4}", "length: '4'}", "suite.yaml:9:47: error: no cell has text '4' for 'prompt.length'"),
        ("length: 4}", "length: '4'}", "hint: write it without quotes"),
        ("{task: one}", "{task: []}", "suite.yaml:8:20: error: 'task' must be a value or a list of values"),
        ("{task: one}", "{}", "suite.yaml:8:13: error: 'rules[0].where' must have at least 1 items"),
        ("where: {task: one}, ", "", "suite.yaml:8:5: error: missing key 'rules[0].where'"),
        ("set: {train.seed: 2}, ", "", "suite.yaml:9:5: error: the rule does nothing"),
        ("train.seed: 2", "prompt.length: 2", "suite.yaml:9:57: error: 'prompt.length' has no effect"),
        (
            "train.seed: 2",
            "train.sede: 2",
            "suite.yaml:9:69: error: unknown key 'train.sede' (cell 'task=one,length=4'",
        ),
        (
            "train.seed: 2",
            "train.seed: two",
            "suite.yaml:9:69: error: 'train.seed' must be an integer, found text 'two'",
        ),
        ("train.seed: 2", "recipe: other", "suite.yaml:9:57: error: 'recipe' cannot be set in a suite"),
        ("metric: accuracy,", "metric: acuracy,", "suite.yaml:10:44: error: 'expect[1].metric' is 'acuracy'"),
        ("metric: accuracy,", "metric: acuracy,", "hint: did you mean 'accuracy'?"),
        ("origin: paper", "split: test", "suite.yaml:10:91: error: 'expect[1].split' is 'test'"),
        ("origin: paper", "origin: papers", "'rules[2].expect[0].origin' must be one of: paper, released, other"),
        ("value: 90", "valeu: 90", "unknown key 'rules[2].expect[0].valeu'"),
        ("source: script one", "sources: script one", "suite.yaml:8:65: error: unknown key 'rules[0].sources'"),
    ],
)
def test_mistakes_are_named_where_they_stand(
    capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    assert old in SUITE
    Path("suite.yaml").write_text(SUITE.replace(old, new, 1))
    assert main(["validate", "suite.yaml"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_a_rule_that_no_cell_has_all_of_matches_nothing() -> None:
    suite = SUITE.replace("  task: [one, two]\n", "", 1).replace(
        "grid:\n", "cases:\n  - {name: first, grid: {task: [one]}}\n  - {name: second, grid: {task: [two]}}\ngrid:\n"
    )
    assert len(cells(suite)) == 4
    with pytest.raises(ConfigError, match=r"suite\.yaml:12:5: error: the rule matches no cell"):
        cells(suite.replace("{task: two}", "{task: two, case: first}"))


@pytest.mark.usefixtures("folder")
def test_true_is_not_one() -> None:
    suite = """suite: some
recipe: recipe.yaml
grid: {train.gradient_checkpointing: [true, false]}
rules: [{where: {train.gradient_checkpointing: 1}, set: {train.seed: 2}}]
"""
    with pytest.raises(ConfigError, match=r"no cell has 1 for 'train\.gradient_checkpointing'"):
        cells(suite)
    found = cells(suite.replace("pointing: 1", "pointing: true"))
    assert {name: cell.resolved.recipe.train.seed for name, cell in found.items()} == {
        "gradient_checkpointing=true": 2,
        "gradient_checkpointing=false": 11,
    }


@pytest.mark.usefixtures("folder")
def test_a_search_has_no_rules_and_no_starts() -> None:
    search = "suite: some\nrecipe: recipe.yaml\nsearch: {trials: 2, space: {prompt.length: {values: [2, 4]}}}\n"
    with pytest.raises(ConfigError, match=r"suite\.yaml:4:1: error: a search has no 'rules'"):
        cells(search + "rules: [{where: {prompt.length: 2}, set: {train.seed: 1}}]\n")
    with pytest.raises(ConfigError, match=r"suite\.yaml:4:18: error: a search has no cells"):
        cells(search + 'set: {init_from: "cell:x"}\n')


@pytest.mark.usefixtures("folder")
def test_a_cell_starts_from_the_cell_with_the_same_values() -> None:
    found = cells(STARTS)
    assert {name: cell.after for name, cell in found.items()} == {
        "joint,seed=1": None,
        "joint,seed=2": None,
        "alone,seed=1,task=one": "joint,seed=1",
        "alone,seed=2,task=one": "joint,seed=2",
        "alone,seed=1,task=two": "joint,seed=1",
        "alone,seed=2,task=two": "joint,seed=2",
    }
    assert all(cell.resolved.recipe.init_from is None for cell in found.values())
    assert all(cell.resolved.merged.values.get("init_from") is None for cell in found.values())


@pytest.mark.usefixtures("folder")
def test_a_cell_may_be_named_whole() -> None:
    found = cells(STARTS.replace("cell:joint", "cell:joint,seed=2"))
    assert {cell.after for cell in found.values()} == {None, "joint,seed=2"}


@pytest.mark.usefixtures("folder")
def test_a_start_may_be_set_by_a_rule() -> None:
    suite = STARTS.replace('set: {init_from: "cell:joint"}, ', "")
    rule = 'rules: [{where: {case: alone, task: one}, set: {init_from: "cell:joint"}, source: ours}]\n'
    after = {name: cell.after for name, cell in cells(suite + rule).items()}
    assert after["alone,seed=1,task=one"] == "joint,seed=1"
    assert after["alone,seed=1,task=two"] is None


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cell:joint", "cell:jiont", r"suite\.yaml:5:36: error: no cell and no case is called 'jiont'"),
        ("cell:joint", "cell:jiont", r"hint: did you mean 'joint'\?"),
        ("cell:joint", "cell:alone", r"cells start from each other in a circle: 'alone,seed=1,task=one' → "),
        ('"cell:joint"}', '"cell:joint", prompt.length: 8}', r"'alone,seed=1,task=one' has prompt\.length 8, but"),
        ('"cell:joint"}', '"cell:joint", prompt.layers: 1-2}', r"has prompt\.layers 1-2, but 'joint,seed=1'"),
        ('"cell:joint"}', '"cell:joint", method: fine_tuning}', r"'init_from' brings a prompt, but 'method'"),
        (
            "[one, two]}}\n  - {name: alone",
            "[one, two]}, grid: {train.batch_size: [2, 4]}}\n  - {name: alone",
            "2 cells",
        ),
    ],
)
def test_starts_that_cannot_be(old: str, new: str, message: str) -> None:
    assert old in STARTS
    with pytest.raises(ConfigError, match=message):
        cells(STARTS.replace(old, new, 1))


def test_the_suite_as_it_was_understood_loads_alone(folder: Path) -> None:
    (folder / "parent.yaml").write_text(SUITE)
    before = cells("suite: child\nextends: parent.yaml\ngrid: {task: [one], train.seed: [7]}\n")
    loaded = load_suite(Path("suite.yaml"))
    rules = used_rules(loaded.suite, [(cell.case, cell.settings) for cell in loaded.cells])
    assert [rule.where for rule in rules] == [{"task": ["one"]}]
    (folder / "alone.yaml").write_text(resolved_yaml(loaded.suite.model_copy(update={"rules": rules})))
    after = {cell.name: cell for cell in load_suite(Path("alone.yaml")).cells}
    assert {name: cell.resolved.recipe for name, cell in after.items()} == {
        name: cell.resolved.recipe for name, cell in before.items()
    }
