"""``cprs compress`` and ``cprs demo``: files in, kept text out."""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from cprs_core.errors import InputError, StreamError

if TYPE_CHECKING:
    from cprs_core.compressor import Compressor
    from cprs_core.types import Compression, Document, Span

NOTHING_KEPT = 3
_NEAREST_CHARACTERS = 160
GRANULARITIES = ("sentence", "keyword", "line", "paragraph", "document", "auto")

_EPILOG = """\
exit codes: 0 something was kept, 3 nothing was kept, 2 the call has to be put right, 130 interrupted
Files are read as UTF-8 (UTF-16 with a byte order mark); bytes that are not are passed through to the kept text as
they are. Without a budget or threshold the critic decides how much is kept.
"""


class LoadCompressor(Protocol):
    """Makes the compressor of a command; ``critic`` is None for the embedded one."""

    def __call__(
        self, critic: str | None, *, device: str, dtype: str, recall_risk: float | None = None
    ) -> Compressor: ...


def add_compress_parser(commands: Any) -> None:
    """Adds ``compress`` to a command line's subcommands."""
    parser = commands.add_parser(
        "compress",
        help="keep what a question needs of files or standard input",
        description="Keeps what a question needs of files or standard input, verbatim.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="texts; '-' or none at all: standard input")
    what = parser.add_argument_group("what to keep")
    what.add_argument("-q", "--query", default="", metavar="TEXT", help="the question")
    what.add_argument("-i", "--instruction", metavar="TEXT", help="what to extract, in words, or a preset's name")
    what.add_argument("-g", "--granularity", default="sentence", choices=GRANULARITIES, help="default: sentence")
    how_much = parser.add_argument_group("how much to keep")
    how_much.add_argument("-n", "--max-tokens", type=int, metavar="N", help="at most N tokens")
    how_much.add_argument("-r", "--ratio", type=float, metavar="R", help="at most this share of the input, 0 to 1")
    how_much.add_argument("-t", "--threshold", type=float, metavar="T", help="only what scores at least T, 0 to 1")
    effort = parser.add_argument_group("how much is read")
    effort.add_argument("--recall-risk", type=float, metavar="R", help="read only what may matter; 0.005 risks 0.5 %%")
    effort.add_argument("--deadline", type=float, metavar="S", help="answer after S seconds with what was found")
    effort.add_argument("--hops", type=_hops, default=1, metavar="N", help="follow what was found, N passes or 'auto'")
    parser.add_argument("--stream", action="store_true", help="read one file after the other, in bounded memory")
    parser.add_argument("--checkpoint", metavar="FILE", help="with --stream: go on from here after a stop")
    output = parser.add_argument_group("output")
    form = output.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", dest="form", const="json", help="the whole result as JSON")
    form.add_argument("--html", action="store_const", dest="form", const="html", help="a page with kept text marked")
    form.add_argument("--spans", action="store_const", dest="form", const="spans", help="kept text with file and line")
    output.add_argument("-o", "--output", metavar="FILE", help="write there instead of to standard output")
    output.add_argument("--stats", action="store_true", help="tokens and seconds, on standard error")
    add_critic_options(parser)
    parser.set_defaults(run=run_compress, form="text")


def add_demo_parser(commands: Any) -> None:
    """Adds ``demo`` to a command line's subcommands."""
    parser = commands.add_parser("demo", help="see it work on Python's own reference, or on a file of yours")
    parser.add_argument("files", nargs="*", metavar="FILE", help="texts of yours; they need --query")
    parser.add_argument("-q", "--query", default="", metavar="TEXT", help="the question")
    add_critic_options(parser)
    parser.set_defaults(run=run_demo)


def add_critic_options(parser: argparse.ArgumentParser) -> None:
    """Which critic, and where it runs."""
    critic = parser.add_argument_group("critic")
    critic.add_argument("--critic", metavar="DIR", help="a critic's folder or hub name; the embedded one by default")
    critic.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    critic.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16, float16, int8 (small critic), fp8 (hybrid)"
    )


