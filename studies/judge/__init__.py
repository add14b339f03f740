"""What scores say, and how surely."""
