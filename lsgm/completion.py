"""Scripts by which bash, zsh and tcsh complete the words of every command, drawn from its page of help."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint

from lsgm import __version__
from lsgm.discovery import help_line, offers, package_folder, surveying
from lsgm.errors import ConfigError, did_you_mean
from lsgm.logs import log
from lsgm.recipes import find_recipes

_FRAME = re.compile(r"^[\u2500-\u257f|]?\s*")
_ENTRY = re.compile(r"^(-{1,2}[A-Za-z][\w.-]*)((?:, -{1,2}[A-Za-z][\w.-]*)*)(?: \{([^}]*)\})?")
_SHOWN = {"-h": "this page", "--help": "this page"}
_ALWAYS = {
    "-q": "say warnings and errors alone, show no progress",
    "-v": "say what is read, from where and when",
}
_TOP = {"--version": "the version", "--print-completion": "a script for bash, zsh or tcsh"}


@dataclass(frozen=True)
class Place:
    """What may stand after the words of a command."""

    words: Mapping[str, str]
    """Further words, and what they are: commands, or names that the first word can be."""
    options: Mapping[str, str]
    """Options, and what they are for."""
    values: Mapping[str, Sequence[str]]
    """The values of those that have few."""


def script(argv: Sequence[str]) -> str:
    """Return the script for the shell that the only word names. Raises ConfigError for another word."""
    shells = {"bash": _bash, "zsh": _zsh, "tcsh": _tcsh}
    if len(argv) != 1 or argv[0] not in shells:
        hint = did_you_mean(argv[0], shells) if argv else ""
        raise ConfigError(f"--print-completion takes one word{hint or '; give bash, zsh or tcsh'}")
    return shells[argv[0]](survey())


def survey() -> dict[str, Place]:
    """Return the places of a command line by the words before them, as in ``data fetch``; empty at first.

    A command that cannot be asked for its page is left out, and named.
    """
    commands = offers("lsgm.commands")
    helps = {name: help_line(point.value) for name, point in commands.items()}
    top = Place(helps, _TOP | _SHOWN | _ALWAYS, {"--print-completion": ["bash", "zsh", "tcsh"]})
    places = {"": top}
    with _wide():
        for name, point in commands.items():
            try:
                places.update(_asked(point, [name]))
            except Exception as error:
                log.warning(f"{name} is left out, which has no page of help: {type(error).__name__}: {error}")
    return places


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """Have pages be wide, but not so wide that boxes stand beside one another."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "125"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _asked(point: EntryPoint, words: list[str]) -> dict[str, Place]:
    page = io.StringIO()
    with surveying() as found, contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        point.load().run([*words[1:], "--help"])
    if not found:
        return {" ".join(words): _read(page.getvalue())}
    places = {" ".join(words): Place(dict(found), _SHOWN | _ALWAYS, {})}
    for word in found:
        places.update(_asked(point, [*words, word]))
    return places


def _read(page: str) -> Place:
    """Return what a page of help tells of options, and which names its first word can have."""
    options, values = dict[str, str](), dict[str, Sequence[str]]()
    lines = [_FRAME.sub("", line.rstrip(" \u2502|")) for line in page.splitlines()]
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if (entry := _ENTRY.match(line)) is None:
            continue
        names = [entry[1], *re.findall(r"-[\w.-]+", entry[2])]
        said = line[entry.end() :].partition("  ")[2].strip() or after
        options |= dict.fromkeys(names, said)
        if choices := [value for value in (entry[3] or "").split(",") if value and value != "None"]:
            values |= dict.fromkeys(names, choices)
    return Place(_names(lines), options | _ALWAYS, values)


def _names(lines: Sequence[str]) -> dict[str, str]:
    """Return the names that the first word of a page can have, where it is a recipe, a task or a command."""
    first = next((line.split()[0] for line in lines if re.match(r"(RECIPE|TASK)\b", line)), "")
    if first == "RECIPE":
        return dict.fromkeys(find_recipes(), "a recipe")
    if first == "TASK":
        folders = (package_folder(point.value) for point in offers("lsgm.suites").values())
        return {file.stem: "a task" for folder in folders if folder for file in sorted(folder.glob("*.toml"))}
    return {}


