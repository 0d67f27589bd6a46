"""The small critic's body: a BERT-shaped encoder over packed windows.

Windows of unequal length lie end to end in one row of tokens, so linear layers never see padding; only attention
looks at windows apart: one length at a time, or, where many small steps cost more, all of them at once, in a kernel
that knows where windows end or in rows filled up to one length. The tests hold them against transformers'
``BertModel`` with padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cprs_core.critics.kernels import attention, packed_attention, takes_packed


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of a BERT-like encoder (Devlin et al., arXiv 1810.04805; MiniLM, arXiv 2002.10957)."""

    vocab_size: int
    hidden_size: int = 384
    layers: int = 6
    heads: int = 12
    intermediate_size: int = 1536
    max_positions: int = 512
    layer_norm_eps: float = 1e-12
    match_limit: int = 8

    @property
    def match_kinds(self) -> int:
        """Rows of the match embedding: run lengths 0..limit of context tokens, then the same of query tokens."""
        return 2 * (self.match_limit + 1)


Groups = list[tuple[int, int]]  # (windows, length) of each run of equally long windows, in order


@dataclass(frozen=True)
class Padding:
    """Where packed tokens stand in rows of one length, one row for each window, filled up at the end.

    Attributes:
        source (int64, (windows * length,)): the packed token at each place; the window's last where a row is filled up.
        places (int64, (total,)): the place of each packed token.
        is_token (bool, (windows, length)): false where a row is filled up.
        borders (int32, (windows + 1,)): where each window begins in the packed tokens, and the end of the last.
    """

    source: Tensor
    places: Tensor
    is_token: Tensor
    borders: Tensor

    @classmethod
    def of(cls, lengths: Tensor, places: Tensor, length: int) -> Padding:
        """For windows of these lengths (int64, (windows,)); nothing is asked of the device."""
        column = torch.arange(length, device=lengths.device)
        borders = F.pad(lengths.cumsum(0), (1, 0))  # (windows + 1,)
        source = borders[:-1, None] + torch.minimum(column, lengths[:, None] - 1)  # (windows, length)
        return cls(source.flatten(), places, column < lengths[:, None], borders.int())

    def pad(self, x: Tensor) -> Tensor:
        """Packed tokens in rows: (total, ...) -> (windows, length, ...)."""
        return x.index_select(0, self.source).view(*self.is_token.shape, *x.shape[1:])

    def pack(self, rows: Tensor) -> Tensor:
        """Rows without what fills them up: (windows, length, ...) -> (total, ...)."""
        return rows.flatten(0, 1).index_select(0, self.places)


class EncoderLayer(nn.Module):
    """Post-norm self-attention and feed-forward, as in BERT."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.heads = config.heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.up = nn.Linear(hidden, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, hidden)
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, layout: Groups | Padding) -> Tensor:
        """One layer over packed tokens.

        Args:
            x (float, (total, hidden)): tokens of all windows end to end; with groups, equal lengths next to each other.
            layout: the windows' lengths as groups, whose products sum to ``total``, or as padding.
        """
        x = self.attention_norm(x + self.attention_out(self.attend(self.qkv(x), layout)))
        return self.norm(x + self.down(F.gelu(self.up(x))))

    def attend(self, qkv: Tensor, layout: Groups | Padding) -> Tensor:
        """Attention inside each window: (total, 3 * hidden) -> (total, hidden)."""
        if isinstance(layout, Padding):
            q, k, v = qkv.view(len(qkv), 3, self.heads, -1).unbind(1)  # each (total, heads, d)
            if takes_packed(q):
                return packed_attention(q, k, v, layout.borders, layout.is_token.shape[1]).flatten(1)
            # One row of the mask serves all heads and queries; what the queries that fill up find is thrown away.
            return layout.pack(self._attend(layout.pad(qkv), layout.is_token[:, None, None]))
        sizes = [windows * length for windows, length in layout]
        attended = [
            self._attend(part.view(windows, length, -1)).flatten(0, 1)
            for part, (windows, length) in zip(torch.split(qkv, sizes), layout, strict=True)
        ]
        return attended[0] if len(attended) == 1 else torch.cat(attended)

    def _attend(self, qkv: Tensor, mask: Tensor | None = None) -> Tensor:
        """(windows, length, 3 * hidden) -> (windows, length, hidden)."""
        heads = qkv.view(*qkv.shape[:2], 3, self.heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (windows, heads, length, d)
        return attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Encoder(nn.Module):
    """Word, position, part and match embeddings, then the layers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_positions, config.hidden_size)
        self.parts = nn.Embedding(2, config.hidden_size)  # 0: instruction and query, 1: context
        self.matches = nn.Embedding(config.match_kinds, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def forward(
        self, ids: Tensor, positions: Tensor, parts: Tensor, matches: Tensor | None, layout: Groups | Padding
    ) -> Tensor:
        """Last hidden state of every token.

        Args:
            ids, positions, parts (int64, (total,)): token id, position inside its window, and part (0 or 1).
            matches (int64, (total,)): row of the match embedding, see `EncoderConfig.match_kinds`; None for a plain
                encoder, without a query.
            layout: see `EncoderLayer.forward`.

        Returns:
            float, (total, hidden).
        """
        x = self.words(ids) + self.positions(positions) + self.parts(parts)  # (total, hidden)
        if matches is not None:
            x = x + self.matches(matches)
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, layout)
        return x
