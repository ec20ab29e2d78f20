#!/usr/bin/env bash
# Tries the API with cases that schemathesis makes of its OpenAPI document, valid and invalid ones,
# against the embedded model on the cpu device. Installs schemathesis into .deno/ where it is not.
# Further arguments are schemathesis's: run.sh --include-path /v1/messages
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

version=4.32.5
project=$(cd ../.. && pwd)
venv=$project/.deno/schemathesis-$version

if [ ! -x "$venv/bin/schemathesis" ]; then
  if ! python3 -c 'import ensurepip' 2>/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv
  fi >/dev/null
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
fi

log=$(mktemp)
"$project/kedge" serve --device cpu --port 0 --log-level warning >"$log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" || true; rm -f "$log"' EXIT
for _ in $(seq 600); do
  url=$(sed -n 's/^ready: //p' "$log")
  if [ -n "$url" ] || ! kill -0 "$server" 2>/dev/null; then break; fi
  sleep 0.1
done
if [ -z "$url" ]; then
  cat "$log"
  exit 1
fi

"$venv/bin/schemathesis" run "$url/openapi.json" --phases examples,coverage,fuzzing \
  --max-examples 20 --workers 2 --seed 1 --continue-on-failure "$@" | cut -c 1-1000
# What the server itself had to say: warnings and errors are none that a client may cause.
if grep -E '"level":"(WARN|ERROR|FATAL)' "$log"; then exit 1; fi
