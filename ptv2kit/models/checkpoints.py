"""What a backbone's folder or repository says of it: its configuration, and how its tokenizer cuts up texts.

Nothing here needs the code of a model, whose import alone takes seconds; `models/backbones.py` goes on from there.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, StrictDataclassError
from huggingface_hub.utils import enable_progress_bars
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file, extract_commit_hash

from ptv2kit.errors import ConfigError, DataError, did_you_mean
from ptv2kit.files import is_folder
from ptv2kit.machine import has_amx, reach_hub
from ptv2kit.models.families import ENCODER_ALONE, Family, family_of, set_dropout
from ptv2kit.models.glm import tokenizer as glm_tokenizer
from ptv2kit.models.glm.configuration import OriginalGlmConfig, published_config
from ptv2kit.spec.layers import MINI_PACKAGE, OWN_BACKBONES, SMOLLM2, TINY_GLM
from ptv2kit.spec.recipe import Backbone, Recipe

_LOGGER = logging.getLogger(__name__)
_LARGE: dict[str, Any] = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "bert-large-cased": {"model_type": "bert", **_LARGE, "num_hidden_layers": 24, "vocab_size": 28996},
    "bert-large-uncased": {"model_type": "bert", **_LARGE, "num_hidden_layers": 24, "vocab_size": 30522},
    "roberta-large": {
        "model_type": "roberta",
        **_LARGE,
        "num_hidden_layers": 24,
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
    "microsoft/deberta-xlarge": {
        "model_type": "deberta",
        **_LARGE,
        "num_hidden_layers": 48,
        "vocab_size": 50265,
        "relative_attention": True,
        "pos_att_type": "c2p|p2c",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "THUDM/glm-2b": {"model_type": OriginalGlmConfig.model_type, "size": "2B"},
    "THUDM/glm-10b": {"model_type": OriginalGlmConfig.model_type, "size": "10B"},
}
"""Shapes of the paper's backbones, known without the hub: enough for planning."""

_OF_TEXT_MODEL = {
    r"^(?:model\.)?(?:language_model|text_model)\.(?:model\.)?(?!lm_head)": "model.",
    r"^language_model\.lm_head": "lm_head",
}
"""Names of a multimodal model's tensors, as transformers 4 and 5 write them, and those of its text model alone."""

# Libraries take the descriptions and weights of a model for what they should be, and stumble over what they are.
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    EOFError,
    SafetensorError,
    StrictDataclassError,
    pickle.UnpicklingError,
)
"""What reading a model that is damaged, or none, can raise."""


@dataclass(frozen=True)
class Checkpoint:
    """A backbone that was found; nothing but its configuration has been read.

    Args:
        source: local folder, or hub id.
        settings: of the recipe, `dtype: auto` resolved.
        config: the model's own configuration, with the recipe's dropout.
        family: facts of its model type.
        commit: the hub's commit that it was read from, None for a local folder.
        at_hand: False if only the published sizes are known: enough for planning, too little for loading.
        renamed: what its tensors are called in the files, as patterns, and in the text model that is made of a model
            that also reads pictures or sound; None: alike.
    """

    source: str
    settings: Backbone
    config: PretrainedConfig
    family: Family
    commit: str | None
    at_hand: bool
    renamed: Mapping[str, str] | None

    def resolved(self, recipe: Recipe) -> Recipe:
        """A recipe of this backbone with the precision that `auto` is here."""
        return recipe.model_copy(update={"backbone": self.settings})

    @property
    def vocabulary(self) -> int:
        """Embeddings of the backbone."""
        return int(self.config.vocab_size)


def find_checkpoint(settings: Backbone, *, planning: bool = False) -> Checkpoint:
    """Read a backbone's configuration.

    Args:
        planning: whether the published sizes of the paper's backbones serve where they are not on this machine, so that
            the hub is not asked; such a checkpoint is not `at_hand`. `dtype: auto` is then bf16, as on today's GPUs.

    Raises:
        ConfigError: there is no such folder, `mini` is not installed, or it is an encoder-decoder.
        DataError: the hub has no such model or cannot be reached.
    """
    if settings.dtype == "auto":
        faster = planning or faster_in_bf16(gpu=torch.cuda.is_available())
        settings = settings.model_copy(update={"dtype": "bf16" if faster else "fp32"})
    source = _source(settings.name)
    AutoConfig.register(OriginalGlmConfig.model_type, OriginalGlmConfig, exist_ok=True)
    published = _PUBLISHED.get(source) if planning else None
    if published is None and not is_folder(Path(source)):
        reach_hub()
    local, at_hand = published is not None, True
    try:
        config = _read_config(source, settings.revision, local)
    except UNREADABLE as error:
        if published is None:
            raise failed(settings.name, source, "its configuration cannot be read", error) from error
        config, at_hand = _published_config(**published), False
    whole, config = config, _text_config(config)
    if config is whole and config.model_type in ENCODER_ALONE:
        config.is_encoder_decoder = False
    if whole.is_encoder_decoder or config.is_encoder_decoder:
        raise ConfigError(
            f"backbone '{settings.name}' is an encoder-decoder ('{config.model_type}'): not supported",
            hint=f"of {', '.join(sorted(ENCODER_ALONE))} the encoder alone is taken",
        )
    family = family_of(config, settings.name)
    set_dropout(config, settings.name, settings.dropout, settings.attention_dropout)
    commit = None
    if at_hand:
        read = cached_file(source, "config.json", revision=settings.revision, local_files_only=local)
        commit = extract_commit_hash(str(read), None)
    return Checkpoint(source, settings, config, family, commit, at_hand, None if config is whole else _OF_TEXT_MODEL)


