"""Adapters of `cprs_core` for LangChain, LlamaIndex and agents.

Nothing is imported here: take what you use from ``cprs_integrations.langchain`` or ``cprs_integrations.llama_index``.
"""
