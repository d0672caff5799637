"""completion: what the shell completes, from the tables that the verbs and the settings come from."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from fluxtui.persist import output
from fluxtui.persist.errors import ExitCode
from fluxtui.persist.settings import keys

_SCRIPT = """\
_fluxtui() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} words=
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        words="@VERBS@ --help --version"
    elif [[ $before == --set ]]; then
        COMPREPLY=($(compgen -S = -W "@SETTINGS@" -- "$word"))
        compopt -o nospace 2>/dev/null
        return
    else
        case "$verb $before" in
@CHOICES@
        *) case "$verb $word" in
@OPTIONS@
            esac ;;
        esac
        if (( COMP_CWORD == 2 )) && [[ $word != -* && " @NAMED@ " == *" $verb "* ]]; then
            local home=${FLUXTUI_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/fluxtui} folder
            for folder in "$home"/sessions/*/; do
                [[ -d $folder ]] && folder=${folder%/} && words+=" ${folder##*/}"
            done
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o bashdefault -o default -F _fluxtui fluxtui
"""


def completion_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", nargs="?", choices=("bash", "zsh"), default="bash", help="whose; bash without this")


def completion_verb(arguments: Namespace) -> int:
    begin = "autoload -U +X bashcompinit && bashcompinit\n" if arguments.shell == "zsh" else ""
    output.write(begin + script())
    return int(ExitCode.DONE)


def script() -> str:
    """For bash, and for zsh with bashcompinit. Names of sessions are looked up when they are wanted, without Python."""
    from fluxtui.cli import verbs

    everything = [verb for _, group in verbs.GROUPS for verb in group]
    named = [verb.name for verb in everything if verb.usage.startswith("NAME") and verb.name not in ("new", "import")]
    own = [verb for verb in everything if verb.name != "check"]  # the engine reads its options
    filled = _SCRIPT
    for mark, words in {
        "VERBS": " ".join(verb.name for verb in everything),
        "SETTINGS": " ".join(key.dotted for key in keys.all_keys()),
        "NAMED": " ".join(named),
        "CHOICES": "\n".join(line for verb in everything for line in _choices(verb.name, verb.parser())),
        "OPTIONS": "\n".join(f'            "{verb.name} -"*) words="{_options(verb.parser())}" ;;' for verb in own),
    }.items():
        filled = filled.replace(f"@{mark}@", words)
    return filled


def _options(parser: ArgumentParser) -> str:
    return " ".join(option for action in parser._actions for option in action.option_strings if option.startswith("--"))


def _choices(verb: str, parser: ArgumentParser) -> Iterator[str]:
    """Options that take one of a few words."""
    for action in parser._actions:
        if action.choices and action.option_strings:
            options = " | ".join(f'"{verb} {option}"' for option in action.option_strings)
            yield f'        {options}) words="{" ".join(map(str, action.choices))}" ;;'
