#!/bin/sh
# Become the image's user and run a command, with what it takes to hand each team's ranks over to a user of the team's
# where XSAM_ISOLATION__FIRST_USER_ID is set, and with no rights at all where it is empty. For a container that root starts.
set -eu
rights=-all
if [ -n "${XSAM_ISOLATION__FIRST_USER_ID:-}" ]; then
  rights=-all,+chown,+dac_override,+fowner,+kill,+setgid,+setuid
fi
exec setpriv --reuid=xsam --regid=xsam --init-groups --inh-caps="$rights" --ambient-caps="$rights" "$@"
