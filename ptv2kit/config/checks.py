"""What no single field of a task or recipe can know: settings that contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptv2kit.config.layers import covered_layers, layers_on_disk
from ptv2kit.config.merge import Merged, Override, dotted
from ptv2kit.config.recipe import DEEP_METHODS, Recipe
from ptv2kit.config.rows import Replacement
from ptv2kit.config.sources import GoldConllSource
from ptv2kit.config.task import (
    AnyTask,
    ChoicesTask,
    ClassesTask,
    Iob2Labels,
    Iob2Task,
    QuestionInput,
    StartEndTask,
    TextInput,
)
from ptv2kit.config.template import parse_template
from ptv2kit.config.verbalizer import check_verbalizer
from ptv2kit.config.yaml import KeyPath
from ptv2kit.errors import Problem, did_you_mean

_ANY_ANSWER = ("squad_f1", "squad_exact_match")
_NOT_ALWAYS_DEFINED = ("squad_has_answer_exact_match", "squad_has_answer_f1", "squad_no_answer_accuracy")
"""Over the questions with, or without, an answer; a split may have none of them."""


def check_task(task: AnyTask, merged: Merged) -> list[Problem]:
    """The contradictions within a task, each at its line and column."""
    problems = _check_lists(task, merged) + _check_made_columns(task, merged)
    if isinstance(task.data, GoldConllSource) and task.data.layout == "propbank" and task.data.unit == "sentence":
        place = merged.place(("data", "unit"))
        problems.append(place.problem("'data.unit' is sentence, but the propbank layout has no named entities"))
    if isinstance(task, ClassesTask | ChoicesTask):
        problems += check_verbalizer(task, merged)
    match task:
        case ClassesTask():
            problems += _check_texts(task.input, merged) + _check_classes(task, merged)
        case ChoicesTask():
            problems += _check_choices(task, merged)
        case Iob2Task():
            problems += _check_types(task.labels, merged)
        case StartEndTask():
            problems += _check_question(task.input, merged) + _check_answers(task, merged)
    return problems


def check_recipe(recipe: Recipe, tasks: Sequence[AnyTask], merged: Merged) -> list[Problem]:
    """What a recipe asks of its tasks that they do not have."""
    problems: list[Problem] = []
    names = [task.task for task in tasks]
    for index, name in enumerate(names):
        if name in names[:index]:
            problems.append(merged.place(("task", index)).problem(f"'task' has two tasks that are called '{name}'"))
    for task in tasks:
        length = recipe.train.max_length
        if isinstance(task, StartEndTask) and length is not None and task.input.stride >= length:
            message = f"'train.max_length' ({length}) must be more than 'input.stride' of task '{task.task}'"
            place = merged.place(("train", "max_length"))
            problems.append(place.problem(f"{message} ({task.input.stride})"))
        problems += _check_limits(recipe, task, merged)
    if recipe.limit.test is not None and all(task.data.splits.test is None for task in tasks):
        without = f"task '{names[0]}' has no test split" if len(names) == 1 else "no task has a test split"
        problems.append(merged.place(("limit", "test")).problem(f"'limit.test' is set, but {without}"))
    if recipe.method == "fine_tuning":
        for key, value in (("dtype", recipe.backbone.dtype), ("quantization", recipe.backbone.quantization)):
            if value not in ("fp32", None):
                message = f"'backbone.{key}' is {value}, but 'method' fine_tuning trains the backbone, which needs fp32"
                problems.append(merged.place(("backbone", key)).problem(message))
    if recipe.method == "linear_probe" and any(task.head == "verbalizer" for task in tasks):
        message = "'method' linear_probe trains the head alone, but a verbalizer has nothing to train"
        problems.append(merged.place(("method",)).problem(message, "set a method with a prompt, or head: linear"))
    problems += _check_first_words(recipe, tasks, merged) + _check_trunk_cache(recipe, merged)
    problems += _check_batch(recipe, merged) + _check_compile(recipe, merged)
    problems += _check_layers(recipe, merged)
    return problems + _check_start(recipe, merged) + _check_expectations(recipe, tasks, merged)


def _check_layers(recipe: Recipe, merged: Merged) -> list[Problem]:
    """Layers that a backbone on this machine does not have; of the hub's it is found when it is loaded."""
    if recipe.method not in DEEP_METHODS or recipe.prompt.layers == "all":
        return []
    origin = merged.place(("backbone", "name"))
    base = Path() if isinstance(origin, Override) else Path(origin.path).parent
    count = layers_on_disk(recipe.backbone.name, base)
    if count is None:
        return []
    try:
        covered_layers(recipe.prompt.layers, count)
    except ValueError as error:
        return [merged.place(("prompt", "layers")).problem(f"'prompt.layers': {error}")]
    return []


