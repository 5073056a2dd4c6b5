"""Engines: each searches expressions and returns candidates; constants, losses and the front are common to all."""
