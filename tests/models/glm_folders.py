"""Small folders of the original GLM as they are published, and the model with logits that its numbers are known of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput
from transformers.utils import can_return_tuple

from ptv2kit.models.glm.configuration import OriginalGlmConfig
from ptv2kit.models.glm.modeling import OriginalGlmModel, OriginalGlmPreTrainedModel
from ptv2kit.models.verbalizer import sums_of_scored
from tests.models.test_glm_tokenizer import tiny_vocabulary

# As in the config.json of THUDM/glm-2b, made small.
PUBLISHED: dict[str, Any] = {
    "architectures": ["GLMModel"],
    "attention_dropout_prob": 0.1,
    "attention_scale": 1.0,
    "auto_map": {"AutoConfig": "configuration_glm.GLMConfig", "AutoModel": "modeling_glm.GLMModel"},
    "block_position_encoding": True,
    "checkpoint_activations": False,
    "embedding_dropout_prob": 0.1,
    "hidden_size": 32,
    "initializer_range": 0.02,
    "max_sequence_length": 64,
    "model_type": "glm",
    "num_attention_heads": 4,
    "num_layers": 2,
    "output_dropout_prob": 0.1,
    "pad_token_id": 0,
    "pool_token": "cls",
    "relative_encoding": False,
    "spell_func": "lstm",
    "spell_length": None,
    "vocab_size": 128,
}
QKV = "transformer.layers.1.attention.query_key_value.weight"
NORM = "transformer.layers.0.input_layernorm.weight"


def published(folder: Path, weights: dict[str, Any], file: str = "pytorch_model.bin", **settings: Any) -> Path:
    """A folder as on the hub."""
    folder.mkdir()
    tiny_vocabulary(folder)
    (folder / "config.json").write_text(json.dumps({**PUBLISHED, **settings}))
    if file.endswith(".bin"):
        torch.save(weights, folder / file)
    else:
        save_file(weights, folder / file)
    return folder


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a GLM by the names of `OriginalGlmModel`, in the order of its layers.

    Args:
        config: with at least the sizes.
    """
    hidden = int(config["hidden_size"])
    positions = int(config["max_sequence_length"]) + 1
    shapes: dict[str, tuple[int, ...]] = {
        "word_embeddings.weight": (int(config["vocab_size"]), hidden),
        "transformer.position_embeddings.weight": (positions, hidden),
        "transformer.block_position_embeddings.weight": (positions, hidden),
    }
    of_layer = {
        "input_layernorm.weight": (hidden,),
        "input_layernorm.bias": (hidden,),
        "attention.query_key_value.weight": (3 * hidden, hidden),
        "attention.query_key_value.bias": (3 * hidden,),
        "attention.dense.weight": (hidden, hidden),
        "attention.dense.bias": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "post_attention_layernorm.bias": (hidden,),
        "mlp.dense_h_to_4h.weight": (4 * hidden, hidden),
        "mlp.dense_h_to_4h.bias": (4 * hidden,),
        "mlp.dense_4h_to_h.weight": (hidden, 4 * hidden),
        "mlp.dense_4h_to_h.bias": (hidden,),
    }
    for layer in range(int(config["num_layers"])):
        shapes |= {f"transformer.layers.{layer}.{name}": shape for name, shape in of_layer.items()}
    return shapes | {f"transformer.final_layernorm.{name}": (hidden,) for name in ("weight", "bias")}


@final
class OriginalGlmForCloze(OriginalGlmPreTrainedModel):
    """Logits of the vocabulary, by the word embeddings themselves."""

    def __init__(self, config: OriginalGlmConfig) -> None:
        super().__init__(config)
        self.glm = OriginalGlmModel(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        context_length: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Logits `[batch, length, vocab]`; arguments and errors as of `OriginalGlmModel.forward`."""
        output: BaseModelOutput = self.glm(
            input_ids, attention_mask, position_ids, context_length, inputs_embeds, return_dict=True, **kwargs
        )
        assert output.last_hidden_state is not None
        logits = F.linear(output.last_hidden_state, self.glm.word_embeddings.weight)
        return MaskedLMOutput(logits=logits, hidden_states=output.hidden_states, attentions=output.attentions)


def single_token_scores(logits: Tensor, positions: Tensor, verbalizer_ids: Tensor) -> Tensor:
    """Logits of answers that are one token each.

    Args:
        logits: `[batch, length, vocab]`.
        positions: `[batch]`, index whose logits predict the answer: that of `sop` in the original GLM.
        verbalizer_ids: `[classes]`, the token of each class, or `[batch, classes]` if rows have different ones.

    Returns:
        `[batch, classes]`, float32, not normalized.
    """
    rows = positions.view(-1, 1, 1).expand(-1, 1, logits.shape[-1])
    predicted = logits.gather(1, rows).squeeze(1)
    return predicted.gather(1, verbalizer_ids.expand(len(logits), -1)).float()


def multi_token_scores(logits: Tensor, target_ids: Tensor, scored_mask: Tensor, length_penalty: float = 0.0) -> Tensor:
    """Log-probabilities of answers of several tokens: the sum over their tokens.

    Only logits of scored tokens are normalized over the vocabulary, in float32.

    Args:
        logits: `[..., length, vocab]`, one row for each answer.
        target_ids: `[..., length]`, the token that each index should predict; anything where nothing is scored.
        scored_mask: `[..., length]`, not 0 where a token is scored.
        length_penalty: power of the number of scored tokens that the sum is divided by; 0: the plain sum, 1: the mean.

    Returns:
        `[...]`, float32; 0 for a row without a scored token.
    """
    scored = scored_mask.bool()
    sums = sums_of_scored(logits[scored].float(), target_ids[scored], scored)
    if length_penalty == 0:
        return sums
    return sums / scored.sum(dim=-1).clamp(min=1) ** length_penalty
