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
repo=
# This script itself never stands in the repository: whatever does is part of the run.
drover() { (cd "$repo" && exec dotnet "$work/bin/drover.dll" "$@"); }
in_repo() { git -C "$repo" "$@"; }
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
sleep "$(( number % 3 + 2 ))"
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

# The agents that run now: processes that carry a task's id and work in its worktree.
agents_of() { for p in /proc/[0-9]*; do
    case "$(readlink "$p/cwd" 2>/dev/null)" in "$1"/.drover/worktrees/task-*) grep -qz '^DROVER_TASK_ID=' "$p/environ" 2>/dev/null && echo "${p#/proc/}" ;; esac; done; }

# Processes of this run besides the given one: agents, keepers, gates, gits.
others() { for p in /proc/[0-9]*; do
    pid=${p#/proc/}; [ "$pid" = "$1" ] && continue
    case "$(readlink "$p/cwd" 2>/dev/null)" in "$2"|"$2"/*) echo "$pid" ;; esac; done; }

users_bytes() { in_repo status --porcelain --ignored; (cd "$repo" && sha256sum CONTRIBUTING.md staged.txt untracked.txt bin/ignored.txt); in_repo diff --cached; }

one_round() { # where the user is: target | elsewhere
  local place=$1 started=$SECONDS
  repo="$work/$1/a clone"
  mkdir -p "$work/$1"
  git clone -q "$source" "$repo"
  in_repo config user.name "Real Input"; in_repo config user.email "real@example.org"
  in_repo checkout -q -B trunk
  printf '# Real input\n' > "$repo/docs/real-input.md"; in_repo add docs/real-input.md; in_repo commit -qm "Begin"
  if [ "$place" = elsewhere ]; then in_repo checkout -q -b mine; fi
  drover init --target trunk --test-command "dotnet build src/Drover.Workflows/Drover.Workflows.csproj -v quiet --nodereuse:false -p:UseSharedCompilation=false" >/dev/null
  drover config set gate.keep "obj/,bin/" >/dev/null
  # Bytes of the user, of every kind.
  echo "uncommitted" >> "$repo/CONTRIBUTING.md"
  echo "staged" > "$repo/staged.txt"; in_repo add staged.txt
  echo "untracked" > "$repo/untracked.txt"
  mkdir -p "$repo/bin"; echo "ignored" > "$repo/bin/ignored.txt"
  local before; before=$(users_bytes)

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

  local orchestrators=0 agents=0 others=0 starts=0 code=1 verb=run
  while [ "$code" -ne 0 ]; do
    starts=$(( starts + 1 ))
    [ "$starts" -le 60 ] || fail "$place: no end in sight"
    (cd "$repo" && exec dotnet "$work/bin/drover.dll" "$verb" --workers 4) > "$work/$1/run.log" 2>&1 &
    local pid=$!
    verb=resume
    while kill -0 "$pid" 2>/dev/null; do
      sleep "$(( RANDOM % 3 )).$(( RANDOM % 10 ))"
      if [ "$others" -lt 2 ] && [ "$agents" -ge 2 ]; then
        local any; mapfile -t any < <(others "$pid" "$repo")
        [ "${#any[@]}" -gt 0 ] && kill -9 "${any[RANDOM % ${#any[@]}]}" 2>/dev/null && others=$(( others + 1 ))
      fi
      if [ "$agents" -lt 4 ]; then
        local victims; mapfile -t victims < <(agents_of "$repo")
        if [ "${#victims[@]}" -gt 0 ]; then
          kill -9 "${victims[RANDOM % ${#victims[@]}]}" 2>/dev/null && agents=$(( agents + 1 ))
          continue
        fi
      fi
      if [ "$orchestrators" -lt 4 ] && [ "$(( RANDOM % 3 ))" = 0 ] && kill -9 "$pid" 2>/dev/null; then
        orchestrators=$(( orchestrators + 1 ))
        break
      fi
    done
    wait "$pid" 2>/dev/null && code=0 || code=$?
    [ "$code" -eq 0 ] || [ "$code" -eq 137 ] || { cat "$work/$1/run.log"; fail "$place: the run ended with $code"; }
  done

  [ "$orchestrators" -ge 3 ] && [ "$agents" -ge 3 ] || fail "$place: only $orchestrators orchestrators and $agents agents were killed"
  local landed; landed=$(in_repo log --first-parent --format='%(trailers:key=Drover-Task,valueonly,separator=%x2C)' trunk | grep -c . || true)
  local distinct; distinct=$(in_repo log --first-parent --format='%(trailers:key=Drover-Task,valueonly,separator=%x2C)' trunk | grep . | sort -u | wc -l)
  [ "$landed" = 22 ] && [ "$distinct" = 22 ] || fail "$place: $landed landings of $distinct tasks instead of 22 of 22"
  drover status --oneline | grep -q '22 completed' || fail "$place: $(drover status --oneline)"
  local after; after=$(users_bytes)
  [ "$before" = "$after" ] || { diff <(echo "$before") <(echo "$after"); fail "$place: the user's bytes changed"; }
  if in_repo worktree list | grep -q 'worktrees/task-'; then fail "$place: a worktree is left"; fi
  local left; left=$(others $$ "$repo"); [ -z "$left" ] || fail "$place: processes survive: $left"
  git clone -q --branch trunk "$repo" "$work/$1/check"
  dotnet build "$work/$1/check/src/Drover.Workflows" -v quiet --nodereuse:false >/dev/null || fail "$place: the result does not build"
  [ "$(grep -c '^number ' "$work/$1/check/docs/real-input.md")" = 2 ] || fail "$place: a line of the shared page is missing"
  say "$place: 22 tasks landed once each; killed $orchestrators orchestrators, $agents agents and $others of their gates, keepers and gits; $starts starts; $(( SECONDS - started )) s"
}

one_round target
one_round elsewhere
say "real input: passed in $SECONDS s (seed $seed)"
