"""The methods that are compared, each as a model that gives logits for a padded batch.

All start from the same folder of weights, have the dropout that the backbone's configuration says, and share loss,
gradient clipping and optimizer. PEFT, LoRA and fine-tuning are set up as their documentation shows it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final, get_args

import torch
import torch.nn.functional as F
from peft import LoraConfig, PrefixTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DynamicCache,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ptv2kit.data.schemes.records import Batch
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import Unit, build_model
from ptv2kit.spec.recipe import Backbone, Recipe

MethodName = Literal[
    "ptv2kit",
    "ptv2kit-dropout",
    "ptv2kit-upper-half",
    "hand-made",
    "peft-prefix",
    "peft-lora",
    "official",
    "fine-tuning",
]
METHODS: tuple[MethodName, ...] = get_args(MethodName)

Precision = Literal["fp32", "bf16", "bf16, own attention"]
"""`bf16`: ptv2kit with `backbone.dtype: bf16`; the others under autocast, as transformers' Trainer does it with
`bf16=True`, frozen weights in bf16, but with attention in fp32, as ptv2kit computes it on a processor. `bf16, own
attention`: the same with attention as it comes, which is what users of the others get; ptv2kit has no such form."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_FP32_ATTENTION = "sdpa_in_fp32"

LEARNING_RATES: dict[MethodName, float] = {
    "ptv2kit": 3e-2,
    "ptv2kit-dropout": 3e-2,
    "ptv2kit-upper-half": 3e-2,
    "hand-made": 3e-2,
    "peft-prefix": 1e-2,
    "peft-lora": 1e-3,
    "official": 1e-2,
    "fine-tuning": 2e-4,
}
"""Of the time to a score; speed does not depend on them."""

_CLASSES: dict[Unit, tuple[Any, TaskType]] = {
    "sequence": (AutoModelForSequenceClassification, TaskType.SEQ_CLS),
    "token": (AutoModelForTokenClassification, TaskType.TOKEN_CLS),
    "start_end": (AutoModelForQuestionAnswering, TaskType.QUESTION_ANS),
}


class Method(ABC):
    """A way to train.

    Args:
        model: all of its modules.
        autocast: whether matrix products are computed in bf16, whatever the weights are in.
    """

    def __init__(self, model: nn.Module, *, autocast: bool = False) -> None:
        self.model = model
        self.autocast = autocast

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """`[batch, classes]`, `[batch, length, tags]`, or `[batch, length, 2]` for start and end."""

    @property
    def trained(self) -> list[nn.Parameter]:
        """What is trained."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """AdamW, fused as in transformers' own trainer."""
        return torch.optim.AdamW(self.trained, lr=learning_rate, weight_decay=0.0, fused=True)

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> float:
        """One training step; returns the loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            logits = self.logits(batch).float()
        # Start and end are chosen among positions, classes along the last axis.
        flat = (logits, batch.labels)
        if batch.labels.dim() != 2 or batch.labels.shape[1:] != logits.shape[2:]:
            flat = (logits.flatten(0, -2), batch.labels.flatten())
        loss = F.cross_entropy(*flat)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())


@final
class Toolkit(Method):
    """ptv2kit's own model, as a recipe builds it."""

    def logits(self, batch: Batch) -> Tensor:
        """See `Method.logits`."""
        return self.model(**batch.inputs())


@final
class Stock(Method):
    """A model class of transformers, plain or wrapped by PEFT."""

    def logits(self, batch: Batch) -> Tensor:
        """See `Method.logits`."""
        output = self.model(**batch.inputs())
        if "start_logits" in output:
            return torch.stack([output.start_logits, output.end_logits], -1)
        return output.logits


