"""What the engine must know of a model type beyond transformers' common interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

import torch
from torch import Tensor, nn

from ptv2kit.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Positions = Literal["index", "after_padding", "rotary", "own"]
"""How tokens are counted: `index` from 0; `after_padding`: pad id + real tokens so far; `rotary`: from 0, and only
distances matter; `own`: the model sees to it, and takes no shift."""

_INDEX = {
    "albert",
    "bert",
    "bert-generation",
    "distilbert",
    "electra",
    "ernie",
    "gpt2",
    "gpt_neo",
    "megatron-bert",
    "rembert",
    "xglm",
}
_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
_ROTARY = {"codegen", "gptj"}
"""Of those whose configuration does not say so."""
_DEBERTA = {"deberta", "deberta-v2"}
ENCODER_ALONE = frozenset({"mt5", "t5", "umt5"})
"""Encoder-decoders whose encoder transformers has as a model of its own; nothing else of them is read."""

_DROPOUTS = (
    "hidden_dropout_prob",
    "hidden_dropout",
    "dropout",
    "resid_pdrop",
    "embd_pdrop",
    "embedding_dropout",
    "mlp_dropout",
    "embedding_dropout_prob",
    "output_dropout_prob",
    "dropout_rate",
)
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout_prob", "attention_dropout", "attn_pdrop")


@final
@dataclass(frozen=True)
class Family:
    """Facts of a model's configuration.

    Args:
        model_type: transformers' name of the architecture.
        positions: how tokens are counted.
        longest_input: tokens that have a position, the shift by a prompt included; None: no limit.
        pad_position: position of padding where `positions` is `after_padding`, else 0.
        trained_pooling: activation of the layer that official code trains between the pooled token and the classifier,
            None where it has none.
    """

    model_type: str
    positions: Positions
    longest_input: int | None
    pad_position: int
    trained_pooling: Literal["gelu", "tanh"] | None

    @property
    def shifts(self) -> bool:
        """Whether tokens are counted from after the prompt unless a recipe says otherwise, as in the official code."""
        return self.positions in ("index", "after_padding")

    def position_ids(self, attention_mask: Tensor, shift: int) -> Tensor | None:
        """Positions of the tokens, counted from `shift` on (official code: shift = prompt length).

        Args:
            attention_mask: `[batch, length]`, 1 at real tokens, padding on the right.
            shift: added to the position of every token that is counted.

        Returns:
            `[batch, length]`, or None where the model counts for itself.
        """
        if self.positions == "own":
            return None
        if self.positions == "after_padding":
            mask = attention_mask.long()
            return (mask.cumsum(1) + shift) * mask + self.pad_position
        length = attention_mask.shape[1]
        return torch.arange(shift, shift + length, device=attention_mask.device).expand_as(attention_mask)

    def pool(self, backbone: PreTrainedModel, hidden: Tensor) -> Tensor | None:
        """What the backbone's own pooler makes of hidden states `[batch, length, hidden]`; None if it has none.

        Returns:
            `[batch, hidden]`, as the backbone itself would give it.
        """
        modules = dict(backbone.named_children())
        pooler = modules.get("pooler")
        if isinstance(pooler, nn.Linear):  # ALBERT
            return modules["pooler_activation"](pooler(hidden[:, 0]))
        return None if pooler is None else pooler(hidden)


def family_of(config: PretrainedConfig, name: str) -> Family:
    """The facts of a configuration.

    Args:
        name: of the backbone, for errors.

    Raises:
        ConfigError: the model counts from the padding's id and the configuration has none.
    """
    settings = config.to_dict()
    # An alias in many configurations, but not in MPT's, whose biases are made for that many places
    limit: int | None = getattr(config, "max_position_embeddings", settings.get("max_seq_len"))
    positions: Positions
    pad_position = 0
    if config.model_type in _AFTER_PADDING:
        positions = "after_padding"
        if config.pad_token_id is None or limit is None:
            raise ConfigError(f"backbone '{name}' has no pad_token_id or max_position_embeddings in its configuration")
        pad_position = int(config.pad_token_id)
        limit -= pad_position + 1
    elif config.model_type in _DEBERTA:
        positions = "index" if settings["position_biased_input"] else "own"
    elif config.model_type in _INDEX:
        positions = "index"
    else:
        positions = "rotary" if settings.get("rope_parameters") or config.model_type in _ROTARY else "own"
    trained = "gelu" if config.model_type in _DEBERTA else "tanh" if config.model_type == "original_glm" else None
    return Family(config.model_type, positions, limit, pad_position, trained)


def hidden_dropout(config: PretrainedConfig) -> float:
    """The highest dropout on hidden states of a configuration, 0 if it has none."""
    return max((float(getattr(config, key)) for key in _keys(config, _DROPOUTS)), default=0.0)


def dropouts(config: PretrainedConfig) -> dict[str, float]:
    """Every dropout of a configuration that is not 0, by its key; those of heads and poolers are left out."""
    above = ("classif", "pooler", "qa_", "summary", "cls")
    return {
        key: float(value)
        for key, value in config.to_dict().items()
        if "drop" in key and not any(part in key for part in above) and isinstance(value, int | float) and value
    }


def set_dropout(config: PretrainedConfig, name: str, hidden: float | None, attention: float | None) -> None:
    """Write a recipe's dropout into a configuration, whatever its keys are called; None leaves the model's own.

    Raises:
        ConfigError: the model has no dropout of that kind.
    """
    wanted = {"dropout": (hidden, _DROPOUTS), "attention_dropout": (attention, _ATTENTION_DROPOUTS)}
    for key, (value, names) in wanted.items():
        own = _keys(config, names)
        if value and not own:
            raise ConfigError(
                f"backbone.{key} is {value:g}, but models of type '{config.model_type}' have none",
                hint=f"set backbone.{key}: 0",
            )
        for attribute in own if value is not None else ():
            setattr(config, attribute, value)


def _keys(config: PretrainedConfig, names: tuple[str, ...]) -> list[str]:
    settings = config.to_dict()
    return [name for name in names if isinstance(settings.get(name), int | float)]
