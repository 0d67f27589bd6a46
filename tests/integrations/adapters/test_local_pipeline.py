"""A model in this process, a tiny Qwen2 with random weights: its layers read the compressed text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from llama_index.core import SummaryIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import TextNode
from pydantic import ConfigDict
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, TextGenerationPipeline

from cprs_integrations.langchain import CPRSChatModel
from cprs_integrations.llama_index import CPRSLLM

from .chat_cases import CONTEXT, EVIDENCE, FILLER, PROMPT, QUESTION, SYSTEM, compressor

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "<|im_start|>assistant\n"
)


class TinyQwen:
    """A tokenizer and a causal LM, and the texts that reached the LM."""

    def __init__(self) -> None:
        special = ["<unk>", "<|im_start|>", "<|im_end|>"]
        words = Whitespace().pre_tokenize_str(f"{PROMPT} {SYSTEM} system user assistant")
        vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*special, *(word for word, _ in words)]))}
        backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
        backend.pre_tokenizer = Whitespace()
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            unk_token="<unk>",
            eos_token="<|im_end|>",
            pad_token="<|im_end|>",
            additional_special_tokens=["<|im_start|>"],
        )
        self.tokenizer.chat_template = TEMPLATE
        torch.manual_seed(0)
        self.model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(vocabulary),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                max_position_embeddings=8_192,
            )
        ).eval()
        self.read: list[str] = []
        self.model.model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, arguments: Any, named: dict[str, Any]) -> None:
        ids = named.get("input_ids")
        if ids is not None and ids.shape[1] > 1:  # the prompt; generated tokens come one by one
            self.read.append(self.tokenizer.decode(ids[0]))


class PipelineChat(SimpleChatModel):
    """A transformers pipeline as a LangChain chat model."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    pipeline: Any

    @property
    def _llm_type(self) -> str:
        return "transformers-pipeline"

    def _call(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
        roles = {"human": "user", "ai": "assistant"}
        chat = [{"role": roles.get(message.type, message.type), "content": message.text} for message in messages]
        output = self.pipeline(chat, max_new_tokens=2, do_sample=False)
        return str(output[0]["generated_text"][-1]["content"])


@pytest.fixture(scope="module")
def tiny() -> TinyQwen:
    return TinyQwen()


def assert_shortened(read: str) -> None:
    words = " ".join(word for word, _ in Whitespace().pre_tokenize_str(EVIDENCE))
    assert words in " ".join(word for word, _ in Whitespace().pre_tokenize_str(read))
    assert FILLER[:30] not in read
    assert "Who signed the lease" in read


async def test_langchain_with_a_transformers_pipeline(tiny: TinyQwen) -> None:
    pipeline = TextGenerationPipeline(model=tiny.model, tokenizer=tiny.tokenizer)
    model = CPRSChatModel(model=PipelineChat(pipeline=pipeline), compressor=compressor(), threshold=0.05)
    tiny.read.clear()
    messages = [SystemMessage(SYSTEM), HumanMessage(PROMPT)]
    assert model.invoke(messages).text == (await model.ainvoke(messages)).text
    assert len(tiny.read) == 2
    for read in tiny.read:
        assert_shortened(read)


def test_llama_index_with_a_transformers_model(tiny: TinyQwen) -> None:
    huggingface = pytest.importorskip(
        "llama_index.llms.huggingface",
        reason="needs the package 'llama-index-llms-huggingface': pip install 'cprs-integrations[clients]'",
    )
    inside = huggingface.HuggingFaceLLM(
        model=tiny.model,
        tokenizer=tiny.tokenizer,
        is_chat_model=True,
        context_window=8_192,
        max_new_tokens=2,
        generate_kwargs={"do_sample": False},
    )
    llm = CPRSLLM(llm=inside, compressor=compressor(), threshold=0.05)
    tiny.read.clear()
    llm.chat([ChatMessage(role="system", content=SYSTEM), ChatMessage(role="user", content=PROMPT)])
    "".join(chunk.delta or "" for chunk in llm.stream_chat([ChatMessage(role="user", content=PROMPT)]))
    SummaryIndex([TextNode(text=CONTEXT)]).as_query_engine(llm=llm).query(QUESTION)
    assert len(tiny.read) == 3
    for read in tiny.read:
        assert_shortened(read)
