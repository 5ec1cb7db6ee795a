import subprocess
import sys

import trimtab.store


def test_every_name_of_the_facade_is_there() -> None:
    assert all(getattr(trimtab.store, name) is not None for name in trimtab.store.__all__)
    assert trimtab.store.__all__ == sorted(trimtab.store.__all__)


def test_the_store_loads_neither_torch_nor_the_hub() -> None:
    heavy = "'torch', 'transformers', 'huggingface_hub', 'sklearn'"
    program = f"import sys, trimtab.store; print([name for name in ({heavy}) if name in sys.modules])"
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment)
    assert output.stdout.strip() == "[]"
