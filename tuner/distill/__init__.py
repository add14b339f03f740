"""Distillation: what makes a model need fewer or smaller steps than it was trained for."""
