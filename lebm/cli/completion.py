"""``lebm --print-completion``: a bash script that completes verbs, recipes and files."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["script"]

_SCRIPT = """\
# Load it in ~/.bashrc by:  source <(lebm --print-completion)
# zsh:  autoload -U +X bashcompinit && bashcompinit  before it
_lebm() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb=${{COMP_WORDS[1]}}
    local recipes="{recipes}"
    if [[ $COMP_CWORD == 1 ]]; then
        COMPREPLY=($(compgen -W "{verbs} --help --version" -- "$word"))
    elif [[ $before == -c || $before == --config || $COMP_CWORD-$verb =~ ^2-({named})$ ]]; then
        COMPREPLY=($(compgen -W "$recipes" -- "$word") $(compgen -f -X '!*.yaml' -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _lebm lebm
"""


def script(verbs: Iterable[str]) -> str:
    """The script for these verbs and for the recipes and overlays of this installation."""
    from lebm.config.recipes import blocks, names

    recipes = " ".join([*names(), *blocks()])
    return _SCRIPT.format(verbs=" ".join(verbs), recipes=recipes, named="cat|cp|validate-recipe")
