#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
#
# The part of run.sh inside the namespaces: its daemon, its networks and its processes end with it.
set -euo pipefail
work=$COMPOSE_WORK
cd "$work/context"
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /run/dk/config/cli-plugins
ln -s "$COMPOSE_PLUGIN" /run/dk/config/cli-plugins/docker-compose
export DOCKER_HOST=unix:///run/dk/docker.sock DOCKER_BUILDKIT=1 DOCKER_CONFIG=/run/dk/config
# Another client may come first in PATH.
docker() { /usr/bin/docker "$@"; }

dockerd --host "$DOCKER_HOST" --data-root "$work/docker" --exec-root /run/dk/exec --pidfile /run/dk/pid --storage-driver overlay2 \
  >"$work/dockerd.log" 2>&1 &
daemon=$!
for _ in $(seq 60); do docker version >/dev/null 2>&1 && break; sleep 0.5; done
if ! docker version >/dev/null 2>&1; then
  tail -5 "$work/dockerd.log"
  printf 'compose: NOT RUN: no container engine can start on this machine\n0 passed, 0 failed, 1 skipped\n'
  exit 0
fi

# Stand-ins of the two images that a registry would give.
build_bases() {
  docker import "$COMPOSE_BASES/node.tar" localhost/ci-base >/dev/null
  mkdir -p "$work/bases"
  cp "$work/node" "$work/bases/node"
  cp "$COMPOSE_ROOT/test/system/compose/postgres-entry.sh" "$work/bases/entry"
  printf 'FROM localhost/ci-base\nCOPY --chmod=0755 node /usr/local/bin/node\n' >"$work/bases/node.Dockerfile"
  docker import "$COMPOSE_BASES/postgres.tar" localhost/ci-postgres-base >/dev/null
  cat >"$work/bases/postgres.Dockerfile" <<'EOF'
FROM localhost/ci-postgres-base
COPY --chmod=0755 entry /entry
ENV PATH=/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/sbin:/bin PGDATA=/var/lib/postgresql/data
VOLUME ["/var/lib/postgresql/data"]
STOPSIGNAL SIGINT
ENTRYPOINT ["/entry"]
EOF
  docker build -q --network none -f "$work/bases/node.Dockerfile" -t localhost/ci-node:26 "$work/bases" >/dev/null
  docker build -q --network none -f "$work/bases/postgres.Dockerfile" -t localhost/ci-postgres:17 "$work/bases" >/dev/null
}

build_ours() {
  docker build --network none -f docker/Dockerfile --target "$1" --build-arg NODE_IMAGE=localhost/ci-node:26 -t "localhost/$2:ci" . \
    >"$work/build-$1.log" 2>&1 && return
  tail -40 "$work/build-$1.log"
  echo "compose: the image $1 cannot be built"
  echo '0 passed, 1 failed, 0 skipped'
  kill "$daemon" && wait "$daemon" || true
  exit 1
}

build_bases
echo 'compose: building the images'
build_ours community iot-pms
build_ours enterprise iot-pms-enterprise

export POSTGRES_IMAGE=localhost/ci-postgres:17 IOT_PMS_IMAGE=localhost/iot-pms:ci IOT_PMS_ENTERPRISE_IMAGE=localhost/iot-pms-enterprise:ci
code=0
"$work/node" "$COMPOSE_ROOT/test/system/compose/boot.ts" "$work/context" || code=$?
kill "$daemon"
wait "$daemon" || true
exit $code
