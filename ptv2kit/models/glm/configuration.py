"""Configuration of the original GLM.

Annotations are not postponed here: transformers reads them to check the types of all fields.

Source: Du et al., "GLM: General Language Model Pretraining with Autoregressive Blank Infilling", arXiv:2103.10360.
"""

from collections.abc import Mapping
from typing import Any, Literal, final

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ptv2kit.errors import DataError

_SIZE_KEYS = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size", "max_sequence_length")
_OPTIONS = (
    "block_position_encoding",
    "attention_scale",
    "embedding_dropout_prob",
    "attention_dropout_prob",
    "output_dropout_prob",
    "layernorm_epsilon",
    "initializer_range",
)

Size = Literal["base", "large", "2B", "10B"]

_BPE = {"vocab_size": 50304, "max_sequence_length": 1024, "pad_token_id": 50256, "eos_token_id": 50256}
_WORD_PIECES = {"vocab_size": 30592, "max_sequence_length": 512, "pad_token_id": 0, "eos_token_id": 0}
_SIZES: dict[Size, dict[str, Any]] = {
    "base": {"num_layers": 12, "hidden_size": 768, "num_attention_heads": 12, **_WORD_PIECES},
    "large": {"num_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, **_WORD_PIECES},
    "2B": {"num_layers": 36, "hidden_size": 2048, "num_attention_heads": 32, **_BPE},
    "10B": {"num_layers": 48, "hidden_size": 4096, "num_attention_heads": 64, **_BPE},
}
_GELU = ("gelu_pytorch_tanh", "gelu")


@final
@strict
class OriginalGlmConfig(PreTrainedConfig):
    """Settings under the names that the published `config.json` has for them; the defaults are those of GLM-10B.

    Its switches for training with Megatron (`parallel_output`, `checkpoint_activations` and the like) change no value
    and are kept unread.

    Args:
        num_layers: also `num_hidden_layers`.
        hidden_size: width; the feed-forward layers are four times as wide.
        num_attention_heads: must divide `hidden_size`.
        vocab_size: rows of the word embeddings.
        max_sequence_length: the highest position, also `max_position_embeddings`; both tables of positions have one
            row more.
        embedding_dropout_prob: on the sum of the embeddings.
        attention_dropout_prob: on attention weights.
        output_dropout_prob: on what attention and feed-forward layers add.
        layernorm_epsilon: added to the variance.
        initializer_range: standard deviation of initial weights; `/ √(2 · num_layers)` in the layers that add to the
            residual stream.
        block_position_encoding: must be true.
        attention_scale: kept unread. The official code divides scores by it before the softmax's maximum is taken off
            and multiplies them by it afterwards, against overflow in half precision; the result is the same.
        hidden_act: `gelu_pytorch_tanh` as in the official code, or `gelu`, the erf form that the published remote code
            computes.
        pad_token_id: `<|endoftext|>`; nothing is special about its embedding.
        eos_token_id: `<|endoftext|>`.

    Raises:
        ValueError: `relative_encoding`, `spell_length` or a missing block position is asked for, which are not
            implemented; the heads do not divide the hidden size; or `hidden_act` is another.
    """

    model_type = "original_glm"
    attribute_map = {  # noqa: RUF012, as all of transformers declares it
        "num_hidden_layers": "num_layers",
        "max_position_embeddings": "max_sequence_length",
        "layer_norm_eps": "layernorm_epsilon",
    }

    num_layers: int = 48
    hidden_size: int = 4096
    num_attention_heads: int = 64
    vocab_size: int = 50304
    max_sequence_length: int = 1024
    embedding_dropout_prob: float | int = 0.1
    attention_dropout_prob: float | int = 0.1
    output_dropout_prob: float | int = 0.1
    layernorm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    block_position_encoding: bool = True
    attention_scale: float | int = 1.0
    hidden_act: str = "gelu_pytorch_tanh"
    pad_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse what is not implemented; `kwargs` are keys that are no field."""
        if kwargs.pop("relative_encoding", None):
            raise ValueError("relative_encoding is on: relative positions (Transformer-XL) are not implemented")
        if kwargs.pop("spell_length", None):
            raise ValueError("spell_length is set: a soft prompt is not part of this model")
        if not self.block_position_encoding:
            raise ValueError("block_position_encoding is off: GLM without block positions is not implemented")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads must divide hidden_size. Got {self.num_attention_heads} and {self.hidden_size}"
            )
        if self.hidden_act not in _GELU:
            raise ValueError(f"hidden_act must be one of {', '.join(_GELU)}. Got {self.hidden_act!r}")
        super().__post_init__(**kwargs)

    @classmethod
    def of_size(cls, size: Size) -> "OriginalGlmConfig":
        """The configuration of a published English model; `base` and `large` use BERT's word pieces."""
        return cls(**_SIZES[size])


def published_config(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of `OriginalGlmConfig` from the `config.json` of the original GLM.

    Its `model_type` is `glm`, which transformers gives to GLM-4: `AutoConfig` reads it as such without a word. They
    differ in their keys.

    Args:
        settings: a parsed `config.json`.

    Returns:
        The arguments, or None if it is another model's, GLM-4's for example.

    Raises:
        DataError: it is the original GLM's, but a size is missing or is not a positive whole number, or its
            positions are of another kind.
    """
    if settings.get("model_type") != "glm" or not {"block_position_encoding", "max_sequence_length"} & settings.keys():
        return None
    for name in _SIZE_KEYS:
        value = settings.get(name)
        if type(value) is not int or value < 1:
            raise DataError(f"'{name}' should be a positive whole number, but is {value!r}")
    if settings.get("relative_encoding"):
        raise DataError("'relative_encoding' is on: relative positions (Transformer-XL) are not supported")
    if not settings.get("block_position_encoding", True):
        raise DataError("'block_position_encoding' is off: a GLM without block positions is not supported")
    return {name: settings[name] for name in (*_SIZE_KEYS, *_OPTIONS) if name in settings}
