"""What other tools call the keys of a recipe, for hints."""

from __future__ import annotations

from collections.abc import Mapping

UPSTREAM: Mapping[str, str] = {
    "pre_seq_len": "prompt.length",
    "num_virtual_tokens": "prompt.length",
    "prefix_projection": "prompt.reparameterization: mlp, or method: prefix_tuning",
    "prefix_hidden_size": "prompt.reparameterization_size",
    "encoder_hidden_size": "prompt.reparameterization_size",
    "encoder_reparameterization_type": "prompt.reparameterization: mlp or lstm, with method: p_tuning",
    "hidden_dropout_prob": "prompt.dropout for the prompt, backbone.dropout for the backbone and the head",
    "model_name_or_path": "backbone.name",
    "task_name": "task",
    "dataset_name": "task",
    "lr": "train.learning_rate",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size",
    "per_device_eval_batch_size": "train.eval_batch_size",
    "gradient_accumulation_steps": "train.micro_batch_size: batch_size / micro_batch_size passes are accumulated",
    "max_seq_length": "train.max_length, or input.max_length of the task",
    "max_grad_norm": "train.max_gradient_norm",
    "lr_scheduler_type": "train.schedule",
    "warmup_steps": "train.warmup_ratio",
    "early_stopping_patience": "train.patience",
    "num_labels": "labels.names of the task",
}
"""Names of the official scripts, of transformers' Trainer and of PEFT, and what they are here."""

_PLAIN = ("learning_rate", "epochs", "batch_size", "seed", "weight_decay", "warmup_ratio", "patience", "max_length")
_TRAIN = {name: f"train.{name}" for name in _PLAIN}
_OTHER = {"length": "prompt.length", "prompt_length": "prompt.length", "backbone": "backbone.name", "method": "method"}


def key_for(name: str) -> str:
    """The key of a recipe that a name means, such as `train.learning_rate` for `lr`; empty if there is none."""
    plain = {other: key for other, key in UPSTREAM.items() if key.replace(".", "_").isidentifier()}
    return {**_TRAIN, **_OTHER, **plain}.get(name, "")
