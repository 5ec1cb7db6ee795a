"""A caller's request ids and the engine's."""

from collections.abc import Iterable

_SUFFIX = 9
"""Characters that vLLM adds to a caller's request id: a dash and eight random ones."""


def find_request(asked: str, known: Iterable[str]) -> str | None:
    """The engine's id of a request, by that or by the caller's; of several the latest, None where there is none.

    The samples of a request with n > 1 are ``0_ID``, ``1_ID`` ...

    Args:
        asked: an id.
        known: the engine's ids, the latest last.

    Example:
        >>> find_request("7", ["6-0a1b2c3d", "7-0a1b2c3d"])
        '7-0a1b2c3d'
    """
    return next((own for own in reversed(list(known)) if asked in (own, own[:-_SUFFIX])), None)
