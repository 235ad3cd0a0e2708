"""Measurements of trained models: suites of metrics with intervals, and the file of the results."""
