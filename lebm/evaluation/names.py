"""Names and numbers of the evaluation that can be read without importing torch."""

from lebm.errors import UserError

__all__ = ["CHAINS_PER_IMAGE", "SUITE_NAMES", "check_suite"]

SUITE_NAMES = ("image", "anomaly", "ood", "likelihood", "chains", "revision", "text")
CHAINS_PER_IMAGE = 4


def check_suite(name: str) -> None:
    """Refuse a name that is neither of a suite of lebm, nor the path of a function.

    Raises:
        UserError: listing the suites.
    """
    if "." not in name and name not in (*SUITE_NAMES, "all"):
        own = "a suite of your own is named MODULE.FUNCTION"
        raise UserError(f"--suite {name}: choose from {', '.join((*SUITE_NAMES, 'all'))}; {own}")
