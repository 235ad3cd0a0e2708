"""One run: its folder, loggers, signals and checkpoints."""
