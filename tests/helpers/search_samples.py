"""A search of which a test changes some parts."""

from trimtab.errors import InputError
from trimtab.experiments import Search
from trimtab.traces import Problem, Split


def changed(search: Search, **parts: object) -> Search:
    """The search with other ``problems``, ``settings``, ``sampling``, ``contrast``, ``prompts``, ``steering`` ...; moments are
    computed anew."""

    def split(self: Search, wanted: Split) -> list[Problem]:
        problems = self.problems
        if wanted not in problems:
            raise InputError(f"this experiment must not read the {wanted} split; it may read {', '.join(sorted(problems))}")
        return list(problems[wanted])

    kind = type("Changed", (type(search),), {**parts, "split": split})
    made = object.__new__(kind)
    for name in ("study", "tuning", "reads", "name"):
        object.__setattr__(made, name, getattr(search, name))
    return made
