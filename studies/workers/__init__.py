"""Runs tasks on one or many processes."""
