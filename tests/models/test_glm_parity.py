"""The original GLM equals the official code: every golden number of ../shared/parity/glm."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ptv2kit.models import glm, injection
from ptv2kit.models.glm.configuration import OriginalGlmConfig
from ptv2kit.models.injection import Injection, Kernel, LayerPrompt, find_attention
from ptv2kit.models.input_prompts import Encoder, InputPrompt
from tests.models.glm_folders import OriginalGlmForCloze, multi_token_scores, single_token_scores

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
ACTIVATIONS = {"tanh": "gelu_pytorch_tanh", "erf": "gelu"}
METHODS = ("plain", "prefix_kv", "prefix_mems")
SOFT: dict[str, str] = {"spell_embeddings": "embedding", "lstm_head": "lstm", "mlp_head": "mlp"}
"""Modules of the official prompt, and their names in ours."""

Numbers = dict[str, Tensor]


@pytest.fixture(scope="module")
def parity(shared: Path) -> Path:
    return shared / "parity" / "glm"


@pytest.fixture(scope="module")
def manifest(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "manifest.json").read_text())


@pytest.fixture(scope="module")
def inputs(parity: Path) -> Numbers:
    return load_file(parity / "inputs.safetensors")


@pytest.fixture(scope="module")
def prefixes(parity: Path) -> Numbers:
    return load_file(parity / "prefix.safetensors")


@pytest.fixture(params=list(ACTIVATIONS))
def activation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["sdpa", "eager"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return request.param


@pytest.fixture
def golden(parity: Path, activation: str) -> Numbers:
    return load_file(parity / f"outputs_{activation}.safetensors")


@pytest.fixture
def model(manifest: dict[str, Any], parity: Path, activation: str) -> OriginalGlmForCloze:
    """The golden weights, without dropout."""
    glm.register()
    injection.register()
    names = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size", "max_sequence_length")
    ids = {"pad_token_id": manifest["special_ids"]["pad"], "eos_token_id": manifest["special_ids"]["eos"]}
    config = OriginalGlmConfig(
        **{name: manifest["config"][name] for name in names}, **ids, hidden_act=ACTIVATIONS[activation]
    )
    config._attn_implementation = injection.IMPLEMENTATION
    cloze = OriginalGlmForCloze(config)
    cloze.glm.load_state_dict(load_file(parity / "weights.safetensors"))
    return cloze.eval().requires_grad_(False)


def inject(model: OriginalGlmForCloze, kernel: Kernel = "sdpa") -> Injection:
    """Slots for prompts; the copy, because finding the layers changes which attention a configuration names."""
    return Injection(model.glm, find_attention(copy.deepcopy(model.config)).layers, kernel)


class Official:
    """All that the official code computed for one way of prompting, computed by ours.

    Args:
        model: with slots for prompts.
        inputs: golden inputs.
        heads: golden weights of the classifier.
        prompts: makes the keys and values of all layers from `leaf`; None: no prompt.
        leaf: what gradients are taken of.
        kernel: what computes the attention.
    """

    def __init__(
        self,
        model: OriginalGlmForCloze,
        inputs: Numbers,
        heads: Numbers,
        prompts: Callable[[Tensor], list[LayerPrompt]] | None,
        leaf: Tensor | None,
        kernel: Kernel,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.heads = heads
        self.prompts = prompts
        self.leaf = leaf
        self.injection = inject(model, kernel)
        self.numbers: Numbers = {}

    def run(self, name: str, context_length: Tensor | None = None, **kwargs: Tensor) -> tuple[Tensor, Tensor]:
        """Last hidden state and logits of the input `name`; choices stand one after the other."""
        self.injection.set(None if self.prompts is None else self.prompts(self.leaf))
        ids, positions = self.inputs[f"{name}.input_ids"], self.inputs[f"{name}.position_ids"]
        if not kwargs and context_length is None:
            context_length = self.inputs[f"{name}.sep"].flatten()
        output = self.model(
            ids.flatten(0, -2),
            position_ids=positions.flatten(0, -3),
            context_length=context_length,
            output_hidden_states=True,
            **kwargs,
        )
        return output.hidden_states[-1], output.logits

    def record(self, name: str, loss: Tensor, logits: Tensor | None = None, *, gradient: bool = True) -> None:
        """Keep a loss with its logits, and the gradient of the prompt."""
        self.numbers[f"{name}_loss"] = loss.detach()
        if logits is not None:
            self.numbers[f"{name}_logits"] = logits.detach()
        if self.leaf is not None and gradient:
            self.leaf.grad = None
            loss.backward()
            assert self.leaf.grad is not None
            self.numbers[f"{name}_grad_prefix"] = self.leaf.grad

    def hidden_states(self) -> None:
        hidden, _ = self.run("cls")
        self.numbers["cls_last_hidden"] = hidden.detach()
        real = self.inputs["cls.padding_mask"]
        weighted = hidden * self.inputs["cls.loss_weight"] * real[..., None]
        self.record("cls", weighted.sum() / real.sum())

    def language_model(self) -> None:
        hidden, logits = self.run("lm")
        self.numbers["lm_last_hidden"] = hidden.detach()
        mask = self.inputs["lm.loss_mask"].bool()
        self.record("lm", F.cross_entropy(logits[mask], self.inputs["lm.target_ids"][mask]), logits)

    def cloze(self) -> None:
        _, logits = self.run("single_token")
        scores = single_token_scores(
            logits, self.inputs["single_token.sep"], self.inputs["single_token.verbalizer_ids"]
        )
        self.record("single_token", F.cross_entropy(scores, self.inputs["labels"]), scores)
        for name in ("multi_token", "multi_token_eop"):
            for penalty in (0.0, 1.0):
                targets, mask = self.inputs[f"{name}.target_ids"], self.inputs[f"{name}.loss_mask"]
                _, logits = self.run(name)
                scores = multi_token_scores(logits.unflatten(0, targets.shape[:2]), targets, mask, penalty)
                loss = F.cross_entropy(scores, self.inputs["labels"])
                self.record(name + ("_lenpen1" if penalty else ""), loss, scores, gradient=penalty == 0)

    def classification(self) -> None:
        """dense → tanh → linear over one token; the gradients of the head only where it reads the first."""
        for pool, name in (("cls", "cls"), ("pad", "cls"), ("start", "single_token")):
            dense, linear = nn.Linear(32, 32), nn.Linear(32, 3)
            for layer, own in ((dense, "pool_layer"), (linear, "multichoice_head")):
                layer.load_state_dict({part: self.heads[f"{own}.{part}"] for part in ("weight", "bias")})
            hidden, _ = self.run(name)
            sep = self.inputs[f"{name}.sep"]
            index = {"cls": torch.zeros_like(sep), "pad": sep - 1, "start": sep}[pool]
            logits = linear(torch.tanh(dense(hidden[torch.arange(len(sep)), index])))
            loss = F.cross_entropy(logits, self.inputs["labels"])
            if self.leaf is None:
                loss.backward()
            self.record(f"seqcls_{pool}", loss, logits)
            if pool == "cls":
                for layer, own in ((dense, "pool_layer"), (linear, "multichoice_head")):
                    for part, parameter in layer.named_parameters():
                        self.numbers[f"seqcls_cls_grad.{own}.{part}"] = parameter.grad

    def causal(self) -> None:
        """What the published remote code computes without a mask."""
        hidden, _ = self.run("cls", context_length=torch.zeros(3, dtype=torch.long))
        self.numbers["hf_mask_none_last_hidden"] = hidden.detach()


@pytest.fixture
def official(
    request: pytest.FixtureRequest,
    model: OriginalGlmForCloze,
    inputs: Numbers,
    prefixes: Numbers,
    parity: Path,
    kernel: Kernel,
) -> Official:
    heads = load_file(parity / "heads.safetensors")
    if request.param == "plain":
        return Official(model, inputs, heads, None, None, kernel)
    leaf = prefixes[request.param].clone().requires_grad_()

    def keys_and_values(prefix: Tensor) -> list[LayerPrompt]:
        return [(layer[0].unsqueeze(0), layer[1].unsqueeze(0)) for layer in prefix]

    def projected_memory(memory: Tensor) -> list[LayerPrompt]:
        prompts: list[LayerPrompt] = []
        for layer, states in zip(model.glm.transformer.layers, memory, strict=True):
            _, key, value = layer.attention.query_key_value(layer.input_layernorm(states)).chunk(3, dim=-1)
            heads = (part.unflatten(-1, (-1, layer.attention.head_dim)).transpose(0, 1)[None] for part in (key, value))
            prompts.append(tuple(heads))
        return prompts

    prompts = keys_and_values if request.param == "prefix_kv" else projected_memory
    return Official(model, inputs, heads, prompts, leaf, kernel)


def assert_equal(ours: Numbers, golden: Numbers) -> None:
    assert ours.keys() == golden.keys()
    for name, tensor in golden.items():
        torch.testing.assert_close(ours[name], tensor, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


def those_of(golden: Numbers, method: str) -> Numbers:
    return {name.removeprefix(f"{method}."): tensor for name, tensor in golden.items() if name.startswith(f"{method}.")}


@pytest.mark.parametrize("official", METHODS, indirect=True, ids=METHODS)
def test_every_number_equals_the_official_one(
    official: Official, golden: Numbers, request: pytest.FixtureRequest
) -> None:
    method = request.node.callspec.params["official"]
    official.hidden_states()
    official.language_model()
    official.cloze()
    if method != "prefix_mems":
        official.classification()
    if method == "plain":
        official.causal()
    assert_equal(official.numbers, those_of(golden, method))


@pytest.mark.parametrize("encoder", ["none", "mlp", "lstm"])
def test_a_soft_prompt_equals_the_official_one(
    encoder: Encoder, model: OriginalGlmForCloze, inputs: Numbers, prefixes: Numbers, golden: Numbers
) -> None:
    def own_names(tensors: Numbers) -> Numbers:
        parts = ((name.removeprefix("prompt_spell.").partition("."), tensor) for name, tensor in tensors.items())
        return {f"{SOFT[module]}.{name}": tensor for (module, _, name), tensor in parts}

    prompt = InputPrompt(5, 32, encoder)
    prompt.load_state_dict(own_names(those_of(prefixes, f"soft.{encoder}")))
    ids = inputs["soft_prompt.input_ids"]
    vectors = prompt()
    rows = torch.arange(len(ids)).unsqueeze(1)
    embeds = model.get_input_embeddings()(ids).index_put((rows, inputs["soft_prompt.prompt_pos"]), vectors)
    inject(model)
    sep = inputs["soft_prompt.sep"]
    output = model(
        inputs_embeds=embeds,
        position_ids=inputs["soft_prompt.position_ids"],
        context_length=sep,
        output_hidden_states=True,
    )
    scores = single_token_scores(output.logits, sep, inputs["soft_prompt.verbalizer_ids"])
    loss = F.cross_entropy(scores, inputs["labels"])
    loss.backward()
    ours = {
        "prompt_embeds": vectors,
        "last_hidden": output.hidden_states[-1],
        "verbalizer_logits": scores,
        "loss": loss,
        **{f"grad.{name}": parameter.grad for name, parameter in prompt.named_parameters()},
    }
    expected = those_of(golden, f"soft.{encoder}")
    gradients = own_names(those_of(expected, "grad"))
    others = {name: tensor for name, tensor in expected.items() if not name.startswith("grad.")}
    assert_equal(ours, others | {f"grad.{name}": tensor for name, tensor in gradients.items()})


def test_no_golden_number_is_left_out(golden: Numbers, manifest: dict[str, Any], activation: str) -> None:
    """The tests above compare all names that begin so, in both directions."""
    methods = (*METHODS, "soft.none", "soft.mlp", "soft.lstm")
    assert sum(len(those_of(golden, method)) for method in methods) == len(golden) == 118
    assert golden.keys() == manifest["files"][f"outputs_{activation}.safetensors"]["tensors"].keys()


@pytest.mark.parametrize("official", METHODS, indirect=True, ids=METHODS)
def test_choices_packed_into_one_row_score_as_apart(
    official: Official, golden: Numbers, manifest: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """The published remote code puts all choices of an example behind one context, under a mask of its own."""
    mask = official.inputs["hf_packed_choice.attention_mask"].bool()
    with torch.no_grad():
        _, logits = official.run("hf_packed_choice", attention_mask=mask)
    targets = torch.zeros(3, 3, logits.shape[1], dtype=torch.long)
    scored = torch.zeros_like(targets)
    for example in range(3):
        for choice in range(3):
            places = manifest["hf_choice_indices"][example][choice]
            targets[example, choice, places] = torch.tensor(manifest["hf_choice_ids"][example][choice])
            scored[example, choice, places] = 1
    scores = multi_token_scores(logits.unsqueeze(1).expand(-1, 3, -1, -1), targets, scored)
    method = request.node.callspec.params["official"]
    torch.testing.assert_close(scores, golden[f"{method}.multi_token_logits"], **TOLERANCE)


def test_a_padding_mask_gives_the_official_hidden_states(
    model: OriginalGlmForCloze, inputs: Numbers, golden: Numbers
) -> None:
    inject(model)
    mask = inputs["cls.padding_mask"]
    hidden = model.glm(inputs["cls.input_ids"], mask, inputs["cls.position_ids"]).last_hidden_state
    real = mask.bool()
    torch.testing.assert_close(hidden[real], golden["plain.cls_last_hidden"][real], **TOLERANCE)
