"""Any of the formats, by name or by the file's ending, and the neurons that a run ranked."""

from pathlib import Path
from typing import Literal, get_args

from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity, NeuronList, Neurons
from trimtab.store.neuron_files import load_neurons
from trimtab.store.neuron_import.adaras_csv import read_adaras_csv
from trimtab.store.neuron_import.lape import read_lape
from trimtab.store.neuron_import.plain_json import read_plain_json

Format = Literal["adaras-csv", "lape", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)
_ENDINGS: dict[str, Format] = {".csv": "adaras-csv", ".pth": "lape", ".pt": "lape", ".json": "json"}


def read_neurons(
    path: Path, model: ModelIdentity, form: Format | None = None, part: int | None = None, k: int | None = None
) -> Neurons | NeuronList:
    """Read a list of neurons: a file that somebody else made, or the folder of a run's own ranking.

    Args:
        path: the file; or a folder ``neurons/CRITERION``, whose set belongs to the model that it names itself.
        model: the model that the list was made for, as :func:`trimtab.open_model` identifies it.
        form: None goes by the file's ending.
        part: which of the lists of a LAPE file.
        k: the first k neurons only.

    Raises:
        InputError: a file that cannot be used, with the row, or an argument that the format has no use for.
        StoreError: a folder that :func:`trimtab.store.save_neurons` did not write.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.json"
        >>> _ = path.write_text("[[1, 7, 0.5], [0, 3, -0.25]]")
        >>> model = ModelIdentity("m", None, "qwen3", "f", n_layers=2, d_model=4, d_ff=8, vocab_size=9)
        >>> read_neurons(path, model).delta.tolist()
        [0.5, -0.25]
    """
    if path.is_dir():
        found = load_neurons(path)
        return found if k is None else found.top(k)
    form = form or _ENDINGS.get(path.suffix)
    if form not in FORMATS:
        raise InputError(f"cannot tell the format of {path} from its ending; name it, --format: {', '.join(FORMATS)}")
    if form != "lape" and part is not None:
        raise InputError(f"a file of the format {form} holds one list, so there is no part {part} to choose; leave --part out")
    if form == "lape":
        if k is not None:
            raise InputError("a LAPE list is in no order, so it has no first neurons; leave --k out")
        return read_lape(path, model, part)
    neurons = read_adaras_csv(path, model) if form == "adaras-csv" else read_plain_json(path, model)
    return neurons if k is None else neurons.top(k)
