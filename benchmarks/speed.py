"""Speed and memory of ptv2kit beside PEFT prefix tuning, PEFT LoRA, the official code's way and full fine-tuning.

Methods take turns within one process, each memory figure has a process of its own; ratios are of CPU seconds within a
turn, shown as median (lowest-highest). Linux only. What each part does is told in `benchmarks/peers/`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from peers.epoch import EpochTimes, Peer, epoch_times
from peers.goals import Goal
from peers.methods import METHODS, PRECISIONS, MethodName
from peers.rows import FIXED, LENGTHS
from peers.setting import SHAPES, Setting, backbone_folder
from peers.startup import COMMANDS, IMPORTS, startup_commands, startup_times
from peers.step import peak_memory, step_times
from peers.timing import ratios, spread

PARTS = ("step", "bf16", "memory", "epoch", "startup")
ON_ROWS: tuple[MethodName, ...] = ("ptv2kit", "peft-prefix", "peft-lora", "official", "fine-tuning")
"""Methods that are measured on real rows; the others differ from these in a step only."""
COMPUTED_IN_BF16: tuple[MethodName, ...] = ("ptv2kit", "peft-prefix", "peft-lora", "fine-tuning")
EXAMPLES = """\
examples:
  python benchmarks/speed.py --data-root data
  python benchmarks/speed.py --parts step memory --shapes bert-base --rounds 10
  python benchmarks/speed.py --parts epoch --sets rte squad --data-root data --rows 160 --json

DIR of --data-root holds SET/train.jsonl.gz and SET/validation.jsonl.gz for each set.
"""

Result = TypeVar("Result")


def in_fresh_process(function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """What `function` returns, called in a process that has loaded and computed nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **named).result()


