"""The routes of a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline

from ptv2kit import __version__
from ptv2kit.data.unlabelled import given_columns, row_in_memory
from ptv2kit.errors import ConfigError, DataError, ProjectError
from ptv2kit.files import is_file
from ptv2kit.serve.batcher import Batcher, QueueFullError, StoppingError
from ptv2kit.serve.bodies import (
    Answers,
    AskedRow,
    Fault,
    Health,
    MixedRows,
    NewPrompt,
    PromptFacts,
    Prompts,
    Rows,
    characters,
)
from ptv2kit.serve.guard import INTERNAL, Guard
from ptv2kit.serve.meters import CONTENT_TYPE, Meters
from ptv2kit.serve.settings import Settings
from ptv2kit.training.load_together import LoadedRuns
from ptv2kit.training.mixed import Prompted
from ptv2kit.training.predict import Answer

_FOLDERS = re.compile(r"(?<![\w.~-])(?:~|\.\.?)?/(?:[^\s/'\"]+/)*(?=[^\s/'\"])")
"""What stands in front of a file's own name."""
_FAULTS: dict[int, str] = {
    401: "the token is missing or wrong",
    413: "the body is too large",
    422: "what was sent is not what was expected, or a row is too long",
    429: "too many rows wait already; ask again later",
    503: "it took too long, or the server is about to end",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Fault, "description": text} for status, text in _FAULTS.items()
}
_DESCRIPTION = """Prompts that were trained with P-Tuning v2, any number of them on one frozen backbone.

Rows of all prompts that come within a few milliseconds are computed together."""


def build_app(runs: LoadedRuns, settings: Settings, *, debug: bool = False) -> Guard:
    """The server's application.

    Args:
        runs: that are served; at least one.
        settings: limits.
        debug: whether faults of ours are noted with their traceback.

    Raises:
        ConfigError: no run was added.
    """
    meters = Meters()
    batcher_of = runs.predictor(settings.batch_tokens)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        endpoints.batcher = Batcher(batcher_of, settings, meters)
        endpoints.batcher.start()
        yield
        await endpoints.batcher.stop()

    endpoints = Endpoints(runs, settings, meters)
    app = FastAPIOffline(
        title="ptv2kit", version=__version__, description=_DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ProjectError, _refused)
    app.add_exception_handler(Exception, _failed)
    add = app.add_api_route
    add("/predict", endpoints.predict, methods=["POST"], response_model=Answers, responses=_RESPONSES)
    add("/prompts", endpoints.prompts, methods=["GET"], response_model=Prompts)
    add(
        "/prompts/{name}/predict",
        endpoints.predict_one,
        methods=["POST"],
        response_model=Answers,
        responses=_RESPONSES | {404: {"model": Fault, "description": "there is no such prompt"}},
    )
    add("/prompts", endpoints.add, methods=["POST"], response_model=Prompts, status_code=201, responses=_RESPONSES)
    add("/prompts/{name}", endpoints.remove, methods=["DELETE"], status_code=204, response_class=Response)
    add("/health", endpoints.health, methods=["GET"], response_model=Health)
    add("/metrics", endpoints.metrics, methods=["GET"], response_class=Response)
    return Guard(app, settings, meters, endpoints.drain, debug=debug)


