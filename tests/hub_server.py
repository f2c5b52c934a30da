"""A model hub on this machine: as much of the real one's interface as reading models and data sets needs."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

COMMIT = "a" * 40
_REPOSITORY = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/revision/[^/]+)?")
_TREE = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/[^/]+(?:/(.*))?")
_PATHS = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/paths-info/[^/]+")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)")


def _entry(path: Path, repository: Path) -> dict[str, Any]:
    name = str(path.relative_to(repository))
    if path.is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": COMMIT}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path)}


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Folders below `root/models` and `root/datasets` are repositories; who names one with `gated` is refused."""

    protocol_version = "HTTP/1.1"
    root: Path

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Stay silent."""

    def _send(self, code: int, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, what: str) -> None:
        self._send(404, headers={"X-Error-Code": what, "X-Repo-Commit": COMMIT})

    def do_GET(self) -> None:
        url = urlparse(self.path)
        path = unquote(url.path)
        if "gated" in path:
            self._send(401, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        elif (match := _TREE.fullmatch(path)) is not None:
            repository = self.root / match[1] / match[2]
            folder = repository / (match[3] or "")
            recursive = parse_qs(url.query).get("recursive") == ["true"]
            if not folder.is_dir():
                return self._missing("EntryNotFound")
            found = sorted(folder.rglob("*") if recursive else folder.iterdir())
            self._send(200, json.dumps([_entry(each, repository) for each in found]).encode())
        elif (match := _REPOSITORY.fullmatch(path)) is not None:
            repository = self.root / match[1] / match[2]
            if not repository.is_dir():
                return self._missing("RepoNotFound")
            files = [
                {"rfilename": str(each.relative_to(repository))} for each in repository.rglob("*") if each.is_file()
            ]
            about = {"id": match[2], "sha": COMMIT, "private": False, "gated": False, "tags": [], "siblings": files}
            self._send(200, json.dumps(about).encode())
        elif (match := _FILE.fullmatch(path)) is not None:
            file = self.root / ("datasets" if match[1] else "models") / match[2] / match[3]
            if not file.is_file():
                return self._missing("EntryNotFound")
            self._send(200, file.read_bytes(), {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": COMMIT})
        else:
            self._send(404)
        return None

    do_HEAD = do_GET  # noqa: N815 - the name is the library's

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        match = _PATHS.fullmatch(unquote(urlparse(self.path).path))
        if match is None:
            return self._send(404)
        repository = self.root / match[1] / match[2]
        asked: list[str] = (json.loads(body) if body.startswith("{") else parse_qs(body)).get("paths", [])
        found = [repository / name for name in asked if (repository / name).exists()]
        return self._send(200, json.dumps([_entry(each, repository) for each in found]).encode())


@contextmanager
def serving(root: Path) -> Generator[str]:
    """The hub's address."""
    handler = type("Handler", (_Handler,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
