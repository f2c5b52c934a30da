"""Every verb with its options. A verb names its function; the module is imported when the verb is chosen."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Literal, NoReturn

from ptv2kit import __version__

_EPILOG = """examples:
  ptv2kit run recipes/quickstart.yaml
  ptv2kit run recipes/mini-wikigold.yaml --data-root data train.seed=12
  ptv2kit validate recipes/*.yaml tasks/*.yaml
  ptv2kit explain recipes/quickstart.yaml train
  ptv2kit preview tasks/quickstart.yaml
  ptv2kit plan recipes/glm-10b-boolq.yaml --gpu h200
  ptv2kit predict runs/quickstart/RUN sentences.txt
  ptv2kit serve runs/quickstart/RUN
  ptv2kit export runs/quickstart/RUN --to adapter

exit codes: 0 ok, 1 failed run or internal error, 2 configuration or usage, 3 data or network, 4 out of memory,
5 expectation missed, 129 hung up, 130 interrupted, 143 ended by SIGTERM
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is missing without a list of every option."""
        lacking = message.removeprefix("the following arguments are required: ").split(", ")
        if not message.startswith("the following arguments are required: "):
            super().error(message)
        name = lacking[0].split(" ")[0]
        self.exit(
            2, f"error: {self.prog} needs {name}\n  hint: '{self.prog} --help' has examples{_LISTS.get(name, '')}\n"
        )


_LISTS = {
    "FILE": "; 'ptv2kit ls recipes' lists the recipes that come along",
    "RUN": "; 'ptv2kit ls runs' lists the runs of this folder",
    "TASK": "; 'ptv2kit ls tasks' lists the tasks that come along",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser with all verbs."""
    parser = _Parser(
        prog="ptv2kit",
        description="P-Tuning v2 from YAML: deep prompts on a frozen language model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ptv2kit {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    # DeepSpeed's launcher puts it in front of the verb; the environment says the same.
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_run(verbs)
    _add_evaluate(verbs)
    _add_predict(verbs)
    _add_serve(verbs)
    _add_plan(verbs)
    _add_validate(verbs)
    _add_explain(verbs)
    _add_ls(verbs)
    _add_cp(verbs)
    _add_new(verbs)
    _add_preview(verbs)
    _add_schema(verbs)
    _add_doctor(verbs)
    _add_export(verbs)
    _add_import(verbs)
    _add_push(verbs)
    _add_report(verbs)
    _add_completion(verbs)
    for verb in verbs.choices.values():
        verb.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _verb(
    verbs: Any,
    name: str,
    *,
    about: str,
    description: str,
    examples: str = "",
    handler: str = "",
    first: str = "",
    trailing: str = "",
) -> argparse.ArgumentParser:
    """Add a verb.

    Args:
        verbs: argparse's list.
        about: one line in the list of verbs.
        description: what it does.
        examples: shown below the options.
        handler: `module:function` that gets the arguments; empty: one of the verb's own verbs has it.
        first: a function of `ptv2kit.cli.first` that is called before the handler's module is loaded; empty: none.
        trailing: the argument that takes words behind options, which argparse leaves over; empty if none does.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=about,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=handler, first=first, trailing=trailing)
    return parser


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="default: auto")


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    """Add the option; its default is the environment variable."""
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path(os.environ["PTV2KIT_DATA"]) if os.environ.get("PTV2KIT_DATA") else None,
        metavar="DIR",
        help="where data files are looked up first (default: $PTV2KIT_DATA)",
    )


_RUN_EXAMPLES = """examples:
  ptv2kit run recipes/quickstart.yaml
  ptv2kit run recipes/mini-wikigold.yaml --data-root data train.seed=12 prompt.length=64
  ptv2kit run recipes/mini-wikigold.yaml --data-root data --dry-run
  ptv2kit run recipes/suites/quickstart-search.yaml search.trials=4
  ptv2kit run recipes/suites/quickstart-search.yaml --jobs 2
  ptv2kit run recipes/suites/mini/table3.yaml --data-root data --only 'ner,task=wikigold*' --dry-run
  ptv2kit run recipes/mini-wikigold.yaml --data-root data --resume
  ptv2kit run runs/mini-wikigold/20261123-130443-1f2e3d4c --resume --accept train.epochs train.epochs=30
"""


def _add_run(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "run",
        about="train a recipe, or all runs of a suite",
        description="Train the prompt of a recipe, score it, and keep everything in a new folder runs/<recipe>/…. Of a "
        "suite, train every cell or search, and keep all in runs/<suite>; run it again to resume.",
        examples=_RUN_EXAMPLES,
        handler="ptv2kit.cli.run:run",
        trailing="overrides",
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="recipe or suite: a file, or a name (ptv2kit ls recipes)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace a value of recipe or cells")
    _add_data_root(parser)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    parser.add_argument(
        "--dry-run", action="store_true", help="check all but rows and weights, print the resolved YAML"
    )
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr, only errors")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume the newest unfinished run of the recipe, or the run whose folder FILE is",
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="KEY",
        help="with --resume: a key that may have changed since the run was started, such as train.epochs",
    )
    suites = parser.add_argument_group("of a suite")
    suites.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="train only cells whose name matches, such as '*task=rte*', and those that they start from",
    )
    suites.add_argument(
        "--jobs",
        type=_jobs,
        default="auto",
        metavar="N|auto",
        help="cells or trials at one time, a process each; auto: one for each visible GPU, 1 without any (default)",
    )
    suites.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="local: processes of this machine (default); ray: tasks of a Ray cluster",
    )
    suites.add_argument(
        "--address", metavar="ADDRESS", help="with --engine ray: of the cluster, auto or HOST:PORT (default: Ray's)"
    )
    suites.add_argument("--gpu", metavar="NAME", help="with --dry-run: plan hours for this GPU, as 'ptv2kit plan'")


def _jobs(text: str) -> int | Literal["auto"]:
    """The value of `--jobs`."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, or auto. Got {text!r}")
    return int(text)


_EVALUATE_EXAMPLES = """examples:
  ptv2kit evaluate runs/quickstart/20261123-130443-1f2e3d4c
  ptv2kit evaluate runs/mini-wikigold/20261123-130443-1f2e3d4c --split test --data-root data
  ptv2kit evaluate runs/mini-wikigold/20261123-130443-1f2e3d4c --data other.jsonl --predictions found.jsonl
"""


def _add_evaluate(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "evaluate",
        about="score a run on a split or a file with labels",
        description="Score the best prompt of a run with the metrics of its task. A split is read as it was for the "
        "run, with the limits of its recipe.",
        examples=_EVALUATE_EXAMPLES,
        handler="ptv2kit.cli.evaluate:run",
        first="find_run_folder",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or hub:USER/NAME")
    parser.add_argument("--split", metavar="NAME", help="a split of the task (default: validation)")
    parser.add_argument("--data", type=Path, metavar="FILE", help="instead of a split: a file with labels")
    parser.add_argument("--task", metavar="NAME", help="which task of a run with several")
    parser.add_argument("--batch-size", type=int, metavar="N", help="inputs per forward pass (default: the recipe's)")
    _add_device(parser)
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="write each row's prediction, as JSON Lines")
    _add_data_root(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of the table")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr, only errors")


_PREDICT_EXAMPLES = """examples:
  ptv2kit predict runs/quickstart/20261123-130443-1f2e3d4c sentences.txt
  ptv2kit predict runs/mini-squad/20261123-130443-1f2e3d4c questions.jsonl --json > answers.jsonl
  ptv2kit predict runs/mini-sst2/20261123-130443-1f2e3d4c reviews.csv --to answered.csv
  echo '{"sentence": "a joy from start to end"}' | ptv2kit predict runs/mini-sst2/20261123-130443-1f2e3d4c -
"""


def _add_predict(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "predict",
        about="let a run answer rows without labels",
        description="Answer every row of a file, or of standard input, with the best prompt of a run. The file is "
        "JSON, CSV, TSV or Parquet with the columns that the task reads, or plain text or a word a line if it reads "
        "only one. Rows that cannot be read are named on stderr, and the others are answered; the exit code is 3 then.",
        examples=_PREDICT_EXAMPLES,
        handler="ptv2kit.cli.predict:run",
        first="find_run_folder",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or hub:USER/NAME")
    parser.add_argument("file", metavar="FILE", help="rows to answer; - is standard input")
    parser.add_argument(
        "--format", choices=["jsonl", "csv", "tsv", "parquet", "conll", "text"], help="instead of what the name tells"
    )
    parser.add_argument("--task", metavar="NAME", help="which task of a run with several")
    parser.add_argument("--batch-size", type=int, metavar="N", help="inputs per forward pass (default: the recipe's)")
    _add_device(parser)
    parser.add_argument("--strict", action="store_true", help="stop at the first row that cannot be read")
    out = parser.add_mutually_exclusive_group()
    out.add_argument("--json", action="store_true", help="print a JSON object for each row")
    out.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="write the rows, with columns 'prediction' and 'probability', to a .csv, .tsv, .parquet or .jsonl file",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr, only errors")


_SERVE_EXAMPLES = """examples:
  ptv2kit serve runs/mini-sst2/20261123-130443-1f2e3d4c
  ptv2kit serve mood=runs/mini-sst2/20261123-130443-1f2e3d4c who=runs/mini-wikigold/20261123-140501-9c0ffee1
  ptv2kit serve runs/mini-sst2/20261123-130443-1f2e3d4c --manage runs --port 9000
  ptv2kit serve hub:ada/wikigold-prompt --host 0.0.0.0 --token-file token.txt

  curl localhost:8000/predict --json '{"rows": [{"prompt": "mood", "row": "a joy from start to end"}]}'
"""


def _add_serve(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "serve",
        about="answer rows over HTTP with the prompts of runs",
        description="Load the backbone once, the prompts of all runs beside it, and answer rows over HTTP. Rows of "
        "different tasks share forward passes. /docs describes the routes. It listens on this machine only unless "
        "--host says otherwise, and ends with Ctrl-C.",
        examples=_SERVE_EXAMPLES,
        handler="ptv2kit.cli.serve:run",
    )
    parser.add_argument(
        "runs",
        metavar="[NAME=]RUN",
        nargs="+",
        help="folder of a run, or hub:USER/NAME; NAME is what clients call its prompt (default: the task)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    _add_device(parser)
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="clients must send this token; PTV2KIT_TOKEN in the environment does the same",
    )
    parser.add_argument("--manage", metavar="DIR", help="let clients add prompts of runs in DIR, and remove prompts")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-wait", type=float, default=2.0, metavar="MS", help="a row waits so long for others")
    limits.add_argument("--batch-tokens", type=int, default=8192, metavar="N", help="per pass, padding included")
    limits.add_argument("--queue", type=int, default=1024, metavar="ROWS", help="may wait for an answer; more: 429")
    limits.add_argument("--max-rows", type=int, default=256, metavar="N", help="of a request; more: 422")
    limits.add_argument("--max-characters", type=int, default=100_000, metavar="N", help="of a row; more: 422")
    limits.add_argument("--max-body", type=int, default=4_000_000, metavar="BYTES", help="of a request; more: 413")
    limits.add_argument("--max-header", type=int, default=16_384, metavar="BYTES", help="of a request; more: 431")
    limits.add_argument("--header-timeout", type=float, default=10.0, metavar="S", help="for the headers; then 408")
    limits.add_argument("--grace", type=float, default=10.0, metavar="S", help="to answer at the end; then 503")
    limits.add_argument("--timeout", type=float, default=60.0, metavar="S", help="for an answer; then 503")
    parser.add_argument("--quiet", action="store_true", help="only errors on stderr")


_PLAN_EXAMPLES = """examples:
  ptv2kit plan recipes/glm-10b-boolq.yaml
  ptv2kit plan recipes/glm-10b-boolq.yaml --gpu rtx4090 --gpus 2 --rows 9427 --price 0.4
  ptv2kit plan recipes/glm-10b-boolq.yaml --gpu a100-40 train.gradient_checkpointing=true
  ptv2kit plan recipes/mini-rte.yaml --data-root data --memory 12 --json
"""


def _add_plan(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "plan",
        about="parameters, memory, steps and time of a recipe",
        description="Say what a run will need: parameters, memory per GPU under each strategy, steps and time. No "
        "weights, no GPU and no network are needed, only the backbone's configuration.",
        examples=_PLAN_EXAMPLES,
        handler="ptv2kit.cli.plan:run",
        first="read_recipe",
        trailing="overrides",
    )
    parser.add_argument("file", type=Path, metavar="RECIPE", help="recipe: a file or a name")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace a value of the recipe")
    parser.add_argument(
        "--gpu",
        metavar="NAME",
        help="b200, h200, h100, h100-pcie, a100-80, a100-40, l40s, a10, l4, rtx4090, rtx3090, or another with "
        "--memory (default: this machine's, else h100)",
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs in all (default: as the recipe says)")
    parser.add_argument("--memory", type=float, metavar="GIB", help="memory of each GPU")
    parser.add_argument("--peak-tflops", type=float, metavar="X", help="peak rate of each GPU, 10^12 operations/s")
    parser.add_argument("--price", type=float, metavar="PER_HOUR", help="of one GPU")
    parser.add_argument("--rows", type=int, metavar="N", help="rows to train on, where no file tells")
    _add_data_root(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object; sizes in bytes")


_VALIDATE_EXAMPLES = """examples:
  ptv2kit validate recipes/quickstart.yaml
  ptv2kit validate recipes/*.yaml tasks/*.yaml
  ptv2kit validate recipes/quickstart.yaml prompt.length=20 train.epochs=3
  ptv2kit validate recipes/quickstart.yaml --json
  ptv2kit validate tasks/squad_v2.yaml --data --data-root data --backbone mini
"""


def _add_validate(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "validate",
        about="check recipes, tasks and suites, and with --data rows",
        description="Check recipe, task and suite files, with the values that key=value replaces in all of them, and "
        "print every problem. With --data, read every row: count rows and labels, measure lengths, find what is "
        "malformed, cut off, unseen in training or repeated.",
        examples=_VALIDATE_EXAMPLES,
        handler="ptv2kit.cli.validate:run",
        trailing="files",
    )
    what = "task, recipe or suite, a file or a name; or key=value"
    parser.add_argument("files", nargs="+", metavar="FILE", help=what)
    parser.add_argument("--data", action="store_true", help="also read and check every row")
    parser.add_argument("--backbone", metavar="NAME", help="whose tokenizer (default: the recipe's, or mini)")
    _add_data_root(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


_EXPLAIN_EXAMPLES = """examples:
  ptv2kit explain recipes/quickstart.yaml
  ptv2kit explain recipes/quickstart.yaml train
  ptv2kit explain recipes/quickstart.yaml train.learning_rate train.learning_rate=1e-3
  ptv2kit explain tasks/rte.yaml input --json
  ptv2kit explain --diff recipes/mini-rte.yaml recipes/mini-cb.yaml
  ptv2kit explain --diff runs/quickstart/20261123-130443-1f2e3d4c recipes/quickstart.yaml train
"""


def _add_explain(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "explain",
        about="show each value and where it came from",
        description="Show the resolved values of a recipe, task or suite and where each one came from: a file's line, "
        "the command line, or the default.",
        examples=_EXPLAIN_EXAMPLES,
        handler="ptv2kit.cli.explain:run",
        trailing="words",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="recipe, task or suite: a file or a name; with --diff a run's folder too",
    )
    parser.add_argument("words", nargs="*", metavar="key | key=value", help="what to show; what to replace first")
    parser.add_argument(
        "--diff",
        action="store_true",
        help="show what differs in a second FILE, which stands after the first; key=value replaces in the second",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of columns")


_LS_EXAMPLES = """examples:
  ptv2kit ls tasks
  ptv2kit ls recipes recipes/paper
  ptv2kit ls runs --json
  ptv2kit ls backbones
"""


def _add_ls(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "ls",
        about="list tasks, recipes, suites, runs or backbones",
        description="List what can be named: the tasks, recipes and suites of the project and of the catalog that is "
        "installed with the package, runs, or the backbones that need no download. A file that is not valid is listed "
        "with its first problem. Piped, or on a narrow terminal, each row is a line with tabs between its columns.",
        examples=_LS_EXAMPLES,
        handler="ptv2kit.cli.ls:run",
    )
    parser.add_argument("kind", choices=_KINDS, help="what is listed")
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="list the files in this folder and below it (default: what has a name in the project and the catalog)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")


_KINDS = ("tasks", "recipes", "suites", "runs", "backbones")


_CP_EXAMPLES = """examples:
  ptv2kit cp rte                       # tasks/rte.yaml, which 'task: rte' then finds before the catalog's
  ptv2kit cp glm-10b-boolq             # recipes/glm-10b-boolq.yaml, with recipes/base/glm.yaml that it extends
  ptv2kit cp mini/table3 my-study      # a suite with the recipes that it names, into my-study/
"""


def _add_cp(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "cp",
        about="copy a task, recipe or suite of the catalog to change it",
        description="Copy a file of the catalog, with what it extends or names, into the folders tasks and recipes of "
        "a project, where its name finds it before the catalog's. Nothing is overwritten.",
        examples=_CP_EXAMPLES,
        handler="ptv2kit.cli.cp:run",
    )
    parser.add_argument("name", metavar="NAME", help="as 'ptv2kit ls tasks', 'ls recipes' or 'ls suites' shows it")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="default: this one")
    parser.add_argument("--kind", choices=("task", "recipe", "suite"), help="of a name that several kinds have")


_NEW_TASK_EXAMPLES = """examples:
  ptv2kit new task reviews.csv
  ptv2kit new task data/reviews            # a folder with train.csv, dev.csv, test.csv
  ptv2kit new task aclImdb                 # a text in each file: train/pos/1.txt; or brat's train/1.ann
  ptv2kit new task stanfordnlp/imdb        # a data set of the hub
  ptv2kit new task reviews.csv --validation reviews-dev.csv
  ptv2kit new task data/train.jsonl --validation data/dev.jsonl --test data/test.jsonl --to tasks/reviews.yaml
"""


_NEW_RECIPE_EXAMPLES = """examples:
  ptv2kit new recipe tasks/reviews.yaml
  ptv2kit new recipe tasks/reviews.yaml --backbone roberta-large --to recipes/reviews-large.yaml
"""


def _add_new(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "new",
        about="write a first task from data, or a first recipe for a task",
        description="Write a commented file to start from. It is valid when it is written; read it before you use it.",
    )
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    task = _verb(
        kinds,
        "task",
        about="look at the columns of a file and propose scheme, input and labels",
        description="Look at the first 100,000 rows of a JSON, CSV, TSV, Parquet, CoNLL or fastText file, documents, "
        "or of a data set, propose a label scheme, the input and the labels, and write a commented task file.",
        examples=_NEW_TASK_EXAMPLES,
        handler="ptv2kit.cli.new:new_task",
    )
    task.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="the training rows; or a folder with train, dev and test files or documents; or a data set of the hub",
    )
    task.add_argument("--config", metavar="NAME", help="which configuration of a data set of the hub")
    task.add_argument(
        "--validation",
        metavar="FILE|SHARE",
        help="rows that choose the best epoch, or the share of FILE that is kept for them (default: 10%%)",
    )
    task.add_argument(
        "--columns",
        metavar="NAME,NAME",
        help="what the columns of a table without a header line are called, such as label,text",
    )
    task.add_argument("--test", metavar="FILE|SHARE", help="rows that are scored once, at the end, or a share of FILE")
    task.add_argument("--name", help="of the task (default: that of --to, else of FILE)")
    task.add_argument("--to", type=Path, metavar="FILE", help="what is written (default: NAME.yaml)")
    recipe = _verb(
        kinds,
        "recipe",
        about="settings to start from, for a task",
        description="Write a commented recipe with settings to start from.",
        examples=_NEW_RECIPE_EXAMPLES,
        handler="ptv2kit.cli.new:new_recipe",
    )
    recipe.add_argument("task", type=Path, metavar="TASK", help="a task: a file or a name")
    recipe.add_argument("--backbone", default="mini", metavar="NAME", help="hub id, folder, or mini (default)")
    recipe.add_argument("--name", help="of the recipe (default: that of --to, else task and backbone)")
    recipe.add_argument("--to", type=Path, metavar="FILE", help="what is written (default: NAME.yaml)")


_PREVIEW_EXAMPLES = """examples:
  ptv2kit preview quickstart --backbone mini -n 3
  ptv2kit preview recipes/mini-wikigold.yaml --data-root data --split validation --shuffle
  ptv2kit preview tasks/squad_v2.yaml --data-root data --max-length 192 --row 7
  ptv2kit preview tasks/quickstart.yaml --json | jq '.rows[0].inputs[0].tokens[].text'
"""


def _add_preview(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "preview",
        about="show rows as the model will see them",
        description="Show rows as the model will see them: prompt slots, sub-words with their labels, what is cut off "
        "and what is not scored. Loads the tokenizer, not the weights.",
        examples=_PREVIEW_EXAMPLES,
        handler="ptv2kit.cli.preview:run",
        first="read_task",
    )
    parser.add_argument("file", type=Path, metavar="TASK", help="task or recipe: a file or a name")
    parser.add_argument("--backbone", metavar="NAME", help="whose tokenizer (default: the recipe's, or mini)")
    parser.add_argument("-n", "--rows", type=int, default=3, metavar="N", help="how many rows (default: 3)")
    parser.add_argument("--row", type=int, metavar="N", help="start at this row, counted from 1")
    parser.add_argument("--shuffle", action="store_true", help="draw the rows at random, always the same ones")
    parser.add_argument("--split", default="train", metavar="NAME", help="train, validation, test… (default: train)")
    parser.add_argument("--max-length", type=int, metavar="N", help="instead of the file's own")
    parser.add_argument("--task", metavar="NAME", help="which task of a recipe with several (default: all of them)")
    _add_data_root(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


_SCHEMA_EXAMPLES = """examples:
  ptv2kit schema task > task.json         # then, in a task file: # yaml-language-server: $schema=task.json
  ptv2kit schema recipe --markdown | less
"""


def _add_schema(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "schema",
        about="print every key of task, recipe or suite files",
        description="Print the JSON Schema of task, recipe or suite files, for editors, or a table of all keys.",
        examples=_SCHEMA_EXAMPLES,
        handler="ptv2kit.cli.schema:run",
    )
    parser.add_argument("kind", choices=["task", "recipe", "suite"], help="which kind of file")
    parser.add_argument("--markdown", action="store_true", help="a table of keys, values, defaults and meanings")


_DOCTOR_EXAMPLES = """examples:
  ptv2kit doctor
  ptv2kit doctor --json
"""


def _add_doctor(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "doctor",
        about="what this machine has, and what is missing for which feature",
        description="Print versions, devices, folders and free space, and what has to be installed for which feature.",
        examples=_DOCTOR_EXAMPLES,
        handler="ptv2kit.cli.doctor:run",
    )
    _add_data_root(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of lines")


_EXPORT_EXAMPLES = """examples:
  ptv2kit export runs/mini-wikigold/20261123-130443-1f2e3d4c --format peft --to wikigold-adapter
  ptv2kit export runs/mini-three-tasks/20261123-141500-5a6b7c8d --task wikigold --to wikigold-adapter
"""


def _add_export(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "export",
        about="write a run's prompt as a PEFT adapter",
        description="Write the best prompt of a run, and its head, as a prefix-tuning adapter that PEFT loads and that "
        "gives the same logits there. What PEFT would compute otherwise is refused, with the reason.",
        examples=_EXPORT_EXAMPLES,
        handler="ptv2kit.cli.export:run",
        first="find_run_folder",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its name")
    parser.add_argument("--format", choices=["peft"], default="peft", help="default: peft")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="new folder for the adapter")
    parser.add_argument("--task", metavar="NAME", help="which task of a run with several")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of lines")


_IMPORT_EXAMPLES = """examples:
  ptv2kit import wikigold-adapter --recipe recipes/mini-wikigold.yaml --to runs/from-peft
  ptv2kit import checkpoints/conll03-roberta --recipe my-recipes/conll03.yaml --to runs/from-official
  ptv2kit run recipes/mini-wikigold.yaml init_from=runs/from-peft
"""


def _add_import(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "import",
        about="make a run's folder of a PEFT adapter or an official checkpoint",
        description="Read the prompt, and the head if there is one, of a PEFT prefix adapter or of a checkpoint of the "
        "official P-Tuning v2 code, and write them as a run's folder, from which init_from starts.",
        examples=_IMPORT_EXAMPLES,
        handler="ptv2kit.cli.import_:run",
        trailing="overrides",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder or file with the tensors")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace a value of the recipe")
    parser.add_argument("--recipe", type=Path, required=True, metavar="FILE", help="recipe that the prompt belongs to")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="new folder for the run")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of lines")


_PUSH_EXAMPLES = """examples:
  ptv2kit push runs/mini-wikigold/20261123-130443-1f2e3d4c ada/wikigold-prompt
  ptv2kit push runs/mini-wikigold/20261123-130443-1f2e3d4c ada/wikigold-prompt --public --yes
  ptv2kit predict hub:ada/wikigold-prompt sentences.txt
"""


def _add_push(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "push",
        about="publish a run on the Hugging Face hub",
        description="Upload a run's recipe, tasks, scores, model card and prompt, a few megabytes, to a repository "
        "that is private unless you say otherwise. Rows, predictions, checkpoints and paths of this machine stay "
        "here. It shows what it would upload, and asks.",
        examples=_PUSH_EXAMPLES,
        handler="ptv2kit.cli.push:run",
        first="find_run_folder",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run that has ended, or its name")
    parser.add_argument("repository", metavar="USER/NAME", help="where to; made if it does not exist")
    parser.add_argument("--public", action="store_true", help="everyone may see a repository that is made")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of the address")


_REPORT_EXAMPLES = """examples:
  ptv2kit report recipes/suites/quickstart-search.yaml
  ptv2kit report runs/quickstart-search --to reports/search
  ptv2kit report recipes/suites/mini/table3.yaml --only '*seed=31*'
  ptv2kit report runs/mini-wikigold runs/mini-rte --json
"""


def _add_report(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "report",
        about="show what came out of suites and runs",
        description="Write report.md, report.html and figures of suites and runs: seeds merged, scores beside those of "
        "the paper, and what is missing or failed. A suite may be unfinished.",
        examples=_REPORT_EXAMPLES,
        handler="ptv2kit.cli.report:run",
        trailing="sources",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="SUITE|RUN",
        help="a suite's YAML, a suite's folder, a run's folder, or a folder of runs",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="of a suite, show only cells whose name matches, such as '*seed=31*', and those that they start from",
    )
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="where to write (default: the folder 'report' of the suite, or runs/report)",
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    parser.add_argument("--json", action="store_true", help="also print the numbers as JSON, instead of where they are")


_COMPLETION_EXAMPLES = """examples:
  eval "$(ptv2kit completion bash)"                 # in ~/.bashrc
  eval "$(ptv2kit completion zsh)"                  # in ~/.zshrc, after compinit
  ptv2kit completion fish > ~/.config/fish/completions/ptv2kit.fish
"""


def _add_completion(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "completion",
        about="print what a shell needs to complete commands",
        description="Print the code with which a shell completes verbs, options, YAML files, and keys such as "
        "train.learning_rate=. It asks ptv2kit itself, so that it is never out of date.",
        examples=_COMPLETION_EXAMPLES,
        handler="ptv2kit.cli.completion:run",
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="which shell")
