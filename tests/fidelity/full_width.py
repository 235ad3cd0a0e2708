"""The steps of ``test_fidelity.py`` with the released widths: the columns of docs/fidelity.md on full width.

python -m tests.fidelity.full_width                        # an hour of one CPU thread, 12 GB of memory
python -m tests.fidelity.full_width latent_mle/svhn        # this recipe alone
"""

from __future__ import annotations

import sys

from tests.fidelity.test_fidelity import NEARER, STEPS, both, distances


def main(names: list[str]) -> None:
    for name in names or STEPS:
        nearer = NEARER.get(STEPS[name].func.__name__)
        ours, released = both(name, *([{}, nearer] if nearer else [{}]), full_width=True)
        for what, step in zip(("", " without b and e"), released, strict=False):
            found = distances(ours, step)
            print(
                f"{name}{what}: " + ", ".join(f"{key} {value:.2g}" for key, value in found.items()),
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
