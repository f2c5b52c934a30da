"""The suites of the paper's tables and figures: their cells, values and settings, beside the published ones."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.spec.cells import Cell, load_suite
from ptv2kit.spec.load import load_recipe
from ptv2kit.spec.recipe import Recipe

ROOT = Path(__file__).parents[1]
SUITES = ROOT / "recipes" / "suites"
PUBLISHED = ["table2", "table3", "table4", "figure1", "figure3", "figure4"]
MINI = sorted(path.stem for path in (SUITES / "mini").glob("*.yaml"))
CASES = {
    "bert-large": "bert-large",
    "roberta-large": "roberta-large",
    "deberta-xlarge": "deberta-xlarge",
    "glm-xlarge-2b": "glm-2b",
    "glm-xxlarge-10b": "glm-10b",
}
TASKS = {
    "conll2003": "conll03",
    "conll2004": "conll04",
    "conll2005": "conll05",
    "conll2012": "conll12",
    "conll05_srl": "conll05",
    "conll12_srl": "conll12",
    "ontonotes": "ontonotes5",
}
QUESTIONS = {"squad", "squad_v2"}
ROLES = {"conll05", "conll12"}
WORDS = {"conll03", "conll04", "ontonotes5"} | ROLES


@cache
def cells_of(name: str) -> tuple[Cell, ...]:
    return load_suite(SUITES / f"{name}.yaml").cells


def rows_of(shared: Path, name: str) -> list[dict[str, str]]:
    with (shared / "paper" / f"{name}.csv").open() as lines:
        return list(csv.DictReader(lines))


def task_of(name: str, case: str) -> str:
    """Our task's name: WiC is asked about as BERT's script does."""
    name = TASKS.get(name, name)
    return "wic_pair" if (name, case) == ("wic", "bert-large") else name


def metric_of(task: str, name: str) -> str:
    if task in QUESTIONS:
        return f"squad_{name}"
    return {"micro_f1": "plain_span_f1", "f1a": "multirc_f1a", "f1": "record_f1"}.get(name, name)


def cell_of(table: str, case: str, task: str, method: str) -> Cell:
    """The only cell that a row of the paper's tables is about."""
    if table == "4":
        task = f"{task}_cloze" if method.endswith("verbalizer") else task
        found = [cell for cell in cells_of("table4") if cell.settings["task"] == task]
    elif method == "multitask_p_tuning_v2":
        kind = "qa" if task in QUESTIONS else "srl" if task in ROLES else "ner"
        wanted = (f"{case}-mpt2-{kind}", task)
        found = [cell for cell in cells_of("table3") if (cell.case, cell.settings.get("task")) == wanted]
    else:
        found = [
            cell
            for cell in cells_of(f"table{table}")
            if (cell.case, cell.settings.get("task"), cell.settings.get("method")) == (case, task, method)
        ]
    (cell,) = found
    return cell


Value = tuple[str, str, float]
"""Metric, split, value."""


def expected(cell: Cell, origin: str) -> set[Value]:
    return {(item.metric, item.split, item.value) for item in cell.resolved.recipe.expect if item.origin == origin}


def paper_values(shared: Path) -> dict[tuple[str, str], set[Value]]:
    """What the tables say, by table and cell."""
    values: dict[tuple[str, str], set[Value]] = {}
    for row in rows_of(shared, "tables"):
        case = CASES[row["backbone"]]
        task = task_of(row["task"], case)
        cell = cell_of(row["table"], case, task, row["method"])
        value = (metric_of(task, row["metric"]), row["split"].replace("dev", "validation"), float(row["value"]))
        values.setdefault((row["table"], cell.name), set()).add(value)
    return values


def released_values(shared: Path) -> dict[tuple[str, str], set[Value]]:
    """What the authors released, by backbone and task."""
    values: dict[tuple[str, str], set[Value]] = {}
    for row in rows_of(shared, "released"):
        name, _, split = row["task"].partition("/")
        case = CASES[row["backbone"]]
        task = task_of(name, case)
        split = split or ("test" if task in WORDS else "validation")
        value = (metric_of(task, row["metric"]), split, float(row["value"]))
        values.setdefault((case, task), set()).add(value)
    return values


def scripts(shared: Path) -> Iterator[tuple[dict[str, str], str, str]]:
    """Each row of the released settings, with the case and task that it is for."""
    for row in rows_of(shared, "hyperparameters"):
        case = {"bert": "bert-large", "roberta": "roberta-large"}[row["script"].rpartition("_")[2]]
        yield row, case, task_of(row["task"], case)


