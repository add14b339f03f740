"""How a trial becomes a schedule that fits the budget: one file per space."""
