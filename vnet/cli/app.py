"""`vnet`: the commands, assembled."""

from __future__ import annotations

import typer

from vnet.cli import (
    attach_commands,
    backup_commands,
    capture_command,
    change_commands,
    clone_command,
    cp_command,
    disk_commands,
    doctor_command,
    drill_command,
    events_command,
    export_command,
    fabric_commands,
    image_commands,
    import_commands,
    look_commands,
    past_commands,
    picture_commands,
    policy_commands,
    screen_commands,
    seen_commands,
    set_command,
    snapshot_commands,
    ssh_commands,
    switch_command,
    top_command,
    trace_command,
    vm_commands,
)
from vnet.cli.options import root

app = typer.Typer(
    name="vnet",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
root(app)
change_commands.register(app)
fabric_commands.register(app)
doctor_command.register(app)
import_commands.register(app)
vm_commands.register(app)
cp_command.register(app)
set_command.register(app)
clone_command.register(app)
attach_commands.register(app)
ssh_commands.register(app)
disk_commands.register(app)
snapshot_commands.register(app)
image_commands.register(app)
export_command.register(app)
screen_commands.register(app)
backup_commands.register(app)
look_commands.register(app)
past_commands.register(app)
seen_commands.register(app)
picture_commands.register(app)
capture_command.register(app)
policy_commands.register(app)
trace_command.register(app)
drill_command.register(app)
switch_command.register(app)
top_command.register(app)
events_command.register(app)


def main() -> None:
    """The entry point of `vnet`."""
    app(prog_name="vnet")