def faster_in_bf16(*, gpu: bool) -> bool:
    """Whether this machine's GPU, or its processor, multiplies matrices in bf16 faster than in fp32."""
    if gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # With AVX512-BF16 alone the products take 1.6 times as long as in fp32; nothing is known of ARM's.
    return has_amx()


def _published_config(model_type: str, **shape: Any) -> PretrainedConfig:
    """A configuration from `_PUBLISHED`."""
    if model_type == OriginalGlmConfig.model_type:
        return OriginalGlmConfig.of_size(**shape)
    return AutoConfig.for_model(model_type, **shape)


def _read_config(source: str, revision: str | None, local: bool) -> PretrainedConfig:
    """The configuration; the original GLM's as published is told from GLM-4's, which transformers would take it for.

    Args:
        source: local folder, or hub id.
        revision: on the hub.
        local: whether only this machine is searched, which includes the hub's cache.
    """
    published, _ = PretrainedConfig.get_config_dict(source, revision=revision, local_files_only=local)
    original = published_config(published)
    if original is not None:
        return OriginalGlmConfig(**original)
    if "auto_map" in published and published.get("model_type") not in CONFIG_MAPPING:
        raise ConfigError(
            f"backbone '{source}' (model type '{published.get('model_type')}') needs code of its own, "
            "which is not supported",
            hint="code from a model repository is never run; take a model type that transformers has itself",
        )
    return AutoConfig.from_pretrained(source, revision=revision, local_files_only=local, trust_remote_code=False)


def _text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of a multimodal model's text model; of any other model the same object."""
    text: PretrainedConfig | None = getattr(config, "text_config", None)
    if text is None:
        return config
    # Of weights that are quantized already only the whole model tells.
    quantized = vars(config).get("quantization_config")
    if quantized is not None:
        text.quantization_config = quantized
    return text


def weights_are_here(checkpoint: Checkpoint) -> bool:
    """Whether the weights are on this machine, so that loading them does not begin with a download."""
    names = (
        f"{stem}{index}"
        for stem in ("model.safetensors", "pytorch_model.bin")
        for index in ("", ".index.json")  # of weights in several files
    )
    return checkpoint.commit is None or any(
        isinstance(try_to_load_from_cache(checkpoint.source, name, revision=checkpoint.commit), str) for name in names
    )


def load_tokenizer(checkpoint: Checkpoint, *, words: bool) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer.

    Args:
        checkpoint: from `find_checkpoint`.
        words: whether inputs are words that are already split.

    Raises:
        ConfigError: the backbone comes without a fast tokenizer, or with one that does not fit it.
        DataError: the hub cannot be reached.
    """
    try:
        tokenizer = _read_tokenizer(checkpoint)
    except UNREADABLE as error:
        raise failed(checkpoint.settings.name, checkpoint.source, "it has no usable tokenizer", error) from error
    if not tokenizer.is_fast:
        raise ConfigError(f"backbone '{checkpoint.source}' has no fast tokenizer, which aligns sub-words with words")
    size, vocabulary = len(tokenizer), checkpoint.vocabulary
    padding: Any = tokenizer.pad_token_id
    end: Any = tokenizer.eos_token_id
    if padding is None or padding >= vocabulary:
        # Padding is on the right and never seen, so that any token with an embedding serves.
        if end is None or end >= vocabulary:
            raise ConfigError(
                f"the tokenizer of backbone '{checkpoint.source}' has neither a padding nor an end token that the "
                "backbone has an embedding for"
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    if size <= len(tokenizer.all_special_ids):
        raise ConfigError(
            f"backbone '{checkpoint.source}' has no vocabulary: its tokenizer knows {size} special tokens and nothing "
            "else",
            hint="expected a tokenizer.json or a vocabulary file beside its config.json",
        )
    if size > vocabulary:
        _LOGGER.warning(
            "warning: the tokenizer of backbone '%s' has %s tokens, but there are only %s embeddings; "
            "a row that uses one of the others is an error",
            checkpoint.settings.name,
            f"{size:,}",
            f"{vocabulary:,}",
        )
    if words:
        _read_words_as_in_sentences(tokenizer, checkpoint.source)
    return tokenizer


def _read_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """What the backbone comes with; the original GLM as published has only the files of GPT-2's vocabulary."""
    revision = checkpoint.settings.revision
    if checkpoint.config.model_type == OriginalGlmConfig.model_type:
        own = cached_file(
            checkpoint.source, "tokenizer.json", revision=revision, _raise_exceptions_for_missing_entries=False
        )
        if own is None:
            names = (glm_tokenizer.VOCABULARY_FILE, glm_tokenizer.MERGES_FILE)
            vocabulary, merges = (Path(str(cached_file(checkpoint.source, name, revision=revision))) for name in names)
            return glm_tokenizer.build_tokenizer(vocabulary, merges)
    return AutoTokenizer.from_pretrained(checkpoint.source, revision=revision, trust_remote_code=False)


