"""Scripts that run in an environment of the peer's own; see ``benchmarks/README.md``."""
