"""The command line: thin files that parse, call and print.

Every error is one sentence on standard error, with an exit code of its own.
"""

import os
import sys

import typer

from stream_calib.cli import config, demo, feed, replay, run, simulate, topics, watch
from stream_calib.errors import StreamCalibError

EXIT_CODES = """\
Exit codes: 0 done, 1 internal error, 2 usage, 3 configuration, 4 input file or argument,
5 broker unreachable or refusing, 6 topic missing, 7 port in use, 130 interrupted."""

app = typer.Typer(
    name="stream-calib",
    help="Live correlation matrices from ticks on Kafka.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("replay")(replay.replay)
app.command("feed")(feed.feed)
app.command("watch")(watch.watch)
app.command("simulate")(simulate.simulate)
app.command("warmup")(run.warmup)
app.add_typer(topics.app, name="topics")
app.add_typer(config.app, name="config")


def main() -> None:
    """Run the command line; never shows a traceback unless asked to."""
    try:
        app()
    except StreamCalibError as error:
        print(f"stream-calib: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("STREAM_CALIB_TRACEBACK"):
            raise
        print(
            f"stream-calib: internal error: {type(error).__name__}: {error} "
            "(STREAM_CALIB_TRACEBACK=1 shows where)",
            file=sys.stderr,
        )
        sys.exit(1)
