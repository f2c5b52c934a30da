"""Recipes and tasks from files: merging, validation, messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ptv2kit.errors import ConfigError
from ptv2kit.spec.cells import load_file
from ptv2kit.spec.explain import explain
from ptv2kit.spec.load import ResolvedTask, load_recipe, load_task, resolved_yaml
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task import Task

TASK = """task: tiny
data: {source: jsonl, splits: {train: a.jsonl, validation: b.jsonl}}
input: {text: "{question}", pair: "{passage}", truncate: pair}
labels: {scheme: classes, column: label, names: ["no", "yes"]}
metrics: [accuracy]
"""
RECIPE = """recipe: one
task: tiny
backbone: {name: mini}
train:
  epochs: 2
  learning_rate: 5e-3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task, a recipe, and nothing of our own tasks in sight."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "recipes" / "base").mkdir(parents=True)
    (tmp_path / "tasks" / "tiny.yaml").write_text(TASK)
    (tmp_path / "recipes" / "one.yaml").write_text(RECIPE)
    return tmp_path


def problems_of(path: Path, text: str, *overrides: str) -> str:
    """What is printed when `text` is loaded."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_file(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{path.parents[1]}/", "")


def test_precedence_is_default_parent_file_command_line(project: Path) -> None:
    (project / "recipes" / "base" / "root.yaml").write_text("train: {batch_size: 8, seed: 1}\nprompt: {length: 4}\n")
    (project / "recipes" / "base" / "mini.yaml").write_text("extends: root.yaml\nprompt: {length: 5, dropout: 0.5}\n")
    path = project / "recipes" / "one.yaml"
    path.write_text(RECIPE.replace("task: tiny\n", "task: tiny\nextends: base/mini.yaml\n") + "  seed: 2\n")
    resolved = load_recipe(path, ["train.seed=3", "prompt.dropout=0"])
    found = {row.key: (row.value, row.origin) for row in explain(resolved)}
    base = project / "recipes" / "base"
    assert found["train.weight_decay"] == (0.0, "default")
    assert found["train.batch_size"] == (8, f"{base}/root.yaml:1:21")
    assert found["prompt.length"] == (5, f"{base}/mini.yaml:2:18")
    assert found["train.epochs"] == (2, f"{path}:6:11")
    assert found["train.seed"] == (3, "command line")
    assert found["prompt.dropout"] == (0.0, "command line")
    assert [row.key for row in explain(resolved, "prompt")] == [key for key in found if key.startswith("prompt.")]


def test_lists_are_replaced(project: Path) -> None:
    parent = project / "tasks" / "parent.yaml"
    parent.write_text(TASK.replace("[accuracy]", "[accuracy, macro_f1]"))
    child = project / "tasks" / "child.yaml"
    child.write_text("extends: parent.yaml\ntask: child\nmetrics: [macro_f1]\n")
    assert load_task(child).task.metrics == ("macro_f1",)


def test_interpolation(project: Path) -> None:
    path = project / "recipes" / "one.yaml"
    path.write_text(RECIPE + "  batch_size: ${train.epochs}\ndescription: ${recipe} on ${task}\n")
    recipe = load_recipe(path).recipe
    assert (recipe.train.batch_size, recipe.description) == (2, "one on tiny")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${oc.env:HOME}", "only '${key}' is allowed, no resolver and no escape"),
        ("'x \\\\${oc.env:HOME}'", "only '${key}' is allowed, no resolver and no escape"),
        ("'\\${recipe}'", "only '${key}' is allowed, no resolver and no escape"),
        ("${nope} ${", "only '${key}' is allowed, no resolver and no escape"),
        ("${a${recipe}}", "only '${key}' is allowed, no resolver and no escape"),
        ("${train.epoch}", "cannot interpolate '${train.epoch}': Interpolation key 'train.epoch' not found"),
        ("${description}", "cannot interpolate '${description}': "),
    ],
)
def test_bad_interpolation_has_a_position(project: Path, text: str, message: str) -> None:
    found = problems_of(project / "recipes" / "one.yaml", RECIPE + f"description: {text}\n")
    assert found.startswith("recipes/one.yaml:7:14: error: cannot interpolate")
    assert message in found


METRICS = (
    "accuracy, macro_f1, micro_f1, weighted_f1, matthews, f1, precision, recall, multirc_f1a, multirc_exact_match, "
    "record_f1, record_exact_match"
)


def test_every_problem_of_recipe_and_task_is_shown_at_once(project: Path) -> None:
    (project / "tasks" / "tiny.yaml").write_text(TASK.replace("column:", "colunm:").replace("[accuracy]", "[acuracy]"))
    text = """recipe: one
