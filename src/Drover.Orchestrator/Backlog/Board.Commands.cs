using Drover.Workflows;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

/// <summary>What became of a cancel.</summary>
public enum CancelResult
{
    /// <summary>The task is cancelled; its workflow, when it has one, is to be cancelled too.</summary>
    Cancelled,
    /// <summary>It was cancelled before; nothing changed.</summary>
    AlreadyCancelled,
    /// <summary>Its commit may already be on its way to the target: wait for the result.</summary>
    Landing,
}

/// <summary>The result of a cancel, and the workflow that works on the task, when one does.</summary>
public sealed record CancelAnswer(CancelResult Result, string? WorkflowId);

/// <summary>A person's answer to a paused task.</summary>
public enum Resolution
{
    /// <summary>Land what waits.</summary>
    Accept,
    /// <summary>The same attempt, one more turn of the agent.</summary>
    Continue,
    /// <summary>The task fails; its work stays under its ref.</summary>
    Abandon,
}

public static partial class Board
{
    /// <summary>Cancels a task and withdraws its candidate, in one transaction.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.NotFound"/>, or <see cref="ErrorCode.Conflict"/> for a completed or failed task.</exception>
    public static CancelAnswer Cancel(SqlSession db, string project, string task, string? reason = null)
    {
        TaskRow row = Get(db, project, task);
        if (row.LandedOid is { } oid)
            throw new DroverException(ErrorCode.Conflict, $"{task} has already landed as {oid}: revert that commit to take it back");
        StoredStatus next = Require(row, TaskCommand.Cancel);
        if (next == row.Status)
            return new CancelAnswer(CancelResult.AlreadyCancelled, null);
        if (IsIntended(db, project, task))
            return new CancelAnswer(CancelResult.Landing, row.WorkflowId);
        long at = Now(db);
        Move(db, project, row, next, at, """
            UPDATE {d}tasks SET status = @to, pause_reason = NULL, question = NULL, answer = NULL, answer_note = NULL, continues = NULL, not_before = NULL, updated_at = @at
            WHERE project = @project AND id = @task AND status = @from AND attempts = @attempt
            """);
        Withdraw(db, project, task, at);
        EndAttempt(db, project, task, row.Attempts, "cancelled", null, reason, at);
        Event(db, project, at, "task.cancelled", task, row.Epic, row.RunId, ("attempt", row.Attempts), ("reason", reason));
        return new CancelAnswer(CancelResult.Cancelled, row.Status is StoredStatus.Claimed or StoredStatus.InProgress ? row.WorkflowId : null);
    }

    /// <summary>
    /// Opens a failed or cancelled task again with at least one new attempt, or ends the backoff of an open one.
    /// </summary>
    /// <remarks><paramref name="force"/>: True: the whole number of attempts is allowed again. Attempt numbers go on in any case.</remarks>
    /// <remarks><paramref name="maxAttempts"/>: The limit for tasks without one of their own.</remarks>
    /// <exception cref="DroverException"><see cref="ErrorCode.NotFound"/>, or <see cref="ErrorCode.Conflict"/> in any other status.</exception>
    public static TaskRow Retry(SqlSession db, string project, string task, bool force, int maxAttempts)
    {
        TaskRow row = Get(db, project, task);
        StoredStatus next = Require(row, TaskCommand.Retry);
        int limit = row.MaxAttempts ?? maxAttempts;
        int consumed = force ? 0 : Math.Min(row.Consumed, Math.Max(0, limit - 1));
        long at = Now(db);
        int changed = db.Execute("""
            UPDATE {d}tasks SET status = @to, consumed = @consumed, not_before = NULL, run_id = NULL, updated_at = @at
            WHERE project = @project AND id = @task AND status = @from AND attempts = @attempt
            """,
            ("@to", next.Word()), ("@consumed", (long)consumed), ("@at", at), ("@project", project), ("@task", task),
            ("@from", row.Status.Word()), ("@attempt", (long)row.Attempts));
        if (changed == 0)
            throw Moved(task);
        Event(db, project, at, "task.retried", task, row.Epic, null, ("force", force), ("from", row.Status.Word()));
        return Get(db, project, task);
    }

    /// <summary>Answers a paused task. Accepting and continuing open it, so that a run takes the same attempt up again; the answer is in the row until the attempt ends.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.NotFound"/>, or <see cref="ErrorCode.Conflict"/> when it is not paused or has nothing to accept.</exception>
    public static TaskRow Resolve(SqlSession db, string project, string task, Resolution resolution, string? note = null)
    {
        TaskRow row = Get(db, project, task);
        TaskCommand command = resolution switch
        {
            Resolution.Accept => TaskCommand.ResolveAccept,
            Resolution.Continue => TaskCommand.ResolveContinue,
            _ => TaskCommand.ResolveAbandon,
        };
        StoredStatus next = Require(row, command);
        if (note is not null)
            TextRules.Lines("note", note, TextRules.MaxNote);
        if (resolution == Resolution.Accept && row.PauseReason is PauseReason.Conflict or PauseReason.Setup)
            throw new DroverException(ErrorCode.Conflict, $"{task} is paused by a {row.PauseReason}: there is nothing that could land; use --continue or --abandon");
        long at = Now(db);
        if (resolution == Resolution.Abandon)
        {
            Move(db, project, row, next, at, """
                UPDATE {d}tasks SET status = @to, last_error = COALESCE(question, pause_reason), error_class = 'abandoned', pause_reason = NULL, question = NULL, updated_at = @at
                WHERE project = @project AND id = @task AND status = @from AND attempts = @attempt
                """);
            EndAttempt(db, project, task, row.Attempts, "abandoned", null, note, at);
        }
        else
        {
            int changed = db.Execute("""
                UPDATE {d}tasks SET status = @to, pause_reason = NULL, answer = @answer, answer_note = @note, continues = @attempt, not_before = NULL, updated_at = @at
                WHERE project = @project AND id = @task AND status = @from AND attempts = @expected
                """,
                ("@to", next.Word()), ("@answer", resolution == Resolution.Accept ? "accept" : "continue"), ("@note", note), ("@attempt", (long)row.Attempts),
                ("@at", at), ("@project", project), ("@task", task), ("@from", row.Status.Word()), ("@expected", (long)row.Attempts));
            if (changed == 0)
                throw Moved(task);
            db.Execute("UPDATE {d}attempts SET state = 'released' WHERE project = @project AND task = @task AND n = @n",
                ("@project", project), ("@task", task), ("@n", (long)row.Attempts));
        }
        Event(db, project, at, "task.resolved", task, row.Epic, row.RunId, ("attempt", row.Attempts), ("answer", resolution.ToString().ToLowerInvariant()), ("note", note));
        return Get(db, project, task);
    }

    private static void Move(SqlSession db, string project, TaskRow row, StoredStatus next, long at, string sql)
    {
        if (db.Execute(sql, ("@to", next.Word()), ("@at", at), ("@project", project), ("@task", row.Id), ("@from", row.Status.Word()), ("@attempt", (long)row.Attempts)) == 0)
            throw Moved(row.Id);
    }

    private static DroverException Moved(string task) => new(ErrorCode.Conflict, $"{task} was changed by somebody else in this moment: look at `drover info {task}` and try again");
}
