"""`flexmeter` and `python -m flexmeter`: run the command line, turn errors into one clear line and an exit status."""

from __future__ import annotations

import sys

import typer

from flexmeter.errors import FlexmeterError, InputError

# typer carries its own copy of click and exports only the leaf of these classes
INTERRUPTED = 130
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
ClickError: type[Exception] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line; exit status 0 done, 1 the job failed, 2 wrong usage or input."""
    from flexmeter.cli import app  # noqa: PLC0415  (after the error classes: a broken import is an error too)

    try:
        status = app(standalone_mode=False)
    except ClickError as error:
        _leave(_usage(error), 2 if isinstance(error, UsageError) else 1)
    except InputError as error:
        _leave(error, 2)
    except FlexmeterError as error:
        _leave(error, 1)
    except (KeyboardInterrupt, typer.Abort):
        _leave("interrupted", 1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        _leave(f"{error.filename or 'system'}: {error.strerror or error}", 1)
    else:
        if status == INTERRUPTED:
            _leave("interrupted", 1)
        sys.exit(status if isinstance(status, int) else 0)


def _usage(error: BaseException) -> str:
    """Return what is wrong with a command line, and where to read more; without arguments, the help."""
    context = getattr(error, "ctx", None)
    message = str(getattr(error, "message", "") or error)
    if context is None:
        return message
    formatted = error.format_message() if hasattr(error, "format_message") else message
    if not formatted:
        return "no command given; `flexmeter --help` lists them"
    command = " ".join(["flexmeter", *context.command_path.split()[1:]]).replace("-m flexmeter ", "")
    return f"{formatted.rstrip('.')}. See `{command} --help`."


def _leave(text: object, status: int) -> None:
    print(f"flexmeter: {text}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