def run_compress(args: argparse.Namespace) -> int:
    """One ``cprs compress``."""
    from cprs_core.inputs import check_options

    check_options(args.max_tokens, args.ratio, args.threshold)
    if not args.query.strip() and not (args.instruction or "").strip():
        raise InputError("nothing to look for: pass --query, --instruction or both")
    if args.stream and args.ratio is not None:
        raise InputError("--stream does not know the total that --ratio is a share of; use --max-tokens")
    if args.stream and args.form == "spans":
        raise InputError("--stream does not keep the files that --spans counts lines in; use --json")
    if args.stream and (args.deadline is not None or args.hops != 1):
        raise InputError("--stream reads everything once; --deadline and --hops do not go with it")
    if args.checkpoint and not args.stream:
        raise InputError("--checkpoint goes with --stream")
    check_files(args.files, args.output)
    documents = [] if args.stream else read_documents(args.files)
    began = time.perf_counter()
    compressor = args.load_compressor(args.critic, device=args.device, dtype=args.dtype, recall_risk=args.recall_risk)
    load_seconds = time.perf_counter() - began
    with progress() as on_progress:
        if args.stream:
            result = _compress_stream(compressor, args, on_progress)
        else:
            result = compressor.compress(
                documents,
                args.query,
                ratio=args.ratio,
                deadline=args.deadline,
                hops=args.hops,
                on_progress=on_progress,
                **_selection(args),
            )
    write(render(result, documents, args.form), args.output)
    if result.notice:
        sys.stderr.write(f"cprs: {result.notice}\n")
    if result.best:
        sys.stderr.write(_nearest(result.best))
    if args.stats:
        sys.stderr.write(f"{describe_usage(result)}; the critic loaded in {load_seconds:.1f} s\n")
    return 0 if result.spans else NOTHING_KEPT


