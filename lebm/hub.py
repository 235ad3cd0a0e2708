"""Models on the Hugging Face Hub: ``hub:USER/NAME`` and ``hub:USER/NAME@REVISION``.

Only three files travel: weights as safetensors, the plain description as ``config.json``, and the card. The
host is that of ``huggingface_hub``, or the one that ``HF_ENDPOINT`` names. A token is taken from where
``hf auth login`` or ``HF_TOKEN`` put it; lebm stores none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lebm.errors import UserError

__all__ = ["CARD", "CONFIG", "MODEL", "PREFIX", "fetch", "need_token", "parsed", "push"]

PREFIX = "hub:"
"""How the name of a model on the Hub begins, wherever a run can be named."""
MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)  # it becomes a path in the cache


def parsed(name: str) -> tuple[str, str | None]:
    """``USER/NAME`` and the revision of a name, ``None`` for the newest one.

    Raises:
        UserError: if it is no such name.

    Example:
        >>> from lebm.hub import parsed
        >>> parsed("hub:ada/digits@v1")
        ('ada/digits', 'v1')
    """
    repository, pinned, revision = name.removeprefix(PREFIX).partition("@")
    if not _NAME.fullmatch(repository) or (pinned and not _REVISION.fullmatch(revision)):
        raise UserError(f"{name}: a model on the Hub is called hub:USER/NAME or hub:USER/NAME@REVISION")
    return repository, revision or None


def fetch(name: str) -> Path:
    """The model file of a name, downloaded unless this machine has that revision already.

    Raises:
        UserError: in one line, if there is no such model or revision, or it cannot be reached.
    """
    repository, revision = parsed(name)
    library = _library()
    with _one_line(name, revision, "this machine has no copy of that revision"):
        return Path(library.hf_hub_download(repository, MODEL, revision=revision, endpoint=_endpoint()))


def need_token(name: str) -> None:
    """Refuse to send a model to the Hub without a token; the network is not asked.

    Raises:
        UserError: with the ways to give a token.
    """
    if _library().get_token() is None:
        raise UserError(
            f"{name}: there is no token for {_endpoint() or 'the Hub'}, and a push needs one and the network;"
            " log in with `hf auth login`, or set HF_TOKEN to a token that may write"
        )


def push(name: str, folder: Path, private: bool = False) -> str:
    """Upload the model, its description and its card, in one commit. The repository is made as needed.

    Args:
        name: ``USER/NAME``, with or without ``hub:`` before it.
        folder: holds the three files. Nothing else in it is uploaded.
        private: make the repository private, if it is new.

    Returns:
        The address of the commit.

    Raises:
        UserError: in one line, if there is no token, or the Hub refuses or cannot be reached.
    """
    repository, revision = parsed(name)
    if revision is not None:
        raise UserError(f"{name}: a revision is made by the push, so leave @{revision} out")
    need_token(name)
    api = _library().HfApi(endpoint=_endpoint())
    with _one_line(name, None, "check the network and push again"):
        api.create_repo(repository, private=private or None, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[MODEL, CONFIG, CARD],
            commit_message="Upload a model with lebm",
        )
    return str(done.commit_url)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("the Hub needs the package huggingface_hub: pip install huggingface_hub") from error
    return huggingface_hub


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def _one_line(name: str, revision: str | None, unreached: str) -> Iterator[None]:
    """Turns the errors of the library into one line each; none of them shows a token.

    Args:
        name: the model on the Hub.
        revision: its revision, if one is asked for.
        unreached: what follows in the line if the Hub cannot be reached.
    """
    from huggingface_hub import errors, logging

    host = _endpoint() or "the Hub"
    lost: tuple[type[Exception], ...] = (
        *errors.HfHubHTTPError.__bases__,
        OSError,
    )  # what its own library of the network raises
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would print a line for every further try
    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name}: the repository has no revision {revision!r}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise UserError(f"{name}: the repository has no {MODEL}, so it holds no model of lebm") from error
    except (errors.LocalTokenNotFoundError, errors.GatedRepoError) as error:
        raise UserError(f"{name}: {host} asks for a token; hf auth login, or set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: no such repository on {host}, or it is private and there is no token for it"
            " (hf auth login, or HF_TOKEN)"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(
                f"{name}: {host} refuses ({status}): no token with this right; hf auth login, or set HF_TOKEN"
            ) from error
        raise UserError(f"{name}: {host} answers with status {status}") from error
    except lost as error:
        raise UserError(f"{name}: {host} cannot be reached; {unreached}") from error
    except ValueError as error:  # a name or revision that the library refuses
        raise UserError(f"{name}: {' '.join(str(error).split())[:200]}") from error
    finally:
        logging.set_verbosity(verbosity)