def script_settings(row: dict[str, str], task: str) -> dict[str, Any]:
    """The settings of a script as a recipe says them."""
    return {
        "length": int(row["prompt_length"]),
        "dropouts": (float(row["dropout"]), float(row["dropout"])),
        "reparameterization": row["reparameterization"],
        "epochs": int(row["epochs"]),
        "batch_size": int(row["batch_size"]),
        "learning_rates": (float(row["learning_rate"]), None),
        "schedule": ("exponential", 0.95) if task in WORDS | QUESTIONS else ("linear", None),
        "max_length": None if task in WORDS else int(row["max_length"].split()[0]),
        "seed": int(row["seed"]),
    }


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """The same of a recipe; a decay that its schedule does not read is left out."""
    train = recipe.train
    return {
        "length": recipe.prompt.length,
        "dropouts": (recipe.backbone.dropout, recipe.prompt.dropout),
        "reparameterization": recipe.reparameterization,
        "epochs": train.epochs,
        "batch_size": train.batch_size,
        "learning_rates": (train.learning_rate, train.head_learning_rate),
        "schedule": (train.schedule, train.decay if train.schedule == "exponential" else None),
        "max_length": train.max_length,
        "seed": train.seed,
    }


@pytest.mark.parametrize(
    ("name", "count"),
    [("table2", 96), ("table3", 93), ("table4", 8), ("figure1", 36), ("figure3", 22), ("figure4", 48)],
)
def test_the_cells_of_the_paper(name: str, count: int) -> None:
    cells = cells_of(name)
    assert len(cells) == count
    assert f"{count} runs" in (SUITES / f"{name}.yaml").read_text().replace("\n# ", " ")


@pytest.mark.parametrize("name", MINI)
def test_the_small_suites_need_nothing_big_and_choose_on_rows_of_their_own(name: str) -> None:
    cells = cells_of(f"mini/{name}")
    assert {cell.resolved.recipe.backbone.name for cell in cells} <= {"mini", "smollm2"}
    assert f"{len(cells)} runs" in (SUITES / "mini" / f"{name}.yaml").read_text().replace("\n# ", " ")
    assert all(cell.resolved.recipe.expect == () for cell in cells), "the paper says nothing of these runs"
    assert {cell.resolved.recipe.train.select_on for cell in cells} == {"10%"}


