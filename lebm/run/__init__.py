"""A training run: its folder, loggers, signals and checkpoints."""
