"""The books: what is missing for a request is what the whole table of free amounts says."""

from hypothesis import given
from hypothesis import strategies as some

from bursar.core import ledger
from bursar.core.state import Ledger
from bursar.model.resources import shortage

amounts = some.dictionaries(some.sampled_from(["cpu", "memory", "pids", "browser"]), some.integers(0, 20))


@given(capacity=amounts, held=some.lists(amounts, max_size=4), parent_lends=amounts, asked=amounts)
def test_what_is_missing_is_what_is_not_free(capacity, held, parent_lends, asked):
    """Of the node, and of a parent's lease, also where more is held than there is."""
    books = Ledger(capacity=capacity, allocatable=capacity)
    for number, lease in enumerate(held):
        ledger.take(books, f"a{number}", lease)
    ledger.take(books, "parent", capacity)
    ledger.take(books, "child", parent_lends, "parent")
    for parent in (None, "parent", "nobody"):
        assert ledger.missing(books, asked, parent) == shortage(asked, ledger.free(books, parent))
