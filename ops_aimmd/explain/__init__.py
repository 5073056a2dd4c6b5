"""What has the committor learned: which descriptors matter, and which short formula says the same. Knows no OPS."""
