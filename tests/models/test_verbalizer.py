"""A verbalizer's scores equal those of transformers' own language models, and of the official GLM's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task import Task
from ptv2kit.training.prepare import Prepared, prepare
from tests.tiny_backbones import CAUSAL, in_turn
from tests.tiny_language_models import MASKED, save_language_model

DECODERS = ("gpt2", "llama", "qwen3", "gemma2", "mistral")
ROWS = [
    {"text": "ada met alan", "more": "is it so", "label": "no", "first": " yes", "second": " no, maybe", "right": 0},
    {"text": "alan left", "more": "so it is so it is", "label": "yes", "first": " no", "second": " ada", "right": 1},
    {"text": "rome", "more": "paris, rome, paris", "label": "no", "first": " a yes", "second": " is so", "right": 0},
]
VERBALIZER: dict[str, Any] = {"no": " no", "yes": " yes"}


def task_of(family: str, **keys: Any) -> Any:
    text = "{text}? {more}. so{mask}" if family in CAUSAL else "{text}? {mask}, {more}."
    classes = {
        "labels": {"scheme": "classes", "column": "label", "names": ["no", "yes"]},
        "verbalizer": VERBALIZER,
    }
    source = {"source": "jsonl", "splits": {"train": "rows.jsonl", "validation": "rows.jsonl"}}
    task = {"task": "t", "data": source, "input": {"text": text, "max_length": 40}, "head": "verbalizer"}
    return TypeAdapter(Task).validate_python({**task, **classes, **keys})


def recipe_of(folder: Path | str, **keys: Any) -> Recipe:
    base = {
        "recipe": "r",
        "task": "t",
        "backbone": {"name": str(folder), "dropout": 0.0, "attention": "eager"},
        "prompt": {"length": 3, "dropout": 0.0},
        "train": {"epochs": 1, "learning_rate": 0.01, "device": "cpu"},
    }
    return Recipe.model_validate({**base, **keys})


def prepared_for(folder: Path | str, task: Any, rows_folder: Path, **keys: Any) -> Prepared:
    (rows_folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return prepare(recipe_of(folder, **keys), task, rows_folder / "t.yaml", None, lambda *_: None)


def without_prompt(prepared: Prepared) -> PromptedModel:
    """The model with its prompt taken out, so that it is the plain backbone."""
    model = prepared.build_model().eval()
    model.prompt = None
    model.shift = 0
    return model


def scores_of(prepared: Prepared, model: PromptedModel) -> torch.Tensor:
    """Of all rows in one padded batch."""
    with torch.no_grad():
        return model(**prepared.scheme.collate(prepared.splits["train"].features).inputs())


@pytest.fixture(scope="module", params=in_turn([*MASKED, *DECODERS]))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def saved(
    family: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PreTrainedModel, PreTrainedTokenizerBase]:
    folder = tmp_path_factory.mktemp(family)
    return folder, *save_language_model(folder, family)


Saved = tuple[Path, PreTrainedModel, PreTrainedTokenizerBase]


def ids_at(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    """A word behind another one."""
    return tokenizer("a" + word, add_special_tokens=False)["input_ids"][1:]


def test_words_have_the_logits_of_transformers(family: str, saved: Saved, tmp_path: Path) -> None:
    folder, lm, tokenizer = saved
    prepared = prepared_for(folder, task_of(family), tmp_path)
    assert prepared.scheme.unit == "words"
    found = scores_of(prepared, without_prompt(prepared))
    words = [ids_at(tokenizer, word)[0] for word in (" no", " yes")]
    for row, logits in zip(ROWS, found, strict=True):
        if family in CAUSAL:
            encoded = tokenizer(f"{row['text']}? {row['more']}. so", return_tensors="pt")
            place = -1
        else:
            encoded = tokenizer(f"{row['text']}? {tokenizer.mask_token}, {row['more']}.", return_tensors="pt")
            place = encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)
        with torch.no_grad():
            expected = lm(**encoded).logits[0, place, words]
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_answers_have_the_log_probabilities_of_transformers(family: str, saved: Saved, tmp_path: Path) -> None:
    folder, lm, tokenizer = saved
    text = "{text}? {more}. so{mask}" if family in CAUSAL else "{text}? {mask}, {more}."
    task = TypeAdapter(Task).validate_python(
        {
            "task": "t",
            "data": {"source": "jsonl", "splits": {"train": "rows.jsonl", "validation": "rows.jsonl"}},
            "input": {"text": text, "choices": ["{first}", "{second}"], "max_length": 40},
            "labels": {"scheme": "choices", "column": "right"},
            "head": "verbalizer",
        }
    )
    prepared = prepared_for(folder, task, tmp_path)
    found = scores_of(prepared, without_prompt(prepared))
    for row, scores in zip(ROWS, found, strict=True):
        for choice, score in zip((row["first"], row["second"]), scores, strict=True):
            answer = ids_at(tokenizer, str(choice))
            if family in CAUSAL:
                context = tokenizer(f"{row['text']}? {row['more']}. so")["input_ids"]
                ids = [*context, *answer]
                places = range(len(context) - 1, len(ids) - 1)
            else:
                masks = tokenizer.mask_token * len(answer)
                ids = tokenizer(f"{row['text']}? {masks}, {row['more']}.")["input_ids"]
                places = [index for index, number in enumerate(ids) if number == tokenizer.mask_token_id]
            with torch.no_grad():
                logits = lm(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(float(logits[place, number]) for place, number in zip(places, answer, strict=True))
            assert float(score) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_words_of_several_tokens_are_scored_like_answers(saved: Saved, family: str, tmp_path: Path) -> None:
    folder = saved[0]
    words = {"no": [" no", " no, no"], "yes": " yes"}
    task = task_of(family, verbalizer=words, verbalizer_tokens="any")
    prepared = prepared_for(folder, task, tmp_path)
    assert prepared.scheme.unit == "answers"
    choices = ["{w1}", "{w2}", "{w3}"]
    rows = [{**row, "w1": " no", "w2": " no, no", "w3": " yes", "right": 0} for row in ROWS]
    (tmp_path / "apart.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    apart = TypeAdapter(Task).validate_python(
        {
            "task": "t",
            "data": {"source": "jsonl", "splits": {"train": "apart.jsonl", "validation": "apart.jsonl"}},
            "input": {"text": task.input.text, "choices": choices, "max_length": 40},
            "labels": {"scheme": "choices", "column": "right"},
            "head": "verbalizer",
        }
    )
    other = prepared_for(folder, apart, tmp_path)
    each = scores_of(other, without_prompt(other))
    found = scores_of(prepared, without_prompt(prepared))
    expected = torch.stack([each[:, :2].logsumexp(1), each[:, 2]], 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_words_of_one_class_add_up_as_probabilities(saved: Saved, family: str, tmp_path: Path) -> None:
    folder = saved[0]
    three = {"names": ["no", "yes", "perhaps"], "scheme": "classes", "column": "label"}
    single = prepared_for(
        folder, task_of(family, verbalizer={"no": " no", "yes": " yes", "perhaps": " so"}, labels=three), tmp_path
    )
    joined = prepared_for(folder, task_of(family, verbalizer={"no": [" no", " so"], "yes": " yes"}), tmp_path)
    apart = scores_of(single, without_prompt(single)).softmax(1)
    together = scores_of(joined, without_prompt(joined)).softmax(1)
    torch.testing.assert_close(together, torch.stack([apart[:, 0] + apart[:, 2], apart[:, 1]], 1))


@pytest.mark.slow
def test_one_token_by_either_way_gives_the_same_probabilities(saved: Saved, family: str, tmp_path: Path) -> None:
    """What the words' own logits say, and what log-probabilities over the whole vocabulary say."""
    folder = saved[0]
    words = prepared_for(folder, task_of(family), tmp_path)
    rows = [{**row, "first": " no", "second": " yes", "right": 0} for row in ROWS]
    (tmp_path / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TypeAdapter(Task).validate_python(
        {
            "task": "t",
            "data": {"source": "jsonl", "splits": {"train": "choices.jsonl", "validation": "choices.jsonl"}},
            "input": {"text": words.task.input.text, "choices": ["{first}", "{second}"], "max_length": 40},
            "labels": {"scheme": "choices", "column": "right"},
            "head": "verbalizer",
            "verbalizer_tokens": "one",
        }
    )
    answers = prepared_for(folder, task, tmp_path)
    torch.testing.assert_close(
        scores_of(words, without_prompt(words)).softmax(1), scores_of(answers, without_prompt(answers)).softmax(1)
    )


@pytest.mark.parametrize("kind", ["words", "answers"])
def test_a_shallow_prompt_moves_the_mask_with_it(kind: str, saved: Saved, family: str, tmp_path: Path) -> None:
    folder, lm, tokenizer = saved
    tokens = {"verbalizer": {"no": " no", "yes": " yes, no"}, "verbalizer_tokens": "any"} if kind == "answers" else {}
    prepared = prepared_for(folder, task_of(family, **tokens), tmp_path, method="prompt_tuning")
    model = prepared.build_model().eval()
    features = prepared.splits["train"].features[:1]
    batch = prepared.scheme.collate(features)
    with torch.no_grad():
        found = model(**batch.inputs())[0]
        vectors = model.prompt.vectors()
        scores: list[torch.Tensor] = []
        for encoding in features[0].inputs:
            ids = torch.tensor([encoding.ids])
            embeds = torch.cat([vectors[None], model.backbone.get_input_embeddings()(ids)], 1)
            logits = lm(inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2])).logits[0, len(vectors) :]
            assert encoding.cloze is not None
            for answer in encoding.cloze.answers:
                rows = logits[list(answer.places)]
                wanted = answer.ids or [ids_at(tokenizer, word)[0] for word in (" no", " yes")]
                picked = rows.log_softmax(-1).gather(1, torch.tensor([wanted]).T) if answer.ids else rows[0, wanted]
                scores.append(picked.sum() if answer.ids else picked)
    torch.testing.assert_close(found, torch.stack(scores) if kind == "answers" else scores[0], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["p_tuning_v2", "prompt_tuning", "fine_tuning"])
