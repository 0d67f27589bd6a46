"""A chat model that follows a script and remembers what it was sent."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field


class ScriptedChatModel(BaseChatModel):
    """Answers with the messages of a script, one a call; ``requests`` are the histories that it was sent."""

    script: list[AIMessage]
    requests: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> ScriptedChatModel:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> ChatResult:
        self.requests.append(list(messages))
        return ChatResult(generations=[ChatGeneration(message=self.script[len(self.requests) - 1])])


def calls(name: str, *arguments: dict[str, Any], first: int = 0) -> AIMessage:
    """An assistant message that calls one tool once per ``arguments``."""
    return AIMessage(
        "", tool_calls=[{"id": f"c{first + n}", "name": name, "args": args} for n, args in enumerate(arguments)]
    )
