"""The command line: one file per command, and the only place in `tuner` that knows the other packages."""
