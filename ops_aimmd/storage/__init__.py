"""Files of OPS beside ours: runs that go on, existing files that are learned from."""
