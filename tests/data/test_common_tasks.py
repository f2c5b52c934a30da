"""The tasks of common benchmarks read the documented layout of their data, and are scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizer

from ptv2kit.data.dataset import encode_split
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.records import Prediction
from ptv2kit.data.sources import read_split
from ptv2kit.data.tokens import Subwords
from ptv2kit.spec.load import load_task
from tests.data.small_tasks import data_of, task_of

TASKS = Path(__file__).parents[2] / "tasks"
ONE = "Ada met Alan in London ."
PAIR = {"sentence1": ONE, "sentence2": "Alan was in London ."}
INFERENCE = {"premise": ONE, "hypothesis": "Alan was in London .", "uid": "1", "reason": ""}
OPTIONS = {"text": ["a star", "a moon", "a sun"], "label": ["A", "B", "C"]}
TACRED = {"token": ONE.split(), "subj_start": 0, "subj_end": 0, "obj_start": 4, "obj_end": 4, "subj_type": "PERSON"}
SLOTS = "B-who O B-who O B-city O"
PAGE = {"title": ["A", "B"], "sentences": [["Ada met Alan.", " They left."], ["London is old."]]}

ROWS: dict[str, list[dict[str, Any]]] = {
    "cola": [{"sentence": ONE, "label": label, "idx": label} for label in (0, 1)],
    "mrpc": [PAIR | {"label": label, "idx": label} for label in (0, 1)],
    "qqp": [{"question1": ONE, "question2": "Who ?", "label": label} for label in (0, 1)],
    "stsb": [PAIR | {"label": label, "idx": 0} for label in (0.0, 3.8, 5.0)],
    "mnli": [INFERENCE | {"label": label} for label in (0, 1, 2)],
    "qnli": [{"question": "Who ?", "sentence": ONE, "label": label} for label in (0, 1)],
    "wnli": [PAIR | {"label": label} for label in (0, 1)],
    "xnli": [INFERENCE | {"label": label} for label in (0, 1, 2)],
    **{f"anli_r{number}": [INFERENCE | {"label": label} for label in (0, 1, 2)] for number in (1, 2, 3)},
    "paws": [PAIR | {"id": label, "label": label} for label in (0, 1)],
    "swag": [
        {
            "sent1": ONE,
            "sent2": "He",
            **{f"ending{n}": f"left {n}" for n in range(4)},
            "startphrase": "x",
            "label": label,
        }
        for label in (0, 3)
    ],
    "commonsense_qa": [
        {
            "id": "1",
            "question": "What ?",
            "question_concept": "x",
            "choices": {"label": list("ABCDE"), "text": ["one", "two", "three", "four", "five"]},
            "answerKey": key,
        }
        for key in "AE"
    ],
    "arc_challenge": [{"id": "1", "question": "What shines ?", "choices": OPTIONS, "answerKey": key} for key in "AC"],
    "arc_easy": [
        {
            "question": "What ?",
            "choices": {"text": ["a", "b", "c", "d"], "label": ["1", "2", "3", "4"]},
            "answerKey": "4",
        },
        {"question": "What ?", "choices": OPTIONS, "answerKey": "B"},
    ],
    "race": [
        {"example_id": "x", "article": ONE * 90, "question": "He _ ?", "options": ["a", "b", "c", "d"], "answer": key}
        for key in "AD"
    ],
    "trec": [
        {"text": "Who ?", "label_coarse": 3, "label_coarse_original": kind, "label_fine": 1} for kind in ("HUM", "LOC")
    ]
    * 10,
    "ag_news": [{"text": ONE, "label": label} for label in (0, 1, 2, 3)] * 20,
    "go_emotions": [{"text": ONE, "labels": labels, "id": "x"} for labels in ([27], [3, 17], [0])],
    "snips_slots": [{"input": ONE, "intent": "GetWeather", "slots": SLOTS}] * 10,
    "snips_intents": [{"input": ONE, "intent": name, "slots": SLOTS} for name in ("GetWeather", "PlayMusic")] * 10,
    "atis_slots": [{"id": "1", "intent": "flight", "text": ONE, "slots": SLOTS}] * 10,
    "atis_intents": [{"id": "1", "intent": name, "text": ONE, "slots": SLOTS} for name in ("flight", "airfare")] * 10,
    "few_nerd": [
        {"id": "0", "tokens": ONE.split(), "ner_tags": [7, 0, 7, 0, 4, 0], "fine_ner_tags": [1, 0, 1, 0, 2, 0]}
    ],
    "multinerd": [
        {"tokens": ONE.split(), "ner_tags": [1, 0, 1, 0, 3, 0], "lang": "en"},
        {"tokens": ["Ada"], "ner_tags": [1], "lang": "de"},
    ],
    "tacred": [TACRED | {"relation": name} for name in ("per:city_of_birth", "no_relation")],
    "newsqa": [
        {"context": ONE, "question": "Who ?", "answers": ["Alan"], "key": "k", "labels": [{"start": [8], "end": [11]}]},
        {"context": ONE, "question": "Who ?", "answers": ["Grace"], "key": "k", "labels": []},
    ],
    "tydiqa": [
        {"id": "x", "title": "t", "context": ONE, "question": "?", "answers": {"text": ["Alan"], "answer_start": [8]}}
    ],
    "hotpotqa": [
        {"id": "x", "question": "Who ?", "answer": answer, "type": "bridge", "context": PAGE}
        for answer in ("Alan", "yes")
    ],
}
INFERRED = {"entailment", "neutral", "contradiction"}
NAMES = ("B-who", "O", "B-who", "O", "B-city", "O")
RIGHT: dict[str, set[Any]] = {
    "cola": {"unacceptable", "acceptable"},
    "mrpc": {"not_equivalent", "equivalent"},
    "qqp": {"not_duplicate", "duplicate"},
    "stsb": {0.0, 3.8, 5.0},
    "mnli": INFERRED,
    "qnli": {"entailment", "not_entailment"},
    "wnli": {"not_entailment", "entailment"},
    "xnli": INFERRED,
    **{f"anli_r{number}": INFERRED for number in (1, 2, 3)},
    "paws": {"different", "paraphrase"},
    "swag": {"0", "3"},
    "commonsense_qa": {"A", "E"},
    "arc_challenge": {"A", "C"},
    "arc_easy": {"4", "B"},
    "race": {"A", "D"},
    "trec": {"HUM", "LOC"},
    "ag_news": {"World", "Sports", "Business", "Sci/Tech"},
    "go_emotions": {("neutral",), ("annoyance", "joy"), ("admiration",)},
    "snips_slots": {NAMES},
    "snips_intents": {"GetWeather", "PlayMusic"},
    "atis_slots": {NAMES},
    "atis_intents": {"flight", "airfare"},
    "few_nerd": {("B-person", "O", "B-person", "O", "B-location", "O")},
    "multinerd": {("B-PER", "O", "B-PER", "O", "B-LOC", "O")},
    "tacred": {"per:city_of_birth", "no_relation"},
    "newsqa": {("Alan",)},
    "tydiqa": {("Alan",)},
    "hotpotqa": {("Alan",), ()},
}
"""What the rows' labels mean."""
INPUTS = {
    "tacred": "[CLS] @ ada @ met alan in # london # . [SEP]",
    "swag": "[CLS] ada met alan in london . [SEP] he left 0 [SEP]",
    "arc_challenge": "[CLS] what shine ##s ? [SEP] a star [SEP]",
    "hotpotqa": "[CLS] who ? [SEP] ada met alan . they left . london is old . [SEP]",
}


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> BertTokenizer:
    return BertTokenizer(str(shared / "tokenizers" / "bert-large-uncased" / "vocab.txt"))


