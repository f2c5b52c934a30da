"""The official metrics: worked examples, and each metric against another way to compute it."""

from __future__ import annotations

import re
import string
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score as seqeval_f1
from seqeval.scheme import IOB2
from sklearn.metrics import f1_score

from ptv2kit.data.metrics.grouped import multirc_scores, record_scores
from ptv2kit.data.metrics.squad import Answered, exact_match, normalize, squad_scores, token_f1
from ptv2kit.data.metrics.srl import conll05_spans, srl_scores

WORDS = ("the", "A", "an", "cat", "Cat.", "dog", "x-y", "theatre", "é", "...", " \t")
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)


# SQuAD


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Cat!", "cat"),
        ("a  theatre\tand an\nowl", "theatre and owl"),
        ("U.S.A.", "usa"),
        ("anthem of the-a", "anthem of thea"),
        ("“the” — é", "“ ” — é"),
        ("The ...", ""),
    ],
)
def test_normalize(text: str, normal: str) -> None:
    assert normalize(text) == normal


@given(st.text(alphabet=st.sampled_from("aAnthe .,!-é\t\n“"), max_size=30))
def test_normalize_agrees_with_a_walk_over_the_characters(text: str) -> None:
    kept = [letter for letter in text.lower() if letter not in string.punctuation]
    # Articles are whole runs of word characters, so what is no word character parts them and stays.
    pieces = re.findall(r"\w+|\W", "".join(kept))
    assert normalize(text) == " ".join("".join(" " if p in ("a", "an", "the") else p for p in pieces).split())


@pytest.mark.parametrize(
    ("found", "golds", "exact", "f1"),
    [
        ("The cat", ["a dog", "cat!"], 1.0, 1.0),
        ("black cat", ["cat", "a dog"], 0.0, 2 / 3),
        ("cat cat", ["cat dog cat"], 0.0, 0.8),
        ("cat", [], 0.0, 0.0),
        ("", [], 1.0, 1.0),
        ("", ["cat"], 0.0, 0.0),
        ("the", [], 1.0, 1.0),  # compared after normalisation
        ("", ["the"], 1.0, 1.0),  # only golds that normalise to nothing: as no answer
        ("a", ["the"], 1.0, 1.0),
        ("the", ["an", "cat"], 0.0, 0.0),  # beside another, such a gold is left out
    ],
)
def test_exact_match_and_f1_of_one_answer(found: str, golds: list[str], exact: float, f1: float) -> None:
    assert exact_match(found, golds) == exact
    assert token_f1(found, golds) == pytest.approx(f1)


@given(texts, st.lists(texts, max_size=3))
def test_exact_match_and_f1_agree_with_crossing_out_words(found: str, golds: list[str]) -> None:
    exact, f1 = 0.0, 0.0
    ours = normalize(found).split()
    named = [gold for gold in map(normalize, golds) if gold]
    for gold in named:
        left, shared = gold.split(), 0
        for word in ours:
            if word in left:
                left.remove(word)
                shared += 1
        exact = max(exact, float(ours == gold.split()))
        if shared:
            precision, recall = shared / len(ours), shared / len(gold.split())
            f1 = max(f1, 2 * precision * recall / (precision + recall))
    if not named:
        exact = f1 = float(not ours)
    assert exact_match(found, golds) == exact
    assert token_f1(found, golds) == pytest.approx(f1)


SPLIT = (
    Answered("the cat", ("cat",), -2.0),
    Answered("black dog", ("dog",), 1.0),
    Answered("owl", (), 0.5),
    Answered("bird", (), 3.0),
)


def test_squad_1_never_leaves_a_question_unanswered() -> None:
    answers = [Answered("cat", ("cat",), 99.0), Answered("black dog", ("dog",), 99.0)]
    expected = {"squad_exact_match": 50.0, "squad_f1": 100 * (1 + 2 / 3) / 2}
    assert squad_scores(answers, None) == pytest.approx(expected)


