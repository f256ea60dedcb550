#!/usr/bin/env bash
# The demo's fleet on a laptop with Docker: kind clusters hub, us-west, us-east
# and eu-west with one flat pod network, Crossway from its charts, two edges in
# each of the regions us and eu. About 8 GB of memory; ten minutes the first time.
#
#   hack/kind-multicluster.sh up      make the fleet (again: only what is missing)
#   hack/kind-multicluster.sh down    remove it
#
# Needs docker, kind, kubectl and go; helm and ko are built from the modules in
# hack/. Members and edges join by the commands that users run.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly system=crossway-system
readonly members=(us-west us-east eu-west)
readonly regions=(us eu)
declare -A pods=([hub]=10.10.0.0/16 [us-west]=10.1.0.0/16 [us-east]=10.2.0.0/16 [eu-west]=10.3.0.0/16)
declare -A services=([hub]=10.110.0.0/16 [us-west]=10.101.0.0/16 [us-east]=10.102.0.0/16 [eu-west]=10.103.0.0/16)
declare -A region=([us-west]=us [us-east]=us [eu-west]=eu)
declare -A zone=([us-west]=us-a [us-east]=us-b [eu-west]=eu-a)
declare -A nearest=([us]=eu [eu]=us)
declare -A gateways=([us]=198.18.1.0/24 [eu]=198.18.2.0/24)
tools=""   # directory of helm, ko and crossway, set by build_tools
scratch="" # for tokens, removed at the end

say() { printf '\n== %s\n' "$*"; }

on() { # on CLUSTER ARGUMENT...: kubectl there
  local cluster=$1
  shift
  kubectl --context "kind-$cluster" "$@"
}

address() { # address NODE: its address in Docker's network
  docker inspect --format '{{.NetworkSettings.Networks.kind.IPAddress}}' "$1"
}

need() {
  local tool missing=()
  for tool in docker kind kubectl go; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  if ((${#missing[@]})); then
    echo "install first: ${missing[*]}" >&2
    exit 1
  fi
}

build_tools() {
  say "helm, ko and crossway"
  tools=$PWD/bin/kind
  mkdir -p "$tools"
  go -C hack/tools build -o "$tools/helm" helm.sh/helm/v3/cmd/helm
  go -C hack/ko build -o "$tools/ko" github.com/google/ko
  go build -o "$tools/crossway" ./cmd/crossway
}

# Members have one node. The hub has a node for the edges of each region.
kind_config() { # kind_config CLUSTER
  cat <<YAML
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {podSubnet: ${pods[$1]}, serviceSubnet: ${services[$1]}}
nodes:
- role: control-plane
YAML
  local r
  if [[ $1 == hub ]]; then
    for r in "${regions[@]}"; do
      printf -- '- role: worker\n  labels: {topology.kubernetes.io/region: %s}\n' "$r"
    done
  else
    printf '  labels: {topology.kubernetes.io/region: %s, topology.kubernetes.io/zone: %s}\n' "${region[$1]}" "${zone[$1]}"
  fi
}

clusters() {
  local cluster
  for cluster in hub "${members[@]}"; do
    if ! kind get clusters 2>/dev/null | grep -qx "$cluster"; then
      say "cluster $cluster"
      kind_config "$cluster" | kind create cluster --name "$cluster" --wait 3m --config -
    fi
  done
}

# Every node sends what is for a member's pods to that member's node.
flat_network() {
  say "one flat pod network"
  local from node to
  for from in hub "${members[@]}"; do
    for node in $(kind get nodes --name "$from"); do
      for to in "${members[@]}"; do
        if [[ $to != "$from" ]]; then
          docker exec "$node" ip route replace "${pods[$to]}" via "$(address "$to-control-plane")"
        fi
      done
    done
  done
}

# The nodes of a region's edges hold its gateway addresses.
gateway_addresses() {
  say "gateway addresses"
  local r node
  for r in "${regions[@]}"; do
    for node in $(edge_nodes "$r"); do
      docker exec "$node" ip route replace local "${gateways[$r]}" dev lo
      docker exec "$node" sysctl -qw net.ipv4.tcp_migrate_req=1
      docker exec "$node" sysctl -qw net.ipv4.tcp_retries2=3
      docker exec "$node" sysctl -qw net.ipv4.ip_unprivileged_port_start=0 # edges are not root
    done
  done
}

edge_nodes() { # edge_nodes REGION
  on hub get nodes -l "topology.kubernetes.io/region=$1" -o jsonpath='{.items[*].metadata.name}'
}

# Crossway brings its own CRDs; these two sets belong to Kubernetes.
prerequisites() {
  say "CRDs of the Gateway API and of the Multi-Cluster Services API"
  local gateway_api mcs_api cluster
  go mod download sigs.k8s.io/gateway-api sigs.k8s.io/mcs-api
  gateway_api=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)
  mcs_api=$(go list -m -f '{{.Dir}}' sigs.k8s.io/mcs-api)
  on hub apply --server-side -k "$gateway_api/config/crd"
  for cluster in hub "${members[@]}"; do
    local file
    for file in "$mcs_api"/config/crd/*.yaml; do
      [[ $file == */kustomization.yaml ]] || on "$cluster" apply --server-side -f "$file"
    done
  done
}

