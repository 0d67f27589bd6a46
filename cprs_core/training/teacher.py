"""What the backbone knew before training: how alike two texts are, even where they share no word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cprs_core.critics.encoder import Encoder


@torch.inference_mode()
def embed(
    encoder: Encoder,
    tokens: NDArray,
    starts: NDArray[np.int64],
    cls: int,
    sep: int,
    device: torch.device,
    batch_tokens: int = 262_144,
) -> Tensor:
    """Mean-pooled unit embeddings of token sequences, as all-MiniLM-L6-v2 makes them.

    Args:
        tokens: all sequences end to end; starts (int64, (n + 1,)): where each begins, and the end.

    Returns:
        float16, (n, hidden), on ``device``.
    """
    longest = encoder.config.max_positions - 2
    lengths = np.minimum(np.diff(starts), longest)
    result = torch.zeros((len(lengths), encoder.config.hidden_size), dtype=torch.float16, device=device)
    order = np.argsort(lengths, kind="stable")
    ascending = lengths[order]
    at = 0
    while at < len(order):
        length = int(ascending[at])
        same = int(np.searchsorted(ascending, length, side="right"))
        rows = order[at : min(same, at + max(1, batch_tokens // (length + 2)))]
        ids = np.full((len(rows), length + 2), sep, dtype=np.int64)
        ids[:, 0] = cls
        ids[:, 1:-1] = tokens[starts[rows][:, None] + np.arange(length)]
        flat = torch.from_numpy(ids.ravel()).to(device)
        positions = torch.arange(length + 2, device=device).repeat(len(rows))
        hidden = encoder(flat, positions, torch.zeros_like(flat), None, [(len(rows), length + 2)])
        pooled = hidden.float().view(len(rows), length + 2, -1).mean(dim=1)
        result[torch.from_numpy(rows).to(device)] = F.normalize(pooled, dim=-1).half()
        at += len(rows)
    return result


def neighbours(
    embeddings: Tensor, words: Sequence[str], rows: Sequence[int], vocab_size: int, count: int = 4
) -> NDArray[np.int32]:
    """Words of similar meaning but another stem.

    Args:
        embeddings (float16, (n, hidden)): of ``words``, whose vocabulary rows are ``rows``.

    Returns:
        int32, (vocab_size, count): vocabulary rows, -1 where there are fewer or none is close.
    """
    table = np.full((vocab_size, count), -1, dtype=np.int32)
    row_of = np.array(rows)
    for begin in range(0, len(words), 4096):
        likeness, nearest = (embeddings[begin : begin + 4096] @ embeddings.T).float().topk(min(12, len(words)), dim=1)
        for i, (values, others) in enumerate(zip(likeness.tolist(), nearest.tolist(), strict=True)):
            word = words[begin + i]
            close = [
                int(row_of[other])
                for value, other in zip(values, others, strict=True)
                if value > 0.6 and words[other][:4] != word[:4]
            ][:count]
            table[row_of[begin + i], : len(close)] = close
    return table


def most_alike(
    queries: Tensor,
    sentences: Tensor,
    query_documents: NDArray[np.int32],
    sentence_documents: NDArray[np.int64],
    count: int = 16,
    chunk: int = 512,
) -> NDArray[np.int32]:
    """Sentences of other documents that are most like each query.

    Args:
        queries (float16, (q, hidden)), sentences (float16, (s, hidden)): unit embeddings.
        query_documents (q,), sentence_documents (s,): the document of each.

    Returns:
        int32, (q, count): indices of sentences, best first; -1 where there are fewer.
    """
    found = np.full((len(queries), count), -1, dtype=np.int32)
    if not len(sentences):
        return found
    for begin in range(0, len(queries), chunk):
        part = queries[begin : begin + chunk]
        likeness = part @ sentences.T if part.is_cuda else part.float() @ sentences.float().T
        nearest = likeness.topk(min(2 * count, len(sentences)), dim=1).indices.cpu().numpy()
        own = query_documents[begin : begin + len(part), None]
        for row, (indices, right) in enumerate(zip(nearest, sentence_documents[nearest] != own, strict=True)):
            others = indices[right][:count]
            found[begin + row, : len(others)] = others
    return found
