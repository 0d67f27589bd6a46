"""The command ``cprs`` as a shell sees it."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cprs_core import CascadeScorer, Compression, Compressor, KeywordScorer, LexicalRanker
from cprs_core.cli import main
from cprs_core.cli_compress import decode, encode, progress

LEASE = "It rained.\n\nAda signed the lease on Monday. Bob left early.\r\n\r\nThe lease ended last year.\n"


def load_keyword(critic: str | None, *, device: str, dtype: str, recall_risk: float | None = None) -> Compressor:
    """A compressor that looks for "lease", instead of a critic."""
    scorer = KeywordScorer("lease", window_tokens=128)
    return Compressor(
        scorer if recall_risk is None else CascadeScorer(LexicalRanker(), scorer, recall_risk=recall_risk)
    )


def cprs(*arguments: str) -> int:
    return main(arguments, load_compressor=load_keyword)


@pytest.fixture
def lease_file(tmp_path: Path) -> Path:
    path = tmp_path / "lease.txt"
    path.write_bytes(LEASE.encode())
    return path


class Piped(io.TextIOWrapper):
    """Standard input that is not a terminal."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")


def test_file_is_compressed_to_standard_output(lease_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cprs("compress", "--query", "Who signed?", str(lease_file)) == 0
    out, err = capsys.readouterr()
    assert out == "Ada signed the lease on Monday.\nThe lease ended last year.\n"
    assert err == ""


@pytest.mark.parametrize("names", [(), ("-",)])
def test_standard_input_is_read_without_a_file_or_for_a_dash(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Piped(LEASE.encode()))
    assert cprs("compress", "-q", "Who signed?", "-n", "7", *names) == 0
    assert capsys.readouterr().out == "The lease ended last year.\n"


def test_options_reach_the_compressor(lease_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cprs("compress", "-i", "Tag the leases with 'deal'.", "-g", "keyword", "-t", "0.9", "--spans", str(lease_file))
    assert capsys.readouterr().out.count("deal 1.00\n    lease\n") == 2
    cprs("compress", "-q", "Who?", "-r", "0.3", str(lease_file))
    assert capsys.readouterr().out == "The lease ended last year.\n"


def test_a_stream_of_files_is_read_one_after_the_other_and_goes_on_after_a_stop(
    lease_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, checkpoint = tmp_path / "other.txt", tmp_path / "run.ckpt"
    arguments = ("compress", "-q", "Who?", "--stream", "--checkpoint", str(checkpoint), str(lease_file), str(other))
    other.touch()

    def load_slowly(critic: str | None, **options: Any) -> Compressor:
        other.unlink()  # it goes away while the others are read
        return load_keyword(critic, **options)

    assert main(arguments, load_compressor=load_slowly) == 2
    assert capsys.readouterr().err == f"cprs: {other}: No such file or directory\n"
    other.write_text("Bob has no lease.")
    assert cprs(*arguments) == 0
    assert capsys.readouterr().out == (
        "Ada signed the lease on Monday.\nThe lease ended last year.\n\nBob has no lease.\n"
    )
    assert checkpoint.exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--stream", "--ratio", "0.5"),
        ("--stream", "--spans"),
        ("--stream", "--deadline", "1"),
        ("--stream", "--hops", "2"),
        ("--checkpoint", "x"),
    ],
)
def test_options_that_do_not_go_with_a_stream_are_refused(
    option: tuple[str, ...], lease_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cprs("compress", "-q", "Who?", *option, str(lease_file)) == 2
    assert "--stream" in capsys.readouterr().err


def test_how_much_is_read_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "long.txt").write_text("It rained all day and nobody came. " * 2_000 + "Ada signed the lease.")

    def usage(*options: str) -> dict[str, Any]:
        assert (
            cprs("compress", "-q", "Who signed the lease?", "-n", "9", "--json", *options, str(tmp_path / "long.txt"))
            == 0
        )
        result = json.loads(capsys.readouterr().out)
        assert "Ada signed the lease." in result["text"]
        return result["usage"]

    whole = usage()
    assert usage("--recall-risk", "0.005")["windows_read"] < whole["windows"] / 4
    assert usage("--recall-risk", "0.005", "--stream")["windows_read"] < whole["windows"] / 4
    assert usage("--deadline", "60")["complete"]
    assert not usage("--deadline", "0")["complete"]
    assert usage("--hops", "auto")["windows"] >= whole["windows"]


def test_json_is_the_whole_result(lease_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cprs("compress", "-q", "Who signed?", "--json", str(lease_file)) == 0
    result = Compression.model_validate_json(capsys.readouterr().out)
    assert [LEASE[span.start : span.end] for span in result.spans] == [span.text for span in result.spans]
    assert result.documents[0].id == str(lease_file)
    assert result.query == "Who signed?"


def test_html_is_a_page_with_the_source(lease_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cprs("compress", "-q", "<Who> signed?", "--html", str(lease_file)) == 0
    out = capsys.readouterr().out
    assert out.startswith("<!doctype html>")
    assert "It rained." in out
    assert "&lt;Who&gt; signed?" in out


def test_spans_say_file_line_and_characters(lease_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cprs("compress", "-q", "Who signed?", "--spans", str(lease_file), str(lease_file))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        f"{lease_file}:3: characters 12-43, fact 0.14",
        "    Ada signed the lease on Monday.",
        f"{lease_file}:5: characters 63-89, fact 0.17",
        "    The lease ended last year.",
    ]
    assert lines[4:] == lines[:4]


def test_stats_go_to_standard_error(lease_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cprs("compress", "-q", "Who signed?", "--stats", str(lease_file))
    out, err = capsys.readouterr()
    assert "tokens" not in out
    assert "20 tokens in, 13 out (65.0%) in 2 spans" in err
    assert "score" in err


def test_output_file_takes_the_place_of_standard_output(
    lease_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "kept.txt"
    assert cprs("compress", "-q", "Who signed?", "-o", str(target), str(lease_file)) == 0
    assert capsys.readouterr().out == ""
    assert target.read_text() == "Ada signed the lease on Monday.\nThe lease ended last year.\n"


def test_nothing_kept_is_exit_code_3_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rain.txt").write_text("It rained.")
    assert cprs("compress", "-q", "Who signed?", str(tmp_path / "rain.txt")) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cprs: nothing matches")
    assert "what comes nearest, score 0.000: It rained.\n" in err
    assert err.endswith("pass --max-tokens\n")
    (tmp_path / "empty.txt").touch()
    assert cprs("compress", "-q", "Who signed?", str(tmp_path / "empty.txt")) == 3
    assert "hold no text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compress", "-q", "x", "no/such/file"), "no/such/file: No such file or directory"),
        (("compress", "-q", "x", os.curdir), "Is a directory"),
        (("compress", os.devnull), "pass --query, --instruction or both"),
        (("compress", "-q", "x", "-n", "0", os.devnull), "max_tokens is 0; it must be at least 1"),
        (("compress", "-q", "x", "-r", "2", os.devnull), "ratio is 2.0"),
        (("compress", "-q", "x", "-", "-"), "named twice"),
        (("compress", "-q", "word " * 1_000, os.devnull), "shorten the instruction or query"),
        (("compress", "-q", "x", "-o", "no/such/folder/file", __file__), "no/such/folder/file: No such file"),
        (("compress", "-q", "x", "-o", os.curdir, __file__), ".: Is a directory"),
        (("compress", "-q", "x", "--stream", __file__, "no/such/file"), "cprs: no/such/file: No such file"),
        (("compress", "-q", "x", "--stream", os.curdir), "cprs: .: Is a directory"),
        (("compress", "-q", "x", "--stream", "-", "-"), "cprs: standard input ('-') is named twice"),
        (("demo", os.devnull), "add one with --query"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cprs(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cprs: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: COMMAND; see 'cprs --help'"),
        (("compres",), "invalid choice: 'compres'"),
        (("compress", "-q", "x", "-g", "word", "f"), "invalid choice: 'word'"),
        (("compress", "-q", "x", "-n", "many", "f"), "invalid int value: 'many'"),
        (("compress", "-q", "x", "--hops", "two", "f"), "'two' is neither a number of passes nor 'auto'"),
        (("compress", "-q", "x", "--json", "--html", "f"), "not allowed with argument"),
    ],
)
def test_arguments_that_cannot_be_understood_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cprs(*arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_critic_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("The lease.")
    assert main(["compress", "-q", "x", "--critic", str(tmp_path / "none"), str(tmp_path / "text")]) == 2
    assert f"{tmp_path / 'none'} is not a folder" in capsys.readouterr().err


def test_terminal_without_a_file_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, terminal = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as raw:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(raw)))
        assert cprs("compress", "-q", "x") == 2
    assert "name a file, or pipe text into cprs" in capsys.readouterr().err


def test_bytes_that_are_not_utf8_come_out_as_they_went_in(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    data = b"It rained. The \xff\xfe\x80 lease \xc3\x28 ended\x00. Bob left."
    (tmp_path / "bytes").write_bytes(data)
    assert cprs("compress", "-q", "Who?", str(tmp_path / "bytes")) == 0
    assert capfdbinary.readouterr().out == b"The \xff\xfe\x80 lease \xc3\x28 ended\x00.\n"
    for form in ("--json", "--html", "--spans"):
        assert cprs("compress", "-q", "Who \udcff?", form, str(tmp_path / "bytes")) == 0
        assert b"lease" in capfdbinary.readouterr().out


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("\ufefféa\r\n".encode(), "éa\r\n"),
        ("éa\n".encode("utf-16"), "éa\n"),
        ("\ufefféa".encode("utf-16-be"), "éa"),
        (b"\xff\xfe\xe9", "\ufffd"),
        (b"a\xe9b", "a\udce9b"),
        (b"", ""),
    ],
    ids=["utf-8 with mark", "utf-16", "utf-16 big end", "cut utf-16", "latin-1", "empty"],
)
def test_files_are_decoded_without_losing_anything(data: bytes, text: str) -> None:
    assert decode(data) == text


def test_every_byte_survives_reading_and_writing() -> None:
    data = bytes(range(256)) * 3
    assert encode(decode(data)) == data
    assert encode("\ud800") == b"?"


def test_demo_shows_text_places_tokens_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    finally_scorer = KeywordScorer("finally")
    assert main(["demo"], load_compressor=lambda *_, **__: Compressor(finally_scorer)) == 0
    out = capsys.readouterr().out
    assert "Text:     pydoc:" in out
    assert "pydoc:compound:" in out
    assert "Question: What happens to an exception" in out
    assert " tokens in, " in out
    assert " s (" in out


def test_demo_takes_a_file_and_a_question_of_ones_own(lease_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cprs("demo", str(lease_file), "-q", "Who signed?") == 0
    out = capsys.readouterr().out
    assert "Question: Who signed?" in out
    assert f"{lease_file}:3: characters 12-43" in out


def test_demo_shows_what_comes_nearest_when_nothing_matches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rain").write_text("It rained.")
    assert cprs("demo", str(tmp_path / "rain"), "-q", "Who signed?") == 0
    out = capsys.readouterr().out
    assert "nothing matches" in out
    assert "what comes nearest:" in out
    assert "    It rained.\n" in out


def test_info_shows_versions_before_it_loads_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--critic", str(tmp_path / "none")]) == 2
    out, err = capsys.readouterr()
    assert "torch" in out
    assert "none is not a folder" in err


def test_info_describes_the_embedded_critic(embedded: Compressor, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--device", "cpu"], load_compressor=lambda *_, **__: embedded) == 0
    out = capsys.readouterr().out
    assert "cprs-mini" in out
    assert " MB)" in out
    assert "cpu (" in out
    assert "float32" in out


def test_info_says_where_a_critic_of_the_hub_lies_here(
    embedded: Compressor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--me--mini" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b" " * 2_000_000)
    (tmp_path / "models--me--mini" / "refs").mkdir()
    (tmp_path / "models--me--mini" / "refs" / "main").write_text("abc")
    assert main(["info", "--critic", "me/mini"], load_compressor=lambda *_, **__: embedded) == 0
    assert f"{folder} (2.0 MB)" in capsys.readouterr().out


class Interrupted(KeywordScorer):
    """A scorer at which the user presses Ctrl-C."""

    def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt


def test_interrupt_is_exit_code_130_without_a_traceback(lease_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["compress", "-q", "x", str(lease_file)], load_compressor=lambda *_, **__: Compressor(Interrupted()))
    assert code == 130
    assert capsys.readouterr().err == ""


KEYWORD_CPRS = (
    "import sys\n"
    "from cprs_core import Compressor, KeywordScorer\n"
    "from cprs_core.cli import main\n"
    "sys.exit(main(load_compressor=lambda *_, **__: Compressor(KeywordScorer('lease'))))\n"
)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_closed_pipe_is_quiet(tmp_path: Path, unbuffered: str) -> None:
    (tmp_path / "many").write_text("The lease ended. " * 100_000)
    process = subprocess.Popen(
        [sys.executable, "-c", KEYWORD_CPRS, "compress", "-q", "x", str(tmp_path / "many")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141
    process.stderr.close()


@pytest.mark.parametrize(
    ("closed", "arguments", "code", "message"),
    [
        ("<&-", "-q x", 2, "cprs: standard input is closed; name a file, or pipe text into cprs"),
        ("<&-", "--stream -q x -", 2, "cprs: standard input is closed; name a file, or pipe text into cprs"),
        ("<&-", "-q x FILE", 0, ""),
        (">&-", "-q x FILE", 2, f"cprs: standard output is closed; send it to a file or to {os.devnull}"),
        ("2>&-", "-q x --stats FILE", 0, ""),
    ],
)
def test_closed_streams_are_mistakes_or_not_missed(
    lease_file: Path, closed: str, arguments: str, code: int, message: str
) -> None:
    words = [str(lease_file) if word == "FILE" else word for word in arguments.split()]
    shell = f'exec "$0" -c "$@" {closed}'
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable, KEYWORD_CPRS, "compress", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.strip()) == (code, message)


def test_a_pipe_with_a_name_is_read_whole(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = subprocess.Popen(
        [sys.executable, "-c", KEYWORD_CPRS, "compress", "-q", "x", str(tmp_path / "pipe")], stdout=subprocess.PIPE
    )
    (tmp_path / "pipe").write_text("The lease ended. " * 20_000)
    assert len(process.communicate(timeout=60)[0]) == len("The lease ended. " * 20_000)
    assert process.returncode == 0


def test_command_is_installed_and_says_its_version() -> None:
    command = Path(sys.executable).with_name("cprs")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("cprs 0.")


def test_result_of_the_command_equals_that_of_the_library(
    embedded: Compressor, lease_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        ["compress", "-q", "Who signed the lease?", "--json", str(lease_file)],
        load_compressor=lambda *_, **__: embedded,
    )
    spans = json.loads(capsys.readouterr().out)["spans"]
    expected = embedded.compress(LEASE, "Who signed the lease?").spans
    assert [(span["start"], span["end"]) for span in spans] == [(span.start, span.end) for span in expected]


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_once_work_has_lasted_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress() as on_progress:
        assert on_progress is not None
        on_progress(10, 1_000)
        assert terminal.getvalue() == ""  # work that ends soon stays silent
        time.sleep(1.6)
        on_progress(500, 1_000)
        assert "reading:  50%" in terminal.getvalue()


def test_no_progress_is_shown_away_from_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress() as on_progress:
        assert on_progress is None


def test_guest_commands_bring_their_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cprs("bench", "--help")
    assert stop.value.code == 0
    assert "haystack" in capsys.readouterr().out
