"""Two programs for a type checker. They are read, and never run."""
