"""Options of the hot commands, read from a table: argparse takes as long to import as everything else here together."""

import os

from bursar.errors import BadInput
from bursar.wire.c_halves import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Options = dict[str, object]


class Flag:
    """One option: what `--help` says, and how its word is read; without *read* it takes none."""

    def __init__(self, help: str, word: str = "", read: "Callable[[str, str], object] | None" = None) -> None:
        self.help = help
        self.word = word
        self.read = read


SHOWN = 80
"""Characters of a command."""

HELP = {"--help": Flag("print this and leave")}


def parse(words: list[str], flags: "Mapping[str, Flag]", verb: str) -> tuple[Options, list[str]]:
    """The options before `--` (or before the first word that is none), and the command after it. Raises BadInput."""
    options: Options = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            position -= 1
            break
        name, equals, text = word.partition("=")
        name = "--help" if name == "-h" else name
        flag = flags.get(name)
        if flag is None:
            raise BadInput(unknown_flag(name, flags, verb))
        if flag.read is None:
            if equals:
                raise BadInput(f"{name} takes no value, got {text!r}; write {name} alone")
            options[name] = True
            continue
        if not equals:
            if position == len(words) or words[position] == "--":
                raise BadInput(f"{name} needs a value: {name} {flag.word}")
            text = words[position]
            position += 1
        options[name] = joined(options.get(name), flag.read(text, name), name)
    return options, words[position:]


def asks_json(words: list[str]) -> bool:
    """Whether `--json` is among the options, also when they cannot be read."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def first_words(command: list[str]) -> str:
    """What the officer is told of a command, for people: never the arguments in full."""
    return " ".join(command)[:SHOWN]


def joined(before: object, value: object, name: str) -> object:
    """What a flag that came again means: amounts add up by name, directories are listed, anything else is a mistake. Raises BadInput."""
    if before is None:
        return value
    if isinstance(before, list) and isinstance(value, list):
        return before + value
    if isinstance(before, dict) and isinstance(value, dict):
        twice = before.keys() & value.keys()
        if not twice:
            return before | value
        raise BadInput(f"{name} names {min(twice)} twice; give one amount")
    raise BadInput(f"{name} is given twice, as {before!r} and {value!r}; give it once")


def unknown_flag(name: str, flags: "Mapping[str, Flag]", verb: str) -> str:
    """One line with the flag that was probably meant."""
    from difflib import get_close_matches  # imports re: only a mistake pays for it

    near = get_close_matches(name, flags, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"unknown flag {name}; {meant}`bursar {verb} --help` lists all"


def usage(head: str, flags: "Mapping[str, Flag]") -> str:
    """The text of `--help`."""
    names = {name: f"{name} {flag.word}".rstrip() for name, flag in flags.items()}
    width = max(map(len, names.values())) + 2
    return head + "\n\n" + "\n".join(f"  {names[name]:{width}}{flag.help}" for name, flag in flags.items()) + "\n"


def text(word: str, name: str) -> str:
    """A word, taken as it is. Raises BadInput when it is empty."""
    if not word:
        raise BadInput(f"{name} is empty; give it a value or leave it out")
    return word


def directory(word: str, name: str) -> list[str]:
    """The real path of a directory of ours. Raises BadInput."""
    path = os.path.realpath(word)
    try:
        owner = os.stat(path).st_uid
    except OSError as problem:
        raise BadInput(f"{name} {word}: {problem.strerror}; make it first") from problem
    if not os.path.isdir(path):
        raise BadInput(f"{name} {word} is no directory; name the one that it is in")
    if os.geteuid() not in (0, owner):
        raise BadInput(f"{name} {word} belongs to uid {owner}, not to you; name a directory of your own")
    return [path]


def whole_number(word: str, name: str) -> int:
    """An integer. Raises BadInput."""
    try:
        return int(word)
    except ValueError as problem:
        raise BadInput(f"{name} must be a whole number, got {word!r}") from problem


def seconds(word: str, name: str) -> float:
    """A number of seconds, finite and not negative. Raises BadInput."""
    try:
        number = float(word.removesuffix("s"))
    except ValueError as problem:
        raise BadInput(f"{name} must be a number of seconds, got {word!r}; write for example {name} 30") from problem
    if not 0 <= number < float("inf"):
        raise BadInput(f"{name} must be a number of seconds from 0 up, got {word!r}; write for example {name} 30")
    return number


def amounts(word: str, name: str) -> dict[str, str]:
    """`cpu=1,memory=2GiB` by resource; the officer reads the amounts themselves. Raises BadInput."""
    found: dict[str, str] = {}
    for item in word.split(","):
        resource, equals, amount = item.partition("=")
        resource, amount = resource.strip(), amount.strip()
        if not (resource and equals and amount):
            raise BadInput(f"{name} must be RESOURCE=AMOUNT pairs, got {item!r}; write for example {name} cpu=1,memory=2GiB")
        if resource in found:
            raise BadInput(f"{name} names {resource} twice; give one amount")
        found[resource] = amount
    return found
