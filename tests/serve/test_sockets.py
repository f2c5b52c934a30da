"""Limits that a client library would keep by itself: tested with bytes on a socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ptv2kit.serve.app import build_app
from ptv2kit.serve.server import build_server
from ptv2kit.serve.settings import Settings
from ptv2kit.training.load_together import LoadedRuns
from ptv2kit.training.mixed import MixedPredictor
from tests.serve.conftest import Serve

RunOf = Callable[[str], Path]
ROW = {"rows": [{"row": "ada"}]}


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=30)


def request(client: httpx.Client, *headers: str, body: bytes = b"") -> str:
    """What comes back for headers as they are written."""
    with connect(client) as opened:
        lines = ["POST /predict HTTP/1.1", "host: localhost", "content-type: application/json", *headers]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it was told everything
            opened.sendall("\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := opened.recv(65536):
                answer += piece
                if b"\r\n\r\n" in answer and b"connection: close" not in answer.lower():
                    break
    return answer.decode()


def test_headers_that_are_too_large_end_the_connection_at_once(serve: Serve) -> None:
    client = serve("mood")
    for size in (20_000, 20_000_000):
        began = time.monotonic()
        answer = request(client, f"x-large: {'a' * size}")
        assert answer.startswith(("HTTP/1.1 400 ", "HTTP/1.1 431 ")) or answer == "", answer[:200]
        assert time.monotonic() - began < 5
        assert client.get("/health").status_code == 200


def test_many_headers_are_as_large_as_one(serve: Serve) -> None:
    answer = request(serve("mood"), *[f"x-{number}: {'a' * 80}" for number in range(300)])
    assert answer.startswith(("HTTP/1.1 400 ", "HTTP/1.1 431 "))


def test_headers_that_come_slowly_are_cut_off(serve: Serve) -> None:
    client = serve("mood", header_timeout=0.5)
    opened = [connect(client) for _ in range(20)]
    began = time.monotonic()
    for each in opened:
        each.sendall(b"POST /predict HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
    for each in opened:
        answer = each.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408 ") or answer == b""
        each.close()
    assert time.monotonic() - began < 5
    with connect(client) as silent:
        assert silent.recv(1000)[:13] in (b"HTTP/1.1 408 ", b"")


def test_a_slow_answer_is_not_cut_off_by_the_time_for_headers(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = MixedPredictor.answers

    def slow(self: MixedPredictor, questions: list[object]) -> object:
        time.sleep(1)
        return answers(self, questions)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(MixedPredictor, "answers", slow)
    client = serve("mood", header_timeout=0.3)
    for _ in range(2):  # the second one on the same connection
        assert client.post("/predict", json=ROW).status_code == 200


@pytest.mark.parametrize("header", ["host: elsewhere", "authorization: Bearer other", "Content-Type: text/plain"])
def test_a_header_that_is_there_twice_is_refused(serve: Serve, header: str) -> None:
    client = serve("mood", token="secret")
    answer = request(client, "authorization: Bearer secret", header, body=json.dumps(ROW).encode())
    assert answer.startswith("HTTP/1.1 400 ")


def test_a_prompts_name_of_half_a_character(serve: Serve) -> None:
    client = serve("mood")
    body = b'{"rows": [{"row": "ada", "prompt": "\\ud800"}]}'
    response = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert "half of a surrogate pair" in response.json()["detail"]


def test_a_name_that_is_taken_tells_nothing_of_the_servers_folders(serve: Serve, run_of: RunOf, folder: Path) -> None:
    client = serve("mood", manage=folder / "runs")
    run = run_of("mood").relative_to(folder / "runs")
    response = client.post("/prompts", json={"run": str(run), "name": "mood"})
    assert response.status_code == 422
    assert "there already is a prompt 'mood'" in response.json()["detail"]
    assert str(folder) not in response.text


@pytest.mark.slow
@pytest.mark.parametrize("grace", [0.2, 20.0])
def test_what_was_accepted_is_answered_or_refused_at_the_end(
    run_of: RunOf, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    """SIGTERM while four requests wait: with time to spare all are answered, else all are told."""
    answers, computing = MixedPredictor.answers, threading.Event()

    def slow(self: MixedPredictor, questions: list[object]) -> object:
        computing.set()
        time.sleep(3)
        return answers(self, questions)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(MixedPredictor, "answers", slow)
    runs = LoadedRuns("cpu")
    runs.add(run_of("mood"), "mood")
    settings = Settings(grace=grace)
    server = build_server(build_app(runs, settings), settings)
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(5) as threads:
        ended = threads.submit(server.run, sockets=[listening])
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/predict"
        asked = [threads.submit(httpx.post, address, json=ROW, timeout=60, trust_env=False) for _ in range(4)]
        assert computing.wait(30)
        begun = time.monotonic()
        while len(server.server_state.tasks) < 4:  # one for each request that was accepted
            assert time.monotonic() < begun + 30
            time.sleep(0.02)
        server.handle_exit(signal.SIGTERM, None)
        codes = [each.result().status_code for each in asked]
        ended.result(timeout=60)
    assert codes == ([503] * 4 if grace < 1 else [200] * 4)


def test_h11_is_used_where_httptools_is_installed(run_of: RunOf) -> None:
    runs = LoadedRuns("cpu")
    runs.add(run_of("mood"), "mood")
    config = build_server(build_app(runs, Settings()), Settings()).config
    config.load()
    assert any(base.__name__ == "H11Protocol" for base in config.http_protocol_class.__mro__)
    assert os.environ.get("WEB_CONCURRENCY") is None or config.workers == 1
