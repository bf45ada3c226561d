"""Minimal pairs by kind, and echoes of a question among real candidates."""
