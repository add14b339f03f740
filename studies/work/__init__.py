"""One unit of work, and what does it."""
