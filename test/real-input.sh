#!/usr/bin/env bash
# Real input: drover works through a backlog over a clone of its own repository, with command agents that make real edits, four
# workers, and a gate that builds a project; orchestrator and agents are killed with SIGKILL all the time. Once with the target
# checked out, once with the user on another branch. Not part of ./test.sh.
#   test/real-input.sh [seed]
set -euo pipefail
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
seed=${1:-$RANDOM}
RANDOM=$seed
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
drover() { dotnet "$work/bin/drover.dll" "$@"; }
say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*"; }
fail() { echo "real input: FAILED: $*" >&2; exit 1; }

export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DROVER_AGENT_TYPE=command
say "seed $seed; building drover"
dotnet build "$source/src/Drover.Cli" -v quiet >/dev/null
# A copy, so that a rebuild of this tree does not pull the program away under the run.
cp -r "$source/src/Drover.Cli/bin/Debug/net10.0" "$work/bin"

# The agent: adds a class that uses the classes of the tasks it depends on, two of them also a line to a shared page.
cat > "$work/agent.sh" <<'AGENT'
#!/bin/sh
set -e
prompt=$(cat)
number=$(printf '%s' "$DROVER_TASK_TITLE" | sed -n 's/.*number \([0-9]*\).*/\1/p')
uses=$(printf '%s\n' "$prompt" | sed -n 's/^Uses: \(.*\)$/\1/p' | head -n 1)
sleep "0.$(( number % 10 ))"
mkdir -p src/Drover.Workflows/RealInput
sum="$number"
for other in $uses; do sum="$sum + Number$other.Value"; done
cat > "src/Drover.Workflows/RealInput/Number$number.cs" <<CODE
namespace Drover.Workflows.RealInput;

/// <summary>Written by a scripted agent for task number $number.</summary>
internal static class Number$number
{
    /// <summary>Builds only when every task it depends on has landed.</summary>
    internal const int Value = $sum;
}
CODE
page=docs/real-input.md
# Two tasks write to the same place of one page: the second meets the first in a conflict and keeps both sides.
case "$number" in 3|4) ;; *) echo "did number $number"; exit 0 ;; esac
sed -i -e '/^<<<<<<< /d' -e '/^=======$/d' -e '/^>>>>>>> /d' -e '/^||||||| /,/^=======$/d' "$page"
grep -qx "number $number" "$page" || sed -i "1a number $number" "$page"
echo "did number $number"
AGENT
chmod +x "$work/agent.sh"
export DROVER_AGENT_PATH="$work/agent.sh"

