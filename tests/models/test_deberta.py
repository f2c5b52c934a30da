"""Deep prompts in tiny random DeBERTa models; the attention is checked against its formula, written out here."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.models.deberta.modeling_deberta import DisentangledSelfAttention as AttentionV1
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention as AttentionV2

from ptv2kit.errors import ConfigError
from ptv2kit.models import deberta
from ptv2kit.models.injection import AttentionLayer, Injection, LayerPrompt
from tests.models.deberta_formula import context_by_formula, project

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["c2p", "p2c"],
}
V3 = {"share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "v1": ("deberta", {}),
    "v1_short_span": ("deberta", {"max_relative_positions": 3}),
    "v1_positions": ("deberta", {"position_biased_input": True}),
    "v1_c2p": ("deberta", {"pos_att_type": ["c2p"]}),
    "v1_no_terms": ("deberta", {"pos_att_type": None}),
    "v1_not_relative": ("deberta", {"relative_attention": False}),
    "v1_talking_heads": ("deberta", {"talking_head": True}),
    "v2_bare": ("deberta-v2", {"position_buckets": -1}),
    "v2_positions": ("deberta-v2", {"position_biased_input": True, "position_buckets": 8}),
    "v2_shared_key": ("deberta-v2", {"share_att_key": True, "position_buckets": -1}),
    "v2_p2c": ("deberta-v2", {"pos_att_type": ["p2c"], "position_buckets": 8}),
    "v2_no_terms": ("deberta-v2", {"pos_att_type": None}),
    "v2_not_relative": ("deberta-v2", {"relative_attention": False}),
    "v2_convolution": ("deberta-v2", {**V3, "conv_kernel_size": 3, "conv_act": "gelu"}),
    "v3": ("deberta-v2", V3),
}
EVERY = pytest.mark.parametrize("name", CONFIGS)
RELEASED = pytest.mark.parametrize("name", ["v1", "v2_convolution", "v3"])
LENGTH = 4
"""Of the prompt."""


def make_config(name: str, **changes: Any) -> PretrainedConfig:
    model_type, settings = CONFIGS[name]
    return AutoConfig.for_model(model_type, **{**SIZES, **settings, **changes})


def make_plain(config: PretrainedConfig) -> PreTrainedModel:
    """A frozen model whose every parameter is random, biases and layer norms too."""
    torch.manual_seed(0)
    backbone: PreTrainedModel = AutoModel.from_config(config, attn_implementation="eager")
    for parameter in backbone.requires_grad_(False).parameters():
        parameter.normal_(std=0.4)
    return backbone.eval()


def make_adapted(config: PretrainedConfig) -> tuple[PreTrainedModel, Injection]:
    backbone = make_plain(config)
    deberta.adapt(backbone)
    return backbone, Injection(backbone, deberta.find_layers(config))


def make_prompts(length: int = LENGTH, batch: int = 1, dtype: torch.dtype = torch.float32) -> list[LayerPrompt]:
    generator = torch.Generator().manual_seed(1)
    heads = SIZES["num_attention_heads"]
    shape = (batch, heads, length, SIZES["hidden_size"] // heads)

    def part() -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    return [(part(), part()) for _ in range(SIZES["num_hidden_layers"])]


def make_inputs() -> dict[str, Tensor]:
    """Three rows, of 9, 5 and 2 tokens."""
    generator = torch.Generator().manual_seed(2)
    mask = (torch.arange(9) < torch.tensor([[9], [5], [2]])).long()
    return {"input_ids": torch.randint(1, 40, mask.shape, generator=generator) * mask, "attention_mask": mask}


def real(hidden: Tensor) -> Tensor:
    """The real tokens of what `make_inputs` gave, `[tokens, hidden]`."""
    return hidden[make_inputs()["attention_mask"].bool()]


def gradients(backbone: PreTrainedModel, prompts: list[LayerPrompt], **inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Last hidden state, and the gradients of a loss over its real tokens with respect to the prompts."""
    hidden = backbone(**inputs).last_hidden_state
    leaves = [part for prompt in prompts for part in prompt]
    return hidden, list(torch.autograd.grad(real(hidden).float().pow(2).mean(), leaves))


# --- which layers -----------------------------------------------------------------------------------------------------


