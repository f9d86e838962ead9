#!/usr/bin/env bash
# Wait until this machine is to be taken away, then have Ray give it no further work.
#   spot_notice.sh        on EC2: asks the metadata service every 5 s, ends with the first notice
#   spot_notice.sh --now  the preStop hook of a pod: at once; then it waits, as Kubernetes ends the pod
#                         when the hook ends (or Ray does, when the node has no work left)
# RAY_ADDRESS is the cluster's. DEADLINE_S: what is left when the notice comes; EC2 gives 120 s.
# RAY_NODE_ID: the node to drain, where a machine has several; default: this machine's.
set -u
METADATA=${METADATA:-http://169.254.169.254}/latest
DEADLINE_S=${DEADLINE_S:-110}

# Prints the notice; fails where there is none. Such machines want a session's token first.
notice() {
    local token
    token=$(curl -sf -m 2 -X PUT "$METADATA/api/token" -H "X-aws-ec2-metadata-token-ttl-seconds: 60") &&
        curl -sf -m 2 -H "X-aws-ec2-metadata-token: $token" "$METADATA/meta-data/spot/instance-action"
}

drain() {
    ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "$1" \
        --deadline-remaining-seconds "$DEADLINE_S" ${RAY_NODE_ID:+--node-id "$RAY_NODE_ID"}
}

said="the pod ends"
if [ "${1:-}" != --now ]; then
    until said=$(notice); do sleep "${INTERVAL_S:-5}"; done
fi
echo "$(date -u +%FT%TZ) drain: $said"
# A busy head may refuse a call.
drain "$said" || { sleep 2; drain "$said"; } || exit 1
[ "${1:-}" != --now ] || sleep "$DEADLINE_S"