@final
class Endpoints:
    """What the routes do.

    Args:
        runs: that are served.
        settings: limits.
    """

    def __init__(self, runs: LoadedRuns, settings: Settings, meters: Meters) -> None:
        self._runs = runs
        self._settings = settings
        self._meters = meters
        self._adding = asyncio.Lock()
        self.batcher: Batcher | None = None
        meters.prompts.set(len(runs.names))

    def drain(self, seconds: float) -> None:
        """Refuse the rows that still wait after `seconds`."""
        if self.batcher is not None:
            self.batcher.drain(seconds)

    async def predict(self, body: MixedRows) -> Answers:
        """Answer rows of any of the prompts, together."""
        return await self._answers([(self._named(asked), asked.row) for asked in body.rows])

    async def predict_one(self, name: str, body: Rows) -> Answers:
        """Answer rows of one prompt."""
        prompted = self._prompted(name, status=404)
        return await self._answers([(prompted, row) for row in body.rows])

    async def prompts(self) -> Prompts:
        """Which prompts are served, and what their rows must have."""
        return Prompts(backbone=self._runs.backbone, prompts=[self._facts(name) for name in self._runs.names])

    async def add(self, body: NewPrompt) -> Prompts:
        """Serve the prompts of one more run; the backbone is not loaded again."""
        folder = self._folder(body.run)
        if not is_file(folder / "recipe.resolved.yaml"):
            raise HTTPException(422, f"there is no run '{body.run}' in the folder that the server was started with")
        async with self._adding:
            names = await asyncio.to_thread(self._runs.add, folder, body.name)
        self._meters.prompts.set(len(self._runs.names))
        return Prompts(backbone=self._runs.backbone, prompts=[self._facts(name) for name in names])

    async def remove(self, name: str) -> Response:
        """Serve a prompt no longer; rows that wait for it are still answered."""
        self._require_management()
        self._prompted(name, status=404)
        self._runs.remove(name)
        self._meters.forget(name)
        self._meters.prompts.set(len(self._runs.names))
        return Response(status_code=204)

    async def health(self) -> Health:
        """Whether rows are answered."""
        if self.batcher is None or not self.batcher.alive:
            raise HTTPException(503, "no rows are answered")
        return Health(status="ok", version=__version__, prompts=len(self._runs.names))

    async def metrics(self) -> Response:
        """Counters for Prometheus."""
        return Response(self._meters.text(), media_type=CONTENT_TYPE)

    async def _answers(self, asked: Sequence[tuple[Prompted, str | dict[str, Any]]]) -> Answers:
        if len(asked) > self._settings.queue:
            limit = self._settings.queue
            raise HTTPException(413, f"a request has at most {limit} rows, as many as may wait. Got {len(asked)}")
        if len(asked) > self._settings.max_rows:
            raise HTTPException(422, f"a request has at most {self._settings.max_rows} rows. Got {len(asked)}")
        for number, (_, row) in enumerate(asked):
            if (length := characters(row)) > self._settings.max_characters:
                limit = self._settings.max_characters
                raise HTTPException(422, f"row {number}: it has {length} characters. Expected at most {limit}")
        rows = [
            (prompted, row_in_memory(prompted.task, row, f"row {number}", f"prompt '{prompted.name}'"))
            for number, (prompted, row) in enumerate(asked)
        ]
        assert self.batcher is not None
        try:
            found = await asyncio.wait_for(self.batcher.ask(rows), self._settings.timeout)
        except QueueFullError as error:
            raise HTTPException(429, "too many rows wait already", {"retry-after": "1"}) from error
        except StoppingError as error:
            raise HTTPException(503, "the server is about to end") from error
        except TimeoutError as error:
            detail = f"no answer within {self._settings.timeout:g} s"
            raise HTTPException(503, detail, {"retry-after": "5"}) from error
        answers: list[dict[str, Any]] = []
        for number, ((prompted, _), own) in enumerate(zip(rows, found, strict=True)):
            for answer in own:
                answers.append({"row": number, **self._shown(prompted, answer)})
        return Answers(answers=answers)

    def _shown(self, prompted: Prompted, answer: Answer) -> dict[str, Any]:
        served = prompted.name in self._runs.names  # it may have been removed meanwhile
        if served:
            (self._meters.faulty_rows if answer.error else self._meters.rows).labels(prompted.name).inc()
        return {name: value for name, value in answer.to_json().items() if name != "location"}

    def _named(self, asked: AskedRow) -> Prompted:
        if asked.prompt is not None:
            return self._prompted(asked.prompt, status=422)
        names = self._runs.names
        if len(names) != 1:
            raise HTTPException(422, f"say which prompt is to answer: {', '.join(names) or 'there is none'}")
        return self._runs.prompted(names[0])

    def _prompted(self, name: str, status: int) -> Prompted:
        try:
            return self._runs.prompted(name)
        except ConfigError as error:
            raise HTTPException(status, _detail(error)) from error

    def _require_management(self) -> Path:
        if self._settings.manage is None:
            raise HTTPException(403, "prompts cannot be added or removed here; start the server with --manage RUNS")
        return self._settings.manage

    def _folder(self, run: str) -> Path:
        """The folder of a run, within the one that clients may add from."""
        root = self._require_management().resolve()
        try:
            folder = (root / run).resolve()
        except (OSError, ValueError) as error:
            raise HTTPException(422, "this is not the name of a folder") from error
        if not folder.is_relative_to(root):
            raise HTTPException(403, "only runs within the folder that the server was started with can be added")
        return folder

    def _facts(self, name: str) -> PromptFacts:
        prompted, run = self._runs.prompted(name), self._runs.run(name)
        return PromptFacts(
            name=name,
            run=run.folder.name,
            task=run.task.task,
            scheme=run.task.labels.scheme,
            method=run.recipe.method,
            columns=given_columns(run.task),
            labels=list(prompted.scheme.names),
            parameters=run.model.parameter_count().trained,
        )


def _detail(error: ProjectError) -> str:
    """An error's text without paths of the server, and its hint."""
    problems = [problem.message + (f" ({problem.hint})" if problem.hint else "") for problem in error.problems]
    return _FOLDERS.sub("", "; ".join(problems))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProjectError)
    status = 422 if isinstance(error, ConfigError | DataError) else 500
    return JSONResponse({"detail": _detail(error)}, status)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": INTERNAL}, 500)


async def _invalid(request: Request, error: Exception) -> Response:
    """Which part of a body is not what was expected; what was sent is not sent back, as it may be of any kind."""
    assert isinstance(error, RequestValidationError)
    problems = [_problem(problem) for problem in error.errors()]
    return JSONResponse({"detail": "; ".join(problems[:10]).encode(errors="replace").decode()}, 422)


def _problem(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {problem['ctx']['error']}"
    where = ".".join(str(part) for part in problem["loc"][1:])
    return f"{where or 'body'}: {problem['msg'].removeprefix('Value error, ')}"
