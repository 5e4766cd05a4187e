"""`flexmeter` and `python -m flexmeter`: run the command line, turn errors into one clear line and an exit status."""

from __future__ import annotations

import sys

from flexmeter.errors import FlexmeterError, InputError


def main() -> None:
    """Run the command line; exit status 0 done, 1 the job failed, 2 wrong usage or input."""
    from flexmeter.cli import app  # noqa: PLC0415  (after the error classes: a broken import is an error too)

    try:
        app(standalone_mode=True)
    except InputError as error:
        _leave(error, 2)
    except FlexmeterError as error:
        _leave(error, 1)
    except KeyboardInterrupt:
        _leave("interrupted", 1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        _leave(f"{error.filename or 'system'}: {error.strerror or error}", 1)


def _leave(text: object, status: int) -> None:
    print(f"flexmeter: {text}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
