"""Shots as data: legs, the loop that runs shots, and the executors that run them here or in other processes."""
