#!/bin/sh
# Start the Ray head, then the dispatcher in the foreground. Ray starts without the database URL and the key of secrets:
# whatever its processes inherit, ranks can read.
set -eu
env -u XSAM_DATABASE__URL -u XSAM_SECRETS__KEY ray start --head --port=6379 --num-gpus=0 --dashboard-host=0.0.0.0 --disable-usage-stats
exec python -m xsam.workers
