"""Trains the embedded model from nothing: ``python -m tuner.tiny.training``; the recipe is docs/tiny.md."""
