#!/usr/bin/env bash
# Starts, queries and drains the Envoy of this container. It needs only bash and
# coreutils, which the Envoy image has; the image has no curl.
set -euo pipefail
shopt -s inherit_errexit

# Where this Envoy's admin interface listens. Edges may share a network
# namespace, so each picks a loopback address of its own.
readonly port=9901
readonly address_file=${CROSSWAY_EDGE_RUN:-/run/crossway}/admin

# run ARGUMENT...: becomes Envoy.
run() {
  local address="127.$((RANDOM % 254 + 1)).$((RANDOM % 254 + 1)).$((RANDOM % 254 + 1))"
  local endpoint="{socket_address: {address: $address, port_value: $port}}"
  printf '%s' "$address" >"$address_file"
  exec envoy "$@" --config-yaml "{
    admin: {address: $endpoint},
    static_resources: {clusters: [{name: admin, type: STATIC, connect_timeout: 1s, load_assignment: {
      cluster_name: admin, endpoints: [{lb_endpoints: [{endpoint: {address: $endpoint}}]}]}}]}}"
}

# ask METHOD PATH: prints Envoy's whole HTTP answer.
ask() {
  local address
  address=$(<"$address_file")
  exec 3<>"/dev/tcp/$address/$port"
  printf '%s %s HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nContent-Length: 0\r\n\r\n' "$1" "$2" >&3
  cat <&3
  exec 3>&-
}

# ready: succeeds while Envoy has its configuration and is not draining.
ready() {
  local status
  read -r _ status _ <<<"$(ask GET /ready)"
  [[ $status == 200 ]]
}

# busy: prints the number of open connections of clients.
busy() {
  local name value sum=0
  while IFS=': ' read -r name value; do
    case $name in
    http.admin.* | http.metrics.*) ;;
    http.*.downstream_cx_active) sum=$((sum + ${value%$'\r'})) ;;
    esac
  done < <(ask GET '/stats?filter=downstream_cx_active$')
  echo "$sum"
}

# drain ANNOUNCE TELL WAIT (seconds): drains without losing a request. First /ready
# fails, for load balancers; then listeners close and connections are drained; then
# it waits for the connections that are left.
drain() {
  ask POST /healthcheck/fail >/dev/null
  sleep "$1"
  ask POST '/drain_listeners?graceful' >/dev/null
  sleep "$2"
  local end=$((SECONDS + $3))
  while ((SECONDS < end)) && (($(busy) > 0)); do
    sleep 0.2
  done
}

"$@"
