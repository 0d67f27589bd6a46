"""The hybrid critic: a Qwen decoder whose upper layers attend in both directions, and its heads.

QwenLong-CPRS (arXiv 2505.18092). The layers are transformers' own; one flag per layer makes the hybrid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from cprs_core.critics.kernels import window_attention
from cprs_core.scorer import LABELS, OUTSIDE

MODEL_TYPES = ("qwen2", "qwen3")
_ATTENTION = "cprs_windows"  # what transformers knows `window_attention` by
# Layers of one kind share a graph, but each GPU and length may need its own; beyond torch's default of 8 none is made.
_MOST_GRAPHS = 64


class HybridCritic(nn.Module):
    """A decoder with a position head and, where it keeps one, a language-model head read at tag words.

    Layers below ``bidirectional_from`` are causal, those from there on see the whole window. Windows are run unpadded:
    a padding mask would silently make every layer causal again.
    """

    def __init__(
        self,
        base: Any,
        bidirectional_from: int,
        *,
        tag_head: str | None = None,
        outside_ids: Sequence[int] = (),
        head_bias: bool = True,
    ) -> None:
        """A critic with new weights.

        Args:
            base: a transformers config of one of `MODEL_TYPES`.
            bidirectional_from: index of the first layer that attends in both directions; the number of layers for none.
            tag_head: "lm_head" for a head of its own, "tied" for the word embeddings, None for positions alone.
            outside_ids: vocabulary rows of the word for "nothing of the kind"; empty where the model knows none.
            head_bias: whether the position head has a bias.
        """
        super().__init__()
        from transformers import AttentionInterface, AutoModel

        AttentionInterface.register(_ATTENTION, window_attention)
        self.model: Any = AutoModel.from_config(base, attn_implementation=_ATTENTION)  # type: ignore[no-untyped-call]
        for index, layer in enumerate(self.model.layers):
            layer.self_attn.is_causal = index < bidirectional_from
        self.cls_head = nn.Linear(base.hidden_size, len(LABELS), bias=head_bias)
        self.lm_head = nn.Linear(base.hidden_size, base.vocab_size, bias=False) if tag_head == "lm_head" else None
        self.bidirectional_from = bidirectional_from
        self.tag_head = tag_head
        self.outside_ids = tuple(outside_ids)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers, lowest first."""
        layers: nn.ModuleList = self.model.layers
        return layers

    @property
    def words(self) -> Tensor:
        """(vocabulary, hidden): rows that tag words are read at."""
        weight: Tensor = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return weight

    def forward(self, ids: Tensor) -> Tensor:
        """Last hidden states of windows of one length: int64 (w, n) -> float (w, n, hidden)."""
        # A dictionary of ready-made masks, all of them "none", keeps the model from building any.
        masks = {"full_attention": None, "sliding_attention": None}
        hidden: Tensor = self.model(input_ids=ids, attention_mask=masks, use_cache=False).last_hidden_state
        return hidden

    def tag_rows(self, tags: Sequence[Tensor]) -> Tensor | None:
        """Vocabulary rows that the language-model head is read at; the full vocabulary is never multiplied.

        Args:
            tags: int64 (pieces,) ids of each tag word; several pieces are averaged.

        Returns:
            float, (words, hidden): the row of "outside" first, where the model knows one; None where positions decide
            alone.
        """
        if self.tag_head is None or (not self.outside_ids and len(tags) == 1):
            return None
        rows = [self.words[ids].mean(dim=0) for ids in tags]
        if self.outside_ids:
            rows.insert(0, self.words[list(self.outside_ids)].mean(dim=0))
        return torch.stack(rows)

    def scores(self, hidden: Tensor, rows: Tensor | None, tags: int = 1) -> Tensor:
        """Label probabilities: the position head times, where there is one, the tag head.

        Args:
            hidden (float, (n, hidden)): last hidden states of context tokens.
            rows: as made by `tag_rows`.
            tags: number of tags.

        Returns:
            float32, (n, tags * 4): per tag B, I, O, E, summing to 1.
        """
        # With layers on several GPUs the head may lie on another one than the hidden states came back to.
        positions = self.cls_head(hidden).float().softmax(dim=-1).to(hidden.device)  # (n, 4)
        if rows is None:
            return positions.repeat(1, tags)
        named = (hidden @ rows.T.to(hidden)).float().softmax(dim=-1)[:, -tags:]  # (n, tags)
        scores = positions[:, None, :] * named[:, :, None]  # (n, tags, 4)
        scores[:, :, OUTSIDE] = 0.0
        scores[:, :, OUTSIDE] = 1.0 - scores.sum(dim=-1)
        return scores.flatten(1)

    def compile_layers(self, *, dynamic: bool, backend: str = "inductor") -> None:
        """Compiles every layer by itself, when it first runs; ``dynamic`` for windows of many lengths."""
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
        _keep_graphs_in_place()
        compiled = _compiler(backend, dynamic)
        for layer in self.layers:
            layer._compiled_call_impl = compiled(layer._call_impl)

    def rebuild_rotary(self, device: torch.device | int | str) -> None:
        """Computes the rotary frequencies on ``device``: they are in no checkpoint."""
        self.model.rotary_emb = type(self.model.rotary_emb)(config=self.model.config).to(device)


def _keep_graphs_in_place() -> None:
    """Stops torch from moving the graph used last to the front of a function's list, as it does after each call.

    A thread that asks the graphs of that list one by one, and waits at one while another thread asks it, misses the
    graph moved behind it meanwhile: it then compiles anew in the middle of a text. The list is short, its order free.
    """
    set_order: Callable[[bool], None] | None = getattr(torch._C._dynamo.eval_frame, "_set_lru_cache", None)
    if set_order is not None:
        set_order(False)


@cache
def _compiler(backend: str, dynamic: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """One for all layers of all GPUs.

    ``layer.compile()`` makes a backend of its own for each. A graph then fits another layer where the two compare
    as equal, and with several threads that comparison fails now and then: a GPU compiles anew in the middle of a text.
    """
    made: Callable[[Callable[..., Any]], Callable[..., Any]] = torch._dynamo.optimize(backend, dynamic=dynamic)
    return made
