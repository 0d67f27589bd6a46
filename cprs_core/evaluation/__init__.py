"""Measuring a compressor as an opponent would: tasks, systems at equal tokens, intervals, one table.

A *task* is a function from systems and options to measures (`cprs_core.evaluation.bench.TASKS`). A *system* ranks
segments (`cprs_core.evaluation.systems.System`); ours, BM25 and embeddings go through the same code.
"""
