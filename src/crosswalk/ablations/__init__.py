"""Tables of runs: read from a manifest, run, compared with what was published."""
