#!/usr/bin/env bash
# Regenerates deep copies and CRDs from api/. Run after every change there.
set -euo pipefail
cd "$(dirname "$0")/.."
go -C hack/tools tool controller-gen object crd paths=../../api/... output:crd:dir=../../charts/hub/crds