def test_squad_2_scores_of_a_worked_example() -> None:
    # Threshold 0.5: the second and the fourth are left unanswered, the third (not above it) is answered, wrongly.
    # Best: of two unanswered ones, +1 for the cat at -2 makes 3 of 4; then -1 for the owl; the dog adds 0 or 2/3.
    expected = {
        "squad_exact_match": 50.0,
        "squad_f1": 50.0,
        "squad_has_answer_exact_match": 50.0,
        "squad_has_answer_f1": 50.0,
        "squad_no_answer_accuracy": 50.0,
        "squad_best_exact_match": 75.0,
        "squad_best_exact_match_threshold": -2.0,
        "squad_best_f1": 75.0,
        "squad_best_f1_threshold": -2.0,
    }
    assert squad_scores(SPLIT, 0.5) == pytest.approx(expected)


def test_squad_2_best_f1_may_lie_elsewhere_than_best_exact_match() -> None:
    answers = [item for item in SPLIT if item.found != "owl"]
    values = squad_scores(answers, 0.0)
    assert (values["squad_best_exact_match_threshold"], values["squad_best_f1_threshold"]) == (-2.0, 1.0)
    assert values["squad_best_f1"] == pytest.approx(100 * (1 + 2 / 3 + 1) / 3)


def test_squad_2_leaves_out_the_part_without_questions() -> None:
    assert "squad_no_answer_accuracy" not in squad_scores(SPLIT[:2], 0.0)
    unanswerable = squad_scores(SPLIT[2:], 0.0)
    assert not {"squad_has_answer_exact_match", "squad_has_answer_f1"} & unanswerable.keys()
    # Nothing is better than to leave all unanswered; the official scorer calls that threshold 0.
    assert (unanswerable["squad_best_f1"], unanswerable["squad_best_f1_threshold"]) == (100.0, 0.0)


def test_squad_2_a_gold_that_normalises_to_nothing_still_makes_a_question_answerable() -> None:
    values = squad_scores([Answered("cat", ("the",), 1.0)], 0.0)
    assert values["squad_has_answer_exact_match"] == values["squad_has_answer_f1"] == 100.0
    assert "squad_no_answer_accuracy" not in values
    assert values["squad_best_f1"] == 0.0


def test_squad_2_best_counts_equal_margins_one_by_one() -> None:
    right, wrong = Answered("cat", ("cat",), 1.0), Answered("cat", (), 1.0)
    assert squad_scores([right, wrong], 0.0)["squad_best_f1"] == 100.0
    assert squad_scores([wrong, right], 0.0)["squad_best_f1"] == 50.0


def test_squad_2_best_does_not_punish_an_empty_text_where_nothing_is_right() -> None:
    answers = [Answered("", (), 0.0), Answered("cat", ("cat",), 1.0)]
    assert squad_scores(answers, 0.0)["squad_best_exact_match"] == 100.0


golds = st.lists(texts.filter(normalize), max_size=2).map(tuple)
margins = st.lists(st.integers(-40, 40), min_size=1, max_size=6, unique=True)


@pytest.mark.slow
@given(margins.flatmap(lambda values: st.tuples(*(st.builds(Answered, texts, golds, st.just(v / 4)) for v in values))))
def test_squad_2_best_agrees_with_trying_every_threshold(answers: tuple[Answered, ...]) -> None:
    answers = tuple(item for item in answers if normalize(item.found)) or SPLIT
    values = squad_scores(answers, 0.0)
    tried = [-1000.0, *sorted(item.null_margin for item in answers)]
    for name in ("exact_match", "f1"):
        reached = [squad_scores(answers, at)[f"squad_{name}"] for at in tried]
        assert values[f"squad_best_{name}"] == pytest.approx(max(reached))
        at = values[f"squad_best_{name}_threshold"]
        if reached[0] == pytest.approx(max(reached)):
            assert at == 0.0
        else:
            assert squad_scores(answers, at)[f"squad_{name}"] == pytest.approx(max(reached))


