using Drover.Orchestrator.Backlog;
using Drover.Workflows;
using Drover.Workflows.Diagnostics;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Runs;

/// <summary>
/// One attempt at one task: worktree, agent, commit, gate, candidate, verdict, clean-up. Every step is idempotent by what it
/// finds in git and in the rows; every row change is one transaction that names task, attempt and expected status.
/// <para>Numbered steps (crash points <c>task.N.before</c> and <c>task.N.after</c>): 1 base · 2 start · 3 worktree · 4 agent ·
/// 5 commit · 6 judge · 7 gate · 8 candidate · 9 verdict · 10 conflict turn · 11 clean-up.</para>
/// </summary>
internal static class TaskFlow
{
    private const int MostCrashes = 5;
    private static readonly string[] FullDisk = ["No space left", "disk is full", "quota exceeded"];
    private static readonly StepOptions Patient = new() { Attempts = 3, Backoff = TimeSpan.FromMilliseconds(500), RetryIf = IsPassing };

    public static readonly Workflow<TaskInput, string> Definition =
        Workflow.Define<TaskInput, string>("ExecuteTaskWorkflow", RunAsync, new() { MaxStalledRecoveries = 20 });

    private static async Task<string> RunAsync(WorkflowContext context, TaskInput input)
    {
        try
        {
            string end = await AttemptAsync(context, input);
            return end is "landed" or "no-op" or "failed" or "gone" ? await CleanUpAsync(context, input, end) : end;
        }
        catch (StepFailedException e)
        {
            // A step that still fails after its retries is the machine's fault, not the agent's; a full disk counts nothing.
            bool full = FullDisk.Any(words => e.Message.Contains(words, StringComparison.OrdinalIgnoreCase));
            return await context.TransactAsync("give back", tx =>
            {
                string reason = RunFlow.OneLine($"{e.StepName}: {e.Message}");
                if (full)
                    Board.ReleaseAttempt(tx.Session, input.Project, input.Task, input.Attempt, "disk", 30_000);
                else
                    Board.FailAttempt(tx.Session, input.Project, input.Task, input.Attempt, FailureKind.Environment, reason, input.MaxAttempts);
                return Tell(tx, input, full ? "released" : "failed");
            });
        }
    }

    // What cannot be removed now is removed by the next start; the task's outcome stands.
    private static async Task<string> CleanUpAsync(WorkflowContext context, TaskInput input, string end)
    {
        try
        {
            await StepAsync(context, 11, "clean-up", (steps, ct) => steps.CleanUpAsync(input, ct));
            return end;
        }
        catch (StepFailedException e)
        {
            return $"{end}, not cleaned up: {e.Message}";
        }
    }

    private static async Task<string> AttemptAsync(WorkflowContext context, TaskInput input)
    {
        TaskStart? found = await StepAsync(context, 1, "base", (steps, ct) => steps.FindStartAsync(input, ct));
        if (found is not { } start)
            return "gone";
        bool mine = await TransactAsync(context, 2, "start", tx => Board.StartAttempt(tx.Session, input.Project, input.Task, input.Attempt, new AttemptFacts
        {
            BaseOid = start.BaseOid,
            Worktree = RunServices.From(tx.Services).RelativeWorktree(input),
            Branch = $"drover/{input.Task}-{input.Attempt}",
        }));
        if (!mine)
            return "gone";
        WorktreeReady ready = await StepAsync(context, 3, "worktree", (steps, ct) => steps.PrepareWorktreeAsync(input, start, ct));
        if (ready.Problem is { } problem)
            return await PauseAsync(context, input, PauseReason.Setup, problem);

        string work = start.WorkOid ?? "";
        bool conflictUsed = start.ConflictTurnUsed;
        TurnGiven? given = start.Given;
        string entry = start.Entry;
        for (int turn = start.Turns + 1; ; turn++)
        {
            if (entry == "agent")
            {
                TurnResult result = await StepAsync(context, 4, "agent", (steps, ct) => steps.RunAgentAsync(input, turn, given, ct));
                CommitResult commit = await StepAsync(context, 5, "commit", (steps, ct) => steps.CommitAsync(input, start, given, ct), Patient);
                int number = turn;
                string judgement = await TransactAsync(context, 6, "judge", tx => Judge(tx, input, number, given, result, commit));
                if (judgement != "go on")
                    return judgement;
                (work, given) = (commit.WorkOid, null);
            }
            GateOutcome gate = await StepAsync(context, 7, "gate", (steps, ct) => steps.MergeAndGateAsync(input, start.Target, work, ct), Patient);
            string next = gate.Verdict == "passed" ? await LandAsync(context, input, start.Target, work, gate) : gate.Verdict;
            switch (next)
            {
                case "conflict" when !conflictUsed:
                    string current = work;
                    given = await StepAsync(context, 10, "conflict turn", (steps, ct) => steps.GiveConflictAsync(input, start, current, ct));
                    if (given is null)
                    {
                        // The target moved and the conflict is gone: merge and test again, the turn is not used up.
                        entry = "gate";
                        continue;
                    }
                    conflictUsed = true;
                    string stored = TaskSteps.Write(given);
                    await context.TransactAsync("conflict turn used", tx =>
                        Board.RecordFacts(tx.Session, input.Project, input.Task, input.Attempt,
                            new AttemptFacts { ConflictTurnUsed = true, Phase = TaskSteps.InConflict, Conflict = stored }));
                    entry = "agent";
                    continue;
                case "conflict":
                    await context.TransactAsync("conflict again", tx => Board.RecordFacts(
                        tx.Session, input.Project, input.Task, input.Attempt, new AttemptFacts { Phase = TaskSteps.ConflictAgain }));
                    return await PauseAsync(context, input, PauseReason.Conflict,
                        "its work conflicts with the target also after one more turn: resolve --continue [--note] gives it another, --abandon gives it up");
                case "empty" or "red" or "broken":
                    return await EndAsync(context, input, next, gate);
                default:
                    return next;
            }
        }
    }

