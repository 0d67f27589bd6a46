"""Evidence records -> labels -> critic."""
