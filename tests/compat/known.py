"""What the mount does otherwise than a local disk, and is to: each is a row of the README's table
of limits. A case marks the step that meets one; a difference anywhere else is a failure, and so
is a marked step that differs no longer."""

from differ import Known

OTHER_NAME = Known(
    "files",
    "what is no database by its name could not be replicated",
    "SQLITE_CANTOPEN*",
)
OTHER_NAME_IN_SHELL = Known(OTHER_NAME.row, OTHER_NAME.reason, "[[][[]1, *cannot open*")
SPILL_AND_ROLLBACK_TO = Known(
    "old SQLite",
    "the frames of such a transaction have checksums that no recovery would accept",
    "SQLITE_IOERR*",
)
SPILL_MENDED = (3, 53)  # the first release that writes them

ALL = [OTHER_NAME, OTHER_NAME_IN_SHELL, SPILL_AND_ROLLBACK_TO]


def rows_missing(readme):
    """Known differences whose row is not in the README's table of limits."""
    section = readme.split("## What it does not do", 1)[-1].split("\n## ", 1)[0]
    rows = {line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")}
    return [known.row for known in ALL if known.row not in rows]
