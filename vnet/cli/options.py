"""The options that every command takes, and how a command ends.

`command(app)` gives a function all of them: it declares `settings: Settings` first and its own
options after, and the common ones may stand before the command's name as well as after it.
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from vnet.base.errors import Exit, VnetError
from vnet.cli import files
from vnet.cli.client import Client, Json
from vnet.cli.output import Format, tell
from vnet.cli.progress import Style, reporter


@dataclass(frozen=True, slots=True)
class Settings:
    """The common options as given."""

    file: tuple[str, ...] = ()
    name: str | None = None
    output: Format = Format.TABLE
    quiet: bool = False
    verbose: bool = False
    progress: Style = Style.AUTO
    timeout_s: float | None = None

    @property
    def fabric(self) -> str:
        """The fabric meant; `-` for the only one."""
        return files.meant(self.name, self.file)

    @property
    def report(self) -> Callable[[Json], None]:
        """Where progress goes."""
        return reporter(Style.QUIET if self.quiet else self.progress)

    def client(self) -> Client:
        """A client of the daemon that runs; it does not start one."""
        return Client(timeout_s=self.timeout_s)

    def daemon(self) -> Client:
        """A client of a daemon that answers: started if need be."""
        from vnet.cli import daemon

        client = self.client()
        daemon.ensure(client)
        return client


_COMMON: dict[str, Any] = {
    "file": Annotated[
        list[str] | None,
        typer.Option("-f", "--file", help="Topology file; - is standard input.", show_default=False),
    ],
    "name": Annotated[str | None, typer.Option("-n", "--name", help="Fabric, instead of a file.")],
    "output": Annotated[Format | None, typer.Option("-o", "--output", help="How to print data.")],
    "quiet": Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")],
    "verbose": Annotated[bool, typer.Option("-v", "--verbose", help="Tell more.")],
    "progress": Annotated[Style | None, typer.Option("--progress", help="How to show progress.")],
    "timeout": Annotated[
        float | None, typer.Option("--timeout", min=0.1, help="Seconds without an answer before giving up.")
    ],
}
_DEFAULTS: dict[str, Any] = {"quiet": False, "verbose": False}


def _parameters() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=_DEFAULTS.get(name))
        for name, kind in _COMMON.items()
    ]


def _settings(given: dict[str, Any], outer: Settings) -> Settings:
    """What stands after the command's name wins over what stands before it."""
    return Settings(
        tuple(given["file"] or outer.file),
        given["name"] or outer.name,
        given["output"] or outer.output,
        given["quiet"] or outer.quiet,
        given["verbose"] or outer.verbose,
        given["progress"] or outer.progress,
        given["timeout"] or outer.timeout_s,
    )


def command(
    app: typer.Typer, *names: str, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function a command of `app`, under its own name and hidden aliases `names`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        @functools.wraps(function)
        def run(ctx: typer.Context, **given: Any) -> None:
            common = {name: given.pop(name) for name in _COMMON}
            settings = _settings(common, ctx.obj or Settings())
            end(lambda: function(settings, **given))

        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        parameters = [context, *keyword, *_parameters()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        del run.__wrapped__
        app.command(function.__name__.rstrip("_").replace("_", "-"), **options)(run)
        for alias in names:
            app.command(alias, hidden=True, **options)(run)
        return function

    return decorate


def root(app: typer.Typer) -> None:
    """Let the common options stand before the command's name."""

    def common(ctx: typer.Context, **given: Any) -> None:
        """Topologies, flows, ports and plans: a VM fabric behind an OpenFlow switch in eBPF."""
        ctx.obj = _settings(given, Settings())

    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *_parameters()]
    common.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    common.__annotations__ = {each.name: each.annotation for each in parameters}
    app.callback()(common)


def end(work: Callable[[], int | None]) -> None:
    """Run a command to its exit code: errors in words; a bug is left to its traceback."""
    try:
        code = work()
        sys.stdout.flush()
    except VnetError as error:
        tell(f"vnet: {error}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        tell("vnet: interrupted")
        raise typer.Exit(Exit.INTERRUPTED) from None
    except BrokenPipeError:
        _mute()
        raise typer.Exit(Exit.OK) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _mute()
        tell(f"vnet: cannot write to standard output: {error.strerror}")
        raise typer.Exit(Exit.FAILED) from None
    raise typer.Exit(code or Exit.OK)


def _mute() -> None:
    """What is still buffered goes nowhere, so that Python's own flush at the end cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
