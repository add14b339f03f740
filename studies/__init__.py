"""How a search runs: ask and tell, Ray workers, resume, statistics, tracking."""
