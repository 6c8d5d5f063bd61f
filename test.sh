#!/usr/bin/env bash
# The one test command. Installs what the tests need, builds, runs every suite, ends with "N passed, N failed, N skipped".
#   ./test.sh          everything that CI runs
#   ./test.sh --fast   the inner loop: no chaos, no whole-program runs
#   ./test.sh --long   the full counts of the proofs (random kills, crash sweeps)
set -u
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
mode=default
case "${1:-}" in
  '') ;;
  --fast) mode=fast ;;
  --long) mode=long ;;
  *) echo "test.sh: unknown option '$1'; use --fast or --long" >&2; exit 2 ;;
esac
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DROVER_TEST_MODE=$mode
command -v dotnet >/dev/null || { echo "test.sh: dotnet not found; install the .NET 10 SDK" >&2; exit 1; }
command -v git >/dev/null || { echo "test.sh: git not found; install git 2.39 or newer" >&2; exit 1; }

# Programs that the tests use as a user's machine has them: a pseudo-terminal, process tools, mounts.
missing=()
for need in script:bsdutils ps:procps mount:mount setsid:util-linux; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq "${missing[@]}" || { echo "test.sh: cannot install ${missing[*]}" >&2; exit 1; }
  else
    echo "test.sh: please install ${missing[*]}" >&2; exit 1
  fi
fi

passed=0 failed=0 skipped=0
finish() { echo "$passed passed, $failed failed, $skipped skipped"; [ "$failed" -eq 0 ]; exit; }

start=$SECONDS
if ! dotnet build Drover.slnx -v quiet; then
  failed=1
  finish
fi
echo "build: $((SECONDS - start)) s"

# A job that a shell started in the background inherits an ignored SIGINT, and with it everything below; the tests send it.
fresh_signals=()
env --default-signal=INT true 2>/dev/null && fresh_signals=(env --default-signal=INT)

# name  seconds budget on two cores
run() {
  local name=$1 budget=$2; shift 2
  local dll="test/$name/bin/Debug/net10.0/$name.dll" log started=$SECONDS
  log=$(mktemp)
  # A suite that hangs is a failure, said before CI gives up.
  timeout --kill-after=10 1500 "${fresh_signals[@]}" dotnet "$dll" -noLogo -noColor "$@" 2>&1 | tee "$log"
  local status=${PIPESTATUS[0]} line
  line=$(grep -E 'Total: [0-9]+, Errors: ' "$log" | tail -n 1)
  rm -f "$log"
  number() { sed -nE "s/.*$1: ([0-9]+).*/\1/p" <<<"$line"; }
  if [ -z "$line" ]; then
    echo "$name: the runner gave no summary (exit $status)"
    failed=$((failed + 1))
    return
  fi
  local total errors fails skips notrun
  total=$(number Total) errors=$(number Errors) fails=$(number Failed) skips=$(number Skipped) notrun=$(number 'Not Run')
  failed=$((failed + errors + fails))
  skipped=$((skipped + skips))
  passed=$((passed + total - fails - skips - ${notrun:-0}))
  [ "$status" -ne 0 ] && [ $((errors + fails)) -eq 0 ] && { echo "$name: the runner exited with $status"; failed=$((failed + 1)); }
  echo "$name: $((SECONDS - started)) s (budget $budget s)"
}

filter=()
[ "$mode" = fast ] && filter=(-trait- "Speed=slow")
run Drover.Workflows.Tests 120 "${filter[@]}"
run Drover.Orchestrator.Tests 300 "${filter[@]}"
run Drover.Cli.Tests 600 "${filter[@]}"
finish
