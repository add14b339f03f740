"""Runs one study from settings to result."""
