"""From words to a call. The options of `train` are `Settings`' fields and the method's own keywords: no other list."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
import types
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cyclopts import App, Group, Parameter
from cyclopts.config import Dict
from cyclopts.exceptions import CycloptsError, UnknownCommandError, UnknownOptionError, UnusedCliTokensError

from twofold import __version__
from twofold.cli import commands, folder, source
from twofold.cli.settings import Settings, whole
from twofold.errors import InputError, MissingFileError, choose

if TYPE_CHECKING:
    from twofold.method import Method

HELP = ("--help", "-h")
ABOUT = """Split a learned representation in two: s, what your weak supervision is about, and z, all the rest.

A split of handwritten digits, trained, measured and shown in two minutes: `twofold demo`.
On your own data: `twofold train ml-vae FOLDER`, with one sub-folder of images for each person, object or site.
"""


def run(argv: list[str]) -> None:
    """Do what `argv` says. Raises `InputError` where it can't be understood, `TwofoldError` where it can't be done."""
    try:
        command, bound = _parse(argv)
    except CycloptsError as error:
        error.verbose = False
        text = str(error)
        if isinstance(error, UnusedCliTokensError):
            text = f"{' '.join(error.unused_tokens or ())}: more words than the command takes."
        if isinstance(error, UnknownOptionError) and argv[:1] == ["train"] and error.token:
            text = f"{text.rstrip('.')}{_elsewhere(error.token.keyword or error.token.value)}"
        of = f" {argv[0]}" if argv and argv[0].isalpha() and not isinstance(error, UnknownCommandError) else ""
        raise InputError(f"{text.rstrip('.')}; see twofold{of} --help") from None
    command(*bound.args, **bound.kwargs)


def _elsewhere(option: str) -> str:
    """The methods that have an option which the one named lacks."""
    from twofold import methods

    wanted = option.lstrip("-").replace("-", "_")
    owners = [name for name, cls in methods.names().items() if wanted in cls.options()]
    return f", an option of {', '.join(owners)}" if owners else ""


def _parse(argv: list[str]) -> tuple[Callable, inspect.BoundArguments]:
    train, configs = commands.train, []
    if argv[:1] == ["train"]:
        train, argv, configs = _train(argv)
    app = App(name="twofold", help=ABOUT, version=__version__, config=configs)
    every = {"demo": commands.demo, "train": train, "evaluate": commands.evaluate, "report": commands.report}
    every |= {"table": commands.table, "list": commands.catalogue}
    for place, (name, command) in enumerate(every.items()):
        app.command(command, name=name, sort_key=place)
    command, bound, _ = app.parse_args(argv, print_error=False, exit_on_error=False)
    return command, bound


def _train(argv: list[str]) -> tuple[Callable, list[str], list[Dict]]:
    """`train` with the options of the method that is named on the command line, in the file of options, or by the run
    to go on with; the words, those two completed; and the options that file and run give."""
    words = [word for word in argv[1:] if word not in HELP]
    names, given = _scan(words)
    files = [(str(given["config"]), _read(given["config"]))] if given.get("config") else []
    trained = None
    if given.get("resume") and (run := given.get("out")) and not (names and folder.empty(run)):
        told = given.get("told") or Settings()
        longer = (told.steps, told.epochs) != (None, None) or any({"steps", "epochs"} & set(f) for _, f in files)
        files.append((str(run), _stored(run, longer)))
        trained = files[-1][1]["method"]
    method, data = (next((f[name] for _, f in files if name in f), None) for name in ("method", "data"))
    if not (names or method) or (len(names) < 2 and not data):
        if len(words) == len(argv) - 1:
            what = "DATA" if names or method else "METHOD, DATA"
            raise InputError(f"{what}: missing; say twofold train ml-vae digits (twofold list shows both)")
        if not names:  # help
            return _command(None), argv, []
    from twofold import methods

    known = {*methods.names(), *methods.CLASSES}
    cls = methods.get(next((name for name in names if name in known), method or names[0]))
    names, _ = _scan(words, cls)  # now that it is known which words are values of its options
    if trained not in (None, cls.name if not names else methods.get(names[0]).name):
        raise InputError(f"METHOD: {names[0]}; {given['out']} holds a training of {trained}, which resume goes on with")
    train = _command(cls)
    both = [str(word) for word in (method, data)[len(names) :] if word]
    return train, [*argv, *both], [_source(train, *file) for file in files]


def _source(train: Callable, file: str, options: dict[str, Any]) -> Dict:
    """A file's options, all known to `train`, for cyclopts to fall back on."""
    options = {name: value for name, value in options.items() if name not in ("method", "data")}
    arguments = App(default_command=train).assemble_argument_collection()
    flags = {name.removeprefix("--") for a in arguments if a.parse for name in a.names if name.startswith("--")}
    for name in options:
        choose(f"{file}: option", name, sorted(flags))
    return Dict(options, source=file, use_commands_as_keys=False)


