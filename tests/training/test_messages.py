"""What is said where other libraries work: downloads, rows, and compilers that fail."""

from __future__ import annotations

import io
import os

import pytest
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from rich.console import Console
from transformers import AutoConfig

from ptv2kit.errors import ConfigError
from ptv2kit.models.checkpoints import silence_libraries
from ptv2kit.models.counts import ParameterCount
from ptv2kit.models.families import set_dropout
from ptv2kit.training.console import RowsConsole
from ptv2kit.training.run import torch_errors


@pytest.mark.parametrize("quiet", [False, True])
def test_downloads_show_their_progress_unless_all_is_quiet(quiet: bool) -> None:
    before = are_progress_bars_disabled()
    try:
        silence_libraries(quiet=quiet)
        assert are_progress_bars_disabled() is quiet
    finally:
        (disable_progress_bars if before else enable_progress_bars)()


@pytest.mark.parametrize("given", [{}, {"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "3", "RAYON_NUM_THREADS": "2"}])
def test_a_tokenizer_has_the_threads_that_the_user_allows(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    silence_libraries()
    threads = os.environ.get("RAYON_NUM_THREADS")
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert threads == given.get("RAYON_NUM_THREADS", given.get("OMP_NUM_THREADS"))


def test_no_display_is_started_before_there_are_rows() -> None:
    """A display within which a download draws its bar would spoil both."""
    written = io.StringIO()
    with RowsConsole(Console(file=written, force_terminal=True, width=80)) as rows:
        assert not written.getvalue()
        rows.on_rows("encoding train", 1, 2)
        assert "encoding train" in written.getvalue()


def test_a_compiler_that_fails_is_an_error_with_a_way_out() -> None:
    error = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})
    with (
        pytest.raises(ConfigError, match="the backbone cannot be compiled: TypeError") as caught,
        torch_errors((), None),
    ):
        raise error("TypeError: cannot determine truth value")
    assert "set train.compile: false" in str(caught.value)
    with pytest.raises(RuntimeError, match="another"), torch_errors((), None):
        raise RuntimeError("another")


@pytest.mark.parametrize(("trained", "percent"), [(1_000, "100.00%"), (3, "0.30%"), (1, "0.10%")])
def test_shares_have_two_digits(trained: int, percent: str) -> None:
    assert ParameterCount(backbone=1_000, prompt=trained, head=0).percent == percent
    assert ParameterCount(backbone=100_000_000, prompt=1_755, head=0).percent == "0.0018%"


def test_a_dropout_that_a_model_does_not_have_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"set backbone\.dropout: 0"):
        set_dropout(AutoConfig.for_model("llama"), "llama", 0.1, None)
