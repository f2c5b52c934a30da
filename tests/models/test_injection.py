"""What the injected prompt does to a model, whatever the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModel

from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import BackboneSpec, find_backbone, load_backbone
from ptv2kit.models.families import family_of
from ptv2kit.models.heads import TokenHead
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import EmbeddingPrompt
from ptv2kit.spec.recipe import Backbone
from tests import tiny_backbones as families

LENGTH = 6
SIZES = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_attention_heads": 3,
    "num_hidden_layers": 3,
    "vocab_size": 60,
    "max_position_embeddings": 64,
}
TYPES = ["bert", "electra", "roberta", "xlm-roberta"]


def save_tiny(folder: Path, model_type: str, **settings: object) -> Path:
    """A tiny random backbone on disk."""
    config = AutoConfig.for_model(model_type, **{**SIZES, "pad_token_id": 1, **settings})
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def prompted(
    folder: Path, *, dropout: float = 0.0, shift: bool = True, dtype: Literal["fp32", "bf16"] = "fp32"
) -> tuple[PromptedModel, BackboneSpec]:
    spec = find_backbone(Backbone(name=str(folder), dtype=dtype))
    torch.manual_seed(1)
    prompt = EmbeddingPrompt(spec.layers, LENGTH, dropout, init_scale=1.0)
    head = TokenHead(SIZES["hidden_size"], 5, dropout=0.0)
    return PromptedModel(spec, load_backbone(spec), prompt, head, shift_positions=shift), spec


def batch_of(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 60, (len(lengths), max(lengths)), generator=generator)
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    return ids.masked_fill(mask == 0, 1), mask


@pytest.mark.parametrize("model_type", TYPES)
def test_a_padded_batch_equals_its_rows_alone(model_type: str, tmp_path: Path) -> None:
    model, _ = prompted(save_tiny(tmp_path, model_type))
    model.eval()
    ids, mask = batch_of(9, 4, 6)
    together = model(ids, mask)
    for row, length in enumerate((9, 4, 6)):
        alone = model(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", TYPES)
def test_gradients_reach_every_layer_and_nothing_of_the_backbone(model_type: str, tmp_path: Path) -> None:
    model, spec = prompted(save_tiny(tmp_path, model_type), dropout=0.1)
    ids, mask = batch_of(9, 4)
    model.train()(ids, mask).square().sum().backward()
    assert len(model.prompt.layers) == SIZES["num_hidden_layers"] == len(spec.layers)
    for parameter in model.prompt.layers:
        assert parameter.grad is not None
        keys, values = parameter.grad
        assert keys.abs().sum() > 0
        assert values.abs().sum() > 0
    assert all(not p.requires_grad and p.grad is None for p in model.backbone.parameters())


def test_every_layers_prompt_changes_the_logits(tmp_path: Path) -> None:
    model, _ = prompted(save_tiny(tmp_path, "bert"))
    model.eval()
    before = model(*batch_of(9, 4))
    for parameter in model.prompt.layers:
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.mul_(-1)
        assert (model(*batch_of(9, 4)) - before).abs().max() > 1e-3
        with torch.no_grad():
            parameter.copy_(kept)
    torch.testing.assert_close(model(*batch_of(9, 4)), before)


def test_without_prompts_the_backbone_is_untouched(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert")
    model, spec = prompted(folder)
    model.eval()
    model._injection.set(None)
    ids, mask = batch_of(9, 4)
    ours = model.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    stock = AutoModel.from_pretrained(folder).eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours[mask.bool()], stock[mask.bool()], atol=1e-5, rtol=1e-5)
    assert spec.layers[0].kv_heads == SIZES["num_attention_heads"]


def test_gradient_checkpointing_gives_the_same_gradients(tmp_path: Path) -> None:
    model, _ = prompted(save_tiny(tmp_path, "bert"))
    ids, mask = batch_of(9, 4)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(ids, mask).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.prompt.layers]

    model.eval()
    plain = gradients()
    model.backbone.activation_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        module.training = True
    for stock, ours in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(stock, ours, atol=1e-6, rtol=1e-6)


class AttentionTypes(TorchFunctionMode):
    """Keeps what scaled dot product attention is computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.seen.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_attention_in_bf16_has_its_gradients_in_fp32_on_a_processor(tmp_path: Path) -> None:
    """Its backward pass in bf16 is slower than in fp32 there; without gradients bf16 is the faster."""
    folder = save_tiny(tmp_path, "bert")
    exact, rough = prompted(folder)[0].eval(), prompted(folder, dtype="bf16")[0].eval()
    batch = batch_of(9, 4, 6)
    with torch.no_grad(), AttentionTypes() as without:
        rough(*batch)
    with AttentionTypes() as training:
        logits = rough(*batch)
    assert (without.seen, training.seen) == ({torch.bfloat16}, {torch.float32})
    wide = prompted(folder)[0].eval()
    wide.backbone.double()
    with AttentionTypes() as doubled:
        wide(*batch)
    assert doubled.seen == {torch.float64}, "only bf16 is widened"
    logits.square().sum().backward()
    exact(*batch).square().sum().backward()
    for found, expected in zip(rough.prompt.parameters(), exact.prompt.parameters(), strict=True):
        assert found.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(found.grad, expected.grad, rtol=0.1, atol=0.05 * float(expected.grad.abs().max()))