    // What a merge or a gate showed ends the attempt; a red of the lane left its output in the candidate's row.
    private static async Task<string> EndAsync(WorkflowContext context, TaskInput input, string verdict, GateOutcome gate)
    {
        switch (verdict)
        {
            case "empty":
                return await FinishAsync(context, input, "no-op", tx =>
                    Board.FinishNoOp(tx.Session, input.Project, input.Task, input.Attempt, "the target already holds this change"));
            case "red":
                string output = gate.Text ?? await context.TransactAsync("read verdict", tx => LaneText(tx.Session, input)) ?? "";
                return await FinishAsync(context, input, "failed", tx => Board.FailAttempt(tx.Session, input.Project, input.Task, input.Attempt, FailureKind.Gate,
                    "the test command failed: " + RunFlow.OneLine(LastLine(output)), input.MaxAttempts, output).Applied);
            default:
                return await FinishAsync(context, input, "failed", tx => Board.FailAttempt(tx.Session, input.Project, input.Task, input.Attempt, FailureKind.Environment,
                    "the test command could not be run: " + RunFlow.OneLine(gate.Text ?? "unknown"), input.MaxAttempts).Applied);
        }
    }

    // Inserting the candidate and waking the lane are one transaction under the target's lock: no candidate is ever without a lane.
    private static async Task<string> LandAsync(WorkflowContext context, TaskInput input, string target, string work, GateOutcome gate)
    {
        bool queued = await TransactAsync(context, 8, "candidate", tx =>
        {
            if (!Board.InsertCandidate(tx.Session, input.Project, input.Task, input.Attempt, target, work, gate.Tree, gate.Tip))
                return false;
            Board.RecordFacts(tx.Session, input.Project, input.Task, input.Attempt, new AttemptFacts { Phase = "landing" });
            Board.ForgetAnswer(tx.Session, input.Project, input.Task, input.Attempt);
            LandingFlow.Wake(tx, input.Project, target);
            return true;
        });
        if (!queued)
            return "gone";
        while (true)
        {
            string state = await TransactAsync(context, 9, "verdict", tx => Verdict(tx, input));
            if (state != "waiting")
                return state;
            await context.ReceiveAsync<string>(Protocol.LandingTopic, TimeSpan.FromSeconds(30));
        }
    }

    private static string Verdict(WorkflowTransaction tx, TaskInput input)
    {
        LandingRow? row = Board.FindLanding(tx.Session, input.Project, input.Task, input.Attempt);
        switch (row?.State)
        {
            case LandingState.Waiting or LandingState.Intended:
                return "waiting";
            case LandingState.Held:
                // The lane lands it when the reason is gone; the slot is free until then.
                Board.ReleaseAttempt(tx.Session, input.Project, input.Task, input.Attempt, "held");
                return Tell(tx, input, "released");
            case LandingState.Landed:
                return Tell(tx, input, "landed");
            case LandingState.Conflict:
                return "conflict";
            case LandingState.Red:
                return "red";
            default:
                return "gone";
        }
    }

    private static string? LaneText(SqlSession db, TaskInput input) =>
        Board.FindLanding(db, input.Project, input.Task, input.Attempt)?.HoldReason;

