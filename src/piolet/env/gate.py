"""The gate: a command of the site's or the user's choice that an image must pass before anything starts in it.

It runs on the submitting host, at each compilation; what it finds out about an image, it remembers itself.
"""

from __future__ import annotations

from piolet.core.errors import ConfigError, ToolMissing
from piolet.core.run import Runner
from piolet.env.edf import Value
from piolet.env.lookup import Context
from piolet.env.model import Image

_TAIL_LINES = 20


def check(image: Image, value: Value, context: Context, runner: Runner) -> None:
    """Run the setting env.gate with the path of the image as its last argument; any status but 0 refuses the image.

    Raises:
        ConfigError: the image is refused, or the command is not there: an image that was not looked at has not passed.
        ToolTimeout: it did not end within env.import_timeout_s.
    """
    words = context.settings.env.gate
    if not words:
        return
    command = " ".join(words)
    try:
        done = runner.run([*words, str(image.path)], timeout=context.settings.env.import_timeout_s, ok=None)
    except ToolMissing as missing:
        raise value.error(
            f"the gate for images cannot run: {missing.what}", "correct the setting env.gate"
        ) from missing
    if done.rc:
        raise _refused(value, image, command, done.rc, done.stdout + done.stderr)


def _refused(value: Value, image: Image, command: str, status: int, said: str) -> ConfigError:
    lines = "\n".join(f"  | {line}" for line in said.strip().splitlines()[-_TAIL_LINES:])
    return value.error(
        f"`{command}` (setting env.gate) refuses image {image.shown()} with status {status}\n{lines}".rstrip(),
        f"mend the image, or see all of it: {command} {image.path}",
    )
