"""Code inside the sandbox's own process, before and around the untrusted program.

The modules here, and :mod:`trimtab.tasks.sandbox.codec` and :mod:`trimtab.tasks.sandbox.channel`, are imported by an interpreter
that has no site-packages: they import the standard library alone.
"""
