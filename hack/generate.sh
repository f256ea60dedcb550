#!/usr/bin/env bash
# Generates deep copies and CRDs from api/. Run it after every change there.
#
#   hack/generate.sh            writes them
#   hack/generate.sh --check    writes nothing; fails if the files are not what it would write
set -euo pipefail
cd "$(dirname "$0")/.."

readonly api=api/v1alpha1 crds=charts/hub/crds

generate() { # generate API CRDS: into these two directories
  go -C hack/tools tool controller-gen object crd paths=../../api/... \
    "output:object:dir=$1" "output:crd:dir=$2"
}

case ${1:-} in
  "")
    generate "$PWD/$api" "$PWD/$crds"
    ;;
  --check)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    generate "$scratch" "$scratch/crds"
    if ! diff --brief --recursive "$crds" "$scratch/crds" ||
      ! diff --brief "$api/zz_generated.deepcopy.go" "$scratch/zz_generated.deepcopy.go"; then
      echo "generated files are out of date: run make generate" >&2
      exit 1
    fi
    ;;
  *)
    echo "usage: hack/generate.sh [--check]" >&2
    exit 2
    ;;
esac
