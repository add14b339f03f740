"""Turns settings into a checked plan."""