def _check_first_words(recipe: Recipe, tasks: Sequence[AnyTask], merged: Merged) -> list[Problem]:
    """What `prompt.init` takes its words from."""
    init, words = recipe.prompt.init, recipe.prompt.words
    if init == "words" and (words is None or not words.strip()):
        hint = 'such as words: "the answer is yes or no"'
        return [merged.place(("prompt", "init")).problem("'prompt.init' words needs 'prompt.words'", hint)]
    if init != "words" and words is not None:
        return [merged.key(("prompt", "words")).problem(f"'prompt.words' needs 'prompt.init: words', found {init}")]
    if init == "labels":
        nameless = [task.task for task in tasks if not isinstance(task, ClassesTask | Iob2Task)]
        if nameless:
            message = f"'prompt.init' is labels, but the labels of task '{nameless[0]}' are not words"
            return [merged.place(("prompt", "init")).problem(message, "set prompt.init to words or tokens")]
    return []


def _check_batch(recipe: Recipe, merged: Merged) -> list[Problem]:
    """A batch is so many examples, or so many tokens."""
    train = recipe.train
    if (train.batch_size is None) != (train.batch_tokens is None):
        return []
    if train.batch_size is None:
        place = merged.place(("train", "batch_size"))
        return [place.problem("'train.batch_size' is null, and there is no 'train.batch_tokens'")]
    place = merged.place(("train", "batch_tokens"))
    message = f"'train.batch_tokens' takes the place of 'train.batch_size', which is {train.batch_size}"
    return [place.problem(message, "set train.batch_size to null, or leave it out")]


def _check_compile(recipe: Recipe, merged: Merged) -> list[Problem]:
    """Only passes that are the same for all lengths can be compiled once."""
    train = recipe.train
    if not train.compile:
        return []
    if recipe.method == "fine_tuning":
        reason = "'method' fine_tuning trains the backbone, and what is compiled is a frozen one"
    elif train.gradient_checkpointing:
        reason = "'train.gradient_checkpointing' is true, which is not compiled with every backbone"
    elif recipe.backbone.quantization is not None:
        reason = f"'backbone.quantization' is {recipe.backbone.quantization}"
    elif recipe.distributed.strategy.startswith("zero"):
        reason = f"'distributed.strategy' is {recipe.distributed.strategy}, which gathers weights within a pass"
    else:
        return []
    place = merged.place(("train", "compile"))
    return [place.problem(f"'train.compile' is true, but {reason}", "set train.compile to false")]


def _check_trunk_cache(recipe: Recipe, merged: Merged) -> list[Problem]:
    """What needs layers below the lowest prompt, as far as it shows without the backbone."""
    wanted, frozen = recipe.train.cache_trunk, recipe.method == "linear_probe"
    if wanted not in ("memory", "disk") or frozen or (recipe.method in DEEP_METHODS and recipe.prompt.layers != "all"):
        return []
    place = merged.place(("train", "cache_trunk"))
    why = "'prompt.layers' is all" if recipe.method in DEEP_METHODS else f"'method' is {recipe.method}"
    message = f"'train.cache_trunk' is {wanted}, but {why}, so that no layer is below the lowest prompt"
    return [place.problem(message, "set prompt.layers to the upper ones, such as 7.., or train.cache_trunk to off")]


def _check_start(recipe: Recipe, merged: Merged) -> list[Problem]:
    """`init_from` brings a plain prompt."""
    if recipe.init_from is None:
        return []
    place = merged.place(("init_from",))
    if recipe.prompt_length == 0:
        return [place.problem(f"'init_from' brings a prompt, but 'method' {recipe.method} has none")]
    if recipe.reparameterization != "none":
        message = f"'init_from' brings a plain prompt, but 'prompt.reparameterization' is {recipe.reparameterization}"
        return [place.problem(message, "set prompt.reparameterization to none")]
    return []


