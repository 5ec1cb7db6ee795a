"""A sandbox for untrusted Python programs; docs/design/sandbox.md says what each layer stops and what is not stopped."""

from trimtab.tasks.sandbox.limits import Limits
from trimtab.tasks.sandbox.program import Program, SandboxError
from trimtab.tasks.sandbox.sandbox import Sandbox

__all__ = ["Limits", "Program", "Sandbox", "SandboxError"]
