"""From recipes and flags to objects."""
