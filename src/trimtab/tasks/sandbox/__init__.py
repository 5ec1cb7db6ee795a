"""A sandbox for untrusted Python programs; docs/design/sandbox.md says what each layer stops and what is not stopped."""

from trimtab.tasks.sandbox.program import NoSandboxError, Program, SandboxError
from trimtab.tasks.sandbox.sandbox import Limits, Sandbox, allow_unsafe, describe_best

__all__ = ["Limits", "NoSandboxError", "Program", "Sandbox", "SandboxError", "allow_unsafe", "describe_best"]
