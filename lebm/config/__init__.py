"""Recipes and flags turned into objects."""