    private static string Judge(WorkflowTransaction tx, TaskInput input, int turn, TurnGiven? given, TurnResult result, CommitResult commit)
    {
        SqlSession db = tx.Session;
        // Of a conflict turn that did not end by itself nothing counts: the next one begins from the same two sides.
        bool settled = commit.Lost is null && (given is null || result.Outcome == "succeeded");
        bool mine = Board.RecordFacts(db, input.Project, input.Task, input.Attempt, new AttemptFacts
        {
            WorkOid = settled ? commit.WorkOid : null,
            TreeOid = settled ? commit.TreeOid : null,
            Turns = turn,
            Tokens = result.Tokens,
            CostMicros = result.CostMicros,
            SessionId = result.SessionId,
        });
        if (!mine)
            return "gone";
        AttemptFate Fail(FailureKind kind) =>
            Board.FailAttempt(db, input.Project, input.Task, input.Attempt, kind, RunFlow.OneLine(result.Summary), input.MaxAttempts);
        switch (result.Outcome)
        {
            case "limit":
                Board.ReleaseAttempt(db, input.Project, input.Task, input.Attempt, "limit",
                    result.LimitResetMs is { } reset ? Math.Max(1_000, reset - tx.NowMs) : 60_000);
                return Tell(tx, input, "released");
            case "not started" when turn >= MostCrashes:
                Board.Pause(db, input.Project, input.Task, input.Attempt, PauseReason.Setup, "the agent could not be started: " + RunFlow.OneLine(result.Summary));
                return Tell(tx, input, "paused");
            case "not started":
                Board.ReleaseAttempt(db, input.Project, input.Task, input.Attempt, "not started", 1_000L << turn);
                return Tell(tx, input, "released");
            case "crashed" or "unknown" when turn < MostCrashes:
                Board.ReleaseAttempt(db, input.Project, input.Task, input.Attempt, "crash", 500L << turn);
                return Tell(tx, input, "released");
            case "timeout":
                Fail(FailureKind.Timeout);
                return Tell(tx, input, "failed");
            case not "succeeded":
                Fail(FailureKind.Agent);
                return Tell(tx, input, "failed");
        }
        if (commit.Lost is { } lost)
        {
            Board.FailAttempt(db, input.Project, input.Task, input.Attempt, FailureKind.Agent, RunFlow.OneLine(lost), input.MaxAttempts);
            return Tell(tx, input, "failed");
        }
        bool untouched = given is not null && commit.TreeOid == given.Tree;
        if (commit.PauseReason is null && untouched)
            commit = commit with { PauseReason = PauseReason.Conflict, Question = "the agent left the conflict as it was" };
        if (commit.PauseReason is { } reason)
        {
            Board.Pause(db, input.Project, input.Task, input.Attempt, reason, commit.Question ?? reason);
            return Tell(tx, input, "paused");
        }
        if (commit.IsNoOp && given is null && !result.Spoke)
        {
            Board.FailAttempt(db, input.Project, input.Task, input.Attempt, FailureKind.Empty, "the agent changed nothing and gave no reason", input.MaxAttempts);
            return Tell(tx, input, "failed");
        }
        if (commit.IsNoOp && given is null)
        {
            Board.FinishNoOp(db, input.Project, input.Task, input.Attempt, RunFlow.OneLine(result.Summary));
            return Tell(tx, input, "no-op");
        }
        Board.ForgetAnswer(db, input.Project, input.Task, input.Attempt);
        Board.RecordFacts(db, input.Project, input.Task, input.Attempt, new AttemptFacts { Phase = "gate" });
        return "go on";
    }

    private static Task<string> PauseAsync(WorkflowContext context, TaskInput input, string reason, string question) =>
        FinishAsync(context, input, "paused", tx => Board.Pause(tx.Session, input.Project, input.Task, input.Attempt, reason, RunFlow.OneLine(question)));

    private static Task<string> FinishAsync(WorkflowContext context, TaskInput input, string end, Func<WorkflowTransaction, bool> write) =>
        context.TransactAsync("finish", tx =>
        {
            bool applied = write(tx);
            return Tell(tx, input, applied ? end : "gone");
        });

    /// <summary>Hints the run, in the same commit as the change; a run that is gone needs no hint.</summary>
    public static string Tell(WorkflowTransaction tx, TaskInput input, string end)
    {
        TellRun(tx, input.Project, input.Task);
        return end;
    }

    public static void TellRun(WorkflowTransaction tx, string project, string about)
    {
        if (Board.ActiveRun(tx.Session, project) is { } run && tx.Status(run.WorkflowId) is { IsEnded: false })
            tx.Send(run.WorkflowId, about, Protocol.TasksTopic);
    }

    private static Task<T> StepAsync<T>(WorkflowContext context, int number, string name, Func<TaskSteps, CancellationToken, Task<T>> body, StepOptions? options = null) =>
        context.StepAsync(name, async step =>
        {
            CrashPoints.Reach($"task.{number}.before");
            T result = await body(RunServices.From(step.Services).Tasks, step.CancellationToken).ConfigureAwait(false);
            CrashPoints.Reach($"task.{number}.after");
            return result;
        }, options ?? Patient);

    private static Task<T> TransactAsync<T>(WorkflowContext context, int number, string name, Func<WorkflowTransaction, T> work) =>
        context.TransactAsync(name, tx =>
        {
            CrashPoints.Reach($"task.{number}.before");
            T result = work(tx);
            CrashPoints.Reach($"task.{number}.after");
            return result;
        });

    private static bool IsPassing(Exception error) => error is IOException or DroverException { Code: ErrorCode.External or ErrorCode.Conflict or ErrorCode.Timeout };

    private static string LastLine(string text) => text.TrimEnd().Split('\n')[^1];
}
