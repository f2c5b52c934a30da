"""What several verbs need of a backbone without its weights: the tokenizer, silently."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ptv2kit.config.recipe import Backbone
    from ptv2kit.config.task import AnyTask


def silence_libraries() -> None:
    """Keep other libraries' progress bars and notes off the terminal; their errors still raise."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def tokenizer_for(backbone: Backbone, task: AnyTask) -> PreTrainedTokenizerBase:
    """The tokenizer of a backbone as `task` needs it.

    Raises:
        ConfigError: the backbone is not supported or has no usable tokenizer.
        DataError: it cannot be had.
    """
    from ptv2kit.config.task import Iob2Task
    from ptv2kit.models.backbones import find_backbone, load_tokenizer

    silence_libraries()
    return load_tokenizer(find_backbone(backbone), words=isinstance(task, Iob2Task))
