"""What can go wrong, each with a message that says what came, what fits and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


class NonFiniteScoresError(CPRSError, ArithmeticError):
    """A critic gave scores that are not numbers.

    ``window`` is the index of the first such window of a call and ``ids`` its token ids.
    """

    def __init__(self, critic: str, dtype: str, window: int, ids: Any, where: str = "") -> None:
        super().__init__(
            f"the critic {critic!r} returned NaN scores in {dtype} for window {window}{where}; "
            "load it with dtype='float32'"
        )
        self.critic = critic
        self.dtype = dtype
        self.window = window
        self.ids = ids

    def in_documents(self, window: int, documents: range) -> NonFiniteScoresError:
        """The same, told with the window's number in the whole call and the documents that it holds."""
        names = " to ".join(f"documents[{index}]" for index in sorted({documents[0], documents[-1]}))
        return NonFiniteScoresError(self.critic, self.dtype, window, self.ids, f", in {names}")


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
