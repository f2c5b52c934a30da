"""The model that is trained: backbone, prompt, head."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import BackboneSpec
from ptv2kit.models.counts import ParameterCount
from ptv2kit.models.heads import BackboneOutput, Head
from ptv2kit.models.injection import Injection, LayerPrompt
from ptv2kit.models.lora import lora_parameters
from ptv2kit.models.prompts import DeepPrompt, EmbeddingPrompt, NetworkPrompt, ShallowPrompt
from ptv2kit.models.quantization import frozen_parameters
from ptv2kit.models.trunk import Trunk


@final
class PromptedModel(nn.Module):
    """A backbone with a prompt in front of its layers or its input, or with none, and a head.

    Args:
        backbone: from `load_backbone`, frozen unless it is to be trained.
        prompt: keys and values of the covered layers, vectors in front of the input, or None.
        head: from hidden states to logits.
        shift_positions: whether tokens are counted from after a deep prompt.
        covered: indices of the layers that a deep prompt covers; None: all.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        backbone: PreTrainedModel,
        prompt: DeepPrompt | ShallowPrompt | None,
        head: Head,
        *,
        shift_positions: bool,
        covered: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt: DeepPrompt | ShallowPrompt | None = prompt
        self.head = head
        self._injection = Injection(backbone, spec.layers, spec.kernel, covered)
        self._family = spec.family
        self.covered = tuple(range(len(spec.layers)) if covered is None else covered)
        self._layers = tuple(spec.layers[index] for index in self.covered)
        self._made: Sequence[LayerPrompt] | Tensor | None = None
        self.shift = prompt.length if isinstance(prompt, DeepPrompt) and shift_positions else 0
        self.attention = f"{spec.kernel}, {'causal' if spec.causal else 'bidirectional'}"
        lowest = min(covered, default=0) if covered is not None and isinstance(prompt, DeepPrompt) else 0
        self.trunk: Trunk | None = Trunk(backbone, spec.layers, lowest) if lowest > 0 else None

    @property
    def separate(self) -> bool:
        """Whether the prompt has a softmax of its own."""
        return isinstance(self.prompt, DeepPrompt) and self.prompt.separate

    def with_head(self, head: Head) -> PromptedModel:
        """A model of another task: the same backbone, prompt and injection, with `head`."""
        other = copy.copy(self)
        # The copy has the same dictionary of modules as this one; with one of its own only its head differs.
        other._modules = {**self._modules, "head": head}
        return other

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        answer_places: Tensor | None = None,
        answer_ids: Tensor | None = None,
        choice_rows: Tensor | None = None,
        trunk_states: Tensor | None = None,
        **cloze: Tensor,
    ) -> Tensor:
        """Logits of a batch.

        Args:
            input_ids: `[batch, length]`.
            attention_mask: `[batch, length]`, 1 at real tokens.
            token_type_ids: `[batch, length]`, or None where the backbone has no segments.
            answer_places: see `BackboneOutput`.
            answer_ids: see `BackboneOutput`.
            choice_rows: see `BackboneOutput`.
            trunk_states: `[batch, length, hidden]`, what `trunk_output` gave for the same inputs; None: compute it.
            cloze: of the original GLM, `position_ids` `[batch, 2, length]` and `context_length` `[batch]`.

        Returns:
            The head's logits.
        """
        output = self.encode(input_ids, attention_mask, token_type_ids, trunk_states, **cloze)
        return self.head(replace(output, answer_places=answer_places, answer_ids=answer_ids, choice_rows=choice_rows))

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        trunk_states: Tensor | None = None,
        **cloze: Tensor,
    ) -> BackboneOutput:
        """Hidden states of a batch under the prompt; arguments as in `forward`."""
        made = self._made  # of each covered layer, or vectors [batch, length, width]
        if made is None and self.prompt is not None:
            made = self.prompt(len(input_ids))
        if isinstance(made, Tensor):
            assert trunk_states is None
            return self._encode_behind_vectors(made, input_ids, attention_mask, token_type_ids, **cloze)
        if self.trunk is not None:
            self.trunk.replace_by(trunk_states)
        elif trunk_states is not None:
            assert self.prompt is None, "a prompt on all layers leaves none to be replaced"
            return self._pooled(trunk_states, attention_mask)
        # also None: another model of this backbone may have left a prompt in the slots
        self._injection.set(made, separate=self.separate)
        output = self._run_backbone(input_ids, attention_mask, token_type_ids, self.shift, **cloze)
        # Heads and losses are fp32, whatever the precision of the backbone.
        pooled = output.get("pooler_output")
        return BackboneOutput(
            output.last_hidden_state.float(), None if pooled is None else pooled.float(), attention_mask
        )

    @contextmanager
    def prompt_made_once(self) -> Generator[None]:
        """Within the context, which is for inference, a deep prompt's keys and values are made for all batches at once.

        What a network makes would else be made again for each batch.
        """
        assert not self.training
        self._made = self.prompt(1) if isinstance(self.prompt, DeepPrompt) else None
        try:
            yield
        finally:
            self._made = None

    @torch.no_grad()
    def trunk_output(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, **cloze: Tensor
    ) -> Tensor:
        """What enters the lowest prompted layer, without dropout; without a prompt, the last hidden states.

        A frozen backbone gives the same for the same inputs as long as it is trained. Arguments as in `forward`.

        Returns:
            `[batch, length, hidden]`, in the precision of the backbone.
        """
        training = self.training
        self.eval()
        try:
            if self.trunk is None:
                assert self.prompt is None, "a prompt on all layers, or in the input, leaves nothing below it"
                output = self._run_backbone(input_ids, attention_mask, token_type_ids, self.shift, **cloze)
                return output.last_hidden_state
            self._injection.set(None)
            with self.trunk.computing() as computed:
                self._run_backbone(input_ids, attention_mask, token_type_ids, self.shift, **cloze)
            return computed[0]
        finally:
            self.train(training)

    def _encode_behind_vectors(
        self,
        vectors: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None,
        **cloze: Tensor,
    ) -> BackboneOutput:
        """Hidden states of the tokens alone; a pooler reads the first of them, not the first vector.

        `vectors`: `[batch, length, width]`.
        """
        self._injection.set(None)
        words: Tensor = self.backbone.get_input_embeddings()(input_ids)
        vectors = vectors.to(words.dtype)
        length = vectors.shape[1]
        segments = {}
        if token_type_ids is not None:
            segments = {"token_type_ids": nn.functional.pad(token_type_ids, (length, 0))}
        mask = nn.functional.pad(attention_mask, (length, 0), value=1)
        if cloze:
            cloze = _behind_vectors(cloze["position_ids"], cloze["context_length"], length)
        output = self.backbone(
            inputs_embeds=torch.cat([vectors, words], dim=1),
            attention_mask=mask,
            **segments,
            **cloze,
        )
        return self._pooled(output.last_hidden_state[:, length:], attention_mask)

    def _pooled(self, hidden: Tensor, attention_mask: Tensor) -> BackboneOutput:
        """What a head reads of hidden states `[batch, length, hidden]`."""
        pooled = self._family.pool(self.backbone, hidden)
        return BackboneOutput(hidden.float(), None if pooled is None else pooled.float(), attention_mask)

    @torch.no_grad()
    def start_prompt_from_tokens(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> None:
        """Let a deep prompt start as the keys and values that the backbone computes for real tokens.

        What a network makes a deep prompt of, and a shallow prompt, start as word embeddings of the tokens.

        Tokens are taken row after row, padding left out, and over again if there are fewer than the prompt is long.

        Args:
            input_ids: `[batch, length]`.
            attention_mask: `[batch, length]`, 1 at real tokens.
            token_type_ids: `[batch, length]`, or None where the backbone has no segments.
        """
        assert self.prompt is not None, "there is no prompt to start"
        real = attention_mask.bool()  # [batch, length]; indexing with it gives [tokens, …] without padding
        repeats = -(-self.prompt.length // int(real.sum()))
        if isinstance(self.prompt, NetworkPrompt | ShallowPrompt):
            words: Tensor = self.backbone.get_input_embeddings()(input_ids[real])
            self.prompt.start_from(words.repeat(repeats, 1)[: self.prompt.length])
            return
        assert isinstance(self.prompt, EmbeddingPrompt)
        training = self.training
        self.eval()
        with self._injection.recording() as recorded:
            self._run_backbone(input_ids, attention_mask, token_type_ids, shift=0)
        self.train(training)
        for parameter, layer in zip(self.prompt.layers, recorded, strict=True):
            # [batch, kv_heads, length, head_dim] → [tokens, kv_heads, head_dim]
            tokens = torch.stack([part.transpose(1, 2)[real] for part in layer])
            parameter.copy_(tokens.repeat(1, repeats, 1, 1)[:, : self.prompt.length].transpose(1, 2))
        self.prompt.start_without_effect()

    def _run_backbone(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None, shift: int, **cloze: Tensor
    ) -> Any:
        """The backbone's output, with only those optional inputs that it needs."""
        optional = {
            "token_type_ids": token_type_ids,
            "position_ids": self._family.position_ids(attention_mask, shift),
        }
        given = {name: tensor for name, tensor in optional.items() if tensor is not None}
        return self.backbone(input_ids=input_ids, attention_mask=attention_mask, **given, **cloze)

    def inference_state(self) -> dict[str, Tensor]:
        """Copies of what inference needs: all that is trained, the prompt folded if a network made it.

        `head.*` with `prompt.layers.<i>`, or with `prompt.vectors.embedding.weight` of a shallow prompt; and
        `backbone.*` of what is trained there.
        """
        rest = {name: tensor for name, tensor in self.trained_state().items() if not name.startswith("prompt.")}
        with torch.no_grad():
            if isinstance(self.prompt, ShallowPrompt):
                return {"prompt.vectors.embedding.weight": self.prompt.vectors().clone()} | rest
            if self.prompt is None:
                return rest
            layers = self.prompt.keys_and_values()
            return {f"prompt.layers.{i}": layer.clone().contiguous() for i, layer in enumerate(layers)} | rest

    def fold_prompt(self) -> None:
        """Put plain keys and values in place of a prompt that a network makes; they can be trained on or replaced."""
        if isinstance(self.prompt, NetworkPrompt):
            made = self.prompt.keys_and_values()
            plain = EmbeddingPrompt(
                self._layers, self.prompt.length, self.prompt.dropout.p, init_scale=0.02, separate=self.prompt.separate
            )
        elif isinstance(self.prompt, ShallowPrompt) and self.prompt.vectors.encoder != "none":
            made = [self.prompt.vectors()]
            width = made[0].shape[1]
            plain = ShallowPrompt(self.prompt.length, width, self.prompt.dropout.p, init_scale=0.02)
        else:
            return
        with torch.no_grad():
            for parameter, value in zip(plain.to(made[0].device).parameters(), made, strict=True):
                parameter.copy_(value)
        self.prompt = plain.train(self.training)

    def trained_state(self) -> dict[str, Tensor]:
        """Copies of everything that is trained, under its parameter's name."""
        return {
            name: parameter.detach().clone() for name, parameter in self.named_parameters() if parameter.requires_grad
        }

    def load_trained_state(self, tensors: dict[str, Tensor]) -> None:
        """Put trained tensors back.

        Raises:
            ConfigError: names or shapes are not those of this model.
        """
        own = {name: value for name, value in self.named_parameters() if value.requires_grad}
        if own.keys() != tensors.keys():
            odd = sorted(own.keys() ^ tensors.keys())
            raise ConfigError(f"the saved prompt does not fit the recipe: '{odd[0]}' is in only one of them")
        for name, value in tensors.items():
            if value.shape != own[name].shape:
                raise ConfigError(
                    f"the saved prompt does not fit the recipe: '{name}' has shape {tuple(value.shape)}. "
                    f"Expected {tuple(own[name].shape)}"
                )
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)

    def parameter_count(self) -> ParameterCount:
        """Parameters of the backbone, the prompt and the head."""
        adapter = lora_parameters(self.backbone)
        # Trained parameters of the backbone itself: LayerNorms beside a prompt, all of them in fine-tuning.
        own = sum(each.numel() for each in self.backbone.parameters() if each.requires_grad) - adapter
        norms = 0 if self.prompt is None else own
        return ParameterCount(
            backbone=frozen_parameters(self.backbone) - adapter,
            prompt=0 if self.prompt is None else sum(parameter.numel() for parameter in self.prompt.parameters()),
            head=sum(parameter.numel() for parameter in self.head.parameters() if parameter.requires_grad),
            tuned=own > norms,
            adapter=adapter,
            norms=norms,
        )


def _behind_vectors(position_ids: Tensor, context_length: Tensor, length: int) -> dict[str, Tensor]:
    """Positions of the original GLM's tokens behind `length` vectors, which are part of the context."""
    first = torch.arange(length, device=position_ids.device).expand(len(position_ids), -1)
    vectors = torch.stack([first, torch.zeros_like(first)], dim=1)
    shifted = position_ids + torch.tensor([[length], [0]], device=position_ids.device)
    return {"position_ids": torch.cat([vectors, shifted], dim=2), "context_length": context_length + length}
