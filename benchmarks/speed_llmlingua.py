"""Seconds of LLMLingua-2 on one text, as JSON: ``speed_llmlingua.py SHAPE MINILM_FOLDER TEXT_FILE THREADS``.

Runs in an interpreter that has llmlingua and nothing of ours. The models have the published shapes and random weights.
Their tokenizers cannot be had offline: pieces are those of MiniLM's vocabulary, spelled as the shape spells them. The
tokenizer that llmlingua counts OpenAI's tokens with is replaced by MiniLM's, for the same reason; it is no slower.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tiktoken
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast, PreTrainedTokenizerFast
from transformers import XLMRobertaConfig as RobertaConfig
from transformers import XLMRobertaForTokenClassification as RobertaForTokenClassification


def save_bert(folder: Path, minilm: Path) -> None:
    """BERT base, multilingual, cased: 12 layers of 768, 119,547 words."""
    BertForTokenClassification(BertConfig(vocab_size=119_547, num_labels=2)).save_pretrained(folder)
    BertTokenizerFast.from_pretrained(str(minilm)).save_pretrained(folder)


def save_roberta(folder: Path, minilm: Path) -> None:
    """XLM-RoBERTa large: 24 layers of 1,024, 250,002 words."""
    config = RobertaConfig(
        vocab_size=250_002,
        hidden_size=1_024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4_096,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=2,
    )
    RobertaForTokenClassification(config).save_pretrained(folder)
    words = Tokenizer.from_file(str(minilm / "tokenizer.json")).get_vocab()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [word.removeprefix("##") if word.startswith("##") else "▁" + word for word in words if word[0] != "["]
    scored = [(piece, 0.0) for piece in special] + [(piece, -8.0) for piece in dict.fromkeys([*pieces, "▁"])]
    backend = Tokenizer(models.Unigram(scored, unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(folder)


def main() -> None:
    shape, minilm, text, threads = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]).read_text("utf-8"), sys.argv[4]
    torch.set_num_threads(int(threads))
    counter = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    counter.no_truncation()
    counter.no_padding()
    substitute: Any = SimpleNamespace(encode=lambda part, **_: counter.encode(part, add_special_tokens=False).ids)
    tiktoken.encoding_for_model = lambda _: substitute
    from llmlingua import PromptCompressor

    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / shape  # llmlingua goes by the name
        folder.mkdir()
        (save_roberta if shape.startswith("xlm") else save_bert)(folder, minilm)
        compressor = PromptCompressor(str(folder), device_map="cpu", use_llmlingua2=True)
        compressor.compress_prompt(text[:2_000], rate=0.33)
        began = time.perf_counter()
        compressor.compress_prompt(text, rate=0.33)
        print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
