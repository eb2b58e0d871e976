"""All tables in one metadata: importing this module makes the mapping complete.

`python -m xsam.services.tables "what changes"` writes a migration from them, on a scratch database.
"""

import sys
import tempfile
from pathlib import Path

from sqlalchemy import MetaData

from xsam.services.artifacts import models as artifact_models
from xsam.services.bundles import models as bundle_models
from xsam.services.checks import models as check_models
from xsam.services.cluster import models as cluster_models
from xsam.services.db import migrate
from xsam.services.db.base import Base
from xsam.services.db.session import Database
from xsam.services.jobs import models as job_models
from xsam.services.lab import models as lab_models
from xsam.services.metrics import models as metric_models
from xsam.services.notifications import models as notification_models
from xsam.services.requirements import models as requirement_models
from xsam.services.retention import models as retention_models
from xsam.services.scheduling import last_decision
from xsam.services.secrets import models as secret_models
from xsam.services.studies import models as study_models
from xsam.services.teams import models as team_models
from xsam.services.usage import models as usage_models

MODEL_MODULES = (
    job_models,
    metric_models,
    artifact_models,
    bundle_models,
    check_models,
    requirement_models,
    notification_models,
    secret_models,
    cluster_models,
    team_models,
    study_models,
    lab_models,
    usage_models,
    retention_models,
    last_decision,
)

metadata: MetaData = Base.metadata


def main() -> None:
    """Migrate an empty SQLite file to the newest revision and write the difference as the next one."""
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        sys.exit('usage: python -m xsam.services.tables "what changes"')
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'scratch.db'}")
        migrate.upgrade(database)
        migrate.write_revision(database, sys.argv[1], metadata)
        database.dispose()


if __name__ == "__main__":
    main()
