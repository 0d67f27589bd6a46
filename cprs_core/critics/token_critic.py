"""The token critic: position labels times tag words (QwenLong-CPRS, arXiv 2505.18092, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cprs_core.critics.encoder import Encoder, EncoderConfig
from cprs_core.critics.matching import ABSENT, EXCLUDED, match_runs
from cprs_core.scorer import LABELS, OUTSIDE


class TokenCritic(nn.Module):
    """An encoder with two heads on its last hidden state.

    The position head says begin, inside, outside or end. The language-model head, tied to the word embeddings, says how
    well a word of the vocabulary names the kind of thing that a token belongs to; it is read at the rows of the tag
    words that the instruction names and of one word for "nothing of the kind".
    """

    def __init__(self, config: EncoderConfig, outside_word: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.encoder = Encoder(config)
        self.position_head = nn.Linear(hidden, len(LABELS))
        self.tag_transform = nn.Linear(hidden, hidden)
        self.tag_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.tag_scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("outside_word", torch.tensor(outside_word))
        self.outside_word: Tensor

    def match_rows(self, ids: Tensor, parts: Tensor, asked: Tensor, unknown: int) -> Tensor:
        """Rows of the encoder's match embedding.

        Args:
            ids (int64, (w, n)): windows, prefix included, padded at the end with anything whose part is -1.
            parts (int64, (w, n)): 0 prefix, 1 context, -1 padding.
            asked (int64, (w or 1, 2)): range of each prefix that says what is looked for. It may lie on the host;
                nothing waits for the device then.
            unknown: the id that stands for many words, and so matches none.

        Returns:
            int64, (w, n): 0 for tokens that are neither context nor asked for.
        """
        limit = self.encoder.config.match_limit
        begin, end = int(asked[:, 0].min()), int(asked[:, 1].max())
        asked = asked.to(ids.device, non_blocking=True)
        places = torch.arange(begin, end, device=ids.device)
        is_asked = (places >= asked[:, :1]) & (places < asked[:, 1:])  # (w, end - begin)
        known = ids != unknown
        query = torch.where(is_asked & known[:, begin:end], ids[:, begin:end], ABSENT)
        of_context, of_query = match_runs(torch.where((parts == 1) & known, ids, EXCLUDED), query, limit)
        rows = of_context
        rows[:, begin:end] += torch.where(is_asked, of_query + limit + 1, 0)
        return rows

    def tag_rows(self, tags: list[Tensor]) -> Tensor:
        """Vocabulary rows that the tag head is read at.

        Args:
            tags: int64 (pieces,) ids of each tag word; several pieces are averaged.

        Returns:
            float, (tags + 1, hidden): the row of "outside" first.
        """
        words = self.encoder.words.weight
        return torch.stack([words[self.outside_word], *(words[ids].mean(dim=0) for ids in tags)])

    def tag_logits(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """How well each row's word names a token: (..., n, hidden) x (..., words, hidden) -> (..., n, words)."""
        named = self.tag_norm(F.gelu(self.tag_transform(hidden)))
        return self.tag_scale * (named @ rows.transpose(-1, -2))

    def forward(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Label probabilities: the product of both heads.

        Args:
            hidden (float, (n, hidden)): last hidden states of context tokens.
            rows (float, (tags + 1, hidden)): as made by `tag_rows`.

        Returns:
            float32, (n, tags * 4): per tag B, I, O, E, summing to 1.
        """
        positions = self.position_head(hidden).float().softmax(dim=-1)  # (n, 4)
        tags = self.tag_logits(hidden, rows).float().softmax(dim=-1)[:, 1:]  # (n, tags)
        scores = positions[:, None, :] * tags[:, :, None]  # (n, tags, 4)
        scores[:, :, OUTSIDE] = 0.0
        scores[:, :, OUTSIDE] = 1.0 - scores.sum(dim=-1)
        return scores.flatten(1)
