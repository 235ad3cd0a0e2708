"""The recipes, installed as ``lebm.recipes`` so that wheels carry them."""
