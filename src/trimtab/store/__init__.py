"""Everything on disk: run directories, tables, tensors, resumable parts, neuron sets, gates and the artifact to share."""

from trimtab.store.artifact import ArtifactConfig, load_steering, push_steering, save_steering
from trimtab.store.atomic import (
    digest_of,
    parse_json,
    parse_toml,
    read_json,
    read_text,
    remove_leftovers,
    replace_file,
    replace_folder,
    unsealed,
    write_json,
    write_text,
)
from trimtab.store.cache import Cache, CacheRow, Entry, default_root, key_facts, refuse_foreign
from trimtab.store.import_directions import from_steering_vector, read_directions
from trimtab.store.ledger import openings, record_opening
from trimtab.store.plan import Parts, Plan, make_plan
from trimtab.store.records import Record, read_record
from trimtab.store.remote import AnyPath, any_path, at_home, read_bytes
from trimtab.store.tables import TableOf, read_arrow, read_table, table_of, write_arrow, write_table
from trimtab.store.tensors import TensorSlice, load_tensors, open_tensor, open_tensors, save_tensors
from trimtab.store.toml_writer import sealed_toml, to_toml
from trimtab.store.values import load_directions, load_gate, load_neurons, save_directions, save_gate, save_neurons

__all__ = [
    "AnyPath",
    "ArtifactConfig",
    "Cache",
    "CacheRow",
    "Entry",
    "Parts",
    "Plan",
    "Record",
    "TableOf",
    "TensorSlice",
    "any_path",
    "at_home",
    "default_root",
    "digest_of",
    "from_steering_vector",
    "key_facts",
    "load_directions",
    "load_gate",
    "load_neurons",
    "load_steering",
    "load_tensors",
    "make_plan",
    "open_tensor",
    "open_tensors",
    "openings",
    "parse_json",
    "parse_toml",
    "push_steering",
    "read_arrow",
    "read_bytes",
    "read_directions",
    "read_json",
    "read_record",
    "read_table",
    "read_text",
    "record_opening",
    "refuse_foreign",
    "remove_leftovers",
    "replace_file",
    "replace_folder",
    "save_directions",
    "save_gate",
    "save_neurons",
    "save_steering",
    "save_tensors",
    "sealed_toml",
    "table_of",
    "to_toml",
    "unsealed",
    "write_arrow",
    "write_json",
    "write_table",
    "write_text",
]
