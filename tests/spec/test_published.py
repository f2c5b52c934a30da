"""Values that cells should reach, from a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptv2kit.errors import ConfigError
from ptv2kit.spec.cells import load_suite

ROOT = Path(__file__).parents[2]
SUITE = f"""suite: s
recipe: {ROOT}/recipes/quickstart.yaml
grid: {{prompt.length: [4, 8], method: [p_tuning_v2, prompt_tuning]}}
expect: {{file: values.csv, table: one}}
"""


def write(folder: Path, table: str, suite: str = SUITE) -> Path:
    (folder / "values.csv").write_text(table)
    (folder / "s.yaml").write_text(suite)
    return folder / "s.yaml"


def test_each_row_is_expected_of_the_cells_that_it_names(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "table,prompt.length,method,metric,split,value,tolerance,origin,source\n"
        'one,4,p_tuning_v2,span_f1,,80.5,0.5,paper,"table 2, row 1"\n'
        "one,,prompt_tuning,token_accuracy,,90,,,\n"
        "other,8,,span_f1,,1,,,\n",
    )
    expected = {
        (cell.settings["prompt.length"], cell.settings["method"]): [
            (item.metric, item.split, item.value, item.tolerance, item.origin, item.source)
            for item in cell.resolved.recipe.expect
        ]
        for cell in load_suite(path).cells
    }
    assert expected == {
        (4, "p_tuning_v2"): [("span_f1", "validation", 80.5, 0.5, "paper", "table 2, row 1")],
        (4, "prompt_tuning"): [("token_accuracy", "validation", 90.0, 0.0, "other", "")],
        (8, "p_tuning_v2"): [],
        (8, "prompt_tuning"): [("token_accuracy", "validation", 90.0, 0.0, "other", "")],
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("table,metric\none,span_f1\n", "values.csv:1: error: expected a column 'value', found table, metric"),
        ("table,metric,value\none,span_f1,many\n", "values.csv:2:1: error: 'value' must be a number. Got 'many'"),
        ("table,metric,value\none,span_f1,1,2\n", "values.csv:2: error: the row has more cells than there are columns"),
        ("table,metric,value\ntwo,span_f1,1\n", "has no row whose table is 'one'"),
        ("table,metric,value\none,rouge,1\n", "rouge"),
        ("table,metric,value,color\none,span_f1,1,red\n", "the suite does not vary 'color'"),
        (None, "No such file"),
    ],
)
def test_a_table_that_does_not_fit_is_named_with_its_row(tmp_path: Path, table: str | None, message: str) -> None:
    path = write(tmp_path, table or "")
    if table is None:
        (tmp_path / "values.csv").unlink()
    with pytest.raises(ConfigError) as caught:
        load_suite(path)
    assert message in str(caught.value)
    assert "values.csv" in str(caught.value) or "s.yaml:4" in str(caught.value)


def test_a_suites_own_copy_has_the_rules_that_the_table_made(tmp_path: Path) -> None:
    from ptv2kit.cli.run_suite import _resolved  # pyright: ignore[reportPrivateUsage]

    path = write(tmp_path, "table,method,metric,value\none,p_tuning_v2,span_f1,80\n")
    copy = tmp_path / "elsewhere" / "suite.resolved.yaml"
    copy.parent.mkdir()
    copy.write_text(_resolved(load_suite(path), []))
    one, other = load_suite(path), load_suite(copy)
    assert [cell.resolved.recipe.expect for cell in one.cells] == [cell.resolved.recipe.expect for cell in other.cells]
