"""The parser of a verb's flags: a mistake is one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from lebm.config.recipes import nearest
from lebm.errors import UserError

__all__ = ["VerbParser"]


class VerbParser(argparse.ArgumentParser):
    """``argparse`` whose errors are raised as one line each, without the usage of the verb.

    Raises:
        UserError: for a word or a value that the verb does not take; it names the flag that is meant.
    """

    def error(self, message: str) -> NoReturn:
        """Raise a message of ``argparse``."""
        help_ = f"{self.prog} --help lists the arguments"
        _, unknown, rest = message.partition("unrecognized arguments: ")
        if not unknown:
            raise UserError(f"{self.prog}: {message}; {help_}")
        words = [word.partition("=")[0] for word in rest.split()]
        flag = next((word for word in words if word.startswith("-")), words[0])
        hint = nearest(flag, [name for name in self._option_string_actions if name.startswith("--")])
        raise UserError(f"{self.prog}: unknown argument {flag}{hint or f'; {help_}'}")