@given(st.lists(st.builds(Answered, texts, golds, st.floats(-2, 2)), min_size=1, max_size=6), st.floats(-2, 2))
def test_squad_2_parts_make_up_the_whole(answers: list[Answered], threshold: float) -> None:
    values = squad_scores(answers, threshold)
    answerable = sum(1 for item in answers if item.golds)
    no_answer = values.get("squad_no_answer_accuracy", 0.0) * (len(answers) - answerable)
    for name in ("exact_match", "f1"):
        part = values.get(f"squad_has_answer_{name}", 0.0) * answerable
        assert values[f"squad_{name}"] == pytest.approx((part + no_answer) / len(answers))
        one_by_one = [
            squad_scores([item], None)[f"squad_{name}"] if item.null_margin <= threshold else 100.0 * (not item.golds)
            for item in answers
        ]
        assert values[f"squad_{name}"] == pytest.approx(sum(one_by_one) / len(answers))


# MultiRC and ReCoRD


def test_multirc_scores_of_a_worked_example() -> None:
    groups = ["p", "q", "p", "q", "q"]
    right = [True, True, False, True, False]
    found = [True, True, False, False, True]
    # p: both judged right, F1 1. q: one of two found, one found of two right, F1 1/2. Together: 2 of 3 and 2 of 3.
    expected = {"multirc_f1a": 200 / 3, "multirc_exact_match": 50.0}
    assert multirc_scores(groups, right, found) == pytest.approx(expected)


@pytest.mark.parametrize(("right", "found", "f1"), [(False, False, 100), (True, False, 0), (False, True, 0)])
def test_multirc_f1_without_a_right_answer_or_one_found(right: bool, found: bool, f1: float) -> None:
    values = multirc_scores(["q"], [right], [found])
    assert values == {"multirc_f1a": f1, "multirc_exact_match": f1}


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_multirc_scores_agree_with_scikit_learn(rows: list[tuple[str, bool, bool]]) -> None:
    groups, right, found = (list(column) for column in zip(*rows, strict=True))
    values = multirc_scores(groups, right, found)
    f1 = 100 * float(f1_score(right, found, pos_label=True, average="binary", zero_division=1))
    assert values["multirc_f1a"] == pytest.approx(f1)
    by_question: dict[str, tuple[list[bool], list[bool]]] = defaultdict(lambda: ([], []))
    for group, is_right, is_found in rows:
        by_question[group][0].append(is_right)
        by_question[group][1].append(is_found)
    whole = sum(is_right == is_found for is_right, is_found in by_question.values())
    assert values["multirc_exact_match"] == pytest.approx(100 * whole / len(by_question))


def test_record_scores_of_a_worked_example() -> None:
    # Query 1: "Ann Lee" shares a word with a gold. Query 2: equal scores, the later text, which is right.
    values = record_scores(
        ["1", "2", "1", "2"],
        ["Bob", "Carl", "Ann Lee", "The Dan"],
        [0.1, 2.0, 0.9, 2.0],
        [["Ann", "Bob"], ["Dan"], ["Ann", "Bob"], ["Dan"]],
    )
    assert values == pytest.approx({"record_exact_match": 50.0, "record_f1": 100 * (2 / 3 + 1) / 2})


@given(st.lists(st.tuples(st.sampled_from("12"), texts, st.sampled_from([-1.0, 0.0, 2.5])), min_size=1, max_size=8))
def test_record_scores_agree_with_sorting_each_query(rows: list[tuple[str, str, float]]) -> None:
    right = {"1": ["the cat", "dog x"], "2": ["theatre"]}
    groups, candidates, scores = (list(column) for column in zip(*rows, strict=True))
    values = record_scores(groups, candidates, scores, [right[group] for group in groups])
    answers: list[tuple[str, str]] = []
    for query in set(groups):
        ranked = [(text, score) for group, text, score in rows if group == query]
        ranked.sort(key=lambda row: row[0], reverse=True)
        ranked.sort(key=lambda row: row[1], reverse=True)  # a stable sort keeps the order of the texts
        answers.append((query, ranked[0][0]))
    for name, measure in (("exact_match", exact_match), ("f1", token_f1)):
        mean = sum(measure(text, right[query]) for query, text in answers) / len(answers)
        assert values[f"record_{name}"] == pytest.approx(100 * mean)


