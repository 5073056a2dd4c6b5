"""Runs: many chains, initial paths, committor simulations."""
