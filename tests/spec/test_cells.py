"""Names and values of a suite's cells, and the suites that are shipped."""

from __future__ import annotations

from pathlib import Path

from ptv2kit.spec.cells import cell_name, load_suite
from ptv2kit.spec.suite import Parameter

ROOT = Path(__file__).parents[2]


def test_names_of_cells_can_be_folders() -> None:
    assert cell_name("big", {"a.rate": 0.005, "b.length": 8, "c": None}) == "big,rate=0.005,length=8,c=null"
    assert cell_name("", {"a.dropout": 0.1, "b.dropout": 0.2}) == "a.dropout=0.1,b.dropout=0.2"
    slash, dash = cell_name("", {"name": "a/b"}), cell_name("", {"name": "a b"})
    assert slash.startswith("name=a-b-")
    assert slash != dash
    assert len(cell_name("", {"name": "x" * 500})) < 150


def test_values_of_a_parameter() -> None:
    assert Parameter(low=0.1, high=0.5, step=0.2).listed() == (0.1, 0.3, 0.5)
    assert Parameter(low=1, high=3, integer=True).listed() == (1, 2, 3)
    assert Parameter(low=0.1, high=0.5).listed() is None
    assert Parameter(low=1, high=1e9, integer=True).listed() is None
    assert Parameter(low=0.1, high=0.1).corners() == (0.1,)


def test_the_official_grid_for_copa() -> None:
    suite = load_suite(ROOT / "recipes" / "suites" / "copa-search.yaml")
    assert suite.studies[0].search.budget == 3 * 6 * 6
    assert {cell.resolved.recipe.train.seed for cell in suite.cells} == {44}