def test_each_example_has_its_own_prompt_dropout(tmp_path: Path) -> None:
    spec = find_backbone(Backbone(name=str(save_tiny(tmp_path, "bert"))))
    torch.manual_seed(0)
    prompt = EmbeddingPrompt(spec.layers, LENGTH, dropout=0.5, init_scale=1.0)
    key, value = prompt.train()(3)[0]
    assert key.shape == (3, 3, LENGTH, 8)
    dropped_keys, dropped_values = key == 0, value == 0
    assert not torch.equal(dropped_keys[0], dropped_keys[1])
    assert not torch.equal(dropped_keys[0], dropped_values[0])
    assert prompt.eval()(3)[0][0].shape == (1, 3, LENGTH, 8)


def test_positions_follow_the_official_code() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    for model_type, expected in {"bert": [[4, 5, 6], [4, 5, 6]], "roberta": [[6, 7, 8], [6, 7, 1]]}.items():
        positions = family_of(AutoConfig.for_model(model_type), "x").position_ids(mask, 4)
        assert positions is not None
        assert positions.tolist() == expected


def test_starting_from_tokens_makes_the_prompt_a_copy_of_them(tmp_path: Path) -> None:
    """A prompt of the keys and values of a text, unshifted, is as if that text had been read before without a trace."""
    model, _ = prompted(save_tiny(tmp_path, "bert"), shift=False)
    model.eval()
    ids, mask = batch_of(4, 3)
    model.start_prompt_from_tokens(ids, mask)
    with model._injection.recording() as recorded:
        model.backbone(input_ids=ids, attention_mask=mask)
    for parameter, (key, value) in zip(model.prompt.layers, recorded, strict=True):
        for part, own in zip(parameter, (key, value), strict=True):
            expected = torch.cat([own[0, :, :4], own[1, :, :2]], dim=1)
            torch.testing.assert_close(part, expected)


def test_a_model_type_that_is_not_supported_is_refused_by_name_before_weights_are_read(tmp_path: Path) -> None:
    AutoConfig.for_model("funnel").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no supported model of type 'funnel' can be made"):
        find_backbone(Backbone(name=str(tmp_path)))


@pytest.mark.parametrize(
    ("model_type", "settings", "message"),
    [
        ("nystromformer", {}, "'nystromformer' does not use transformers' attention interface"),
        ("falcon_mamba", {}, "'falcon_mamba' does not use transformers' attention interface"),
        ("layoutlm", {}, "'layoutlm' masks padding in a way of its own"),
        ("dpr", {}, "'dpr' gives no last hidden state"),
        (
            "diffllama",
            {"num_attention_heads": 2, "num_key_value_heads": 2},
            "'diffllama' shares one attention module between layers",
        ),
        ("bart", {}, "is an encoder-decoder"),
    ],
)
def test_what_a_prompt_cannot_be_put_into_is_refused_before_weights_are_read(
    model_type: str, settings: dict[str, int], message: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(model_type, **{**SIZES, **settings}).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=message):
        find_backbone(Backbone(name=str(tmp_path)))


