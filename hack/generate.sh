#!/usr/bin/env bash
# Generates deep copies and CRDs from api/, and the CRDs of the Gateway API from the
# module that go.mod pins. Run it after every change of these.
#
#   hack/generate.sh            writes them
#   hack/generate.sh --check    writes nothing; fails if the files are not what it would write
set -euo pipefail
cd "$(dirname "$0")/.."

readonly api=api/v1alpha1 crds=charts/hub/crds gateway_api=charts/crds/gateway-api.yaml

generate() { # generate API CRDS: into these two directories
  go -C hack/tools tool controller-gen object crd paths=../../api/... \
    "output:object:dir=$1" "output:crd:dir=$2"
}

gateway_api_crds() { # the standard channel, one file
  local dir
  dir=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd/standard
  for f in "$dir"/*.yaml; do
    echo ---
    cat "$f"
  done
}

case ${1:-} in
  "")
    generate "$PWD/$api" "$PWD/$crds"
    gateway_api_crds >"$gateway_api"
    ;;
  --check)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    generate "$scratch" "$scratch/crds"
    if ! diff --brief --recursive "$crds" "$scratch/crds" ||
      ! diff --brief "$api/zz_generated.deepcopy.go" "$scratch/zz_generated.deepcopy.go" ||
      ! diff --brief "$gateway_api" <(gateway_api_crds); then
      echo "generated files are out of date: run make generate" >&2
      exit 1
    fi
    ;;
  *)
    echo "usage: hack/generate.sh [--check]" >&2
    exit 2
    ;;
esac