def _check_expectations(recipe: Recipe, tasks: Sequence[AnyTask], merged: Merged) -> list[Problem]:
    problems: list[Problem] = []
    names = [task.task for task in tasks]
    for index, expectation in enumerate(recipe.expect):
        if expectation.task is None and len(tasks) > 1:
            place = merged.place(("expect", index))
            problems.append(
                place.problem(f"'expect[{index}]' must say which 'task'", f"it is one of {', '.join(names)}")
            )
            continue
        if expectation.task is not None and expectation.task not in names:
            place = merged.place(("expect", index, "task"))
            message = f"'expect[{index}].task' is '{expectation.task}', which the recipe does not have"
            problems.append(place.problem(message, did_you_mean(expectation.task, names)))
            continue
        task = tasks[0 if expectation.task is None else names.index(expectation.task)]
        splits = list(task.data.splits.by_name())
        if expectation.metric not in task.metrics:
            message = f"'expect[{index}].metric' is '{expectation.metric}', which task '{task.task}' does not measure"
            place = merged.place(("expect", index, "metric"))
            problems.append(place.problem(message, did_you_mean(expectation.metric, list(task.metrics))))
        if expectation.split not in splits:
            place = merged.place(("expect", index, "split"))
            message = f"'expect[{index}].split' is '{expectation.split}', but task '{task.task}' has no such split"
            close = did_you_mean(expectation.split, splits)
            problems.append(place.problem(message, close if close.startswith("did") else f"it has {', '.join(splits)}"))
    return problems


def _check_limits(recipe: Recipe, task: AnyTask, merged: Merged) -> list[Problem]:
    problems: list[Problem] = []
    grouped = isinstance(task, ClassesTask) and task.labels.group is not None
    for name, limit in recipe.limit.model_dump().items():
        place = merged.place(("limit", name))
        if limit is not None and name != "train" and grouped:
            message = f"'limit.{name}' would tear apart the groups that task '{task.task}' scores together"
            problems.append(place.problem(message))
    return problems


def _check_made_columns(task: AnyTask, merged: Merged) -> list[Problem]:
    """Texts that are the same for every row, and names that are given twice."""
    problems: list[Problem] = []
    if task.distinct is not None:
        problems += _check_columns(merged, ("distinct",), (task.distinct,), "{id}")
    made = [step.item for step in task.expand]
    for index, item in enumerate(made):
        if item in made[:index]:
            place = merged.place(("expand", index, "item"))
            problems.append(place.problem(f"'expand' makes the column '{item}' twice"))
    for name, derivation in task.derive.items():
        if name in made:
            place = merged.key(("derive", name))
            problems.append(place.problem(f"'derive' makes the column '{name}', which 'expand' has made"))
        if isinstance(derivation, Replacement):
            problems += _check_columns(merged, ("derive", name, "text"), (derivation.text,), "{text}")
            if "" in derivation.replace:
                place = merged.key(("derive", name, "replace"))
                problems.append(place.problem(f"'derive.{name}.replace' replaces an empty text"))
    return problems


def _check_lists(task: AnyTask, merged: Merged) -> list[Problem]:
    names: Any = None if isinstance(task, StartEndTask) else task.labels.names
    lists: list[tuple[KeyPath, Any]] = [(("labels", "names"), names), (("metrics",), task.metrics)]
    problems: list[Problem] = []
    for path, listed in lists:
        if isinstance(listed, tuple) and len(set(listed)) < len(listed):
            twice = next(name for name in listed if listed.count(name) > 1)
            problems.append(merged.place(path).problem(f"'{'.'.join(map(str, path))}' names '{twice}' twice"))
    return problems


def _check_texts(section: TextInput, merged: Merged) -> list[Problem]:
    problems = _check_columns(merged, ("input", "text"), (section.text, section.pair or ""), "{text}")
    if section.truncate == "pair" and section.pair is None:
        place = merged.place(("input", "truncate"))
        problems.append(place.problem("'input.truncate' is pair, but there is no 'input.pair'"))
    return problems


