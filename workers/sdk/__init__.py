"""What a team's own code imports: `from xsam.sdk import ...`. torch and the standard library only.

The folder is `xsam.workers.sdk` to the service and `xsam.sdk` to its users; both names give the same objects.
"""

from xsam.workers.sdk.run import Run, start
from xsam.workers.sdk.sums import Collected, Sum, collect, mean, ratio
from xsam.workers.sdk.task import Task, groups, task
from xsam.workers.sdk.tune import service_trainable

__all__ = [
    "Collected",
    "Run",
    "Sum",
    "Task",
    "collect",
    "groups",
    "mean",
    "ratio",
    "service_trainable",
    "start",
    "task",
]
