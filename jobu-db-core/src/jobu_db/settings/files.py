"""Reading the files that settings name: regular ones, of a sane size.

Reading a FIFO would wait for a writer without a limit, and a device such as /dev/zero has no end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

LARGEST_FILE = 1_000_000
"""Bytes: many times what a configuration, a password or a certificate needs."""

# O_NONBLOCK: the file may become a FIFO between `stat` and `open`, which would then wait for a
# writer; for a regular file it means nothing. O_BINARY: Windows would change the line ends.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class UnusableFileError(Exception):
    """The text says what is wrong with a file, to be put after its name."""


def read_file(path: Path, largest: int = LARGEST_FILE) -> tuple[bytes, int]:
    """Read a regular file. It blocks: call it outside the event loop.

    Args:
        largest: Bytes that it may have at most.

    Returns:
        Its content, and its mode as `os.stat` has it.

    Raises:
        UnusableFileError: There is none, it cannot be read, is not regular, or too large.
    """
    try:
        _refuse_unless_regular(path.stat().st_mode)  # opening a device may already do something
        with open(path, "rb", opener=lambda name, _: os.open(name, _FLAGS)) as file:
            mode = os.fstat(file.fileno()).st_mode
            _refuse_unless_regular(mode)  # it may have been replaced since
            # One more than allowed tells a file that is too large. Its size would not: /proc says
            # 0, and a file may grow while it is read.
            content = file.read(largest + 1)
    except FileNotFoundError:
        raise UnusableFileError("there is no such file; give the path of one") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UnusableFileError(f"cannot be read: {reason}") from error
    if len(content) > largest:
        raise UnusableFileError(f"is larger than {largest:,} bytes")
    return content, mode


def _refuse_unless_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UnusableFileError("is a directory; give the path of a file")
    if not stat.S_ISREG(mode):
        raise UnusableFileError("is a pipe, socket or device; give the path of a regular file")
