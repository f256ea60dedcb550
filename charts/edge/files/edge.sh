#!/usr/bin/env bash
# Starts, queries and drains the Envoy of this container. It needs bash,
# coreutils and perl, which the Envoy image has; the image has no curl.
set -euo pipefail
shopt -s inherit_errexit

# Where this Envoy's bootstrap and the socket of its admin interface are: a
# directory that only this pod has.
readonly directory=${CROSSWAY_EDGE_RUN:-/run/crossway}
readonly admin=$directory/admin.sock

# run BOOTSTRAP ARGUMENT...: becomes Envoy, with @POD_IP@ and "# @SILENCE@" replaced in the bootstrap.
run() {
  local bootstrap limit
  bootstrap=$(<"$1")
  if [[ ${NODE_NETWORK:-} == true ]]; then
    await_node
  fi
  limit=$(silence_limit)
  bootstrap=${bootstrap//@POD_IP@/${POD_IP:-127.0.0.1}}
  printf '%s\n' "${bootstrap//\# @SILENCE@/$limit}" >"$directory/bootstrap.yaml"
  rm -f "$admin"
  exec envoy --config-path "$directory/bootstrap.yaml" "${@:2}"
}

# await_node ends with an error where the node lets this user listen on no port of a
# Gateway, and waits while an edge of another user is on the node: sockets share a
# port only if one user has them all (socket(7), SO_REUSEPORT).
await_node() {
  local first
  first=$(</proc/sys/net/ipv4/ip_unprivileged_port_start)
  if ((EUID != 0 && first > 80)); then
    echo "this node lets only root listen on ports below $first: set sysctl net.ipv4.ip_unprivileged_port_start=0 on it, or the chart's value runAsRoot=true" >&2
    exit 1
  fi
  while shared_with_another_user; do
    echo "an edge of another user is on this node, and Linux shares a port only within one user: waiting until it is gone" >&2
    sleep 5
  done
}

# silence_limit: prints what ends a connection to a backend that vanished, unless the kernel does so within 10 s. The socket
# option, TCP_USER_TIMEOUT, also ends a connection to a backend that reads nothing for that time (Linux 5.11), and so is only
# second best.
silence_limit() {
  local retries
  retries=$(</proc/sys/net/ipv4/tcp_retries2)
  ((retries > 4)) || return 0
  echo "this node takes minutes to find that a backend vanished (net.ipv4.tcp_retries2=$retries): so requests end whose backend reads nothing for 8 s. Set sysctl net.ipv4.tcp_retries2=3 on it" >&2
  echo 'upstream_bind_config: {socket_options: [{level: 6, name: 18, int_value: 8000, state: STATE_PREBIND, description: TCP_USER_TIMEOUT}]}'
}

# shared_with_another_user: somebody else listens on this edge's port of statistics.
shared_with_another_user() {
  local port address state uid _
  [[ -n ${METRICS_PORT:-} ]] || return 1
  printf -v port '%04X' "$METRICS_PORT"
  while read -r _ address _ state _ _ _ uid _; do
    [[ $state == 0A && $address == *:$port && $uid != "$EUID" ]] && return 0
  done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
  return 1
}

# ask METHOD PATH: prints Envoy's answer, and fails unless its status is 200.
ask() {
  perl -e '
    use strict;
    use Socket;
    my ($path, $method, $target) = @ARGV;
    socket(my $admin, AF_UNIX, SOCK_STREAM, 0) or die "$!\n";
    connect($admin, sockaddr_un($path)) or die "$path: $!\n";
    syswrite $admin, "$method $target HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    my ($headers, $rest) = split /\r\n\r\n/, join("", <$admin>), 2;
    my $body = $rest;
    if ($headers =~ /^transfer-encoding: *chunked/im) {
      for ($body = ""; $rest =~ s/^([0-9a-f]+)\r\n//i && hex $1; substr($rest, 0, 2, "")) {
        $body .= substr $rest, 0, hex $1, "";
      }
    }
    print $body;
    $headers =~ m{^HTTP/1.1 200 } or die "$method $target: " . ($headers =~ /^(.*?)\r?$/m)[0] . "\n";
  ' "$admin" "$1" "$2"
}

# ready: succeeds while Envoy has its configuration and is not draining.
ready() {
  ask GET /ready >/dev/null
}

# alive: succeeds while Envoy's main thread answers, also without a hub and while draining.
alive() {
  ask GET /server_info >/dev/null
}

# busy: prints the number of open connections of clients.
busy() {
  local name value sum=0
  while IFS=': ' read -r name value; do
    case $name in
    http.admin.* | http.metrics.*) ;;
    http.*.downstream_cx_active) sum=$((sum + value)) ;;
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
