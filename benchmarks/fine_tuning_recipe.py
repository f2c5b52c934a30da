"""Full fine-tuning on the data of a recipe, as the reference that its P-Tuning v2 run is compared with.

Rows, inputs and scores are those of the recipe, so both methods see and are asked the same; model classes, loss and
training loop are transformers' and PyTorch's own. `fine_tuning_baseline.py` shares nothing with the toolkit, but knows
only a few tasks. The best epoch is chosen on the validation rows, as in the P-Tuning v2 paper's code.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    get_linear_schedule_with_warmup,
)

from ptv2kit.data.batching import grouped_batches, sorted_batches
from ptv2kit.data.schemes.records import Batch, Prediction
from ptv2kit.spec.load import load_recipe
from ptv2kit.training.prepare import Prepared, prepare
from ptv2kit.training.trainer import seed_everything

CLASSES = {
    "sequence": AutoModelForSequenceClassification,
    "choices": AutoModelForMultipleChoice,
    "token": AutoModelForTokenClassification,
    "start_end": AutoModelForQuestionAnswering,
}
EXAMPLES = """\
examples:
  python benchmarks/fine_tuning_recipe.py recipes/mini-copa.yaml --data-root data --epochs 10
  python benchmarks/fine_tuning_recipe.py recipes/mini-squad.yaml --data-root data --epochs 2 limit.train=1000
"""


def logits_of(model: nn.Module, prepared: Prepared, batch: Batch) -> Tensor:
    """Logits as the label scheme decodes them: `[batch, classes]`, `[batch, length, tags]` or `[batch, length, 2]`."""
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    if prepared.scheme.unit == "choices":
        count = len(prepared.scheme.names)
        inputs = {name: tensor.view(-1, count, tensor.shape[-1]) for name, tensor in inputs.items()}
    output = model(**inputs)
    if prepared.scheme.unit == "start_end":
        return torch.stack([output.start_logits, output.end_logits], -1)
    return output.logits


def loss_of(prepared: Prepared, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy; with start and end, over the positions of the input."""
    if prepared.scheme.unit == "start_end":
        return F.cross_entropy(logits, labels)
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


@torch.inference_mode()
def score(model: nn.Module, prepared: Prepared) -> dict[str, float]:
    """The task's metrics on the validation split."""
    model.eval()
    split, predictions = prepared.splits["validation"], list[Prediction]()
    for rows in sorted_batches(split.lengths, 64):
        features = [split.features[row] for row in rows]
        predictions += prepared.scheme.decode(features, logits_of(model, prepared, prepared.scheme.collate(features)))
    return prepared.scheme.score(prepared.scheme.join(predictions)).values


def fine_tune(prepared: Prepared, options: argparse.Namespace) -> dict[str, Any]:
    """Train every weight and return the best epoch's scores."""
    recipe = prepared.recipe
    seed_everything(recipe.train.seed)
    names = prepared.scheme.names
    sizes = {"num_labels": len(names)} if prepared.scheme.unit in ("sequence", "token") else {}
    dropout = recipe.backbone.attention_dropout
    if dropout is not None:
        sizes["attention_probs_dropout_prob"] = dropout
    model = CLASSES[prepared.scheme.unit].from_pretrained(prepared.spec.source, **sizes)
    split = prepared.splits["train"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.01)
    steps = options.epochs * -(-len(split.features) // options.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    best: dict[str, Any] = {}
    started = time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        model.train()
        for rows in grouped_batches(split.lengths, options.batch_size, recipe.train.seed * 1000 + epoch):
            batch = prepared.scheme.collate([split.features[row] for row in rows])
            loss = loss_of(prepared, logits_of(model, prepared, batch), batch.labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        values = score(model, prepared)
        metric = next(iter(values))
        shown = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
        print(f"epoch {epoch} loss {loss.item():.3f} {shown} {time.perf_counter() - started:.0f} s", flush=True)
        if not best or values[metric] > best["scores"][metric]:
            best = {"scores": values, "best_epoch": epoch}
    settings = {name: getattr(options, name) for name in ("learning_rate", "batch_size", "epochs")}
    return {"recipe": recipe.recipe, **settings, "seed": recipe.train.seed, **best}


def main() -> None:
    """Read the recipe, train, print one JSON line."""
    parser = argparse.ArgumentParser(
        description="Fine-tune all weights of a recipe's backbone.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe (YAML); its prompt is ignored")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace a value of the recipe")
    parser.add_argument("--data-root", required=True, type=Path, metavar="DIR", help="folder of the data sets")
    parser.add_argument("--epochs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="rows a step; default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="peak; default: %(default)s")
    options = parser.parse_intermixed_args()
    resolved = load_recipe(options.recipe, options.overrides)
    task = resolved.task
    prepared = prepare(resolved.recipe, task.task, task.path, options.data_root, lambda *_: None)
    print(json.dumps(fine_tune(prepared, options)), flush=True)


if __name__ == "__main__":
    main()
