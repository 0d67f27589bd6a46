"""Generators of long-context tasks, seeded and faithful to the published protocols."""