@pytest.mark.parametrize("name", ROWS)
def test_the_documented_layout_is_read(name: str, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    resolved = load_task(TASKS / f"{name}.yaml")
    task = resolved.task
    (tmp_path / name).mkdir()
    files = task.data.splits.by_name()
    for split in files:
        path = tmp_path / (files[split] if name == "tacred" else f"{name}/{split}.jsonl")
        if split not in task.data.splits.shares():
            path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
    read = {split: read_split(task, split, task_path=resolved.path, data_root=tmp_path) for split in files}
    scheme = build_scheme(task, Subwords(tokenizer, task.input.max_length), read["train"].rows)
    references: set[Any] = set()
    for data in read.values():
        encoded = encode_split(scheme, data, lambda *_: None)
        references |= {feature.reference for feature in encoded.features}
        assert len({feature.row for feature in encoded.features}) == len(encoded.data.rows)
    assert references == RIGHT[name]
    if name in INPUTS:
        first = encode_split(scheme, read["train"], lambda *_: None).features[0]
        assert " ".join(tokenizer.convert_ids_to_tokens(list(first.inputs[0].ids))) == INPUTS[name]
        # Of newsqa a passage without the answer is left out, and counted.
        assert len(encoded.data.skipped or ()) == (name == "newsqa")


def test_every_task_of_this_list_is_tried() -> None:
    listed = (TASKS.parent / "docs" / "tasks.md").read_text()
    for name in ROWS:
        assert f"{name}" in listed, name


def test_micro_f1_leaves_the_negative_class_out(backbone: Path) -> None:
    labels = {"scheme": "classes", "column": "label", "names": ["none", "born", "died"], "negative": "none"}
    task = task_of({"input": {"text": "{text}"}, "labels": labels}, metrics=["micro_f1", "accuracy"])
    scheme = build_scheme(task, Subwords(BertTokenizer.from_pretrained(backbone), 16), data_of(task, []).rows)
    pairs = [("born", "born"), ("none", "none"), ("none", "died"), ("born", "none"), ("none", "none")]
    scores = scheme.score([Prediction(i, found, 1.0, right) for i, (found, right) in enumerate(pairs)]).values
    assert scores["accuracy"] == 60.0
    assert scores["micro_f1"] == pytest.approx(50.0)  # one of two found is right, one of two is found
