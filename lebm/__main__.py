"""The ``lebm`` command; ``python -m lebm`` is the same."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``lebm``; ``None`` takes the words of the process.

    Returns:
        The exit status: 0 success, 1 failure of the program, 2 user error, 130 interrupted, 138 stopped by
        SIGUSR1, 143 terminated.
    """
    from lebm.cli.dispatch import run

    return run(list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
