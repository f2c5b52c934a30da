"""The reader of SQuAD's own JSON."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.data.sources.squad import read_squad
from tests.data.test_corpus_sources import refused, values, write


def squad(*questions: Any) -> dict[str, Any]:
    return {"data": [{"title": "T", "paragraphs": [{"context": "Ada left.", "qas": list(questions)}]}]}


def test_squad(tmp_path: Path) -> None:
    first = {"id": "a", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}] * 2}
    second = {
        "id": "b",
        "question": "Why?",
        "is_impossible": True,
        "answers": [],
        "plausible_answers": [{"text": "left", "answer_start": 4}],
    }
    path = write(tmp_path / "dev.json.gz", json.dumps(squad(first, second), indent=1))
    rows = list(read_squad(path))
    common = {"title": "T", "context": "Ada left."}
    assert values(iter(rows)) == [
        {**common, "id": "a", "question": "Who?", "answers": {"text": ["Ada", "Ada"], "answer_start": [0, 0]}},
        {**common, "id": "b", "question": "Why?", "answers": {"text": [], "answer_start": []}},
    ]
    assert [row.location for row in rows] == [f"{path}: question a", f"{path}: question b"]


def test_squad_samples(shared: Path) -> None:
    old, new = (values(read_squad(shared / f"data/format_samples/squad/dev-{v}.json")) for v in ("v1.1", "v2.0"))
    assert old == new[:2]
    assert [row["id"] for row in new] == ["q1", "q2", "q3"]
    assert new[2]["answers"] == {"text": [], "answer_start": []}
    for row in old:
        (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start:].startswith(text)


QUESTION = {"id": "a", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]}
IN_QUESTION = "article 1, paragraph 1, question 1"


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in QUESTION.items() if name != key}


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        ([], "", "expected an object with 'data'. Got list"),
        ({"version": "1.1"}, "", "'data' is missing"),
        ({"data": {}}, "", "'data' must be a list. Got dict"),
        ({"data": ["x"]}, "article 1", "expected an object with 'paragraphs'. Got str"),
        ({"data": [{"title": "T", "paragraphs": []}, {"title": "T"}]}, "article 2", "'paragraphs' is missing"),
        ({"data": [{"title": "T", "paragraphs": [{}]}]}, "article 1, paragraph 1", "'context' is missing"),
        ({"data": [{"title": "T", "paragraphs": [{"context": 1}]}]}, "article 1, paragraph 1", "must be a text. Got"),
        ({"data": [{"title": "T", "paragraphs": [{"context": ""}]}]}, "article 1, paragraph 1", "'qas' is missing"),
        (squad({**QUESTION, "id": [1]}), IN_QUESTION, "'id' must be a text. Got list"),
        (squad(without("question")), IN_QUESTION, "'question' is missing"),
        (squad(without("answers")), IN_QUESTION, "'answers' is missing"),
        (squad({**QUESTION, "answers": {"text": []}}), IN_QUESTION, "'answers' must be a list. Got dict"),
        (squad({**QUESTION, "is_impossible": "no"}), IN_QUESTION, "'is_impossible' must be true or false. Got str"),
        (squad({**QUESTION, "answers": [{"text": "Ada"}]}), f"{IN_QUESTION}, answer 1", "'answer_start' is missing"),
        (
            squad({**QUESTION, "answers": [{"text": "Ada", "answer_start": True}]}),
            f"{IN_QUESTION}, answer 1",
            "'answer_start' must be a whole number. Got bool",
        ),
        (squad({**QUESTION, "question": "\ud83d"}), IN_QUESTION, "'question' is not Unicode"),
    ],
)
def test_squad_names_the_bad_place(tmp_path: Path, content: Any, place: str, message: str) -> None:
    path = write(tmp_path / "a.json", json.dumps(content))
    with refused(f"{path}: {place}" if place else str(path), message):
        list(read_squad(path))


def test_squad_that_is_no_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"data":\n [,]}')
    with refused(f"{path}:2", "not JSON: Expecting value at column 3"):
        list(read_squad(path))
    with refused(str(path), "not readable: the JSON is nested too deeply"):
        list(read_squad(write(path, '{"data": ' + "[" * 200_000)))
    with refused(str(path), "not JSON: Exceeds the limit"):
        list(read_squad(write(path, '{"data": ' + "1" * 5000 + "}")))


def test_gzip_called_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(gzip.compress(b"{}"))
    with refused(f"{path}:1", "not UTF-8", "this is gzip; its name has to end in '.gz'"):
        list(read_squad(path))
