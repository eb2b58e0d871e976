"""The nodes during one plan: what is free now, what will be free soon, and what is kept for a job that waits."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Sequence

from xsam.services.scheduling.policy.capacity import Book, Cluster, Free, Shape, overlap

_NOTHING = Free(0, 0)


class Board:
    """Three views of the free resources, kept consistent.

    `now` is what may be given out at this instant. `open` is the part of it that the reservation does not need: jobs
    of unknown length get only that. `later` is what is free once the leaving jobs (asked to stop, in this plan or
    before) have left; a job that waits for them is put there, and its room is taken out of `now`.
    """

    def __init__(self, cluster: Cluster, leaving: Iterable[str]) -> None:
        self.cluster = cluster
        self.leaving = set(leaving)
        self.now = cluster.book_without(())
        self.open = self.now
        self.kept_for: list[str] = []
        self._later: Book | None = None
        self._extra: dict[int, Free] = {}

    @property
    def later(self) -> Book:
        """The book without the leaving jobs; reserved nodes are closed in it."""
        if self._later is None:
            self._later = self.cluster.book_without(self.leaving)
            for index in self._extra:
                self._later.set(index, _NOTHING)
        return self._later

    @property
    def has_reservation(self) -> bool:
        """Whether a blocked job has resources reserved."""
        return bool(self._extra)

    @property
    def reserved(self) -> KeysView[int]:
        """Nodes under a reservation."""
        return self._extra.keys()

    def place(self, job_id: str, shape: Shape, indices: Sequence[int], *, ends_in_time: bool = False) -> None:
        """Give a job the nodes that `open` found, or, if it ends before the reservation starts, that `now` found."""
        self.cluster.add(job_id, indices, shape.gpus, shape.cpus)
        for index, count in _counts(indices).items():
            self.now.take(index, shape, count)
            if self._later is not None and index not in self._extra:
                self._later.take(index, shape, count)
            if index in self._extra and not ends_in_time:
                self._extra[index] = self._extra[index].without(shape.gpus, shape.cpus, count)
            self._refresh_open(index)

    def keep_later(self, job_id: str, shape: Shape, indices: Sequence[int]) -> None:
        """Keep the nodes that `later` found for a job that starts once the leaving jobs have left."""
        self.kept_for.append(job_id)
        self.cluster.add(job_id, indices, shape.gpus, shape.cpus)
        for index, count in _counts(indices).items():
            self.later.take(index, shape, count)
            self.now.set(index, overlap(self.now.free[index], self.later.free[index]))
            self._refresh_open(index)

    def evict(self, job_ids: Iterable[str]) -> None:
        """Note that running jobs are asked to leave."""
        job_ids = list(job_ids)
        self.leaving.update(job_ids)
        touched = {index for job_id in job_ids for index in self.cluster.indices_of[job_id]}
        for index in sorted(touched):
            if index not in self._extra:
                self.later.set(index, self.cluster.free_without(index, self.leaving))

    def reserve(self, job_id: str, extra: Mapping[int, Free], *, has_start: bool) -> None:
        """Reserve nodes for a blocked job.

        Args:
            job_id: The job.
            extra: By reserved node, what others may hold there without delaying the job.
            has_start: Whether it is known when the job will start; if not, no job ends before that for certain.
        """
        if self.open is self.now:
            self.open = self.now.copy()
        self.kept_for.append(job_id)
        for index, free in extra.items():
            self._extra[index] = free
            if not has_start:
                self.now.set(index, overlap(self.now.free[index], free))
            self._refresh_open(index)
            if self._later is not None:
                self._later.set(index, _NOTHING)

    def _refresh_open(self, index: int) -> None:
        if self.open is not self.now:
            free = self.now.free[index]
            self.open.set(index, overlap(free, self._extra[index]) if index in self._extra else free)


def _counts(indices: Sequence[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for index in indices:
        counts[index] = counts.get(index, 0) + 1
    return counts
