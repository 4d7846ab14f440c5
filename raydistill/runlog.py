"""A run's log, and what a person is told when it fails."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raydistill.errors import InputError, RunError
from raydistill.runfolder import RunFolder
from raydistill.track.secrets import masked_uri

logger = logging.getLogger("raydistill")


@contextmanager
def explained(folder: RunFolder, to_go_on: str | None) -> Iterator[None]:
    """Whatever goes wrong is written to the run's log in full, and becomes one line that names the log and, if told, how to go on."""
    handler = logging.FileHandler(folder.root / "run.log", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        logger.exception("the run failed")
        advice = f"; to go on: {to_go_on}" if to_go_on else ""
        raise RunError(f"{_one_line(error)}; log: {folder.root / 'run.log'}{advice}") from error
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, RunError) else f"{type(error).__name__}: {text}"


def resume_command() -> str:
    """The command line as it was given (`sys.argv[1]` is the verb), without passwords; `demo` resumes by itself."""
    verb, *arguments = sys.argv[1:]
    shown = [masked_uri(a) if a.startswith("track") else a for a in arguments]
    resume = [] if verb == "demo" or "--resume" in shown else ["--resume"]
    return shlex.join([str(Path(sys.executable).with_name("raydistill")), verb, *shown, *resume])
