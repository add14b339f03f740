"""Does one unit of work: one schedule on a few prompts."""
