"""Load on `ptv2kit serve`: rows of four tasks, from many clients at once, over real connections.

    OMP_NUM_THREADS=1 python benchmarks/serving.py --seconds 20 --clients 1 8 32 64

Trains four prompts for a moment on rows that it makes up (speed does not depend on what they learned), serves them on
one MiniLM, and asks for one row per request, tasks drawn at random: 40 % names, 40 % moods, 10 % choices, 10 % answers
from a passage. Each number of clients is measured with rows of all prompts in a batch, and with `--batch-tokens 1`,
which computes every row alone; the two take turns. Prints a row of a table for each, and what more prompts cost in
memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

WORDS = (
    *("the", "a", "film", "joy", "dull", "tale", "of", "wit", "and", "grace", "in", "Paris", "Rome", "Ada", "Alan"),
    *("met", "left", "wrote", "about", "for", "nine", "years"),
)
SPLITS = "data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}"
TASKS = {
    "names": "input: {words: words, max_length: 128}\nlabels: {scheme: iob2, column: tags, names: [LOC, PER]}",
    "mood": 'input: {text: "{text}", max_length: 128}\nlabels: {scheme: classes, column: label, names: [no, yes]}',
    "pick": 'input: {text: "{text}", choices: ["{one}", "{two}"], max_length: 64}\n'
    "labels: {scheme: choices, column: choice}",
    "find": 'input: {question: "{one}?", context: "{context}", max_length: 256, stride: 64}\n'
    "labels: {scheme: start_end, text: answer}",
}
SHARES = {"names": 40, "mood": 40, "pick": 10, "find": 10}
LENGTHS = {"names": 20, "mood": 9, "pick": 4, "find": 20}


def text(generator: random.Random, shortest: int, longest: int) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(shortest, longest)))


def make_row(generator: random.Random) -> dict[str, Any]:
    """The columns of all tasks."""
    words = text(generator, 6, 40).split()
    context = text(generator, 60, 140)
    tags = ["B-PER" if word in ("Ada", "Alan") else "B-LOC" if word in ("Paris", "Rome") else "O" for word in words]
    return {
        **{"words": words, "tags": tags, "text": text(generator, 5, 35), "label": generator.choice(["no", "yes"])},
        **{"one": text(generator, 3, 8), "two": text(generator, 3, 8), "choice": generator.randint(0, 1)},
        **{"context": context, "answer": context.split()[7]},
    }


def train(folder: Path) -> dict[str, str]:
    """The run of each task."""
    generator = random.Random(1)
    rows = [make_row(generator) for _ in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs: dict[str, str] = {}
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{SPLITS}\n{task}\n")
        (folder / f"recipe-{name}.yaml").write_text(
            f"recipe: {name}\ntask: {name}.yaml\nbackbone: {{name: mini}}\nprompt: {{length: {LENGTHS[name]}}}\n"
            "train: {epochs: 1, batch_size: 8, learning_rate: 1e-2}\n"
        )
        command = [sys.executable, "-m", "ptv2kit", "run", f"recipe-{name}.yaml", "--json", "--quiet"]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        runs[name] = str(folder / json.loads(done.stdout)["run"])
    return runs


@dataclass
class Server:
    """A running server and where it is."""

    process: subprocess.Popen[str]
    address: str

    @classmethod
    def start(cls, runs: dict[str, str], *words: str) -> Server:
        named = [f"{name}={run}" for name, run in runs.items()]
        command = [sys.executable, "-m", "ptv2kit", "serve", *named, "--port", "0", *words]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if "http://" in line:
                return cls(process, line.split(": ", 1)[1].split("/predict", 1)[0])
        raise RuntimeError("the server did not start")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)


async def load(server: Server, clients: int, seconds: float, seed: int) -> tuple[list[float], float]:
    """Milliseconds of each request, and CPU seconds of the server."""
    generator = random.Random(seed)
    rows = [make_row(generator) for _ in range(200)]
    taken: list[float] = []
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=server.address, trust_env=False, timeout=120, limits=limits) as client:

        async def ask(until: float) -> None:
            while time.perf_counter() < until:
                [name] = generator.choices(list(SHARES), weights=list(SHARES.values()))
                body = {"rows": [{"prompt": name, "row": generator.choice(rows)}]}
                began = time.perf_counter()
                response = await client.post("/predict", json=body)
                assert response.status_code == 200, response.text
                taken.append((time.perf_counter() - began) * 1000)

        await asyncio.gather(*(ask(time.perf_counter() + 1) for _ in range(clients)))  # warm up
        taken.clear()
        before = server.cpu_seconds()
        until = time.perf_counter() + seconds
        await asyncio.gather(*(ask(until) for _ in range(clients)))
        return sorted(taken), server.cpu_seconds() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 64])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        runs = train(Path(name))
        ways = {"mixed": Server.start(runs), "alone": Server.start(runs, "--batch-tokens", "1", "--max-wait", "0")}
        print("| clients | rows in a pass | rows/s | p50 ms | p95 ms | p99 ms | server's CPU ms/row |")
        print("|---|---|---|---|---|---|---|")
        for clients in args.clients:
            for way, server in ways.items():
                taken, cpu = asyncio.run(load(server, clients, args.seconds, seed=clients))
                p50, p95, p99 = (taken[int(len(taken) * share)] for share in (0.5, 0.95, 0.99))
                rate, cost = len(taken) / args.seconds, 1000 * cpu / len(taken)
                print(
                    f"| {clients} | {way} | {rate:.0f} | {p50:.0f} | {p95:.0f} | {p99:.0f} | {cost:.1f} |", flush=True
                )
        for server in ways.values():
            server.stop()
        one = Server.start({"mood": runs["mood"]})
        many = Server.start({f"mood{index}": runs["mood"] for index in range(100)})
        print(f"\nmemory: 1 prompt {one.megabytes():.0f} MB, 100 prompts {many.megabytes():.0f} MB")
        one.stop()
        many.stop()


if __name__ == "__main__":
    main()
