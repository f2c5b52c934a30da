"""The original GLM as a model of transformers, on a tiny random one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, GlmConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ptv2kit.models import glm, injection
from ptv2kit.models.glm.configuration import OriginalGlmConfig
from ptv2kit.models.glm.modeling import OriginalGlmModel, attention_plan
from ptv2kit.models.injection import Injection, find_attention
from ptv2kit.models.input_prompts import Encoder, InputPrompt
from tests.models.glm_folders import OriginalGlmForCloze, multi_token_scores, single_token_scores

DROPOUTS = ("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob")
TINY: dict[str, Any] = {
    "num_layers": 3,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "vocab_size": 60,
    "max_sequence_length": 32,
    "pad_token_id": 0,
    "eos_token_id": 0,
    # Larger than in earnest, so that attention is far from even.
    "initializer_range": 0.2,
    **dict.fromkeys(DROPOUTS, 0.0),
}


def tiny(implementation: str = "sdpa", kind: type[PreTrainedModel] = OriginalGlmModel, **settings: Any) -> Any:
    """A model that is the same each time but for what is asked for."""
    config = OriginalGlmConfig(**{**TINY, **settings})
    config._attn_implementation = implementation
    torch.manual_seed(0)
    return kind(config).eval()


def batch(*lengths: int) -> dict[str, Tensor]:
    """Inputs with answers of three tokens, padded on the right."""
    generator = torch.Generator().manual_seed(3)
    longest = max(lengths)
    ids = torch.randint(1, 60, (len(lengths), longest), generator=generator)
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    context = torch.tensor(lengths) - 3
    index = torch.arange(longest).expand(len(lengths), -1)
    in_answer = (index >= context[:, None]) & mask.bool()
    positions = torch.stack([index.where(~in_answer, 1), (index - context[:, None] + 1).where(in_answer, 0)], dim=1)
    return {"input_ids": ids * mask, "attention_mask": mask, "position_ids": positions, "context_length": context}


def without_context(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in inputs.items() if name != "context_length"}


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("with_context", [True, False])
def test_sdpa_equals_eager(with_context: bool) -> None:
    inputs = batch(9, 6, 4) if with_context else without_context(batch(9, 6, 4))
    real = inputs["attention_mask"].bool()
    sdpa, eager = (tiny(name)(**inputs).last_hidden_state for name in ("sdpa", "eager"))
    assert_close(sdpa[real], eager[real])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("with_context", [True, False])
def test_a_padded_batch_equals_its_rows_alone(implementation: str, with_context: bool) -> None:
    lengths = (9, 4, 6)
    inputs = batch(*lengths) if with_context else without_context(batch(*lengths))
    model = tiny(implementation)
    together = model(**inputs).last_hidden_state
    for row, length in enumerate(lengths):
        alone = {
            name: tensor[row : row + 1] if name == "context_length" else tensor[row : row + 1, ..., :length]
            for name, tensor in inputs.items()
        }
        assert_close(together[row : row + 1, :length], model(**alone).last_hidden_state)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_context_sees_itself_and_the_answer_what_is_before_it(implementation: str) -> None:
    """`visible[i, j]`: whether the hidden state of token i depends on token j."""
    model = tiny(implementation)
    inputs = batch(7)
    embeds = model.get_input_embeddings()(inputs.pop("input_ids")).requires_grad_()
    for context, expected in (
        (4, torch.ones(7, 7).tril().bool() | (torch.arange(7) < 4)),
        (None, torch.ones(7, 7).bool()),
    ):
        length = None if context is None else torch.tensor([context])
        hidden = model(inputs_embeds=embeds, **{**inputs, "context_length": length}).last_hidden_state
        rows = [torch.autograd.grad(hidden[0, i].square().sum(), embeds, retain_graph=True)[0][0] for i in range(7)]
        assert torch.equal(torch.stack(rows).abs().sum(-1) > 0, expected)


def test_positions_are_counted_from_zero_unless_given() -> None:
    model = tiny()
    inputs = without_context(batch(6, 6))
    counted = torch.stack([torch.arange(6), torch.zeros(6, dtype=torch.long)]).expand(2, -1, -1)
    given = inputs.pop("position_ids")
    assert torch.equal(model(**inputs)[0], model(**inputs, position_ids=counted)[0])
    for row in range(2):
        changed = given.clone()
        changed[:, row] += 1
        assert (model(**inputs, position_ids=changed)[0] - model(**inputs, position_ids=given)[0]).abs().max() > 1e-3


def test_inputs_embeds_equal_input_ids() -> None:
    model = tiny()
    inputs = batch(9, 4)
    expected = model(**inputs).last_hidden_state
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.equal(model(**inputs, inputs_embeds=embeds).last_hidden_state, expected)


@pytest.mark.parametrize("kind", [OriginalGlmModel, OriginalGlmForCloze])
def test_input_embeddings_can_be_replaced(kind: type[PreTrainedModel]) -> None:
    model = tiny(kind=kind)
    new = nn.Embedding(70, 24)
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is new
    assert model.base_model.word_embeddings is new


@pytest.mark.parametrize("kind", [OriginalGlmModel, OriginalGlmForCloze])
def test_hidden_states_and_attentions_are_given_when_asked_for(kind: type[PreTrainedModel]) -> None:
    inputs = batch(9, 4)
    model = tiny("eager", kind)
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in output.hidden_states] == [(2, 9, 24)] * 4
    assert [weights.shape for weights in output.attentions] == [(2, 3, 9, 9)] * 3
    assert_close(output.hidden_states[-1], model.base_model(**inputs).last_hidden_state)
    layers = model.base_model.transformer.layers
    mask = torch.ones(9, 9).tril().bool() | (torch.arange(9) < inputs["context_length"][:, None, None])
    mask = (mask & inputs["attention_mask"][:, None].bool())[:, None]
    assert_close(layers[1](output.hidden_states[1], mask), output.hidden_states[2])
    assert model(**inputs).hidden_states is None
    assert isinstance(model(**inputs, return_dict=False), tuple)


def test_logits_are_tied_to_the_word_embeddings() -> None:
    model = tiny(kind=OriginalGlmForCloze)
    inputs = batch(9, 4)
    hidden = model.glm(**inputs).last_hidden_state
    assert_close(model(**inputs).logits, hidden @ model.get_input_embeddings().weight.T)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    inputs = batch(9, 4)
    calls: list[int] = []

    def gradients(model: Any) -> dict[str, Tensor]:
        for layer in model.transformer.layers:
            layer.attention.register_forward_hook(lambda module, *_: calls.append(module.layer_idx))
        model.train()(**inputs).last_hidden_state.square().sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    plain = gradients(tiny())
    assert calls == [0, 1, 2]
    model = tiny()
    model.activation_checkpointing_enable({"use_reentrant": False})
    checkpointed = gradients(model)
    assert calls == [0, 1, 2, 0, 1, 2, 2, 1, 0]
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert_close(checkpointed[name], gradient, 1e-6)


@pytest.mark.parametrize("which", DROPOUTS)
def test_each_dropout_acts_while_training_only(which: str) -> None:
    inputs = batch(9, 4)
    for implementation in ("sdpa", "eager"):
        model = tiny(implementation, **{which: 0.5})
        assert_close(model(**inputs)[0], tiny(implementation)(**inputs)[0])
        model.train()
        assert (model(**inputs)[0] - model(**inputs)[0]).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["embedding_dropout", "layers.1.attention.output_dropout", "layers.1.mlp.dropout"])
def test_no_place_of_dropout_is_left_out(name: str) -> None:
    model = tiny().train()
    inputs = batch(9, 4)
    assert torch.equal(model(**inputs)[0], model(**inputs)[0])
    model.transformer.get_submodule(name).p = 0.5
    assert (model(**inputs)[0] - model(**inputs)[0]).abs().max() > 1e-2


def test_bfloat16_is_near() -> None:
    inputs = batch(9, 4)
    exact = tiny(kind=OriginalGlmForCloze)(**inputs).logits
    rough = tiny(kind=OriginalGlmForCloze).bfloat16()(**inputs).logits
    assert rough.dtype == torch.bfloat16
    assert rough.isfinite().all()
    assert (rough - exact).norm() / exact.norm() < 0.02


@pytest.mark.night
@pytest.mark.parametrize("with_context", [True, False])
def test_it_compiles_in_one_graph(with_context: bool) -> None:
    inputs = batch(9, 4) if with_context else without_context(batch(9, 4))
    model = tiny(kind=OriginalGlmForCloze)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_close(compiled(**inputs).logits, model(**inputs).logits)


def test_flash_attention_gets_the_padding_mask_and_no_triangle(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = batch(9, 4)
    given: list[Tensor] = []

    def flash(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **_: Any
    ) -> tuple[Tensor, None]:
        assert module.is_causal is False
        given.append(mask)
        return query.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", flash)
    model = tiny()
    model.config._attn_implementation = "flash_attention_2"
    model(**without_context(inputs))
    assert all(torch.equal(mask, inputs["attention_mask"].bool()) for mask in given)
    assert len(given) == 3
    pairs = torch.ones(2, 1, 9, 9, dtype=torch.bool)
    for asked in (inputs, {"input_ids": inputs["input_ids"], "attention_mask": pairs}):
        with pytest.raises(ValueError, match="'flash_attention_2' masks padding only"):
            model(**asked)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"past_key_values": ()}, "takes no past_key_values"),
        ({"is_causal": True}, "takes no is_causal"),
        ({"inputs_embeds": torch.zeros(2, 9, 24)}, "either input_ids or inputs_embeds"),
        ({"position_ids": torch.zeros(2, 9, dtype=torch.long)}, r"shape \(2, 2, 9\). Got \(2, 9\)"),
        ({"attention_mask": torch.ones(2, 1, 9, 9)}, "boolean and without context_length"),
        ({"attention_mask": torch.ones(2, 1, 9, 9).bool()}, "boolean and without context_length"),
    ],
)
def test_what_it_cannot_do_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny()(**{**batch(9, 4), **wrong})


def test_prompts_change_the_output_and_get_gradients_in_all_layers() -> None:
    glm.register()
    injection.register()
    plan = find_attention(OriginalGlmConfig(**TINY))
    assert (plan.causal, plan.kernels, plan.checkpoints) == (False, ("sdpa", "eager"), True)
    assert [(layer.kv_heads, layer.head_dim) for layer in plan.layers] == [(3, 8)] * 3
    for kernel in plan.kernels:
        model = tiny(injection.IMPLEMENTATION).requires_grad_(False)
        slots = Injection(model, plan.layers, kernel)
        for inputs in (batch(9, 4), without_context(batch(9, 4)), without_context(batch(6, 6))):
            slots.set(None)
            before = model(**inputs).last_hidden_state
            real = inputs["attention_mask"].bool()
            assert_close(before[real], tiny()(**inputs).last_hidden_state[real])
            prompts = [(torch.randn(1, 3, 5, 8), torch.randn(1, 3, 5, 8)) for _ in plan.layers]
            slots.set([(key.requires_grad_(), value.requires_grad_()) for key, value in prompts])
            after = model(**inputs).last_hidden_state
            assert (after - before)[real].abs().max() > 1e-2
            after.square().sum().backward()
            assert all(part.grad is not None and part.grad.abs().sum() > 0 for pair in prompts for part in pair)


def test_it_starts_as_the_official_code_does() -> None:
    model = tiny(hidden_size=240, num_layers=8)
    for name, parameter in model.named_parameters():
        if "layernorm" in name or name.endswith("bias"):
            assert torch.equal(parameter, torch.full_like(parameter, name.endswith("layernorm.weight")))
        else:
            residual = name.endswith(("attention.dense.weight", "mlp.dense_4h_to_h.weight"))
            expected = 0.2 / math.sqrt(16) if residual else 0.2
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
    assert model.word_embeddings.weight[0].std() > 0.1


@pytest.mark.parametrize("kind", [OriginalGlmModel, OriginalGlmForCloze])
def test_what_was_saved_is_loaded(kind: type[PreTrainedModel], tmp_path: Path) -> None:
    glm.register()
    glm.register()
    model = tiny(kind=kind, hidden_act="gelu")
    model.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    inputs = batch(9, 4)
    assert torch.equal(loaded(**inputs)[0], model(**inputs)[0])
    found, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(found, OriginalGlmModel)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), OriginalGlmConfig)
    assert not any(info.values())
    assert torch.equal(found(**inputs)[0], model.base_model(**inputs)[0])
    assert isinstance(AutoConfig.for_model("glm"), GlmConfig)


@pytest.mark.parametrize("kind", [OriginalGlmModel, OriginalGlmForCloze])
@pytest.mark.parametrize("prefix", ["", "glm."])
@pytest.mark.parametrize("prefix_of_extras", ["", "glm."])
def test_files_with_and_without_prefix_and_classifier_are_loaded(
    kind: type[PreTrainedModel], prefix: str, prefix_of_extras: str, tmp_path: Path
) -> None:
    model = tiny()
    model.config.save_pretrained(tmp_path)
    tensors = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    for layer in ("dense", "out_proj"):
        tensors[f"{prefix_of_extras}{layer}.weight"] = torch.zeros(24, 24)
        tensors[f"{prefix_of_extras}{layer}.bias"] = torch.zeros(24)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    inputs = batch(9, 4)
    assert torch.equal(loaded.base_model(**inputs)[0], model(**inputs)[0])


def test_other_tensors_are_unexpected(tmp_path: Path) -> None:
    model = tiny()
    model.config.save_pretrained(tmp_path)
    names = ("pooler.dense.weight", "dense.scale", "lm_head.weight")
    tensors = {**model.state_dict(), **{name: torch.zeros(2) for name in names}}
    del tensors["transformer.layers.1.attention.dense.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, info = OriginalGlmModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["unexpected_keys"] == set(names)
    assert info["missing_keys"] == {"transformer.layers.1.attention.dense.bias"}


def test_the_two_forms_of_gelu_differ() -> None:
    inputs = batch(9, 4)
    difference = (tiny()(**inputs)[0] - tiny(hidden_act="gelu")(**inputs)[0]).abs().max()
    assert 0 < difference < 0.01


def test_single_token_scores_are_gathered_at_the_answers_place() -> None:
    logits = torch.randn(3, 5, 11)
    positions = torch.tensor([4, 0, 2])
    ids = torch.tensor([[7, 1], [2, 3], [10, 0]])
    scores = single_token_scores(logits, positions, ids)
    assert scores.tolist() == [[logits[i, positions[i], j].item() for j in ids[i]] for i in range(3)]
    shared = single_token_scores(logits.bfloat16(), positions, ids[0])
    assert shared.dtype == torch.float32
    assert_close(shared[:, 1], logits[torch.arange(3), positions, 1], 0.01)


@pytest.mark.parametrize(("penalty", "divisor"), [(0.0, 1.0), (1.0, 3.0), (0.5, math.sqrt(3))])
def test_multi_token_scores_sum_the_log_probabilities_of_answers(penalty: float, divisor: float) -> None:
    logits = torch.randn(2, 2, 5, 11, requires_grad=True)
    targets = torch.randint(0, 11, (2, 2, 5))
    mask = torch.tensor([0, 1, 1, 1, 0]).repeat(2, 2, 1)
    mask[1, 1] = 0
    scores = multi_token_scores(logits, targets, mask, penalty)
    log_probabilities = F.log_softmax(logits, dim=-1).gather(-1, targets[..., None])[..., 0]
    assert_close(scores, (log_probabilities * mask).sum(-1) / divisor)
    assert scores[1, 1] == 0
    scores.sum().backward()
    assert (logits.grad.abs().sum(-1) > 0).equal(mask.bool())


@pytest.mark.parametrize("encoder", ["none", "mlp", "lstm"])
def test_an_input_prompt_trains_all_its_parameters(encoder: Encoder) -> None:
    prompt = InputPrompt(6, 8, encoder)
    vectors = prompt()
    assert vectors.shape == (6, 8)
    vectors.square().sum().backward()
    assert {name.partition(".")[0] for name, _ in prompt.named_parameters()} == {
        "none": {"embedding"},
        "mlp": {"embedding", "mlp"},
        "lstm": {"embedding", "lstm", "mlp"},
    }[encoder]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in prompt.parameters())


def test_the_attention_is_known_without_a_pass() -> None:
    config = OriginalGlmConfig(**TINY)
    glm.register()
    assert attention_plan(config) == find_attention(config)


def test_a_classifiers_positions_are_those_of_the_official_encoder(shared: Path) -> None:
    """They are left to the model, which gives the same for the golden ones."""
    golden = json.loads((shared / "parity" / "glm" / "tokenization.json").read_text())
    model = OriginalGlmModel(OriginalGlmConfig(**{**TINY, "max_sequence_length": 512})).eval()
    checked = 0
    for row in golden["classifier"]:
        several = isinstance(row["input_ids"][0], list)
        for ids, positions in zip(
            *((row[name] if several else [row[name]]) for name in ("input_ids", "position_ids")), strict=True
        ):
            inputs = torch.tensor([ids]) % model.config.vocab_size
            with torch.no_grad():
                expected = model(input_ids=inputs, position_ids=torch.tensor([positions])).last_hidden_state
                assert_close(model(input_ids=inputs).last_hidden_state, expected)
            checked += 1
    assert checked
