"""What a server refuses, and how it says so."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptv2kit.training.mixed import MixedPredictor
from tests.serve.conftest import ROWS, Serve

RunOf = Callable[[str], Path]
ROW = {"rows": [{"row": "ada"}]}


def refused(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.json().keys() == {"detail"}
    for word in words:
        assert word in response.json()["detail"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ("body",)),
        (b"{", ("the body is not JSON: Expecting property name",)),
        (b"\xff\xfe", ("the body is not JSON",)),
        (b"[" * 200_000, ("body",)),
        (b"1" * 10_000, ("body",)),
        (b"[]", ("body",)),
        (b"{}", ("rows: Field required",)),
        (b'{"rows": []}', ("rows: List should have at least 1 item",)),
        (b'{"rows": [{"row": 3}]}', ("rows.0.row",)),
        (b'{"rows": [{"row": "ada", "promt": "mood"}]}', ("rows.0.promt: Extra inputs",)),
        (b'{"rows": [{"row": "ada", "prompt": "moood"}]}', ("there is no prompt 'moood'", "did you mean 'mood'")),
        (b'{"rows": [{"row": "\\ud800", "prompt": "mood"}]}', ("half of a surrogate pair",)),
        (b'{"rows": [{"row": {"\\udfff": 1}, "prompt": "mood"}]}', ("half of a surrogate pair",)),
        (b'{"rows": [{"row": "ada"}]}', ("say which prompt is to answer: mood, yes",)),
        (b'{"rows": [{"row": "ada", "prompt": "yes"}]}', ("row 0: a text is one column", "who, where")),
    ],
)
def test_what_was_not_expected_is_named(serve: Serve, body: bytes, words: tuple[str, ...]) -> None:
    client = serve("mood", "yes")
    response = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422), response.text
    for word in words:
        assert word in response.json()["detail"]
    assert client.post("/prompts/mood/predict", json={"rows": ["ada"]}).status_code == 200


def test_text_of_another_kind_is_no_json(serve: Serve) -> None:
    """A web page can send a form or a text to any server without asking it first."""
    response = serve("mood").post("/predict", content=json.dumps(ROW), headers={"content-type": "text/plain"})
    refused(response, 422, "body")


def test_a_body_that_is_too_large(serve: Serve) -> None:
    client = serve("mood", max_body=1000)

    def pieces() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 100

    json_type = {"content-type": "application/json"}
    refused(client.post("/predict", content=b" " * 1001, headers=json_type), 413, "more than 1000 bytes")
    refused(client.post("/predict", content=pieces(), headers=json_type), 413, "more than 1000 bytes")
    refused(client.post("/predict", content=b" " * 1000, headers=json_type), 422)
    assert client.post("/predict", json=ROW).status_code == 200


def test_rows_that_are_too_many_or_too_long(serve: Serve) -> None:
    client = serve("mood", max_rows=2, max_characters=20)
    refused(client.post("/predict", json={"rows": [{"row": "ada"}] * 3}), 422, "at most 2 rows. Got 3")
    refused(client.post("/predict", json={"rows": [{"row": "ada"}, {"row": "a" * 21}]}), 422, "row 1", "21", "20")
    nested = {"who": "ada", "more": [["a" * 5, {"b" * 5: "c" * 5}]]}
    refused(client.post("/predict", json={"rows": [{"row": nested}]}), 422, "row 0: it has 25 characters")
    assert client.post("/predict", json={"rows": [{"row": "a" * 20}]}).status_code == 200


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Answers come only when the event is set."""
    answers, go = MixedPredictor.answers, threading.Event()

    def waiting(self: MixedPredictor, questions: Any) -> Any:
        assert go.wait(60)
        return answers(self, questions)

    monkeypatch.setattr(MixedPredictor, "answers", waiting)
    yield go
    go.set()


def test_a_full_queue(serve: Serve, slow: threading.Event) -> None:
    client = serve("mood", queue=3)
    with ThreadPoolExecutor(3) as threads:
        first = [threads.submit(client.post, "/predict", json=ROW) for _ in range(3)]
        for _ in range(600):
            if "ptv2kit_waiting_rows 3.0" in client.get("/metrics").text:
                break
            time.sleep(0.05)
        response = client.post("/predict", json=ROW)
        refused(response, 429, "too many rows wait already")
        assert response.headers["retry-after"] == "1"
        slow.set()
        assert [request.result().status_code for request in first] == [200, 200, 200]
    assert client.post("/predict", json=ROW).status_code == 200


def test_more_rows_than_the_queue_takes_at_all(serve: Serve) -> None:
    response = serve("mood", queue=3).post("/predict", json={"rows": [{"row": "ada"}] * 4})
    refused(response, 413, "at most 3 rows, as many as may wait. Got 4")
    assert "retry-after" not in response.headers


def test_an_answer_that_takes_too_long(serve: Serve, slow: threading.Event) -> None:
    client = serve("mood", timeout=0.2)
    refused(client.post("/predict", json=ROW), 503, "no answer within 0.2 s")
    slow.set()
    for _ in range(100):  # what is left of it is computed first
        if client.post("/predict", json=ROW).status_code == 200:
            break
    assert "ptv2kit_waiting_rows 0.0" in client.get("/metrics").text


def test_a_body_that_does_not_come(serve: Serve) -> None:
    client = serve("mood", timeout=0.3)

    def pieces() -> Iterator[bytes]:
        yield b"{"
        time.sleep(1.5)
        yield b"}"

    refused(client.post("/predict", content=pieces()), 408, "did not come within 0.3 s")