task: tiny
backbone: {name: mini, dtyp: bf16}
prompt: {lenght: 16}
learning_rate: 2
train:
  epochs: ten
  micro_batch_size: big
"""
    assert problems_of(project / "recipes" / "one.yaml", text).replace(str(project) + "/", "") == (
        f"""recipes/one.yaml:3:24: error: unknown key 'backbone.dtyp'
    backbone: {{name: mini, dtyp: bf16}}
                           ^
  hint: did you mean 'backbone.dtype'?
recipes/one.yaml:4:10: error: unknown key 'prompt.lenght'
    prompt: {{lenght: 16}}
             ^
  hint: did you mean 'prompt.length'?
recipes/one.yaml:5:1: error: unknown key 'learning_rate'
    learning_rate: 2
    ^
  hint: did you mean 'train.learning_rate'?
recipes/one.yaml:6:1: error: missing key 'train.learning_rate'
    train:
    ^
recipes/one.yaml:7:11: error: 'train.epochs' must be an integer, found text 'ten'
    epochs: ten
            ^
recipes/one.yaml:8:21: error: 'train.micro_batch_size' must be an integer or 'auto', found text 'big'
    micro_batch_size: big
                      ^
tasks/tiny.yaml:4:1: error: missing key 'labels.column'
    labels: {{scheme: classes, colunm: label, names: ["no", "yes"]}}
    ^
tasks/tiny.yaml:4:27: error: unknown key 'labels.colunm'
    labels: {{scheme: classes, colunm: label, names: ["no", "yes"]}}
                              ^
  hint: did you mean 'labels.column'?