# Semantic roles


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-A0 I-A0 B-V O B-A1", {("A0", ((0, 2),)), ("A1", ((4, 5),))}),
        ("B-A1 B-V B-C-A1 I-C-A1 O B-C-A1", {("A1", ((0, 1), (2, 4), (5, 6)))}),
        ("B-A1 O B-A1 B-V B-C-A1", {("A1", ((0, 1),)), ("A1", ((2, 3), (4, 5)))}),
        ("B-C-A1 B-V B-A1 B-C-A1", {("A1", ((0, 1),)), ("A1", ((2, 3), (3, 4)))}),
        ("B-C-A1 B-V B-C-A1", {("A1", ((0, 1), (2, 3)))}),
        ("B-V B-A1 B-C-V", {("A1", ((1, 2),))}),
        ("B-C-V B-A1", {("A1", ((1, 2),))}),
        ("B-A0 B-R-A0 B-V B-C-R-A0", {("A0", ((0, 1),)), ("R-A0", ((1, 2), (3, 4)))}),
        ("B-ARG1 B-V B-C-ARG1 B-ARGM-TMP B-R-ARG1", None),
        ("I-A0 B-V I-A1 O I-A1", set()),
        ("B-A0 I-A1 I-A0", {("A0", ((0, 1),))}),
        ("O O", set()),
    ],
)
def test_conll05_spans(tags: str, spans: set[object] | None) -> None:
    if spans is None:
        spans = {("ARG1", ((0, 1), (2, 3))), ("ARGM-TMP", ((3, 4),)), ("R-ARG1", ((4, 5),))}
    assert conll05_spans(tags.split()) == spans


def test_srl_scores_of_a_worked_example() -> None:
    right = ["B-A0 B-V B-A1 O B-C-A1", "B-A0 B-V O O O"]
    found = ["B-A0 B-V B-A1 O O", "B-A1 B-V O O B-AM-TMP"]
    overall, by_role = srl_scores([tags.split() for tags in found], [tags.split() for tags in right])
    # 4 found and 3 right; only the first A0 is both: the found A1 lacks a piece.
    assert overall == pytest.approx({"srl_precision": 25.0, "srl_recall": 100 / 3, "srl_f1": 200 / 7})
    assert by_role == {
        "A0": pytest.approx((100.0, 50.0, 200 / 3, 2)),
        "A1": (0.0, 0.0, 0.0, 1),
        "AM-TMP": (0.0, 0.0, 0.0, 0),
    }


def test_srl_scores_without_arguments_are_zero() -> None:
    assert srl_scores([["B-V", "O"]], [["B-V", "O"]]) == ({"srl_f1": 0, "srl_precision": 0, "srl_recall": 0}, {})


def sentences(*roles: str) -> st.SearchStrategy[list[tuple[list[str], list[str]]]]:
    """Pairs of found and right tags, of equal length, mostly the same, also invalid ones."""
    tags = st.sampled_from(["O", *(f"{prefix}-{role}" for role in roles for prefix in "BI")])
    same = tags.map(lambda tag: (tag, tag))
    pairs = st.lists(st.one_of(same, same, same, st.tuples(tags, tags)), min_size=1, max_size=9)
    return st.lists(pairs.map(lambda rows: ([a for a, _ in rows], [b for _, b in rows])), min_size=1, max_size=4)


