#!/usr/bin/env bash
# Installs this project into .venv, by uv where UV names it, else by pip; make calls it.
# usage: PYTHON=python3 UV= tools/install.sh '.[dev]'
set -euo pipefail

requirement=$1
log=.venv/install.log

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "crosswalk needs Python >= 3.11, but PYTHON=$PYTHON is $("$PYTHON" -V 2>&1)." \
    "Name another one: make PYTHON=python3.12" >&2
  exit 2
}

if [ -n "$UV" ]; then  # which shows how far it is
  test -x .venv/bin/python || "$UV" venv --quiet --seed --python "$PYTHON" .venv
  echo "Installing $requirement into .venv with $UV; several gigabytes on the first time."
  exec "$UV" pip install --python .venv/bin/python --constraints constraints.txt \
    --build-constraints constraints.txt --editable "$requirement"
fi

test -x .venv/bin/python || "$PYTHON" -m venv .venv || {
  echo "$PYTHON cannot make a virtual environment; on Debian install python3-venv." >&2
  exit 2
}

# How much pip has fetched, and what it is at: on a terminal one line that changes every second,
# elsewhere one every half a minute. pip's own bar knows one file, and terminals alone.
progress() {
  local start=$'\r\e[K' end="" pause=1 now most=0  # pip takes away what it has unpacked
  test -t 2 || { start="" end=$'\n' pause=30; }
  while sleep "$pause" >/dev/null 2>&1; do
    now=$(du -sm "$fetched" 2>/dev/null | cut -f1) || true
    most=$((now > most ? now : most))
    printf '%s  %s MB fetched. %s%s' "$start" "$most" \
      "$(grep -aE '^ *(Downloading|Building|Installing) ' "$log" | tail -n 1 \
        | sed -E 's/^ *//; s/ [^ ]*\// /' | cut -c1-60)" "$end" >&2
  done
}

echo "Installing $requirement into .venv; several gigabytes on the first time. Log: $log"
fetched=$PWD/.venv/fetched  # not in /tmp, which may hold less
mkdir -p "$fetched"
: >"$log"
progress &
counting=$!
trap 'kill "$counting"; rm -rf "$fetched"' EXIT
status=0
TMPDIR=$fetched PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
  PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --no-input --progress-bar off \
  --editable "$requirement" >"$log" 2>.venv/install.err || status=$?
test ! -t 2 || printf '\r\e[K' >&2
test "$status" = 0 || {
  tail -n 30 .venv/install.err >&2
  echo "Installation failed." >&2
  exit 1
}