@EVERY
def test_every_layer_is_found(name: str) -> None:
    assert deberta.find_layers(make_config(name)) == tuple(
        AttentionLayer(f"encoder.layer.{index}.attention.self", kv_heads=2, head_dim=8) for index in range(3)
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("v1", {"num_attention_heads": 3}),
        ("v3", {"num_attention_heads": 3}),
        ("v3", {"attention_head_size": 4}),
        ("v2_convolution", {"conv_kernel_size": 2}),
    ],
)
def test_a_configuration_that_cannot_be_computed_is_refused(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cannot be computed"):
        deberta.find_layers(make_config(name, **changes))


def test_another_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = make_plain(make_config("v3"))
    with monkeypatch.context() as patch:
        patch.delattr(AttentionV2, "disentangled_attention_bias")
        with pytest.raises(ConfigError, match="has no disentangled_attention_bias"):
            deberta.adapt(backbone)
    with monkeypatch.context() as patch:
        patch.setattr(AttentionV2, "forward", lambda self, hidden_states, **kwargs: None)
        with pytest.raises(ConfigError, match=r"takes \(self, hidden_states, kwargs\), not"):
            deberta.adapt(backbone)
    del backbone.encoder.layer[0].attention.self.pos_dropout
    with pytest.raises(ConfigError, match="has no pos_dropout"):
        deberta.adapt(backbone)
    backbone.encoder.layer[1].attention.self = nn.Identity()
    with pytest.raises(ConfigError, match="2 attention modules in 3 layers"):
        deberta.adapt(backbone)


# --- without a prompt -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("training", [False, True])
def test_without_a_prompt_nothing_changes(name: str, training: bool) -> None:
    config = make_config(name, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    plain = make_plain(config).train(training)
    adapted, _ = make_adapted(config)
    adapted.train(training)
    outputs = []
    for model in (plain, adapted):
        torch.manual_seed(3)
        outputs.append(model(**make_inputs(), output_hidden_states=True, output_attentions=True))
    expected, found = outputs
    assert all(torch.equal(one, other) for one, other in zip(expected.hidden_states, found.hidden_states, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(expected.attentions, found.attentions, strict=True))


@EVERY
def test_an_empty_prompt_changes_no_real_token(name: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    expected = backbone(**make_inputs()).last_hidden_state
    injection.set(make_prompts(length=0))
    torch.testing.assert_close(real(backbone(**make_inputs()).last_hidden_state), real(expected), atol=1e-5, rtol=1e-5)


def test_only_the_instance_is_adapted() -> None:
    classes = [(attention, attention.forward) for attention in (AttentionV1, AttentionV2)]
    for name in ("v1", "v3"):
        make_adapted(make_config(name))
        other = make_plain(make_config(name))
        assert "forward" not in vars(other.encoder.layer[0].attention.self)
    assert all(attention.forward is forward for attention, forward in classes)


# --- with a prompt ----------------------------------------------------------------------------------------------------


@EVERY
def test_every_prompt_is_trained_and_nothing_else(name: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    before = backbone(**make_inputs()).last_hidden_state
    prompts = make_prompts()
    injection.set(prompts)
    after, found = gradients(backbone, prompts, **make_inputs())
    assert (real(after) - real(before)).abs().max() > 0.1
    assert all(gradient.abs().max() > 1e-6 for gradient in found)
    assert all(parameter.grad is None for parameter in backbone.parameters())


@EVERY
def test_padding_is_never_seen(name: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    injection.set(make_prompts())
    inputs = make_inputs()
    batch = backbone(**inputs).last_hidden_state
    for row, length in enumerate(inputs["attention_mask"].sum(dim=1)):
        alone = backbone(input_ids=inputs["input_ids"][row : row + 1, :length]).last_hidden_state[0]
        torch.testing.assert_close(batch[row, :length], alone, atol=1e-5, rtol=1e-5)


@RELEASED
def test_prompts_of_a_batch_may_differ(name: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    prompts = make_prompts(batch=3)
    injection.set(prompts)
    batch = backbone(**make_inputs()).last_hidden_state
    for row in range(3):
        injection.set([(key[row : row + 1], value[row : row + 1]) for key, value in prompts])
        torch.testing.assert_close(backbone(**make_inputs()).last_hidden_state[row], batch[row], atol=1e-5, rtol=1e-5)


@EVERY
def test_recording_keeps_the_modules_own_keys_and_values(name: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    inputs = make_inputs()
    expected = backbone(**inputs).last_hidden_state
    with injection.recording() as recorded:
        assert torch.equal(backbone(**inputs).last_hidden_state, expected)
    hidden = backbone.embeddings(input_ids=inputs["input_ids"], mask=inputs["attention_mask"])
    _, key, value = project(backbone.encoder.layer[0].attention.self, hidden)
    torch.testing.assert_close(recorded[0], (key, value), atol=1e-5, rtol=1e-5)
    assert [part.shape for prompt in recorded for part in prompt] == [(3, 2, 9, 8)] * 6
    assert not any(part.requires_grad for prompt in recorded for part in prompt)


@RELEASED
def test_attention_weights_can_be_asked_for(name: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    injection.set(make_prompts())
    inputs = make_inputs()
    for weights in backbone(**inputs, output_attentions=True).attentions:
        assert weights.shape == (3, 2, 9, LENGTH + 9)
        rows = inputs["attention_mask"][:, None].expand(-1, 2, -1).float()
        torch.testing.assert_close(weights.sum(dim=-1), rows)
        assert (weights * (1 - F.pad(inputs["attention_mask"], (LENGTH, 0), value=1))[:, None, None]).abs().max() == 0


@RELEASED
def test_dropout_of_the_weights_stays(name: str) -> None:
    backbone, injection = make_adapted(make_config(name, attention_probs_dropout_prob=1.0))
    injection.set(make_prompts())
    attention, arguments = first_attention(backbone)
    assert attention(**arguments)[0].abs().max() > 0.1
    attention.train()
    assert attention(**arguments)[0].abs().max() == 0


@RELEASED
def test_a_copy_has_its_own_prompt(name: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    copied = copy.deepcopy(backbone)
    before = copied(**make_inputs()).last_hidden_state
    injection.set(make_prompts())
    assert torch.equal(copied(**make_inputs()).last_hidden_state, before)
    assert not torch.equal(backbone(**make_inputs()).last_hidden_state, before)


# --- how it is run ----------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradient_checkpointing_changes_nothing(name: str, dropout: float) -> None:
    config = make_config(name, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    backbone, injection = make_adapted(config)
    backbone.train()
    prompts = make_prompts()
    injection.set(prompts)
    torch.manual_seed(4)
    hidden, expected = gradients(backbone, prompts, **make_inputs())
    backbone.activation_checkpointing_enable({"use_reentrant": False})
    calls: list[nn.Module] = []
    backbone.encoder.layer[0].attention.self.register_forward_hook(lambda module, *_: calls.append(module))
    torch.manual_seed(4)
    checkpointed, found = gradients(backbone, prompts, **make_inputs())
    assert len(calls) == 2, "the layer was not computed again"
    torch.testing.assert_close(checkpointed, hidden, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@EVERY
def test_bf16_is_near_fp32(name: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    prompts = make_prompts()
    injection.set(prompts)
    hidden, expected = gradients(backbone, prompts, **make_inputs())
    backbone.to(torch.bfloat16)
    halved, found = gradients(backbone, prompts, **make_inputs())
    assert halved.dtype == torch.bfloat16
    assert (real(halved).float() - real(hidden)).norm() < 0.05 * real(hidden).norm()
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 0.2 * other.norm()


# v1 slices by a tensor, in transformers' own lines; dynamo breaks its graph there and then looks at gradients.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.night
@RELEASED
def test_it_compiles(name: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    prompts = make_prompts()
    injection.set(prompts)
    hidden, expected = gradients(backbone, prompts, **make_inputs())
    compiled, found = gradients(torch.compile(backbone, backend="aot_eager"), prompts, **make_inputs())
    torch.testing.assert_close(compiled, hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# --- the formula ------------------------------------------------------------------------------------------------------


def first_attention(backbone: PreTrainedModel) -> tuple[nn.Module, dict[str, Any]]:
    """The first attention module, and what to call it with: random hidden states, padded as in `make_inputs`."""
    mask = make_inputs()["attention_mask"]
    hidden = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(5)).to(backbone.dtype)
    encoder = backbone.encoder
    return encoder.layer[0].attention.self, {
        "hidden_states": hidden,
        "attention_mask": mask[:, None, :, None] * mask[:, None, None, :],
        "relative_pos": encoder.get_rel_pos(hidden),
        "rel_embeddings": encoder.get_rel_embedding(),
    }


def expected_context(
    backbone: PreTrainedModel, prompt: LayerPrompt, arguments: dict[str, Any], broken: Any = ""
) -> Tensor:
    lengths = make_inputs()["attention_mask"].sum(dim=1).tolist()
    return context_by_formula(
        backbone, prompt, arguments["hidden_states"], arguments["rel_embeddings"], lengths, broken
    )


@EVERY
def test_attention_equals_the_formula(name: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    backbone.double()
    prompts = make_prompts(dtype=torch.float64)
    injection.set(prompts)
    attention, arguments = first_attention(backbone)
    found, weights = attention(**arguments)
    assert weights is None
    # transformers keeps the scale in float32
    torch.testing.assert_close(found, expected_context(backbone, prompts[0], arguments), atol=1e-6, rtol=1e-6)
    padding = make_inputs()["attention_mask"] == 0
    assert found[padding].abs().max() == 0


@RELEASED
@pytest.mark.parametrize("broken", ["prompt_biased", "prompt_unscaled"])
def test_the_formula_tells_a_broken_rule(name: str, broken: str) -> None:
    backbone, injection = make_adapted(make_config(name))
    backbone.double()
    prompts = make_prompts(dtype=torch.float64)
    injection.set(prompts)
    attention, arguments = first_attention(backbone)
    difference = attention(**arguments)[0] - expected_context(backbone, prompts[0], arguments, broken)
    assert difference.abs().max() > 0.01


@RELEASED
def test_dropout_of_the_relative_embeddings_stays(name: str) -> None:
    backbone, injection = make_adapted(make_config(name, hidden_dropout_prob=1.0))
    backbone.double()
    prompts = make_prompts(dtype=torch.float64)
    injection.set(prompts)
    attention, arguments = first_attention(backbone)
    found, _ = attention.train()(**arguments)
    arguments["rel_embeddings"] = torch.zeros_like(arguments["rel_embeddings"])
    torch.testing.assert_close(found, expected_context(backbone, prompts[0], arguments), atol=1e-6, rtol=1e-6)
