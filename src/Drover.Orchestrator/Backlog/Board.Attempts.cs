using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

/// <summary>A task that a run has reserved.</summary>
/// <remarks><paramref name="Attempt"/>: The attempt's number; a continued attempt keeps it.</remarks>
/// <remarks><paramref name="Continuation"/>: 0 for a new attempt; k when the same attempt is continued for the k-th time.</remarks>
/// <remarks><paramref name="WorkflowId"/>: The id under which the task's workflow is to be started.</remarks>
/// <remarks><paramref name="MaxAttempts"/>: The limit that holds for this task.</remarks>
public sealed record ClaimedTask(string Task, string Title, string? Epic, int Priority, int Attempt, int Continuation, string WorkflowId, int MaxAttempts);

/// <summary>What became of a task whose attempt failed.</summary>
/// <remarks><paramref name="Applied"/>: False when the attempt was no longer the task's: nothing was written.</remarks>
/// <remarks><paramref name="NotBefore"/>: When another attempt may start; null when the task failed for good.</remarks>
public sealed record AttemptFate(bool Applied, long? NotBefore);

/// <summary>Facts about an attempt; a null leaves the column as it is.</summary>
public sealed record AttemptFacts
{
#pragma warning disable CS1591 // see AttemptRow
    public string? Phase { get; init; }
    public string? BaseOid { get; init; }
    public string? Worktree { get; init; }
    public string? Branch { get; init; }
    public string? Agent { get; init; }
    public string? SessionId { get; init; }
    public string? WorkOid { get; init; }
    public string? TreeOid { get; init; }
    public string? GateOutput { get; init; }
    public int? Turns { get; init; }
    public bool? ConflictTurnUsed { get; init; }
    /// <summary>The conflict that was turned over to the agent, as the Runs room writes it.</summary>
    public string? Conflict { get; init; }
    public long? Tokens { get; init; }
    public long? CostMicros { get; init; }
    public string? LogPath { get; init; }
#pragma warning restore CS1591
}

public static partial class Board
{
    /// <summary>The workflow id of an attempt: <c>drover:&lt;project&gt;:task:&lt;task&gt;:&lt;attempt&gt;</c>, with <c>.r&lt;k&gt;</c> when it is continued.</summary>
    public static string TaskWorkflowId(string project, string task, int attempt, int continuation) =>
        $"drover:{project}:task:{task}:{attempt}" + (continuation > 0 ? $".r{continuation}" : "");

    /// <summary>
    /// Reserves up to <paramref name="room"/> runnable tasks for an active run, in claim order. A new attempt is counted here, not
    /// when it fails, so that a task which kills its host cannot be tried for ever. Claims nothing for a run that has ended,
    /// drains, or was stopped by a failure.
    /// </summary>
    public static IReadOnlyList<ClaimedTask> ClaimRunnable(SqlSession db, string project, string runId, int room)
    {
        ArgumentNullException.ThrowIfNull(db);
        var claimed = new List<ClaimedTask>();
        if (room <= 0 || FindRun(db, project, runId) is not { Active: true, Draining: false } run || StoppedBy(db, project, run) is not null)
            return claimed;
        long at = Now(db);
        Readiness readiness = Readiness.Load(db, project, run.Epic, unfinishedOnly: true);
        foreach (string id in readiness.Runnable())
        {
            if (claimed.Count == room)
                break;
            TaskRow task = Get(db, project, id);
            int limit = task.MaxAttempts ?? run.MaxAttempts;
            if (task.Continues is null && task.Consumed >= limit)
                FailUnstarted(db, project, task, limit, at);
            else if (Claim(db, project, task, run.Id, limit, at) is { } one)
                claimed.Add(one);
        }
        return claimed;
    }

