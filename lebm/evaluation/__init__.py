"""Measuring trained models the same way: suites of figures with intervals, and the file they are kept in."""
