"""Export a steering to what others run, and verify each export with its own engine."""
