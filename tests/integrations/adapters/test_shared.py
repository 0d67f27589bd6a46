"""Importing costs nothing, and all adapters of a process share one critic."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from langchain_core.documents import Document

import cprs_core
import cprs_integrations.langchain
import cprs_integrations.llama_index
from cprs_core import Compressor, MissingExtraError
from cprs_integrations.langchain import CPRSDocumentCompressor
from cprs_integrations.llama_index import CPRSNodePostprocessor
from cprs_integrations.shared import shared_compressor


def test_importing_the_packages_imports_neither_torch_nor_a_framework() -> None:
    program = (
        "import sys, cprs_integrations, cprs_integrations.langchain, cprs_integrations.llama_index\n"
        "heavy = {'torch', 'transformers', 'langchain_core', 'langchain', 'llama_index', 'pydantic', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("package", [cprs_integrations.langchain, cprs_integrations.llama_index])
def test_every_public_name_is_there_and_documented(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        with contextlib.suppress(MissingExtraError):
            assert getattr(package, name).__doc__, name
    assert set(package.__all__) <= set(dir(package))  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        package.Nothing  # type: ignore[attr-defined]  # noqa: B018


def test_adapters_import_only_public_names_of_the_core() -> None:
    root = Path(cprs_core.__file__).parent.parent / "cprs_integrations"
    files = ["adapting.py", "prompts.py", "shared.py", "langchain/chat_model.py", "langchain/document_compressor.py"]
    files += [
        "langchain/retriever.py",
        "llama_index/llm.py",
        "llama_index/postprocessor.py",
        "llama_index/retriever.py",
    ]
    for file in files:
        assert "from cprs_core." not in (root / file).read_text(encoding="utf-8"), file


def test_the_critic_is_loaded_once_however_many_ask(embedded: Compressor) -> None:
    with ThreadPoolExecutor(8) as pool:
        compressors = list(pool.map(lambda _: CPRSDocumentCompressor().active_compressor(), range(16)))
    assert {id(compressor) for compressor in compressors} == {id(shared_compressor())}
    assert CPRSNodePostprocessor().active_compressor() is shared_compressor()


async def test_adapters_work_without_arguments(embedded: Compressor) -> None:
    documents = [Document("It rained all day. Ada signed the lease in May. Cats sleep a lot.")]
    (kept,) = await CPRSDocumentCompressor().acompress_documents(documents, "Who signed the lease?")
    assert "Ada signed the lease in May." in kept.page_content
