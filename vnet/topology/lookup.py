"""Which topology file a command is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vnet.base.errors import InputError, UsageError

VARIABLE = "VNET_FILE"
PLAIN_NAME = "vnet.yaml"
SUFFIX = ".vnet.yaml"
_OTHER_SPELLINGS = ("*.vnet.yml", "vnet.yml")


def discover(paths: Sequence[str], env: Mapping[str, str], cwd: Path) -> Path:
    """The topology file: that of `-f`, else of $VNET_FILE, else the only candidate in `cwd`.

    Args: `paths` are the arguments of `-f`; `-` is standard input. The path is returned as it was
    given, one found in `cwd` by its name alone, so that messages show what the user knows.
    Raises UsageError when none or several could be meant, InputError when the one named is not there.
    """
    if len(paths) > 1:
        raise UsageError(f"several topology files ({', '.join(paths)}) are not supported yet: give one -f")
    if paths:
        return _existing(paths[0], "-f", cwd)
    if env.get(VARIABLE):
        return _existing(env[VARIABLE], f"${VARIABLE}", cwd)
    return _only_candidate(cwd)


def _existing(path: str, origin: str, cwd: Path) -> Path:
    if path == "-":
        return Path(path)
    if not path:
        raise UsageError(f"{origin} names no file: give the path of a topology file")
    place = cwd / path
    if place.is_dir():
        names = _candidates(place)
        hint = f": did you mean {Path(path) / names[0]}?" if len(names) == 1 else ""
        raise InputError(f"{path} ({origin}) is a directory, not a topology file{hint}")
    if not place.exists():
        raise InputError(f"there is no file {path} ({origin})")
    return Path(path)


def _candidates(directory: Path) -> list[str]:
    return sorted(
        each.name
        for each in directory.iterdir()
        if (each.name == PLAIN_NAME or each.name.endswith(SUFFIX)) and each.is_file()
    )


def _only_candidate(cwd: Path) -> Path:
    names = _candidates(cwd)
    if len(names) == 1:
        return Path(names[0])
    if names:
        raise UsageError(f"several topology files in {cwd}: {', '.join(names)}; choose one with -f FILE")
    wrong = sorted(each.name for pattern in _OTHER_SPELLINGS for each in cwd.glob(pattern))
    hint = f" ({wrong[0]} is there: rename it to end in .yaml)" if wrong else ""
    raise UsageError(
        f"no topology file ({PLAIN_NAME} or NAME{SUFFIX}) in {cwd}{hint}: "
        f"give one with -f FILE or ${VARIABLE}"
    )
