"""What the two lists of neurons share: the command that imports one again, and the check that nothing changed on the way.

A list says which neurons and how much at unit strength. Strength, scope and intervention stand in the command that imports it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trimtab.errors import MismatchError
from trimtab.export.checkpoint import Checkpoint
from trimtab.export.target import Engine, EngineOptions, Written
from trimtab.export.transformers_engine import hooks_engine
from trimtab.interventions import INTERVENTIONS
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.store.import_lists import read_neurons


def import_command(steering: Steering, checkpoint: Checkpoint, file: str, intervention: str) -> Written:
    """The command that makes the same steering of the list again."""
    usage = (
        f"trimtab import PATH/{file} --model {checkpoint.name} --intervention {intervention} --strength {steering.strength!r} "
        f"--scope {steering.scope} --out STEERING"
    )
    return Written({"intervention": intervention}, usage)


@contextmanager
def imported_engine(file: Path, model: LanguageModel, options: EngineOptions) -> Iterator[Engine]:
    """The list imported and steered with the hooks.

    Raises:
        MismatchError: it does not give the steering that was exported, bit for bit.
    """
    wanted = options.steering
    found = read_neurons(file, wanted.model)
    again = Steering.of(found, wanted.strength, wanted.scope, intervention=INTERVENTIONS[str(options.facts["intervention"])])
    if again.digest != wanted.digest:
        raise MismatchError(f"{file} does not read back as the steering that was exported; was it edited? Export it again")
    yield hooks_engine(model, again)
