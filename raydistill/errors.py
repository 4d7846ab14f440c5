"""The ways a command ends badly; the command line turns them into exit codes and one line on stderr."""


class InputError(Exception):
    """The user's input cannot be used. The message names the field or file, what is wrong and what would be right. Exit code 2."""


class RunError(Exception):
    """A run that had started cannot go on. The message says why and what to do. Exit code 3."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """The user stopped a run, which can be resumed. Exit code 130."""


def reason(error: BaseException) -> str:
    """What a library's error says, on one line and not without end."""
    return " ".join(str(error).split())[:200]


def last_line(error: BaseException) -> str:
    """The line of an actor's error that says what happened: the others are its traceback."""
    return str(error).strip().splitlines()[-1].strip()