def _hops(value: str) -> int | str:
    if value == "auto":
        return value
    try:
        return int(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is neither a number of passes nor 'auto'") from None


def _selection(args: argparse.Namespace) -> dict[str, Any]:
    """What to keep and how much, as `Compressor.compress` and `compress_stream` both take it."""
    return {name: getattr(args, name) for name in ("instruction", "granularity", "max_tokens", "threshold")}


def _nearest(best: Span) -> str:
    """Where nothing was kept: what came nearest, on one line, and how to get it."""
    text = " ".join(best.text.split())
    shown = text if len(text) <= _NEAREST_CHARACTERS else f"{text[:_NEAREST_CHARACTERS]}…"
    line = f"cprs: what comes nearest, score {best.score:.3f}: {shown}\ncprs: to keep the best, pass --max-tokens\n"
    return line.encode("utf-8", "replace").decode("utf-8")


def _compress_stream(
    compressor: Compressor, args: argparse.Namespace, on_progress: Callable[[int, int], None] | None
) -> Compression:
    """The last result of a stream. A file that cannot be read is that file's error, as without a stream."""
    try:
        *_, result = compressor.compress_stream(
            iterate_documents(args.files),
            args.query,
            checkpoint=args.checkpoint,
            on_progress=on_progress,
            **_selection(args),
        )
    except StreamError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise
    return result


def run_demo(args: argparse.Namespace) -> int:
    """One ``cprs demo``."""
    from cprs_core.demo import QUESTION, load_reference

    if args.files and not args.query.strip():
        raise InputError("a file of yours needs a question of yours; add one with --query")
    if args.files:
        check_files(args.files)
    documents = read_documents(args.files) if args.files else load_reference()
    query = args.query if args.query.strip() else QUESTION
    characters = sum(len(document.text) for document in documents)
    names = ", ".join(document.id or "" for document in documents)
    write(f"Text:     {names} ({characters:,} characters)\nQuestion: {query}\n\n", None)
    compressor = args.load_compressor(args.critic, device=args.device, dtype=args.dtype)
    with progress() as on_progress:
        result = compressor.compress(documents, query, on_progress=on_progress)
    write(render(result, documents, "spans"), None)
    if result.notice:
        write(f"{result.notice}\n", None)
    if result.best:
        write("".join(["what comes nearest:\n", *_located_spans([result.best], documents)]), None)
    write(f"\n{describe_usage(result)}\n", None)
    return 0


def check_files(names: Sequence[str], output: str | None = None) -> None:
    """Finds mistakes in names before a critic is loaded and anything is read.

    Raises:
        InputError: nothing is named and standard input is a terminal or closed, or it is named twice.
        OSError: a file cannot be read, or the output's folder is not there.
    """
    if not names and sys.stdin is not None and sys.stdin.isatty():
        raise InputError("no FILE and nothing piped in; name a file, or pipe text into cprs")
    if names.count("-") > 1:
        raise InputError("standard input ('-') is named twice; it can be read once")
    if sys.stdin is None and (not names or "-" in names):
        raise InputError("standard input is closed; name a file, or pipe text into cprs")
    for name in names:
        if name != "-":
            if stat.S_ISDIR(os.stat(name).st_mode):  # not opened: whoever writes to a pipe would see it close
                raise _os_error(errno.EISDIR, name)
            if not os.access(name, os.R_OK):
                raise _os_error(errno.EACCES, name)
    if output is not None and output != "-":
        if os.path.isdir(output):
            raise _os_error(errno.EISDIR, output)
        if not os.path.isdir(os.path.dirname(output) or os.curdir):
            raise _os_error(errno.ENOENT, output)


def _os_error(code: int, name: str) -> OSError:
    return OSError(code, os.strerror(code), name)


def read_documents(names: Sequence[str]) -> list[Document]:
    """The named files, or standard input, as documents whose ids are the names.

    Raises:
        OSError: a file cannot be read.
    """
    return list(iterate_documents(names))


def iterate_documents(names: Sequence[str]) -> Iterator[Document]:
    """`read_documents`, one at a time."""
    from cprs_core.types import Document

    for name in names or ["-"]:
        yield Document(_read(name), id=name)


def _read(name: str) -> str:
    if name == "-":
        return decode(sys.stdin.buffer.read())
    with open(name, "rb") as file:
        return decode(file.read())


def decode(data: bytes) -> str:
    """``data`` as text: UTF-16 where it begins with that byte order mark, else UTF-8.

    Bytes that are not UTF-8 become lone surrogates, which `encode` turns back into the same bytes. Line ends stay.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) and not data.startswith(b"\xff\xfe\x00\x00"):
        return data.decode("utf-16", "replace")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """UTF-8, with the bytes back that `decode` could not read."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "replace")


def write(text: str, output: str | None) -> None:
    """To the file ``output``, or to standard output without one."""
    if output is not None and output != "-":
        with open(output, "wb") as file:
            file.write(encode(text))
        return
    sys.stdout.flush()
    data = memoryview(encode(text))
    while data:  # an unbuffered standard output (PYTHONUNBUFFERED) may take less than all of it
        data = data[sys.stdout.buffer.write(data) :]
    sys.stdout.buffer.flush()


def render(result: Compression, documents: Sequence[Document], form: str) -> str:
    """``result`` in one of the output forms, with a line break at its end."""
    if form == "json":
        return result.model_dump_json(indent=2) + "\n"
    if form == "html":
        return result.to_html()
    if form == "spans":
        return "".join(_located_spans(result.spans, documents))
    return f"{result.text}\n" if result.text else ""


def _located_spans(spans: Sequence[Span], documents: Sequence[Document]) -> Iterator[str]:
    """For every span where it stands, and its text indented below."""
    line, counted, of_document = 1, 0, -1
    for span in spans:
        text = documents[span.document_index].text
        if span.document_index != of_document:
            line, counted, of_document = 1, 0, span.document_index
        line += text.count("\n", counted, span.start)
        counted = span.start
        body = "".join(f"    {part.strip()}\n" for part in span.text.splitlines())
        yield f"{span.document_id}:{line}: characters {span.start}-{span.end}, {span.tag} {span.score:.2f}\n{body}"


def describe_usage(result: Compression) -> str:
    """Tokens in and out and seconds, in one line."""
    usage = result.usage
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in usage.stage_seconds.items())
    speed = usage.input_tokens / usage.seconds if usage.seconds else 0.0
    return (
        f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out ({usage.ratio:.1%}) "
        f"in {len(result.spans)} spans, {usage.seconds:.2f} s ({stages}), {speed:,.0f} tokens/s"
    )


@contextmanager
def progress() -> Iterator[Callable[[int, int], None] | None]:
    """A callback that draws a bar on standard error once work has lasted a while; None away from a terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc="reading", unit=" tokens", unit_scale=True, leave=False, delay=1.5, file=sys.stderr) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_progress
