"""The paper's claim that 0.1 % to 3 % of the parameters are trained, counted for the backbones of the paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.parameter_shares import share, specs, table
from ptv2kit.spec.load import load_recipe

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
PARAMETERS = {
    "BERT-large": 333.6e6,  # cased; without the head for masked words
    "RoBERTa-large": 355.4e6,
    "DeBERTa-xlarge": 757.8e6,
    "GLM-2B": 1920e6,
    "GLM-10B": 9881e6,
}


@pytest.mark.night
def test_the_documented_shares_are_those_of_the_shipped_recipes() -> None:
    made = table()
    assert f"parameter_shares.py -->\n{made}<!-- end" in PAGE.read_text(), made
    for line in made.splitlines()[2:]:
        _, name, length, *shares, _ = (cell.strip() for cell in line.split("|"))
        values = [float(value.rstrip("%")) for value in shares]
        assert max(values) <= 3.0 or (int(length), max(values)) == (224, 3.3), name
        if int(length) >= 32:
            assert min(values) >= 0.1, name
    assert len(re.findall(r"^\| `", made, re.M)) == sum(
        bool(load_recipe(path).recipe.prompt_length) for path in (ROOT / "recipes").glob("*.yaml")
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["p_tuning_v2", "prompt_tuning", "linear_probe"])
def test_shares_are_those_of_the_formula(method: str) -> None:
    resolved = load_recipe(ROOT / "recipes" / "mini-rte.yaml", [f"method={method}", "prompt.length=128"])
    for name, spec in specs().items():
        width, layers = spec.config.hidden_size, spec.config.num_hidden_layers
        prompt = {"p_tuning_v2": 128 * layers * 2 * width, "prompt_tuning": 128 * width, "linear_probe": 0}[method]
        found = share(resolved.recipe, [resolved.task.task], spec)
        assert found == pytest.approx((prompt + 2 * (width + 1)) / PARAMETERS[name], rel=5e-3), name