    private static ClaimedTask? Claim(SqlSession db, string project, TaskRow task, string runId, int limit, long at)
    {
        bool continues = task.Continues is not null;
        int attempt = task.Continues ?? task.Attempts + 1;
        int continuation = continues ? (FindAttempt(db, project, task.Id, attempt)?.Continuation ?? 0) + 1 : 0;
        string workflowId = TaskWorkflowId(project, task.Id, attempt, continuation);
        int changed = db.Execute("""
            UPDATE {d}tasks SET status = 'claimed', attempts = @attempt, consumed = @consumed, continues = NULL, not_before = NULL,
                run_id = @run, claimed_at = @at, workflow_id = @workflow, updated_at = @at2
            WHERE project = @project AND id = @task AND status = 'open' AND attempts = @expected
            """,
            ("@attempt", (long)attempt), ("@consumed", (long)(task.Consumed + (continues ? 0 : 1))), ("@run", runId), ("@at", at), ("@workflow", workflowId),
            ("@at2", at), ("@project", project), ("@task", task.Id), ("@expected", (long)task.Attempts));
        if (changed == 0)
            return null;
        if (continues)
        {
            db.Execute("""
                UPDATE {d}attempts SET state = 'claimed', continuation = @continuation, workflow_id = @workflow, run_id = @run, ended_at = NULL, outcome = NULL
                WHERE project = @project AND task = @task AND n = @n
                """,
                ("@continuation", (long)continuation), ("@workflow", workflowId), ("@run", runId), ("@project", project), ("@task", task.Id), ("@n", (long)attempt));
        }
        else
        {
            db.Execute("""
                INSERT INTO {d}attempts (project, task, n, run_id, workflow_id, state, claimed_at)
                VALUES (@project, @task, @n, @run, @workflow, 'claimed', @at)
                """,
                ("@project", project), ("@task", task.Id), ("@n", (long)attempt), ("@run", runId), ("@workflow", workflowId), ("@at", at));
        }
        Event(db, project, at, "task.claimed", task.Id, task.Epic, runId, ("attempt", attempt), ("continuation", continuation), ("workflow", workflowId));
        return new ClaimedTask(task.Id, task.Title, task.Epic, task.Priority, attempt, continuation, workflowId, limit);
    }

    // Reached only when the limit was lowered after the attempts were made: "max attempts" means exactly that.
    private static void FailUnstarted(SqlSession db, string project, TaskRow task, int limit, long at)
    {
        int changed = db.Execute("""
            UPDATE {d}tasks SET status = 'failed', not_before = NULL, updated_at = @at
            WHERE project = @project AND id = @task AND status = 'open' AND attempts = @attempt
            """, ("@at", at), ("@project", project), ("@task", task.Id), ("@attempt", (long)task.Attempts));
        if (changed > 0)
            Event(db, project, at, "task.failed", task.Id, task.Epic, task.RunId, ("attempt", task.Attempts), ("error", $"{task.Consumed} attempts made, {limit} allowed"));
    }

    /// <summary>The task's workflow begins (or begins again, for a continued attempt). False: the claim is no longer this attempt's.</summary>
    public static bool StartAttempt(SqlSession db, string project, string task, int attempt, AttemptFacts facts)
    {
        if (Applicable(db, project, task, attempt, TaskCommand.Start) is not { } row || !SetStatus(db, project, row, TaskCommand.Start, out long at))
            return false;
        db.Execute("""
            UPDATE {d}attempts SET state = 'running', started_at = COALESCE(started_at, @at) WHERE project = @project AND task = @task AND n = @n
            """, ("@at", at), ("@project", project), ("@task", task), ("@n", (long)attempt));
        WriteFacts(db, project, task, attempt, facts);
        Event(db, project, at, "task.started", task, row.Epic, row.RunId, ("attempt", attempt), ("worktree", facts.Worktree), ("base", facts.BaseOid), ("agent", facts.Agent));
        return true;
    }

    /// <summary>Records facts of the running attempt. False: the attempt is no longer the task's running one; nothing was written.</summary>
    public static bool RecordFacts(SqlSession db, string project, string task, int attempt, AttemptFacts facts)
    {
        if (Find(db, project, task) is not { Status: StoredStatus.InProgress } row || row.Attempts != attempt)
            return false;
        WriteFacts(db, project, task, attempt, facts);
        if (facts.Phase is { } phase)
            Event(db, project, Now(db), "task.phase", task, row.Epic, row.RunId, ("attempt", attempt), ("phase", phase));
        return true;
    }

    /// <summary>Records the attempt's commit and its tree. False as in <see cref="RecordFacts"/>.</summary>
    public static bool RecordWork(SqlSession db, string project, string task, int attempt, string workOid, string treeOid) =>
        RecordFacts(db, project, task, attempt, new AttemptFacts { WorkOid = workOid, TreeOid = treeOid });