def _read_words_as_in_sentences(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Let a word that stands alone be cut up as it is after a space.

    Raises:
        ConfigError: that could not be loaded of this tokenizer.
    """
    if _cuts_words_as_sentences(tokenizer):
        return
    backend: Any = tokenizer.backend_tokenizer
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    else:
        # Behind a regular expression, as in Qwen and Llama 3, it would put the space in front of every piece.
        before = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([*before, normalizers.Prepend(" ")])
    if not _cuts_words_as_sentences(tokenizer):
        raise ConfigError(
            f"the tokenizer of backbone '{source}' cuts up words that are already split otherwise than sentences",
            hint="tasks whose input is 'words' need a tokenizer that does not",
        )


def _cuts_words_as_sentences(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether words that are already split get the ids that they have within a sentence, the first one aside."""
    words = ["The", "rain", "in", "Spain", "(isn't", "it?)", "fell", "12.5", "cm"]
    apart = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    joined = tokenizer(" ".join(words), add_special_tokens=False)
    after_first = len(apart["input_ids"]) - sum(word == 0 for word in apart.word_ids())
    return list(apart["input_ids"])[-after_first:] == list(joined["input_ids"])[-after_first:]


def failed(name: str, source: str, what: str, error: Exception) -> ConfigError | DataError:
    """A folder that is wrong is a matter of configuration; a hub that does not answer is one of the network."""
    reason = next(iter(str(error).strip().splitlines()), "")
    if not isinstance(error, OSError | ValueError) or not reason:
        reason = f"{type(error).__name__}: {reason}"
    if "trust_remote_code" in str(error):
        return ConfigError(
            f"backbone '{name}': {what}: it needs code of its own, which is not supported",
            hint="code from a model repository is never run",
        )
    if isinstance(error.__cause__, GatedRepoError):
        return DataError(
            f"backbone '{name}' is gated: the hub gives it only to accounts that were granted access",
            hint=f"ask for access at https://huggingface.co/{source}; then 'hf auth login', or set HF_TOKEN",
        )
    if "weights_only" in str(error):
        reason = "a weights file is damaged, or is a pickle that holds more than tensors"
    if Path(source).is_dir():
        return ConfigError(f"backbone '{name}': {what}: {reason}")
    close = did_you_mean(name, list(OWN_BACKBONES))
    return DataError(
        f"backbone '{name}' is not a local folder and could not be loaded from the hub: {what}: {reason}",
        hint=close
        if close.startswith("did")
        else "check the name and the network; a private model needs 'hf auth login'; without a network give a local "
        "folder, or 'mini'",
    )


def _source(name: str) -> str:
    """The folder or hub id behind a recipe's `backbone.name`."""
    if name == "mini":
        package = importlib.util.find_spec(MINI_PACKAGE)
        if package is None or package.origin is None:
            raise ConfigError("backbone 'mini' is not installed", hint="pip install 'ptv2kit[mini]'")
        return str(Path(package.origin).parent / "model")
    if name == TINY_GLM:
        from ptv2kit.models.glm.tiny import tiny_folder  # it makes a model

        return str(tiny_folder())
    if name == SMOLLM2:
        from ptv2kit.models.smollm2 import smollm2_folder  # it may have to widen the weights

        return str(smollm2_folder())
    path = Path(name).expanduser()
    if is_folder(path):
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")):
        raise ConfigError(f"backbone folder '{name}' does not exist")
    return name


def silence_libraries(*, quiet: bool = False) -> None:
    """Keep other libraries' notes off the terminal, and their progress bars; those of downloads only if `quiet`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, tokenizers would warn when a process is started
    if "OMP_NUM_THREADS" in os.environ:
        os.environ.setdefault("RAYON_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
    if not torch.cuda.is_available():
        # Else DeepSpeed, which transformers imports where it is installed, says on stdout that it looked for a GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if not quiet:
        enable_progress_bars()  # transformers has silenced the hub's with its own
    hub_logging.set_verbosity_error()