tasks/tiny.yaml:5:11: error: 'metrics[0]' must be one of: {METRICS}; found text 'acuracy'
    metrics: [acuracy]
              ^
  hint: did you mean 'accuracy'?"""
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 2", "epochs: 2.5", ":5:11: error: 'train.epochs' must be an integer, found 2.5"),
        ("epochs: 2", "epochs: true", ":5:11: error: 'train.epochs' must be an integer, found true"),
        ("epochs: 2", "epochs: 0", ":5:11: error: 'train.epochs' must be greater than 0, found 0"),
        ("epochs: 2", "epochs:", ":5:10: error: 'train.epochs' must be an integer, found nothing"),
        ("5e-3", ".inf", ":6:18: error: 'train.learning_rate' must be a finite number, found inf"),
        ("5e-3", "'5e-3'", ":6:18: error: 'train.learning_rate' must be a number, found text '5e-3'"),
        ("{name: mini}", "mini", ":3:11: error: 'backbone' must be a mapping, found text 'mini'"),
        (
            "{name: mini}",
            "{name: 7}",
            "must be text, found 7\n    backbone: {name: 7}\n                     ^\n  hint: quote",
        ),
        ("one", "a/b", ":1:9: error: 'recipe' must be letters, digits, '_', '.' and '-', found text 'a/b'"),
        ("task: tiny", "task: tinny", ":2:7: error: there is no task 'tinny'"),
        ("task: tiny", "task: tinny", "hint: did you mean 'tiny'?"),
        ("task: tiny", "task: none/t.yaml", ":2:7: error: task file 'recipes/none/t.yaml' does not exist"),
        ("task: tiny", "task: {a: tiny}", ":2:7: error: 'task' must be text or a list, found a mapping"),
        ("task: tiny", "task: []", ":2:7: error: 'task' must have at least 1 items"),
        ("task: tiny", "task: [tiny, 7]", ":2:14: error: 'task[1]' must be text, found 7"),
        ("task: tiny", "task: [tiny, tinny]", ":2:14: error: there is no task 'tinny'"),
        ("task: tiny", "task: [tiny, tiny]", ":2:14: error: 'task' has two tasks that are called 'tiny'"),
        ("epochs: 2", "epochs: 2\n  mixing: 0.5", "'train.mixing' must be at least 1.0, found 0.5"),
        ("epochs: 2", "epochs: 2\n  mixing: evenly", "'train.mixing' must be 'proportional' or 'uniform' or"),
        ("task: tiny", "task: tiny\nmethod: linear_probe\ninit_from: r", "'method' linear_probe has none"),
        ("task: tiny", "task: tiny\nprompt: {reparameterization: mlp}\ninit_from: r", "brings a plain prompt, but"),
        (
            "task: tiny",
            "task: tiny\nexpect: [{metric: accuracy, task: tinny, value: 50, tolerance: 1}]",
            "'expect[0].task' is 'tinny', which the recipe does not have",
        ),
        ("epochs: 2", "pre_seq_len: 2", ":5:3: error: unknown key 'train.pre_seq_len'"),
        ("epochs: 2", "pre_seq_len: 2", "hint: here it is prompt.length"),
        ("epochs: 2", "num_virtual_tokens: 2", "hint: here it is prompt.length"),
        ("epochs: 2", "lr: 2", "hint: here it is train.learning_rate"),
        ("epochs: 2", "trust_remote_code: true", "hint: code from a model repository is never run"),
        ("recipe: one", "extends: none.yaml\nrecipe: one", "recipe file 'recipes/none.yaml' does not exist"),
        ("recipe: one", "extends: one.yaml\nrecipe: one", "'extends' goes in a circle: recipes/one.yaml → recipes/one"),
        ("recipe: one", "extends: quickstrat\nrecipe: one", "there is no recipe 'quickstrat': looked in recipes/"),
        ("recipe: one", "extends: quickstrat\nrecipe: one", "hint: did you mean 'quickstart'?"),
        ("epochs: 2", "epochs: 2\n  evaluate_every: 9 step", "a number of epochs, or text such as '200 steps', found"),
        (
            "epochs: 2",
            "epochs: 2\n  select_on: ten",
            "must be a share such as '10%', found text 'ten'",
        ),
        ("recipe: one", "extends: [a]\nrecipe: one", "'extends' must be the path of one YAML file"),
        ("recipe: one\n", "", ":1:1: error: the first key must be 'recipe', 'task' or 'suite'"),
        ("recipe: one", "suite: one", ":2:1: error: unknown key 'task'"),
    ],
)
def test_messages_of_recipes(project: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str) -> None:
    text = RECIPE.replace(old, new)
    if "first key" in message:
        text = "backbone: {name: mini}\n"
    path = Path("recipes/one.yaml")
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source: jsonl", "source: jsonll", ":2:16: error: 'data.source' must be one of: hub, jsonl, csv, tsv"),
        ("source: jsonl", "source: jsonll", "hint: did you mean 'jsonl'?"),
        ("source: jsonl, ", "", ":2:1: error: missing key 'data.source'"),
        (
            "scheme: classes",
            "scheme: clases",
            ":4:18: error: 'labels.scheme' must be one of: classes, labels, number, choices, iob2, tags, ",
        ),
        ("scheme: classes, ", "", ":4:1: error: missing key 'labels.scheme'"),
        ('["no", "yes"]', '["no"]', ":4:49: error: 'labels.names' must have at least 2 items"),
        ('["no", "yes"]', "[no, no]", ":4:49: error: 'labels.names' names 'no' twice"),
        ('["no", "yes"]', "7", "'labels.names' must be 'from_train' or a list or a mapping, found 7"),
        ('["no", "yes"]', "[0, 1]", "'labels.names[0]' must be text, found 0"),
        ("{question}", "{question", "'input.text': '{' at character 1 has no partner; write '{{' for the brace"),
        ("{question}", "{question!r}", "'input.text': '{question!r}' is not a column name"),
        ('["no", "yes"]', "{a: x, b: x}", "'labels.names' must name at least two classes"),
        ('"{question}", pair: "{passage}", truncate: pair', "x", "'input.text' names no column, such as '{text}'"),
        ("scheme: classes", "scheme: [classes]", "'labels.scheme' must be text, found a list"),
        (', pair: "{passage}"', "", "'input.truncate' is pair, but there is no 'input.pair'"),
        ("input: {", "input: {words: x, ", "unknown key 'input.words'"),
        ("source: jsonl", "source: jsonl, path: x", "hint: another kind of 'data' has this key, this one has not"),
        ("splits: {train: a.jsonl, ", "jsonl: 1, splits: {", "missing key 'data.splits.train'"),
        (
            "labels: {scheme: classes, column",
            "classes: 2\nlabels: {scheme: classes, colum",
            "missing key 'labels.column'",
        ),
        ('["no", "yes"]', "from_tain", "hint: did you mean 'from_train'?"),
        ("task: tiny", "task: tiny\nderive: {j: {colum: q, map: {a: b}}}", "hint: did you mean 'derive.j.column'?"),
        (
            "task: tiny",
            "task: tiny\nderive: {j: {column: q}}",
            ":2:13: error: 'derive.j' must have one of the keys map, replace, among, mark, marks, start, split,",
        ),
    ],
)
def test_messages_of_tasks(project: Path, old: str, new: str, message: str) -> None:
    assert message in problems_of(project / "tasks" / "tiny.yaml", TASK.replace(old, new))


def test_span_types_are_not_tags(project: Path) -> None:
    text = "task: t\ndata: {source: jsonl, splits: {train: a, validation: b}}\ninput: {words: w}\n"
    found = problems_of(
        project / "tasks" / "tiny.yaml", text + "labels: {scheme: iob2, column: t, names: [O, B-PER]}\n"
    )
    assert "'labels.names' lists span types; 'O' is a tag" in found
    assert "'labels.names' lists span types; 'B-PER' is a tag\n" in found


def test_a_missing_scheme_does_not_hide_a_bad_template(project: Path) -> None:
    text = TASK.replace('labels: {scheme: classes, column: label, names: ["no", "yes"]}\n', "")
    found = problems_of(project / "tasks" / "tiny.yaml", text.replace("{question}", "{question"))
    assert found.count("missing key 'labels'") == 1
    assert "'{' at character 1 has no partner" in found


def test_names_that_no_file_can_have(project: Path) -> None:
    path = project / "recipes" / "one.yaml"
    long = "x" * 300
    assert "there is no task 'xxx" in problems_of(path, RECIPE.replace("task: tiny", f"task: {long}"))
    assert "there is no recipe 'xxx" in problems_of(path, RECIPE + f"extends: {long}\n")


def test_an_unknown_scheme_does_not_hide_the_rest(project: Path) -> None:
    text = TASK.replace("scheme: classes", "scheme: clases").replace("task: tiny", "task: tiny\nversoin: 2")
    found = problems_of(project / "tasks" / "tiny.yaml", text)
    assert "unknown key 'versoin'" in found
    assert "'labels.scheme' must be one of" in found


def test_expectations_are_checked_against_the_task(project: Path) -> None:
    text = RECIPE + "expect: [{metric: acuracy, value: 1}, {metric: accuracy, split: test, value: 1}]\n"
    found = problems_of(project / "recipes" / "one.yaml", text)
    assert "'expect[0].metric' is 'acuracy', which task 'tiny' does not measure" in found
    assert "hint: did you mean 'accuracy'?" in found
    assert "'expect[1].split' is 'test', but task 'tiny' has no such split" in found


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.lr=1",
            "command line: error: unknown key 'train.lr'\n    train.lr=1\n  hint: here it is train.learning_rate",
        ),
        ("train.epochs=ten", "command line: error: 'train.epochs' must be an integer, found text 'ten'"),
        ("train", "command line: error: an override is written 'key=value'"),
        ("=1", "command line: error: an override is written 'key=value'"),
        ("train.epochs=[1", "command line: error: no valid YAML: while parsing a flow sequence"),
    ],
)
def test_overrides_are_checked_like_files(project: Path, override: str, message: str) -> None:
    assert message in problems_of(project / "recipes" / "one.yaml", RECIPE, override)


def test_a_later_override_wins_and_an_earlier_one_is_kept(project: Path) -> None:
    overrides = ["train.epochs=7", "train={batch_size: 2}", "train.batch_size=3"]
    resolved = load_recipe(project / "recipes" / "one.yaml", overrides)
    assert (resolved.recipe.train.epochs, resolved.recipe.train.batch_size) == (7, 3)


def test_a_childs_value_replaces_whatever_kind_the_parents_has(project: Path) -> None:
    (project / "recipes" / "parent.yaml").write_text(
        "train: {epochs: 1}\nexpect: [{metric: accuracy, value: 1, source: a, tolerance: 2}]\ndescription: parent\n"
    )
    path = project / "recipes" / "one.yaml"
    text = RECIPE.replace("recipe: one", "recipe: one\nextends: parent.yaml")
    path.write_text(text + "expect: [{metric: accuracy, value: 2}]\ndescription: '???'\n")
    found = {row.key: (row.value, row.origin) for row in explain(load_recipe(path))}
    assert found["expect[0].tolerance"] == (0.0, "default")
    assert found["description"] == ("???", f"{path}:9:14")
    assert "'train' must be a mapping, found a list" in problems_of(path, text.split("train:")[0] + "train: [1]\n")


def test_one_fault_does_not_hide_another(project: Path) -> None:
    path = project / "recipes" / "one.yaml"
    found = problems_of(path, "extends: none.yaml\n" + RECIPE + "trian: 1\ntask: tiny\n", "lr=1", "=2")
    for message in (
        "does not exist",
        "unknown key 'trian'",
        "duplicate key 'task'",
        "unknown key 'lr'",
        "is written 'key",
    ):
        assert message in found


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("extends=base.yaml", "command line: error: 'extends' can only be set in a file\n    extends=base.yaml"),
        ("task.version=3", "hint: the keys of a task are set in the task's own file"),
        ("expect[0].value=3", "command line: error: lists are replaced as a whole, not by item"),
        ("expect[0].value=3", "hint: give the whole list: expect=[…]"),
    ],
)
def test_what_the_command_line_cannot_set(project: Path, override: str, message: str) -> None:
    assert message in problems_of(project / "recipes" / "one.yaml", RECIPE, override)


def test_a_missing_key_is_placed_in_the_file_even_if_an_override_adds_to_its_section(project: Path) -> None:
    text = RECIPE.replace("  epochs: 2\n", "")
    found = problems_of(project / "recipes" / "one.yaml", text, "train.seed=3")
    assert found == "recipes/one.yaml:4:1: error: missing key 'train.epochs'\n    train:\n    ^"


def test_items_of_lists_are_named_in_hints(project: Path) -> None:
    found = problems_of(project / "recipes" / "one.yaml", RECIPE + "expect: [{metirc: accuracy, value: 1}]\n")
    assert "hint: did you mean 'expect[0].metric'?" in found


def test_an_override_can_replace_a_whole_section(project: Path) -> None:
    recipe = load_recipe(project / "recipes" / "one.yaml", ["prompt={length: 3}", "train.learning_rate=2e-5"]).recipe
    assert (recipe.prompt.length, recipe.train.learning_rate) == (3, 2e-5)


def test_explain_names_the_closest_key(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no key 'train\.epoch'\n  hint: did you mean 'train\.epochs'\?"):
        explain(load_recipe(project / "recipes" / "one.yaml"), "train.epoch")


ANY_TASK: TypeAdapter[Any] = TypeAdapter(Task)


@pytest.mark.parametrize(
    ("scheme", "names", "expected"),
    [
        ("classes", {"1": "bad", "2": "bad", "5": "good"}, 2),
        ("labels", {"a": "x", "b": "x", "c": "y"}, 2),
        ("tags", {"NN": "NOUN", "NNS": "NOUN", "VB": "VERB"}, 2),
        ("iob2", {"per": "PER", "person": "PER"}, 3),
        ("iob2", {"0": "O", "1": "B-PER", "2": "I-PER"}, 3),
        ("spans", {"per": "PER", "loc": "LOC"}, 5),
        ("classes", "from_train", None),
        ("iob2", "from_train", None),
    ],
)
def test_several_values_of_one_name_have_one_logit(scheme: str, names: Any, expected: int | None) -> None:
    reads = {"words": "words"} if scheme in ("tags", "iob2") else {"text": "text" if scheme == "spans" else "{text}"}
    task = ANY_TASK.validate_python(
        {
            "task": "t",
            "data": {"source": "jsonl", "splits": {"train": "t.jsonl", "validation": "t.jsonl"}},
            "input": reads,
            "labels": {"scheme": scheme, "column": "label", "names": names},
        }
    )
    assert not list(task.faults())
    assert task.logits()[1] == expected


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), max_size=20) | (
    st.sampled_from(
        ["no", "1e-3", "null", "", "2026-01-01", "a: b", "# x", "???", "'", '"', "- a", "\t", "\n", "\x85", "a\u2028b"]
    )
)


@pytest.mark.slow
@settings(deadline=None)
@given(TEXTS, TEXTS, st.floats(1e-30, 1e30), st.lists(TEXTS, min_size=2, max_size=4, unique=True))
def test_resolved_yaml_loads_again_to_an_equal_object(
    tmp_path_factory: pytest.TempPathFactory, text: str, column: str, rate: float, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    values: dict[str, Any] = {
        "task": "tiny",
        "description": text,
        "data": {"source": "jsonl", "splits": {"train": text, "validation": column}},
        "input": {"text": "{x}"},
        "labels": {"scheme": "classes", "column": column or "c", "names": names},
    }
    task = ANY_TASK.validate_python(values)
    (folder / "task.yaml").write_text(resolved_yaml(task), encoding="utf-8")
    resolved = load_file(folder / "task.yaml")
    assert isinstance(resolved, ResolvedTask)
    assert resolved.task == task
    recipe = Recipe.model_validate(
        {
            "recipe": "r",
            "task": "task.yaml",
            "backbone": {"name": text or "b"},
            "train": {"epochs": 1, "learning_rate": rate},
        }
    )
    (folder / "recipe.yaml").write_text(resolved_yaml(recipe), encoding="utf-8")
    assert load_recipe(folder / "recipe.yaml").recipe == recipe


def test_the_schema_can_be_written() -> None:
    """JSON Schema of both files exists and carries the docstrings, so that editors can show them."""
    schema = json.dumps([TypeAdapter(Task).json_schema(), Recipe.model_json_schema()])
    assert "Prompt vectors per layer" in schema
    assert "Repository, such as" in schema
