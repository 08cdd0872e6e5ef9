"""Answer Docker until SIGTERM: systemd runs it."""

from __future__ import annotations

from argparse import Namespace

from driver import config
from driver.cli.program import Program
from driver.errors import Conflict

SETTINGS = tuple(setting.option for setting in config.SETTINGS if not setting.secret)
OCCUPIED = 69  # exit status if another instance runs, so that a restart would not help


def run(program: Program, _: Namespace) -> None:
    """Serve."""
    try:
        program.serve()
    except Conflict as error:
        error.exit_status = OCCUPIED
        raise
