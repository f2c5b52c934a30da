"""What the published configuration of the original GLM says."""

from __future__ import annotations

from ptv2kit.models.glm.configuration import published_config
from tests.models.glm_folders import PUBLISHED


def test_published_settings() -> None:
    found = published_config(PUBLISHED)
    assert found is not None
    assert found["num_layers"] == 2
    assert found["attention_scale"] == 1.0
    assert not {"model_type", "pad_token_id", "auto_map", "pool_token"} & found.keys()
    assert published_config({"model_type": "glm", "num_hidden_layers": 40}) is None
    assert published_config({"model_type": "bert", "block_position_encoding": True}) is None
