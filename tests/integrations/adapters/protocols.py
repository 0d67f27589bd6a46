"""The providers' protocols, as strict as the providers: what they reject, and what they answer.

Each class reads request bodies. `problem` says why the provider would answer 400; `answer` and `events` are its reply
as one JSON body and as server-sent events. The reply is a call of the first tool until a tool result is there, an
object that fits the schema where one is asked for, and "Ada signed it." otherwise.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

ANSWER = "Ada signed it."
CALL_ID = "call_1"

Body = dict[str, Any]
Event = tuple[str | None, Body | str]  # name of the event, and its data

_TOOL_NAME = re.compile(r"[a-zA-Z_][\w-]{0,63}")


@dataclass(frozen=True)
class Reply:
    """What the model says: a text, or the call of a tool."""

    text: str = ""
    tool: str | None = None
    arguments: Body | None = None

    @property
    def pieces(self) -> list[str]:
        """The text in two pieces, for streams."""
        half = len(self.text) // 2
        return [self.text[:half], self.text[half:]]


def sample(schema: Body, root: Body | None = None) -> Any:
    """The simplest value that fits a JSON schema."""
    root = root or schema
    if "$ref" in schema:
        node: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            node = node[part]
        return sample(node, root)
    for choice in ("enum", "anyOf", "oneOf"):
        if choice in schema:
            return schema[choice][0] if choice == "enum" else sample(schema[choice][0], root)
    kind = str(schema.get("type", "object")).lower()
    if kind == "object":
        return {name: sample(part, root) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema.get("items", {"type": "string"}), root)]
    return {"integer": 3, "number": 3.0, "boolean": True, "null": None}.get(kind, "Ada")


def reply_to(tools: list[tuple[str, Body]], has_result: bool, schema: Body | None) -> Reply:
    if tools and not has_result:
        name, parameters = tools[0]
        return Reply(tool=name, arguments=sample(parameters))
    return Reply(text=json.dumps(sample(schema)) if schema else ANSWER)


def unpaired(calls: list[tuple[int, str]], results: list[tuple[int, str]]) -> str | None:
    """Why calls and results of tools do not belong together; positions are of messages or turns."""
    called = {id: position for position, id in calls}
    answered = {id: position for position, id in results}
    for id, position in answered.items():
        if id not in called or called[id] > position:
            return f"tool result {id!r} has no preceding tool call"
    for id in called:
        if id not in answered:
            return f"tool call {id!r} is not followed by a tool result"
    return None


def bad_tools(tools: list[tuple[Any, Any]]) -> str | None:
    for name, parameters in tools:
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            return f"tool name {name!r} is invalid"
        if not isinstance(parameters, dict) or str(parameters.get("type", "object")).lower() != "object":
            return f"parameters of tool {name!r} are no object schema"
    return None


class Chat:
    """OpenAI chat completions, and those who speak like it."""

    def __init__(self, roles: tuple[str, ...] = ("system", "developer", "user", "assistant", "tool")) -> None:
        self.roles = roles

    def problem(self, body: Body) -> str | None:
        messages = body.get("messages")
        if not isinstance(body.get("model"), str) or not isinstance(messages, list) or not messages:
            return "model and messages are required"
        calls: list[tuple[int, str]] = []
        results: list[tuple[int, str]] = []
        pending: set[str] = set()
        for position, message in enumerate(messages):
            role, content = message.get("role"), message.get("content")
            if role not in self.roles:
                return f"messages[{position}].role {role!r} is not one of {self.roles}"
            if role != "tool" and pending:
                return f"tool calls {sorted(pending)} must be followed by tool messages"
            if content is None and not (role == "assistant" and message.get("tool_calls")):
                return f"messages[{position}].content is required"
            if isinstance(content, list) and any("type" not in part for part in content):
                return f"messages[{position}].content has a part without type"
            for call in message.get("tool_calls") or []:
                calls.append((position, call["id"]))
                pending.add(call["id"])
                json.loads(call["function"]["arguments"])
            if role == "tool":
                if message.get("tool_call_id") not in pending:
                    return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
                results.append((position, message["tool_call_id"]))
                pending.discard(message["tool_call_id"])
        return unpaired(calls, results) or bad_tools(self._tools(body))

    def _tools(self, body: Body) -> list[tuple[Any, Any]]:
        functions = [tool.get("function", {}) for tool in body.get("tools") or []]
        return [(function.get("name"), function.get("parameters", {"type": "object"})) for function in functions]

    def _reply(self, body: Body) -> Reply:
        schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
        return reply_to(self._tools(body), body["messages"][-1]["role"] == "tool", schema)

    def answer(self, body: Body) -> Body:
        reply = self._reply(body)
        message: Body = {"role": "assistant", "content": reply.text or None}
        if reply.tool:
            message["tool_calls"] = [self._call(reply)]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if reply.tool else "stop"}
        return {**self._frame(body, "chat.completion"), "choices": [choice], "usage": _usage(body)}

    def events(self, body: Body) -> list[Event]:
        reply = self._reply(body)
        deltas: list[Body] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in reply.pieces)]
        if reply.tool:
            deltas.append({"tool_calls": [{"index": 0, **self._call(reply)}]})
        frame = self._frame(body, "chat.completion.chunk")
        chunks: list[Event] = [
            (None, {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas
        ]
        finish = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if reply.tool else "stop"}
        chunks.append((None, {**frame, "choices": [finish]}))
        if (body.get("stream_options") or {}).get("include_usage"):
            chunks.append((None, {**frame, "choices": [], "usage": _usage(body)}))
        return [*chunks, (None, "[DONE]")]

    @staticmethod
    def _call(reply: Reply) -> Body:
        function = {"name": reply.tool, "arguments": json.dumps(reply.arguments)}
        return {"id": CALL_ID, "type": "function", "function": function}

    @staticmethod
    def _frame(body: Body, kind: str) -> Body:
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": body["model"]}

    @staticmethod
    def error(message: str) -> Body:
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


class Responses:
    """OpenAI responses."""

    def problem(self, body: Body) -> str | None:
        items = self._items(body)
        if not isinstance(body.get("model"), str) or not items:
            return "model and input are required"
        calls: list[tuple[int, str]] = []
        results: list[tuple[int, str]] = []
        for position, item in enumerate(items):
            kind = item.get("type", "message")
            if kind == "message" and item.get("role") not in ("system", "developer", "user", "assistant"):
                return f"input[{position}].role {item.get('role')!r} is not supported"
            if kind == "function_call":
                calls.append((position, item["call_id"]))
            if kind == "function_call_output":
                results.append((position, item["call_id"]))
        return unpaired(calls, results) or bad_tools(self._tools(body))

    @staticmethod
    def _items(body: Body) -> list[Body]:
        items = body.get("input")
        return [{"role": "user", "content": items}] if isinstance(items, str) else items or []

    @staticmethod
    def _tools(body: Body) -> list[tuple[Any, Any]]:
        return [(tool.get("name"), tool.get("parameters")) for tool in body.get("tools") or []]

    def _output(self, body: Body) -> tuple[Reply, Body]:
        schema = ((body.get("text") or {}).get("format") or {}).get("schema")
        has_result = self._items(body)[-1].get("type") == "function_call_output"
        reply = reply_to(self._tools(body), has_result, schema)
        if reply.tool:
            call = {"type": "function_call", "id": "fc_1", "call_id": CALL_ID, "status": "completed"}
            return reply, {**call, "name": reply.tool, "arguments": json.dumps(reply.arguments)}
        part = {"type": "output_text", "text": reply.text, "annotations": []}
        return reply, {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}

    def answer(self, body: Body) -> Body:
        usage = _usage(body)
        counts = {"input_tokens": usage["prompt_tokens"], "output_tokens": 3, "total_tokens": usage["total_tokens"]}
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        frame = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": body["model"]}
        settings = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None}
        return {**frame, **settings, "output": [self._output(body)[1]], "usage": {**counts, **details}}

    def events(self, body: Body) -> list[Event]:
        reply, item = self._output(body)
        final = self.answer(body)
        place = {"item_id": item["id"], "output_index": 0}
        if reply.tool:
            begun = {**item, "arguments": "", "status": "in_progress"}
            middle: list[Body] = [
                {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]},
                {"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"]},
            ]
        else:
            begun = {**item, "content": [], "status": "in_progress"}
            place["content_index"] = 0
            empty = {"type": "output_text", "text": "", "annotations": []}
            middle = [{"type": "response.content_part.added", **place, "part": empty}]
            middle += [
                {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []} for text in reply.pieces
            ]
            middle += [
                {"type": "response.output_text.done", **place, "text": reply.text, "logprobs": []},
                {"type": "response.content_part.done", **place, "part": item["content"][0]},
            ]
        events = [
            {"type": "response.created", "response": {**final, "status": "in_progress", "output": [], "usage": None}},
            {"type": "response.output_item.added", "output_index": 0, "item": begun},
            *middle,
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": final},
        ]
        return [(event["type"], {**event, "sequence_number": number}) for number, event in enumerate(events)]

    error = staticmethod(Chat.error)


class Messages:
    """Anthropic messages."""

    def problem(self, body: Body) -> str | None:
        messages = body.get("messages")
        if not isinstance(body.get("max_tokens"), int) or not messages:
            return "max_tokens and messages are required"
        if messages[0].get("role") != "user":
            return "first message must use the 'user' role"
        pending: set[str] = set()
        for position, message in enumerate(messages):
            if message.get("role") not in ("user", "assistant"):
                return f"messages.{position}.role: input should be 'user' or 'assistant'"
            blocks = _blocks(message["content"])
            if not blocks or any(block["type"] == "text" and not block["text"].strip() for block in blocks):
                return f"messages.{position}: text content blocks must be non-empty"
            results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
            if results - pending:
                return f"messages.{position}: unexpected tool_use_id found in tool_result blocks: {sorted(results)}"
            if pending - results:
                return f"messages.{position}: tool_use ids were found without tool_result blocks: {sorted(pending)}"
            pending = {block["id"] for block in blocks if block["type"] == "tool_use"}
        if pending:
            return f"tool_use ids were found without tool_result blocks: {sorted(pending)}"
        if any(block["type"] != "text" or not block["text"] for block in _blocks(body.get("system") or [])):
            return "system: text content blocks must be non-empty"
        return bad_tools(self._tools(body))

    @staticmethod
    def _tools(body: Body) -> list[tuple[Any, Any]]:
        return [(tool.get("name"), tool.get("input_schema")) for tool in body.get("tools") or []]

    def _reply(self, body: Body) -> Reply:
        last = _blocks(body["messages"][-1]["content"])
        schema = ((body.get("output_config") or {}).get("format") or body.get("output_format") or {}).get("schema")
        return reply_to(self._tools(body), any(block["type"] == "tool_result" for block in last), schema)

    def answer(self, body: Body) -> Body:
        reply = self._reply(body)
        block: Body = {"type": "text", "text": reply.text}
        if reply.tool:
            block = {"type": "tool_use", "id": CALL_ID, "name": reply.tool, "input": reply.arguments}
        stop = "tool_use" if reply.tool else "end_turn"
        return {**self._frame(body), "content": [block], "stop_reason": stop}

    def events(self, body: Body) -> list[Event]:
        reply = self._reply(body)
        if reply.tool:
            block: Body = {"type": "tool_use", "id": CALL_ID, "name": reply.tool, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(reply.arguments)}]
        else:
            block = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in reply.pieces]
        end = {"stop_reason": "tool_use" if reply.tool else "end_turn", "stop_sequence": None}
        events: list[Body] = [
            {"type": "message_start", "message": {**self._frame(body), "content": []}},
            {"type": "content_block_start", "index": 0, "content_block": block},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": end, "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
        ]
        return [(event["type"], event) for event in events]

    @staticmethod
    def _frame(body: Body) -> Body:
        usage = {"input_tokens": _usage(body)["prompt_tokens"], "output_tokens": 3}
        frame = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "usage": usage}
        return {**frame, "stop_reason": None, "stop_sequence": None}

    @staticmethod
    def error(message: str) -> Body:
        return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


class Gemini:
    """Gemini generateContent."""

    def problem(self, body: Body) -> str | None:
        contents = body.get("contents")
        if not contents:
            return "contents is required"
        expected: list[str] = []
        for position, content in enumerate(contents):
            if content.get("role", "user") not in ("user", "model"):
                return f"contents[{position}].role must be 'user' or 'model'"
            parts = content.get("parts") or []
            if not parts or any(part.get("text") == "" for part in parts):
                return f"contents[{position}].parts must not be empty"
            answered = [part["functionResponse"]["name"] for part in parts if "functionResponse" in part]
            if sorted(answered) != sorted(expected):
                return "the number of function response parts must equal that of the function call parts before them"
            expected = [part["functionCall"]["name"] for part in parts if "functionCall" in part]
        if expected:
            return "function calls must be followed by function responses"
        return bad_tools(self._tools(body))

    @staticmethod
    def _tools(body: Body) -> list[tuple[Any, Any]]:
        found = []
        for tool in body.get("tools") or []:
            for function in tool.get("functionDeclarations") or []:
                schema = function.get("parameters") or function.get("parametersJsonSchema") or {"type": "object"}
                found.append((function.get("name"), schema))
        return found

    def _candidate(self, body: Body, part: Body, finish: str | None) -> Body:
        candidate: Body = {"index": 0, "content": {"role": "model", "parts": [part]}}
        if finish:
            candidate["finishReason"] = finish
        counts = {"promptTokenCount": _usage(body)["prompt_tokens"], "candidatesTokenCount": 3, "totalTokenCount": 3}
        return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "gemini"}

    def _reply(self, body: Body) -> Reply:
        settings = body.get("generationConfig") or {}
        schema = settings.get("responseJsonSchema") or settings.get("responseSchema")
        last = body["contents"][-1]["parts"]
        return reply_to(self._tools(body), any("functionResponse" in part for part in last), schema)

    def answer(self, body: Body) -> Body:
        reply = self._reply(body)
        call = {"functionCall": {"name": reply.tool, "args": reply.arguments}}
        return self._candidate(body, call if reply.tool else {"text": reply.text}, "STOP")

    def events(self, body: Body) -> list[Event]:
        reply = self._reply(body)
        if reply.tool:
            return [(None, self.answer(body))]
        first, second = reply.pieces
        return [
            (None, self._candidate(body, {"text": first}, None)),
            (None, self._candidate(body, {"text": second}, "STOP")),
        ]

    @staticmethod
    def error(message: str) -> Body:
        return {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}


def _blocks(content: Any) -> list[Body]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _usage(body: Body) -> Body:
    read = len(json.dumps(body)) // 4
    return {"prompt_tokens": read, "completion_tokens": 3, "total_tokens": read + 3}
