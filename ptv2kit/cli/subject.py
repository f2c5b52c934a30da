"""What `preview` and `validate --data` look at: a task with a tokenizer, without weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.tokens import Filling, Subwords
from ptv2kit.data.verbalizer import check_task_words
from ptv2kit.errors import ConfigError
from ptv2kit.models.checkpoints import find_checkpoint, load_tokenizer, silence_libraries
from ptv2kit.spec.load import ResolvedRecipe, ResolvedTask
from ptv2kit.spec.recipe import Backbone

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNLIMITED = 1_000_000


def positive(option: str, value: int) -> int:
    """The value of an option that counts something.

    Raises:
        ConfigError: it is below 1.
    """
    if value < 1:
        raise ConfigError(f"{option} must be at least 1. Got {value}")
    return value


@final
@dataclass(frozen=True)
class Subject:
    """A task as a backbone would read it.

    Args:
        max_length: longest input in sub-words.
        prompt_length: of the recipe, 0 without one.
        filling: how the backbone is asked for a missing word.
        vocabulary: embeddings of the backbone.
    """

    resolved: ResolvedTask
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    prompt_length: int
    filling: Filling
    vocabulary: int

    def schemes(self, train: Iterable[Row]) -> tuple[LabelScheme, LabelScheme, Subwords]:
        """The task's scheme, the same without a limit of length, and the sub-words of the first.

        Raises:
            ConfigError: a verbalizer's words cannot be used with this tokenizer.
            DataError: the labels cannot be found in the training rows.
        """
        subwords = Subwords(self.tokenizer, self.max_length, self.filling, self.vocabulary)
        unlimited = Subwords(self.tokenizer, _UNLIMITED, self.filling, self.vocabulary)
        task = self.resolved.task
        check_task_words(task, subwords, self.resolved.merged)
        scheme = build_scheme(task, subwords, train)
        return scheme, build_scheme(task.with_names(scheme.names), unlimited, ()), subwords


def find_subjects(
    resolved: ResolvedRecipe | ResolvedTask, backbone: str | None, max_length: int | None = None
) -> list[Subject]:
    """Each task of a recipe, or the one of a task file, with a tokenizer.

    Args:
        backbone: whose tokenizer; None: the recipe's, or `mini`.
        max_length: instead of the file's own.

    Raises:
        ConfigError: the backbone is not supported or has no usable tokenizer.
        DataError: it could not be loaded.
    """
    recipe = resolved.recipe if isinstance(resolved, ResolvedRecipe) else None
    tasks = resolved.tasks if isinstance(resolved, ResolvedRecipe) else (resolved,)
    settings = (
        recipe.backbone_settings if recipe is not None and backbone is None else Backbone(name=backbone or "mini")
    )
    silence_libraries()
    spec = find_checkpoint(settings)
    filling: Filling = "masks"
    if any(found.task.head == "verbalizer" for found in tasks):
        from ptv2kit.models.backbones import find_backbone  # it needs the model's code, and seconds

        filling = find_backbone(settings).filling
    own = None if recipe is None else recipe.train.max_length
    return [
        Subject(
            found,
            load_tokenizer(spec, words=found.task.reads_words),
            max_length or own or found.task.input.max_length,
            0 if recipe is None else recipe.prompt_length,
            filling,
            spec.vocabulary,
        )
        for found in tasks
    ]
