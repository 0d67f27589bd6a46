"""What can go wrong, each with a message that says what came, what fits and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cprs_core.types import Compression


class CPRSError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(CPRSError, ValueError):
    """An argument that cannot be worked with: nothing was read, nothing was changed."""


class PrefixTooLongError(InputError):
    """Instruction and query leave too little room for the context in a window."""


class CheckpointError(CPRSError, RuntimeError):
    """A checkpoint that is missing, damaged or of another kind."""


class DeviceError(CPRSError, RuntimeError):
    """A device that does not exist or cannot hold the model."""


class DeadlineError(CPRSError, TimeoutError):
    """A deadline passed before everything that matters was read, and the caller asked not to get a part."""


class MissingExtraError(CPRSError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'cprs-integrations[{extra}]'"
        )


class StreamError(CPRSError, RuntimeError):
    """The iterable of a stream failed; the original error is the cause.

    ``partial`` is the selection of what was read until then (None before anything was), ``document_index`` the place
    of the document that could not be had.
    """

    def __init__(self, message: str, partial: Compression | None, document_index: int) -> None:
        super().__init__(message)
        self.partial = partial
        self.document_index = document_index