@given(sentences("V", "A0", "R-A0", "AM-TMP"))
def test_srl_f1_without_continuations_is_that_of_seqeval_without_the_verb(
    pairs: list[tuple[list[str], list[str]]],
) -> None:
    found, right = ([pair[side] for pair in pairs] for side in (0, 1))
    # Its tags become O, which ends what stands before it just as they do.
    without = [[["O" if tag[2:] == "V" else tag for tag in tags] for tags in side] for side in (right, found)]
    overall, _ = srl_scores(found, right)
    f1 = seqeval_f1(*without, mode="strict", scheme=IOB2, zero_division=0) if any_span(without) else 0.0
    assert overall["srl_f1"] == pytest.approx(100 * float(f1))


def any_span(sides: list[list[list[str]]]) -> bool:
    return all(any(tag.startswith("B-") for tags in side for tag in tags) for side in sides)


def brackets(tags: list[str]) -> list[str]:
    """The props column of a CoNLL-2005 file: `(A1*`, `*`, `*)`; an `I-` that continues nothing is `*`."""
    column: list[str] = []
    inside = ""
    for position, tag in enumerate(tags):
        if tag.startswith("B-"):
            inside = tag[2:]
        elif tag != f"I-{inside}":
            inside = ""
        ends = inside and (position + 1 == len(tags) or tags[position + 1] != f"I-{inside}")
        column.append(("(" + inside if tag.startswith("B-") else "") + "*" + (")" if ends else ""))
    return column


def arguments(column: list[str]) -> list[list[str | int]]:
    """The arguments of a props column, as a list of role, first word, last word, first word of the next piece, ..."""
    last: dict[str, list[str | int]] = {}
    listed: list[list[str | int]] = []
    piece: list[str | int] = []
    for position, cell in enumerate(column):
        opened = re.fullmatch(r"\((C-)?(.+)\*\)?", cell)
        if opened:
            continues, role = opened.groups()
            if not (continues and role in last):
                last[role] = [role]
                listed.append(last[role])
            piece = last[role]
            piece.append(position)
        if cell.endswith(")"):
            piece.append(position)
    return [argument for argument in listed if argument[0] != "V"]


@given(sentences("V", "C-V", "A0", "C-A0", "R-A0"))
def test_srl_scores_agree_with_brackets_read_as_by_the_official_script(
    pairs: list[tuple[list[str], list[str]]],
) -> None:
    correct: dict[str, int] = defaultdict(int)
    excess: dict[str, int] = defaultdict(int)
    missed: dict[str, int] = defaultdict(int)
    for found, right in pairs:
        theirs = arguments(brackets(right))
        ends = [
            (role, *((first, last + 1) for first, last in zip(at[::2], at[1::2], strict=True))) for role, *at in theirs
        ]
        assert conll05_spans(right) == {(role, tuple(pieces)) for role, *pieces in ends}
        for argument in arguments(brackets(found)):
            role = str(argument[0])
            if argument in theirs:
                theirs.remove(argument)
                correct[role] += 1
            else:
                excess[role] += 1
        for argument in theirs:
            missed[str(argument[0])] += 1
    overall, by_role = srl_scores([found for found, _ in pairs], [right for _, right in pairs])
    rates = official_rates(sum(correct.values()), sum(excess.values()), sum(missed.values()))
    assert (overall["srl_precision"], overall["srl_recall"], overall["srl_f1"]) == pytest.approx(rates)
    assert by_role.keys() == correct.keys() | excess.keys() | missed.keys()
    for role, (*rates, support) in by_role.items():
        assert rates == pytest.approx(list(official_rates(correct[role], excess[role], missed[role])))
        assert support == correct[role] + missed[role]


def official_rates(correct: int, excess: int, missed: int) -> tuple[float, float, float]:
    precision = 100 * correct / (correct + excess) if correct + excess else 0.0
    recall = 100 * correct / (correct + missed) if correct + missed else 0.0
    return precision, recall, 200 * correct / (2 * correct + excess + missed) if correct else 0.0