def _common() -> list[inspect.Parameter]:
    """The parameters of `train`, less the last, which takes the method's own."""
    hints = get_type_hints(commands.train, include_extras=True)
    *common, _ = inspect.signature(commands.train).parameters.values()
    return [p.replace(annotation=hints[p.name]) for p in common]


def _scan(words: list[str], cls: type[Method] | None = None) -> tuple[list[str], dict[str, Any]]:
    """The words that are no options, and the options. While the method is not known, the values of its options are
    among the words."""
    _, bound, _, _ = _scanner(cls).parse_known_args(words)
    given = dict(bound.arguments)
    return [name for name in given.pop("names", ()) if not name.startswith("-")], given


@cache
def _scanner(cls: type[Method] | None) -> App:
    every = Annotated[str, Parameter(allow_leading_hyphen=True)]
    names = inspect.Parameter("names", inspect.Parameter.VAR_POSITIONAL, annotation=every)
    options = [p for p in _common() if p.kind is p.KEYWORD_ONLY] + ([] if cls is None else [*own(cls).values()])
    return App(default_command=_function([names, *options], lambda: None), help_flags=(), version_flags=())


def _command(cls: type[Method] | None) -> Callable:
    """`commands.train` with the options of one method, typed and documented; or with none, where none was named."""
    options = {} if cls is None else own(cls)
    function = _function([*_common(), *options.values()], commands.train)
    function.__doc__ = commands.train.__doc__
    if cls is not None:
        function.__doc__ = f"Train {cls.name}, which learns from {source.kind(cls)}.\n\n{inspect.getdoc(cls)}"
    return function


def _function(parameters: Iterable[inspect.Parameter], body: Callable) -> Callable:
    signature = inspect.Signature([*parameters])

    def train(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return body(*bound.args, **bound.kwargs)

    train.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    train.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    return train


def own(cls: type[Method]) -> dict[str, inspect.Parameter]:
    """The method's options, but for what no command line can say (a network, say)."""
    hints, group = get_type_hints(cls.__init__), Group(f"Options of {cls.name}", sort_key=0)
    found = {}
    for name, default in cls.options().items():
        hint = hints.get(name, type(default))
        if not writable(hint):
            continue
        counts = hint in (int, int | None)
        told = _told(cls, name)
        if type(None) in get_args(hint):  # cyclopts reads "none" and "null" so
            told = f"{told} May be none{', the default' if default is None else ''}.".strip()
        about = Parameter(help=told, group=group, converter=whole if counts else None)
        kind = inspect.Parameter.KEYWORD_ONLY
        found[name] = inspect.Parameter(name, kind, default=default, annotation=Annotated[hint, about])
    return found


def writable(hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType, tuple, list):
        return all(writable(part) for part in get_args(hint) if part is not Ellipsis)
    return hint in (int, float, str, bool, type(None)) or get_origin(hint) is Literal


def _told(cls: type[Method], option: str) -> str:
    """What the docstrings say of an option: the sentences that name it in backquotes."""
    from twofold.distributions import Likelihood
    from twofold.method import Method

    for place in (*(c for c in cls.__mro__ if issubclass(c, Method) and c is not Method), Likelihood):
        text = " ".join((inspect.getdoc(place) or "").split())
        said = [part for part in re.split(r"(?<=[.;:]) (?=[A-Z`])", text) if re.search(rf"`{option}\b", part)]
        if said:
            return " ".join(said)
    return ""


def _read(path: Path) -> dict[str, Any]:
    """A file of options, TOML or JSON; names with hyphens or underscores."""
    readers: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in readers:
        raise InputError(f"config: {str(path)!r}; expected a .toml or .json file")
    if not path.is_file():
        raise MissingFileError(f"config: {str(path)!r} does not exist")
    try:
        options = readers[path.suffix](path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"config: {path} is no {path.suffix[1:].upper()} ({error})") from None
    if not isinstance(options, dict):
        raise InputError(f"config: {path} holds a {type(options).__name__}; expected options by name, say steps = 1000")
    options = {name.replace("_", "-"): value for name, value in options.items()}
    if isinstance(table := options.get("data-option"), dict):
        options["data-option"] = [f"{name}={json.dumps(value)}" for name, value in table.items()]
    return options


def _stored(run: Path, longer: bool) -> dict[str, Any]:
    """The options of the run to go on with, less its length, where another one is told."""
    told = folder.settings(run).record()
    for name in ("steps", "epochs"):
        told.pop(name, None)
    if not longer:
        from twofold.method import read_tensors

        told["steps"] = read_tensors(run / "checkpoint.safetensors")[1]["plan"]["steps"]  # it may have been extended
    own = told.pop("own")
    return {name.replace("_", "-"): value for name, value in (told | own).items()}
