"""Attention behind a long prompt, in three equal forms: which one is the cheapest?

`joined`: the prompt's keys and values in front of each row's own, one scaled dot product attention (what ptv2kit does).
`merged`: the prompt once for all rows, the row's own tokens apart, and both results merged by their log-sum-exp.
`scores`: the scores of both beside each other, one softmax, and two products with the values.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

EXAMPLES = """examples:
  python benchmarks/long_prompt.py
  python benchmarks/long_prompt.py --batch-sizes 8 --lengths 128 --rounds 40
"""
Form = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def joined(query: Tensor, key: Tensor, value: Tensor, prompt_key: Tensor, prompt_value: Tensor, mask: Tensor) -> Tensor:
    """The context `[batch, heads, length, head_dim]`, as are query, key and value.

    Prompts are `[1, heads, prompt, head_dim]`, the mask `[batch, 1, 1, length]`.
    """
    rows, columns = len(query), prompt_key.shape[2]
    whole_key = torch.cat([prompt_key.expand(rows, -1, -1, -1), key], dim=2)
    whole_value = torch.cat([prompt_value.expand(rows, -1, -1, -1), value], dim=2)
    return F.scaled_dot_product_attention(query, whole_key, whole_value, F.pad(mask, (columns, 0), value=True))


def _of_prompt(query: Tensor, prompt_key: Tensor) -> Tensor:
    """Scores `[batch, heads, length, prompt]`, computed for all rows in one product for each head."""
    rows, heads, length, width = query.shape
    flat = query.transpose(0, 1).reshape(heads, rows * length, width)
    return (flat @ prompt_key[0].transpose(1, 2)).view(heads, rows, length, -1).transpose(0, 1)


def _values_of_prompt(weights: Tensor, prompt_value: Tensor) -> Tensor:
    """The weighted values of the prompt `[batch, heads, length, head_dim]`, in one product for each head."""
    rows, heads, length, columns = weights.shape
    flat = weights.transpose(0, 1).reshape(heads, rows * length, columns)
    return (flat @ prompt_value[0]).view(heads, rows, length, -1).transpose(0, 1)


def merged(query: Tensor, key: Tensor, value: Tensor, prompt_key: Tensor, prompt_value: Tensor, mask: Tensor) -> Tensor:
    """As `joined`."""
    scaled = query / math.sqrt(query.shape[-1])
    own_scores = (scaled @ key.transpose(2, 3)).masked_fill(~mask, -math.inf)
    prompt_scores = _of_prompt(scaled, prompt_key)
    own_sum, prompt_sum = own_scores.logsumexp(-1, keepdim=True), prompt_scores.logsumexp(-1, keepdim=True)
    own = (own_scores - own_sum).exp() @ value
    of_prompt = _values_of_prompt((prompt_scores - prompt_sum).exp(), prompt_value)
    share = torch.sigmoid(prompt_sum - own_sum)
    return own + share * (of_prompt - own)


def scores(query: Tensor, key: Tensor, value: Tensor, prompt_key: Tensor, prompt_value: Tensor, mask: Tensor) -> Tensor:
    """As `joined`."""
    scaled = query / math.sqrt(query.shape[-1])
    own_scores = (scaled @ key.transpose(2, 3)).masked_fill(~mask, -math.inf)
    prompt_scores = _of_prompt(scaled, prompt_key)
    weights = torch.cat([prompt_scores, own_scores], dim=-1).softmax(-1)
    of_prompt, own = weights.split([prompt_scores.shape[-1], own_scores.shape[-1]], dim=-1)
    return _values_of_prompt(of_prompt, prompt_value) + own @ value


FORMS: dict[str, Form] = {"joined": joined, "merged": merged, "scores": scores}


def seconds(form: Form, inputs: tuple[Tensor, ...], *, training: bool) -> float:
    """CPU seconds of one layer's attention; while training with its backward pass."""
    for tensor in inputs[:5]:
        tensor.requires_grad_(training)
        tensor.grad = None
    began = time.process_time()
    with torch.enable_grad() if training else torch.inference_mode():
        context = form(*inputs)
        if training:
            context.sum().backward()
    return time.process_time() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--prompt-lengths", type=int, nargs="+", default=[20, 128], help="default: %(default)s")
    add("--batch-sizes", type=int, nargs="+", default=[8, 32], help="default: %(default)s")
    add("--lengths", type=int, nargs="+", default=[32, 128], help="default: %(default)s")
    add("--heads", type=int, default=12, help="of 64; default: %(default)s, as BERT-base")
    add("--rounds", type=int, default=15, help="turns of each form; default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    print(f"{'prompt':>6} {'rows':>5} {'length':>6} {'pass':>9}   {'joined ms':>10}", end="")
    print(f" {'merged / joined':>16} {'scores / joined':>16}")
    for columns in options.prompt_lengths:
        for rows in options.batch_sizes:
            for length in options.lengths:
                own = [torch.randn(rows, options.heads, length, 64) for _ in range(3)]
                prompt = [torch.randn(1, options.heads, columns, 64) for _ in range(2)]
                real = torch.randint(length // 2, length + 1, (rows,))
                mask = (torch.arange(length) < real[:, None])[:, None, None, :]
                inputs = (*own, *prompt, mask)
                with torch.no_grad():
                    expected = joined(*inputs)
                    for form in FORMS.values():
                        torch.testing.assert_close(form(*inputs), expected, atol=1e-5, rtol=1e-4)
                for training in (False, True):
                    taken: dict[str, list[float]] = {name: [] for name in FORMS}
                    for _ in range(options.rounds + 1):
                        for name, form in FORMS.items():
                            taken[name].append(seconds(form, inputs, training=training))
                    first = statistics.median(taken["joined"][1:])
                    ratios = [
                        statistics.median(a / b for a, b in zip(taken[name][1:], taken["joined"][1:], strict=True))
                        for name in ("merged", "scores")
                    ]
                    kind = "training" if training else "inference"
                    print(
                        f"{columns:>6} {rows:>5} {length:>6} {kind:>9}   {first * 1000:>10.1f} "
                        f"{ratios[0]:>16.2f} {ratios[1]:>16.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
