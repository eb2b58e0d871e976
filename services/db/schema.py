"""All tables in one metadata: importing this module makes the mapping complete."""

from sqlalchemy import MetaData

from services.artifacts import models as artifact_models
from services.cluster import models as cluster_models
from services.db.base import Base
from services.jobs import models as job_models
from services.metrics import models as metric_models
from services.scheduling import models as scheduling_models
from services.studies import models as study_models
from services.teams import models as team_models
from services.usage import models as usage_models

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
