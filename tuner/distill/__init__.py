"""Learns from a many-step teacher: sequences of step sizes, and few-step students."""
