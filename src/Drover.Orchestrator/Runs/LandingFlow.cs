using Drover.Orchestrator.Backlog;
using Drover.Workflows;
using Drover.Workflows.Diagnostics;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Runs;

/// <summary>
/// The lane: the only writer of a target. Candidates are rows. Each was merged and gated outside; with the tip unmoved and the
/// evidence there, landing is one compare-and-swap. A moved tip is merged and gated here, once, before the ref moves.
/// <para>Crash points (<c>landing.N.before/after</c>): 1 next · 2 plan · 3 intend · 4 advance · 5 settle.</para>
/// </summary>
internal static class LandingFlow
{
    private const int CandidatesPerGeneration = 80;
    private static readonly TimeSpan HeldPause = TimeSpan.FromSeconds(3);
    private static readonly StepOptions Patient = new()
    {
        Attempts = 20,
        Backoff = TimeSpan.FromMilliseconds(500),
        MaxBackoff = TimeSpan.FromSeconds(30),
        RetryIf = e => e is IOException or DroverException { Code: not ErrorCode.NotFound },
    };

    public static readonly Workflow<LaneInput, string> Definition =
        Workflow.Define<LaneInput, string>("LandingWorkflow", RunAsync, WorkflowLimits.None);

    /// <summary>Makes sure that a lane looks at the target; part of the transaction that gives it something to do, under the target's lock.</summary>
    public static void Wake(WorkflowTransaction tx, string project, string target) =>
        tx.Enqueue(Protocol.LandingQueue(project), Definition, new LaneInput(project, target), new()
        {
            WorkflowId = $"drover:{project}:landing:{Guid.CreateVersion7():N}",
            DeduplicationId = target,
            ReturnDeduplicated = true,
        });

    private static async Task<string> RunAsync(WorkflowContext context, LaneInput lane)
    {
        for (int i = 0; i < CandidatesPerGeneration; i++)
        {
            int round = i;
            LaneCandidate? next = await TransactAsync(context, 1, "next", tx => Next(tx, lane, round));
            if (next is not { } candidate)
                return "empty";
            if (candidate.Held)
                await context.SleepAsync(HeldPause);
            await LandOneAsync(context, lane, candidate);
        }
        // The successor takes the deduplication id over in the same commit, so there is no moment without a lane.
        return await context.ContinueAsNewAsync(Definition, lane);
    }

    // "No candidate" and letting go of the lane are one transaction under the target's lock: a candidate inserted after it wakes
    // a new lane, one inserted before it is seen here.
    private static LaneCandidate? Next(WorkflowTransaction tx, LaneInput lane, int round)
    {
        SqlSession db = tx.Session;
        Board.LockTarget(db, lane.Project, lane.Target);
        IReadOnlyList<LandingRow> open = Board.OpenCandidates(db, lane.Project, lane.Target);
        LandingRow? row = open.FirstOrDefault(c => c.State == LandingState.Intended) ?? open.FirstOrDefault(c => c.State == LandingState.Waiting)
            ?? (open.Count > 0 ? open[round % open.Count] : null);
        if (row is null)
        {
            tx.LetGoOfDeduplicationId();
            return null;
        }
        TaskRow task = Board.Get(db, lane.Project, row.Task);
        AttemptRow? attempt = Board.FindAttempt(db, lane.Project, row.Task, row.Attempt);
        return new LaneCandidate(row.Task, row.Attempt, task.Title, row.WorkOid, row.TreeOid, row.Evidence, row.IntendedOid, row.IntendedBase,
            attempt?.BaseOid ?? row.WorkOid, task.TestCommand, row.QueuedAt, row.State == LandingState.Held, attempt?.WorkflowId);
    }

    // Whatever goes wrong with one candidate holds that candidate, with the reason; the lane goes on with the others.
    private static async Task LandOneAsync(WorkflowContext context, LaneInput lane, LaneCandidate candidate)
    {
        LanePlan plan;
        try
        {
            plan = await MoveAsync(context, lane, candidate);
        }
        catch (StepFailedException e)
        {
            plan = new LanePlan("held", null, null, RunFlow.OneLine($"{e.StepName}: {e.Message}"), null);
        }
        if (plan.Verdict != "withdrawn")
            await TransactAsync(context, 5, "settle", tx => Settle(tx, lane, candidate, plan));
    }

    private static async Task<LanePlan> MoveAsync(WorkflowContext context, LaneInput lane, LaneCandidate candidate)
    {
        LanePlan plan = await StepAsync(context, 2, "plan", (steps, ct) => steps.PlanAsync(lane, candidate, ct));
        if (plan.Verdict == "ready")
        {
            bool intended = await TransactAsync(context, 3, "intend", tx => Board.RecordIntent(
                tx.Session, lane.Project, candidate.Task, candidate.Attempt, plan.Oid!, plan.Tip!, candidate.Title, plan.Text ?? ""));
            if (!intended)
                return plan with { Verdict = "withdrawn" };
            LaneMove move = await StepAsync(context, 4, "advance", (steps, ct) => steps.AdvanceAsync(lane, plan, ct));
            plan = plan with { Verdict = move.Verdict, Text = move.Text, Paths = move.Paths };
        }
        return plan;
    }

    private static bool Settle(WorkflowTransaction tx, LaneInput lane, LaneCandidate candidate, LanePlan plan)
    {
        SqlSession db = tx.Session;
        bool applied = plan.Verdict switch
        {
            "landed" => Board.MarkLanded(db, lane.Project, candidate.Task, candidate.Attempt, plan.Oid!),
            "stale" => Board.ClearIntent(db, lane.Project, candidate.Task, candidate.Attempt, plan.Oid ?? candidate.IntendedOid ?? ""),
            "held" => Board.HoldCandidate(db, lane.Project, candidate.Task, candidate.Attempt, plan.Text ?? "checkout", plan.Paths?.ToList() ?? []),
            "conflict" => Board.RejectCandidate(db, lane.Project, candidate.Task, candidate.Attempt, LandingState.Conflict, plan.Text ?? "conflict"),
            "red" => Board.RejectCandidate(db, lane.Project, candidate.Task, candidate.Attempt, LandingState.Red, plan.Text ?? "red"),
            _ => throw new DroverException(ErrorCode.NonDeterminism, $"unknown landing verdict {plan.Verdict}"),
        };
        if (candidate.WorkflowId is { } workflow && tx.Status(workflow) is { IsEnded: false })
            tx.Send(workflow, plan.Verdict, Protocol.LandingTopic);
        TaskFlow.TellRun(tx, lane.Project, candidate.Task);
        return applied;
    }

    private static Task<T> StepAsync<T>(WorkflowContext context, int number, string name, Func<LaneSteps, CancellationToken, Task<T>> body) =>
        context.StepAsync(name, async step =>
        {
            CrashPoints.Reach($"landing.{number}.before");
            T result = await body(RunServices.From(step.Services).Lane, step.CancellationToken).ConfigureAwait(false);
            CrashPoints.Reach($"landing.{number}.after");
            return result;
        }, Patient);

    private static Task<T> TransactAsync<T>(WorkflowContext context, int number, string name, Func<WorkflowTransaction, T> work) =>
        context.TransactAsync(name, tx =>
        {
            CrashPoints.Reach($"landing.{number}.before");
            T result = work(tx);
            CrashPoints.Reach($"landing.{number}.after");
            return result;
        });
}
