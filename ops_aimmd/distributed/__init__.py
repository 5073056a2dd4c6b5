"""Names under which OPS files of version 0.1.0 know classes that have moved to `ops_aimmd.runs`."""
