"""The next batches, seen before they are taken."""

from collections.abc import Iterator

from xsam.workers.training.data.lookahead import Lookahead


def test_what_was_looked_at__still_comes_once_and_in_order() -> None:
    made: list[int] = []

    def feed() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    coming = Lookahead(feed())
    assert next(coming) == 0
    assert coming.next_ones(0) == []
    assert made == [0], "nothing is made before it is wanted"
    assert coming.next_ones(2) == [1, 2]
    assert coming.next_ones(1) == [1]
    assert [next(coming), next(coming)] == [1, 2]
    assert coming.next_ones(9) == [3, 4]
    assert list(coming) == [3, 4]
    assert coming.next_ones(1) == []
