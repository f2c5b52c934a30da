"""What a study keeps of a trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from ptv2kit.config.suite import Parameter

STATUS, FACTS = "status", "facts"
"""Names under which the study keeps how a trial ended, and what else came out of it."""


@final
@dataclass(frozen=True)
class TrialOutcome:
    """What came out of a trial.

    Args:
        status: `stopped` by the pruner; `interrupted` by the user: it is tried again.
        score: what is searched for, higher is better; None if nothing was measured.
        facts: what else to keep; plain values.
    """

    status: Literal["finished", "stopped", "failed", "interrupted"]
    score: float | None
    facts: Mapping[str, Any]


def chosen_value(parameter: Parameter, kept: Any) -> Any:
    """A value of the recipe from what Optuna keeps."""
    if isinstance(kept, str):
        return json.loads(kept)
    return parameter.number(kept)
