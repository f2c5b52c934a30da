"""Trained vectors in the input, as of P-tuning v1 and of the official GLM code."""

from __future__ import annotations

from typing import Literal, final

from torch import Tensor, nn

Encoder = Literal["none", "mlp", "lstm"]


@final
class InputPrompt(nn.Module):
    """Vectors that stand in for word embeddings at the prompt's places.

    They are trained as they are, or are what a network makes of trained vectors. `mlp`: linear → ReLU → linear. `lstm`:
    a bidirectional LSTM of two layers over all of them, then the same. After training only the output is needed.

    This is `PromptSpell` of THUDM/GLM (`model/prompt.py`), and the prompt encoder of P-tuning for SuperGLUE (Liu et
    al., "GPT Understands, Too", arXiv:2103.10385, section 3.2).

    Args:
        length: number of vectors.
        encoder: what the vectors go through; its weights start as torch starts them.
        init_scale: standard deviation of the normal distribution of the initial vectors.
    """

    def __init__(self, length: int, hidden_size: int, encoder: Encoder = "none", init_scale: float = 0.02) -> None:
        super().__init__()
        self.encoder: Encoder = encoder
        self.embedding = nn.Embedding(length, hidden_size)
        nn.init.normal_(self.embedding.weight, std=init_scale)
        width = hidden_size
        if encoder == "lstm":
            self.lstm = nn.LSTM(hidden_size, hidden_size, num_layers=2, bidirectional=True, batch_first=True)
            width = 2 * hidden_size
        if encoder != "none":
            self.mlp = nn.Sequential(nn.Linear(width, hidden_size), nn.ReLU(), nn.Linear(hidden_size, hidden_size))

    def forward(self) -> Tensor:
        """The vectors, `[length, hidden]`."""
        vectors = self.embedding.weight
        if self.encoder == "lstm":
            vectors = self.lstm(vectors)[0]
        return vectors if self.encoder == "none" else self.mlp(vectors)
