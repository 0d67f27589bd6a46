"""Pages whose examples are run: every Python block that is followed by a block of output must print just that.

    python -m tests.pages docs/instructions.md      writes what the examples print now into the page

Look at the difference before you keep it: what stands on a page is what is right, not what a critic happens to say.
"""

from __future__ import annotations

import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

_EXAMPLE = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n^```\n(?P<output>.*?)^```$)?", re.DOTALL | re.MULTILINE)


def run_page(page: Path) -> list[tuple[str, str, str]]:
    """Code, output on the page and output now of every example, run one after another in one namespace."""
    namespace: dict[str, object] = {}
    results = []
    for match in _EXAMPLE.finditer(page.read_text(encoding="utf-8")):
        code = match["code"]
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(code, page.name, "exec"), namespace)
        results.append((code, match["output"] or "", printed.getvalue()))
    return results


def main() -> None:
    """Rewrites the outputs of the pages that are named."""
    for name in sys.argv[1:]:
        page = Path(name)
        text = page.read_text(encoding="utf-8")
        for code, before, now in run_page(page):
            if before != now:
                text = text.replace(
                    f"```python\n{code}```\n\n```\n{before}```", f"```python\n{code}```\n\n```\n{now}```"
                )
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
