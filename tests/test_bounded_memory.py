"""A memory that keeps what was used last."""

import pytest

from ops_aimmd.bounded_memory import BoundedMemory


def test_what_was_used_last_is_kept():
    memory = BoundedMemory(3)
    for key in "abc":
        memory[key] = key.upper()
    assert memory["a"] == "A"  # read
    memory["b"] = "again"  # written
    memory["d"] = "D"
    assert dict(memory) == {"a": "A", "b": "again", "d": "D"}
    memory.limit = 2
    memory["e"] = "E"
    assert list(memory) == ["d", "e"]


def test_to_look_whether_an_entry_is_there_is_no_use():
    memory = BoundedMemory(2)
    memory["a"], memory["b"] = 1, 2
    assert "a" in memory
    memory["c"] = 3
    assert "a" not in memory


def test_recall_makes_what_is_not_there():
    memory, made = BoundedMemory(2), []
    for key in (1, 2, 1, 3, 1, 2):
        assert memory.recall(key, lambda: made.append(key) or -key) == -key  # noqa: B023
    assert made == [1, 2, 3, 2]


def test_an_error_leaves_no_entry():
    memory = BoundedMemory(2)
    with pytest.raises(ZeroDivisionError):
        memory.recall(1, lambda: 1 / 0)
    assert len(memory) == 0
    with pytest.raises(KeyError):
        memory[1]