def test_a_token(serve: Serve) -> None:
    client = serve("mood", token="secret", local_only=False)
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "secret"},
        {"authorization": "Basic secret"},
    ):
        for method, path in (("POST", "/predict"), ("GET", "/prompts"), ("GET", "/metrics"), ("GET", "/docs")):
            response = client.request(method, path, json=ROW, headers=headers)
            refused(response, 401, "token")
            assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/health").status_code == 200
    assert client.post("/predict", json=ROW, headers={"authorization": "Bearer secret"}).status_code == 200
    odd = client.post("/predict", json=ROW, headers={"authorization": b"Bearer s\xe9cret"})
    refused(odd, 401)


def test_only_names_of_this_machine_without_a_token(serve: Serve) -> None:
    client = serve("mood")
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        refused(client.get("/health", headers={"host": host}), 421, "localhost only")
    for host in ("localhost", "localhost:1", "127.0.0.1:9", "[::1]:9", "[::1]"):
        assert client.get("/health", headers={"host": host}).status_code == 200


def test_prompts_come_and_go(serve: Serve, run_of: RunOf, folder: Path) -> None:
    client = serve("mood", "yes", manage=folder / "runs")
    new = {"run": f"names/{run_of('names').name}", "name": "who"}
    response = client.post("/prompts", json=new)
    assert response.status_code == 201
    [facts] = response.json()["prompts"]
    assert facts["name"] == "who"
    assert facts["labels"] == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert facts["columns"] == ["words"]
    assert client.post("/predict", json={"rows": [{"prompt": "who", "row": ROWS["names"]}]}).status_code == 200
    assert 'ptv2kit_rows_total{prompt="who"} 1.0' in client.get("/metrics").text
    refused(client.post("/prompts", json=new), 422, "there already is a prompt 'who'")
    assert client.delete("/prompts/who").status_code == 204
    assert 'prompt="who"' not in client.get("/metrics").text
    refused(client.delete("/prompts/who"), 404, "there is no prompt 'who'")
    refused(client.post("/prompts/who/predict", json={"rows": ["ada"]}), 404, "there is no prompt 'who'")
    assert [each["name"] for each in client.get("/prompts").json()["prompts"]] == ["mood", "yes"]
    for run in ("nothing", "names", "a\0b", "x" * 4000):
        refused(client.post("/prompts", json={"run": run}), 422, "no")
    for run in ("../../etc", "/etc", f"names/../../{folder.name}/../x"):
        refused(client.post("/prompts", json={"run": run}), 403, "only runs within the folder")
    refused(client.post("/prompts", json={"run": new["run"], "name": "a/b"}), 422, "name")
    for name in ("mood", "yes"):
        assert client.delete(f"/prompts/{name}").status_code == 204
    refused(client.post("/predict", json=ROW), 422, "there is none")
    assert client.post("/prompts", json=new).status_code == 201, "the backbone is still there"


def test_prompts_stay_as_they_are_unless_said_otherwise(serve: Serve, run_of: RunOf) -> None:
    client = serve("mood")
    refused(client.post("/prompts", json={"run": "names"}), 403, "--manage")
    refused(client.delete("/prompts/mood"), 403, "--manage")


def test_a_link_out_of_the_folder_is_not_followed(serve: Serve, run_of: RunOf, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(run_of("names"))
    refused(serve("mood", manage=tmp_path / "runs").post("/prompts", json={"run": "link"}), 403, "within the folder")


def test_the_description_of_the_routes_needs_no_network(serve: Serve) -> None:
    client = serve("mood")
    page = client.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/predict", "/prompts", "/prompts/{name}", "/prompts/{name}/predict", "/health", "/metrics"} == set(paths)
    assert {"200", "413", "422", "429", "503"} <= set(paths["/predict"]["post"]["responses"])
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ROW_LIKE = st.text(max_size=40) | st.fixed_dictionaries({"who": JSON, "where": JSON, "words": JSON, "context": JSON})
BODY = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"rows": st.lists(st.fixed_dictionaries({"prompt": st.sampled_from(list(ROWS)), "row": ROW_LIKE | JSON}))}
    ).map(lambda value: json.dumps(value).encode()),
)
PATHS = ["/predict", "/prompts", "/prompts/mood/predict", "/prompts/mood", "/health", "/x", "/prompts/%2e%2e/predict"]


@pytest.mark.slow
def test_no_input_makes_it_fail(serve: Serve, tmp_path: Path) -> None:
    client = serve(manage=tmp_path)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(BODY, st.sampled_from(PATHS), st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE"]))
    def ask(body: bytes, path: str, method: str) -> None:
        if method == "DELETE":
            path = "/prompts/nothing"
        response = client.request(method, path, content=body, headers={"content-type": "application/json"})
        assert response.status_code < 500, (body, response.text)
        response.json()

    ask()
    assert client.get("/health").json()["status"] == "ok"


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.recursive(st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner)))
def test_characters_are_counted_everywhere(value: Any) -> None:
    from ptv2kit.serve.bodies import characters

    def count(item: Any) -> int:
        if isinstance(item, dict):
            return sum(len(key) + count(inner) for key, inner in item.items())
        return len(item) if isinstance(item, str) else sum(map(count, item))

    assert characters(value) == count(value)
