"""Names of files and folders that are being written: what a killed writer leaves can be told from everything else."""

import re
import secrets

PARTIAL = "trimtab-partial"


def partial_name(name: str) -> str:
    """A name that nothing else has, until what is written may be called ``name``."""
    return f".{name}.{secrets.token_hex(4)}.{PARTIAL}"


def is_partial(name: str, of: str | None = None) -> bool:
    """Whether :func:`partial_name` made it, of one name or of any.

    Example:
        >>> is_partial(partial_name("a.txt")), is_partial(partial_name("a.txt"), of="b.txt"), is_partial("a.txt")
        (True, False, False)
    """
    return re.fullmatch(rf"\.{'.+' if of is None else re.escape(of)}\.[0-9a-f]{{8}}\.{PARTIAL}", name) is not None