def _check_classes(task: ClassesTask, merged: Merged) -> list[Problem]:
    problems: list[Problem] = []
    names, group = task.labels.names, task.labels.group
    if isinstance(names, dict) and len(set(names.values())) < 2:
        problems.append(merged.place(("labels", "names")).problem("'labels.names' must name at least two classes"))
    for index, metric in enumerate(task.metrics):
        place = merged.place(("metrics", index))
        if not metric.startswith(("multirc_", "record_")):
            continue
        if group is None:
            problems.append(place.problem(f"metric '{metric}' needs 'labels.group'"))
        elif metric.startswith("record_") and (group.candidate is None or group.golds is None):
            problems.append(place.problem(f"metric '{metric}' needs 'labels.group.candidate' and 'labels.group.golds'"))
    if group is not None:
        problems += _check_columns(merged, ("labels", "group", "by"), (group.by,), "{idx}")
        if group.candidate is not None:
            problems += _check_columns(merged, ("labels", "group", "candidate"), (group.candidate,), "{entity}")
    if group is not None and names == "from_train":
        place = merged.place(("labels", "names"))
        message = "'labels.group' needs 'labels.names': the last of them means that a row's answer is right"
        problems.append(place.problem(message))
    return problems


def _check_choices(task: ChoicesTask, merged: Merged) -> list[Problem]:
    problems: list[Problem] = []
    choices, names = task.input.choices, task.labels.names
    if len(set(choices)) < len(choices):
        place = merged.place(("input", "choices"))
        problems.append(place.problem("'input.choices' has the same choice twice"))
    for index, choice in enumerate(choices):
        problems += _check_columns(merged, ("input", "choices", index), (choice,), "{choice1}")
    if names is not None and len(names) != len(choices):
        place = merged.place(("labels", "names"))
        problems.append(place.problem(f"'labels.names' has {len(names)} names for {len(choices)} choices"))
    return problems


def _check_types(labels: Iob2Labels, merged: Merged) -> list[Problem]:
    """`names` lists types, not tags."""
    names = labels.names
    if isinstance(names, str) or labels.numbered:
        return []
    problems: list[Problem] = []
    listed: list[tuple[str | int, str]] = (
        list(enumerate(names))
        if isinstance(names, tuple)
        else [(key, name) for key, value in names.items() for name in (key, value)]
    )
    for key, name in listed:
        if name == "O" or name.startswith(("B-", "I-")):
            place = merged.place(("labels", "names", key))
            hint = "write PER for the tags B-PER and I-PER"
            problems.append(place.problem(f"'labels.names' lists span types; '{name}' is a tag", hint))
    return problems


def _check_question(section: QuestionInput, merged: Merged) -> list[Problem]:
    problems = _check_columns(merged, ("input", "question"), (section.question,), "{question}")
    problems += _check_columns(merged, ("input", "context"), (section.context,), "{context}")
    if section.stride >= section.max_length:
        message = f"'input.stride' must be less than 'input.max_length' ({section.max_length}), found {section.stride}"
        problems.append(merged.place(("input", "stride")).problem(message))
    return problems


def _check_answers(task: StartEndTask, merged: Merged) -> list[Problem]:
    problems: list[Problem] = []
    labels = task.labels
    if (labels.column is None) == (labels.text is None):
        hint = "column for SQuAD's layout; text, with start if there is one, for columns of their own"
        problems.append(merged.key(("labels",)).problem("'labels' must have either 'column' or 'text'", hint))
    if labels.start is not None and labels.text is None:
        problems.append(merged.place(("labels", "start")).problem("'labels.start' needs 'labels.text'"))
    for index, metric in enumerate(task.metrics):
        if not labels.unanswerable and metric not in _ANY_ANSWER:
            place = merged.place(("metrics", index))
            problems.append(place.problem(f"metric '{metric}' needs 'labels.unanswerable: true'"))
    if not labels.unanswerable and "null_threshold" in labels.model_fields_set and labels.null_threshold:
        place = merged.place(("labels", "null_threshold"))
        problems.append(place.problem("'labels.null_threshold' needs 'labels.unanswerable: true'"))
    if task.metrics[0] in _NOT_ALWAYS_DEFINED or task.metrics[0].endswith("_threshold"):
        place = merged.place(("metrics", 0))
        problems.append(place.problem(f"the first metric chooses the best epoch; '{task.metrics[0]}' cannot"))
    return problems


def _check_columns(merged: Merged, path: KeyPath, templates: Sequence[str], example: str) -> list[Problem]:
    if any(parse_template(template).columns for template in templates):
        return []
    return [merged.place(path).problem(f"'{dotted(path)}' names no column, such as '{example}'")]
