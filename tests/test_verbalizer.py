"""`head: verbalizer` as a user meets it: what is refused in a file, what `preview` and `validate` show, recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.cli.main import main
from ptv2kit.errors import ConfigError
from ptv2kit.spec.load import load_recipe, load_task, resolved_yaml
from tests.tiny_language_models import save_language_tokenizer

DATA = "data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}\n"
WORDS = 'verbalizer: {no: " no", yes: " yes"}'
TASK = (
    f'task: t\n{DATA}input: {{text: "{{a}} {{mask}}", pair: "{{b}}"}}\n'
    f"labels: {{scheme: classes, column: c, names: [no, yes]}}\nhead: verbalizer\n{WORDS}\n"
)
CHOICES = (
    f'task: t\n{DATA}input: {{text: "{{a}} {{mask}}", choices: [" {{b}}", " {{c}}"]}}\n'
    "labels: {scheme: choices, column: n}\nhead: verbalizer\n"
)
RECIPE = "recipe: r\ntask: ./t.yaml\nbackbone: {name: x}\ntrain: {epochs: 1, learning_rate: 0.1}\n"


def problems_of(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as info:
        load_task(path)
    return [
        f"{problem.location.removeprefix(str(path))} {problem.message}" + (f" ({problem.hint})" if problem.hint else "")
        for problem in info.value.problems
    ]


@pytest.mark.parametrize(
    ("task", "old", "new", "problems"),
    [
        (TASK, "{mask}", "it", [":3:15 'head' verbalizer needs '{mask}' in 'input.text' or 'input.pair' "
                                "(such as '{text} It was {mask}.')"]),
        (TASK, '"{b}"', '"{mask}"', [":3:35 '{mask}' must stand once, found it 2 times"]),
        (TASK, '"{a} {mask}", pair: "{b}"', '"it {mask}"',
         [":3:15 'input' names no column besides '{mask}', such as '{text}'"]),
        (TASK, WORDS, "", [":5:7 'head' verbalizer needs the key 'verbalizer' "
                           '(such as verbalizer: {no: " No", yes: " Yes"})']),
        (TASK, "yes:", "yess:", [
            ":6:1 'verbalizer' has no word for the class 'yes'",
            ":6:25 'verbalizer' has a word for 'yess', which is not a class (did you mean 'yes'?)",
        ]),
        (TASK, "names: [no, yes]", "names: [no, yes, maybe, never]", [
            ":6:1 'verbalizer' has no word for the classes 'maybe', 'never'",
        ]),
        (TASK, '" yes"', '" no"', [":6:30 ' no' is both of 'no' and of 'yes'"]),
        (TASK, '" yes"', '[" yes", " yes"]', [":6:39 ' yes' is twice a word of 'yes'"]),
        (TASK, '" yes"', '""', [":6:30 'verbalizer.yes' has an empty word"]),
        (TASK, '" yes"', "true", [":6:30 'verbalizer.yes' must be text or a list, found true"]),
        (TASK, '" yes"', "[]", [":6:30 'verbalizer.yes' must have at least 1 items"]),
        (TASK, "head: verbalizer\n", "", [
            ":5:1 'verbalizer' needs 'head: verbalizer' (set head: verbalizer, or take the key out)",
        ]),
        (TASK, "task: t\n", 'task: t\nderive: {mask: {text: "{a}", replace: {x: y}}}\n', [
            ":2:10 a column 'mask' would be hidden by '{mask}', where the words belong (give the column another name)",
        ]),
        (TASK, "head: verbalizer", "head: verbaliser", [
            ":5:7 'head' must be one of: linear, verbalizer; found text 'verbaliser' (did you mean 'verbalizer'?)",
        ]),
        (CHOICES, '" {c}"]', '"{mask}"]', [
            ":3:47 a choice cannot hold '{mask}': it is what fills the mask in 'input.text'",
        ]),
        (CHOICES, '" {c}"]', '" {c}"], truncate: pair', [
            ":3:66 'input.truncate' is pair, but a choice that fills a mask is never cut off",
        ]),
        (CHOICES, "{a} {mask}", "{a}", [":3:15 'head' verbalizer needs '{mask}' in 'input.text' "
                                        "(such as '{text} It was {mask}.')"]),
        (CHOICES, "head: verbalizer", f"head: verbalizer\n{WORDS}", [
            ":6:1 unknown key 'verbalizer' (did you mean 'verbalizer_tokens'?)",
        ]),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_at_its_place(
    task: str, old: str, new: str, problems: list[str], tmp_path: Path
) -> None:
    assert old in task
    assert problems_of(tmp_path / "t.yaml", task.replace(old, new, 1)) == problems


@pytest.mark.parametrize(
    "text", [TASK, CHOICES, TASK.replace('" yes"', '[" yes", " so"]'), TASK.replace("[no, yes]", "{a: no, b: yes}")]
)
def test_a_resolved_task_loads_again_to_the_same(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(text)
    task = load_task(tmp_path / "t.yaml").task
    (tmp_path / "again.yaml").write_text(resolved_yaml(task))
    assert load_task(tmp_path / "again.yaml").task == task


def test_linear_tasks_resolve_and_load_with_the_keys_that_they_do_not_use(tmp_path: Path) -> None:
    linear = TASK.replace("head: verbalizer\n", "").replace(WORDS, "")
    (tmp_path / "t.yaml").write_text(linear)
    task = load_task(tmp_path / "t.yaml").task
    assert task.head == "linear"
    (tmp_path / "again.yaml").write_text(resolved_yaml(task))
    assert load_task(tmp_path / "again.yaml").task == task


@pytest.mark.parametrize(
    ("task", "recipe", "message"),
    [
        (TASK, "method: linear_probe", "'method' linear_probe trains the head alone, but a verbalizer has nothing to"),
        (TASK, "prompt: {init: words}", "'prompt.init' words needs 'prompt.words'"),
        (TASK, 'prompt: {init: words, words: " "}', "'prompt.init' words needs 'prompt.words'"),
        (TASK, 'prompt: {words: "ada"}', "'prompt.words' needs 'prompt.init: words', found normal"),
        (CHOICES, "prompt: {init: labels}", "'prompt.init' is labels, but the labels of task 't' are not words"),
    ],
)
def test_what_a_recipe_cannot_have_of_a_verbalizer(task: str, recipe: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(task)
    (tmp_path / "r.yaml").write_text(f"{RECIPE}{recipe}\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(tmp_path / "r.yaml")
    [problem] = caught.value.problems
    assert problem.message.startswith(message)
    assert problem.location.startswith(f"{tmp_path / 'r.yaml'}:5:")


@pytest.fixture
def folder(tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows, and a backbone whose tokenizer knows the words."""
    rows = [{"a": "is it", "b": "ada met alan", "c": "yes"}, {"a": "it is", "b": "so", "c": "no"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tmp_path / "model"
    model.mkdir()
    tokenizer = save_language_tokenizer("bert", model)
    config = json.loads((backbone / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": len(tokenizer)}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_preview_shows_the_mask_and_what_fills_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "t.yaml").write_text(TASK)
    assert main(["preview", "t.yaml", "--backbone", "model"]) == 0
    out = capsys.readouterr().out
    assert "label after a sub-word: what is predicted there" in out
    assert "\nno: no\nyes: yes\n" in out
    assert "▒… [CLS] is it [MASK]/yes [SEP] ada met alan [SEP]" in out
    assert main(["preview", "t.yaml", "--backbone", "model", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["verbalizer"] == {"no": [["no"]], "yes": [["yes"]]}
    assert [token["label"] for token in shown["rows"][0]["inputs"][0]["tokens"]][:5] == ["", "", "", "yes", ""]


def test_preview_shows_words_of_several_tokens_by_class(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = TASK.replace('" yes"', '" yes, so"') + "verbalizer_tokens: any\n"
    (folder / "t.yaml").write_text(words)
    assert main(["preview", "t.yaml", "--backbone", "model", "-n", "1"]) == 0
    out = capsys.readouterr().out
    assert "✗ class no: ▒… [CLS] is it [MASK]/no [SEP]" in out
    assert "✓ class yes: ▒… [CLS] is it [MASK]/yes [MASK]/, [MASK]/so [SEP]" in out


def test_validate_shows_the_words_and_reads_every_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "t.yaml").write_text(TASK)
    assert main(["validate", "t.yaml", "--data", "--backbone", "model"]) == 0
    assert "the mask is filled for yes: yes\n" in capsys.readouterr().out
    assert main(["validate", "t.yaml", "--data", "--backbone", "model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["verbalizer"] == {"no": [["no"]], "yes": [["yes"]]}


@pytest.mark.parametrize("verb", ["preview", "validate"])
def test_a_word_of_two_tokens_is_said_with_its_place(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "t.yaml").write_text(TASK.replace('" yes"', '" mayly"'))
    words = ["--data"] if verb == "validate" else []
    assert main([verb, "t.yaml", "--backbone", "model", *words]) == 2
    error = capsys.readouterr().err
    assert "t.yaml:6:30: error: ' mayly' is two tokens in this vocabulary: 'may', '##ly'" in error
    assert "hint: take a word that is one token, or set verbalizer_tokens: any" in error


def test_every_shipped_cloze_task_is_that_of_its_linear_one() -> None:
    tasks = Path(__file__).parents[1] / "tasks"
    names = sorted(path.stem for path in tasks.glob("*_*.yaml") if path.stem.endswith(("_cloze", "_decoder")))
    assert names == sorted(
        [f"{name}_{kind}" for name in ("boolq", "cb", "rte", "sst2") for kind in ("cloze", "decoder")] + ["copa_cloze"]
    )
    for name in names:
        cloze: Any = load_task(tasks / f"{name}.yaml").task
        linear: Any = load_task(tasks / f"{name.partition('_')[0]}.yaml").task
        assert (cloze.labels, cloze.metrics, cloze.data.splits) == (linear.labels, linear.metrics, linear.data.splits)
        assert cloze.data.mirror == linear.task
        assert (cloze.head, linear.head) == ("verbalizer", "linear")
