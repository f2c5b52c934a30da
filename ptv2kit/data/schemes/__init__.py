"""The label schemes, one module each: encode, collate, decode, score."""

from __future__ import annotations

from collections.abc import Iterable

from ptv2kit.config.task import AnyTask, ChoicesTask, ClassesTask, Iob2Task, StartEndTask
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.choices import ChoicesScheme
from ptv2kit.data.schemes.classes import ClassesScheme
from ptv2kit.data.schemes.iob2 import Iob2Scheme
from ptv2kit.data.schemes.start_end import StartEndScheme
from ptv2kit.data.tokens import Subwords


def build_scheme(task: AnyTask, subwords: Subwords, train_rows: Iterable[Row]) -> LabelScheme:
    """The scheme of a task.

    Args:
        train_rows: where `labels.names: from_train` looks.

    Raises:
        DataError: the labels cannot be found in the training rows.
    """
    match task:
        case ClassesTask():
            return ClassesScheme(task, subwords, train_rows)
        case ChoicesTask():
            return ChoicesScheme(task, subwords)
        case Iob2Task():
            return Iob2Scheme(task, subwords, train_rows)
        case StartEndTask():
            return StartEndScheme(task, subwords)
