"""The errors of a training run; each takes one message, so that it survives the way out of any process."""


class TrainingError(Exception):
    """A run that can't go on, with a sentence that a person can act on."""


class UserSpecError(TrainingError):
    """The specification asks for something that can't be had; the same job would fail again."""


class DatasetMissingError(UserSpecError):
    """The dataset's files are not where they were looked for."""


class DatasetFormatError(UserSpecError):
    """The dataset's files are there but can't be read as what they should be."""


class TooFewExamplesError(UserSpecError):
    """The dataset has fewer examples than the job asks for."""


class TargetError(UserSpecError):
    """A `package.module:factory` is not allowed, can't be imported or returned something unusable."""


class CheckpointMissingError(UserSpecError):
    """The job that is to be looked at has no checkpoint."""


class DivergenceError(TrainingError):
    """The loss, or a gradient, is not finite or has exploded; the message names the epoch and the step."""


class OutOfMemoryError(TrainingError):
    """The device or the machine has no memory left for the run; the message says what to make smaller."""


class DeviceError(TrainingError):
    """The device that the run was given does not work."""


class CheckpointError(TrainingError):
    """A checkpoint can't be written or read, or the ranks don't see the same storage."""


class StoreAwayError(CheckpointError):
    """The bucket does not answer: nobody knows what is in it, so the run must not go on from anything else."""


class CheckpointMismatchError(CheckpointError):
    """The checkpoint belongs to another job: other model, data, seed or number of workers."""


class SupersededError(CheckpointError):
    """Another attempt owns the job by now; this run must leave its folder alone."""
