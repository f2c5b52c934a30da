"""The original GLM (Du et al., 2B and 10B) as a model of transformers, and what turns its published weights into one.

It is not GLM-4 or ChatGLM. transformers gives the name `glm` to GLM-4, so that this one is called `original_glm`.
"""

from __future__ import annotations


def register() -> None:
    """Make `AutoConfig` and `AutoModel` of transformers know the model type `original_glm`; may be called again."""
    # Imported here because reading and converting weights needs no model.
    from transformers import AutoConfig, AutoModel

    from ptv2kit.models.glm.configuration import OriginalGlmConfig
    from ptv2kit.models.glm.modeling import OriginalGlmModel

    AutoConfig.register(OriginalGlmConfig.model_type, OriginalGlmConfig, exist_ok=True)
    AutoModel.register(OriginalGlmConfig, OriginalGlmModel, exist_ok=True)
