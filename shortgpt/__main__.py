"""Where the `shortgpt` command starts, and ``python -m shortgpt``: Ctrl-C is heeded before anything slow is imported."""

import os
import signal
import sys


def leave_at_once(*_: object) -> None:
    """Handle SIGINT while modules are imported and while Python ends: an exception there is a traceback, or gets lost."""
    os._exit(130)


def main() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, leave_at_once)
    from shortgpt import cli

    sys.exit(cli.main())


if __name__ == "__main__":
    main()
