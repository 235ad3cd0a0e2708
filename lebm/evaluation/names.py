"""Names and numbers of the evaluation that can be read without importing torch."""

__all__ = ["CHAINS_PER_IMAGE", "SUITE_NAMES"]

SUITE_NAMES = ("image", "anomaly", "ood", "likelihood", "chains", "revision", "text")
CHAINS_PER_IMAGE = 4
