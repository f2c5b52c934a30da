"""Cloze inputs against the official encoder's, all 101 of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptv2kit.data.cloze import ClozeIds, ClozeRow, Part, context_of, lay_out, shorten
from ptv2kit.models.glm.tokenizer import build_tokenizer

MASK = "[MASK]"
SPECIAL = ClozeIds(cls=50259, eos=50256, sop=50257, masks=frozenset({50260, 50263, 50264}))
EOP = 50258

# The patterns that the official scripts use; `*text*` may be shortened. A list is the pattern's second side.
PATTERNS: dict[tuple[str, int], tuple[list[str], list[str]]] = {
    ("rte", 0): (
        ['"', "*The museum has grown*", '" ?'],
        [MASK, ', "', "*The museum opened a new wing on Friday.*", '"'],
    ),
    ("cb", 0): (
        ['"', "*they would move*", '" ?'],
        [MASK, ', "', "*A: I doubt it. B: Do you think they'd move? A: Not really.*", '"'],
    ),
    ("boolq", 4): (
        [
            "Based on the following passage",
            "* do glaciers move*",
            "?",
            MASK,
            ".",
            "* Glaciers -- A glacier is a persistent body of dense ice that moves under its own weight.*",
        ],
        [],
    ),
    ("wic", 1): (
        [
            "*He sat on the bank of the river.*",
            "* She works at a bank downtown.*",
            " Does bank have the same meaning in both sentences?",
            MASK,
        ],
        [],
    ),
    ("multirc", 0): (
        [
            "*Tom walked to the store. He bought apples and bread*",
            ". Question: What did Tom buy? Is it Apples and bread?",
            MASK,
            ".",
        ],
        [],
    ),
    ("copa", 0): (
        [
            '"the sun came out" or "it rained overnight"?',
            "* The ground was wet in the morning*",
            " because",
            MASK,
            ".",
        ],
        [],
    ),
    ("wsc", 2): (
        [
            "Mark told Pete many lies about *himself* , which Pete included in his book .",
            " Question: In the passage above, what does the pronoun '*himself*' refer to? Answer:",
            MASK,
            ".",
        ],
        [],
    ),
    ("record", 0): (
        [
            "*Ada Lee founded Brightlake in 1990.\n@highlight\nBrightlake now has 40 employees*",
            " The company was started by",
            MASK,
            " in the nineties",
        ],
        [],
    ),
}
ANSWERS = {
    ("rte", 0): [" Yes", " No"],
    ("cb", 0): [" Yes", " No", " Maybe"],
    ("boolq", 4): [" No", " Yes"],
    ("wic", 1): [" No", " Yes"],
    ("multirc", 0): [" No", " Yes"],
    ("copa", 0): [" the sun came out", " it rained overnight"],
    ("wsc", 2): [" Mark", " Pete", " his book"],
    ("record", 0): [" Ada Lee", " Brightlake"],
}
SINGLE_TOKEN = {"rte", "cb", "boolq", "wic", "multirc"}


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "parity" / "glm" / "tokenization.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Any:
    return build_tokenizer(shared / "tokenizers/gpt2/vocab.json", shared / "tokenizers/gpt2/merges.txt")


def inputs_of(row: dict[str, Any]) -> Iterator[tuple[ClozeRow, list[list[int]]]]:
    """Each input of a golden row, and the answers that all lead to it: verbalizers share one input."""
    if isinstance(row["input_ids"][0], int):
        several = [(row["input_ids"], row["position_ids"], row["sep"])]
        single = row["task"] in SINGLE_TOKEN
        answers = [[[number] for number in row["target_ids"]] if single else [row["target_ids"]]]
    else:
        several = list(zip(row["input_ids"], row["position_ids"], row["sep"], strict=True))
        answers = [[target] for target in row["target_ids"]]
    for (ids, (first, second), sep), of_input in zip(several, answers, strict=True):
        yield ClozeRow(tuple(ids), (tuple(first), tuple(second)), sep), of_input


def test_every_golden_row_follows_from_its_context_and_answer(golden: dict[str, Any]) -> None:
    checked = 0
    for row in golden["cloze"]:
        for expected, answers in inputs_of(row):
            context = expected.input_ids[: expected.context_length]
            for answer in answers:
                made = lay_out(context, answer, SPECIAL)
                assert (made.input_ids, made.position_ids) == (expected.input_ids, expected.position_ids)
                assert made.context_length == expected.context_length
                assert made.input_ids[made.context_length] == SPECIAL.sop
        checked += 1
    assert checked == 101


def parts_of(tokenizer: Any, texts: list[str]) -> list[Part]:
    """Texts cut into ids one by one, as the official code does."""
    parts: list[Part] = []
    for text in texts:
        shortenable = len(text) > 1 and text[0] == text[-1] == "*"
        plain = text[1:-1] if shortenable else text
        parts.append(Part(tuple(tokenizer(plain, add_special_tokens=False).input_ids), shortenable))
    return parts


@pytest.mark.parametrize("key", list(PATTERNS), ids=lambda key: f"{key[0]}-{key[1]}")
def test_patterns_as_text_give_the_golden_inputs(golden: dict[str, Any], tokenizer: Any, key: tuple[str, int]) -> None:
    rows = [row for row in golden["cloze"] if (row["task"], row["pattern_id"]) == key and not row["continuous_prompt"]]
    assert rows
    first, second = (parts_of(tokenizer, texts) for texts in PATTERNS[key])
    context = context_of(first, second, SPECIAL)
    answers = [tokenizer(text, add_special_tokens=False).input_ids for text in ANSWERS[key]]
    if key[0] not in SINGLE_TOKEN:
        answers = [[*answer, EOP] for answer in answers]
    for row in rows:
        found = [(expected, answer) for expected, many in inputs_of(row) for answer in many]
        # WSC with cross-entropy has one row, the right answer; with the choices' loss one row a choice.
        assert [answer for _, answer in found] == answers[: len(found)]
        for expected, answer in found:
            made = lay_out(context, answer, SPECIAL)
            assert (made.input_ids, made.position_ids) == (expected.input_ids, expected.position_ids)


def test_long_inputs_are_shortened_like_the_official_ones(golden: dict[str, Any], tokenizer: Any) -> None:
    for row in golden["truncation"]:
        text_a, text_b = row["example"]["text_a"], row["example"]["text_b"]
        if row["task"] == "rte":
            texts = ['"', f"*{text_b.rstrip('.')}*", '" ?'], [MASK, ', "', f"*{text_a}*", '"']
        else:
            texts = [f"*{text_a}*", " Question:", f"* {text_b}*", "? Answer:", MASK, "."], list[str]()
        first, second = (parts_of(tokenizer, side) for side in texts)
        context = context_of(*shorten(first, second, 1, row["seq_length"]), SPECIAL)
        ((expected, answers),) = inputs_of({"task": row["task"], **row["cloze"]})
        made = lay_out(context, answers[0], SPECIAL)
        assert (made.input_ids, made.position_ids) == (expected.input_ids, expected.position_ids)
        assert len(made.input_ids) == row["seq_length"]


def test_the_published_codes_packed_choices_are_these_rows(golden: dict[str, Any], tokenizer: Any) -> None:
    # It puts all choices of an example behind one context; each sees the context and itself, as a row of its own does.
    packed = golden["hf_mixin"]["multiple_choice"]
    for example, text in enumerate(golden["hf_mixin"]["texts"]):
        context = tokenizer(text).input_ids
        ids, positions = packed["input_ids"][example], packed["position_ids"][example]
        (visible,) = packed["attention_mask"][example]
        for answer, places in zip(packed["choice_ids"][example], packed["choice_indices"][example], strict=True):
            made = lay_out(context, answer, SPECIAL)
            own = range(made.context_length, len(made.input_ids))
            assert [ids[place] for place in places] == [made.input_ids[index] for index in own]
            for line in (0, 1):
                assert [positions[line][place] for place in places] == [made.position_ids[line][index] for index in own]
            for number, place in enumerate(places):
                seen = {column for column, value in enumerate(visible[place]) if value}
                assert seen == {*range(made.context_length), *places[: number + 1]}


def test_the_published_codes_generation_targets_are_these_rows(golden: dict[str, Any], tokenizer: Any) -> None:
    mixin = golden["hf_mixin"]
    padded = len(mixin["encode"]["input_ids"][0])
    for example, (text, target) in enumerate(zip(mixin["texts"], mixin["targets"], strict=True)):
        answer = [*tokenizer(target, add_special_tokens=False).input_ids, EOP]
        made = lay_out(tokenizer(text).input_ids, answer, SPECIAL)
        scored = slice(padded, padded + len(answer))
        rows = {name: rows[example] for name, rows in mixin["generation_with_targets"].items()}
        assert rows["input_ids"][scored] == list(made.input_ids[made.context_length :])
        assert rows["labels"][scored] == answer
        for line in (0, 1):
            assert rows["position_ids"][line][scored] == list(made.position_ids[line][made.context_length :])
        start = lay_out(tokenizer(text).input_ids, [], SPECIAL)
        assert mixin["generation"]["input_ids"][example][padded:] == [start.input_ids[-1]]
        assert mixin["generation"]["position_ids"][example][0][padded] == start.position_ids[0][-1]


def test_of_several_masks_the_last_counts() -> None:
    context = [SPECIAL.cls, 50260, 7, 50264, SPECIAL.eos]
    assert lay_out(context, [8, 9], SPECIAL).position_ids == ((0, 1, 2, 3, 4, 3, 3), (0, 0, 0, 0, 0, 1, 2))


def test_a_context_without_a_mask_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a mask"):
        lay_out([SPECIAL.cls, 7, SPECIAL.eos], [8], SPECIAL)


def test_the_side_with_more_to_cut_off_is_cut_and_the_second_if_both_have_the_same() -> None:
    first = [Part((1, 2, 3), shortenable=True), Part((4,), shortenable=True), Part((5,))]
    second = [Part((6,)), Part((7, 8), shortenable=True)]
    left: list[tuple[list[int], list[int]]] = []
    for limit in range(11, 5, -1):
        sides = shorten(first, second, 1, limit)
        left.append(tuple([number for part in side for number in part.ids] for side in sides))
    assert left == [
        ([1, 2, 3, 4, 5], [6, 7, 8]),
        ([1, 2, 3, 5], [6, 7, 8]),
        ([1, 2, 5], [6, 7, 8]),
        ([1, 2, 5], [6, 7]),
        ([1, 5], [6, 7]),
        ([1, 5], [6]),
    ]


def test_what_cannot_be_shortened_is_an_error() -> None:
    parts = [Part((1, 2, 3)), Part((4, 5), shortenable=True)]
    assert shorten(parts, [], 1, 6) == ((parts[0], Part((), shortenable=True)), ())
    with pytest.raises(ValueError, match="the input is 1 tokens longer than the 5 allowed"):
        shorten(parts, [], 1, 5)


PARTS = st.lists(st.builds(Part, st.lists(st.integers(1, 99), max_size=9).map(tuple), st.booleans()), max_size=4)


@given(PARTS, PARTS, st.integers(1, 5), st.integers(3, 60))
def test_a_shortened_input_fits_and_keeps_what_is_fixed(
    first: list[Part], second: list[Part], answer: int, limit: int
) -> None:
    fixed = sum(len(part.ids) for part in (*first, *second) if not part.shortenable)
    total = sum(len(part.ids) for part in (*first, *second))
    if 2 + answer + fixed > limit:
        with pytest.raises(ValueError, match="nothing of it may be cut off"):
            shorten(first, second, answer, limit)
        return
    short = shorten(first, second, answer, limit)
    assert 2 + answer + sum(len(part.ids) for side in short for part in side) == min(limit, 2 + answer + total)
    for before, after in zip((*first, *second), (*short[0], *short[1]), strict=True):
        assert after.shortenable == before.shortenable
        assert after.ids == before.ids[: len(after.ids)]
        assert before.shortenable or after == before