def test_padding_and_other_rows_change_nothing(method: str, saved: Saved, family: str, tmp_path: Path) -> None:
    words = {"verbalizer": {"no": " no", "yes": " yes, no"}, "verbalizer_tokens": "any"}
    for keys in ({}, words):
        prepared = prepared_for(saved[0], task_of(family, **keys), tmp_path, method=method)
        model = prepared.build_model().eval()
        together = scores_of(prepared, model)
        for feature, expected in zip(prepared.splits["train"].features, together, strict=True):
            with torch.no_grad():
                alone = model(**prepared.scheme.collate([feature]).inputs())[0]
            torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_nothing_of_the_head_is_trained_or_saved(saved: Saved, family: str, tmp_path: Path) -> None:
    for keys in ({}, {"verbalizer": {"no": " no", "yes": " yes, no"}, "verbalizer_tokens": "any"}):
        model = prepared_for(saved[0], task_of(family, **keys), tmp_path).build_model()
        assert model.parameter_count().head == 0
        assert all(name.startswith("prompt.") for name in model.inference_state())
        assert all(name.startswith("prompt.") for name in model.trained_state())


@pytest.mark.slow
def test_words_keep_their_own_rows_only(saved: Saved, family: str, tmp_path: Path) -> None:
    model = prepared_for(saved[0], task_of(family), tmp_path).build_model()
    vocabulary = len(saved[2])
    assert all(vocabulary not in parameter.shape for parameter in model.head.parameters() if parameter.dim() == 2)
    tied = prepared_for(
        saved[0], task_of(family, verbalizer={"no": " no", "yes": " yes, no"}, verbalizer_tokens="any"), tmp_path
    ).build_model()
    if saved[1].config.tie_word_embeddings:
        own = {id(parameter) for parameter in tied.backbone.parameters()}
        big = [
            parameter for parameter in tied.head.parameters() if parameter.dim() == 2 and len(parameter) == vocabulary
        ]
        assert [id(parameter) in own for parameter in big] == [True]


def test_fine_tuning_leaves_the_head_as_it_was(saved: Saved, family: str, tmp_path: Path) -> None:
    words = {"verbalizer": {"no": " no", "yes": " yes, no"}, "verbalizer_tokens": "any"}
    prepared = prepared_for(saved[0], task_of(family, **words), tmp_path, method="fine_tuning")
    model = prepared.build_model()
    before = {name: value.clone() for name, value in model.head.state_dict().items()}
    batch = prepared.scheme.collate(prepared.splits["train"].features)
    model.head.loss_sum(model(**batch.inputs()), batch.labels).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad)
    assert all(torch.equal(value, before[name]) for name, value in model.head.state_dict().items())
    assert any(parameter.grad is not None for parameter in model.backbone.parameters())