    private static void WriteFacts(SqlSession db, string project, string task, int attempt, AttemptFacts facts)
    {
        ArgumentNullException.ThrowIfNull(facts);
        db.Execute("""
            UPDATE {d}attempts SET phase = COALESCE(@phase, phase), base_oid = COALESCE(@base, base_oid), worktree = COALESCE(@worktree, worktree),
                branch = COALESCE(@branch, branch), agent = COALESCE(@agent, agent), session_id = COALESCE(@session, session_id),
                work_oid = COALESCE(@work, work_oid), tree_oid = COALESCE(@tree, tree_oid), gate_output = COALESCE(@gate, gate_output),
                turns = COALESCE(@turns, turns), conflict_turn_used = COALESCE(@conflict, conflict_turn_used), conflict = COALESCE(@given, conflict), tokens = COALESCE(@tokens, tokens),
                cost_micros = COALESCE(@cost, cost_micros), log_path = COALESCE(@log, log_path)
            WHERE project = @project AND task = @task AND n = @n
            """,
            ("@phase", facts.Phase), ("@base", facts.BaseOid), ("@worktree", facts.Worktree), ("@branch", facts.Branch), ("@agent", facts.Agent),
            ("@session", facts.SessionId), ("@work", facts.WorkOid), ("@tree", facts.TreeOid), ("@gate", facts.GateOutput),
            ("@turns", facts.Turns is { } turns ? (long)turns : null), ("@conflict", facts.ConflictTurnUsed is { } used ? (used ? 1L : 0L) : null),
            ("@given", facts.Conflict), ("@tokens", facts.Tokens), ("@cost", facts.CostMicros), ("@log", facts.LogPath), ("@project", project), ("@task", task), ("@n", (long)attempt));
    }

    /// <summary>The attempt ended without a change; the task is completed with the reason. False: no longer this attempt's.</summary>
    public static bool FinishNoOp(SqlSession db, string project, string task, int attempt, string reason)
    {
        if (Applicable(db, project, task, attempt, TaskCommand.NoOp) is not { } row || IsIntended(db, project, task))
            return false;
        long at = Now(db);
        int changed = db.Execute("""
            UPDATE {d}tasks SET status = 'completed', outcome = 'no-op', noop_reason = @reason, last_error = NULL, error_class = NULL,
                answer = NULL, answer_note = NULL, updated_at = @at
            WHERE project = @project AND id = @task AND status = 'in_progress' AND attempts = @attempt
            """, ("@reason", reason), ("@at", at), ("@project", project), ("@task", task), ("@attempt", (long)attempt));
        if (changed == 0)
            return false;
        Withdraw(db, project, task, at);
        EndAttempt(db, project, task, attempt, "no-op", null, null, at);
        Event(db, project, at, "task.completed", task, row.Epic, row.RunId, ("attempt", attempt), ("outcome", "no-op"), ("reason", reason));
        return true;
    }

    /// <summary>
    /// The attempt failed. While attempts are left the task goes back to open and waits by its failure's backoff; otherwise, or when
    /// the kind of failure would only repeat, it is failed. A landing that is already intended wins: then nothing is written.
    /// </summary>
    /// <remarks><paramref name="maxAttempts"/>: The limit from <see cref="ClaimedTask.MaxAttempts"/>.</remarks>
    /// <remarks><paramref name="gateOutput"/>: The tail of the gate's output, for the next attempt.</remarks>
    public static AttemptFate FailAttempt(SqlSession db, string project, string task, int attempt, FailureKind kind, string error, int maxAttempts, string? gateOutput = null)
    {
        if (Find(db, project, task) is not { } row || row.Attempts != attempt || row.Status is not (StoredStatus.Claimed or StoredStatus.InProgress) || IsIntended(db, project, task))
            return new AttemptFate(false, null);
        long at = Now(db);
        bool again = row.Consumed < (row.MaxAttempts ?? maxAttempts) && Failures.Retryable(kind);
        StoredStatus next = Require(row, again ? TaskCommand.FailAttempt : TaskCommand.FailTask);
        long? notBefore = again ? at + Failures.BackoffMs(kind, row.Consumed, task, attempt) : null;
        int changed = db.Execute("""
            UPDATE {d}tasks SET status = @to, last_error = @error, error_class = @class, not_before = @until, continues = NULL,
                answer = NULL, answer_note = NULL, updated_at = @at
            WHERE project = @project AND id = @task AND status = @from AND attempts = @attempt
            """,
            ("@to", next.Word()), ("@error", error), ("@class", Failures.Word(kind)), ("@until", notBefore), ("@at", at),
            ("@project", project), ("@task", task), ("@from", row.Status.Word()), ("@attempt", (long)attempt));
        if (changed == 0)
            return new AttemptFate(false, null);
        if (gateOutput is not null)
            WriteFacts(db, project, task, attempt, new AttemptFacts { GateOutput = gateOutput });
        Withdraw(db, project, task, at);
        EndAttempt(db, project, task, attempt, "failed", Failures.Word(kind), error, at);
        Event(db, project, at, again ? "task.retrying" : "task.failed", task, row.Epic, row.RunId,
            ("attempt", attempt), ("class", Failures.Word(kind)), ("error", error), ("notBefore", notBefore));
        return new AttemptFate(true, notBefore);
    }

