#!/bin/sh
# Make the base of our images and a PostgreSQL from Debian's packages, where no registry of images can be reached:
# localhost/xsam-python:3.11 and localhost/xsam-postgres:15. Needs podman and mmdebstrap, as root.
set -eu
suite=bookworm
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
packages() {
  mmdebstrap --quiet --variant=minbase --include="$2" "$suite" "$folder/packages.tar"
  podman import --quiet "$folder/packages.tar" "localhost/$1"
}
packages xsam-python:3.11 ca-certificates,python3,python3-venv
packages xsam-debian-postgres:15 postgresql-15
cp "$(dirname "$0")/start-postgres.sh" "$folder"
podman build --quiet --isolation chroot --pull=never --tag localhost/xsam-postgres:15 --file - "$folder" <<'END'
FROM localhost/xsam-debian-postgres:15
COPY start-postgres.sh /usr/local/bin/
RUN mkdir -p /var/lib/postgresql/data /run/postgresql && chown postgres: /var/lib/postgresql/data /run/postgresql
USER postgres
EXPOSE 5432
CMD ["start-postgres.sh"]
END
