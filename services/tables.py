"""All tables in one metadata: importing this module makes the mapping complete."""

from sqlalchemy import MetaData

from xsam.services.artifacts import models as artifact_models
from xsam.services.cluster import models as cluster_models
from xsam.services.db.base import Base
from xsam.services.jobs import models as job_models
from xsam.services.metrics import models as metric_models
from xsam.services.scheduling import models as scheduling_models
from xsam.services.studies import models as study_models
from xsam.services.teams import models as team_models
from xsam.services.usage import models as usage_models

MODEL_MODULES = (
    job_models,
    metric_models,
    artifact_models,
    cluster_models,
    team_models,
    study_models,
    usage_models,
    scheduling_models,
)

metadata: MetaData = Base.metadata
