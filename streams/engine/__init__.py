"""The engine every lane shares: a pure core (ledger, coalescer, circuits) and the pipeline."""
