"""Which tokens of a context also stand in the query, and in how long a run: a lexical hint the critic reads as input.

A subword vocabulary spells rare names, identifiers and whole scripts letter by letter. Attention has to compare such
words piece by piece; the length of a shared run says at once that two of them are the same, in any language.
"""

from __future__ import annotations

import torch
from torch import Tensor

EXCLUDED = -1  # a context position that matches nothing
ABSENT = -2  # a query position that matches nothing


def match_runs(context: Tensor, query: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Length of the longest run of neighbouring tokens, shared by both sides, that each token is part of.

    Args:
        context (int64, (w, n)): token ids of each window; `EXCLUDED` where nothing may match.
        query (int64, (w or 1, q)): token ids of its query; `ABSENT` where nothing may match.
        limit: longer runs count as this long.

    Returns:
        int64, (w, n) and (w, q): 0 for tokens without a match, at most ``limit``.
    """
    equal = context[:, :, None] == query[:, None, :]  # (w, n, q)
    of_context = torch.zeros(equal.shape[:2], dtype=torch.long, device=context.device)
    of_query = torch.zeros(equal.shape[0], equal.shape[2], dtype=torch.long, device=context.device)
    runs = equal  # whether a run of ``length`` tokens ends here
    for length in range(1, limit + 1):
        if length > 1:
            longer = torch.zeros_like(runs)
            longer[:, 1:, 1:] = runs[:, :-1, :-1]
            runs = longer & equal
            if runs.device.type == "cpu" and not bool(runs.any()):  # elsewhere asking costs more than going on
                break
        of_context.masked_fill_(_covered(runs.any(dim=2), length), length)
        of_query.masked_fill_(_covered(runs.any(dim=1), length), length)
    return of_context, of_query


def _covered(ends: Tensor, length: int) -> Tensor:
    """bool, (w, n): tokens within the ``length`` tokens up to an end."""
    covered = ends.clone()
    for back in range(1, min(length, ends.shape[1])):
        covered[:, :-back] |= ends[:, back:]
    return covered