def _quoted(text: str) -> str:
    """Return a text in single quotes, as bash and zsh read it."""
    return "'" + text.replace("'", "'\\''") + "'"


_BASH = """# Completion of the commands and options of lsgm {version} for bash.
_lsgm_place() {{
  words='' options=''
  case "$1" in
{places}
    *) return 1 ;;
  esac
}}
_lsgm_values() {{
  case "$1" in
{values}
    *) return 1 ;;
  esac
}}
_lsgm() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command='' word words options
  if [[ $current == = ]]; then current=''
  elif [[ $before == = ]]; then before="${{COMP_WORDS[COMP_CWORD-2]}}"
  fi
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$word" in -q|-v) continue ;; esac
    _lsgm_place "${{command:+$command }}$word" || break
    command="${{command:+$command }}$word"
  done
  _lsgm_place "$command"
  if [[ $current == -* ]]; then words="$options"
  else _lsgm_values "$command $before" || true
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -o default -F _lsgm lsgm
"""


def _bash(places: Mapping[str, Place]) -> str:
    return _BASH.format(
        version=__version__,
        places="\n".join(
            f"    {_quoted(key)}) words={_quoted(' '.join(place.words))} "
            f"options={_quoted(' '.join(place.options))} ;;"
            for key, place in places.items()
        ),
        values=_values(places),
    )


def _values(places: Mapping[str, Place]) -> str:
    return "\n".join(
        f"    {_quoted(f'{key} {option}')}) words={_quoted(' '.join(values))} ;;"
        for key, place in places.items()
        for option, values in place.values.items()
    )


_ZSH = """#compdef lsgm
# Completion of the commands and options of lsgm {version} for zsh.
_lsgm_place() {{
  known=() options=()
  case "$1" in
{places}
    *) return 1 ;;
  esac
}}
_lsgm_values() {{
  local words=''
  case "$1" in
{values}
    *) return 1 ;;
  esac
  known=(${{=words}})
}}
_lsgm() {{
  local command='' before="${{words[CURRENT-1]}}" word
  local -a known options
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    case "$word" in -q|-v) continue ;; esac
    _lsgm_place "${{command:+$command }}$word" || break
    command="${{command:+$command }}$word"
  done
  _lsgm_place "$command"
  if [[ $PREFIX == -* ]]; then _describe -o option options
  else
    _lsgm_values "$command $before"
    (( $#known )) && _describe word known && return
    _files
  fi
}}
if [[ $funcstack[1] == _lsgm ]]; then _lsgm "$@"; else compdef _lsgm lsgm; fi
"""


def _zsh(places: Mapping[str, Place]) -> str:
    def described(words: Mapping[str, str]) -> str:
        return " ".join(_quoted(f"{word}:{said[:80]}") for word, said in words.items())

    return _ZSH.format(
        version=__version__,
        places="\n".join(
            f"    {_quoted(key)}) known=({described(place.words)}) options=({described(place.options)}) ;;"
            for key, place in places.items()
        ),
        values=_values(places),
    )


def _tcsh(places: Mapping[str, Place]) -> str:
    """Return one line of rules: words after words, values after options, and all options after dashes.

    tcsh cannot tell which command an option is for; those of tables, with a dot, are too many for its lines.
    """
    options = {option[2:] for place in places.values() for option in place.options if option[:2] == "--"}
    rules = [f"c/--/({' '.join(sorted(option for option in options if '.' not in option))})/"]
    values = {option: few for place in places.values() for option, few in place.values.items()}
    rules += [f"n/{option}/({' '.join(few)})/" for option, few in values.items() if "." not in option]
    rules += [
        f"n/{key}/({' '.join(place.words)})/"
        for key, place in places.items()
        if key and " " not in key and place.words
    ]
    rules.append(f"p/1/({' '.join(places[''].words)})/")
    said = f"# Completion of the commands and options of lsgm {__version__} for tcsh.\n"
    return said + " ".join(["complete lsgm", *(f"'{rule}'" for rule in rules)]) + "\n"