images() { # into the clusters that run them
  say "images"
  local cluster
  KIND_CLUSTER_NAME=hub load_image hub
  KIND_CLUSTER_NAME=hub load_image crossway # which renews the certificates of edges
  for cluster in "${members[@]}"; do
    KIND_CLUSTER_NAME=$cluster load_image member-agent
  done
}

load_image() { # load_image PROGRAM
  KO_DOCKER_REPO=kind.local "$tools/ko" build --base-import-paths --tags dev --platform "linux/$(go env GOARCH)" "./cmd/$1"
}

install_chart() { # install_chart CLUSTER RELEASE CHART ARGUMENT...
  local cluster=$1 release=$2 chart=$3
  shift 3
  "$tools/helm" upgrade --install "$release" "charts/$chart" --kube-context "kind-$cluster" \
    --namespace "$system" --create-namespace --wait --timeout 5m "$@"
}

hub() {
  say "hub"
  install_chart hub crossway-hub hub \
    --set image.repository=kind.local/hub,image.tag=dev,xds.service.type=ClusterIP \
    --set "hubCIDRs={${pods[hub]},${services[hub]}},region=us"
}

# token ARGUMENT...: a token from the hub, for clusters that reach it in Docker's network.
token() {
  "$tools/crossway" token create --context kind-hub --hub-server "https://$(address hub-control-plane):6443" \
    -o 'jsonpath={.token}' "$@"
}

join() {
  local member
  for member in "${members[@]}"; do
    say "member $member"
    if [[ $(on hub get membercluster "$member" --ignore-not-found -o 'jsonpath={.status.credential.id}') ]]; then
      continue # it has joined
    fi
    token "$member" --region "${region[$member]}" --zone "${zone[$member]}" --endpoint-cidr "${pods[$member]}" \
      --export-namespace '*' >"$scratch/token"
    "$tools/crossway" join --context "kind-$member" --token - <"$scratch/token" \
      --set image.repository=kind.local/member-agent --set image.tag=dev
    "$tools/crossway" accept "$member" --context kind-hub --yes
  done
}

edges() {
  local r
  for r in "${regions[@]}"; do
    say "edges of $r"
    on hub apply -f - <<YAML
apiVersion: crossway.dev/v1alpha1
kind: EdgePool
metadata: {name: $r}
spec: {region: $r, nearest: [${nearest[$r]}], addresses: [{cidr: ${gateways[$r]}}]}
YAML
    token --edge "$r" --zone "$r-a" >"$scratch/token"
    "$tools/crossway" join --edge --context kind-hub --token - <"$scratch/token" \
      --hub-address "crossway-hub.$system.svc.cluster.local" --set drain.announceSeconds=0 \
      --set renewal.image.repository=kind.local/crossway --set renewal.image.tag=dev
  done
}

next_steps() {
  local node
  node=$(edge_nodes us)
  cat <<TEXT

The fleet is up. Look at it, then follow examples/README.md with these contexts:

  kubectl --context kind-hub get memberclusters,edgepools
  kubectl --context kind-hub get gateways -A        # each with one address for each region

A client in region us asks a Gateway's address, here 198.18.1.1, from the node of its edges:

  docker exec ${node%% *} curl -s -H 'Host: site.example.com' http://198.18.1.1/
TEXT
}

up() {
  need
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  build_tools
  clusters
  flat_network
  gateway_addresses
  prerequisites
  images
  hub
  join
  edges
  next_steps
}

down() {
  kind delete clusters hub "${members[@]}"
}

case ${1:-} in
up | down) "$1" ;;
*)
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
  ;;
esac