    /// <summary>
    /// The attempt stopped without a verdict (<c>interrupt</c>, <c>limit</c>, <c>disk</c>, <c>protocol</c>, …): the next claim continues the
    /// same attempt, and nothing is counted. A candidate that waits keeps its place. False: no longer this attempt's.
    /// </summary>
    /// <remarks><paramref name="delayMs"/>: How long the task is left alone, in milliseconds.</remarks>
    public static bool ReleaseAttempt(SqlSession db, string project, string task, int attempt, string reason, long delayMs = 0)
    {
        if (Applicable(db, project, task, attempt, TaskCommand.Release) is not { } row)
            return false;
        long at = Now(db);
        int changed = db.Execute("""
            UPDATE {d}tasks SET status = 'open', continues = @attempt, not_before = @until, updated_at = @at
            WHERE project = @project AND id = @task AND status = @from AND attempts = @attempt2
            """,
            ("@attempt", (long)attempt), ("@until", delayMs > 0 ? at + delayMs : null), ("@at", at), ("@project", project), ("@task", task),
            ("@from", row.Status.Word()), ("@attempt2", (long)attempt));
        if (changed == 0)
            return false;
        db.Execute("UPDATE {d}attempts SET state = 'released' WHERE project = @project AND task = @task AND n = @n",
            ("@project", project), ("@task", task), ("@n", (long)attempt));
        Event(db, project, at, "task.released", task, row.Epic, row.RunId, ("attempt", attempt), ("reason", reason));
        return true;
    }

    /// <summary>The attempt needs a person: the task is paused with a reason of <see cref="PauseReason"/> and a question. False: no longer this attempt's, or it is landing.</summary>
    public static bool Pause(SqlSession db, string project, string task, int attempt, string reason, string question)
    {
        if (Applicable(db, project, task, attempt, TaskCommand.Pause) is not { } row || IsIntended(db, project, task))
            return false;
        long at = Now(db);
        int changed = db.Execute("""
            UPDATE {d}tasks SET status = 'paused', pause_reason = @reason, question = @question, answer = NULL, answer_note = NULL, updated_at = @at
            WHERE project = @project AND id = @task AND status = @from AND attempts = @attempt
            """,
            ("@reason", reason), ("@question", question), ("@at", at), ("@project", project), ("@task", task),
            ("@from", row.Status.Word()), ("@attempt", (long)attempt));
        if (changed == 0)
            return false;
        Withdraw(db, project, task, at);
        db.Execute("UPDATE {d}attempts SET state = 'paused' WHERE project = @project AND task = @task AND n = @n",
            ("@project", project), ("@task", task), ("@n", (long)attempt));
        Event(db, project, at, "task.paused", task, row.Epic, row.RunId, ("attempt", attempt), ("reason", reason), ("question", question));
        return true;
    }

    /// <summary>A person's answer was acted on: it holds for nothing that comes after it.</summary>
    public static void ForgetAnswer(SqlSession db, string project, string task, int attempt)
    {
        ArgumentNullException.ThrowIfNull(db);
        db.Execute("UPDATE {d}tasks SET answer = NULL, answer_note = NULL WHERE project = @project AND id = @task AND attempts = @attempt",
            ("@project", project), ("@task", task), ("@attempt", (long)attempt));
    }

    /// <summary>Claimed tasks whose workflow has not begun within the claim timeout.</summary>
    public static IReadOnlyList<(string Task, int Attempt)> StaleClaims(SqlSession db, string project, long timeoutMs)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.Query("SELECT id, attempts FROM {d}tasks WHERE project = @project AND status = 'claimed' AND claimed_at < @before ORDER BY id",
            r => (r.GetString(0), (int)r.GetInt64(1)), ("@project", project), ("@before", Now(db) - timeoutMs));
    }

    private static bool SetStatus(SqlSession db, string project, TaskRow row, TaskCommand command, out long at)
    {
        at = Now(db);
        return db.Execute("""
            UPDATE {d}tasks SET status = @to, updated_at = @at WHERE project = @project AND id = @task AND status = @from AND attempts = @attempt
            """,
            ("@to", Require(row, command).Word()), ("@at", at), ("@project", project), ("@task", row.Id), ("@from", row.Status.Word()), ("@attempt", (long)row.Attempts)) > 0;
    }

    private static void EndAttempt(SqlSession db, string project, string task, int attempt, string outcome, string? errorClass, string? error, long at) =>
        db.Execute("""
            UPDATE {d}attempts SET state = 'ended', phase = NULL, outcome = @outcome, error_class = @class, error = @error, ended_at = @at
            WHERE project = @project AND task = @task AND n = @n AND state <> 'ended'
            """,
            ("@outcome", outcome), ("@class", errorClass), ("@error", error), ("@at", at), ("@project", project), ("@task", task), ("@n", (long)attempt));
}
