using Drover.Orchestrator.Backlog;
using Drover.Workflows;
using Drover.Workflows.Diagnostics;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Runs;

/// <summary>
/// The run: claims at most the free slots, enqueues their tasks in the same transaction, waits to be told, and looks again. It
/// decides from rows only; a message is a hint. Ends with a reasoned outcome.
/// </summary>
internal static class RunFlow
{
    // Two or three checkpoints a look: a successor takes over before the history exceeds about 500 rows.
    private const int LooksPerGeneration = 160;
    private static readonly TimeSpan LongestWait = TimeSpan.FromSeconds(15);

    public static readonly Workflow<RunInput, string> Definition =
        Workflow.Define<RunInput, string>("DroverRunWorkflow", RunAsync, WorkflowLimits.None);

    private static async Task<string> RunAsync(WorkflowContext context, RunInput input)
    {
        TimeSpan wait = TimeSpan.FromSeconds(1);
        for (int look = 0; look < LooksPerGeneration; look++)
        {
            RunLook seen = await context.TransactAsync("look", tx => Look(tx, input, context.WorkflowId, RunServices.From(tx.Services)));
            if (seen.Outcome is { } outcome)
                return outcome;
            wait = seen.Started > 0 ? TimeSpan.FromSeconds(1) : wait * 2 < LongestWait ? wait * 2 : LongestWait;
            TimeSpan pause = seen.NextStart is { } ms && ms < wait.TotalMilliseconds ? TimeSpan.FromMilliseconds(Math.Max(50, ms)) : wait;
            await context.ReceiveAsync<string>(Protocol.TasksTopic, pause);
        }
        return await context.ContinueAsNewAsync(Definition, input);
    }

    // One transaction: what ended abnormally is put right, free slots are filled, and the end is recorded when it has come.
    private static RunLook Look(WorkflowTransaction tx, RunInput input, string workflowId, RunServices services)
    {
        CrashPoints.Reach("run.1");
        SqlSession db = tx.Session;
        if (Board.FindRun(db, input.Project, input.Run) is not { Active: true } run)
            return new RunLook(0, "ended", null);
        // Recovered before this process has adopted the run: its options, and whether it drains, are still those of the last one.
        if (run.ExecutorId != services.ExecutorId)
            return new RunLook(0, null, 200);
        db.Execute("UPDATE {d}runs SET workflow_id = @workflow WHERE project = @project AND id = @run",
            ("@workflow", workflowId), ("@project", input.Project), ("@run", input.Run));
        PutRight(tx, input.Project, run.MaxAttempts, services.Settings.ClaimTimeout);
        // A lane that ended with an error is replaced; one that lives keeps its place by its deduplication id.
        if (Board.OpenCandidates(db, input.Project, run.Target).Count > 0)
            LandingFlow.Wake(tx, input.Project, run.Target);
        int active = (int)db.Number(
            "SELECT count(*) FROM {d}tasks WHERE project = @project AND status IN ('claimed', 'in_progress')", ("@project", input.Project));
        IReadOnlyList<ClaimedTask> claimed = Board.ClaimRunnable(db, input.Project, input.Run, run.Workers - active);
        foreach (ClaimedTask task in claimed)
        {
            tx.Enqueue(Protocol.TaskQueue(input.Project, run.Workers), TaskFlow.Definition,
                new TaskInput(input.Project, input.Run, task.Task, task.Attempt, task.Continuation, task.MaxAttempts),
                new() { WorkflowId = task.WorkflowId, Priority = Protocol.EnginePriority(task.Priority) });
        }
        RunVerdict verdict = Board.VerdictOf(db, input.Project, run);
        long? next = verdict.NextStart is { } at ? at - tx.NowMs : null;
        if (verdict.Outcome is not { } outcome)
            return new RunLook(claimed.Count, null, next);
        Board.EndRun(db, input.Project, input.Run, outcome);
        CrashPoints.Reach("run.2");
        return new RunLook(claimed.Count, outcome.ToString(), null);
    }

    // A task whose workflow is gone, ended without a word, or belongs to an older protocol goes on from its rows, as the same attempt.
    private static void PutRight(WorkflowTransaction tx, string project, int maxAttempts, TimeSpan claimTimeout)
    {
        SqlSession db = tx.Session;
        foreach ((string task, int attempt) in Board.StaleClaims(db, project, (long)claimTimeout.TotalMilliseconds))
        {
            if (Board.FindAttempt(db, project, task, attempt) is { } stale)
                tx.Cancel(stale.WorkflowId);
            Board.ReleaseAttempt(db, project, task, attempt, "claim timeout");
        }
        foreach ((string task, int attempt, string? workflow) in db.Query(
            "SELECT id, attempts, workflow_id FROM {d}tasks WHERE project = @project AND status IN ('claimed', 'in_progress') ORDER BY id",
            r => (r.GetString(0), (int)r.GetInt64(1), r.TextOrNull(2)), ("@project", project)))
        {
            WorkflowStatus? status = workflow is null ? null : tx.Status(workflow);
            if (status is { IsEnded: false } && (Protocol.NumberOf(status.ApplicationVersion) ?? Protocol.Current) >= Protocol.Current)
                continue;
            if (status is { State: WorkflowState.Error or WorkflowState.MaxRecoveryAttemptsExceeded })
            {
                // Counted: a task that ends its host every time must not be tried for ever.
                string why = status.State == WorkflowState.Error ? "its workflow failed: " + OneLine(status.Error ?? "unknown") : "it was recovered too often without progress";
                Board.FailAttempt(db, project, task, attempt, FailureKind.Environment, why, maxAttempts);
                continue;
            }
            if (status is { IsEnded: false })
                tx.Cancel(status.Id);
            Board.ReleaseAttempt(db, project, task, attempt, status is null ? "lost" : "protocol");
        }
    }

    internal static string OneLine(string text)
    {
        string line = text.ReplaceLineEndings(" ").Trim();
        return line.Length <= 500 ? line : line[..500] + "…";
    }
}
