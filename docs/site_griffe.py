"""Docstrings name other objects by roles, as Sphinx reads them; the site shows the names."""

import re

import griffe

ROLE = re.compile(r":(?:func|class|meth|data|mod|attr|exc):`~?([^`]+)`")


class Roles(griffe.Extension):
    """Turns ``:func:`name``` into a name in the font of code."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)
