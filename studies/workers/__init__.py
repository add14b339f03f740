"""Gets work done on one or many processes."""
