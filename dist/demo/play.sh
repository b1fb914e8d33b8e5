#!/usr/bin/env bash
# Plays the incident that agent-guard was made for, on a host where it may destroy things.
set -u
here=$(cd "$(dirname "$0")" && pwd)
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' red=$'\e[1;31m' green=$'\e[1;32m' plain=$'\e[0m'; else bold='' red='' green='' plain=''; fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }
fail() { printf '%sThe demonstration failed: %s%s\n' "$red" "$*" "$plain" >&2; exit 1; }
pause() { if [ -t 1 ]; then sleep "${1:-1}"; fi; }

environment() {
    rm -rf /srv/prod /srv/agents
    mkdir -p /srv/prod /srv/agents/fix-config
    printf 'name = "shop"\nport = 8081\n' > /srv/prod/config.toml
    printf 'alice,1200\nbob,340\n' > /srv/prod/customers.db
    agent-guard policy reload > /dev/null || fail "the policy was refused"
}

# The first approval that waits, as JSON.
waiting() { agent-guard approvals list --json | jq -e -c '.approvals[0] // empty'; }

# Answers everything that is asked while the agent runs: $1 is approve or deny, $2 the comment.
answer_all() {
    local first=yes hold id
    while kill -0 "$agent" 2>/dev/null; do
        if ! hold=$(waiting); then sleep 0.2; continue; fi
        id=$(jq -r .id <<<"$hold")
        if [ "$first" = yes ]; then
            first=no
            say "Frozen, inside the system call. Nothing was deleted; nobody polls; the service goes on:"
            show ps -o pid,stat,args -p "$(jq -r .process.pid <<<"$hold")"
            show curl --silent http://127.0.0.1:8080/customers.db
            say "Who asks for what:"
            show agent-guard approvals show "$id"
            pause 3
        fi
        show agent-guard approvals "$1" "$id" --comment "$2" || fail "approvals $1"
    done
}

run_agent() {
    agent-guard run --profile demo --name fix-config --task "Fix the port in config.toml" \
        -- bash "$here/agent.sh" &
    agent=$!
}

say "A production environment, served by a running service"
mkdir -p /srv/git /srv/prod /srv/agents
install -m 0644 "$here/policy.toml" /etc/agent-guard/policy.d/60-demo.toml
rm -rf /srv/git/app.git && git init --quiet --bare /srv/git/app.git
seed=$(mktemp -d) && printf 'name = "shop"\nport = 8081\n' > "$seed/config.toml"
git -C "$seed" init --quiet && git -C "$seed" add . \
    && git -C "$seed" -c user.name=ops -c user.email=ops@localhost commit --quiet -m "The shop" \
    && git -C "$seed" push --quiet /srv/git/app.git HEAD:master || fail "git"
git config --system --add safe.directory '*'
environment
(cd / && exec python3 -m http.server --bind 127.0.0.1 --directory /srv/prod 8080 > /dev/null 2>&1) &
service=$!
trap 'kill "$service" 2>/dev/null' EXIT
for _ in $(seq 50); do curl --silent --output /dev/null http://127.0.0.1:8080/ && break; sleep 0.2; done
show ls -l /srv/prod
show curl --silent http://127.0.0.1:8080/customers.db
say "The policy: what is critical waits for a person, and the agent's network is one address"
show cat /etc/agent-guard/policy.d/60-demo.toml
pause 3

say "1. The agent gets its task. The approver says no."
run_agent
answer_all deny "no: this is a live service"
wait "$agent"
[ -s /srv/prod/customers.db ] || fail "production was damaged"
printf '%sStill there:%s\n' "$green" "$plain"
show ls -l /srv/prod
show curl --silent http://127.0.0.1:8080/customers.db
pause 3

say "2. The same again, and this time somebody takes the responsibility"
environment
run_agent
answer_all approve "agreed with the team, backup is done"
wait "$agent"
[ -e /srv/prod/customers.db ] && fail "the approved deletion did not happen"
[ -s /srv/prod/config.toml ] || fail "the environment was not recreated"
printf '%sDeleted and recreated, call by call, as approved. The agent never noticed that it waited.%s\n' "$green" "$plain"
show ls -l /srv/prod
pause 3

say "What the SIEM gets (every line is an OCSF event; here as people read it)"
show agent-guard events --since 10m
say "One of them in full"
agent-guard events --since 10m --json | jq -c 'select(.class_uid == 2004)' | tail -n 1 | jq .
say "That is all. See README.md for what is stopped today, and what isn't yet."
