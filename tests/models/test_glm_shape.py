"""GLM's configuration, and its four published sizes on the meta device: names, shapes and number of parameters."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError

from ptv2kit.models.glm.configuration import OriginalGlmConfig, Size
from ptv2kit.models.glm.modeling import OriginalGlmModel
from tests.models.glm_folders import OriginalGlmForCloze

MILLIONS: dict[Size, float] = {"base": 109.3, "large": 334.7, "2B": 1920, "10B": 9881}
LAYERS: dict[Size, int] = {"2B": 36, "10B": 48}
PUBLISHED: dict[str, Any] = {
    "model_type": "glm",
    "num_layers": 36,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "vocab_size": 50304,
    "max_sequence_length": 1024,
    "block_position_encoding": True,
    "relative_encoding": False,
    "parallel_output": True,
    "checkpoint_num_layers": 1,
    "output_predict": True,
    "pool_token": "cls",
    "spell_func": "lstm",
    "spell_length": None,
}
"""As the published 2B model has it."""


def published_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """What the checkpoints hold, spelled out apart from the package."""
    hidden = {"2B": 2048, "10B": 4096}[size]
    shapes = {
        "word_embeddings.weight": (50304, hidden),
        "transformer.position_embeddings.weight": (1025, hidden),
        "transformer.block_position_embeddings.weight": (1025, hidden),
        "transformer.final_layernorm.weight": (hidden,),
        "transformer.final_layernorm.bias": (hidden,),
    }
    for index in range(LAYERS[size]):
        for name, rows, columns in (
            ("attention.query_key_value", 3 * hidden, hidden),
            ("attention.dense", hidden, hidden),
            ("mlp.dense_h_to_4h", 4 * hidden, hidden),
            ("mlp.dense_4h_to_h", hidden, 4 * hidden),
        ):
            shapes[f"transformer.layers.{index}.{name}.weight"] = (rows, columns)
            shapes[f"transformer.layers.{index}.{name}.bias"] = (rows,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"transformer.layers.{index}.{name}.weight"] = (hidden,)
            shapes[f"transformer.layers.{index}.{name}.bias"] = (hidden,)
    return shapes


def on_meta(size: Size) -> OriginalGlmModel:
    with torch.device("meta"):
        return OriginalGlmModel(OriginalGlmConfig.of_size(size))


@pytest.mark.parametrize("size", get_args(Size))
def test_the_number_of_parameters_is_that_of_the_paper(size: Size) -> None:
    count = sum(parameter.numel() for parameter in on_meta(size).parameters())
    assert float(f"{count / 1e6:.4g}") == MILLIONS[size]


@pytest.mark.parametrize("size", list(LAYERS))
def test_names_and_shapes_are_those_of_the_checkpoints(size: Size) -> None:
    state = on_meta(size).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == published_shapes(size)


def test_the_cloze_model_adds_nothing_but_a_prefix() -> None:
    config = OriginalGlmConfig.of_size("2B")
    with torch.device("meta"):
        cloze = OriginalGlmForCloze(config)
    assert {name.removeprefix("glm.") for name in cloze.state_dict()} == set(published_shapes("2B"))
    assert all(name.startswith("glm.") for name in cloze.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("size", get_args(Size))
def test_a_forward_pass_has_the_right_shape(size: Size) -> None:
    model = on_meta(size).eval()
    ids = torch.zeros(2, 7, dtype=torch.long, device="meta")
    positions = torch.zeros(2, 2, 7, dtype=torch.long, device="meta")
    hidden = model(ids, torch.ones_like(ids), positions, torch.ones(2, dtype=torch.long, device="meta"))[0]
    assert hidden.shape == (2, 7, model.config.hidden_size)


def test_a_published_configuration_is_understood() -> None:
    config = OriginalGlmConfig(**{name: value for name, value in PUBLISHED.items() if name != "model_type"})
    assert (config.num_hidden_layers, config.max_position_embeddings, config.layer_norm_eps) == (36, 1024, 1e-5)
    assert config.hidden_act == "gelu_pytorch_tanh"
    assert json.loads(config.to_json_string())["model_type"] == "original_glm"
    assert OriginalGlmConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"relative_encoding": True}, "relative_encoding is on"),
        ({"spell_length": 9}, "spell_length is set"),
        ({"block_position_encoding": False}, "block_position_encoding is off"),
        ({"num_attention_heads": 5}, "must divide hidden_size. Got 5 and 24"),
        ({"hidden_act": "relu"}, "one of gelu_pytorch_tanh, gelu. Got 'relu'"),
    ],
)
def test_a_configuration_of_what_is_not_implemented_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OriginalGlmConfig(hidden_size=24, **{"num_attention_heads": 3, **wrong})


def test_a_setting_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(StrictDataclassFieldValidationError, match="num_layers"):
        OriginalGlmConfig(num_layers="3")
