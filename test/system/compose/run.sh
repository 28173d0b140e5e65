#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
#
# Builds the images of this checkout without any registry, starts docker/compose.yaml in a mount, network and process
# namespace of its own, and looks whether it does what docs/how-to/containers.md says (boot.ts).
# As root on Debian 12. The base images are made from Debian's packages, Node.js comes from the checkout.
# Last line: "N passed, M failed, K skipped"; where it cannot run it says "NOT RUN: why" and counts as skipped.
set -euo pipefail
cd "$(dirname "$0")/../../.."
root=$PWD

not_run() {
  printf 'compose: NOT RUN: %s\n0 passed, 0 failed, 1 skipped\n' "$1"
  exit 0
}

((EUID == 0)) || not_run 'it needs root'
unshare -m -n -p -f true 2>/dev/null || not_run 'no namespaces can be made'
work=$(mktemp -d "${TMPDIR:-/tmp}/iot-pms-compose-XXXXXX")
(($(df --output=avail -k "$work" | tail -1) > 6000000)) || not_run 'less than 6 GB of disk are left'
trap 'rm -rf "$work"' EXIT

# Docker's daemon is started below, in the namespace, and nowhere else.
install_packages() {
  command -v dockerd mmdebstrap iptables >/dev/null && return
  local policy=/usr/sbin/policy-rc.d made=
  [[ -e $policy ]] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=1; }
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables mmdebstrap >/dev/null
  local code=$?
  [[ -z $made ]] || rm -f $policy
  return $code
}
install_packages >"$work/packages.log" 2>&1 || { tail -5 "$work/packages.log"; not_run 'docker.io, iptables and mmdebstrap cannot be installed'; }

# The mirror this machine already uses, for the next release: it has compose 2, which Debian 12 lacks.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -1)
next=$work/trixie
mkdir -p "$next"/{lists/partial,cache/archives/partial,out,unpacked}
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$next/sources.list"
apt_next=(apt-get -qq -o "Dir::Etc::sourcelist=$next/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$next/lists"
  -o "Dir::Cache=$next/cache" -o APT::Sandbox::User=root)
{ "${apt_next[@]}" update && (cd "$next/out" && "${apt_next[@]}" download docker-compose); } >"$work/compose.log" 2>&1 ||
  { tail -5 "$work/compose.log"; not_run 'the docker-compose package cannot be fetched'; }
dpkg -x "$next"/out/docker-compose_*.deb "$next/unpacked"

# Kept between runs where IOT_PMS_CI_CACHE names a folder.
bases=${IOT_PMS_CI_CACHE:-$work}
echo 'compose: making base images'
for image in "node ca-certificates,tini,libatomic1,libstdc++6" "postgres ca-certificates,postgresql-17"; do
  [[ -e $bases/${image%% *}.tar ]] && continue
  mmdebstrap --quiet --variant=minbase --include="${image#* }" trixie "$work/base.tar" "$mirror" >"$work/base.log" 2>&1 ||
    { tail -5 "$work/base.log"; not_run 'mmdebstrap cannot make a base image'; }
  mv "$work/base.tar" "$bases/${image%% *}.tar"
done
cp "$root/node_modules/node/bin/node" "$work/node"

echo 'compose: packing what the build installs'
# Only files of the commit and its working tree that git knows of: what a build on another machine would see.
mkdir -p "$work/context" "$work/offline/tree"
git ls-files -z | xargs -0 -I{} cp --parents -P {} "$work/context" 2>/dev/null || true
npm install --silent --no-save --prefix "$work/pnpm" "pnpm@$(sed -n 's/^ARG PNPM_VERSION=//p' docker/Dockerfile)" >/dev/null 2>&1
(cd "$work/context" && cp --parents package.json pnpm-workspace.yaml pnpm-lock.yaml patches/* core/package.json core/dashboard/package.json \
  enterprise/*/package.json verticals/*/package.json saas/*/package.json "$work/offline/tree" 2>/dev/null) || true
pnpm=$work/pnpm/node_modules/pnpm/pnpm
# As the build installs: what runs without what is optional, and what the dashboard is built with.
fill_store() {
  cd "$work/offline/tree" && export CI=true
  local install=("$pnpm" install --frozen-lockfile --store-dir "$work/offline/store")
  local modules=(--filter './enterprise/**' --filter './verticals/**' --filter './saas/**')
  "${install[@]}" --prod --no-optional --filter '@iot-pms/core' "${modules[@]}" && "${install[@]}" --filter '@iot-pms/dashboard' "${modules[@]}"
}
(fill_store) >"$work/install.log" 2>&1 || { tail -20 "$work/install.log"; echo '0 passed, 1 failed, 0 skipped'; exit 1; }
cp "$pnpm" "$work/offline/pnpm"
tar -C "$work/offline" -cf "$work/context/offline.tar" pnpm store
rm -rf "$work/offline"

code=0
COMPOSE_WORK=$work COMPOSE_BASES=$bases COMPOSE_ROOT=$root COMPOSE_PLUGIN=$next/unpacked/usr/libexec/docker/cli-plugins/docker-compose \
  unshare -m -n -p -f --kill-child --mount-proc -- bash "$root/test/system/compose/inside.sh" || code=$?
exit $code
