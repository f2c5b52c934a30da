"""`ptv2kit push`, and runs of the hub, with a server that speaks as much of its API as huggingface_hub asks for."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptv2kit.cli.main import main
from tests.projects import Project, project

__all__ = ["project"]


@dataclass
class Hub:
    """What the server was told."""

    url: str = ""
    repositories: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    refuse: int = 0


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if state.refuse or self.headers.get("Authorization") != "Bearer hf_test":
                return self.answer({"error": "Forbidden"}, state.refuse or 401)
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
                state.repositories[name] = asked.get("visibility", "") == "private" or bool(asked.get("private"))
                return self.answer({"url": f"{state.url}/{name}", "id": name})
            if self.path == "/api/validate-yaml":
                card = json.loads(body)["content"]
                faults = [] if isinstance(yaml.safe_load(card.split("---")[1]), dict) else [{"message": "no facts"}]
                return self.answer({"errors": faults, "warnings": []})
            if "/preupload/" in self.path:
                paths = [item["path"] for item in json.loads(body)["files"]]
                return self.answer(
                    {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]}
                )
            if "/commit/" in self.path:
                for line in body.splitlines():
                    item = json.loads(line)
                    if item["key"] == "file":
                        state.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
                return self.answer({"commitOid": "0" * 40, "commitUrl": f"{state.url}/ada/run/commit/{'0' * 40}"})
            return self.answer({"error": self.path}, 404)

        def answer(self, value: Any, code: int = 200) -> None:
            content = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(project: Project, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose backbone can be named without a path."""
    project.change("tiny.yaml", "validation: rows.jsonl", "validation: rows.jsonl, test: {plain: rows.jsonl}")
    monkeypatch.chdir(project.folder)
    assert project.run("train.epochs=1")[0] == 0
    [folder] = project.runs
    (folder / "recipe.resolved.yaml").write_text(
        (folder / "recipe.resolved.yaml").read_text().replace(f"name: {backbone}", "name: mini")
    )
    return folder


def test_a_run_is_published_without_rows_or_paths_and_predicts_again(
    hub: Hub, run: Path, project: Project, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["push", str(run), "ada/run", "--yes", "--json"]) == 0
    captured = project.capsys.readouterr()
    assert json.loads(captured.out)["files"] == list(hub.files)
    assert hub.repositories == {"ada/run": True}
    assert sorted(hub.files) == [
        "README.md",
        "prompt/prompt.json",
        "prompt/prompt.safetensors",
        "recipe.resolved.yaml",
        "results.json",
        "task.resolved.yaml",
    ]
    assert "private if it is new" in captured.err
    assert "prompt/prompt.safetensors" in captured.err
    for name, content in hub.files.items():
        assert str(project.folder).encode() not in content, name
    card = hub.files["README.md"].decode()
    facts = yaml.safe_load(card.split("---")[1])
    assert facts["pipeline_tag"] == "token-classification"
    assert facts["metrics"][0] == "span_f1"
    assert "pip install 'ptv2kit" in card
    assert '"Ada", "met", "Alan"' in card
    results = json.loads((run / "results.json").read_text())["metrics"]
    published = {item["dataset"]["split"]: item["metrics"][0]["value"] for item in facts["model-index"][0]["results"]}
    assert published == pytest.approx({split: values["span_f1"] for split, values in results.items()}, abs=1e-4)
    assert 'ptv2kit.load("hub:ada/run")' in card
    assert "ptv2kit predict hub:ada/run rows.jsonl" in card

    fetched = project.folder / "fetched"
    for name, content in hub.files.items():
        (fetched / name).parent.mkdir(parents=True, exist_ok=True)
        (fetched / name).write_bytes(content)
    (fetched / "recipe.resolved.yaml").write_text(
        (fetched / "recipe.resolved.yaml").read_text().replace("name: mini", f"name: {backbone}")
    )
    asked: list[str] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: asked.append(name) or str(fetched))
    assert main(["predict", "hub:ada/run", "rows.jsonl", "--json"]) == 0
    assert asked == ["ada/run"]
    found = [json.loads(line)["label"] for line in project.capsys.readouterr().out.splitlines()]
    kept = [json.loads(line)["label"] for line in (run / "predictions" / "validation.jsonl").read_text().splitlines()]
    assert found == kept


def test_public_is_only_what_somebody_asked_for(hub: Hub, run: Path, project: Project) -> None:
    assert main(["push", str(run), "ada/run", "--yes", "--public"]) == 0
    assert hub.repositories == {"ada/run": False}
    assert "ptv2kit predict hub:ada/run rows.jsonl" in project.capsys.readouterr().out


def test_it_asks_first(hub: Hub, run: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["push", str(run), "ada/run"]) == 2
    assert "pass --yes" in project.capsys.readouterr().err

    class Terminal:
        def __init__(self, answer: str) -> None:
            self.answer = answer

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    assert main(["push", str(run), "ada/run"]) == 2
    assert "nothing was uploaded" in project.capsys.readouterr().err
    assert not hub.files
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert main(["push", str(run), "ada/run"]) == 0
    assert hub.files


def test_what_cannot_be_published_is_refused(
    hub: Hub, run: Path, project: Project, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["push", str(run), "run"]) == 2
    assert "expected USER/NAME" in project.capsys.readouterr().err
    assert main(["push", str(run), "ada/-run-", "--yes"]) == 2
    hub.refuse = 403
    assert main(["push", str(run), "ada/run", "--yes"]) == 3
    assert "the hub refused" in project.capsys.readouterr().err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(run), "ada/run", "--yes"]) == 3
    assert "the hub cannot be reached" in project.capsys.readouterr().err
    assert main(["predict", "hub:run", "rows.jsonl"]) == 2
    assert "expected hub:user/name" in project.capsys.readouterr().err
    (run / "recipe.resolved.yaml").write_text(
        (run / "recipe.resolved.yaml").read_text().replace("name: mini", f"name: {backbone}")
    )
    assert main(["push", str(run), "ada/run", "--yes"]) == 2
    assert "the backbone of this run is a folder of this machine" in project.capsys.readouterr().err
    (run / "recipe.resolved.yaml").write_text(
        (run / "recipe.resolved.yaml").read_text().replace(f"name: {backbone}", "name: mini")
    )
    (run / "results.json").unlink()
    assert main(["push", str(run), "ada/run", "--yes"]) == 2
    assert "has no results.json" in project.capsys.readouterr().err
    assert not hub.files