@final
class Past(nn.Module):
    """A frozen backbone that is given trained past keys and values, and a linear head: as little code as will do.

    Args:
        folder: of the backbone.
        unit: what has logits.
        classes: logits per unit.
        length: of the prompt.
        official: keep prompts as the official code does: one table, dropout on its expansion, attention written out.
    """

    def __init__(self, folder: Path, unit: Unit, classes: int, length: int, *, official: bool) -> None:
        super().__init__()
        self.backbone = AutoModel.from_pretrained(folder, attn_implementation="eager" if official else "sdpa")
        self.backbone.requires_grad_(False)
        config = self.backbone.config
        self.shape = (config.num_hidden_layers, 2, config.num_attention_heads)
        self.width = config.hidden_size // config.num_attention_heads
        self.official = official
        shape = (length, -1) if official else (*self.shape, length, self.width)
        numbers = 2 * config.num_hidden_layers * length * config.hidden_size
        self.prompt = nn.Parameter(torch.empty(numbers).normal_(std=0.02).view(shape).clone())
        self.prompt_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.dropout = nn.Dropout(0.0 if unit == "start_end" else config.hidden_dropout_prob)
        self.head = nn.Linear(config.hidden_size, classes)
        self.unit = unit

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Logits."""
        count = len(input_ids)
        output = self.backbone(
            input_ids=input_ids,
            attention_mask=torch.cat([attention_mask.new_ones(count, self.length), attention_mask], 1),
            token_type_ids=token_type_ids,
            past_key_values=DynamicCache(self.past(count)),
        )
        read = output.pooler_output if self.unit == "sequence" else output.last_hidden_state
        return self.head(self.dropout(read))

    @property
    def length(self) -> int:
        """Of the prompt."""
        return self.prompt.shape[0] if self.official else self.prompt.shape[3]

    def past(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, `[batch, heads, length, head_dim]`."""
        if not self.official:
            return [(layer[0].expand(count, -1, -1, -1), layer[1].expand(count, -1, -1, -1)) for layer in self.prompt]
        layers, kinds, heads = self.shape
        table = self.prompt.expand(count, -1, -1).view(count, self.length, layers * kinds, heads, self.width)
        parts = self.prompt_dropout(table).permute(2, 0, 3, 1, 4).split(2)
        return [(part[0], part[1]) for part in parts]


def _attention_in_fp32(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' scaled dot product attention, whatever autocast says."""
    with torch.autocast("cpu", enabled=False):
        context, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **kwargs)
    return context, None


def build(
    name: MethodName,
    folder: Path,
    unit: Unit,
    classes: int,
    prompt_length: int,
    init: str = "normal",
    precision: Precision = "fp32",
    *,
    dropout: bool = True,
) -> Method:
    """A method with fresh parameters, in training mode; initial values come from torch's global generator.

    Args:
        name: of the method.
        folder: of the backbone.
        unit: what has logits.
        classes: logits per unit.
        prompt_length: of prompts.
        init: how ptv2kit's prompt starts; `normal` unless rows are at hand.
        precision: what the backbone computes in; `hand-made` and `official` are in fp32 only.
        dropout: as the backbone's configuration has it, or none; `hand-made` and `official` have it always.
    """
    off = {} if dropout else {"dropout": 0.0, "attention_dropout": 0.0}
    if name.startswith("ptv2kit"):
        recipe = toolkit_recipe(name, folder, prompt_length, init=init, backbone={"dtype": precision, **off})
        spec = find_backbone(recipe.backbone)
        return Toolkit(build_model(recipe, unit, spec, classes).train())
    if name in ("hand-made", "official"):
        return Toolkit(Past(folder, unit, classes, prompt_length, official=name == "official").train())
    stock, task_type = _CLASSES[unit]
    sizes: dict[str, Any] = {} if unit == "start_end" else {"num_labels": classes}
    if not dropout:
        sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if precision != "fp32" and name != "fine-tuning":
        sizes["dtype"] = torch.bfloat16  # PEFT's own parameters are in fp32 all the same
    if precision == "bf16":
        AttentionInterface.register(_FP32_ATTENTION, _attention_in_fp32)
        AttentionMaskInterface.register(_FP32_ATTENTION, sdpa_mask)
        sizes["attn_implementation"] = _FP32_ATTENTION
    model = stock.from_pretrained(folder, **sizes)
    if name == "peft-prefix":
        model = get_peft_model(model, PrefixTuningConfig(task_type=task_type, num_virtual_tokens=prompt_length))
    if name == "peft-lora":
        model = get_peft_model(model, LoraConfig(task_type=task_type, r=8, lora_alpha=16, lora_dropout=0.1))
    return Stock(model.train(), autocast=precision != "fp32")


def toolkit_recipe(
    name: str,
    folder: Path,
    prompt_length: int,
    *,
    init: str = "normal",
    backbone: Mapping[str, Any] | None = None,
    **train: Any,
) -> Recipe:
    """The recipe of a method of ptv2kit; `backbone` and `train` add to its sections of these names."""
    layers = "all"
    if name == "ptv2kit-upper-half":
        count = find_backbone(Backbone(name=str(folder))).config.num_hidden_layers
        layers = f"{count // 2 + 1}-{count}"
    return Recipe.model_validate(
        {
            "recipe": "speed",
            "task": "speed",
            "backbone": {"name": str(folder), **(backbone or {})},
            "prompt": {
                "length": prompt_length,
                "layers": layers,
                "init": init,
                "dropout": 0.1 if name == "ptv2kit-dropout" else 0.0,
            },
            "train": {"epochs": 1, "learning_rate": LEARNING_RATES["ptv2kit"], "batch_size": 16, **train},
        }
    )