# Processes of this run besides the given one: agents, keepers, gates, gits.
others() { for p in /proc/[0-9]*; do
    pid=${p#/proc/}; [ "$pid" = "$1" ] && continue
    case "$(readlink "$p/cwd" 2>/dev/null)" in "$2"|"$2"/*) echo "$pid" ;; esac; done; }

one_round() { # where the user is: target | elsewhere
  local place=$1 repo="$work/$1/a clone" started=$SECONDS
  mkdir -p "$work/$1"
  git clone -q "$source" "$repo"
  cd "$repo"
  git config user.name "Real Input"; git config user.email "real@example.org"
  git checkout -q -B trunk
  printf '# Real input\n' > docs/real-input.md; git add docs/real-input.md; git commit -qm "Begin"
  [ "$place" = elsewhere ] && git checkout -q -b mine
  # Bytes of the user, of every kind.
  echo "uncommitted" >> CONTRIBUTING.md
  echo "staged" > staged.txt; git add staged.txt
  echo "untracked" > untracked.txt
  mkdir -p bin; echo "ignored" > bin/ignored.txt
  local before; before=$(git status --porcelain --ignored; sha256sum CONTRIBUTING.md staged.txt untracked.txt bin/ignored.txt; git diff --cached)

  drover init --target trunk --test-command "dotnet build src/Drover.Workflows/Drover.Workflows.csproj -v quiet --nodereuse:false -p:UseSharedCompilation=false" >/dev/null
  drover config set gate.keep "obj/,bin/" >/dev/null
  local i lines=""
  for i in $(seq 1 22); do
    local blockers="" uses=""
    if [ "$i" -gt 4 ]; then
      local a=$(( i / 2 )) b=$(( i - 4 ))
      blockers="\"t$a\""; uses="$a"
      [ "$a" != "$b" ] && { blockers="$blockers,\"t$b\""; uses="$uses $b"; }
    fi
    lines+="{\"id\":\"t$i\",\"type\":\"task\",\"title\":\"Add the class number $i\",\"description\":\"Write src/Drover.Workflows/RealInput/Number$i.cs\\nUses: $uses\",\"blocked_by\":[$blockers]}"$'\n'
  done
  printf '%s' "$lines" > "$work/$1/graph.jsonl"
  drover import-jsonl "$work/$1/graph.jsonl" >/dev/null

  local orchestrators=0 agents=0 starts=0 code=1 verb=run
  while [ "$code" -ne 0 ]; do
    starts=$(( starts + 1 ))
    [ "$starts" -le 60 ] || fail "$place: no end in sight"
    dotnet "$work/bin/drover.dll" "$verb" --workers 4 > "$work/$1/run.log" 2>&1 &
    local pid=$!
    verb=resume
    while kill -0 "$pid" 2>/dev/null; do
      sleep "$(( RANDOM % 8 + 2 )).$(( RANDOM % 10 ))"
      if [ "$agents" -lt 4 ]; then
        local victims; mapfile -t victims < <(others "$pid" "$repo")
        if [ "${#victims[@]}" -gt 0 ]; then
          kill -9 "${victims[RANDOM % ${#victims[@]}]}" 2>/dev/null && agents=$(( agents + 1 ))
          continue
        fi
      fi
      if [ "$orchestrators" -lt 4 ] && kill -9 "$pid" 2>/dev/null; then
        orchestrators=$(( orchestrators + 1 ))
        break
      fi
    done
    wait "$pid" 2>/dev/null && code=0 || code=$?
    [ "$code" -eq 0 ] || [ "$code" -eq 137 ] || { cat "$work/$1/run.log"; fail "$place: the run ended with $code"; }
  done

  [ "$orchestrators" -ge 3 ] && [ "$agents" -ge 3 ] || fail "$place: only $orchestrators orchestrators and $agents agents were killed"
  local landed; landed=$(git log --first-parent --format='%(trailers:key=Drover-Task,valueonly,separator=%x2C)' trunk | grep -c . || true)
  local distinct; distinct=$(git log --first-parent --format='%(trailers:key=Drover-Task,valueonly,separator=%x2C)' trunk | grep . | sort -u | wc -l)
  [ "$landed" = 22 ] && [ "$distinct" = 22 ] || fail "$place: $landed landings of $distinct tasks instead of 22 of 22"
  drover status --oneline | grep -q '22 completed' || fail "$place: $(drover status --oneline)"
  local after; after=$(git status --porcelain --ignored; sha256sum CONTRIBUTING.md staged.txt untracked.txt bin/ignored.txt; git diff --cached)
  [ "$before" = "$after" ] || { diff <(echo "$before") <(echo "$after"); fail "$place: the user's bytes changed"; }
  git worktree list | grep -q 'worktrees/task-' && fail "$place: a worktree is left"
  local left; left=$(others $$ "$repo"); [ -z "$left" ] || fail "$place: processes survive: $left"
  git clone -q --branch trunk "$repo" "$work/$1/check"
  dotnet build "$work/$1/check/src/Drover.Workflows" -v quiet --nodereuse:false >/dev/null || fail "$place: the result does not build"
  [ "$(grep -c '^number ' "$work/$1/check/docs/real-input.md")" = 2 ] || fail "$place: a line of the shared page is missing"
  say "$place: 22 tasks landed once each; killed $orchestrators orchestrators and $agents of their processes; $starts starts; $(( SECONDS - started )) s"
  cd "$source"
}

one_round target
one_round elsewhere
say "real input: passed in $SECONDS s (seed $seed)"
