"""Shapes of data that users bring: character spans, options that differ, dialogues, relations, shares as splits."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertTokenizer

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import Feature, Prediction
from ptv2kit.data.sources import read_rows, read_split, read_splits, split
from ptv2kit.data.templates import task_rows
from ptv2kit.data.tokens import Subwords
from ptv2kit.data.unlabelled import given_columns, unlabelled_rows
from ptv2kit.errors import DataError
from ptv2kit.models.heads import BackboneOutput, ChoicesHead, Pooling
from tests.data.small_tasks import TASKS, data_of, task_of

TEXT = "Ada met Alan's aunt in New-York."
SPANS: dict[str, Any] = {
    "input": {"text": "text", "max_length": 32},
    "labels": {"scheme": "spans", "column": "spans", "names": ["PER", "LOC"]},
}
OPTIONS: dict[str, Any] = {
    "input": {"text": "{text}", "options": "options", "option": "is it {option}", "max_length": 24},
    "labels": {"scheme": "choices", "column": "right"},
}


def scheme_of(backbone: Path, section: dict[str, Any], max_length: int = 32) -> LabelScheme:
    task = task_of({key: value for key, value in section.items() if key != "rows"})
    subwords = Subwords(BertTokenizer.from_pretrained(backbone), max_length)
    return build_scheme(task, subwords, [Row(row, "a:1") for row in section.get("rows", [])])


def with_labels(section: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {**section, "labels": {**section["labels"], **keys}}


@pytest.mark.parametrize(
    "spans",
    [
        [[0, 3, "PER"], [23, 31, "LOC"]],
        [{"start": 0, "end": 3, "label": "PER", "token_start": 0}, {"start": 23, "end": 31, "label": "LOC"}],
        [{"id": 1, "start_offset": 0, "end_offset": 3, "label": "PER"}, {"start": 23, "end": 31, "labels": ["LOC"]}],
        [[22, 31, "LOC"], [0, 3, "PER"]],  # a blank more, and not in order
    ],
)
def test_spans_in_the_layouts_of_annotation_tools(backbone: Path, spans: list[Any]) -> None:
    scheme = scheme_of(backbone, SPANS)
    row = Row({"text": TEXT, "spans": spans}, "a:1")
    [feature] = scheme.encode(row, 0)
    words = ["Ada", "met", "Alan", "'", "s", "aunt", "in", "New", "-", "York", "."]
    tags = ["B-PER", *["O"] * 6, "B-LOC", "I-LOC", "I-LOC", "O"]
    assert feature.reference == tuple(tags)
    answer = scheme.answer(row, Prediction(0, tuple(tags), 0.9, (), probabilities=(0.9,) * len(words)))
    assert answer["words"] == words
    found = [(span["type"], span["text"], span["start"], span["end"]) for span in answer["spans"]]
    assert found == [("PER", "Ada", 0, 3), ("LOC", "New-York", 23, 31)]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[0, 2, "PER"]], "a:1: error: span 0-2 'Ad' is not made of whole words, which are 'Ada'"),
        ([[0, 3, "PER"], [0, 7, "PER"]], "span 0-3 'Ada' overlaps 0-7 'Ada met'"),
        ([[30, 40, "PER"]], "span 1 in column 'spans', 30-40, is outside the text, which has 32 characters"),
        ([[0, 3, "PRE"]], "did you mean 'PER'?"),
        ([[0, 3]], "must be [start, end, label], or a mapping with start, end and label. Got [0, 3]"),
        ([{"start": 0, "end": 3, "labels": ["PER", "LOC"]}], "must be [start, end, label]"),
    ],
)
def test_spans_that_cannot_be_are_named(backbone: Path, spans: list[Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        scheme_of(backbone, SPANS).encode(Row({"text": TEXT, "spans": spans}, "a:1"), 0)
    assert message in str(caught.value)


def test_spans_are_widened_dropped_and_the_longest_kept(backbone: Path) -> None:
    row = Row({"text": TEXT, "spans": [[0, 2, "PER"], [8, 12, "PER"], [8, 19, "LOC"]]}, "a:1")
    for misaligned, first in (("widen", "B-PER"), ("drop", "O")):
        section = with_labels(SPANS, misaligned=misaligned, overlapping="longest")
        [feature] = scheme_of(backbone, section).encode(row, 0)
        assert feature.reference[:6] == (first, "O", "B-LOC", "I-LOC", "I-LOC", "I-LOC")


@pytest.mark.parametrize("append", [None, {"column": "words", "at": "verb"}])
def test_each_word_of_a_long_sentence_is_tagged_in_one_window(backbone: Path, append: Any) -> None:
    words = [name for name in ("ada", "alan", "paris", "rome", "met") for _ in range(7)]
    tags = [f"B-{'PER' if word in ('ada', 'alan') else 'LOC'}" if word != "met" else "O" for word in words]
    section: dict[str, Any] = {
        "input": {"words": "words", "max_length": 12, "stride": 4, "append": append},
        "labels": {"scheme": "iob2", "column": "tags", "names": ["PER", "LOC"]},
    }
    scheme = scheme_of(backbone, section, 12)
    features = scheme.encode(Row({"words": words, "tags": tags, "verb": 34}, "a:1"), 0)
    assert len(features) > 3
    assert all(len(feature.inputs[0].ids) <= 12 for feature in features)
    owners = Counter(word for feature in features for word, anchor in enumerate(feature.notes) if anchor >= 0)
    assert owners == dict.fromkeys(range(len(words)), 1)
    scored = sum(sum(label >= 0 for label in labels_of(feature)) for feature in features)
    assert scored == len(words)
    batch = scheme.collate(features)
    logits = torch.nn.functional.one_hot(batch.labels.clamp(min=0), len(scheme.names)).float() * 9
    [prediction] = scheme.join(scheme.decode(features, logits))
    assert prediction.label == tuple(tags)
    assert scheme.score([prediction]).values["span_f1"] == 100.0
    cut = scheme_of(backbone, {**section, "input": {**section["input"], "stride": 0}}, 12)
    assert len(cut.encode(Row({"words": words, "tags": tags, "verb": 34}, "a:1"), 0)) == 1


def labels_of(feature: Feature) -> tuple[int, ...]:
    assert isinstance(feature.labels, tuple)
    return feature.labels


def test_rows_with_different_numbers_of_options_share_a_batch(backbone: Path) -> None:
    scheme = scheme_of(backbone, OPTIONS)
    rows = [{"text": "ada", "options": ["paris", "rome"], "right": 1}]
    rows.append({"text": "alan", "options": ["ada", "paris", "rome", "met"], "right": 2})
    features = [scheme.encode(Row(row, "a:1"), index)[0] for index, row in enumerate(rows)]
    batch = scheme.collate(features)
    assert batch.cloze["choice_rows"].tolist() == [[0, 1, -1, -1], [2, 3, 4, 5]]
    head = ChoicesHead(4, 1, 0.0, Pooling("first")).eval()
    hidden = torch.randn(*batch.input_ids.shape, 4)
    logits = head(BackboneOutput(hidden, None, batch.attention_mask, choice_rows=batch.cloze["choice_rows"]))
    alone = head.sequence(BackboneOutput(hidden, None, batch.attention_mask)).squeeze(-1)
    torch.testing.assert_close(logits[0, :2], alone[:2])
    torch.testing.assert_close(logits[1], alone[2:])
    expected = torch.stack([alone[:2].log_softmax(0)[1], alone[2:].log_softmax(0)[2]])
    assert head.loss_sum(logits, batch.labels).item() == pytest.approx(-expected.sum().item())
    first, second = scheme.decode(features, logits)
    assert len(first.probabilities) == 2
    assert sum(second.probabilities) == pytest.approx(1)
    answer = scheme.answer(Row(rows[0], "a:1"), first)
    assert answer["text"] == f"is it {rows[0]['options'][int(answer['label'])]}"  # type: ignore[index]


def test_options_are_called_as_the_row_says(backbone: Path) -> None:
    scheme = scheme_of(backbone, with_labels(OPTIONS, among="called"))
    values = {"text": "ada", "options": ["paris", "rome", "met"], "called": ["1", "2", "3"], "right": "2"}
    assert scheme.encode(Row(values, "a:1"), 0)[0].labels == 1
    bare = Row({key: value for key, value in values.items() if key not in ("called", "right")}, "a:1")
    assert scheme.encode(bare, 0, labelled=False)[0].notes == ("0", "1", "2")
    with pytest.raises(DataError, match="3 options in 'options' but 2 names in column 'called'"):
        scheme.encode(Row({**values, "called": ["1", "2"]}, "a:1"), 0)
    with pytest.raises(DataError, match="label '4' in column 'right' is not in 'called'"):
        scheme.encode(Row({**values, "right": "4"}, "a:1"), 0)


def test_an_option_that_the_templates_leave_out_is_said(backbone: Path) -> None:
    section = {
        "input": {"text": "{text}", "choices": ["{options.0}", "{options.1}"], "max_length": 24},
        "labels": {"scheme": "choices", "column": "right"},
    }
    scheme = scheme_of(backbone, section)
    scheme.encode(Row({"text": "ada", "options": ["paris", "rome"], "right": 0}, "a:1"), 0)
    with pytest.raises(DataError, match=r"holds 3 items, but 'input\.choices' names 2") as caught:
        scheme.encode(Row({"text": "ada", "options": ["paris", "rome", "met"], "right": 0}, "a:1"), 0)
    assert "set input.options: options" in str(caught.value)


CLASSES = {"input": {"text": "{made}"}, "labels": {"scheme": "classes", "column": "label"}}


@pytest.mark.parametrize(
    ("derivation", "row", "made"),
    [
        ({"column": "x", "join": " "}, {"x": ["a", "b"]}, "a b"),
        ({"column": "x.s", "join": "\n", "within": ""}, {"x": {"s": [["A.", " B."], ["C."]]}}, "A. B.\nC."),
        (
            {
                "column": "x",
                "marks": [
                    {"start": "s", "end": "e", "mark": "<{span}>"},
                    {"start": "t", "end": "t", "mark": "[{span}]"},
                ],
                "inclusive": True,
            },
            {"x": ["a", "b", "c", "d"], "s": 2, "e": 3, "t": 0},
            "[a] b <c d>",
        ),
        (
            {"column": "x", "marks": [{"start": "s", "end": "e", "mark": "<{span}>"}]},
            {"x": "in Rome.", "s": 3, "e": 7},
            "in <Rome>.",
        ),
    ],
)
def test_columns_that_are_made(derivation: dict[str, Any], row: dict[str, Any], made: str) -> None:
    task = task_of(CLASSES, derive={"made": derivation})
    [found] = task_rows(task, [Row({**row, "label": "a"}, "a:1")])
    assert found.text("made") == made
    [alone] = unlabelled_rows(task, Row(row, "a:1"), {})
    assert alone.text("made") == made


def test_marks_that_overlap_or_are_outside_are_named() -> None:
    marks = [{"start": "s", "end": "e", "mark": "<{span}>"}, {"start": "t", "end": "u", "mark": "[{span}]"}]
    task = task_of(CLASSES, derive={"made": {"column": "x", "marks": marks}})
    for values, message in (
        ({"s": 0, "e": 2, "t": 1, "u": 3}, r"span 1 to 3 \(columns 't', 'u'\) overlaps another one"),
        ({"s": 0, "e": 1, "t": 2, "u": 9}, r"span 2 to 9 \(columns 't', 'u'\) is outside 'x', which has 4 characters"),
    ):
        with pytest.raises(DataError, match=message):
            list(task_rows(task, [Row({"x": "abcd", "label": "a", **values}, "a:1")]))


def test_earlier_turns_of_the_same_dialogue() -> None:
    derive = {"made": {"column": "turn", "previous": "talk", "count": 2, "join": " / "}}
    task = task_of(CLASSES, derive=derive)
    rows = [Row({"talk": talk, "turn": f"{talk}{i}", "label": "a"}, f"a:{talk}{i}") for i in range(4) for talk in "xy"]
    found = [row.text("made") for row in task_rows(task, rows) if row.values["talk"] == "x"]
    assert found == ["", "x0", "x0 / x1", "x1 / x2"]
    assert given_columns(task) == ["turn", "talk"]
    [alone] = unlabelled_rows(task, Row({"made": "own", "turn": "t", "talk": "z"}, "a:1"), {})
    assert alone.text("made") == "own"


def test_missing_and_null_columns_have_defaults() -> None:
    task = task_of({**CLASSES, "input": {"text": "{title}: {text}"}}, defaults={"title": "none"})
    rows = [
        {"text": "a", "label": "x"},
        {"title": None, "text": "b", "label": "x"},
        {"title": "t", "text": "c", "label": "y"},
    ]
    assert [row.text("title") for row in data_of(task, rows).rows] == ["none", "none", "t"]
    assert given_columns(task) == ["text"]
    [alone] = unlabelled_rows(task, Row({"text": "a"}, "a:1"), {})
    assert alone.text("title") == "none"


def test_answers_that_the_passage_does_not_have_count_in_scoring(backbone: Path) -> None:
    section: dict[str, Any] = {
        "input": {"question": "{q}", "context": "{c}", "max_length": 24, "stride": 4},
        "labels": {"scheme": "start_end", "text": "a"},
    }
    scheme = scheme_of(backbone, section)
    row = {"q": "ada", "c": "alan met ada in rome", "a": ["Countess", "rome", "ada"]}
    [feature] = scheme.encode(Row(row, "a:1"), 0)
    assert set(feature.reference) == {"rome", "ada", "Countess"}  # type: ignore[arg-type]
    assert scheme.marks(feature).count("answer") == 1
    lacking = Row({**row, "a": ["Countess"]}, "a:1")
    with pytest.raises(DataError, match="does not occur in the passage"):
        scheme.encode(lacking, 0)
    open_scheme = scheme_of(backbone, with_labels(section, unanswerable=True))
    assert open_scheme.encode(lacking, 0)[0].reference == ()


def share_task(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> Any:
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = {"train": "all.jsonl", "validation": "10%", "test": "20%"}
    return TASKS.validate_python({"task": "t", "data": {"source": "jsonl", "splits": splits}, **CLASSES, **keys})


def test_splits_can_be_shares_of_the_training_rows(tmp_path: Path) -> None:
    rows = [{"made": f"row {n}", "label": "rare" if n % 10 == 0 else "often"} for n in range(200)]
    task = share_task(tmp_path, rows)
    found = {
        split: read_split(task, split, task_path=tmp_path / "t.yaml", data_root=None).rows
        for split in ("train", "validation", "test")
    }
    assert {split: len(of) for split, of in found.items()} == {"train": 140, "validation": 20, "test": 40}
    assert len({row.location for of in found.values() for row in of}) == 200
    rare = {split: sum(row.values["label"] == "rare" for row in of) for split, of in found.items()}
    assert rare == {"train": 14, "validation": 2, "test": 4}
    again = read_split(task, "validation", task_path=tmp_path / "t.yaml", data_root=None)
    assert again.rows == found["validation"]
    other = task.model_copy(update={"data": task.data.model_copy(update={"splits": shares_of(task, "11%")})})
    changed = read_split(other, "train", task_path=tmp_path / "t.yaml", data_root=None)
    same = read_split(task, "train", task_path=tmp_path / "t.yaml", data_root=None)
    assert changed.fingerprint != same.fingerprint  # a run's key and its resuming depend on it


def test_their_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"made": f"row {n}", "label": "rare" if n % 10 == 0 else "often"} for n in range(200)]
    task = share_task(tmp_path, rows)
    with (tmp_path / "all.jsonl").open("a") as file:
        file.write("no row\n")
    task = task.model_copy(update={"data": task.data.model_copy(update={"on_fault": "skip"})})
    names = ("train", "validation", "test")
    alone = {name: read_split(task, name, task_path=tmp_path / "t.yaml", data_root=None) for name in names}
    calls: list[Path] = []

    def counted(path: Path, *rest: Any) -> Any:
        calls.append(path)
        return read_rows(path, *rest)

    monkeypatch.setattr(split, "read_rows", counted)
    together = read_splits(task, names, task_path=tmp_path / "t.yaml", data_root=None)
    assert calls == [tmp_path / "all.jsonl"]
    assert together == alone
    assert all(len(each.skipped or ()) == 1 for each in together.values())


@pytest.mark.parametrize("count", [4, 9, 40])
def test_a_small_share_of_few_rows_of_many_classes_is_not_empty(tmp_path: Path, count: int) -> None:
    task = share_task(tmp_path, [{"made": str(n), "label": f"class {n % 4}"} for n in range(count)])
    found = {
        split: len(read_split(task, split, task_path=tmp_path / "t.yaml", data_root=None).rows)
        for split in ("train", "validation", "test")
    }
    assert sum(found.values()) == count
    assert found["validation"] == max(1, round(0.1 * count))
    assert found["test"] == max(1, round(0.2 * count))


def shares_of(task: Any, validation: str) -> Any:
    return task.data.splits.model_copy(update={"validation": validation})


def test_rows_that_belong_together_are_drawn_together(tmp_path: Path) -> None:
    rows = [{"talk": n // 5, "turn": str(n), "label": "a"} for n in range(200)]
    derive = {"made": {"column": "turn", "previous": "talk"}}
    task = share_task(tmp_path, rows, derive=derive)
    of = read_split(task, "validation", task_path=tmp_path / "t.yaml", data_root=None).rows
    assert Counter(Counter(row.values["talk"] for row in of).values()) == {5: 4}
