"""How much recall a cascade loses where it leaves windows unread, as measured on held-out training data.

Written by ``python benchmarks/long_contexts.py curve``, which says how it measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# For a number of windows: pairs of the share of recall that is lost (ascending), and the cut, as a share of the best
# window's likelihood, below which windows are left unread at that loss.
Curve = Mapping[int, Sequence[tuple[float, float]]]

LEXICAL: Curve = {290: ((0.0, 0.0), (0.005, 0.30), (0.01, 0.33), (0.02, 0.40))}
CRITIC: Curve = {290: ((0.0, 0.0), (0.005, 0.02), (0.01, 0.05), (0.02, 0.1))}
