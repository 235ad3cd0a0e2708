"""Construction of models, data and trainers from recipes and flags."""
