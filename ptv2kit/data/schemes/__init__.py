"""The label schemes, one module each, called like `labels.scheme`: encode, collate, decode, score."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.tokens import Subwords
from ptv2kit.spec.plugins import load_plugin
from ptv2kit.spec.task import AnyTask


def build_scheme(task: AnyTask, subwords: Subwords, train_rows: Iterable[Row]) -> LabelScheme:
    """The scheme of a task. Only its own module is loaded, and with it what it scores by.

    Args:
        train_rows: where `labels.names: from_train` looks.

    Raises:
        DataError: the labels cannot be found in the training rows.
    """
    scheme: LabelScheme = import_module(f"ptv2kit.data.schemes.{task.labels.scheme}").Scheme(task, subwords, train_rows)
    scheme.input_columns = tuple(task.input_columns())
    if task.extra_metrics:
        scheme.extra_metrics = {name: load_plugin("ptv2kit.metrics", name) for name in task.extra_metrics}
    return scheme