def test_learning_rates_are_searched_with_a_seed_that_no_other_small_suite_has() -> None:
    seeds = {name: {cell.resolved.recipe.train.seed for cell in cells_of(f"mini/{name}")} for name in MINI}
    searched = seeds.pop("rates")
    assert searched == {21}
    assert not searched & set.union(*seeds.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_small_suite_varies_what_the_paper_does(name: str) -> None:
    def axes(suite: str) -> set[str]:
        return {key for cell in cells_of(suite) for key in cell.settings} - {"train.seed"}

    assert axes(name) <= axes(f"mini/{name}")


@pytest.mark.parametrize("name", [*PUBLISHED, *(f"mini/{name}" for name in MINI)])
def test_every_setting_of_a_rule_has_a_source(name: str) -> None:
    suite = load_suite(SUITES / f"{name}.yaml").suite
    assert all(rule.source for rule in suite.rules if rule.set)
    known = ("ours", "official script run_", "official code")
    assert all(rule.source.startswith(known) for rule in suite.rules if rule.set)


def test_every_value_of_the_tables_is_expected_and_no_other(shared: Path) -> None:
    values = paper_values(shared)
    assert sum(map(len, values.values())) == len(rows_of(shared, "tables"))
    for table in ("2", "3", "4"):
        for cell in cells_of(f"table{table}"):
            assert expected(cell, "paper") == values.get((table, cell.name), set()), cell.name
            assert expected(cell, "other") == set(), cell.name
            without = table == "3" and "-joint-" in cell.case
            assert bool(cell.resolved.recipe.expect) is not without, cell.name


def test_every_released_value_is_shown_and_no_other(shared: Path) -> None:
    values = released_values(shared)
    assert sum(map(len, values.values())) == len(rows_of(shared, "released"))
    shown: set[tuple[str, str]] = set()
    for table in ("table2", "table3", "table4"):
        for cell in cells_of(table):
            case = "roberta-large" if table == "table4" else cell.case
            task = cell.settings.get("task")
            tuned = cell.resolved.recipe.method == "p_tuning_v2" and cell.resolved.task.task.head == "linear"
            published = values.get((case, str(task)), set()) if tuned else set[Value]()
            assert expected(cell, "released") == published, cell.name
            shown |= {(case, str(task))} if published else set()
    assert shown == set(values)


def test_figures_expect_what_tables_say_of_the_same_runs() -> None:
    def run(cell: Cell) -> str:
        layers = {"1-24": "all"}.get(str(cell.resolved.recipe.prompt.layers), cell.resolved.recipe.prompt.layers)
        kept = cell.resolved.recipe.model_dump(exclude={"recipe", "description", "expect"})
        kept["prompt"]["layers"] = layers
        kept["prompt"]["reparameterization"] = cell.resolved.recipe.reparameterization
        return repr((kept, cell.resolved.task.task.task))

    tables = {run(cell): cell for name in ("table2", "table3") for cell in cells_of(name)}
    same = 0
    for name in ("figure1", "figure3", "figure4"):
        for cell in cells_of(name):
            table = tables.get(run(cell))
            wanted = () if table is None else table.resolved.recipe.expect
            assert set(cell.resolved.recipe.expect) == set(wanted), cell.name
            same += table is not None
    assert same == 36 + 2 + 3


def test_released_settings_are_taken_as_they_are(shared: Path) -> None:
    for row, case, task in scripts(shared):
        cell = cell_of("3" if task in WORDS | QUESTIONS else "2", case, task, "p_tuning_v2")
        assert recipe_settings(cell.resolved.recipe) == script_settings(row, task), row["script"]
        # The script for BERT on CoNLL-2012 loads RoBERTa; the paper's cell is about BERT.
        mistaken = row["script"] == "conll12_bert"
        assert cell.resolved.recipe.backbone.name == ("bert-large-uncased" if mistaken else row["backbone"])
        assert cell.resolved.task.task.input.max_length == 384 if task in QUESTIONS else True
        source = f"official script run_{row['script']}.sh"
        for key in ("prompt.length", "train.learning_rate", "train.batch_size", "train.epochs", "train.seed"):
            assert cell.sources[key].startswith(source), (cell.name, key)


def test_nothing_else_claims_to_be_released(shared: Path) -> None:
    with_script = {(case, task) for _, case, task in scripts(shared)}
    for name in ("table2", "table3"):
        for cell in cells_of(name):
            released = any(
                "official script" in source and not source.startswith("ours") for source in cell.sources.values()
            )
            wanted = (cell.case, cell.settings.get("task")) in with_script and cell.settings.get(
                "method"
            ) == "p_tuning_v2"
            assert released is wanted, cell.name


def test_figures_and_table_4_take_the_settings_of_their_tasks(shared: Path) -> None:
    by_cell = {(case, task): row for row, case, task in scripts(shared)}
    for name, case, free in (
        ("figure3", "bert-large", set[str]()),
        ("figure4", "roberta-large", {"length"}),
        ("table4", "roberta-large", set[str]()),
    ):
        compared = 0
        for cell in cells_of(name):
            recipe = cell.resolved.recipe
            task = str(cell.settings["task"]).removesuffix("_cloze")
            if (case, task) not in by_cell or recipe.reparameterization == "mlp":
                continue
            wanted = {
                key: value for key, value in script_settings(by_cell[case, task], task).items() if key not in free
            }
            found = {key: value for key, value in recipe_settings(recipe).items() if key not in free}
            assert found == wanted, cell.name
            compared += 1
        assert compared == {"figure3": 22, "figure4": 24, "table4": 4}[name]


def test_the_depths_go_up_and_down() -> None:
    for name, layers, counts in (("figure3", 24, (4, 8, 12, 16, 20, 24)), ("mini/figure3", 6, (1, 3, 5, 6))):
        found = {cell.settings["prompt.layers"] for cell in cells_of(name)}
        assert found == {f"1-{count}" for count in counts} | {f"{layers + 1 - count}-{layers}" for count in counts}


def test_the_settings_of_glm_are_those_of_its_recipes() -> None:
    for cell in cells_of("table2"):
        if cell.case.startswith("glm") and cell.settings["method"] == "p_tuning_v2":
            alone = load_recipe(ROOT / "recipes" / f"{cell.case}-{cell.settings['task']}.yaml").recipe
            apart = {"recipe", "description", "expect"}
            assert cell.resolved.recipe.model_dump(exclude=apart) == alone.model_dump(exclude=apart)
            assert expected(cell, "paper") == expected_of(alone)


def expected_of(recipe: Recipe) -> set[Value]:
    return {(item.metric, item.split, item.value) for item in recipe.expect}


@pytest.mark.parametrize("name", ["table3", "mini/table3"])
def test_multi_task_prompts_come_from_the_joint_run_of_their_kind(name: str) -> None:
    by_name = {cell.name: cell for cell in cells_of(name)}
    started = [cell for cell in by_name.values() if cell.after is not None]
    assert started
    for cell in by_name.values():
        assert (cell.after is not None) is ("-mpt2-" in cell.case)
    for cell in started:
        joint = by_name[str(cell.after)]
        assert joint.case == cell.case.replace("mpt2", "joint")
        task = cell.settings["task"]
        # In the joint stage every question may have no answer (appendix A of the paper).
        assert {task, f"{task}_or_none"} & {*joint.resolved.recipe.task_names}
        assert joint.settings.get("train.seed") == cell.settings.get("train.seed")
    kinds = {tuple(by_name[str(cell.after)].resolved.recipe.task_names) for cell in started}
    for kind in kinds:
        names = {name.removesuffix("_or_none") for name in kind}
        tasks = {cell.settings["task"] for cell in started if cell.settings["task"] in names}
        # PropBank only teaches the joint prompt; table 3 has no column of it.
        assert tasks == names - {"propbank"}, "each task of a joint run is trained alone after it"
