"""Export a steering for other programs, and verify each export in its own engine."""
