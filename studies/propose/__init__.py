"""Chooses the next schedule from the trials so far."""
