using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Orchestrator.Runs;

/// <summary>A person's commands on tasks, from any process: the row and the live workflow change in one transaction.</summary>
public static class TaskControl
{
    /// <summary>
    /// Cancels a task and the workflow that works on it; a running agent is stopped within a second. When its commit may
    /// already be on its way to the target, nothing changes and the answer says so.
    /// </summary>
    public static Task<CancelAnswer> CancelAsync(WorkflowClient client, string project, string task, string? reason, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(client);
        return client.TransactAsync(tx =>
        {
            CancelAnswer answer = Board.Cancel(tx.Session, project, task, reason);
            if (answer is { Result: CancelResult.Cancelled, WorkflowId: { } workflow })
                tx.Cancel(workflow);
            TaskFlow.TellRun(tx, project, task);
            return answer;
        }, cancellationToken);
    }

    /// <summary>Opens a failed or cancelled task again; a live run takes it up at once.</summary>
    public static Task<TaskRow> RetryAsync(WorkflowClient client, string project, string task, bool force, int maxAttempts, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(client);
        return client.TransactAsync(tx =>
        {
            // The stricter of the two limits a run may come with: at least one attempt must be left under either.
            int limit = Math.Min(maxAttempts, Board.LatestRun(tx.Session, project)?.MaxAttempts ?? maxAttempts);
            TaskRow row = Board.Retry(tx.Session, project, task, force, limit);
            TaskFlow.TellRun(tx, project, task);
            return row;
        }, cancellationToken);
    }

    /// <summary>Answers a paused task; a live run takes it up at once.</summary>
    public static Task<TaskRow> ResolveAsync(WorkflowClient client, string project, string task, Resolution resolution, string? note, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(client);
        return client.TransactAsync(tx =>
        {
            TaskRow row = Board.Resolve(tx.Session, project, task, resolution, note);
            TaskFlow.TellRun(tx, project, task);
            return row;
        }, cancellationToken);
    }
}
