"""What the package knows of simulation engines: one adapter per kind of engine."""
