#!/bin/sh
# Make the base of our images, a PostgreSQL and a Caddy from Debian's packages, where no registry of images can be reached:
# localhost/xsam-python:3.11, localhost/xsam-postgres:15 and localhost/xsam-caddy:2.
# Needs podman, mmdebstrap and python3, as root. Names after the command make those alone: debian.sh python caddy
set -eu
suite=bookworm
here=$(dirname "$0")
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

# Make an image of packages: NAME:TAG PACKAGES
packages() {
  mmdebstrap --quiet --variant=minbase --include="$2" "$suite" "$folder/packages.tar"
  podman import --quiet "$folder/packages.tar" "localhost/$1"
}

# Add to an image of packages what is in the folder "context", its bill of materials among it: NAME:TAG, commands on stdin
finish() {
  tar --extract --file "$folder/packages.tar" --directory "$folder" ./var/lib/dpkg/status ./usr/lib/os-release
  python3 "$here/bill.py" "localhost/$1" "$folder" > "$folder/context/bill.cdx.json"
  podman build --quiet --isolation chroot --pull=never --tag "localhost/$1" --file - "$folder/context"
}

mkdir "$folder/context"
for image in ${*:-python postgres caddy}; do
  case $image in
    python) packages xsam-python:3.11 ca-certificates,python3,python3-venv ;;
    postgres)
      packages xsam-debian-postgres:15 postgresql-15
      cp "$here/start-postgres.sh" "$folder/context"
      finish xsam-postgres:15 << 'END'
FROM localhost/xsam-debian-postgres:15
COPY bill.cdx.json /usr/share/sbom/
COPY start-postgres.sh /usr/local/bin/
RUN mkdir -p /var/lib/postgresql/data && chown postgres: /var/lib/postgresql/data
# Its socket is in /tmp, where a user who is not root may write whatever the engine mounts on /run.
ENV PGHOST=/tmp
USER postgres
EXPOSE 5432
CMD ["start-postgres.sh"]
END
      ;;
    caddy)
      packages xsam-debian-caddy:2 ca-certificates,caddy
      finish xsam-caddy:2 << 'END'
FROM localhost/xsam-debian-caddy:2
COPY bill.cdx.json /usr/share/sbom/
RUN mkdir -p /data /config && chown caddy: /data && chmod 1777 /config
ENV XDG_DATA_HOME=/data XDG_CONFIG_HOME=/config
USER caddy
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
END
      ;;
    *)
      echo "debian.sh makes python, postgres and caddy, not '$image'" >&2
      exit 2
      ;;
  esac
done
