"""How much recall a cascade loses where it leaves windows unread, as measured on held-out training data.

Measured as ``python benchmarks/long_contexts.py curve`` does; docs/long-contexts.md says on what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# For a number of windows: pairs of the share of recall that is lost (ascending), and the cut, as a share of the best
# window's likelihood, below which windows are left unread at that loss.
Curve = Mapping[int, Sequence[tuple[float, float]]]

# SQuAD train, 1,471 held-out questions in twenty contexts of 131,072 tokens; the last point is of 4,200 others,
# with those that the critic misses. Share of windows read, from left to right: 100, 55, 24, 8, 5.5, 4.4, 3.3 and 1.8 %.
LEXICAL: Curve = {
    280: (
        (0.0, 0.0),
        (0.001, 0.02),
        (0.002, 0.1),
        (0.0035, 0.22),
        (0.005, 0.27),
        (0.0075, 0.3),
        (0.01, 0.34),
        (0.02, 0.42),
    )
}

# Not a measured rate: too few questions were read. Of 27 held-out ones of SQuAD train in contexts of 8,192 tokens, 26
# had their fact in the best window and one in a window of 0.46 of it. These cuts lie well below that.
CRITIC: Curve = {17: ((0.0, 0.0), (0.005, 0.05), (0.02, 0.2))}
