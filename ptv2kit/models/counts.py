"""How many parameters a model has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model.

    Args:
        prompt: trained, of the prompt.
        head: trained, of the head.
        tuned: whether the backbone is trained too.
        adapter: trained, of matrices within the backbone that are not counted there.
        norms: trained, of the backbone's LayerNorms, beside a prompt.
    """

    backbone: int
    prompt: int
    head: int
    tuned: bool = False
    adapter: int = 0
    norms: int = 0

    @property
    def frozen(self) -> int:
        """What is not trained."""
        return 0 if self.tuned else self.backbone - self.norms

    @property
    def trained(self) -> int:
        """All that is trained."""
        return self.prompt + self.adapter + self.norms + self.head + (self.backbone if self.tuned else 0)

    @property
    def text(self) -> str:
        """What is trained, part by part."""
        first = f"adapter {self.adapter:,}" if self.adapter else f"prompt {self.prompt:,}"
        return " + ".join((first, *([f"LayerNorms {self.norms:,}"] if self.norms else ()), f"head {self.head:,}"))

    @property
    def share(self) -> float:
        """Trained parameters as a share of the backbone's, between 0 and a little more than 1."""
        return self.trained / self.backbone

    @property
    def percent(self) -> str:
        """The share in percent, with two digits behind the point or, if it is smaller, two that say something."""
        return f"{self.share:.2%}" if self.share >= 0.001 else f"{100 * self.share:.2g}%"
