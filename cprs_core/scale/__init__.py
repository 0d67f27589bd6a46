"""Scorers made of scorers: one per GPU of a host."""
