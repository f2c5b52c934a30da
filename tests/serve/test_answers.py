"""What a server answers is what each run answers alone, however its rows are mixed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import ptv2kit
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.training.mixed import MixedPredictor
from tests.serve.conftest import ROWS, TASKS, Serve

RunOf = Callable[[str], Path]


def same(found: Any, expected: Any) -> None:
    """Equal, numbers to a tolerance."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, list) and not isinstance(expected[0] if expected else "", str):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5)
    else:
        assert found == expected


def alone(run_of: RunOf, task: str, rows: list[Any]) -> list[dict[str, Any]]:
    return ptv2kit.load(run_of(task), device="cpu").predict(rows)


@pytest.mark.slow
def test_mixed_rows_are_answered_as_each_alone(serve: Serve, run_of: RunOf) -> None:
    client = serve()
    names = [*TASKS, *reversed(TASKS)]
    response = client.post("/predict", json={"rows": [{"prompt": name, "row": ROWS[name]} for name in names]})
    assert response.status_code == 200
    answers = response.json()["answers"]
    assert [answer.pop("row") for answer in answers] == list(range(len(names)))
    for name, answer in zip(names, answers, strict=True):
        same(answer, alone(run_of, name, [ROWS[name]])[0])
    assert "ptv2kit_batch_prompts_sum 5.0" in client.get("/metrics").text


def test_from_python(run_of: RunOf) -> None:
    runs = ptv2kit.load_together({name: run_of(name) for name in TASKS}, device="cpu")
    assert runs.names == list(TASKS)
    found = runs.predict([(name, ROWS[name]) for name in TASKS] + [("mood", "ada left")], batch_tokens=20)
    for name, answer in zip(TASKS, found[:-1], strict=True):
        same(answer, alone(run_of, name, [ROWS[name]])[0])
    same(found[-1], alone(run_of, "mood", ["ada left"])[0])
    with pytest.raises(DataError, match="no column 'who'"):
        runs.predict([("mood", {"text": "ada"})])
    with pytest.raises(ConfigError, match=r"row 1: a text is one column, but prompt 'yes' reads who, where"):
        runs.predict([("yes", "ada")])
    with pytest.raises(ConfigError, match="there is no prompt 'nmes'"):
        runs.predict([("nmes", "ada")])
    with pytest.raises(ConfigError, match="there already is a prompt 'yes'"):
        runs.add(run_of("mood"), "yes")
    backbone = runs.run("names").model.backbone
    assert all(runs.run(name).model.backbone is backbone for name in TASKS), "the backbone is there once"


def test_a_row_that_cannot_be_read_does_not_hold_up_the_others(serve: Serve, run_of: RunOf) -> None:
    rows: list[Any] = [{"who": "ada"}, {"text": "ada"}, {"who": None}, "alan left", {"who": ""}]
    response = serve("mood").post("/prompts/mood/predict", json={"rows": rows})
    assert response.status_code == 200
    answers = response.json()["answers"]
    assert [answer["row"] for answer in answers] == [0, 1, 2, 3, 4]
    assert answers[1]["error"] == "no column 'who'"
    assert answers[2]["error"] == "column 'who' must hold text. Got null"
    same(answers[3], {"row": 3, **alone(run_of, "mood", ["alan left"])[0]})


def test_the_only_prompt_need_not_be_named(serve: Serve) -> None:
    client = serve("mood")
    assert client.post("/predict", json={"rows": [{"row": "ada"}]}).status_code == 200


def test_rows_of_several_requests_are_computed_together(serve: Serve, run_of: RunOf) -> None:
    client = serve(max_wait=0.5)
    names = [*TASKS] * 4

    def ask(name: str) -> dict[str, Any]:
        return client.post(f"/prompts/{name}/predict", json={"rows": [ROWS[name]]}).json()["answers"][0]

    with ThreadPoolExecutor(len(names)) as threads:
        answers = list(threads.map(ask, names))
    expected = {name: alone(run_of, name, [ROWS[name]])[0] for name in TASKS}
    for name, answer in zip(names, answers, strict=True):
        same(answer, {"row": 0, **expected[name]})
    counts = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
    assert float(counts["ptv2kit_batch_rows_sum"]) == len(names)
    assert float(counts["ptv2kit_batch_rows_count"]) < len(names)
    assert float(counts["ptv2kit_waiting_rows"]) == 0


def test_a_full_batch_does_not_wait(serve: Serve) -> None:
    client = serve("mood", max_wait=1000.0, batch_tokens=8)
    rows = {"rows": ["ada met alan in paris", "alan left for rome"]}
    assert client.post("/prompts/mood/predict", json=rows, timeout=30).status_code == 200


def test_a_batch_that_fails_is_tried_row_by_row(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve("mood", "yes", max_wait=0.2)
    answers = MixedPredictor.answers

    def spoiled(self: MixedPredictor, questions: Any) -> Any:
        if any(question.row.values.get("who") == "alan" for question in questions):
            raise RuntimeError("out of something")
        return answers(self, questions)

    monkeypatch.setattr(MixedPredictor, "answers", spoiled)
    good, bad = [{"row": "ada", "prompt": "mood"}], [{"row": "alan", "prompt": "mood"}]
    barrier = threading.Barrier(2)

    def ask(rows: list[Any]) -> httpx.Response:
        barrier.wait()
        return client.post("/predict", json={"rows": rows})

    with ThreadPoolExecutor(2) as threads:
        answered, failed = threads.map(ask, [good, bad])
    assert (answered.status_code, failed.status_code) == (200, 500)
    assert failed.json() == {"detail": "internal error; the server's log tells more"}
    assert client.get("/health").status_code == 200
    assert client.post("/predict", json={"rows": good}).status_code == 200


def test_logits_that_are_no_numbers_are_a_fault_of_their_prompt(run_of: RunOf) -> None:
    runs = ptv2kit.load_together({"mood": run_of("mood"), "yes": run_of("yes")}, device="cpu")
    for parameter in runs.run("mood").model.head.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(DataError, match="the prompt 'mood' gives no number for this row"):
        runs.predict([("mood", "ada"), ("yes", ROWS["yes"])])
    assert len(runs.predict([("yes", ROWS["yes"])])) == 1
