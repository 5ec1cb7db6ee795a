"""Neuron lists of others: AdaRAS's CSV files, LAPE's ``.pth`` files and plain JSON, checked against a model."""

from trimtab.store.neuron_import.adaras_csv import read_adaras_csv
from trimtab.store.neuron_import.lape import read_lape
from trimtab.store.neuron_import.plain_json import read_plain_json
from trimtab.store.neuron_import.reading import FORMATS, Format, read_neurons

__all__ = ["FORMATS", "Format", "read_adaras_csv", "read_lape", "read_neurons", "read_plain_json"]
