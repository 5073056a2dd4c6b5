"""Settings that must be made before the first test is collected."""

import os

os.environ.setdefault("OPENMM_CPU_THREADS", "1")  # more of them add up forces in another order each time
