"""Names by which files and job scripts of version 0.1.0 know what has moved to `runs` and `shooting`."""