@pytest.mark.parametrize("model_type", ["camembert", "esm", "gpt_oss", "opt", "qwen3_moe", "splinter"])
def test_model_types_that_are_on_no_list(model_type: str, tmp_path: Path) -> None:
    sizes = {**SIZES, "num_attention_heads": 4, "hidden_size": 32, "bos_token_id": 0, "eos_token_id": 2}
    experts = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
    extra: dict[str, dict[str, int]] = {
        "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
        "qwen3_moe": {"num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 16, **experts},
        "gpt_oss": {"num_key_value_heads": 2, "head_dim": 8, **experts},
    }
    save_tiny(tmp_path, model_type, **{**sizes, **extra.get(model_type, {})})
    spec = find_backbone(Backbone(name=str(tmp_path)))
    torch.manual_seed(1)
    assert spec.causal is (model_type in ("gpt_oss", "opt", "qwen3_moe"))
    prompt = EmbeddingPrompt(spec.layers, LENGTH, dropout=0.0, init_scale=1.0)
    head = TokenHead(32, 5, dropout=0.0)
    model = PromptedModel(spec, load_backbone(spec), prompt, head, shift_positions=spec.family.shifts).eval()
    ids, mask = batch_of(9, 4, 6)
    together = model(ids, mask)
    for row, length in enumerate((9, 4, 6)):
        alone = model(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, atol=1e-5, rtol=1e-5)
    together[mask.bool()].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in prompt.layers)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny(tmp_path, "bert")
    weights = load_file(folder / "model.safetensors")
    lost = "encoder.layer.1.attention.self.key.weight"
    save_file({name: w for name, w in weights.items() if name != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=f"lack 1 tensors, first '{lost}'"):
        load_backbone(find_backbone(Backbone(name=str(folder))))


def test_a_pooler_that_the_weights_lack_is_taken_out(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny(tmp_path, "bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: w for name, w in weights.items() if not name.startswith("pooler")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    model, _ = prompted(folder)
    assert model.encode(*batch_of(3, 2)).pooled is None


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # raised within PEFT
@pytest.mark.parametrize("family", ["bert", "electra", "gpt2", "llama", "qwen3", "mistral"])
def test_equals_pefts_prefix_tuning(family: str, tmp_path: Path) -> None:
    """PEFT shifts positions by the prompt's length; its prompt is [length, layers·2·kv_heads·head_dim], keys first."""
    from peft import PrefixTuningConfig, get_peft_model
    from transformers import AutoModelForTokenClassification

    # A sliding window would cut PEFT's prefix off; ours is always visible.
    settings = {"sliding_window": None} if family == "mistral" else {}
    folder = families.save_tiny(tmp_path, family, **settings)
    torch.manual_seed(0)
    stock = AutoModelForTokenClassification.from_pretrained(folder, num_labels=5)
    theirs = get_peft_model(stock, PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=LENGTH)).eval()
    spec = find_backbone(Backbone(name=str(folder)))
    prompt = EmbeddingPrompt(spec.layers, LENGTH, dropout=0.0, init_scale=1.0)
    head = TokenHead(spec.config.hidden_size, 5, dropout=0.0)
    ours = PromptedModel(spec, load_backbone(spec), prompt, head, shift_positions=True).eval()
    weight = theirs.prompt_encoder["default"].embedding.weight
    layer = spec.layers[0]
    per_layer = weight.view(LENGTH, len(spec.layers), 2, layer.kv_heads, layer.head_dim).permute(1, 2, 3, 0, 4)
    last = "classifier" if family in ("bert", "electra", "gpt2") else "score"
    classifier = theirs.base_model.get_submodule(last).modules_to_save["default"]
    ours.load_trained_state(
        {f"prompt.layers.{index}": tensor for index, tensor in enumerate(per_layer)}
        | {"head.linear.weight": classifier.weight, "head.linear.bias": classifier.bias}
    )
    ids, mask = batch_of(9, 4)
    ids = ids % 13
    real = mask.bool()
    logits = theirs(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(ours(ids, mask)[real], logits[real], atol=1e-5, rtol=1e-5)