class Report:
    """Prints what is measured, and collects it for `--json`.

    Args:
        quiet: whether only the JSON at the end goes to the standard output; lines then go to the standard error.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.figures: list[dict[str, Any]] = []
        self.goals: list[Goal] = []
        self._stream = sys.stderr if quiet else sys.stdout

    def say(self, line: str = "") -> None:
        """Print a line."""
        print(line, file=self._stream, flush=True)

    def add(self, part: str, **figure: Any) -> None:
        """Keep a figure."""
        self.figures.append({"part": part, **figure})


def report_step(report: Report, setting: Setting, options: argparse.Namespace) -> None:
    """Seconds of a step on equal batches, and shares of fine-tuning and of the hand-made minimum."""
    names = tuple((name, "fp32") for name in METHODS)
    timed = in_fresh_process(step_times, setting, names, options.batch_size, options.length, dropout=True)
    spent = {name: turns for (name, _), turns in timed.items()}
    cpu = {name: [turn.cpu for turn in turns] for name, turns in spent.items()}
    report.say(f"\nstep, {setting.shape}, batch {options.batch_size}, length {options.length}, half to no padding")
    report.say(f"{'':20}{'CPU seconds':>24}{'/ fine-tuning':>24}{'/ hand-made':>24}")
    for name in METHODS:
        own, full, least = spread(cpu[name]), ratios(cpu[name], cpu["fine-tuning"]), ratios(cpu[name], cpu["hand-made"])
        report.say(f"{name:20}{own!s:>24}{full!s:>24}{least!s:>24}")
        of_wall = spread([turn.wall for turn in spent[name]])
        report.add(
            "step",
            shape=setting.shape,
            method=name,
            cpu=asdict(own),
            wall=asdict(of_wall),
            to_fine_tuning=asdict(full),
            to_hand_made=asdict(least),
        )
    least = ratios(cpu["ptv2kit"], cpu["hand-made"])
    report.goals.append(Goal(f"step / hand-made minimum, {setting.shape}", "at most", 1.03, least))


def report_precisions(report: Report, setting: Setting, options: argparse.Namespace) -> None:
    """Seconds of a step without dropout in fp32 and in bf16, for processors with AMX."""
    names = tuple((name, precision) for name in COMPUTED_IN_BF16 for precision in PRECISIONS)
    names = tuple(each for each in names if each != ("ptv2kit", "bf16, own attention"))
    spent = in_fresh_process(step_times, setting, names, options.batch_size, options.length, dropout=False)
    cpu = {each: [turn.cpu for turn in turns] for each, turns in spent.items()}
    report.say(f"\nstep by precision, {setting.shape}, batch {options.batch_size}, length {options.length}")
    report.say(f"{'':34}{'CPU seconds':>26}{'/ the same in fp32':>24}{'/ ptv2kit in bf16':>24}")
    for name, precision in names:
        own = spread(cpu[name, precision])
        gain = ratios(cpu[name, precision], cpu[name, "fp32"])
        slower = ratios(cpu[name, precision], cpu["ptv2kit", "bf16"])
        report.say(f"{f'{name}, {precision}':34}{own!s:>26}{gain!s:>24}{slower!s:>24}")
        report.add(
            "bf16",
            shape=setting.shape,
            length=options.length,
            method=name,
            precision=precision,
            cpu=asdict(own),
            to_fp32=asdict(gain),
            to_ptv2kit=asdict(slower),
        )


def report_memory(report: Report, setting: Setting, options: argparse.Namespace) -> None:
    """MiB beyond the loaded model."""
    report.say(f"\npeak memory beyond the loaded model, {setting.shape}, MiB")
    peaks: dict[str, list[float]] = {}
    for _ in range(options.memory_rounds):
        for name in METHODS:
            peak = in_fresh_process(peak_memory, setting, name, options.batch_size, options.length)
            peaks.setdefault(name, []).append(peak)
    for name in METHODS:
        report.say(f"{name:20}{spread(peaks[name])!s:>24}")
        report.add("memory", shape=setting.shape, method=name, mebibytes=asdict(spread(peaks[name])))
    ratio = ratios(peaks["ptv2kit"], peaks["peft-prefix"])
    report.goals.append(Goal(f"peak memory / PEFT prefix tuning's, {setting.shape}", "at most", 1.0, ratio))


def report_epoch(report: Report, setting: Setting, options: argparse.Namespace, data: str) -> None:
    """Rows per CPU second in training and inference, and whole epochs."""
    names = tuple(name for name in ON_ROWS if name == "ptv2kit" or name in options.methods)
    found: EpochTimes = in_fresh_process(
        epoch_times, setting, names, data, options.data_root, options.rows, options.validation_rows
    )
    report.say(
        f"\nepoch, {setting.shape}, {data}: {found.rows} rows, {found.validation_rows} to predict, "
        f"{found.real_tokens} real tokens"
    )
    report.say(f"{'':22}{'tokens':>8}{'training rows/s':>22}{'inference rows/s':>22}{'epoch / ptv2kit':>22}")
    whole = {n: [e.training.cpu + e.evaluation.cpu for e in epochs] for n, epochs in found.epochs.items()}
    training = {n: [e.training.cpu for e in epochs] for n, epochs in found.epochs.items()}
    own: Peer = ("ptv2kit", True)
    for peer, epochs in found.epochs.items():
        name, grouped = peer
        trained = spread([found.rows / seconds for seconds in training[peer]])
        predicted = spread([found.validation_rows / epoch.evaluation.cpu for epoch in epochs])
        faster = ratios(whole[peer], whole[own])
        label = f"{name}, {'grouped' if grouped else 'random'}"
        report.say(f"{label:22}{found.tokens[peer]:>8}{trained!s:>22}{predicted!s:>22}{faster!s:>22}")
        report.add(
            "epoch",
            shape=setting.shape,
            set=data,
            method=name,
            grouped=grouped,
            rows=found.rows,
            validation_rows=found.validation_rows,
            tokens=found.tokens[peer],
            training_rows_per_second=asdict(trained),
            inference_rows_per_second=asdict(predicted),
            ptv2kit_training_faster=asdict(ratios(training[peer], training[own])),
            ptv2kit_epoch_faster=asdict(faster),
        )
    for peer, limit in ((("peft-prefix", False), 1.5), (("peft-prefix", True), 1.0), (("official", False), 2.5)):
        if peer not in training or (peer[0] == "official" and data not in FIXED):
            continue
        value = ratios(training[peer], training[own])
        label = f"{peer[0]} with {'grouped' if peer[1] else 'random'} batches"
        report.goals.append(Goal(f"training rows/s / {label}, {setting.shape}, {data}", "at least", limit, value))


def report_startup(report: Report, options: argparse.Namespace, folder: Path) -> None:
    """CPU seconds of commands, and their ratio to importing the libraries that they stand on."""
    report.say("\nstart-up, CPU seconds")
    report.say(f"{'':42}{'CPU seconds':>24}{'/ imports':>24}{'/ with a model':>24}")
    spent = startup_times(startup_commands(folder), options.rounds)
    cpu = {name: [turn.cpu for turn in turns] for name, turns in spent.items()}
    libraries, model = IMPORTS
    for name, seconds in cpu.items():
        to_libraries, to_model = ratios(seconds, cpu[libraries]), ratios(seconds, cpu[model])
        report.say(f"{name:42}{spread(seconds)!s:>24}{to_libraries!s:>24}{to_model!s:>24}")
        own = {"cpu": asdict(spread(seconds)), "to_imports": asdict(to_libraries), "to_model": asdict(to_model)}
        report.add("startup", command=name, **own)
        if name in COMMANDS:
            limit = COMMANDS[name]
            report.goals.append(Goal(f"CPU seconds of ptv2kit {name}", "at most", limit, spread(seconds)))


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured; default: all")
    add("--shapes", nargs="+", choices=SHAPES, default=SHAPES, help="of the backbone; default: all")
    add("--sets", nargs="+", choices=tuple(LENGTHS), default=tuple(LENGTHS), help="of the part epoch; default: all")
    add("--methods", nargs="+", choices=ON_ROWS, default=ON_ROWS, help="beside ptv2kit in the part epoch; default: all")
    add("--data-root", type=Path, metavar="DIR", help="folder of the data sets; for the part epoch")
    add("--rounds", type=int, default=5, help="turns of each method; default: %(default)s")
    add("--memory-rounds", type=int, default=2, help="processes of each method; default: %(default)s")
    add("--threads", type=int, default=1, help="of torch; default: %(default)s")
    add("--batch-size", type=int, default=8, help="of the parts step, bf16 and memory; default: %(default)s")
    add("--length", type=int, default=128, help="of the parts step, bf16 and memory; default: %(default)s")
    add("--prompt-length", type=int, default=20, help="default: %(default)s")
    add("--rows", type=int, default=160, help="trained on in an epoch; default: %(default)s")
    add("--validation-rows", type=int, default=96, help="predicted in an epoch; default: %(default)s")
    add("--seed", type=int, default=11, help="default: %(default)s")
    add("--json", action="store_true", help="print all figures as one JSON object; the tables go to the standard error")
    options = parser.parse_args()
    if options.data_root is None and "epoch" in options.parts:
        parser.error("the part epoch needs --data-root")
    return options


def main() -> None:
    """Measure, print, say which goals are met."""
    options = parse()
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of PEFT and transformers, about each other
    report = Report(quiet=options.json)
    with tempfile.TemporaryDirectory() as place:
        for shape in options.shapes if {*options.parts} - {"startup"} else ():
            folder = backbone_folder(shape, Path(place))
            setting = Setting(shape, folder, options.threads, options.rounds, options.seed, options.prompt_length)
            if "step" in options.parts:
                report_step(report, setting, options)
            if "bf16" in options.parts:
                report_precisions(report, setting, options)
            if "memory" in options.parts:
                report_memory(report, setting, options)
            for data in options.sets if "epoch" in options.parts else ():
                report_epoch(report, setting, options, data)
        if "startup" in options.parts:
            report_startup(report, options, Path(place) / "runs")
    report.say("\ngoals, median (lowest-highest)")
    for goal in report.goals:
        report.say(str(goal))
    if options.json:
        goals = [{**asdict(goal), "met": goal.met} for goal in report.goals]
        print(json.dumps({"figures": report.figures, "goals": goals}, indent=2))


if __name__ == "__main__":
    main()
